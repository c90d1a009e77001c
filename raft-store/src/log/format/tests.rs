//! Golden bytes of the format, and its refusals.

use super::*;

const SALT: Salt = Salt { log_id: 0x1122_3344_5566_7788, sequence: 3 };

const SPOT: Spot = Spot { salt: SALT, offset: 64, write_start: 64 };

fn at(term: u64, leader: u64, index: u64) -> LogPosition {
    LogPosition { term, leader, index }
}

fn entry(payload: &'static [u8]) -> Item {
    Item::Entry(Record { at: at(2, 1, 9), kind: 7, payload: Bytes::from_static(payload) })
}

fn items() -> Vec<Item> {
    let marks = Marks {
        vote: Some(Bytes::from_static(b"v1")),
        committed: Some(at(2, 1, 8)),
        purged: None,
        last: Some(at(2, 1, 9)),
    };
    vec![
        Item::Carry(Carry { previous_end: 640, marks }),
        entry(b"hello"),
        Item::Vote(Bytes::from_static(b"v2")),
        Item::Committed(Some(at(2, 1, 9))),
        Item::Committed(None),
        Item::Purged(at(1, 3, 4)),
        Item::Truncated(Some(at(2, 1, 9))),
        Item::Truncated(None),
        Item::Sealed(4),
        Item::Closed,
    ]
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[test]
fn golden_header() {
    let bytes = encode_header(&Header { salt: SALT, first_index: 10 });
    let golden = "4d555354524c4f4701000000000000008877665544332211\
                  03000000000000000a00000000000000\
                  0000000000000000000000000000000000000000275c2518";
    assert_eq!(hex(&bytes), golden);
    assert_eq!(decode_header(&bytes), Ok(Header { salt: SALT, first_index: 10 }));
}

#[test]
fn golden_records() {
    let mut bytes = Vec::new();
    let mut lines = Vec::new();
    for item in items() {
        let from = bytes.len();
        let offset = u32::try_from(64 + from).expect("small");
        encode(&mut bytes, Spot { offset, ..SPOT }, &item);
        lines.push(format!("{} {}", item.name(), hex(&bytes[from..])));
    }
    assert_eq!(lines, GOLDEN_RECORDS);
    let bytes = Bytes::from(bytes);
    let mut from = 0;
    for item in items() {
        let offset = u32::try_from(64 + from).expect("small");
        let frame = decode(&bytes.slice(from..), SALT, offset).expect("a valid record");
        assert_eq!((&frame.item, frame.write_start), (&item, 64));
        assert_eq!(frame.bytes, item.bytes_on_disk());
        from += frame.bytes;
    }
    assert_eq!(from, bytes.len());
}

#[test]
fn a_record_is_valid_only_where_it_was_written() {
    let mut bytes = Vec::new();
    encode(&mut bytes, SPOT, &entry(b"hello"));
    let bytes = Bytes::from(bytes);
    assert!(decode(&bytes, SALT, 64).is_ok());
    assert_eq!(decode(&bytes, SALT, 72), Err(Bad::Checksum));
    let other_segment = Salt { sequence: 4, ..SALT };
    assert_eq!(decode(&bytes, other_segment, 64), Err(Bad::Checksum));
    let other_log = Salt { log_id: 5, ..SALT };
    assert_eq!(decode(&bytes, other_log, 64), Err(Bad::Checksum));
}

#[test]
fn every_flipped_bit_and_every_cut_is_noticed() {
    let mut bytes = Vec::new();
    encode(&mut bytes, SPOT, &entry(b"hello"));
    for bit in 0..bytes.len() * 8 {
        let mut flipped = bytes.clone();
        flipped[bit / 8] ^= 1 << (bit % 8);
        let flipped = Bytes::from(flipped);
        assert!(decode(&flipped, SALT, 64).is_err(), "bit {bit}");
    }
    for length in 0..bytes.len() {
        let cut = Bytes::copy_from_slice(&bytes[..length]);
        assert!(decode(&cut, SALT, 64).is_err(), "cut at {length}");
    }
    assert_eq!(decode(&Bytes::from(vec![0; 64]), SALT, 64), Err(Bad::Empty));
}

#[test]
fn a_header_of_another_version_is_told_from_a_damaged_one() {
    let mut bytes = encode_header(&Header { salt: SALT, first_index: 10 });
    bytes[8] = 2;
    assert!(matches!(decode_header(&bytes), Err(BadHeader::Damaged(_))));
    let crc = crc32c::crc32c(&bytes[..60]);
    bytes[60..].copy_from_slice(&crc.to_le_bytes());
    assert_eq!(decode_header(&bytes), Err(BadHeader::Version(2)));
    assert!(matches!(decode_header(&bytes[..63]), Err(BadHeader::Damaged(_))));
}

const GOLDEN_RECORDS: &[&str] = &[
    "carry \
     52000000f4b595974000000006000000000000000000000000000000000000000000000000000000\
     800200000b0000000200000000000000010000000000000008000000000000000000000000000000\
     00000000000000000000000000000000020000000000000001000000000000000900000000000000\
     7631000000000000",
    "entry \
     05000000c67412724000000001070000020000000000000001000000000000000900000000000000\
     68656c6c6f000000",
    "vote \
     02000000caacf25c4000000002000000000000000000000000000000000000000000000000000000\
     7632000000000000",
    "committed \
     00000000e1e373184000000003010000020000000000000001000000000000000900000000000000",
    "committed \
     000000001d3407714000000003000000000000000000000000000000000000000000000000000000",
    "purged \
     000000000a0f354d4000000004000000010000000000000003000000000000000400000000000000",
    "truncated \
     000000006d73811e4000000005010000020000000000000001000000000000000900000000000000",
    "truncated \
     00000000770a58514000000005000000000000000000000000000000000000000000000000000000",
    "sealed \
     00000000169179044000000007000000000000000000000000000000000000000400000000000000",
    "closed \
     00000000f344b9684000000008000000000000000000000000000000000000000000000000000000",
];
