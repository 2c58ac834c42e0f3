//! Who is whose peer, and who must not be.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::Duration;

use peerage_wire::Banned;
use peerage_wire::address::{host, is_local, site};

use super::{Happening, Invariant, Scene, Seen, Verdict};
use crate::engine::HostId;
use crate::node::Note;

/// No node has more peers of a kind than it has places for: those that came, those that it dialled, static ones, and of
/// those that came, those of one host and of one site. Trusted peers may be more.
pub struct Slots;

impl Invariant for Slots {
    fn name(&self) -> &'static str {
        "slots"
    }

    fn saw(&mut self, scene: &Scene<'_>, host: HostId, seen: &Seen) -> Verdict {
        let config = scene.config;
        let strangers = || seen.peers.iter().filter(|peer| !peer.trusted && !peer.fixed);
        let dialled = strangers().filter(|peer| peer.dialled).count();
        let came = strangers().count() - dialled;
        let fixed = seen.peers.iter().filter(|peer| !peer.trusted && peer.fixed).count();
        let share = config.dial_share();
        let limits = [
            ("that came", came, config.max_peers - share),
            ("that it dialled", dialled, if config.dialing_on { share } else { config.max_peers }),
            ("in all but static ones", came + dialled, config.max_peers),
            ("that are static", fixed, config.max_static_peers),
        ];
        for (which, count, places) in limits {
            if count > places as usize {
                return Err(format!("host {} has {count} peers {which} and {places} places", host.0));
            }
        }
        let addresses = || strangers().filter(|peer| !peer.dialled).map(|peer| peer.ip);
        let spared = |ip: IpAddr| config.exempt_local && is_local(ip);
        let limited = || addresses().filter(|ip| !spared(*ip));
        let limits = [
            ("host", most(limited().map(self::host)), config.inbound_per_host),
            ("site", most(limited().map(site)), config.inbound_per_site),
        ];
        for (which, count, places) in limits {
            // Where many share an address, more of them may come.
            if count > places && config.listener.shared_addresses.is_empty() {
                return Err(format!("{count} of host {}'s peers came from one {which}: {places} may", host.0));
            }
        }
        Ok(())
    }
}

/// How many there are of what there are most of.
fn most<T: Ord>(all: impl Iterator<Item = T>) -> u32 {
    let mut counts = BTreeMap::<T, u32>::new();
    all.for_each(|one| *counts.entry(one).or_default() += 1);
    counts.into_values().max().unwrap_or(0)
}

/// Nobody is connected to a node that has banned it.
pub struct NobodyBanned;

impl Invariant for NobodyBanned {
    fn name(&self) -> &'static str {
        "nobody-banned"
    }

    fn saw(&mut self, _scene: &Scene<'_>, host: HostId, seen: &Seen) -> Verdict {
        for banned in &seen.bans {
            let is_banned = |peer: &&super::SeenPeer| match banned {
                Banned::Id(id) => peer.id == *id,
                Banned::Network(network) => network.contains(&peer.ip),
            };
            if let Some(peer) = seen.peers.iter().find(is_banned) {
                return Err(format!("host {} has banned {banned:?} and is connected to {}", host.0, peer.id));
            }
        }
        Ok(())
    }
}

/// No honest node bans an honest node, or a network with one in it.
pub struct HonestBans;

impl Invariant for HonestBans {
    fn name(&self) -> &'static str {
        "honest-bans"
    }

    fn noted(&mut self, scene: &Scene<'_>, host: HostId, note: &Note) -> Verdict {
        let Note::Banned(banned) = note else { return Ok(()) };
        if scene.roster.is_hostile(host) {
            return Ok(());
        }
        match banned {
            Banned::Id(id) => match scene.roster.honest(id) {
                Some(other) => Err(format!("host {} banned host {}, which is honest", host.0, other.0)),
                None => Ok(()),
            },
            Banned::Network(network) => match scene.roster.honest_addresses().find(|ip| network.contains(ip)) {
                Some(ip) => Err(format!("host {} banned {network}, and {ip} in it is honest", host.0)),
                None => Ok(()),
            },
        }
    }
}

/// How long one end of a session may have it alone. The slowest nodes of the shipped scenarios send 2 Mbit/s: a farewell to
/// one of thirty peers goes out behind 64 KiB for each and the message that was begun, of 16 KiB: that is 9.8 s, and a
/// segment may be lost.
const GRACE: Duration = Duration::from_secs(12);

/// Of two honest nodes, both have the other for a peer, or after a few seconds neither. Where the network is parted, and
/// for a while after it, the ends learn of it by silence, each in its own time. A host that does not read is not told.
#[derive(Default)]
pub struct Symmetric {
    /// Who has whom.
    has: BTreeSet<(HostId, HostId)>,
    /// Who has whom without being its peer, and since when.
    alone: BTreeMap<(HostId, HostId), Duration>,
    /// Hosts that do not read, and those that do again, since when.
    deaf: BTreeSet<HostId>,
    reads_since: BTreeMap<HostId, Duration>,
    parted: bool,
    whole_since: Option<Duration>,
}

impl Symmetric {
    fn up(&mut self, now: Duration, one: HostId, other: HostId) {
        self.has.insert((one, other));
        if self.has.contains(&(other, one)) {
            self.alone.remove(&(other, one));
        } else {
            self.alone.entry((one, other)).or_insert(now);
        }
    }

    fn down(&mut self, now: Duration, one: HostId, other: HostId) {
        self.has.remove(&(one, other));
        self.alone.remove(&(one, other));
        if self.has.contains(&(other, one)) {
            self.alone.entry((other, one)).or_insert(now);
        }
    }
}

impl Invariant for Symmetric {
    fn name(&self) -> &'static str {
        "symmetric"
    }

    fn noted(&mut self, scene: &Scene<'_>, host: HostId, note: &Note) -> Verdict {
        let (Note::PeerUp(id, _) | Note::PeerDown(id, _)) = note else { return Ok(()) };
        let Some(other) = scene.roster.honest(id).filter(|_| !scene.roster.is_hostile(host)) else { return Ok(()) };
        match note {
            Note::PeerUp(..) => self.up(scene.now, host, other),
            _ => self.down(scene.now, host, other),
        }
        Ok(())
    }

    fn happened(&mut self, scene: &Scene<'_>, what: &Happening) {
        match what {
            Happening::Stopped(host) => {
                let peers = self.has.range((*host, HostId(0))..=(*host, HostId(u32::MAX)));
                let peers: Vec<HostId> = peers.map(|(_, peer)| *peer).collect();
                peers.into_iter().for_each(|peer| self.down(scene.now, *host, peer));
            }
            Happening::Reads(host, false) => drop(self.deaf.insert(*host)),
            Happening::Reads(host, true) => {
                self.deaf.remove(host);
                self.reads_since.insert(*host, scene.now);
            }
            Happening::Parted => self.parted = true,
            Happening::Healed => (self.parted, self.whole_since) = (false, Some(scene.now)),
            Happening::Started(_) | Happening::Published(_) => {}
        }
    }

    fn looked(&mut self, scene: &Scene<'_>) -> Verdict {
        let silence = scene.config.session.idle_timeout + GRACE;
        let shaken = self.parted || self.whole_since.is_some_and(|since| scene.now < since + silence);
        let grace = if shaken { silence } else { GRACE };
        let reads_since = |host: HostId| self.reads_since.get(&host).copied().unwrap_or_default();
        let late = |((one, other), since): &(&(HostId, HostId), &Duration)| {
            let deaf = self.deaf.contains(one) || self.deaf.contains(other);
            let since = (**since).max(reads_since(*one)).max(reads_since(*other));
            !deaf && scene.now > since + grace
        };
        let Some((pair, since)) = self.alone.iter().find(late).map(|(pair, since)| (*pair, *since)) else {
            return Ok(());
        };
        // Once for each.
        self.alone.remove(&pair);
        let alone = (scene.now - since).as_secs();
        Err(format!("host {} has host {} for a peer, which has not had it for {alone} s", pair.0.0, pair.1.0))
    }
}

#[cfg(test)]
mod tests {
    use peerage_wire::DisconnectReason;

    use super::super::trial::{HOSTILE, Trial, id, ip, peer, with};
    use super::super::{Roster, SeenPeer};
    use super::*;

    #[test]
    fn more_peers_than_places_of_a_kind_break_the_slots() {
        let trial = Trial::new();
        let share = trial.config.dial_share() as u8;
        let (all, statics) = (trial.config.max_peers as u8, trial.config.max_static_peers as u8);
        let saw = |peers: Vec<SeenPeer>| trial.saw(&mut Slots, &with(peers));
        let dialled = |count| (0..count).map(|host| peer(host, true)).collect::<Vec<_>>();
        let came = |count| (100..100 + count).map(|host| peer(host, false)).collect::<Vec<_>>();
        let fixed = |count| dialled(count).into_iter().map(|peer| SeenPeer { fixed: true, ..peer }).collect::<Vec<_>>();
        assert_eq!(saw([dialled(share), came(all - share), fixed(statics)].concat()), Ok(()));
        assert!(saw(dialled(share + 1)).is_err());
        assert!(saw(came(all - share + 1)).is_err());
        assert!(saw(fixed(statics + 1)).is_err());
        let trusted = dialled(all).into_iter().map(|peer| SeenPeer { trusted: true, ..peer });
        assert_eq!(saw(trusted.collect()), Ok(()), "limits spare them");
    }

    #[test]
    fn too_many_that_came_from_one_host_or_site_break_the_slots() {
        let trial = Trial::new();
        let at = |ip| SeenPeer { ip, ..peer(1, false) };
        let of_host = |count: u32| with((0..count).map(|_| at(ip(1, 1))));
        let of_site = |count: u32| with((0..count).map(|nth| at(ip(1, nth as u8))));
        let (host, site) = (trial.config.inbound_per_host, trial.config.inbound_per_site);
        assert_eq!(trial.saw(&mut Slots, &of_host(host)), Ok(()));
        assert!(trial.saw(&mut Slots, &of_host(host + 1)).is_err());
        assert_eq!(trial.saw(&mut Slots, &of_site(site)), Ok(()));
        assert!(trial.saw(&mut Slots, &of_site(site + 1)).is_err());
    }

    #[test]
    fn a_banned_peer_is_seen_by_its_id_and_by_its_network() {
        let trial = Trial::new();
        let mut seen = with([peer(1, true), peer(2, false)]);
        seen.bans = vec![Banned::Id(id(3)), Banned::Network(site(ip(3, 1)).network())];
        assert_eq!(trial.saw(&mut NobodyBanned, &seen), Ok(()));
        seen.bans = vec![Banned::Id(id(2))];
        assert!(trial.saw(&mut NobodyBanned, &seen).is_err());
        seen.bans = vec![Banned::Network(site(ip(2, 9)).network())];
        assert!(trial.saw(&mut NobodyBanned, &seen).is_err());
    }

    #[test]
    fn only_bans_of_honest_nodes_by_honest_nodes_are_wrong() {
        let trial = Trial::new();
        let bans = |host, banned| trial.noted(&mut HonestBans, 1, host, Note::Banned(banned));
        assert_eq!(bans(0, Banned::Id(id(HOSTILE))), Ok(()));
        assert_eq!(bans(0, Banned::Network(site(ip(HOSTILE, 9)).network())), Ok(()));
        assert_eq!(bans(HOSTILE, Banned::Id(id(1))), Ok(()));
        assert!(bans(0, Banned::Id(id(1))).is_err());
        assert!(bans(0, Banned::Network(site(ip(1, 9)).network())).is_err());
        assert!(Roster::default().honest(&id(1)).is_none());
    }

    fn up(host: u8) -> Note {
        Note::PeerUp(id(host), true)
    }

    fn down(host: u8) -> Note {
        Note::PeerDown(id(host), DisconnectReason::Requested)
    }

    #[test]
    fn a_session_that_one_end_keeps_alone_is_noticed_after_a_while_and_once() {
        let trial = Trial::new();
        let mut symmetric = Symmetric::default();
        trial.noted(&mut symmetric, 1, 0, up(1)).expect("noted");
        trial.noted(&mut symmetric, 2, 1, up(0)).expect("noted");
        trial.noted(&mut symmetric, 2, 1, up(HOSTILE)).expect("noted");
        assert_eq!(trial.looked(&mut symmetric, 60), Ok(()));
        trial.noted(&mut symmetric, 60, 1, down(0)).expect("noted");
        let late = 60 + GRACE.as_secs();
        assert_eq!(trial.looked(&mut symmetric, late), Ok(()), "it may be on its way");
        assert!(trial.looked(&mut symmetric, late + 1).is_err());
        assert_eq!(trial.looked(&mut symmetric, late + 2), Ok(()));
    }

    #[test]
    fn who_crashed_is_let_go_by_its_peers_in_time() {
        let trial = Trial::new();
        let mut symmetric = Symmetric::default();
        for (host, other) in [(0, 1), (1, 0), (0, 2), (2, 0)] {
            trial.noted(&mut symmetric, 1, host, up(other)).expect("noted");
        }
        trial.happened(&mut symmetric, 10, Happening::Stopped(HostId(0)));
        trial.noted(&mut symmetric, 11, 1, down(0)).expect("noted");
        assert_eq!(trial.looked(&mut symmetric, 12), Ok(()));
        assert!(trial.looked(&mut symmetric, 12 + GRACE.as_secs()).is_err_and(|what| what.starts_with("host 2")));
    }

    #[test]
    fn a_cut_gives_silence_its_time_and_a_host_that_does_not_read_all_it_needs() {
        let trial = Trial::new();
        let silence = trial.config.session.idle_timeout.as_secs();
        let mut symmetric = Symmetric::default();
        trial.happened(&mut symmetric, 1, Happening::Parted);
        trial.noted(&mut symmetric, 2, 0, up(1)).expect("noted");
        trial.happened(&mut symmetric, 3, Happening::Healed);
        assert_eq!(trial.looked(&mut symmetric, 2 + silence), Ok(()));
        assert!(trial.looked(&mut symmetric, 4 + silence + GRACE.as_secs()).is_err());
        trial.happened(&mut symmetric, 100, Happening::Reads(HostId(2), false));
        trial.noted(&mut symmetric, 100, 0, up(2)).expect("noted");
        assert_eq!(trial.looked(&mut symmetric, 200), Ok(()));
        trial.happened(&mut symmetric, 200, Happening::Reads(HostId(2), true));
        let late = 200 + GRACE.as_secs();
        assert_eq!(trial.looked(&mut symmetric, late), Ok(()));
        assert!(trial.looked(&mut symmetric, late + 1).is_err());
    }
}
