//! The process runtime with real children of `/bin/sh`.

use crate::fake::soon;
use agent_core::replica::{AssignmentId, Exit};
use proto::v1;
use scheduler_agent::program::Programs;
use scheduler_agent::replica::Assignment;
use scheduler_agent::runtime::process::{Options, Process};
use scheduler_agent::runtime::{Event, Haste, Runtime, Start, Stop};
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;

/// A data directory with two pipes, through which programs and tests talk.
struct Bench {
    directory: tempfile::TempDir,
}

impl Bench {
    fn new() -> Bench {
        let bench = Bench { directory: tempfile::tempdir().unwrap() };
        for name in ["up", "gate"] {
            assert!(Command::new("mkfifo").arg(bench.path(name)).status().unwrap().success());
        }
        bench
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn data(&self) -> &Path {
        self.directory.path()
    }

    fn runtime(&self) -> Process {
        Process::new(self.data(), &Options { grace_ms: 200, logs_kept: 10 }).unwrap()
    }

    /// A replica that runs a shell script; `$UP` and `$GATE` are the pipes.
    fn replica(&self, id: u64, script: &str) -> Arc<Assignment> {
        self.replica_with(id, &["sh", "-c", script])
    }

    fn replica_with(&self, id: u64, argv: &[&str]) -> Arc<Assignment> {
        let env = [("UP", "up"), ("GATE", "gate")]
            .map(|(name, file)| (name.to_owned(), self.path(file).display().to_string()));
        let wire = v1::Assignment {
            job_id: 40,
            rank: 2,
            assignment: id,
            gpus: vec![1, 3],
            group: "workers".to_owned(),
            world_size: 8,
            head_address: "10.1.2.3:99".to_owned(),
            job_token: vec![7; 16].into(),
            program: Some(v1::Program {
                argv: argv.iter().map(|arg| arg.to_string()).collect(),
                env: env.into_iter().collect(),
            }),
            ..Default::default()
        };
        Arc::new(Assignment::decode(wire, 8, &Programs::default()).unwrap())
    }

    /// The line that a program writes to `$UP`.
    async fn up(&self) -> String {
        let path = self.path("up");
        let read = tokio::task::spawn_blocking(move || fs::read_to_string(path).unwrap());
        soon("a word from the program", read).await.unwrap().trim().to_owned()
    }

    /// Lets a program that reads `$GATE` go on.
    async fn open_gate(&self) {
        let path = self.path("gate");
        let write = tokio::task::spawn_blocking(move || fs::write(path, "go\n").unwrap());
        soon("the program to read", write).await.unwrap();
    }

    fn log(&self, id: u64, ending: &str) -> String {
        fs::read_to_string(self.path(&format!("logs/40-2-{id}.{ending}"))).unwrap()
    }
}

async fn start(runtime: &mut Process, replica: &Arc<Assignment>) {
    assert_eq!(runtime.start(replica), Start::Underway);
    assert_eq!(soon("a start", runtime.event()).await, Event::Ready(replica.binding.id));
}

async fn ended(runtime: &mut Process) -> (Exit, Option<String>) {
    match soon("an end", runtime.event()).await {
        Event::Ended { exit, message, .. } => (exit, message),
        Event::Ready(id) => panic!("{id} is ready"),
    }
}

async fn run(bench: &Bench, id: u64, script: &str) -> Exit {
    let mut runtime = bench.runtime();
    start(&mut runtime, &bench.replica(id, script)).await;
    ended(&mut runtime).await.0
}

fn lives(pid: &str) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let state = stat.rsplit(')').next().and_then(|rest| rest.trim().chars().next());
    state.is_some_and(|state| !"ZX".contains(state))
}

#[tokio::test]
async fn programs_see_their_place_and_print_into_logs() {
    let bench = Bench::new();
    assert_eq!(
        run(&bench, 1, "env; pwd; echo oh >&2; read x || echo no input").await,
        Exit::Succeeded
    );
    let out = bench.log(1, "out");
    for line in [
        "MUSTER_JOB_ID=40",
        "MUSTER_RANK=2",
        "MUSTER_WORLD_SIZE=8",
        "MUSTER_HEAD_RANK=0",
        "MUSTER_HEAD_ADDRESS=10.1.2.3:99",
        "MUSTER_GROUP=workers",
        "MUSTER_GPU_MILLI=0",
        "MUSTER_JOB_TOKEN=07070707070707070707070707070707",
        "RANK=2",
        "WORLD_SIZE=8",
        "MASTER_ADDR=10.1.2.3",
        "CUDA_VISIBLE_DEVICES=1,3",
        "no input",
    ] {
        assert!(out.lines().any(|have| have == line), "{line} is missing in {out}");
    }
    assert!(!out.contains("CARGO"), "the agent's own environment leaked: {out}");
    assert!(out.contains("/replicas/1/work"));
    assert_eq!(bench.log(1, "err"), "oh\n");
}

#[tokio::test]
async fn exit_codes_come_through() {
    let bench = Bench::new();
    assert_eq!(run(&bench, 1, "exit 0").await, Exit::Succeeded);
    assert_eq!(run(&bench, 2, "exit 3").await, Exit::Failed(3));
    assert_eq!(run(&bench, 3, "kill -TERM $$").await, Exit::Failed(128 + 15));
    assert_eq!(run(&bench, 4, "kill -KILL $$").await, Exit::Failed(128 + 9));
    // Even the shim's death is an end, and takes the program with it.
    assert_eq!(run(&bench, 5, "kill -KILL $PPID; sleep 1000").await, Exit::Failed(128 + 9));
}

#[tokio::test]
async fn what_cannot_start_says_why() {
    let bench = Bench::new();
    let mut runtime = bench.runtime();
    let Start::Refused(message) = runtime.start(&bench.replica_with(1, &[])) else {
        panic!("started nothing")
    };
    assert!(message.starts_with("program.argv is empty"), "{message}");
    for (argv0, part) in [("no-such-program", "in no directory of PATH"), ("/", "is not an exec")] {
        runtime.start(&bench.replica_with(2, &[argv0]));
        let (exit, message) = ended(&mut runtime).await;
        assert_eq!(exit, Exit::Failed(-1));
        let message = message.unwrap();
        assert!(message.contains("program.argv[0]") && message.contains(part), "{message}");
    }
}

#[tokio::test]
async fn a_stop_lets_the_program_finish_its_work() {
    let bench = Bench::new();
    let mut runtime = bench.runtime();
    let script = "trap 'echo saved; exit 0' TERM; echo up >$UP; while :; do sleep 0.01; done";
    start(&mut runtime, &bench.replica(1, script)).await;
    bench.up().await;
    assert_eq!(runtime.stop(AssignmentId(1), Haste::Graceful), Stop::Underway);
    assert_eq!(ended(&mut runtime).await.0, Exit::Succeeded);
    assert_eq!(bench.log(1, "out"), "saved\n");
    assert_eq!(runtime.stop(AssignmentId(1), Haste::Now), Stop::Done);
}

#[tokio::test]
async fn a_program_that_ignores_the_stop_is_killed_with_its_children() {
    let bench = Bench::new();
    for (id, haste) in [(1, Haste::Graceful), (2, Haste::Now)] {
        let mut runtime = bench.runtime();
        let script = "trap '' TERM; sleep 1000 & echo $! $$ >$UP; while :; do wait; done";
        start(&mut runtime, &bench.replica(id, script)).await;
        let pids = bench.up().await;
        assert!(pids.split(' ').all(lives), "{pids}");
        runtime.stop(AssignmentId(id), haste);
        assert_eq!(ended(&mut runtime).await.0, Exit::Failed(137));
        assert!(!pids.split(' ').any(lives), "{pids}");
    }
}

#[tokio::test]
async fn an_end_takes_what_was_left_behind_in_the_group() {
    let bench = Bench::new();
    let mut runtime = bench.runtime();
    start(&mut runtime, &bench.replica(1, "sleep 1000 & echo $! >$UP; exit 0")).await;
    let pid = bench.up().await;
    assert_eq!(ended(&mut runtime).await.0, Exit::Succeeded);
    assert!(!lives(&pid));
}

#[tokio::test]
async fn the_next_agent_takes_up_what_runs() {
    let bench = Bench::new();
    let mut first = bench.runtime();
    let replica = bench.replica(1, "echo $$ >$UP; read word <$GATE; exit 5");
    start(&mut first, &replica).await;
    let pid = bench.up().await;
    drop(first);
    let mut second = bench.runtime();
    let adopted = second.adopt().await.unwrap();
    assert_eq!(adopted.len(), 1);
    assert_eq!((adopted[0].binding, adopted[0].exit), (replica.binding, None));
    assert!(lives(&pid));
    bench.open_gate().await;
    assert_eq!(ended(&mut second).await.0, Exit::Failed(5), "the code is on disk");
}

#[tokio::test]
async fn the_next_agent_can_stop_what_it_took_up() {
    let bench = Bench::new();
    let mut first = bench.runtime();
    start(&mut first, &bench.replica(1, "trap '' TERM; echo $$ >$UP; while :; do sleep 1; done"))
        .await;
    let pid = bench.up().await;
    drop(first);
    let mut second = bench.runtime();
    second.adopt().await.unwrap();
    assert_eq!(second.stop(AssignmentId(1), Haste::Graceful), Stop::Underway);
    assert_eq!(ended(&mut second).await.0, Exit::Failed(137));
    assert!(!lives(&pid));
}

#[tokio::test]
async fn what_a_dead_leader_left_is_ended_at_the_next_start() {
    let bench = Bench::new();
    let mut first = bench.runtime();
    // The shim dies alone, as if killed for want of memory while no agent was there.
    let script = "echo $$ $PPID >$UP; read word <$GATE; kill -KILL $PPID; echo on >$UP; sleep 1000";
    start(&mut first, &bench.replica(1, script)).await;
    let pids = bench.up().await;
    drop(first);
    bench.open_gate().await;
    assert_eq!(bench.up().await, "on");
    let mut second = bench.runtime();
    let adopted = second.adopt().await.unwrap();
    // Either it is gone by now, or the end is still to be told.
    let exit = match adopted[0].exit {
        Some(exit) => exit,
        None => ended(&mut second).await.0,
    };
    assert_eq!(exit, Exit::Failed(137));
    assert!(!pids.split(' ').any(lives));
}

#[tokio::test]
async fn a_stranger_with_the_same_number_is_left_alone() {
    let bench = Bench::new();
    let mut first = bench.runtime();
    start(&mut first, &bench.replica(1, "read word <$GATE")).await;
    drop(first);
    let mut stranger = Command::new("sh")
        .args(["-c", "read word; exit 42"])
        .stdin(Stdio::piped())
        .spawn()
        .unwrap();
    let path = bench.path("replicas/1/record");
    let mut record: serde_json::Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    record["pid"] = stranger.id().into();
    // Clock ticks are 10 ms long; the stranger may have come within the same one.
    record["start_ticks"] = (record["start_ticks"].as_u64().unwrap() - 1).into();
    fs::write(&path, record.to_string()).unwrap();

    let adopted = bench.runtime().adopt().await.unwrap();
    assert_eq!(adopted[0].exit, Some(Exit::Failed(137)), "it is not ours");
    stranger.stdin.take().unwrap().write_all(b"go\n").unwrap();
    assert_eq!(stranger.wait().unwrap().code(), Some(42), "it was not killed");
    bench.open_gate().await;
}

#[tokio::test]
async fn what_is_forgotten_is_not_taken_up() {
    let bench = Bench::new();
    let mut runtime = bench.runtime();
    start(&mut runtime, &bench.replica(1, "exit 4")).await;
    ended(&mut runtime).await;
    let adopted = bench.runtime().adopt().await.unwrap();
    assert_eq!(adopted[0].exit, Some(Exit::Failed(4)));
    let store = bench.path("replicas/1");
    runtime.forget(AssignmentId(1));
    soon("the folder to go", async {
        while store.exists() {
            tokio::task::yield_now().await;
        }
    })
    .await;
    assert!(bench.runtime().adopt().await.unwrap().is_empty());
}
