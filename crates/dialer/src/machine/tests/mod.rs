//! The dialer's rules, one event after the other; most are geth's scenarios (`p2p/dial_test.go`).

mod candidates;
mod lonely;
mod policy;
mod properties;
mod seeking;
mod small_network;
mod statics;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use peerage_machine::{Driver, Rng, Time};
use peerage_wire::{Admission, Consequence, Keypair, NetworkId, NodeId, NodeRecord, RecordDraft, Verified};

use super::DialerMachine;
use crate::{
    Attempt, Candidate, Cause, Config, Count, Diagnosis, DialOutcome, DialTarget, In, Out, Refusal, StaticPeer,
};

const STABLE: Duration = Duration::from_secs(3_600);

fn secs(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

fn keys(n: u8) -> Keypair {
    Keypair::from_seed([n; 32])
}

/// Node 0 is the one that dials.
fn node(n: u8) -> NodeId {
    keys(n).id()
}

fn address(n: u8) -> SocketAddr {
    SocketAddr::from(([192, 0, 2, n], 30_303))
}

/// The record of node `n`, newer with a higher `seq`, at the address of number `at`.
fn record_at(n: u8, seq: u64, at: u8) -> Verified<NodeRecord> {
    let address = format!("/ip4/192.0.2.{at}/tcp/30303").parse().expect("multiaddr");
    RecordDraft::new(seq, NetworkId::named("test")).address(address).sign(&keys(n)).expect("fits")
}

fn record(n: u8) -> Verified<NodeRecord> {
    record_at(n, 1, n)
}

/// As discovery finds it, where its record says.
fn found(record: Verified<NodeRecord>) -> Candidate {
    let addresses = StaticPeer::from(&*record).addresses;
    (record, addresses)
}

fn records(numbers: impl IntoIterator<Item = u8>) -> Vec<Candidate> {
    numbers.into_iter().map(record).map(found).collect()
}

fn named(n: u8) -> StaticPeer {
    StaticPeer::new(node(n), [address(n)])
}

/// geth's constants, and no jitter or back-off to reckon with where a test is not about them.
fn config() -> Config {
    Config::recommended()
}

/// A dialer, its clock, and what it asked for since somebody last looked.
struct Rig {
    driver: Driver<DialerMachine>,
    now: Time,
    outs: Vec<Out>,
}

impl Rig {
    fn stopped(config: Config, seed: u64) -> Rig {
        let machine = DialerMachine::new(config, node(0), Rng::new(seed)).expect("a good configuration");
        Rig { driver: Driver::new(machine), now: Time::ZERO, outs: Vec::new() }
    }

    fn new(config: Config) -> Rig {
        let mut rig = Rig::stopped(config, 7);
        rig.tell(In::Start);
        rig
    }

    fn tell(&mut self, input: In) {
        self.driver.handle(self.now, input);
        self.outs.extend(self.driver.drain());
    }

    fn done(&mut self, attempt: Attempt, outcome: DialOutcome) {
        self.tell(In::Done { attempt, outcome });
    }

    fn resolved(&mut self, attempt: Attempt, record: Option<Verified<NodeRecord>>) {
        self.tell(In::Resolved { attempt, record });
    }

    fn up(&mut self, n: u8, dialled: bool) {
        self.tell(In::PeerUp { id: node(n), dialled });
    }

    fn down(&mut self, n: u8, dialled: bool, lived: Duration) {
        self.ended(n, dialled, lived, Consequence::BackOff);
    }

    fn ended(&mut self, n: u8, dialled: bool, lived: Duration, consequence: Consequence) {
        self.tell(In::PeerDown { id: node(n), dialled, lived, consequence });
    }

    /// The dial of `n` succeeds.
    fn connect(&mut self, attempt: Attempt, n: u8) {
        self.up(n, true);
        self.done(attempt, DialOutcome::Connected);
    }

    fn pass(&mut self, time: Duration) {
        let until = self.now + time;
        while let Some(at) = self.driver.next_deadline().filter(|at| *at <= until) {
            self.now = self.now.max(at);
            self.driver.expire_due(self.now);
            self.outs.extend(self.driver.drain());
        }
        self.now = until;
    }

    fn take(&mut self) -> Vec<Out> {
        std::mem::take(&mut self.outs)
    }

    /// The dials asked for since the last look.
    fn dials(&mut self) -> Vec<(Attempt, DialTarget)> {
        let dial = |out| match out {
            Out::Dial { attempt, target } => Some((attempt, target)),
            _ => None,
        };
        self.take().into_iter().filter_map(dial).collect()
    }

    /// The one dial asked for since the last look, which must be of `n`.
    fn dial_of(&mut self, n: u8) -> Attempt {
        let dials = self.dials();
        assert_eq!(dials.iter().map(|(_, target)| target.id).collect::<Vec<_>>(), [node(n)]);
        dials[0].0
    }

    /// The one resolution asked for since the last look.
    fn resolve_of(&mut self, n: u8) -> Attempt {
        let resolve = |out| match out {
            Out::Resolve { attempt, id } => Some((attempt, id)),
            _ => None,
        };
        let resolves: Vec<_> = self.take().into_iter().filter_map(resolve).collect();
        assert_eq!(resolves.iter().map(|(_, id)| *id).collect::<Vec<_>>(), [node(n)]);
        resolves[0].0
    }

    /// The attempts called off since the last look.
    fn cancels(&mut self) -> Vec<Attempt> {
        let cancel = |out| match out {
            Out::Cancel(attempt) => Some(attempt),
            _ => None,
        };
        self.take().into_iter().filter_map(cancel).collect()
    }

    /// What was said about missing peers since the last look.
    fn reports(&mut self) -> Vec<Option<Diagnosis>> {
        let report = |out| match out {
            Out::Seeking(diagnosis) => Some(diagnosis),
            _ => None,
        };
        self.take().into_iter().filter_map(report).collect()
    }

    fn admit(&mut self, admission: Admission) {
        self.tell(In::Admission(Arc::new(admission)));
    }

    fn refusals(outs: &[Out]) -> Vec<Refusal> {
        let refusal = |out: &Out| match out {
            Out::Count(Count::Dropped(refusal)) => Some(*refusal),
            _ => None,
        };
        outs.iter().filter_map(refusal).collect()
    }

    fn wanted(outs: &[Out]) -> Vec<u32> {
        let wanted = |out: &Out| match out {
            Out::Want(count) => Some(count.get()),
            _ => None,
        };
        outs.iter().filter_map(wanted).collect()
    }
}
