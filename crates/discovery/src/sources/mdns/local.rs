//! What of the local network's announcements is believed, and how much of it.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::time::Duration;

use data_encoding::BASE64URL_NOPAD;
use peerage_machine::{Effects, Machine, Quota, QuotaTable, Time};
use peerage_wire::address::is_local;
use peerage_wire::{MAX_RECORD, NetworkId, NodeId, NodeRecord, Verified};
use serde::{Deserialize, Serialize};

/// Nodes that are news within a minute: as many as a local network may have, and few enough that a flood of invented
/// ones is nothing.
pub const MAX_NEWS: u32 = 64;
const NEWS: Duration = Duration::from_secs(60);
/// Announcements within a second whose signatures are checked.
const CHECKS: Quota = Quota::per_second(32);
/// Bytes of a piece of a record: with its key it is a string of a TXT record, which has at most 255.
const PIECE: usize = 250;
/// Pieces of the longest record in base64url.
const MAX_PIECES: usize = (MAX_RECORD * 4).div_ceil(3).div_ceil(PIECE);

/// What may happen.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum In {
    /// A node was announced with these properties, by key.
    Announced(BTreeMap<String, Vec<u8>>),
}

/// Why an announcement is not used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Refusal {
    /// Of another network.
    Network,
    /// It holds no record, or one that its owner did not sign.
    Record,
    /// Its record names no address of a local network.
    NotLocal,
    /// More were announced than are believed.
    TooMany,
}

/// What is asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Out {
    /// A node of this network, its signature checked.
    Found(Verified<NodeRecord>),
    /// An announcement is not used.
    Refused(Refusal),
}

/// See the module.
pub struct LocalMachine {
    me: NodeId,
    network: NetworkId,
    checks: QuotaTable<()>,
    news: QuotaTable<()>,
    /// The newest record of each node that was news, and until when it is none.
    known: BTreeMap<NodeId, (u64, Time)>,
}

/// A record as properties of an announcement.
pub fn pieces(record: &NodeRecord) -> Vec<(String, String)> {
    let text = BASE64URL_NOPAD.encode(record.bytes());
    let parts = (0..text.len()).step_by(PIECE).filter_map(|at| text.get(at..(at + PIECE).min(text.len())));
    let mut properties: Vec<_> = parts.enumerate().map(|(n, part)| (format!("r{n}"), part.to_owned())).collect();
    properties.push(("n".to_owned(), tag(record.network())));
    properties
}

/// What tells one network's nodes from another's before their records are looked at.
fn tag(network: NetworkId) -> String {
    BASE64URL_NOPAD.encode(&peerage_wire::codec::encode(&network))
}

impl LocalMachine {
    /// That of the node `me`.
    pub fn new(me: NodeId, network: NetworkId) -> LocalMachine {
        let news = Quota::new(MAX_NEWS, NEWS);
        LocalMachine {
            me,
            network,
            checks: QuotaTable::new(CHECKS, 1),
            news: QuotaTable::new(news, 1),
            known: BTreeMap::new(),
        }
    }

    /// How many nodes it remembers.
    pub fn known(&self) -> usize {
        self.known.len()
    }

    fn judge(
        &mut self,
        now: Time,
        properties: &BTreeMap<String, Vec<u8>>,
    ) -> Result<Option<Verified<NodeRecord>>, Refusal> {
        if properties.get("n").map(Vec::as_slice) != Some(tag(self.network).as_bytes()) {
            return Err(Refusal::Network);
        }
        let mut text = Vec::new();
        for n in 0..MAX_PIECES {
            match properties.get(&format!("r{n}")) {
                Some(piece) if piece.len() <= 255 => text.extend_from_slice(piece),
                Some(_) => return Err(Refusal::Record),
                None => break,
            }
        }
        let bytes = BASE64URL_NOPAD.decode(&text).map_err(|_| Refusal::Record)?;
        let record = NodeRecord::decode(&bytes).map_err(|_| Refusal::Record)?;
        let known = self.known.get(&record.id());
        if record.id() == self.me || known.is_some_and(|(seq, until)| record.seq() <= *seq && now < *until) {
            return Ok(None);
        }
        if record.network() != self.network {
            return Err(Refusal::Network);
        }
        let local = |sockets: &[std::net::SocketAddr]| sockets.iter().any(|socket| is_local(socket.ip()));
        if !local(record.tcp_sockets()) && !local(record.udp_sockets()) {
            return Err(Refusal::NotLocal);
        }
        if !self.checks.take(now, &()) {
            return Err(Refusal::TooMany);
        }
        let record = record.verify().map_err(|_| Refusal::Record)?;
        // Only what is signed counts: invented ids cost their inventor a key each, and are still bounded.
        if !self.news.take(now, &()) {
            return Err(Refusal::TooMany);
        }
        self.known.retain(|_, (_, until)| now < *until);
        self.known.insert(record.id(), (record.seq(), now + NEWS));
        Ok(Some(record))
    }
}

impl Machine for LocalMachine {
    type In = In;
    type Out = Out;
    type Timer = Infallible;

    fn handle(&mut self, now: Time, input: In, fx: &mut Effects<Out, Infallible>) {
        let In::Announced(properties) = input;
        match self.judge(now, &properties) {
            Ok(Some(record)) => fx.emit(Out::Found(record)),
            // Itself, or what was told a moment ago.
            Ok(None) => {}
            Err(why) => fx.emit(Out::Refused(why)),
        }
    }

    fn expire(&mut self, _: Time, timer: Infallible, _: &mut Effects<Out, Infallible>) {
        match timer {}
    }
}

#[cfg(test)]
mod tests {
    use peerage_machine::Driver;
    use peerage_wire::{Keypair, RecordDraft};

    use super::*;

    fn network() -> NetworkId {
        NetworkId::named("test")
    }

    fn keys(n: u16) -> Keypair {
        let mut seed = [5; 32];
        seed[..2].copy_from_slice(&n.to_be_bytes());
        Keypair::from_seed(seed)
    }

    fn record(n: u16, seq: u64, network: NetworkId, address: &str) -> Verified<NodeRecord> {
        let draft = RecordDraft::new(seq, network).address(address.parse().expect("address"));
        draft.sign(&keys(n)).expect("small")
    }

    fn announced(record: &NodeRecord) -> BTreeMap<String, Vec<u8>> {
        pieces(record).into_iter().map(|(key, value)| (key, value.into_bytes())).collect()
    }

    struct World(Driver<LocalMachine>);

    impl World {
        fn new() -> World {
            World(Driver::new(LocalMachine::new(keys(0).id(), network())))
        }

        fn tell(&mut self, millis: u64, properties: BTreeMap<String, Vec<u8>>) -> Vec<Out> {
            self.0.handle(Time::ZERO + Duration::from_millis(millis), In::Announced(properties));
            self.0.drain().collect()
        }
    }

    const LAN: &str = "/ip4/192.168.1.7/udp/30303";

    #[test]
    fn an_announced_node_is_found_once_a_minute_and_at_once_when_its_record_is_newer() {
        let mut world = World::new();
        let (old, new) = (record(1, 1, network(), LAN), record(1, 2, network(), LAN));
        assert_eq!(world.tell(0, announced(&old)), [Out::Found(old.clone())]);
        assert_eq!(world.tell(1_000, announced(&old)), []);
        assert_eq!(world.tell(2_000, announced(&new)), [Out::Found(new)]);
        assert_eq!(world.tell(3_000, announced(&old)), [], "older");
        assert_eq!(world.tell(70_000, announced(&old)).len(), 1, "again: it may have been missed");
    }

    #[test]
    fn the_longest_record_fits_strings_of_a_txt_record() {
        let draft = RecordDraft::new(1, network())
            .address(LAN.parse().expect("address"))
            .entry("a", [1; 96])
            .entry("b", [2; 40]);
        let record = draft.sign(&keys(1)).expect("small");
        assert!(record.bytes().len() > 280, "{}", record.bytes().len());
        let properties = pieces(&record);
        assert_eq!(properties.len(), 3);
        assert!(properties.iter().all(|(key, value)| key.len() + 1 + value.len() <= 255));
        assert_eq!(World::new().tell(0, announced(&record)), [Out::Found(record)]);
    }

    #[test]
    fn what_is_not_of_this_network_signed_and_local_is_refused() {
        let mut world = World::new();
        let mut refused = |properties| match &world.tell(0, properties)[..] {
            [Out::Refused(why)] => *why,
            others => panic!("{others:?}"),
        };
        let other = NetworkId::named("other");
        assert_eq!(refused(announced(&record(1, 1, other, LAN))), Refusal::Network);
        let mut disguised = announced(&record(1, 1, other, LAN));
        disguised.insert("n".into(), tag(network()).into_bytes());
        assert_eq!(refused(disguised), Refusal::Network);
        assert_eq!(refused(BTreeMap::new()), Refusal::Network);
        for address in ["/ip4/8.8.8.8/udp/30303", "/ip6/2001:db8::1/tcp/30303", "/ip4/224.0.0.1/udp/30303"] {
            assert_eq!(refused(announced(&record(1, 1, network(), address))), Refusal::NotLocal, "{address}");
        }
        let good = announced(&record(1, 1, network(), LAN));
        let changed = |key: &str, value: &[u8]| {
            let mut properties = good.clone();
            properties.insert(key.into(), value.to_vec());
            properties
        };
        for properties in [
            changed("r0", b""),
            changed("r0", b"!"),
            changed("r0", &[b'A'; 60_000]),
            changed("r1", b"AAAA"),
            changed("r0", &good["r0"][4..]),
        ] {
            assert_eq!(refused(properties), Refusal::Record);
        }
    }

    #[test]
    fn itself_is_not_news() {
        assert_eq!(World::new().tell(0, announced(&record(0, 1, network(), LAN))), []);
    }

    #[test]
    fn a_flood_of_invented_nodes_is_bounded_and_ends() {
        let mut world = World::new();
        let mut found = 0;
        for n in 1..400 {
            found += world
                .tell(n * 50, announced(&record(n as u16, 1, network(), LAN)))
                .iter()
                .filter(|out| matches!(out, Out::Found(_)))
                .count();
        }
        assert!((64..=64 + 22).contains(&found), "in 20 s: {found}");
        assert!(world.0.machine().known() <= 128);
        assert_eq!(world.tell(200_000, announced(&record(999, 1, network(), LAN))).len(), 1);
        assert_eq!(world.0.machine().known(), 1, "the others are forgotten");
    }
}
