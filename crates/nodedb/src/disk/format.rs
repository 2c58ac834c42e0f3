//! How entries are stored: keys of a fixed size, values by the bounded codec. Changing any of it is a new [`FORMAT`].
//!
//! | table | key, bytes | value |
//! |---|---|---|
//! | `meta` | `format` | u64: [`FORMAT`] |
//! | `records` | id, 32 | when it came, record |
//! | `proofs` | id, 32 ‖ address, 16 (IPv4 mapped into IPv6) | ping, pong, failures, changed |
//! | `bans_by_id` | id, 32 | from, until |
//! | `bans_by_network` | 4 or 6 ‖ address, 16 (IPv4: 4, then zeros) ‖ prefix length | from, until |
//! | `scores` | id, 32 | thousandths, at |
//! | `anchors` | place in the list, 1 | since, lived, record |
//!
//! Instants and lengths of time are unsigned milliseconds; instants count from the Unix epoch.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use peerage_wire::codec::{self, Blob};
use peerage_wire::{IpNet, MAX_RECORD, NodeId, NodeRecord};

use crate::book::{Ban, Banned, Held, HeldAnchor, Key, Proof, Row, Score};

/// The version of everything here.
pub(super) const FORMAT: u64 = 1;

/// Longest value: a record, and three numbers of nine bytes at most.
const MAX_VALUE: usize = MAX_RECORD + 32;

pub(super) type IdKey = [u8; 32];
pub(super) type ProofKey = [u8; 48];
pub(super) type NetworkKey = [u8; 18];
pub(super) type PlaceKey = [u8; 1];

/// A key, and with it the table that it belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum StoredKey {
    Record(IdKey),
    Proof(ProofKey),
    BanById(IdKey),
    BanByNetwork(NetworkKey),
    Score(IdKey),
    Anchor(PlaceKey),
}

/// Stored bytes that are not what they should be.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("an entry of `{0}` cannot be read: {1}")]
pub(super) struct Malformed(pub(super) &'static str, pub(super) String);

pub(super) fn key(key: &Key) -> StoredKey {
    match key {
        Key::Record(id) => StoredKey::Record(*id.as_bytes()),
        Key::Proof(id, ip) => {
            let ip = match ip {
                IpAddr::V4(ip) => ip.to_ipv6_mapped(),
                IpAddr::V6(ip) => *ip,
            };
            let mut key = [0; 48];
            key[..32].copy_from_slice(id.as_bytes());
            key[32..].copy_from_slice(&ip.octets());
            StoredKey::Proof(key)
        }
        Key::Ban(Banned::Id(id)) => StoredKey::BanById(*id.as_bytes()),
        Key::Ban(Banned::Network(network)) => {
            let mut key = [0; 18];
            match network {
                IpNet::V4(network) => {
                    key[0] = 4;
                    key[1..5].copy_from_slice(&network.network().octets());
                }
                IpNet::V6(network) => {
                    key[0] = 6;
                    key[1..17].copy_from_slice(&network.network().octets());
                }
            }
            key[17] = network.prefix_len();
            StoredKey::BanByNetwork(key)
        }
        Key::Score(id) => StoredKey::Score(*id.as_bytes()),
        Key::Anchor(place) => StoredKey::Anchor([*place]),
    }
}

/// The key and the value of an entry.
pub(super) fn row(row: &Row) -> (StoredKey, Vec<u8>) {
    let blob = |record: &NodeRecord| Blob::<MAX_RECORD>::new(record.bytes()).expect("no record is longer");
    match row {
        Row::Record(id, heard, record) => (key(&Key::Record(*id)), codec::encode(&(*heard, blob(record)))),
        Row::Proof(id, ip, proof) => {
            (key(&Key::Proof(*id, *ip)), codec::encode(&(proof.ping, proof.pong, proof.failures, proof.touched)))
        }
        Row::Ban(banned, ban) => (key(&Key::Ban(*banned)), codec::encode(&(ban.from, ban.until))),
        Row::Score(id, score) => (key(&Key::Score(*id)), codec::encode(&(score.thousandths, score.at))),
        Row::Anchor(place, anchor) => {
            (key(&Key::Anchor(*place)), codec::encode(&(anchor.since, anchor.lived, blob(&anchor.held.record))))
        }
    }
}

/// The entry of a key and a value.
pub(super) fn parse(key: &StoredKey, value: &[u8]) -> Result<Row, Malformed> {
    match key {
        StoredKey::Record(id) => {
            let (heard, bytes) = decode::<(u64, Blob<MAX_RECORD>)>("records", value)?;
            let record = record("records", &bytes)?;
            if record.id().as_bytes() != id {
                return Err(Malformed("records", "it names another node than its key".into()));
            }
            Ok(Row::Record(record.id(), heard, record))
        }
        StoredKey::Proof(key) => {
            let (mut id, mut ip) = ([0; 32], [0; 16]);
            id.copy_from_slice(&key[..32]);
            ip.copy_from_slice(&key[32..]);
            let (ping, pong, failures, touched) = decode("proofs", value)?;
            let ip = Ipv6Addr::from(ip).to_canonical();
            Ok(Row::Proof(NodeId::from_bytes(id), ip, Proof { ping, pong, failures, touched }))
        }
        StoredKey::BanById(id) => ban("bans_by_id", Banned::Id(NodeId::from_bytes(*id)), value),
        StoredKey::BanByNetwork(key) => {
            let malformed = || Malformed("bans_by_network", "its key is not a network".into());
            ban("bans_by_network", Banned::Network(network(key).ok_or_else(malformed)?), value)
        }
        StoredKey::Score(id) => {
            let (thousandths, at) = decode("scores", value)?;
            Ok(Row::Score(NodeId::from_bytes(*id), Score { thousandths, at }))
        }
        StoredKey::Anchor([place]) => {
            let (since, lived, bytes) = decode::<(u64, u64, Blob<MAX_RECORD>)>("anchors", value)?;
            let held = Held { record: record("anchors", &bytes)?, checked: false };
            Ok(Row::Anchor(*place, HeldAnchor { held, since, lived }))
        }
    }
}

fn decode<T: serde::de::DeserializeOwned>(table: &'static str, value: &[u8]) -> Result<T, Malformed> {
    codec::decode_exact(value, MAX_VALUE).map_err(|error| Malformed(table, error.to_string()))
}

fn record(table: &'static str, bytes: &[u8]) -> Result<NodeRecord, Malformed> {
    NodeRecord::decode(bytes).map_err(|error| Malformed(table, error.to_string()))
}

fn ban(table: &'static str, banned: Banned, value: &[u8]) -> Result<Row, Malformed> {
    let (from, until) = decode(table, value)?;
    Ok(Row::Ban(banned, Ban { from, until }))
}

/// `None` for bytes that name no network, or not in the one way in which it is written.
fn network(bytes: &NetworkKey) -> Option<IpNet> {
    let (address, prefix) = (&bytes[1..17], bytes[17]);
    let ip = match bytes[0] {
        4 => {
            let (ip, zeros) = address.split_first_chunk::<4>()?;
            zeros.iter().all(|byte| *byte == 0).then_some(IpAddr::V4(Ipv4Addr::from(*ip)))?
        }
        6 => IpAddr::V6(Ipv6Addr::from(*address.first_chunk::<16>()?)),
        _ => return None,
    };
    IpNet::new(ip, prefix).ok().filter(|network| network.trunc() == *network)
}

#[cfg(test)]
mod tests {
    use peerage_wire::{Keypair, NetworkId, RecordDraft};

    use super::*;

    const AT: u64 = 1_700_000_000_000;

    fn sample() -> Vec<Row> {
        let keys = Keypair::from_seed([7; 32]);
        let record = RecordDraft::new(AT, NetworkId::named("test"))
            .address("/ip4/192.0.2.1/tcp/30303".parse().expect("multiaddr"))
            .sign(&keys)
            .expect("short")
            .into_inner();
        let id = NodeId::from_bytes([5; 32]);
        let net = |text: &str| Banned::Network(text.parse().expect("network"));
        let proof = Proof { ping: AT, pong: AT + 1, failures: 2, touched: AT + 3 };
        let ban = Ban { from: AT, until: u64::MAX };
        vec![
            Row::Record(keys.id(), AT, record.clone()),
            Row::Proof(id, "192.0.2.1".parse().expect("ip"), proof),
            Row::Proof(id, "2001:db8::1".parse().expect("ip"), proof),
            Row::Ban(Banned::Id(id), ban),
            Row::Ban(net("192.0.2.0/24"), ban),
            Row::Ban(net("2001:db8::/32"), ban),
            Row::Score(id, Score { thousandths: 250_500, at: AT }),
            Row::Anchor(3, HeldAnchor { held: Held { record, checked: false }, since: AT, lived: 60_000 }),
        ]
    }

    fn hex(bytes: &[u8]) -> String {
        bytes.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    fn key_bytes(key: &StoredKey) -> (&'static str, Vec<u8>) {
        match key {
            StoredKey::Record(key) => ("records", key.to_vec()),
            StoredKey::Proof(key) => ("proofs", key.to_vec()),
            StoredKey::BanById(key) => ("bans_by_id", key.to_vec()),
            StoredKey::BanByNetwork(key) => ("bans_by_network", key.to_vec()),
            StoredKey::Score(key) => ("scores", key.to_vec()),
            StoredKey::Anchor(key) => ("anchors", key.to_vec()),
        }
    }

    #[test]
    fn stored_entries_are_these_bytes() {
        let at = "fd0068e5cf8b010000";
        let after = |n: u8| format!("fd{n:02x}68e5cf8b010000");
        let keys = Keypair::from_seed([7; 32]);
        let own = hex(keys.id().as_bytes());
        let id = "05".repeat(32);
        let proof = format!("{at}{}02{}", after(1), after(3));
        let forever = format!("{at}fdffffffffffffffff");
        let expected = [
            ("records", own, None),
            ("proofs", format!("{id}00000000000000000000ffffc0000201"), Some(proof.clone())),
            ("proofs", format!("{id}20010db8000000000000000000000001"), Some(proof)),
            ("bans_by_id", id.clone(), Some(forever.clone())),
            ("bans_by_network", format!("04c0000200{}18", "00".repeat(12)), Some(forever.clone())),
            ("bans_by_network", format!("0620010db8{}20", "00".repeat(12)), Some(forever)),
            ("scores", id, Some(format!("fc84d20300{at}"))),
            ("anchors", "03".into(), None),
        ];
        for (entry, (table, key, value)) in sample().iter().zip(expected) {
            let (stored, bytes) = row(entry);
            assert_eq!(key_bytes(&stored), (table, data(&key)), "{table}");
            match (entry, value) {
                (_, Some(value)) => assert_eq!(hex(&bytes), value, "{table}"),
                (Row::Record(_, _, record), None) => {
                    assert_eq!(hex(&bytes), format!("{at}{:02x}{}", record.bytes().len(), hex(record.bytes())));
                }
                (Row::Anchor(_, anchor), None) => {
                    let record = anchor.held.record.bytes();
                    assert_eq!(hex(&bytes), format!("{at}fb60ea{:02x}{}", record.len(), hex(record)));
                }
                (other, None) => panic!("no vector for {other:?}"),
            }
        }
    }

    fn data(hex: &str) -> Vec<u8> {
        (0..hex.len() / 2).map(|i| u8::from_str_radix(&hex[2 * i..2 * i + 2], 16).expect("hex")).collect()
    }

    #[test]
    fn entries_come_back_and_no_prefix_or_addition_of_a_value_does() {
        for entry in sample() {
            let (key, value) = row(&entry);
            let back = parse(&key, &value).expect("as written");
            assert_eq!(row(&back), (key, value.clone()));
            for len in 0..value.len() {
                assert!(parse(&key, &value[..len]).is_err(), "{entry:?} cut to {len}");
            }
            assert!(parse(&key, &[&value[..], &[0]].concat()).is_err());
        }
    }

    #[test]
    fn a_network_is_written_in_one_way_only() {
        let good = [&[4, 192, 0, 2, 0][..], &[0; 12], &[24]].concat();
        let key = |change: &dyn Fn(&mut [u8; 18])| {
            let mut key: [u8; 18] = good.clone().try_into().expect("18 bytes");
            change(&mut key);
            network(&key)
        };
        assert_eq!(key(&|_| ()), Some("192.0.2.0/24".parse().expect("network")));
        for (place, byte) in [(0, 5), (0, 0), (4, 1), (5, 1), (16, 1), (17, 33)] {
            assert_eq!(key(&|key| key[place] = byte), None, "{place} {byte}");
        }
    }

    #[test]
    fn a_record_under_another_nodes_key_is_refused() {
        let (_, value) = row(&sample()[0]);
        assert!(parse(&StoredKey::Record([9; 32]), &value).is_err());
    }
}
