//! Every format on small files of our own making: what is read, what is said of bad rows, and that
//! no bytes make a reader panic.

use super::*;
use proptest::prelude::*;
use std::io::Write as _;
use std::path::Path;

/// A file of these bytes, in a folder that goes with it.
pub(super) struct Sample(tempfile::TempDir);

impl Sample {
    pub(super) fn of(bytes: &[u8]) -> Self {
        let dir = tempfile::tempdir().expect("a folder");
        std::fs::write(dir.path().join("sample"), bytes).expect("a file");
        Self(dir)
    }

    fn packed(bytes: &[u8]) -> Self {
        let mut packer = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        packer.write_all(bytes).expect("packs");
        Self::of(&packer.finish().expect("packs"))
    }

    pub(super) fn path(&self) -> std::path::PathBuf {
        self.0.path().join("sample")
    }
}

type Reader = fn(&Path, &mut BadRows) -> Result<usize, TraceError>;

fn source(format: Format, file: &Path, bad: &mut BadRows) -> Result<usize, TraceError> {
    Source { format, file: file.to_owned() }.read(bad).map(|trace| trace.jobs.len())
}

/// Every reader with a good file for it of three rows or lines of events.
const READERS: [(&str, Reader, &str); 10] = [
    (
        "openb",
        |file, bad| source(Format::Openb, file, bad),
        "name,cpu_milli,memory_mib,num_gpu,gpu_milli,gpu_spec,qos,pod_phase,creation_time,\
         deletion_time,scheduled_time\np0,6000,12288,1,460,T4|P100,LS,Running,9,70,20\n\
         p1,6000,12288,2,1000,,LS,Running,4,70,20\np2,6000,12288,0,0,,LS,Pending,11,,\n",
    ),
    (
        "philly",
        |file, bad| source(Format::Philly, file, bad),
        "job,submit_s,duration_s,gpus,vc\n0,0,2240194,8,7f04ca\n1,235696,32,1,6214e9\n2,7,9,12,a\n",
    ),
    (
        "kalos",
        |file, bad| source(Format::Kalos, file, bad),
        "job,submit_s,duration_s,tasks,gpus_per_task,cpu_per_gpu\n0,0,104,8,8.0,15.0\n\
         1,313,78,8,8.0,15.0\n2,14435,2252,8,8.0,12.5\n",
    ),
    (
        "swf",
        |file, bad| source(Format::Swf, file, bad),
        "; Version: 2.2\n1 10 5 100 16 -1 -1 16 -1 2048 1 3 1 1 1 1 -1 -1\n\
         2 20 -1 -1 -1 -1 -1 13 -1 -1 0 4 1 1 1 1 -1 -1\n\
         3 30 0 7.5 1 -1 512 -1 -1 -1 1 -1 1 1 1 1 -1 -1\n",
    ),
    (
        "jsonl",
        |file, bad| source(Format::Jsonl, file, bad),
        "{\"event\":\"trace\",\"version\":1,\"source\":\"test\",\"start_ms\":0}\n\
         {\"event\":\"node\",\"at_ms\":0,\"node\":\"n\",\"gpus\":1,\"model\":\"T4\"}\n\
         {\"event\":\"job\",\"at_ms\":3,\"job\":\"a\",\"gpus\":1}\n\
         {\"event\":\"job_ready\",\"at_ms\":5,\"job\":\"a\"}\n\
         {\"event\":\"job_ended\",\"at_ms\":9,\"job\":\"a\",\"why\":\"cancelled\"}\n",
    ),
    (
        "nodes",
        |file, bad| nodes::read(file, bad).map(|list| list.len()),
        "node,cpu_milli,memory_mib,gpus,gpu_model\n0,96000,524288,0,\n1,96000,524288,8,V100\n\
         2,64000,262144,2,P100\n",
    ),
    (
        "faults",
        |file, bad| faults::read(file, bad).map(|list| list.len()),
        "node,start_day,end_day,level\n35,3.8955,26.0410,Hardware\n94,3.8955,54.0053,x\n1,2,2,y\n",
    ),
    (
        "spot",
        |file, bad| spot::read(file, bad).map(|list| list.len()),
        "480000,add,node1\n540000,add,node2\n600000,remove,node1\n",
    ),
    (
        "prices",
        |file, bad| prices::read(file, bad).map(|list| list.len()),
        "provider,gpu_model,vram_gb,is_spot,usd_per_gpu_hour\nnovita,A100 SXM,80,1,0.8\n\
         novita,A100 SXM,80,0,1.6\ngpuhub,A800,,0,1.06\n",
    ),
    (
        "rtt",
        |file, bad| rtt::RttTable::read(file, bad).map(|table| table.places.len()),
        "src,dst,avg_ms,max_ms,mdev_ms\na,b,10,30,2\nb,a,12,13,2\na,c,5,5,0\n",
    ),
];

fn reader(name: &str) -> (Reader, &'static str) {
    let found = READERS.iter().find(|(known, ..)| *known == name).expect("a known reader");
    (found.1, found.2)
}

#[test]
fn every_format_is_read_packed_or_not() {
    for (name, read, text) in READERS {
        let plain = read(&Sample::of(text.as_bytes()).path(), &mut BadRows::refuse());
        let packed = read(&Sample::packed(text.as_bytes()).path(), &mut BadRows::refuse());
        let plain = plain.unwrap_or_else(|error| panic!("{name}: {error}"));
        assert!(plain > 0, "{name}");
        assert_eq!(plain, packed.expect(name), "{name}");
        // As a spreadsheet on another system writes it.
        let foreign = format!("\u{feff}{}", text.replace('\n', "\r\n"));
        let foreign = read(&Sample::of(foreign.as_bytes()).path(), &mut BadRows::refuse());
        assert_eq!(plain, foreign.expect(name), "{name}");
    }
}

#[test]
fn jobs_of_a_source_come_by_time() {
    for format in ["openb", "philly", "kalos", "swf"] {
        let sample = Sample::of(reader(format).1.as_bytes());
        let text = format!("{format}:{}", sample.path().display());
        let source: Source = text.parse().expect("a source");
        assert_eq!(source.to_string(), text);
        let trace = source.read(&mut BadRows::refuse()).expect("readable");
        let times: Vec<_> = trace.jobs.iter().map(|job| job.submit).collect();
        assert!(times.is_sorted() && times.len() == 3, "{format}: {times:?}");
    }
    for text in ["openb", "csv:x", "openb:", ""] {
        let error = text.parse::<Source>().expect_err(text).to_string();
        assert!(error.ends_with("openb, philly, kalos, swf, jsonl"), "{error}");
    }
}

#[test]
fn gangs_are_cut_into_equal_replicas_for_one_machine() {
    let cut = |gpus| TraceJob::of_gpus("g".to_owned(), gpus).map(|j| (j.replicas, j.shape.gpus));
    assert_eq!(cut(1), Some((1, 1)));
    assert_eq!(cut(8), Some((1, 8)));
    assert_eq!(cut(12), Some((2, 6)));
    assert_eq!(cut(13), Some((13, 1)));
    assert_eq!(cut(1_024), Some((128, 8)));
    assert_eq!(cut(0), None);
    assert_eq!(cut(800_008), None);
}

#[test]
fn philly_and_swf_tell_whose_a_job_is_and_how_long_it_ran() {
    let sample = Sample::of(reader("philly").1.as_bytes());
    let jobs = philly::jobs(&sample.path(), &mut BadRows::refuse()).expect("readable");
    assert_eq!((jobs[0].tenant.as_str(), jobs[0].total_milli()), ("7f04ca", 8_000));
    assert_eq!(jobs[1].submit, Some(TimeMs(235_696_000)));
    assert_eq!(jobs[1].duration, Some(DurationMs(32_000)));
    let sample = Sample::of(reader("swf").1.as_bytes());
    let jobs = swf::jobs(&sample.path(), &mut BadRows::refuse()).expect("readable");
    let told: Vec<_> = jobs
        .iter()
        .map(|job| (job.tenant.as_str(), job.replicas, job.shape.memory_mib, job.duration))
        .collect();
    let expected = [
        ("user-3", 2, 16, Some(DurationMs(100_000))),
        ("user-4", 13, 1_024, None),
        ("", 1, 1, Some(DurationMs(7_500))),
    ];
    assert_eq!(told, expected);
}

#[test]
fn bad_rows_are_named_or_counted() {
    let cases = [
        ("philly", "2,7,9,12,a", "2,7,9,0,a", r#"line 4, column "gpus": "0" is not 1 to"#),
        ("philly", "2,7,9,12,a", "2,7,9,1", "line 4: has 4 cells; the header has 5"),
        ("philly", "2,7,9,12,a", "2,-7,9,1,a", r#"line 4, column "submit_s": "-7" is not"#),
        ("philly", "2,7,9,12,a", "2,\"7,9,1,a", "line 4: has a quote that is not closed"),
        ("swf", "13 -1 -1 0", "x -1 -1 0", r#"line 3, column "processors asked for": "x""#),
        ("swf", "13 -1 -1 0", "-1 -1 -1 0", r#"column "processors asked for": "-1" is not known"#),
        ("swf", "13 -1 -1 0", "13 -1 -1", "line 3: has 17 fields; 18 are wanted"),
        ("nodes", "2,64000,262144,2,P100", "2,x,1,1,A", r#"line 4, column "cpu_milli": "x""#),
        ("nodes", "2,P100", "2,", r#"line 4, column "gpu_model": "" is empty"#),
        ("faults", "1,2,2,y", "1,2,1,y", r#"line 4, column "end_day": "1" is before start_day"#),
        ("spot", "600000,remove,node1", "1,remove,x", r#"column "node": "x" is removed, but"#),
        ("spot", "540000,add,node2", "1,add,node1", r#"column "node": "node1" is added, but"#),
        ("spot", "540000,add,node2", "1,eat,node1", r#"column "change": "eat" is neither"#),
        ("prices", "1.06", "dear", r#"line 4, column "usd_per_gpu_hour": "dear" is not"#),
        ("rtt", "a,c,5", "a,c,NaN", r#"line 4, column "avg_ms": "NaN" is not a number of milli"#),
        ("jsonl", "\"at_ms\":9", "\"at_ms\":4", r#"line 5, column "at_ms": "4" is before the job"#),
    ];
    for (name, from, to, told) in cases {
        let (read, text) = reader(name);
        assert!(text.contains(from), "{name}: {from}");
        let sample = Sample::of(text.replace(from, to).as_bytes());
        let error = read(&sample.path(), &mut BadRows::refuse()).expect_err(to).to_string();
        assert!(error.contains(told), "{name}: {error}");
        let mut bad = BadRows::skip();
        read(&sample.path(), &mut bad).unwrap_or_else(|error| panic!("{name}: {error}"));
        assert_eq!((bad.skipped, bad.first.as_slice()), (1, [error].as_slice()), "{name}");
    }
}

#[test]
fn a_file_of_bad_rows_only_is_an_error_even_if_they_are_passed_over() {
    let sample = Sample::of(b"job,submit_s,duration_s,gpus,vc\n0,x,1,1,a\n1,y,1,1,a\n");
    let error = philly::jobs(&sample.path(), &mut BadRows::skip()).expect_err("nothing good");
    assert!(error.to_string().contains("has no good row; the first of 2 bad ones"), "{error}");
    let error = philly::jobs(&Sample::of(b"").path(), &mut BadRows::skip()).expect_err("empty");
    assert!(error.to_string().ends_with("has no rows"), "{error}");
    let headless = Sample::of(b"job,duration_s,vc\n0,1,a\n");
    let error = philly::jobs(&headless.path(), &mut BadRows::skip()).expect_err("no column");
    assert!(error.to_string().ends_with(r#"has no column "gpus""#), "{error}");
}

#[test]
fn a_line_without_end_takes_no_more_memory_than_the_longest_allowed() {
    let mut text = b"job,submit_s,duration_s,gpus,vc\n".to_vec();
    text.resize(text.len() + 64 * LINE_BYTES_MAX, b'7');
    text.extend_from_slice(b"\n0,1,1,1,a\n");
    // 64 MiB of one digit are 64 KiB packed.
    let sample = Sample::packed(&text);
    let error = philly::jobs(&sample.path(), &mut BadRows::refuse()).expect_err("too long");
    assert!(error.to_string().ends_with("line 2: is longer than 1048576 bytes"), "{error}");
    let mut lines = lines::Lines::open(&sample.path()).expect("opens");
    lines.next().expect("the header");
    lines.next().expect_err("too long");
    assert!(lines.bytes_held() <= 2 * LINE_BYTES_MAX, "{} bytes", lines.bytes_held());
    assert_eq!(lines.next().expect("the last line"), Some((3, "0,1,1,1,a")));
    let mut bad = BadRows::skip();
    assert_eq!(philly::jobs(&sample.path(), &mut bad).expect("one row").len(), 1);
    assert_eq!(bad.skipped, 1);
}

#[test]
fn what_is_not_text_or_cut_short_is_told() {
    let sample = Sample::of(b"job,submit_s,duration_s,gpus,vc\n0,1,1,1,\xff\n");
    let error = philly::jobs(&sample.path(), &mut BadRows::refuse()).expect_err("not text");
    assert!(error.to_string().ends_with("line 2: is not UTF-8 from byte 9 on"), "{error}");
    let whole = std::fs::read(Sample::packed(reader("philly").1.as_bytes()).path()).expect("read");
    let cut = Sample::of(&whole[..whole.len() - 9]);
    let error = philly::jobs(&cut.path(), &mut BadRows::skip()).expect_err("cut short");
    assert!(matches!(error, TraceError::File { .. }), "{error}");
}

#[test]
fn overlapping_faults_are_one_time_down() {
    let fault = |node: &str, start, end| faults::NodeFault {
        node: node.to_owned(),
        start: TimeMs(start),
        end: TimeMs(end),
    };
    let list = [fault("a", 10, 30), fault("b", 5, 6), fault("a", 20, 25), fault("a", 40, 41)];
    let told: Vec<_> = faults::changes(&list)
        .into_iter()
        .map(|change| (change.at.0, change.node, change.change == Change::Down))
        .collect();
    let expected = [(5, "b", true), (6, "b", false), (10, "a", true), (30, "a", false)]
        .into_iter()
        .chain([(40, "a", true), (41, "a", false)])
        .map(|(at, node, down)| (at, node.to_owned(), down));
    assert_eq!(told, expected.collect::<Vec<_>>());
}

/// Something done to a good file.
#[derive(Clone, Debug)]
enum Damage {
    Cut(usize),
    Byte(usize, u8),
    Insert(usize, Vec<u8>),
    Swap(usize, usize),
    Double(usize),
}

fn damage() -> impl Strategy<Value = Damage> {
    let bits = prop_oneof![
        proptest::collection::vec(any::<u8>(), 1..12),
        proptest::sample::select(vec![
            "99999999999999999999",
            "-1",
            "NaN",
            "inf",
            "1e308",
            "\"",
            "\n",
            ",",
            "\r",
            "\u{0}",
            "{\"event\":\"job_ended\"}",
            "é",
            "0x10",
            "[[[[[[[[",
            "",
        ])
        .prop_map(|text| text.as_bytes().to_vec()),
    ];
    prop_oneof![
        any::<usize>().prop_map(Damage::Cut),
        (any::<usize>(), any::<u8>()).prop_map(|(at, byte)| Damage::Byte(at, byte)),
        (any::<usize>(), bits).prop_map(|(at, bits)| Damage::Insert(at, bits)),
        (any::<usize>(), any::<usize>()).prop_map(|(a, b)| Damage::Swap(a, b)),
        any::<usize>().prop_map(Damage::Double),
    ]
}

fn damaged(text: &str, all: &[Damage]) -> Vec<u8> {
    let mut bytes = text.as_bytes().to_vec();
    for one in all {
        let len = bytes.len().max(1);
        match one {
            Damage::Cut(at) => bytes.truncate(at % len),
            Damage::Byte(at, byte) => {
                if let Some(found) = bytes.get_mut(at % len) {
                    *found = *byte;
                }
            }
            Damage::Insert(at, bits) => {
                let at = (at % len).min(bytes.len());
                bytes.splice(at..at, bits.iter().copied());
            }
            Damage::Swap(a, b) => {
                let mut lines: Vec<&[u8]> = bytes.split_inclusive(|byte| *byte == b'\n').collect();
                let count = lines.len().max(1);
                if !lines.is_empty() {
                    lines.swap(a % count, b % count);
                }
                bytes = lines.concat();
            }
            Damage::Double(at) => {
                let lines: Vec<&[u8]> = bytes.split_inclusive(|byte| *byte == b'\n').collect();
                let line = lines.get(at % lines.len().max(1)).copied().unwrap_or_default();
                let line = line.to_vec();
                bytes.extend(line);
            }
        }
    }
    bytes
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    /// Truncated, reordered, doubled, not UTF-8: a clear error or something read, never a panic; and
    /// whoever passes bad rows over gets no less than who does not.
    #[test]
    fn no_bytes_make_a_reader_panic(
        which in 0..READERS.len(),
        all in proptest::collection::vec(damage(), 1..6),
        packed in any::<bool>(),
    ) {
        let (name, read, text) = READERS[which];
        let bytes = damaged(text, &all);
        let sample = if packed { Sample::packed(&bytes) } else { Sample::of(&bytes) };
        let strict = read(&sample.path(), &mut BadRows::refuse());
        let mut bad = BadRows::skip();
        let lenient = read(&sample.path(), &mut bad);
        match (&strict, &lenient) {
            (Ok(strict), Ok(lenient)) => prop_assert!(strict == lenient && bad.skipped == 0),
            (Ok(_), Err(error)) => prop_assert!(false, "{name}: {error}"),
            (Err(error), Ok(_)) => {
                let told = error.to_string();
                prop_assert!(bad.first.first() == Some(&told), "{name}: {told}");
                prop_assert!(told.contains("sample, line "), "{name}: {told}");
            }
            (Err(error), Err(_)) => prop_assert!(error.to_string().contains("sample"), "{name}"),
        }
    }

    /// Bytes that were never a table.
    #[test]
    fn no_noise_makes_a_reader_panic(
        bytes in proptest::collection::vec(any::<u8>(), 0..600),
        which in 0..READERS.len(),
    ) {
        let (_, read, _) = READERS[which];
        let sample = Sample::of(&bytes);
        if let Err(error) = read(&sample.path(), &mut BadRows::skip()) {
            prop_assert!(error.to_string().contains("sample"));
        }
    }
}
