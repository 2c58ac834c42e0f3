//! A run as a script: who is in it and what befalls them, so that the same can be done to other nodes than the world's.

use std::net::SocketAddr;
use std::time::Duration;

use peerage_gossip::{Policy, Topic};
use peerage_wire::Keypair;

use super::watch::{Bits, Published};
use super::{Options, RunError, Stage};
use crate::engine::HostId;
use crate::node::{Descriptor, Tally};
use crate::report::Report;
use crate::scenario::Scenario;

/// One node of a run.
#[derive(Clone, Debug)]
pub struct Player {
    /// Its keys.
    pub keys: Keypair,
    /// Its address, for connections and datagrams.
    pub address: SocketAddr,
    /// What it subscribes to from the start of each of its lives.
    pub topics: Vec<(Topic, Policy)>,
}

/// Something that a run does to its world. Hosts are positions in [`Recording::players`].
#[derive(Clone, Debug)]
pub enum Act {
    /// A node starts.
    Start {
        /// Where.
        host: u32,
        /// Whether it has what it persisted in its last life; means nothing in the first.
        keep: bool,
    },
    /// A node stops without a word.
    Stop(u32),
    /// A node publishes.
    Publish {
        /// Where.
        host: u32,
        /// What about.
        topic: Topic,
        /// Who answers for it.
        policy: Policy,
        /// Its number, from 0 on, and its size.
        what: Descriptor,
    },
    /// Each host is put on a side; those on different ones do not hear each other.
    Partition(Vec<u8>),
    /// Everybody hears everybody again.
    Heal,
    /// What there is no script for, by name.
    Other(&'static str),
}

/// Who was owed a message and who has it, by host and in their order. Who stopped after it was published is owed nothing,
/// and has it only if it got it again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Account {
    /// Who subscribed and ran from its publication to the run's end.
    pub owed: Vec<u32>,
    /// Who got it in the life it was in at the end.
    pub got: Vec<u32>,
}

/// A run that was written down.
#[derive(Clone, Debug)]
pub struct Recording {
    /// What is reported of it.
    pub report: Report,
    /// Its nodes, honest ones first.
    pub players: Vec<Player>,
    /// How many of the first of them everybody knows.
    pub bootnodes: usize,
    /// What was done, and when, from the run's beginning.
    pub acts: Vec<(Duration, Act)>,
    /// The messages, by number.
    pub messages: Vec<Account>,
    /// What honest nodes counted, in all their lives.
    pub tally: Tally,
}

/// Plays a scenario once and writes it down.
///
/// # Errors
/// [`RunError`].
pub fn record(scenario: &Scenario, seed: u64) -> Result<Recording, RunError> {
    let mut stage = Stage::new(scenario, seed, Options::default())?;
    let statics = (Duration::ZERO, Act::Other("static peers"));
    stage.acts = Some(Vec::from_iter((scenario.population.statics > 0).then_some(statics)));
    stage.play()?;
    let player = |person: &super::Person| Player {
        keys: person.keys.clone(),
        address: person.address,
        topics: person.topics.clone(),
    };
    let count = stage.people.len() as u32;
    let hosts = |bits: &Bits| (0..count).filter(|host| bits.has(HostId(*host))).collect();
    let account = |of: &Published| Account { owed: hosts(&of.owed), got: hosts(&of.got) };
    Ok(Recording {
        players: stage.people.iter().map(|(_, person)| player(person)).collect(),
        bootnodes: stage.people.bootnodes(),
        acts: stage.acts.take().unwrap_or_default(),
        messages: stage.watch.messages.iter().map(account).collect(),
        tally: stage.watch.tally(&stage.world, &stage.people),
        report: stage.report(),
    })
}

impl Stage<'_> {
    /// Writes down what is done, if this run is.
    pub(super) fn did(&mut self, act: impl FnOnce() -> Act) {
        if let Some(acts) = &mut self.acts {
            acts.push((self.world.now(), act()));
        }
    }
}
