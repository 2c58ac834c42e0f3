//! What stands between the socket and the machine: everything that can be refused without knowing anybody.
//!
//! It runs in the socket's task and shares nothing with the machine. Checks come cheapest first, so that a
//! packet with a forged source costs a hash and is answered with at most a smaller packet.

use std::net::SocketAddr;
use std::sync::Arc;

use peerage_machine::{QuotaTable, Time};
use peerage_wire::address::{host, is_local, site};
use peerage_wire::{Admission, IpNet, NetworkId, NodeId};
use serde::Serialize;

use crate::config::Config;
use crate::count::DropReason;
use crate::net::canonical;
use crate::secrets::Secrets;
use crate::wire::{self, Envelope, Kind, Packet};

/// A packet that passed the [`Gate`]: signed by `from`, and either a request from an address it receives at,
/// or an answer to something this node asked it there.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Inbound {
    /// Who signed it. Of a `Cookie`: who was asked.
    pub from: NodeId,
    /// Where it came from.
    pub addr: SocketAddr,
    /// What it says.
    pub packet: Packet,
}

/// What becomes of a datagram.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Give it to the machine.
    Pass(Inbound),
    /// Send these bytes back, which are fewer than came; counted as [`DropReason::NoCookie`].
    Challenge(Vec<u8>),
    /// Nothing; counted by its reason. The type is there if it was readable.
    Drop(DropReason, Option<Kind>),
}

/// The checks of one node.
pub struct Gate {
    config: Config,
    me: NodeId,
    network: NetworkId,
    secrets: Secrets,
    admission: Arc<Admission>,
    /// For packets that prove where they come from, and for those that do not: whoever forges a host's address
    /// must not use up that host's own quota.
    proven: AddressQuotas,
    unproven: AddressQuotas,
    verify_requests: QuotaTable<()>,
    verify_answers: QuotaTable<()>,
}

impl Gate {
    /// The gate of node `me` on `network`.
    pub fn new(config: Config, me: NodeId, network: NetworkId, secrets: Secrets) -> Gate {
        Gate {
            proven: AddressQuotas::new(&config),
            unproven: AddressQuotas::new(&config),
            verify_requests: QuotaTable::new(config.verify_requests, 1),
            verify_answers: QuotaTable::new(config.verify_answers, 1),
            config,
            me,
            network,
            secrets,
            admission: Arc::new(Admission::open()),
        }
    }

    /// Whose packets it lets in from now on; a new gate lets in everybody's.
    pub fn restrict(&mut self, admission: Arc<Admission>) {
        self.admission = admission;
    }

    /// Judges one datagram.
    pub fn admit(&mut self, now: Time, from: SocketAddr, bytes: &[u8]) -> Verdict {
        let addr = canonical(from);
        let envelope = match Envelope::read(bytes) {
            Ok(envelope) => envelope,
            Err(reason) => return Verdict::Drop(reason, None),
        };
        let kind = envelope.kind;
        if let Err(reason) = self.addressed(&envelope, addr) {
            return Verdict::Drop(reason, Some(kind));
        }
        // One keyed hash tells whether the sender has received something from us at this address.
        if kind.is_request() {
            let epoch = self.config.cookie_epoch;
            if !self.secrets.accepts(envelope.cookie, envelope.from, addr, now, epoch) {
                if let Err(reason) = self.unproven.take(now, addr) {
                    return Verdict::Drop(reason, Some(kind));
                }
                let cookie = self.secrets.cookie(envelope.from, addr, now, epoch);
                return Verdict::Challenge(wire::cookie_answer(&envelope, cookie));
            }
        } else if self.secrets.nonce_mac(envelope.from, addr, envelope.nonce.counter) != envelope.nonce.mac {
            return Verdict::Drop(DropReason::Nonce, Some(kind));
        }
        let admitted = self.proven.take(now, addr).and_then(|()| self.signed(now, &envelope));
        match admitted.and_then(|()| envelope.open()) {
            Ok(packet) => Verdict::Pass(Inbound { from: envelope.from, addr, packet }),
            Err(reason) => Verdict::Drop(reason, Some(kind)),
        }
    }

    fn addressed(&self, envelope: &Envelope<'_>, addr: SocketAddr) -> Result<(), DropReason> {
        if envelope.network != *self.network.as_bytes() {
            Err(DropReason::Network)
        } else if envelope.to != self.me {
            Err(DropReason::Recipient)
        } else if envelope.from == self.me {
            Err(DropReason::Own)
        } else if !self.admission.permits_ip(addr.ip()) || !self.admission.permits_id(&envelope.from) {
            Err(DropReason::NotAdmitted)
        } else {
            Ok(())
        }
    }

    fn signed(&mut self, now: Time, envelope: &Envelope<'_>) -> Result<(), DropReason> {
        if envelope.kind == Kind::Cookie {
            return Ok(());
        }
        let (unix, skew) = (now.unix().as_secs(), self.config.clock_skew.as_secs());
        let latest = unix.saturating_add(self.config.packet_lifetime.as_secs()).saturating_add(skew);
        // A packet that claims to live for long could be replayed for as long.
        if envelope.expiry.saturating_add(skew) < unix || envelope.expiry > latest {
            return Err(DropReason::Expired);
        }
        let budget = if envelope.kind.is_request() { &mut self.verify_requests } else { &mut self.verify_answers };
        if !budget.take(now, &()) {
            return Err(DropReason::VerifyBudget);
        }
        envelope.verify()
    }
}

/// What a host and its site may send.
struct AddressQuotas {
    exempt_local: bool,
    hosts: QuotaTable<IpNet>,
    sites: QuotaTable<IpNet>,
}

impl AddressQuotas {
    fn new(config: &Config) -> AddressQuotas {
        AddressQuotas {
            exempt_local: config.exempt_local,
            hosts: QuotaTable::new(config.quota_host, config.quota_capacity),
            sites: QuotaTable::new(config.quota_site, config.quota_capacity),
        }
    }

    fn take(&mut self, now: Time, addr: SocketAddr) -> Result<(), DropReason> {
        if self.exempt_local && is_local(addr.ip()) {
            return Ok(());
        }
        if !self.hosts.take(now, &host(addr.ip())) {
            return Err(DropReason::HostQuota);
        }
        if !self.sites.take(now, &site(addr.ip())) {
            return Err(DropReason::SiteQuota);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use peerage_machine::Quota;
    use peerage_wire::Keypair;

    use super::*;
    use crate::key::Key;
    use crate::wire::{COOKIE_PACKET, Cookie, MAX_PACKET, Message, Nonce};

    const UNIX: u64 = 1_700_000_000;

    fn now() -> Time {
        Time::new(Duration::from_secs(5), Duration::from_secs(UNIX))
    }

    fn them() -> Keypair {
        Keypair::from_seed([2; 32])
    }

    fn us() -> Keypair {
        Keypair::from_seed([1; 32])
    }

    fn network() -> NetworkId {
        NetworkId::named("test")
    }

    fn secrets() -> Secrets {
        Secrets::from_seed(&[4; 32])
    }

    fn gate(config: Config) -> Gate {
        Gate::new(config, us().id(), network(), secrets())
    }

    fn strict() -> Config {
        Config { exempt_local: false, ..Config::recommended() }
    }

    fn addr(text: &str) -> SocketAddr {
        text.parse().expect("address")
    }

    fn home() -> SocketAddr {
        addr("192.0.2.9:30303")
    }

    /// A request as `them` would send it from `home`, with the cookie it was given there.
    fn request(message: Message) -> Packet {
        let cookie = secrets().cookie(them().id(), home(), now(), strict().cookie_epoch);
        Packet { nonce: Nonce { counter: 9, mac: [7; 8] }, cookie, expiry: UNIX + 20, message }
    }

    fn ping() -> Packet {
        request(Message::Ping { record_seq: 1 })
    }

    /// An answer as `them` would send it from `home` to our request with this counter.
    fn answer(message: Message) -> Packet {
        let mac = secrets().nonce_mac(them().id(), home(), 33);
        Packet { nonce: Nonce { counter: 33, mac }, cookie: Cookie::NONE, expiry: UNIX + 20, message }
    }

    fn pong() -> Packet {
        answer(Message::Pong { record_seq: 1, observed: home() })
    }

    fn seal(packet: &Packet) -> Vec<u8> {
        packet.seal(network(), &them(), us().id())
    }

    fn dropped(verdict: Verdict) -> DropReason {
        match verdict {
            Verdict::Drop(reason, _) => reason,
            other => panic!("not dropped: {other:?}"),
        }
    }

    #[test]
    fn a_request_with_its_cookie_and_an_answer_with_our_nonce_pass() {
        for packet in [ping(), pong()] {
            let inbound = Inbound { from: them().id(), addr: home(), packet: packet.clone() };
            assert_eq!(gate(strict()).admit(now(), home(), &seal(&packet)), Verdict::Pass(inbound));
        }
    }

    #[test]
    fn a_request_without_a_cookie_gets_a_smaller_challenge_that_echoes_its_nonce() {
        let mut gate = gate(strict());
        for message in [
            Message::Ping { record_seq: 1 },
            Message::FindNode { target: Key::from_bytes([1; 32]) },
            Message::RecordRequest,
        ] {
            let mut packet = request(message);
            packet.cookie = Cookie::NONE;
            let bytes = seal(&packet);
            let Verdict::Challenge(challenge) = gate.admit(now(), home(), &bytes) else { panic!("not challenged") };
            assert!(challenge.len() < bytes.len());
            assert_eq!(challenge.len(), COOKIE_PACKET);
            let envelope = Envelope::read(&challenge).expect("a cookie");
            assert_eq!((envelope.kind, envelope.nonce), (Kind::Cookie, packet.nonce));
            packet.cookie = envelope.cookie;
            assert!(matches!(gate.admit(now(), home(), &seal(&packet)), Verdict::Pass(_)), "with the cookie given");
        }
    }

    #[test]
    fn a_challenge_is_given_before_any_signature_is_checked() {
        let mut packet = ping();
        packet.cookie = Cookie::NONE;
        let mut bytes = seal(&packet);
        *bytes.last_mut().expect("a signature") ^= 1;
        let mut gate = gate(Config { verify_requests: Quota::per_second(0), ..strict() });
        assert!(matches!(gate.admit(now(), home(), &bytes), Verdict::Challenge(_)));
    }

    #[test]
    fn a_cookie_replayed_from_another_address_is_challenged() {
        let mut gate = gate(strict());
        for elsewhere in ["192.0.2.10:30303", "192.0.2.9:30304", "[2001:db8::1]:30303"] {
            assert!(matches!(gate.admit(now(), addr(elsewhere), &seal(&ping())), Verdict::Challenge(_)), "{elsewhere}");
        }
        let stolen = ping().seal(network(), &Keypair::from_seed([8; 32]), us().id());
        assert!(matches!(gate.admit(now(), home(), &stolen), Verdict::Challenge(_)), "another node's cookie");
    }

    #[test]
    fn answers_that_nobody_asked_for_are_dropped_in_silence() {
        let mut gate = gate(strict());
        let mut guessed = pong();
        guessed.nonce.mac = [0; 8];
        assert_eq!(dropped(gate.admit(now(), home(), &seal(&guessed))), DropReason::Nonce);
        let mut other = pong();
        other.nonce.counter += 1;
        assert_eq!(dropped(gate.admit(now(), home(), &seal(&other))), DropReason::Nonce);
        assert_eq!(dropped(gate.admit(now(), addr("192.0.2.9:1"), &seal(&pong()))), DropReason::Nonce);
        let mut cookie = answer(Message::Cookie);
        cookie.nonce.mac = [0; 8];
        assert_eq!(dropped(gate.admit(now(), home(), &seal(&cookie))), DropReason::Nonce);
    }

    #[test]
    fn expired_and_immortal_packets_are_dropped_and_skewed_clocks_are_not() {
        let mut gate = gate(strict());
        let skew = strict().clock_skew.as_secs();
        for (expiry, passes) in [
            (UNIX, true),
            (UNIX - skew, true),
            (UNIX - skew - 1, false),
            (UNIX + 20 + skew, true),
            (UNIX + 21 + skew, false),
            (u64::MAX, false),
            (0, false),
        ] {
            let bytes = seal(&Packet { expiry, ..ping() });
            let verdict = gate.admit(now(), home(), &bytes);
            assert_eq!(matches!(verdict, Verdict::Pass(_)), passes, "expiry {expiry}: {verdict:?}");
        }
    }

    #[test]
    fn foreign_forged_and_misaddressed_packets_are_dropped_by_reason() {
        let mut gate = gate(strict());
        let mut admit = |bytes: &[u8]| dropped(gate.admit(now(), home(), bytes));
        assert_eq!(admit(&[0; MAX_PACKET + 1]), DropReason::TooLong);
        assert_eq!(admit(b"hello"), DropReason::Magic);
        assert_eq!(admit(&ping().seal(NetworkId::named("x"), &them(), us().id())), DropReason::Network);
        assert_eq!(admit(&ping().seal(network(), &them(), them().id())), DropReason::Recipient);
        assert_eq!(admit(&ping().seal(network(), &us(), us().id())), DropReason::Own);
        let mut forged = seal(&ping());
        *forged.last_mut().expect("a signature") ^= 1;
        assert_eq!(admit(&forged), DropReason::Signature);
    }

    #[test]
    fn whoever_is_not_admitted_gets_no_answer_by_address_or_by_name() {
        let mut gate = gate(strict());
        let first_words = seal(&Packet { cookie: Cookie::NONE, ..ping() });
        let mut refused = |admission: Admission| {
            gate.restrict(Arc::new(admission));
            [&first_words, &seal(&ping()), &seal(&pong())].map(|bytes| {
                matches!(gate.admit(now(), home(), bytes), Verdict::Drop(DropReason::NotAdmitted, Some(_)))
            })
        };
        let networks = |text: &str| vec![text.parse().expect("network")];
        assert_eq!(refused(Admission::open()), [false; 3]);
        assert_eq!(refused(Admission { denied: networks("192.0.2.0/24"), ..Admission::open() }), [true; 3]);
        assert_eq!(refused(Admission { allowed: networks("10.0.0.0/8"), ..Admission::open() }), [true; 3]);
        assert_eq!(refused(Admission { only: Some([us().id()].into()), ..Admission::open() }), [true; 3]);
        assert_eq!(refused(Admission { only: Some([them().id()].into()), ..Admission::open() }), [false; 3]);
    }

    #[test]
    fn a_host_and_a_site_are_held_to_their_quotas() {
        let one_host = Config { quota_host: Quota::new(3, Duration::from_secs(9)), ..strict() };
        let mut limited = gate(one_host.clone());
        let bytes = seal(&ping());
        let passed = (0..10).filter(|_| matches!(limited.admit(now(), home(), &bytes), Verdict::Pass(_))).count();
        assert_eq!(passed, 3);
        assert_eq!(dropped(limited.admit(now(), home(), &bytes)), DropReason::HostQuota);
        assert!(matches!(limited.admit(now(), addr("192.0.2.10:1"), &bytes), Verdict::Challenge(_)), "another host");

        let mut limited = gate(Config { quota_site: Quota::new(3, Duration::from_secs(9)), ..strict() });
        let verdicts = (0..10).map(|host| limited.admit(now(), addr(&format!("192.0.2.{host}:1")), &bytes));
        assert_eq!(verdicts.filter(|verdict| matches!(verdict, Verdict::Challenge(_))).count(), 3);
        assert_eq!(dropped(limited.admit(now(), addr("192.0.2.99:1"), &bytes)), DropReason::SiteQuota);

        let mut exempt = gate(Config { exempt_local: true, ..one_host });
        let local = addr("127.0.0.1:1");
        assert!((0..10).all(|_| matches!(exempt.admit(now(), local, &bytes), Verdict::Challenge(_))));
    }

    #[test]
    fn a_flood_in_a_hosts_name_does_not_use_up_its_quota() {
        let mut gate = gate(strict());
        // Without the cookie: what who forges the address can send.
        let forged = seal(&Packet { cookie: Cookie::NONE, ..ping() });
        for _ in 0..10_000 {
            assert!(!matches!(gate.admit(now(), home(), &forged), Verdict::Pass(_)));
        }
        assert!(matches!(gate.admit(now(), home(), &seal(&ping())), Verdict::Pass(_)));
        assert!(matches!(gate.admit(now(), home(), &seal(&pong())), Verdict::Pass(_)));
    }

    #[test]
    fn a_flood_of_requests_leaves_the_signature_checks_of_answers() {
        let mut gate = gate(Config { verify_requests: Quota::per_second(2), ..strict() });
        let verdicts: Vec<_> = (0..5).map(|_| gate.admit(now(), home(), &seal(&ping()))).collect();
        assert_eq!(verdicts.iter().filter(|verdict| matches!(verdict, Verdict::Pass(_))).count(), 2);
        assert_eq!(verdicts.last(), Some(&Verdict::Drop(DropReason::VerifyBudget, Some(Kind::Ping))));
        assert!(matches!(gate.admit(now(), home(), &seal(&pong())), Verdict::Pass(_)));
    }
}
