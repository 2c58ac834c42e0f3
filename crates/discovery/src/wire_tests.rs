//! What the packets' bytes must be, and that no bytes do harm.

use peerage_wire::RecordDraft;
use proptest::prelude::*;

use super::*;

fn keys(seed: u8) -> Keypair {
    Keypair::from_seed([seed; 32])
}

fn network() -> NetworkId {
    NetworkId::named("test")
}

fn record(seed: u8) -> NodeRecord {
    RecordDraft::new(1_700_000_000_000, network())
        .address("/ip4/192.0.2.1/tcp/30303".parse().expect("multiaddr"))
        .address("/ip4/192.0.2.1/udp/30303".parse().expect("multiaddr"))
        .sign(&keys(seed))
        .expect("small")
        .into_inner()
}

fn long_record(seed: u8) -> NodeRecord {
    let draft = RecordDraft::new(1_700_000_000_000, network()).entry("pad", vec![0; 96]);
    draft.entry("rest", vec![0; 40]).sign(&keys(seed)).expect("under 300").into_inner()
}

fn packet(message: Message) -> Packet {
    let cookie = if message.kind().is_request() { Cookie([0xcc; 16]) } else { Cookie::NONE };
    let cookie = if message == Message::Cookie { Cookie([0xdd; 16]) } else { cookie };
    let expiry = if message == Message::Cookie { 1_700_000_000 } else { 1_700_000_020 };
    Packet { nonce: Nonce { counter: 0x0102_0304_0506_0708, mac: [0xee; 8] }, cookie, expiry, message }
}

fn samples() -> Vec<Packet> {
    [
        Message::Ping { record_seq: 1_700_000_000_000 },
        Message::Pong { record_seq: 3, observed: "192.0.2.7:30303".parse().expect("address") },
        Message::FindNode { target: Key::from_bytes([0x55; 32]) },
        Message::Neighbors { index: 0, total: 1, records: vec![record(3)] },
        Message::RecordRequest,
        Message::RecordResponse { record: record(1) },
        Message::Cookie,
    ]
    .map(packet)
    .into()
}

fn sealed(packet: &Packet) -> Vec<u8> {
    packet.seal(network(), &keys(1), keys(2).id())
}

fn opened(bytes: &[u8]) -> Result<Packet, DropReason> {
    let envelope = Envelope::read(bytes)?;
    envelope.verify()?;
    envelope.open()
}

#[test]
fn every_packet_is_these_bytes() {
    let line = |packet: &Packet| {
        let bytes = sealed(packet);
        format!("{} {}", packet.message.kind().label(), data_encoding::HEXLOWER.encode(&bytes))
    };
    let lines: Vec<String> = samples().iter().map(line).collect();
    assert_eq!(lines, VECTORS.lines().collect::<Vec<_>>());
}

/// Frozen: type and bytes in hexadecimal, of the [`samples`].
const VECTORS: &str = include_str!("wire_vectors.txt");

#[test]
fn every_packet_comes_back() {
    for packet in samples() {
        let bytes = sealed(&packet);
        let envelope = Envelope::read(&bytes).expect("its own bytes");
        let Header { from, to, network: of, .. } = envelope.header;
        assert_eq!((from, to, of), (keys(1).id(), keys(2).id(), *network().as_bytes()));
        assert_eq!(opened(&bytes), Ok(packet));
    }
}

#[test]
fn no_byte_of_a_signed_packet_can_be_changed() {
    for packet in samples().into_iter().filter(|packet| packet.message != Message::Cookie) {
        let bytes = sealed(&packet);
        for position in 0..bytes.len() {
            let mut changed = bytes.clone();
            // Bit 4 of the type turns no type into another. A `Cookie` is unsigned, so who sits on the path can
            // make one of anything; only the nonce keeps everybody else from it.
            changed[position] ^= 0x10;
            assert!(opened(&changed).is_err(), "{:?} byte {position}", packet.message.kind());
        }
    }
}

#[test]
fn bytes_after_the_known_body_are_signed_and_ignored() {
    for packet in samples().into_iter().filter(|packet| packet.message != Message::Cookie) {
        let mut bytes = sealed(&packet);
        bytes.truncate(bytes.len() - SIGNATURE);
        bytes.extend_from_slice(b"a later version's");
        let signature = keys(1).sign(DOMAIN, &bytes);
        bytes.extend_from_slice(&signature);
        assert_eq!(opened(&bytes), Ok(packet));
    }
}

#[test]
fn a_cookie_is_smaller_than_any_request() {
    let requests = samples().into_iter().filter(|packet| packet.message.kind().is_request());
    let shortest = requests.map(|packet| sealed(&packet).len()).min();
    assert!(shortest > Some(COOKIE_PACKET), "{shortest:?}");
    let request = sealed(&samples()[0]);
    let asked = Envelope::read(&request).expect("a request").header;
    let answer = asked.challenge_bytes(&asked.challenge(Cookie([1; 16]), 1_700_000_000));
    assert_eq!(answer.len(), COOKIE_PACKET);
    let header = Envelope::read(&answer).expect("a cookie").header;
    assert_eq!((header.from, header.to), (keys(2).id(), keys(1).id()));
    assert_eq!((header.nonce, header.cookie), (samples()[0].nonce, Cookie([1; 16])));
    assert_eq!(header.expiry, 1_700_000_000, "its giver's clock");
}

#[test]
fn sixteen_neighbors_of_any_size_fit_their_packets() {
    for (record, packets) in [(record(1), 3), (long_record(1), 6)] {
        let messages = neighbors(&vec![record.clone(); 40]);
        assert_eq!(messages.len(), packets, "records of {} bytes", record.bytes().len());
        let mut records = 0;
        for (expected, message) in messages.into_iter().enumerate() {
            let bytes = sealed(&packet(message));
            assert!(bytes.len() <= MAX_PACKET, "{} bytes", bytes.len());
            let Ok(Packet { message: Message::Neighbors { index, total, records: some }, .. }) = opened(&bytes) else {
                panic!("neighbors come back")
            };
            assert_eq!((usize::from(index), usize::from(total)), (expected, packets));
            records += some.len();
        }
        assert_eq!(records, MAX_NEIGHBORS);
    }
    assert_eq!(neighbors(&[]), [Message::Neighbors { index: 0, total: 1, records: vec![] }]);
}

#[test]
fn a_record_that_does_not_decode_costs_the_others_nothing() {
    let body = codec::encode(&NeighborsBody {
        index: 0,
        total: 1,
        records: List::truncated([Blob::new([9; 100]).expect("short"), record_bytes(&record(1))]),
    });
    let message = Message::from_body(Kind::Neighbors, &body).expect("decodes");
    assert_eq!(message, Message::Neighbors { index: 0, total: 1, records: vec![record(1)] });
}

#[test]
fn an_index_outside_the_total_is_refused() {
    for (index, total) in [(0, 0), (1, 1), (200, 201), (16, 17)] {
        let body = codec::encode(&NeighborsBody { index, total, records: List::default() });
        assert_eq!(Message::from_body(Kind::Neighbors, &body), Err(DropReason::Body), "{index} of {total}");
    }
}

#[test]
fn a_packet_as_a_value_has_the_header_of_its_bytes() {
    for packet in samples() {
        let bytes = sealed(&packet);
        let value = Sealed { network: network(), from: keys(1).id(), to: keys(2).id(), packet, genuine: true };
        assert_eq!(value.header(), Envelope::read(&bytes).expect("its own bytes").header);
    }
}

/// A number of any length in bytes.
fn numbers() -> impl Strategy<Value = u64> {
    (any::<u64>(), 0..64u32).prop_map(|(number, shift)| number >> shift)
}

fn messages() -> impl Strategy<Value = Message> {
    let records = prop::collection::vec((0..=1u8, 1..4u8), 0..4).prop_map(|records| {
        records.into_iter().map(|(long, seed)| if long == 1 { long_record(seed) } else { record(seed) }).collect()
    });
    let records = records.prop_map(|records: Vec<NodeRecord>| records);
    prop_oneof![
        numbers().prop_map(|record_seq| Message::Ping { record_seq }),
        (numbers(), any::<SocketAddr>()).prop_map(|(record_seq, observed)| Message::Pong { record_seq, observed }),
        any::<[u8; 32]>().prop_map(|bytes| Message::FindNode { target: Key::from_bytes(bytes) }),
        (records, 0..16u8).prop_map(|(records, index)| Message::Neighbors { index, total: 16, records }),
        Just(Message::RecordRequest),
        any::<bool>()
            .prop_map(|long| Message::RecordResponse { record: if long { long_record(1) } else { record(1) } }),
        Just(Message::Cookie),
    ]
}

#[test]
fn foreign_packets_are_told_apart() {
    let bytes = sealed(&samples()[0]);
    let changed = |position: usize, to: u8| {
        let mut bytes = bytes.clone();
        bytes[position] = to;
        Envelope::read(&bytes).map(|_| ()).expect_err("changed")
    };
    assert_eq!(changed(0, b'X'), DropReason::Magic);
    assert_eq!(changed(2, 2), DropReason::Version);
    assert_eq!(changed(3, 0), DropReason::UnknownType);
    assert_eq!(changed(3, 8), DropReason::UnknownType);
    assert_eq!(Envelope::read(&[0; MAX_PACKET + 1]).map(|_| ()), Err(DropReason::TooLong));
    assert_eq!(Envelope::read(&bytes[..MIN_SIGNED - 1]).map(|_| ()), Err(DropReason::TooShort));
    assert_eq!(Envelope::read(&[]).map(|_| ()), Err(DropReason::TooShort));
}

proptest! {
    #[test]
    fn the_length_told_is_that_of_the_bytes(message in messages()) {
        let packet = packet(message);
        prop_assert_eq!(packet.encoded_len(), sealed(&packet).len());
    }

    #[test]
    fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..1400)) {
        let _ = opened(&bytes);
    }

    #[test]
    fn arbitrary_bodies_never_panic(code in 0u8..9, body in proptest::collection::vec(any::<u8>(), 0..1200)) {
        if let Some(kind) = Kind::from_code(code) {
            let _ = Message::from_body(kind, &body);
        }
    }

    #[test]
    fn damaged_packets_never_panic(sample in 0usize..7, position: prop::sample::Index, to: u8, cut: bool) {
        let mut bytes = sealed(&samples()[sample]);
        let position = position.index(bytes.len());
        bytes[position] = to;
        if cut {
            bytes.truncate(position);
        }
        if let Ok(envelope) = Envelope::read(&bytes) {
            let _ = envelope.open();
        }
    }
}
