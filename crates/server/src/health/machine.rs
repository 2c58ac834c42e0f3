//! The checks of a node's health.
//!
//! Readings come in whenever somebody looks, and each is judged at once; what is logged are changes that have
//! stood for a while. A hostile peer must not be able to make a node look ill, as something may restart nodes that do:
//! the rate of failed sends is an average over peers, in which each counts once however much it makes fail.

use std::collections::BTreeMap;

use peerage_machine::{Decaying, Effects, Machine, Time, labelled};
use peerage_queue::SessionId;
use serde::{Deserialize, Serialize};

use super::HealthConfig;

labelled! {
    /// What is looked at.
    Check {
        /// Every actor runs.
        Actors = "actors",
        /// It dials or listens.
        Reach = "reach",
        /// It has peers.
        Peers = "peers",
        /// It knows why peers are missing.
        Dialling = "dialling",
        /// Its clock agrees with its peers'.
        Clock = "clock",
        /// Peers say something.
        Received = "received",
        /// It says something to peers.
        Sent = "sent",
        /// Its messages go out.
        SendFailures = "send_failures",
        /// Others come to it.
        Inbound = "inbound",
        /// What it is to remember is on disk.
        Database = "database",
        /// It does all of its work.
        Shedding = "shedding",
    }
}

/// What a check found.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum CheckState {
    /// All is well.
    Pass,
    /// Something is missing.
    Fail,
    /// It does not apply to this node as it is.
    Off,
}

impl CheckState {
    /// A word for people.
    pub const fn label(self) -> &'static str {
        match self {
            CheckState::Pass => "pass",
            CheckState::Fail => "fail",
            CheckState::Off => "off",
        }
    }
}

/// How a node is at one instant.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reading {
    /// Actors that are down for longer than a restart takes.
    pub down: Vec<String>,
    /// Whether it dials or listens.
    pub reachable: bool,
    /// Peers.
    pub peers: u32,
    /// Whether it was told of others.
    pub told: bool,
    /// Why peers are missing, if the dialer says so.
    pub missing: Option<String>,
    /// By how many seconds the clock is ahead of the peers'.
    pub drift: i64,
    /// Bytes from peers, and to them, since the node began.
    pub bytes: (u64, u64),
    /// Of each session, messages that went out and messages that failed, since it began.
    pub sends: Vec<(SessionId, u64, u64)>,
    /// Whether it is meant that others come to it.
    pub inbound_meant: bool,
    /// Peers that came to it.
    pub inbound_peers: u32,
    /// How many have come since it began.
    pub inbound_total: u64,
    /// Transactions of the node database that succeeded, and that failed.
    pub commits: (u64, u64),
    /// What it does not do for want of something, in words.
    pub shedding: Option<String>,
}

/// What may happen to a node's health.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum In {
    /// Somebody looked.
    Read(Box<Reading>),
    /// The thresholds from now on.
    Config(HealthConfig),
}

/// What the shell is to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Out {
    /// Log it: the check has found another thing for a while.
    Changed(Finding),
}

/// It has no timers: who wants to know looks.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Timer {}

/// What a check found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// Which check.
    pub check: Check,
    /// What.
    pub state: CheckState,
    /// When that began.
    pub since: Time,
    /// In a sentence.
    pub sentence: String,
    /// What it is compared with, in words.
    pub threshold: String,
}

impl Finding {
    /// Whether something is missing.
    pub fn fails(&self) -> bool {
        self.state == CheckState::Fail
    }
}

#[derive(Debug)]
struct Held {
    finding: Finding,
    /// Whether a failure was told of last.
    told: bool,
}

/// One peer's part of the rate of failed sends.
#[derive(Debug)]
struct Sends {
    counted: (u64, u64),
    sent: Decaying,
    failed: Decaying,
}

/// A node's health.
///
/// Bounded by the node's sessions.
#[derive(Debug)]
pub struct HealthMachine {
    config: HealthConfig,
    checks: BTreeMap<Check, Held>,
    sends: BTreeMap<SessionId, Sends>,
    bytes: (u64, u64),
    /// When bytes came and went last, or there were no peers.
    heard: (Time, Time),
    inbound: (u64, Time),
    commits: (u64, u64),
    database_fails: bool,
}

type Verdict = (CheckState, String, String);

impl HealthMachine {
    /// Of a node that begins now.
    pub fn new(config: HealthConfig, now: Time) -> HealthMachine {
        HealthMachine {
            config,
            checks: BTreeMap::new(),
            sends: BTreeMap::new(),
            bytes: (0, 0),
            heard: (now, now),
            inbound: (0, now),
            commits: (0, 0),
            database_fails: false,
        }
    }

    /// What every check found in the last reading.
    pub fn findings(&self) -> impl Iterator<Item = &Finding> {
        self.checks.values().map(|held| &held.finding)
    }

    /// Messages that fail, in thousandths, averaged over the peers.
    pub fn send_fail_rate(&self, now: Time) -> u32 {
        let half_life = self.config.half_life;
        let rate = |sends: &Sends| {
            let (sent, failed) = (sends.sent.thousandths(now, half_life), sends.failed.thousandths(now, half_life));
            // Less than one message says nothing.
            (sent + failed >= 1_000).then(|| u128::from(failed) * 1_000 / u128::from(sent + failed))
        };
        let (mut sum, mut peers) = (0, 0);
        for rate in self.sends.values().filter_map(rate) {
            (sum, peers) = (sum + rate, peers + 1);
        }
        u32::try_from(sum / u128::max(peers, 1)).unwrap_or(1_000)
    }

    fn note_sends(&mut self, now: Time, sends: &[(SessionId, u64, u64)]) {
        let half_life = self.config.half_life;
        let still: BTreeMap<SessionId, (u64, u64)> =
            sends.iter().map(|(id, sent, failed)| (*id, (*sent, *failed))).collect();
        self.sends.retain(|id, _| still.contains_key(id));
        for (id, counted) in still {
            let none = || Sends { counted: (0, 0), sent: Decaying::new(now, 0), failed: Decaying::new(now, 0) };
            let known = self.sends.entry(id).or_insert_with(none);
            let (sent, failed) = (since(counted.0, known.counted.0), since(counted.1, known.counted.1));
            known.sent.add(now, half_life, sent, u32::MAX);
            known.failed.add(now, half_life, failed, u32::MAX);
            known.counted = counted;
        }
    }

    fn note(&mut self, now: Time, reading: &Reading) {
        self.note_sends(now, &reading.sends);
        let alone = reading.peers == 0;
        if alone || reading.bytes.0 != self.bytes.0 {
            self.heard.0 = now;
        }
        if alone || reading.bytes.1 != self.bytes.1 {
            self.heard.1 = now;
        }
        self.bytes = reading.bytes;
        let came = reading.inbound_peers > 0 || reading.inbound_total != self.inbound.0;
        // The grace begins when it is meant to be reached.
        if came || !reading.inbound_meant {
            self.inbound.1 = now;
        }
        self.inbound.0 = reading.inbound_total;
        if reading.commits != self.commits {
            self.database_fails = reading.commits.1 > self.commits.1 && reading.commits.0 == self.commits.0;
            self.commits = reading.commits;
        }
    }

    fn judge(&self, now: Time, check: Check, reading: &Reading) -> Verdict {
        let config = &self.config;
        match check {
            Check::Actors => {
                let words: Vec<String> =
                    reading.down.iter().map(|actor| format!("the {actor} actor is down")).collect();
                found(
                    !words.is_empty(),
                    words.join(", "),
                    "every actor runs",
                    "none is down for longer than a restart takes",
                )
            }
            Check::Reach => found(
                !reading.reachable,
                "the node neither dials nor listens: it gets no peers by itself".into(),
                "the node dials or listens",
                "one of the two is on",
            ),
            Check::Peers => self.judge_peers(reading),
            Check::Dialling => {
                let fails = reading.missing.is_some() && reading.peers == 0;
                let why = reading.missing.clone().unwrap_or_default();
                found(fails, why, "dialling goes on", "a peer, or nobody named")
            }
            Check::Clock => {
                let (drift, most) = (reading.drift.unsigned_abs(), config.clock_drift);
                let which = if reading.drift > 0 { "ahead of" } else { "behind" };
                let why = format!("this computer's clock is {drift} s {which} its peers'");
                off_if(
                    most == 0,
                    found(drift > most, why, "the clock agrees with the peers'", &format!("at most {most} s")),
                )
            }
            Check::Received => self.judge_silence(now, reading, self.heard.0, "came from any peer"),
            Check::Sent => self.judge_silence(now, reading, self.heard.1, "went to any peer"),
            Check::SendFailures => self.judge_sends(now),
            Check::Inbound => {
                let (silent, grace) = (now.since(self.inbound.1), config.inbound_grace);
                let why = format!(
                    "no other node has come to this one for {} s: is its port open, and forwarded to it?",
                    silent.as_secs()
                );
                let off = grace.is_zero() || !reading.inbound_meant;
                let threshold = format!("one in {} s", grace.as_secs());
                off_if(off, found(silent >= grace, why, "other nodes come to this one", &threshold))
            }
            Check::Database => found(
                self.database_fails,
                "what the node remembers cannot be written to disk; the log says why".into(),
                "what the node remembers is written",
                "the last transaction succeeded",
            ),
            Check::Shedding => {
                let why = reading.shedding.clone().unwrap_or_default();
                found(reading.shedding.is_some(), why, "the node does all of its work", "nothing is shed")
            }
        }
    }

    fn judge_peers(&self, reading: &Reading) -> Verdict {
        let min = self.config.min_peers.unwrap_or(u32::from(reading.told));
        let why = match (reading.peers, self.config.min_peers) {
            (0, None | Some(1)) if reading.told => {
                "no peer is connected, although bootnodes or static peers are configured".into()
            }
            (peers, _) => format!("{peers} peers are connected, and at least {min} are wanted"),
        };
        let well = format!("{} peers are connected", reading.peers);
        off_if(min == 0, found(reading.peers < min, why, &well, &format!("at least {min}")))
    }

    fn judge_silence(&self, now: Time, reading: &Reading, last: Time, what: &str) -> Verdict {
        let (silent, most) = (now.since(last), self.config.silence);
        let why = format!("nothing {what} for {} s", silent.as_secs());
        let (well, threshold) = (format!("something {what} lately"), format!("within {} s", most.as_secs()));
        off_if(most.is_zero() || reading.peers == 0, found(silent >= most, why, &well, &threshold))
    }

    fn judge_sends(&self, now: Time) -> Verdict {
        let (rate, most) = (self.send_fail_rate(now), self.config.send_failures);
        // Once it failed it must be clearly below.
        let failing = self.checks.get(&Check::SendFailures).is_some_and(|held| held.finding.fails());
        let limit = if failing { most - most / 8 } else { most };
        let why = format!("{} % of the messages for peers do not go out", rate / 10);
        off_if(
            most == 0,
            found(rate > limit, why, "messages for peers go out", &format!("at most {} % fail", most / 10)),
        )
    }

    fn read(&mut self, now: Time, reading: &Reading, fx: &mut Effects<Out, Timer>) {
        self.note(now, reading);
        for check in Check::ALL.iter().copied() {
            let (state, sentence, threshold) = self.judge(now, check, reading);
            let fails = state == CheckState::Fail;
            let begun = || Finding { check, state, since: now, sentence: String::new(), threshold: String::new() };
            let held = self.checks.entry(check).or_insert_with(|| Held { finding: begun(), told: false });
            if held.finding.state != state {
                held.finding.since = now;
            }
            held.finding = Finding { check, state, since: held.finding.since, sentence, threshold };
            if fails != held.told && now.since(held.finding.since) >= self.config.settle {
                held.told = fails;
                fx.emit(Out::Changed(held.finding.clone()));
            }
        }
    }
}

/// How many more; what was counted never falls.
fn since(now: u64, before: u64) -> u32 {
    u32::try_from(now.saturating_sub(before)).unwrap_or(u32::MAX)
}

fn found(fails: bool, why: String, well: &str, threshold: &str) -> Verdict {
    match fails {
        true => (CheckState::Fail, why, threshold.into()),
        false => (CheckState::Pass, well.into(), threshold.into()),
    }
}

fn off_if(off: bool, (state, sentence, threshold): Verdict) -> Verdict {
    match off {
        true => (CheckState::Off, "not looked at".into(), "off".into()),
        false => (state, sentence, threshold),
    }
}

impl Machine for HealthMachine {
    type In = In;
    type Out = Out;
    type Timer = Timer;

    fn handle(&mut self, now: Time, input: In, fx: &mut Effects<Out, Timer>) {
        match input {
            In::Read(reading) => self.read(now, &reading, fx),
            In::Config(config) => self.config = config,
        }
    }

    fn expire(&mut self, _now: Time, timer: Timer, _fx: &mut Effects<Out, Timer>) {
        match timer {}
    }
}
