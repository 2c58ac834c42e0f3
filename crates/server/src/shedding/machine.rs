//! The steps of shedding load.
//!
//! One step a reading up, one a [`recover_after`](SheddingConfig::recover_after) down, so that a moment's shortage costs
//! little, and a node at its limit does not swing between all and nothing.

use std::time::Duration;

use peerage_machine::{Effects, Machine, Time, labelled};
use serde::{Deserialize, Serialize};

use super::SheddingConfig;

/// At which part of a limit each step is taken, in thousandths.
pub const STEPS: [u32; 3] = [800, 900, 1000];
/// How far below it must be used before the step is taken back.
const MARGIN: u32 = 100;

labelled! {
    /// What the node may be short of.
    Resource {
        /// Memory of the process.
        Memory = "memory",
        /// Processor time.
        Cpu = "cpu",
        /// Room on the disk.
        Disk = "disk",
        /// Time of the root.
        Lag = "lag",
    }
}

labelled! {
    /// What a node does not do; each step includes those before it.
    Level {
        /// It does everything.
        Nothing = "nothing",
        /// Bulk messages are not taken for any peer.
        Bulk = "bulk",
        /// Normal ones are not, either.
        Normal = "normal",
        /// Nobody new is let in or dialled.
        Newcomers = "newcomers",
    }
}

impl Level {
    fn up(self) -> Level {
        match self {
            Level::Nothing => Level::Bulk,
            Level::Bulk => Level::Normal,
            Level::Normal | Level::Newcomers => Level::Newcomers,
        }
    }

    fn down(self) -> Level {
        match self {
            Level::Nothing | Level::Bulk => Level::Nothing,
            Level::Normal => Level::Bulk,
            Level::Newcomers => Level::Normal,
        }
    }

    /// What is not done, in words.
    pub const fn words(self) -> &'static str {
        match self {
            Level::Nothing => "nothing is shed",
            Level::Bulk => "bulk messages are not taken",
            Level::Normal => "bulk and normal messages are not taken",
            Level::Newcomers => "bulk and normal messages are not taken, nor new peers",
        }
    }
}

/// What a process uses; nothing of what cannot be read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Usage {
    /// Resident memory, in bytes.
    pub memory: Option<u64>,
    /// Of all processors, in thousandths.
    pub cpu: Option<u32>,
    /// Room on the disk, in bytes.
    pub disk: Option<u64>,
    /// How late the root was.
    pub lag: Option<Duration>,
}

/// What may happen.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum In {
    /// What is used.
    Read(Usage),
    /// The limits from now on.
    Config(SheddingConfig),
}

/// What the shell is to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Out {
    /// Do no more than this from now on.
    Level(Level),
}

/// It has no timers: readings come by themselves.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Timer {}

/// The rules of shedding load. No message of a peer is among its inputs: what a peer makes the node use is all that it can
/// do.
#[derive(Debug)]
pub struct SheddingMachine {
    config: SheddingConfig,
    level: Level,
    /// What was scarcest when it was last looked, and how much of its limit is used, in thousandths.
    scarcest: Option<(Resource, u32)>,
    /// Averaged: one busy second is no shortage.
    cpu: Option<u32>,
    /// Since when the present step has not been needed.
    spare_since: Option<Time>,
}

impl SheddingMachine {
    /// A node that does everything.
    pub fn new(config: SheddingConfig) -> SheddingMachine {
        SheddingMachine { config, level: Level::Nothing, scarcest: None, cpu: None, spare_since: None }
    }

    /// What is not done.
    pub const fn level(&self) -> Level {
        self.level
    }

    /// What is scarcest, and how much of its limit is used, in thousandths.
    pub const fn scarcest(&self) -> Option<(Resource, u32)> {
        self.scarcest
    }

    /// What is not done and why, in words; nothing if all is done.
    pub fn words(&self) -> Option<String> {
        let (resource, used) = self.scarcest.filter(|_| self.level != Level::Nothing)?;
        let limit = match resource {
            Resource::Memory => format!("{} MiB", self.config.memory >> 20),
            Resource::Cpu => format!("{} % of all processors", self.config.cpu / 10),
            Resource::Disk => format!("{} MiB that are to stay free", self.config.disk >> 20),
            Resource::Lag => format!("{:?}", self.config.lag),
        };
        let (what, of) = (self.level.words(), used / 10);
        Some(format!("the node is short of {}: {what} ({of} % of {limit})", resource.label()))
    }

    /// How much of each limit is used, in thousandths.
    fn used(&mut self, usage: Usage) -> Option<(Resource, u32)> {
        let SheddingConfig { memory, cpu, disk, lag, .. } = self.config;
        // A quarter for the newest.
        let averaged = |before: u32, now: u32| (before * 3 + now) / 4;
        self.cpu = usage.cpu.map(|now| self.cpu.map_or(now, |before| averaged(before.min(10_000), now.min(10_000))));
        let of = |used: u128, limit: u128| {
            (limit > 0).then(|| u32::try_from(used.saturating_mul(1_000) / limit.max(1)).unwrap_or(u32::MAX))
        };
        // Half of the limit free is twice as bad as all of it.
        let free = usage.disk.and_then(|free| of(disk.into(), u128::from(free).max(1))).filter(|_| disk > 0);
        [
            (Resource::Memory, usage.memory.and_then(|used| of(used.into(), memory.into()))),
            (Resource::Cpu, self.cpu.and_then(|used| of(used.into(), cpu.into()))),
            (Resource::Disk, free),
            (Resource::Lag, usage.lag.and_then(|late| of(late.as_millis(), lag.as_millis()))),
        ]
        .into_iter()
        .filter_map(|(resource, used)| Some((resource, used?)))
        .max_by_key(|(_, used)| *used)
    }

    fn read(&mut self, now: Time, usage: Usage, fx: &mut Effects<Out, Timer>) {
        self.scarcest = self.used(usage);
        let used = self.scarcest.map_or(0, |(_, used)| used);
        let step = |level: Level| STEPS.get((level as usize).wrapping_sub(1)).copied().unwrap_or(0);
        let next = self.level.up();
        let level = if next != self.level && used >= step(next) {
            self.spare_since = None;
            next
        } else if self.level == Level::Nothing || used + MARGIN > step(self.level) {
            self.spare_since = None;
            self.level
        } else {
            let since = *self.spare_since.get_or_insert(now);
            if now.since(since) < self.config.recover_after {
                self.level
            } else {
                // The one below has its own time.
                self.spare_since = Some(now);
                self.level.down()
            }
        };
        if level != self.level {
            self.level = level;
            fx.emit(Out::Level(level));
        }
    }
}

impl Machine for SheddingMachine {
    type In = In;
    type Out = Out;
    type Timer = Timer;

    fn handle(&mut self, now: Time, input: In, fx: &mut Effects<Out, Timer>) {
        match input {
            In::Read(usage) => self.read(now, usage, fx),
            In::Config(config) => self.config = config,
        }
    }

    fn expire(&mut self, _now: Time, timer: Timer, _fx: &mut Effects<Out, Timer>) {
        match timer {}
    }
}
