//! What stands between the socket and the machine: everything that can be refused without knowing anybody.
//!
//! It runs in the socket's task and shares nothing with the machine. Checks come cheapest first, so that a
//! packet with a forged source costs a hash and is answered with at most a smaller packet.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use peerage_machine::{Quota, QuotaTable, Time};
use peerage_wire::address::{Host, Site, host, is_local, site};
use peerage_wire::{Admission, NetworkId, NodeId};
use serde::{Deserialize, Serialize};

use crate::config::Config;
use crate::count::DropReason;
use crate::net::canonical;
use crate::secrets::Secrets;
use crate::wire::{Envelope, Header, Kind, MAX_NEIGHBOR_PACKETS, MAX_PACKET, Packet, Sealed};

/// Known nodes that a gate keeps checks for; more than a table of 17 buckets of 16 holds.
pub const MAX_KNOWN: usize = 512;
/// Time-outs after which an answer is refused unseen: it was late after one, and could be replayed until now.
const LATE_TIMEOUTS: u32 = 4;
/// Requests of which it is remembered how many answers were checked: those of [`LATE_TIMEOUTS`], if each time-out ends
/// as many as [`Config::max_requests`] recommends.
const ANSWERED: usize = 2_048;

/// A node of the table, where it answered. Not the id alone: anybody can get a cookie for anybody's id at his own
/// address, and waste with bad signatures what is kept for it.
pub type Known = (NodeId, SocketAddr);

/// The gate's own numbers.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct GateConfig {
    /// Signature checks for requests that each [known](Gate::know) node has for itself, where neither strangers nor
    /// other known nodes can take them. All of [`MAX_KNOWN`] together bound what they cost.
    pub verify_known: Quota,
    /// Those of strangers while datagrams come faster than they are judged ([`Gate::pressed`]). A check takes as long as
    /// dropping 40 datagrams, so strangers' must not be why the socket overflows, which loses everybody's.
    pub verify_pressed: Quota,
}

impl GateConfig {
    /// Ten a second for each: a full table of 272 can cost 2,720 checks a second, an eighth of a core. A node pings
    /// each of its table every 20 minutes, and asks one a few times a second only while it looks things up. 200 checks a
    /// second of strangers are one percent of a core.
    pub const fn recommended() -> GateConfig {
        GateConfig { verify_known: Quota::new(20, Duration::from_secs(2)), verify_pressed: Quota::per_second(200) }
    }
}

/// What an answer tells of its sender's clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Told {
    /// Who signed it.
    pub from: NodeId,
    /// Where it came from.
    pub addr: SocketAddr,
    /// Unix seconds by its sender's clock.
    pub clock: u64,
}

/// A packet that passed the [`Gate`]: signed by `from`, and either a request from an address it receives at,
/// or an answer to something this node asked it there.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Inbound {
    /// Who signed it. Of a `Cookie`: who was asked.
    pub from: NodeId,
    /// Where it came from.
    pub addr: SocketAddr,
    /// What it says.
    pub packet: Packet,
}

impl Inbound {
    /// What it tells of its sender's clock, if it is an answer: those are as fresh as their nonce. A signed one says
    /// when it expires, `lifetime` after it was made.
    pub fn told(&self, lifetime: Duration) -> Option<Told> {
        let Packet { expiry, ref message, .. } = self.packet;
        let clock = match message.kind() {
            Kind::Cookie => (expiry > 0).then_some(expiry)?,
            kind if kind.is_request() => return None,
            _ => expiry.saturating_sub(lifetime.as_secs()),
        };
        Some(Told { from: self.from, addr: self.addr, clock })
    }
}

/// What becomes of a datagram, whose answer is bytes, or of a packet that is a value, whose answer is one too.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict<Answer = Vec<u8>> {
    /// Give it to the machine.
    Pass(Inbound),
    /// Send this back, which is shorter than what came; counted as [`DropReason::NoCookie`].
    Challenge(Answer),
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
    /// Sorted, and what each of them may have checked besides.
    known: Arc<[Known]>,
    verify_known: QuotaTable<Known>,
    verify_pressed: QuotaTable<()>,
    pressed: bool,
    /// By counter: no request of ours has more answers than packets of neighbours and a cookie.
    answers: QuotaTable<u64>,
    told: Option<Told>,
}

impl Gate {
    /// The gate of node `me` on `network`.
    pub fn new(config: Config, me: NodeId, network: NetworkId, secrets: Secrets) -> Gate {
        Gate {
            proven: AddressQuotas::new(&config),
            unproven: AddressQuotas::new(&config),
            verify_requests: QuotaTable::new(config.verify_requests, 1),
            verify_answers: QuotaTable::new(config.verify_answers, 1),
            known: Arc::new([]),
            // Room for those that were known until now, whose quotas have yet to recover.
            verify_known: QuotaTable::new(config.gate.verify_known, 2 * MAX_KNOWN),
            verify_pressed: QuotaTable::new(config.gate.verify_pressed, 1),
            pressed: false,
            answers: QuotaTable::new(
                Quota::new(MAX_NEIGHBOR_PACKETS as u32 + 1, config.request_timeout * LATE_TIMEOUTS),
                ANSWERED,
            ),
            told: None,
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

    /// Who is in the table from now on, in ascending order and at most [`MAX_KNOWN`] (the rest is not looked at):
    /// each has signature checks of its own, so that a flood of strangers, each with a valid cookie, cannot starve them.
    pub fn know(&mut self, known: Arc<[Known]>) {
        debug_assert!(known.is_sorted());
        self.known = known;
    }

    /// Says whether datagrams wait that nobody looked at yet, more than were just taken: then strangers have fewer
    /// signature checks.
    pub fn pressed(&mut self, pressed: bool) {
        self.pressed = pressed;
    }

    /// What the last judged packet tells of its sender's clock although it was dropped as expired: it answers a recent
    /// request of ours and is signed, so either clock is off. Taken once.
    pub fn take_told(&mut self) -> Option<Told> {
        self.told.take()
    }

    /// Whether the policy admits packets from this address, whoever sends them.
    pub fn permits(&self, from: SocketAddr) -> bool {
        self.admission.permits_ip(canonical(from).ip())
    }

    /// Judges one datagram.
    pub fn admit(&mut self, now: Time, from: SocketAddr, bytes: &[u8]) -> Verdict {
        let envelope = match Envelope::read(bytes) {
            Ok(envelope) => envelope,
            Err(reason) => return Verdict::Drop(reason, None),
        };
        let header = envelope.header;
        match self.judge(now, from, &header, || envelope.verify(), || envelope.open()) {
            Verdict::Pass(inbound) => Verdict::Pass(inbound),
            Verdict::Challenge(challenge) => Verdict::Challenge(header.challenge_bytes(&challenge)),
            Verdict::Drop(reason, kind) => Verdict::Drop(reason, kind),
        }
    }

    /// Judges one packet of a world without bytes, by the same rules in the same order. The challenge is unsigned; it
    /// goes back to `from`, in this node's name.
    pub fn admit_value(&mut self, now: Time, from: SocketAddr, sealed: Sealed) -> Verdict<Packet> {
        if sealed.packet.encoded_len() > MAX_PACKET {
            return Verdict::Drop(DropReason::TooLong, None);
        }
        let (header, Sealed { packet, genuine, .. }) = (sealed.header(), sealed);
        let verify = || if genuine { Ok(()) } else { Err(DropReason::Signature) };
        self.judge(now, from, &header, verify, || packet.message.check().map(|()| packet))
    }

    /// The rules: whoever is judged is let in by `verify` last, and read by `open` after that.
    fn judge(
        &mut self,
        now: Time,
        from: SocketAddr,
        header: &Header,
        verify: impl FnOnce() -> Result<(), DropReason>,
        open: impl FnOnce() -> Result<Packet, DropReason>,
    ) -> Verdict<Packet> {
        let (addr, kind) = (canonical(from), header.kind);
        if let Err(reason) = self.addressed(header, addr) {
            return Verdict::Drop(reason, Some(kind));
        }
        // One keyed hash tells whether the sender has received something from us at this address.
        if kind.is_request() {
            let epoch = self.config.cookie_epoch;
            if !self.secrets.accepts(header.cookie, header.from, addr, now, epoch) {
                if let Err(reason) = self.unproven.take(now, addr) {
                    return Verdict::Drop(reason, Some(kind));
                }
                let cookie = self.secrets.cookie(header.from, addr, now, epoch);
                return Verdict::Challenge(header.challenge(cookie, now.unix().as_secs()));
            }
        } else if let Err(reason) = self.asked_for(now, header, addr) {
            return Verdict::Drop(reason, Some(kind));
        }
        let admitted = self.proven.take(now, addr).and_then(|()| self.signed(now, header, addr, verify));
        match admitted.and_then(|()| open()) {
            Ok(packet) => Verdict::Pass(Inbound { from: header.from, addr, packet }),
            Err(reason) => Verdict::Drop(reason, Some(kind)),
        }
    }

    fn addressed(&self, header: &Header, addr: SocketAddr) -> Result<(), DropReason> {
        if header.network != *self.network.as_bytes() {
            Err(DropReason::Network)
        } else if header.to != self.me {
            Err(DropReason::Recipient)
        } else if header.from == self.me {
            Err(DropReason::Own)
        } else if !self.admission.permits_ip(addr.ip()) || !self.admission.permits_id(&header.from) {
            Err(DropReason::NotAdmitted)
        } else {
            Ok(())
        }
    }

    /// Whether an answer echoes the nonce of a request that this node sent to its sender, and not long ago. So a
    /// recorded answer is worth nothing soon, although nothing is remembered of the request.
    fn asked_for(&self, now: Time, header: &Header, addr: SocketAddr) -> Result<(), DropReason> {
        if self.secrets.nonce_mac(header.from, addr, header.nonce.counter) != header.nonce.mac {
            Err(DropReason::Nonce)
        } else if header.nonce.age(now) > self.config.request_timeout * LATE_TIMEOUTS {
            Err(DropReason::Late)
        } else {
            Ok(())
        }
    }

    fn signed(
        &mut self,
        now: Time,
        header: &Header,
        addr: SocketAddr,
        verify: impl FnOnce() -> Result<(), DropReason>,
    ) -> Result<(), DropReason> {
        if header.kind == Kind::Cookie {
            return Ok(());
        }
        let (unix, skew) = (now.unix().as_secs(), self.config.clock_skew.as_secs());
        let latest = unix.saturating_add(self.config.packet_lifetime.as_secs()).saturating_add(skew);
        // A packet that claims to live for long could be replayed for as long.
        let expired = header.expiry.saturating_add(skew) < unix || header.expiry > latest;
        if header.kind.is_request() {
            if expired {
                return Err(DropReason::Expired);
            }
            return self
                .budget_of_request(now, (header.from, addr))
                .then(verify)
                .unwrap_or(Err(DropReason::VerifyBudget));
        }
        // Whoever was asked once could else use up the checks of all answers for as long as its nonce is good.
        if !self.answers.take(now, &header.nonce.counter) {
            return Err(DropReason::Excess);
        }
        if !self.verify_answers.take(now, &()) {
            return Err(DropReason::VerifyBudget);
        }
        verify()?;
        if expired {
            let clock = header.expiry.saturating_sub(self.config.packet_lifetime.as_secs());
            self.told = Some(Told { from: header.from, addr, clock });
            return Err(DropReason::Expired);
        }
        Ok(())
    }

    /// A check of the sender's own if it is known there and has one left, else one of everybody's.
    fn budget_of_request(&mut self, now: Time, sender: Known) -> bool {
        let known = self.known.get(..MAX_KNOWN).unwrap_or(&self.known);
        let own = known.binary_search(&sender).is_ok() && self.verify_known.take(now, &sender);
        own || (!self.pressed || self.verify_pressed.take(now, &())) && self.verify_requests.take(now, &())
    }
}

/// What a host and its site may send.
struct AddressQuotas {
    exempt_local: bool,
    hosts: QuotaTable<Host>,
    sites: QuotaTable<Site>,
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
#[path = "gate_tests.rs"]
mod tests;
