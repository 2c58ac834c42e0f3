//! Byte vectors of the items of coded messages, and what is left of them when they are cut short.

use super::*;
use crate::message::Topic;
use crate::wire::items;

fn hex(bytes: &[u8]) -> String {
    data_encoding::HEXLOWER.encode(bytes)
}

fn only(bytes: Bytes) -> Item {
    let mut decoded: Vec<_> = items(bytes, 1024).collect();
    assert_eq!(decoded.len(), 1);
    decoded.remove(0).expect("decodes")
}

fn bits(shards: &[usize]) -> Bits {
    shards.iter().fold(Bits::default(), |mut bits, shard| {
        bits.insert(*shard);
        bits
    })
}

fn a_header() -> Header {
    Header {
        topic: Topic::new("a").expect("short"),
        publisher: NodeId::from_bytes([0xaa; 32]),
        sequence: 1,
        issued: 2,
        message_signature: [0xbb; 64],
        id: MessageId([0xcc; 32]),
        shape: Shape { payload: 0x0001_0000, shard: 0x0400, data: 64, total: 128 },
        root: [0xdd; 32],
        expires: 3,
        signature: [0xee; 64],
    }
}

#[test]
fn coded_items_are_these_bytes_and_come_back() {
    let key = Key([0x11; 16]);
    let one = "11".repeat(16);
    let a_shard =
        Shard { key, index: 0x0102, has: bits(&[0, 9]), proof: vec![[0x22; 32]], bytes: Bytes::from_static(b"hi") };
    let has = Item::CodedStatus { key, status: CodedStatus::Has, shards: bits(&[1]) };
    let have = Item::CodedStatus { key, status: CodedStatus::Have, shards: Bits::default() };
    let late = Item::CodedStatus { key, status: CodedStatus::Unknown(9), shards: Bits::default() };
    let vectors = [
        (
            header(&a_header()),
            format!(
                "10 00000106 0161 {} {:016x} {:016x} {} {} 00010000 00000400 0040 0080 {} {:016x} {}",
                "aa".repeat(32),
                1,
                2,
                "bb".repeat(64),
                "cc".repeat(32),
                "dd".repeat(32),
                3,
                "ee".repeat(64)
            ),
            Item::Header(Box::new(a_header())),
        ),
        (
            shard(None, &a_shard),
            format!("11 00000038 {one} 0102 02 0102 01 {} 6869", "22".repeat(32)),
            Item::Shard(a_shard.clone()),
        ),
        (super::has(key, CodedStatus::Has, &bits(&[1])), format!("12 00000012 {one} 00 02"), has),
        (status(key, CodedStatus::Have), format!("12 00000011 {one} 01"), have),
        (status(key, CodedStatus::Unknown(9)), format!("12 00000011 {one} 09"), late),
        (need(key, &bits(&[8])), format!("13 00000012 {one} 0001"), Item::CodedNeed { key, shards: bits(&[8]) }),
    ];
    for (bytes, expected, item) in vectors {
        assert_eq!(hex(&bytes), expected.replace(' ', ""));
        assert_eq!(only(bytes), item);
    }
}

#[test]
fn coded_items_that_end_early_or_say_too_much_are_refused() {
    let whole = header(&a_header());
    let body = |len: usize| {
        let mut cut = BytesMut::from(&whole[..5 + len]);
        cut[1..5].copy_from_slice(&u32::try_from(len).expect("short").to_be_bytes());
        cut.freeze()
    };
    for len in 0..whole.len() - 5 {
        assert!(items(body(len), 1024).any(|item| item.is_err()), "{len} bytes of a header");
    }
    let key = [0x11; 16];
    let shard_of = |has: usize, hashes: u8| {
        control(kind::SHARD, |to| {
            to.put_slice(&key);
            to.put_u16(0);
            to.put_u8(u8::try_from(has).expect("short"));
            to.put_slice(&vec![0xff; has]);
            to.put_u8(hashes);
            to.put_slice(&vec![0; 32 * usize::from(hashes)]);
        })
    };
    assert!(matches!(only(shard_of(128, 10)), Item::Shard(_)));
    for bytes in [shard_of(129, 10), shard_of(128, 11), shard_of(0, 10).slice(..30)] {
        assert!(items(bytes, 1024).any(|item| item.is_err()));
    }
    let long = control(kind::CODED_NEED, |to| to.put_slice(&[0xff; 16 + 129]));
    assert!(items(long, 1024).any(|item| item.is_err()));
}
