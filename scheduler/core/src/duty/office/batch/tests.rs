//! What fills a batch, and answers of a log that make no sense.

use super::*;
use crate::fixture::entry::{TENANT, group, job_spec, placement, tenant};

fn ask(argv: Vec<String>) -> Ask<u32> {
    let mut spec = job_spec(vec![group("w", 1, 1)]);
    spec.program.argv = argv;
    let call = Submission {
        tenant: tenant(TENANT),
        by: Actor::Operator,
        request_id: "r".into(),
        body_digest: 0,
        spec: Arc::new(spec),
        check: None,
    };
    Ask::new(call, 5)
}

fn pending() -> Decided {
    Decided { found: Err(Reason::default()), growth: Some(3), decide_us: 7 }
}

#[test]
fn a_gang_and_a_large_program_fill_a_batch() {
    let mut batch = Batch::new(1);
    batch.submit(ask(Vec::new()), pending(), 0, TimeMs(0));
    assert!(!batch.is_full());
    let placements = vec![placement(0, 1, 1); BATCH_PLACEMENTS_MAX];
    batch.commit(JobId(1), Plan { placements }, TimeMs(0));
    assert!(batch.is_full());
    let mut batch = Batch::new(2);
    for _ in 0..10 {
        batch.submit(ask(vec!["x".repeat(64 * 1024); 2]), pending(), 0, TimeMs(0));
    }
    assert!(batch.is_full());
}

#[test]
fn every_submission_is_answered_whatever_the_log_says() {
    let submitted = |known| Ok(Outcome::Submitted { job: JobId(9), known, placed: false });
    for (results, expected, waiting) in [
        (vec![], "no result", 0),
        (vec![Ok(Outcome::Done { changed: true })], "something else", 0),
        (vec![submitted(true)], "decide_us: 0", 0),
        (vec![submitted(false)], "decide_us: 7", 1),
    ] {
        let mut batch = Batch::new(1);
        batch.submit(ask(Vec::new()), pending(), 0, TimeMs(0));
        batch.commit(JobId(1), Plan::default(), TimeMs(0));
        let mut answers = Vec::new();
        let (_, sent) = batch.into_parts();
        let back = sent.applied(results, 4, |ticket, answer| answers.push((ticket, answer)));
        let [(5, answer)] = &answers[..] else { panic!("{answers:?}") };
        assert!(format!("{answer:?}").contains(expected), "{answer:?}");
        assert_eq!(back.waiting.len(), waiting);
        assert_eq!(back.commits, [(JobId(1), false)]);
    }
}

#[test]
fn only_a_plan_is_tried_again() {
    let over = Rejection::QuotaExceeded { tenant: tenant(TENANT), why: "9 of 8 GPUs".to_owned() };
    for planned in [true, false] {
        let mut batch = Batch::new(1);
        let found = if planned { Ok(Taking::default()) } else { Err(Reason::default()) };
        let decided = Decided { found, growth: None, decide_us: 1 };
        batch.submit(ask(Vec::new()), decided, 0, TimeMs(0));
        let mut answers = Vec::new();
        let (_, sent) = batch.into_parts();
        let results = vec![Err(over.clone())];
        let back = sent.applied(results, 4, |_, answer| answers.push(answer));
        let codes = back.again.iter().map(|ask| ask.pending.as_ref().map(|reason| reason.code));
        assert_eq!(codes.collect::<Vec<_>>(), vec![Some(ReasonCode::Quota); usize::from(planned)]);
        let refusals = vec![Answer::Rejected(over.clone()); usize::from(!planned)];
        assert_eq!((answers, back.freed), (refusals, planned));
    }
}
