//! Append and sync through the log, against the same bytes written and synced by hand.
//!
//! `cargo bench -p raft-store --bench log`. For every shape three ways are measured in turn: the
//! log, a bare write + fdatasync into a file written full of zeroes before, and the same into a
//! file that grows. Criterion gives the latencies; a table at the end gives the CPU time per
//! operation of the whole process (all threads, user and system), from `/proc`.
//! `LOG_BENCH_DIR` chooses the disk.

use std::fs::{self, File, OpenOptions};
use std::hint::black_box;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::time::{Duration, Instant};

use bytes::Bytes;
use criterion::Criterion;
use raft_store::files::Disk;
use raft_store::log::{Log, LogPosition, Options, Record};

/// Entries per append and bytes per entry.
const SHAPES: [(&str, u64, usize); 4] = [
    ("200 B x 1", 1, 200),
    ("200 B x 64", 64, 200),
    ("200 B x 1024", 1024, 200),
    ("200 KiB x 1", 1, 200 << 10),
];
/// Rounds of the CPU table; the ways take turns, so that other load hits all of them.
const CPU_ROUNDS: usize = 5;
/// Wall time per way and round of the CPU table.
const CPU_ROUND_TIME: Duration = Duration::from_millis(600);
/// Operations before the CPU table counts: the largest shape then has filled the log's memory of
/// its newest entries, which costs page faults once.
const WARM_UP: usize = 400;
/// The bare file is written from the start again beyond this.
const BARE_BYTES: u64 = 64 << 20;

/// One way of making the bytes of an append durable.
trait Way {
    fn run(&mut self);
}

struct Logged {
    log: Log,
    payload: Bytes,
    count: u64,
    next: u64,
    acknowledge: SyncSender<()>,
    acknowledged: Receiver<()>,
}

/// Writes the same number of bytes (payloads and record headers) with one call, and syncs.
struct Bare {
    file: File,
    bytes: Vec<u8>,
    offset: u64,
    grows: bool,
}

impl Logged {
    fn new(dir: &Path, count: u64, bytes: usize) -> Self {
        let log = Log::open(dir, Arc::new(Disk), Options::default()).expect("open the log");
        let (acknowledge, acknowledged) = sync_channel(1);
        let payload = Bytes::from(noise(bytes));
        let next = log.last().map_or(0, |last| last.index + 1);
        Self { log, payload, count, next, acknowledge, acknowledged }
    }
}

impl Way for Logged {
    fn run(&mut self) {
        let record = |index| Record {
            at: LogPosition { term: 1, leader: 1, index },
            kind: 0,
            payload: self.payload.clone(),
        };
        let records = (self.next..self.next + self.count).map(record).collect();
        self.next += self.count;
        let acknowledge = self.acknowledge.clone();
        let done = Box::new(move |result: std::io::Result<()>| {
            result.expect("append");
            acknowledge.send(()).expect("the bench waits");
        });
        self.log.append(records, done).expect("append");
        self.acknowledged.recv().expect("acknowledged");
        // Keep the disk bounded, as a server does behind its snapshots.
        if self.log.stats().bytes_on_disk > 4 * BARE_BYTES {
            let at = LogPosition { term: 1, leader: 1, index: self.next - 1 };
            self.log.purge(at, Box::new(|_| {})).expect("purge");
        }
    }
}

impl Bare {
    fn new(path: &Path, count: u64, bytes: usize, grows: bool) -> Self {
        let mut options = OpenOptions::new();
        let file = options.read(true).write(true).create(true).truncate(true).open(path);
        let file = file.expect("create the bare file");
        if !grows {
            for offset in (0..BARE_BYTES).step_by(1 << 20) {
                file.write_all_at(&[0; 1 << 20], offset).expect("write zeroes");
            }
            file.sync_all().expect("sync zeroes");
        }
        let count = usize::try_from(count).expect("a small count");
        let bytes = noise(count * (bytes + 40).next_multiple_of(8));
        Self { file, bytes, offset: 0, grows }
    }
}

impl Way for Bare {
    fn run(&mut self) {
        if self.offset + self.bytes.len() as u64 > BARE_BYTES {
            self.offset = 0;
            if self.grows {
                self.file.set_len(0).expect("truncate");
            }
        }
        self.file.write_all_at(black_box(&self.bytes), self.offset).expect("write");
        self.file.sync_data().expect("sync");
        self.offset += self.bytes.len() as u64;
    }
}

/// Bytes that do not compress, the same every time.
fn noise(bytes: usize) -> Vec<u8> {
    let mut state = 1_u64;
    let next = || {
        state =
            state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        state.to_be_bytes()[0]
    };
    std::iter::repeat_with(next).take(bytes).collect()
}

fn ways(dir: &Path, count: u64, bytes: usize) -> Vec<(&'static str, Box<dyn Way>)> {
    fs::create_dir_all(dir).expect("create the bench directory");
    vec![
        ("log", Box::new(Logged::new(&dir.join("log"), count, bytes))),
        ("bare zeroed", Box::new(Bare::new(&dir.join("zeroed"), count, bytes, false))),
        ("bare growing", Box::new(Bare::new(&dir.join("growing"), count, bytes, true))),
    ]
}

/// CPU time of all threads of this process so far, user and system, in nanoseconds' grain.
fn cpu_time() -> Duration {
    let tasks = fs::read_dir("/proc/self/task").expect("list the threads");
    let nanoseconds = tasks.filter_map(|task| {
        let schedstat = task.ok()?.path().join("schedstat");
        // A thread may end between the listing and the reading.
        let text = fs::read_to_string(schedstat).ok()?;
        text.split_whitespace().next()?.parse::<u64>().ok()
    });
    Duration::from_nanos(nanoseconds.sum())
}

/// CPU and wall time per operation, and how many were done.
fn measure(way: &mut dyn Way) -> (f64, f64, u32) {
    let (cpu, wall) = (cpu_time(), Instant::now());
    let mut count = 0;
    while wall.elapsed() < CPU_ROUND_TIME {
        way.run();
        count += 1;
    }
    let per = |time: Duration| time.as_secs_f64() * 1e6 / f64::from(count);
    (per(cpu_time() - cpu), per(wall.elapsed()), count)
}

fn median(mut figures: Vec<f64>) -> f64 {
    figures.sort_by(f64::total_cmp);
    figures[figures.len() / 2]
}

fn print_cpu_table(root: &Path) {
    println!("\nCPU and wall us per append + sync, median of {CPU_ROUNDS} interleaved rounds");
    let head = ["shape", "way", "cpu us", "wall us", "/ zeroed", "/ growing"];
    println!(
        "{:14} {:14} {:>9} {:>9} {:>9} {:>9}",
        head[0], head[1], head[2], head[3], head[4], head[5]
    );
    for (shape, (name, count, bytes)) in SHAPES.into_iter().enumerate() {
        let mut ways = ways(&root.join(format!("cpu{shape}")), count, bytes);
        for (_, way) in &mut ways {
            (0..WARM_UP).for_each(|_| way.run());
        }
        let mut figures = vec![(Vec::new(), Vec::new()); ways.len()];
        for _ in 0..CPU_ROUNDS {
            for (place, (_, way)) in ways.iter_mut().enumerate() {
                let (cpu, wall, _) = measure(&mut **way);
                figures[place].0.push(cpu);
                figures[place].1.push(wall);
            }
        }
        let medians: Vec<_> =
            figures.into_iter().map(|(cpu, wall)| (median(cpu), median(wall))).collect();
        for ((way, _), (cpu, wall)) in ways.iter().zip(&medians) {
            let (zeroed, growing) = (cpu / medians[1].0, cpu / medians[2].0);
            println!("{name:14} {way:14} {cpu:9.1} {wall:9.1} {zeroed:9.2} {growing:9.2}");
        }
    }
}

fn main() {
    // `cargo test --benches` runs this too; then it has nothing to show.
    if std::env::args().any(|argument| argument == "--test") {
        return;
    }
    let scratch = match std::env::var_os("LOG_BENCH_DIR").map(PathBuf::from) {
        Some(dir) => tempfile::tempdir_in(dir),
        None => tempfile::tempdir(),
    };
    let scratch = scratch.expect("a scratch directory");
    let mut criterion = Criterion::default()
        .sample_size(20)
        .warm_up_time(Duration::from_millis(300))
        .measurement_time(Duration::from_secs(2))
        .configure_from_args();
    for (shape, (name, count, bytes)) in SHAPES.into_iter().enumerate() {
        let mut group = criterion.benchmark_group(name);
        for (way, mut runner) in ways(&scratch.path().join(format!("wall{shape}")), count, bytes) {
            group.bench_function(way, |bencher| bencher.iter(|| runner.run()));
        }
        group.finish();
    }
    criterion.final_summary();
    print_cpu_table(scratch.path());
}
