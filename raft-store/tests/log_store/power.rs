//! Power cuts at random points, with a random part of the unsynced bytes on disk.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use proptest::prelude::*;
use raft_store::files::fault::{FaultFiles, Loss};
use raft_store::log::{Done, Log};

use super::support::{self, Model, at};

#[derive(Clone, Debug)]
enum Step {
    Append {
        count: u64,
        bytes: usize,
    },
    Vote(u8),
    Committed,
    Truncate(u64),
    Purge(u64),
    /// Waits until everything so far is durable.
    Wait,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => (1..9u64, 0..900usize).prop_map(|(count, bytes)| Step::Append { count, bytes }),
        1 => Just(Step::Append { count: 2, bytes: 20_000 }),
        2 => any::<u8>().prop_map(Step::Vote),
        2 => Just(Step::Committed),
        1 => (0..6u64).prop_map(Step::Truncate),
        1 => (0..60u64).prop_map(Step::Purge),
        2 => Just(Step::Wait),
    ]
}

#[derive(Clone, Debug)]
struct Life {
    steps: Vec<Step>,
    /// Disk changes after which the disk stops; the crash follows.
    stop_after: u64,
    loss: Loss,
}

fn life() -> impl Strategy<Value = Life> {
    let loss = prop_oneof![
        1 => Just(Loss::Process),
        2 => Just(Loss::Unsynced),
        5 => any::<u64>().prop_map(|seed| Loss::Torn { seed }),
    ];
    (proptest::collection::vec(step(), 1..40), 0..90u64, loss)
        .prop_map(|(steps, stop_after, loss)| Life { steps, stop_after, loss })
}

/// Every state the log may be in after the crash, oldest first, and how many of them are older
/// than what was acknowledged.
struct History {
    states: Vec<Model>,
    acknowledged: Arc<AtomicUsize>,
}

impl History {
    fn now(&self) -> Model {
        self.states.last().cloned().unwrap_or_default()
    }

    /// A callback that raises the acknowledged state to the present one.
    fn done(&self) -> Done {
        let (acknowledged, reached) = (self.acknowledged.clone(), self.states.len() - 1);
        Box::new(move |result| {
            if result.is_ok() {
                let before = acknowledged.fetch_max(reached, Ordering::SeqCst);
                assert!(before <= reached, "acknowledged out of order");
            }
        })
    }

    fn take(&mut self, log: &Log, version: u64, step: &Step) -> std::io::Result<()> {
        let mut model = self.now();
        match step {
            Step::Append { count, bytes } => {
                let from = model.next_index();
                let records: Vec<_> = (from..from + count)
                    .map(|index| support::record(index, version, *bytes))
                    .collect();
                for record in &records {
                    model.append(record.clone());
                    self.states.push(model.clone());
                }
                log.append(records, self.done())
            }
            Step::Vote(byte) => {
                let vote = Bytes::from(vec![*byte; 9]);
                model.vote = Some(vote.clone());
                self.states.push(model);
                log.save_vote(vote, self.done())
            }
            Step::Committed => {
                model.committed = model.last();
                let at = model.committed;
                self.states.push(model);
                log.save_committed(at)
            }
            Step::Truncate(back) => {
                let Some(last) = model.last() else { return Ok(()) };
                let purged = model.purged.map_or(0, |purged| purged.index);
                let first = model.entries.keys().next().copied().unwrap_or(last.index);
                let kept = last.index.saturating_sub(*back).max(purged).max(first);
                model.truncate(Some(kept));
                self.states.push(model);
                log.truncate_after(Some(kept), self.done())
            }
            Step::Purge(ahead) => {
                let upto = at(model.purged.map_or(0, |purged| purged.index) + ahead);
                model.purge(upto);
                self.states.push(model);
                log.purge(upto, self.done())
            }
            Step::Wait => {
                let (done, receiver) = support::acknowledgement();
                log.truncate_after(Some(u64::MAX), done)?;
                support::answer(&receiver)
            }
        }
    }

    /// The state found after the crash must be one the log went through, not older than the
    /// last acknowledged one.
    fn assert_contains(&self, found: &Model) {
        let acknowledged = self.acknowledged.load(Ordering::SeqCst);
        let committed: BTreeSet<_> =
            self.states[acknowledged..].iter().map(|state| state.committed).collect();
        assert!(committed.contains(&found.committed), "a committed position out of its time");
        let same = |state: &&Model| {
            Model { committed: None, ..(*state).clone() }
                == Model { committed: None, ..found.clone() }
        };
        assert!(
            self.states[acknowledged..].iter().any(|state| same(&state)),
            "acknowledged state {acknowledged} of {}: {:?}\nfound: {:?}",
            self.states.len(),
            summary(&self.states[acknowledged]),
            summary(found),
        );
    }
}

fn summary(model: &Model) -> String {
    let range = model.entries.keys().next().zip(model.entries.keys().next_back());
    format!("entries {range:?}, purged {:?}, vote {:?}", model.purged, model.vote)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn a_power_cut_loses_nothing_acknowledged(lives in proptest::collection::vec(life(), 1..5)) {
        let files = FaultFiles::new();
        let mut model = Model::default();
        for (number, life) in lives.into_iter().enumerate() {
            let acknowledged = Arc::new(AtomicUsize::new(0));
            let mut history = History { states: vec![model], acknowledged };
            files.stop_after(life.stop_after);
            // The disk may stop while the log is being opened; then nothing more is asked of it.
            if let Ok(log) = support::open(&files) {
                history.states[0].assert_is(&log);
                for (version, step) in life.steps.iter().enumerate() {
                    let version = (number * 100 + version) as u64;
                    if history.take(&log, version, step).is_err() {
                        break;
                    }
                }
            }
            files.crash(life.loss);
            let report = raft_store::log::check(&support::dir(), &files);
            let usable = report.map_or(true, |report| report.is_usable());
            prop_assert!(usable, "a crash alone must never look like damage");
            let log = support::open(&files).expect("open after a crash");
            model = Model::of(&log).expect("read everything");
            prop_assert_eq!(log.last(), model.last());
            history.assert_contains(&model);
            // What was found must be durable by now: it may have been acted on.
            let now = files.fork();
            now.crash(Loss::Unsynced);
            let again = support::open(&now).expect("open after a second cut");
            model.assert_is(&again);
        }
    }
}

/// Found by the random test: the seal of the old segment became durable before the new one's
/// name, when the start after a kill finished a switch and the power went right then.
#[test]
fn finishing_a_switch_makes_the_new_segment_durable_before_the_seal() {
    for stop in 0..80 {
        let files = FaultFiles::new();
        let log = support::open(&files).expect("open");
        files.stop_after(stop);
        let mut next = 0;
        while support::append(&log, support::records(next, 1, 6000)).is_ok() && next < 20 {
            next += 1;
        }
        files.crash(Loss::Process);
        drop(log);
        for again in 0..12 {
            let disk = files.fork();
            disk.stop_after(again);
            drop(support::open(&disk));
            disk.crash(Loss::Unsynced);
            let log = support::open(&disk).expect("open after the power cut");
            let durable = log.last().map_or(0, |last| last.index + 1);
            assert!(durable >= next, "stopped at {stop}, then {again}: {durable} of {next}");
        }
    }
}
