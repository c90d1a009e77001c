//! Golden bytes of what holds values of the core.

use super::*;
use scheduler_core::command::{Actor, Command, Entry, Preempt, Scale, Submit, Victim};
use scheduler_core::fixture::entry::{
    World, full_job, full_node, group, job_spec, name, plan, register, submit,
};
use scheduler_core::id::{JobId, Rank};
use scheduler_core::job::{Reason, ReasonCode};
use scheduler_core::state::{Row, RowKey};
use scheduler_core::unit::TimeMs;
use std::sync::Arc;

pub(in crate::codec) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Length and hash of bytes that are too many to be written here.
fn pin(bytes: &[u8]) -> String {
    let mut hasher = scheduler_core::hash::Hasher::new();
    std::hash::Hasher::write(&mut hasher, bytes);
    format!("{} {:032x}", bytes.len(), hasher.finish128())
}

fn by(actor: Actor, command: Command) -> Entry {
    Entry { at: TimeMs(1), by: actor, command }
}

#[test]
fn entries_have_these_bytes() {
    let command = Command::Expire { jobs: vec![JobId(300)], forget: Vec::new() };
    let entry = [Entry { at: TimeMs(1_000), by: Actor::System, command }];
    let bytes = encode_entries(&entry).expect("encodes");
    assert_eq!(hex(&bytes), "06000101e807000a01ac0200");
    assert_eq!(entries(&bytes).as_deref(), Ok(&entry[..]));
}

#[test]
fn submissions_share_what_they_have_in_common() {
    let spec = |gpus| job_spec(vec![group("w", 1, gpus)]);
    let tenant = submit("a", spec(8), None).tenant;
    let asked = |id: &str, gpus| Submit {
        body_digest: u128::from(gpus),
        ..submit(id, spec(gpus), Some(plan(&[(0, 0xff)])))
    };
    let waits = Submit {
        reason: Reason { code: ReasonCode::Busy, message: "later".into() },
        plan: None,
        ..asked("c", 8)
    };
    // An equal digest proves nothing.
    let alike = Submit { body_digest: 8, ..asked("d", 4) };
    let all = [
        by(Actor::Tenant(tenant.clone()), Command::Submit(asked("a", 8))),
        by(Actor::Operator, Command::Submit(asked("b", 4))),
        by(Actor::System, Command::Expire { jobs: vec![JobId(9)], forget: Vec::new() }),
        by(Actor::Tenant(tenant), Command::Submit(waits)),
        by(Actor::System, Command::Submit(alike)),
    ];
    let bytes = encode_entries(&all).expect("encodes");
    let read = entries(&bytes).expect("decodes");
    assert_eq!(read, all);
    let spec_of = |at: usize| match &read[at].command {
        Command::Submit(submit) => Arc::as_ptr(&submit.spec),
        other => panic!("{other:?}"),
    };
    assert_eq!(spec_of(0), spec_of(3));
    assert_eq!(pin(&bytes), "376 d90e939fd3acba17d97a3b5af202407b");
    // Each byte cut off or changed gives other entries or a fault, never a panic.
    for at in 0..bytes.len() {
        assert!(entries(&bytes[..at]).is_err(), "cut at {at}");
        let mut changed = bytes.to_vec();
        changed[at] ^= 0x55;
        assert_ne!(entries(&changed).as_deref(), Ok(&all[..]), "changed at {at}");
    }
}

#[test]
fn scalings_have_these_bytes() {
    let request_id = "s-1".into();
    let asked =
        Scale { job: JobId(1), group: name("w"), replicas: 2, expected: Some(1), request_id };
    let command = Command::Scale(asked);
    let entry = [by(Actor::System, command.clone())];
    let bytes = encode_entries(&entry).expect("encodes");
    assert_eq!(hex(&bytes), "0600010101000e01017702010103732d31");
    assert_eq!(entries(&bytes).as_deref(), Ok(&entry[..]));

    let mut world = World::with_nodes(1, 8);
    let mut spec = job_spec(vec![group("w", 1, 8)]);
    spec.groups[0].replicas_max = 3;
    world.submit(submit("r", spec, Some(plan(&[(0, 0xff)]))));
    world.done(command);
    let scaling = world.state.row(&RowKey::Scalings(JobId(1))).expect("was scaled");
    let bytes = row::encode_row(&scaling).expect("encodes");
    assert_eq!(hex(&bytes), "0407010103732d310002010101");
    assert_eq!(row::row(&bytes), Ok(scaling));
}

#[test]
fn preemptions_have_these_bytes() {
    let (plan, job) = (plan(&[(7, 0xff)]), JobId(3));
    let victim = |job, ranks: &[u32]| Victim {
        job: JobId(job),
        ranks: ranks.iter().map(|&rank| Rank(rank)).collect(),
    };
    let victims = vec![victim(1, &[]), victim(2, &[4, 300])];
    let entry = [by(Actor::System, Command::Preempt(Preempt { job, plan, victims }))];
    let bytes = encode_entries(&entry).expect("encodes");
    assert_eq!(hex(&bytes), "0600010101000f0301000701ff0100020100020204ac02");
    assert_eq!(entries(&bytes).as_deref(), Ok(&entry[..]));
}

/// A build that does not know of them must not take these entries for others.
#[test]
fn submissions_that_take_have_a_format_of_their_own() {
    let placed = |plan, victims| {
        let spec = job_spec(vec![group("w", 1, 8)]);
        let submit = Submit { victims, ..submit("r", spec, Some(plan)) };
        by(Actor::Tenant(submit.tenant.clone()), Command::Submit(submit))
    };
    let victim = Victim { job: JobId(300), ranks: vec![Rank(2)] };
    let usual = placed(plan(&[(7, 0xff)]), Vec::new());
    let takes = placed(plan(&[(7, 0xff)]), vec![victim]);
    let bytes = encode_entries(std::slice::from_ref(&usual)).expect("encodes");
    assert_eq!(bytes[0], PACKED_FORMAT);
    let both = [usual, takes];
    let bytes = encode_entries(&both).expect("encodes");
    assert_eq!(bytes[0], TAKING_FORMAT);
    assert_eq!(entries(&bytes).as_deref(), Ok(&both[..]));
    let older = [&[PACKED_FORMAT], &bytes[1..]].concat();
    assert_eq!(entries(&older).as_deref(), Ok(&both[..]), "all else is alike");
}

/// Likewise what a supplier brought.
#[test]
fn brought_names_have_these_bytes() {
    let mut world = World::new();
    let Command::RegisterNode(asked) = register(full_node("n1")) else { panic!("registers") };
    let (by, supplier) = (Actor::Supplier(asked.supplier.clone()), asked.supplier.clone());
    world.apply(by, Command::RegisterNode(asked)).expect("joins");
    let brought = world.state.row(&RowKey::Supplier(supplier)).expect("brought some");
    let bytes = row::encode_row(&brought).expect("encodes");
    assert_eq!(hex(&bytes), "0408056d6574616c01000100");
    assert_eq!(row::row(&bytes), Ok(brought));
}

/// Values of the core in which nothing has its default, by length and hash of their bytes:
/// whoever changes their shape must raise [`PLAIN_FORMAT`] and [`PACKED_FORMAT`].
#[test]
fn values_of_the_core_have_these_bytes() {
    let of_job = [by(Actor::Operator, Command::Submit(submit("request-1", full_job(), None)))];
    let of_node = [by(Actor::Operator, register(full_node("n1")))];
    let mut world = World::new();
    world.join(full_node("n1"));
    let node = world.state.row(&RowKey::Nodes(0)).expect("has a node");
    let now = [&of_job, &of_node].map(|entry| encode_entries(entry).expect("encodes"));
    assert_eq!(entries(&now[0]).as_deref(), Ok(&of_job[..]));
    assert_eq!(entries(&now[1]).as_deref(), Ok(&of_node[..]));
    let row_bytes = row::encode_row(&node).expect("encodes");
    assert_eq!(row::row(&row_bytes), Ok(node));
    let all = [&row_bytes, &now[0][..], &now[1][..]];
    assert_eq!(
        all.map(pin),
        [
            "142 775e41063c2559f53d8f33737cb8b837",
            "311 48a969f1690ac61528566cdf6c3d11d6",
            "142 b6b6a9e3f02910fc3e55a902dbdc1865",
        ]
    );
}

#[test]
fn jobs_of_a_row_share_what_they_have_in_common() {
    let mut world = World::with_nodes(4, 8);
    for (at, id) in (0u32..).zip(["a", "b", "c"]) {
        let spec = job_spec(vec![group("w", 1, 8)]);
        world.submit(submit(id, spec, Some(plan(&[(at, 0xff)]))));
    }
    let Some(Row::Jobs(page, jobs)) = world.state.row(&RowKey::Jobs(0)) else {
        panic!("has jobs");
    };
    let held = Row::Jobs(page, jobs);
    let bytes = row::encode_row(&held).expect("encodes");
    assert_eq!(row::row(&bytes).as_ref(), Ok(&held));
    assert_eq!(pin(&bytes), "210 c18e960540a07a8c274ba22dd2b5f5e5");
    // Nothing of an older format is taken for one of this.
    for found in [1, 2, 3, 5, 7] {
        let old = [&[found], &bytes[1..]].concat();
        let refusal = row::row(&old).expect_err("another format");
        assert!(matches!(refusal, CodecError::Format { found: told, .. } if told == found));
    }
    for at in 0..bytes.len() {
        assert!(row::row(&bytes[..at]).is_err(), "cut at {at}");
    }
}

#[test]
fn bad_bytes_are_refused_with_their_fault() {
    assert_eq!(entries(b""), Err(CodecError::Empty { what: "entries" }));
    for found in [1, 2, 3, 5, 9] {
        let refusal = CodecError::Format { what: "entries", found, read: PACKED_FORMAT };
        assert_eq!(entries(&[found, 0]), Err(refusal));
    }
    let trailing = Err(CodecError::Trailing { what: "entries", left: 1 });
    assert_eq!(entries(&[6, 0, 0, 7]), trailing);
    // A submission whose head is not there.
    let headless = [&[6, 0, 1, 0, 5, 1, 0, 1, b'r'][..], &[0; 16], &[0, 0]].concat();
    let why = "head 5 of 0".to_owned();
    assert_eq!(entries(&headless), Err(CodecError::Body { what: "entries", why }));
    // A length of 2^60 entries must not be believed.
    let absurd = [6, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x10];
    assert!(matches!(entries(&absurd), Err(CodecError::Body { .. })));
}
