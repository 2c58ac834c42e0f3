//! The bytes of the exchange: frozen vectors, bounds, and what is no exchange.

use data_encoding::HEXLOWER;
use peerage_wire::{Keypair, NetworkId, RecordDraft};
use proptest::prelude::*;

use super::*;

fn record(n: u8) -> NodeRecord {
    RecordDraft::new(1, NetworkId::named("x")).sign(&Keypair::from_seed([n; 32])).expect("small").into_inner()
}

fn bloom() -> Bloom {
    let mut bloom = Bloom::sized(3, MAX_BLOOM);
    bloom.insert([1, 2]);
    bloom
}

fn samples() -> Vec<Item> {
    vec![
        Item::Pull { salt: [7; 16], known: bloom() },
        Item::Records(vec![record(1), record(2)]),
        Item::Records(Vec::new()),
        Item::Probe { nonce: 300, port: 30303 },
        Item::ProbeResult { nonce: 300, outcome: Outcome::Reached },
        Item::ProbeResult { nonce: 0, outcome: Outcome::Unknown(9) },
        Item::Observed("1.2.3.4:5".parse().expect("socket")),
        Item::Observed("[2001:db8::1]:5".parse().expect("socket")),
    ]
}

#[test]
fn every_item_is_read_as_it_was_written_alone_and_with_others() {
    let mut joined = Vec::new();
    for item in samples() {
        let bytes = item.encode();
        assert_eq!(items(&bytes), Ok(vec![item]));
        joined.extend_from_slice(&bytes);
    }
    assert_eq!(items(&joined), Ok(samples()));
    joined.extend_from_slice(&samples()[0].encode());
    assert_eq!(items(&joined), Err(WireError::TooManyItems));
    assert_eq!(items(&[]), Ok(Vec::new()));
}

/// Frozen: a change here is another version of the protocol.
#[test]
fn the_bytes_are_the_committed_ones() {
    let hex = |item: &Item| HEXLOWER.encode(&item.encode());
    assert_eq!(
        hex(&Item::Pull { salt: [7; 16], known: bloom() }),
        "00010000001a0707070707070707070707070707070707080000921020200100"
    );
    assert_eq!(hex(&Item::Records(Vec::new())), "00020000000100");
    assert_eq!(hex(&Item::Probe { nonce: 300, port: 30303 }), "000300000006fb2c01fb5f76");
    assert_eq!(hex(&Item::ProbeResult { nonce: 300, outcome: Outcome::Reached }), "000400000004fb2c0101");
    assert_eq!(hex(&Item::Observed("1.2.3.4:5".parse().expect("socket"))), "000500000006040102030405");
    let place = place(&[7; 16], &NodeId::from_bytes([3; 32]));
    assert_eq!(place, [12_873_734_215_561_915_132, 14_005_191_079_183_023_812]);
}

#[test]
fn an_unknown_kind_is_passed_over_and_its_neighbours_are_read() {
    let probe = Item::Probe { nonce: 1, port: 2000 };
    let mut bytes = Item::Unknown(77).encode().to_vec();
    bytes[5] = 3;
    bytes.extend_from_slice(b"abc");
    bytes.extend_from_slice(&probe.encode());
    assert_eq!(items(&bytes), Ok(vec![Item::Unknown(77), probe]));
}

#[test]
fn a_huge_filter_too_many_records_and_lengths_that_lie_are_refused_before_they_take_memory() {
    let item = |kind: u16, body: &[u8]| {
        let len = u32::try_from(body.len()).expect("short");
        [&kind.to_be_bytes()[..], &len.to_be_bytes(), body].concat()
    };
    let filter = |bytes: usize| {
        let mut body = vec![0; 16];
        body.push(3);
        body.push(251);
        body.extend_from_slice(&u16::try_from(bytes).expect("fits").to_le_bytes());
        body.resize(body.len() + bytes, 0);
        item(1, &body)
    };
    assert!(items(&filter(MAX_BLOOM)).is_ok());
    assert!(matches!(items(&filter(MAX_BLOOM + 1)), Err(WireError::Body(_))));
    assert!(matches!(items(&filter(60_000)), Err(WireError::TooLong(_))));
    // A claim of 4 GiB of bits behind which there are none.
    let mut claim = vec![0; 16];
    claim.extend_from_slice(&[3, 252, 0xff, 0xff, 0xff, 0xff]);
    assert!(matches!(items(&item(1, &claim)), Err(WireError::Body(_))));
    assert!(matches!(items(&item(1, &[0; 18])), Err(WireError::Bloom(_))), "no probes");
    let one = codec::encode(&record(1));
    let mut records = vec![u8::try_from(MAX_RECORDS).expect("few") + 1];
    (0..=MAX_RECORDS).for_each(|_| records.extend_from_slice(&one));
    assert!(matches!(items(&item(2, &records)), Err(WireError::Body(_))));
    assert!(matches!(items(&item(2, &[252, 0xff, 0xff, 0xff, 0xff])), Err(WireError::Body(_))));
    assert_eq!(items(&item(5, &[5, 1, 2, 3, 4, 5, 6])), Err(WireError::Address(5)));
    assert!(matches!(items(&item(3, &[1, 2, 3])), Err(WireError::Body(_))), "bytes left over");
    assert_eq!(items(&[0, 3, 0, 0, 0, 9, 1]), Err(WireError::Short));
    assert_eq!(items(&vec![0; MAX_MESSAGE + 1]), Err(WireError::TooLong(MAX_MESSAGE + 1)));
}

#[test]
fn sixteen_of_the_longest_records_fit_a_message() {
    let mut draft = RecordDraft::new(u64::MAX, NetworkId::named("x"));
    for entry in 0..3u8 {
        draft = draft.entry([entry; 8], [1; 40]);
    }
    let longest = draft.sign(&Keypair::from_seed([1; 32])).expect("fits").into_inner();
    assert!(longest.bytes().len() > 270, "{}", longest.bytes().len());
    let bytes = Item::Records(vec![longest; MAX_RECORDS + 1]).encode();
    assert!(bytes.len() <= MAX_MESSAGE);
    let read = items(&bytes).expect("fits");
    assert!(matches!(&read[..], [Item::Records(records)] if records.len() == MAX_RECORDS));
}

proptest! {
    #[test]
    fn no_bytes_make_the_decoder_panic_and_what_it_reads_is_bounded(bytes in prop::collection::vec(any::<u8>(), 0..512)) {
        if let Ok(items) = items(&bytes) {
            prop_assert!(items.len() <= MAX_ITEMS);
        }
    }

    #[test]
    fn a_flipped_byte_never_panics(which in 0..8usize, at in any::<prop::sample::Index>(), with in any::<u8>()) {
        let mut bytes = samples()[which].encode().to_vec();
        let at = at.index(bytes.len());
        bytes[at] ^= with;
        let _ = items(&bytes);
    }
}
