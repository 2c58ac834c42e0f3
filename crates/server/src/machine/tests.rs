//! The run loop's rules, one by one.

mod admit;
mod hostile;
mod reputation;
mod upkeep;

use std::time::Duration;

use Direction::{Inbound, Outbound};
use peerage_machine::{Driver, Rng};
use peerage_wire::Penalty;

use super::*;
use crate::{Churn, Config, Reputation};

const OWN: u8 = 100;

fn node(n: u8) -> NodeId {
    NodeId::from_bytes([n; 32])
}

fn meta(n: u8, direction: Direction) -> Meta {
    Meta { id: node(n), direction, instance: u64::from(n), ip: [20, 0, n, 1].into(), fork: ForkId::default() }
}

/// Without the peers that a full node lets go now and then, which have tests of their own.
fn config() -> Config {
    Config { churn: None, ..Config::recommended() }
}

fn machine(own: NodeId, config: &Config) -> Driver<ServerMachine> {
    let mut driver = Driver::new(ServerMachine::new(own, config, Rng::new(1)));
    driver.handle(Time::ZERO, In::Start);
    driver
}

struct World {
    driver: Driver<ServerMachine>,
    now: Time,
    setups: u64,
}

impl World {
    /// `max_peers` of which a third is dialled.
    fn new(max_peers: u32) -> World {
        World::with(Config { max_peers, ..config() })
    }

    fn with(config: Config) -> World {
        World { driver: machine(node(OWN), &config), now: Time::ZERO, setups: 0 }
    }

    /// Only what is done about peers, not what is counted or told to others.
    fn deeds(&mut self, input: In) -> Vec<Out> {
        let told =
            |out: &Out| matches!(out, Out::Blamed(..) | Out::Forgiven(_) | Out::Admission(_) | Out::PeerDown { .. });
        self.input(input).into_iter().filter(|out| !told(out)).collect()
    }

    fn input(&mut self, input: In) -> Vec<Out> {
        self.driver.handle(self.now, input);
        self.driver.drain().collect()
    }

    fn wait(&mut self, by: Duration) -> Vec<Out> {
        self.now += by;
        self.driver.expire_due(self.now);
        self.driver.drain().collect()
    }

    fn stage(&mut self, setup: Setup, stage: Stage, meta: Meta) -> Result<Option<SessionId>, DisconnectReason> {
        let outs = self.input(In::Checkpoint(setup, stage, meta));
        let verdict = outs.into_iter().find_map(|out| match out {
            Out::Verdict(of, verdict) if of == setup => Some(verdict),
            _ => None,
        });
        verdict.expect("every checkpoint is answered")
    }

    fn identify(&mut self, meta: Meta) -> Result<Setup, DisconnectReason> {
        self.setups += 1;
        let setup = Setup(self.setups);
        self.stage(setup, Stage::Identified, meta).map(|_| setup)
    }

    fn add(&mut self, meta: Meta) -> Result<SessionId, DisconnectReason> {
        let setup = self.identify(meta)?;
        let admitted = self.stage(setup, Stage::Established, meta);
        self.input(In::Released(setup));
        admitted.map(|session| session.expect("a session to start"))
    }

    fn peers(&self) -> usize {
        self.driver.machine().peers().count()
    }
}
