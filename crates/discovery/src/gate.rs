//! What stands between the socket and the machine: everything that can be refused without knowing anybody.
//!
//! It runs in the socket's task and shares nothing with the machine. Checks come cheapest first, so that a
//! packet with a forged source costs a hash and is answered with at most a smaller packet.

use std::net::SocketAddr;
use std::sync::Arc;

use peerage_machine::{QuotaTable, Time};
use peerage_wire::address::{host, is_local, site};
use peerage_wire::{Admission, IpNet, NetworkId, NodeId};
use serde::{Deserialize, Serialize};

use crate::config::Config;
use crate::count::DropReason;
use crate::net::canonical;
use crate::secrets::Secrets;
use crate::wire::{Envelope, Header, Kind, MAX_PACKET, Packet, Sealed};

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
                return Verdict::Challenge(header.challenge(self.secrets.cookie(header.from, addr, now, epoch)));
            }
        } else if self.secrets.nonce_mac(header.from, addr, header.nonce.counter) != header.nonce.mac {
            return Verdict::Drop(DropReason::Nonce, Some(kind));
        }
        let admitted = self.proven.take(now, addr).and_then(|()| self.signed(now, header, verify));
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

    fn signed(
        &mut self,
        now: Time,
        header: &Header,
        verify: impl FnOnce() -> Result<(), DropReason>,
    ) -> Result<(), DropReason> {
        if header.kind == Kind::Cookie {
            return Ok(());
        }
        let (unix, skew) = (now.unix().as_secs(), self.config.clock_skew.as_secs());
        let latest = unix.saturating_add(self.config.packet_lifetime.as_secs()).saturating_add(skew);
        // A packet that claims to live for long could be replayed for as long.
        if header.expiry.saturating_add(skew) < unix || header.expiry > latest {
            return Err(DropReason::Expired);
        }
        let budget = if header.kind.is_request() { &mut self.verify_requests } else { &mut self.verify_answers };
        if !budget.take(now, &()) {
            return Err(DropReason::VerifyBudget);
        }
        verify()
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
#[path = "gate_tests.rs"]
mod tests;
