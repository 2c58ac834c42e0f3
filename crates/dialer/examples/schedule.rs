//! The dial scheduler driven by a list: no network, no clock, and every decision printed at its instant.
//!
//! ```text
//! cargo run -p peerage-dialer --example schedule
//! ```

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use peerage_dialer::peerage_machine::{Driver, Rng, Time};
use peerage_dialer::peerage_wire::{
    Admission, Consequence, DisconnectReason, Keypair, NetworkId, NodeId, NodeRecord, RecordDraft, Verified,
};
use peerage_dialer::{Attempt, Config, Count, DialOutcome, DialTarget, DialerMachine, In, Out, StaticPeer};

type Error = Box<dyn std::error::Error>;

/// What a node of the list does when it is dialled.
#[derive(Clone, Copy)]
enum Temper {
    Stays,
    /// Takes the connection and drops it after two seconds.
    Flaps,
    Answers(DialOutcome),
}

/// The candidate nodes: number, host, name, what it does.
const LIST: [(u8, &str, &str, Temper); 8] = [
    (1, "192.0.2.1", "friend", Temper::Answers(DialOutcome::ConnectFailed)),
    (2, "192.0.2.2", "anchor", Temper::Stays),
    (3, "192.0.2.3", "full", Temper::Answers(DialOutcome::HandshakeFailed(DisconnectReason::TooManyPeers))),
    (4, "192.0.2.4", "stranger", Temper::Answers(DialOutcome::HandshakeFailed(DisconnectReason::WrongNetwork))),
    (5, "192.0.2.5", "flapping", Temper::Flaps),
    (6, "198.51.100.6", "outsider", Temper::Stays),
    (7, "192.0.2.7", "silent", Temper::Answers(DialOutcome::TimedOut)),
    (8, "192.0.2.8", "late", Temper::Stays),
];

fn keys(number: u8) -> Keypair {
    Keypair::from_seed([number; 32])
}

fn record(number: u8, host: &str) -> Result<Verified<NodeRecord>, Error> {
    let draft = RecordDraft::new(1_700_000_000_000, NetworkId::named("example"));
    Ok(draft.address(format!("/ip4/{host}/tcp/30303").parse()?).sign(&keys(number))?)
}

/// A dialer and the world that the list makes for it.
struct Run {
    dialer: Driver<DialerMachine>,
    now: Time,
    names: BTreeMap<NodeId, (&'static str, Temper)>,
    /// In the order of the list.
    records: Vec<Verified<NodeRecord>>,
    /// What will happen, in order of time, then of becoming known.
    events: BTreeMap<(Time, u64), In>,
    next: u64,
    /// Which node of the list is found next.
    finds: usize,
}

impl Run {
    fn new(config: Config) -> Result<Run, Error> {
        let mut names = BTreeMap::new();
        let mut records = Vec::new();
        for (number, host, name, temper) in LIST {
            let id = keys(number).id();
            names.insert(id, (name, temper));
            records.push(record(number, host)?);
        }
        let dialer = Driver::new(DialerMachine::new(config, keys(0).id(), Rng::new(7))?);
        Ok(Run { dialer, now: Time::ZERO, names, records, events: BTreeMap::new(), next: 0, finds: 0 })
    }

    fn name(&self, id: NodeId) -> &'static str {
        self.names.get(&id).map_or("unknown", |(name, _)| name)
    }

    fn after(&mut self, millis: u64, input: In) {
        self.events.insert((self.now + Duration::from_millis(millis), self.next), input);
        self.next += 1;
    }

    fn tell(&mut self, input: In) {
        match &input {
            In::PeerUp { id, .. } => self.say(&format!("{} is connected", self.name(*id))),
            In::PeerDown { id, lived, .. } => self.say(&format!("{} is lost after {lived:?}", self.name(*id))),
            _ => {}
        }
        self.dialer.handle(self.now, input);
        self.perform();
    }

    fn say(&self, what: &str) {
        println!("{:>8.2} s  {what}", self.now.running().as_secs_f64());
    }

    fn perform(&mut self) {
        let outs: Vec<Out> = self.dialer.drain().collect();
        for out in outs {
            match out {
                Out::Want(count) => {
                    self.say(&format!("  wants {count} candidates"));
                    // Discovery finds the same nodes again and again.
                    let wanted = (count.get() as usize).min(self.records.len());
                    let found = self.records.iter().cycle().skip(self.finds).take(wanted);
                    let found = found.map(|record| (record.clone(), StaticPeer::from(&**record).addresses)).collect();
                    self.finds = (self.finds + wanted) % self.records.len();
                    self.after(300, In::Candidates(found));
                }
                Out::Resolve { attempt, id } => {
                    self.say(&format!("  looks up {}: has it moved?", self.name(id)));
                    self.after(
                        200,
                        In::Resolved { attempt, record: self.records.iter().find(|record| record.id() == id).cloned() },
                    );
                }
                Out::Dial { attempt, target } => self.dial(attempt, &target),
                Out::Cancel(Attempt(number)) => self.say(&format!("  calls attempt {number} off")),
                Out::Seeking(Some(why)) => self.say(&format!("  looking for peers: {why} ({})", why.advice())),
                Out::Seeking(None) => self.say("  has the peers it wants"),
                Out::Count(Count::Finished { outcome, is_static }) => {
                    let kind = if is_static { "static peer" } else { "candidate" };
                    self.say(&format!("  an attempt at a {kind} ended: {outcome:?}"));
                }
                // Said once a report, with the reason.
                Out::Count(_) => {}
            }
        }
    }

    fn dial(&mut self, attempt: Attempt, target: &DialTarget) {
        let kind = if target.is_static { "static peer" } else { "candidate" };
        let id = target.id;
        self.say(&format!("  dials {kind} {} at {:?}", self.name(id), target.addresses));
        match self.names.get(&id).map(|(_, temper)| *temper) {
            Some(Temper::Answers(outcome)) => self.after(400, In::Done { attempt, outcome }),
            temper => {
                self.after(100, In::PeerUp { id, dialled: true });
                self.after(100, In::Done { attempt, outcome: DialOutcome::Connected });
                if let Some(Temper::Flaps) = temper {
                    let lived = Duration::from_secs(2);
                    self.after(2_100, In::PeerDown { id, dialled: true, lived, consequence: Consequence::BackOff });
                }
            }
        }
    }

    /// Lets everything happen that is due until then.
    fn until(&mut self, seconds: u64) {
        let end = Time::ZERO + Duration::from_secs(seconds);
        loop {
            let event = self.events.keys().next().map(|(at, _)| *at);
            let timer = self.dialer.next_deadline();
            let Some(at) = event.into_iter().chain(timer).min().filter(|at| *at <= end) else { break };
            self.now = self.now.max(at);
            if event == Some(at)
                && let Some((_, input)) = self.events.pop_first()
            {
                self.tell(input);
            } else {
                self.dialer.expire_due(self.now);
                self.perform();
            }
        }
        self.now = end;
    }
}

fn main() -> Result<(), Error> {
    let mut run = Run::new(Config { max_dial_peers: 5, ..Config::recommended() })?;
    println!("a policy that leaves the outsider out, an anchor, and a static peer; then the start");
    run.tell(In::Admission(Arc::new(Admission { denied: vec!["198.51.100.0/24".parse()?], ..Admission::open() })));
    run.tell(In::Anchors(vec![StaticPeer::from(&*record(2, "192.0.2.2")?)]));
    run.tell(In::AddStatic(StaticPeer::from(&*record(1, "192.0.2.1")?)));
    run.tell(In::Start);
    run.until(80);
    println!("the policy admits everybody from now on");
    run.tell(In::Admission(Arc::new(Admission::open())));
    run.until(100);
    println!("at the end: {:#?}", run.dialer.machine().status());
    Ok(())
}
