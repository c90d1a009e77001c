//! Golden bytes of the messages, and what is refused.

use super::super::tests::hex;
use super::*;
use crate::raft::types::{Batch, Payload};

const ROUTE: Route = Route { cluster: 0x0102_0304_0506_0708, from: 1, to: 2 };
const HEAD_HEX: &str = "08070605040302010100000000000000 0200000000000000";

fn vote(term: u64) -> crate::raft::types::Vote {
    VoteBytes { term, server: 1, committed: true }.vote()
}

fn id(index: u64) -> LogId {
    to_log_id(LogPosition { term: 3, leader: 1, index })
}

fn golden(kind: u8, body: &str) -> String {
    format!("01{kind:02x}{HEAD_HEX}{body}").replace(' ', "")
}

fn body(message: &Bytes, kind: Kind) -> Bytes {
    let (found, route, body) = open(message).expect("opens");
    assert_eq!((found, route), (kind, ROUTE));
    body
}

#[test]
fn votes_and_transfers_have_these_bytes() {
    let mut ask = VoteRequest::new(vote(4), Some(id(300)));
    ask.leadership_transfer = true;
    let message = vote_ask(Kind::PreVote, ROUTE, &ask).expect("encodes");
    assert_eq!(hex(&message), golden(2, "040101 01 0301ac02 01"));
    assert_eq!(vote_asked(&body(&message, Kind::PreVote)), Ok(ask));

    let said = VoteResponse::new(vote(4), None, true);
    let message = vote_answer(Kind::Vote, &said).expect("encodes");
    assert_eq!(hex(&message), "01810401010100");
    assert_eq!(vote_answered(Kind::Vote, &message), Ok(said));
    assert!(vote_answered(Kind::PreVote, &message).is_err(), "another question's answer");

    let ask = TransferLeaderRequest::new(vote(4), 2, Some(id(7)));
    let message = transfer_ask(ROUTE, &ask).expect("encodes");
    assert_eq!(hex(&message), golden(3, "040101 02 01030107"));
    assert_eq!(transfer_asked(&body(&message, Kind::TransferLeader)), Ok(ask));
    let said = Err(TransferLeaderError::LogNotFlushed { expected: Some(id(7)), actual: None });
    let message = transfer_answer(&said).expect("encodes");
    assert_eq!(hex(&message), "0183020103010700");
    assert_eq!(transfer_answered(&message), Ok(said));
}

fn frame() -> AppendEntriesRequest<Types> {
    let batch = Batch(Bytes::from_static(&[1, 0]));
    AppendEntriesRequest {
        vote: vote(4),
        prev_log_id: Some(id(6)),
        entries: vec![
            Entry { log_id: id(7), payload: Payload::Blank },
            Entry { log_id: id(8), payload: Payload::Normal(batch) },
        ],
        leader_commit: Some(id(5)),
    }
}

#[test]
fn log_frames_have_these_bytes() {
    let ask = frame();
    let message = append_ask(Kind::Append, ROUTE, &ask).expect("encodes");
    let wanted = "040101 01030106 01030105 02 0301070100 0301080202 0100";
    assert_eq!(hex(&message), golden(5, wanted));
    let found = append_asked(&body(&message, Kind::Append)).expect("decodes");
    assert_eq!(format!("{found:?}"), format!("{ask:?}"));

    for (said, bytes) in [
        (Ok(Some(id(8))), "01850001030108"),
        (Err(StreamAppendError::Conflict(id(6))), "018501030106"),
        (Err(StreamAppendError::HigherVote(vote(9))), "018502090101"),
    ] {
        let message = append_answer(&said).expect("encodes");
        assert_eq!(hex(&message), bytes);
        assert_eq!(append_answered(&message), Ok(said));
    }
}

#[test]
fn snapshot_frames_have_these_bytes() {
    let begin = SnapshotBegin { vote: VoteBytes::of(&vote(4)), bytes: 300 };
    let message = snapshot_begin(ROUTE, &begin).expect("encodes");
    assert_eq!(hex(&message), golden(6, "040101 ac02"));
    assert_eq!(snapshot_begun(&body(&message, Kind::SnapshotBegin)), Ok(begin));
    let message = snapshot_chunk(ROUTE, b"abc");
    assert_eq!(hex(&message), golden(7, "616263"));
    assert_eq!(body(&message, Kind::SnapshotChunk), Bytes::from_static(b"abc"));
    let message = snapshot_answer(&SnapshotResponse::new(vote(4))).expect("encodes");
    assert_eq!(hex(&message), "0186040101");
    assert_eq!(snapshot_answered(&message), Ok(SnapshotResponse::new(vote(4))));
}

#[test]
fn every_cut_and_every_flipped_bit_is_refused_or_read_but_never_a_panic() {
    let whole = append_ask(Kind::Append, ROUTE, &frame()).expect("encodes");
    for cut in 0..whole.len() {
        let part = whole.slice(..cut);
        if let Ok((_, _, body)) = open(&part) {
            assert!(append_asked(&body).is_err(), "cut at {cut}");
        }
    }
    for bit in 0..whole.len() * 8 {
        let mut bytes = whole.to_vec();
        bytes[bit / 8] ^= 1 << (bit % 8);
        if let Ok((_, _, body)) = open(&Bytes::from(bytes)) {
            let _ = append_asked(&body);
            let _ = vote_asked(&body);
            let _ = transfer_asked(&body);
            let _ = snapshot_begun(&body);
        }
    }
}

#[test]
fn holes_in_a_frame_are_refused() {
    let mut ask = frame();
    ask.entries.remove(0);
    let message = append_ask(Kind::Append, ROUTE, &ask).expect("encodes");
    let refused = append_asked(&body(&message, Kind::Append)).expect_err("a hole");
    assert!(refused.to_string().contains("record 8 where 7"), "{refused}");
}

#[test]
fn clusters_have_different_fingerprints() {
    assert_eq!(fingerprint("prod"), 0x8572_9c0e_3537_be14);
    assert_ne!(fingerprint("prod"), fingerprint("prod2"));
}
