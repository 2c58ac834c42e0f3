//! Hostile nodes: real ones, some of whose machines have a mind of their own.
//!
//! | file | who |
//! |---|---|
//! | `lying` | liars, eclipsers, cold-boot swarms: discovery |
//! | `dialling` | flappers, eclipsers, cold-boot swarms: connections and places |
//! | `withholding` | free riders, and covert swarms once they turn: messages kept back |
//! | `publishing` | spammers and equivocators: messages of their own |
//! | `floods` | invalid signatures, grafts and topic changes, announcements, requests |
//! | `shards` | shard pollution and non-codewords: coded broadcast |
//! | `asking` | request floods and slow answers |
//! | `hostile` | the machine that all of them are: a real one, and a mind that changes what it hears and says |
//! | `den`, `crowd`, `pace`, `settings` | what attackers know, whom they reach, how often they act, what a scenario asks |
//!
//! A staller needs no mind: its host stops to read. Attackers know who is honest and where, as a crawler does, and
//! each other's records; they sign in nobody's name but their own, and forge no more than anybody could.

mod asking;
mod crowd;
mod den;
mod dialling;
mod floods;
mod hostile;
mod lying;
mod pace;
mod publishing;
mod settings;
mod shards;
#[cfg(test)]
mod tests;
mod withholding;

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use peerage_dialer::DialerMachine;
use peerage_discovery::{Bootnode, DiscoveryMachine, Families};
use peerage_gossip::{GossipMachine, Mode, Policy, Topic};
use peerage_machine::{Machine, Rng, Time};
use peerage_router::{HandlerId, RouterMachine};
use peerage_server::{Config, ServerMachine};
use peerage_wire::{Keypair, NodeId, NodeRecord, Verified};

use self::asking::{Asker, Dawdler};
use self::den::Den;
use self::dialling::{Dials, Leaver};
use self::floods::{Flood, Heard, Of};
use self::hostile::{Hostile, Mind};
use self::lying::{Courtier, Liar, Lies};
use self::pace::Pace;
use self::publishing::{Equivocator, Numbers, Spammer};
pub(crate) use self::settings::Aim;
use self::settings::Settings;
use self::shards::{Forger, Polluter};
use self::withholding::FreeRider;
use crate::engine::HostId;
use crate::node::{Cast, Foreign, ForeignParts, Service, weigh};
use crate::scenario::{Adversary, Kind};

/// Places of an attacker that wants to be everybody's peer.
const PLACES: u32 = 4_096;

/// The adversaries of one entry of a scenario: of one kind, and of one mind.
pub(crate) struct Swarm {
    kind: Kind,
    settings: Settings,
    config: Rc<Config>,
    den: Option<Rc<Den>>,
}

/// One hostile node that is about to start.
pub(crate) struct Recruit<'a> {
    pub(crate) host: HostId,
    pub(crate) keys: &'a Keypair,
    pub(crate) address: SocketAddr,
    pub(crate) topics: &'a [(Topic, Policy)],
    pub(crate) bootnodes: &'a [Bootnode],
    pub(crate) services: &'a [Service],
    pub(crate) cast: &'a Rc<Cast>,
    /// By its own clock.
    pub(crate) now: Time,
    /// By the scenario's.
    pub(crate) at: Duration,
    pub(crate) seed: u64,
}

impl Swarm {
    /// What a scenario says of them, checked.
    ///
    /// # Errors
    /// In words, what of it there is not.
    pub(crate) fn new(adversary: &Adversary, config: &Rc<Config>, topics: &[Policy]) -> Result<Swarm, String> {
        let kind = adversary.kind;
        let settings = Settings::read(kind, &adversary.options)?;
        let needs_signed = matches!(kind, Kind::Equivocator | Kind::InvalidSignatures);
        let needs_topics = matches!(kind, Kind::Spammer | Kind::IHaveFlood | Kind::IWantFlood) || needs_signed;
        if needs_topics && !topics.iter().any(|policy| !needs_signed || *policy == Policy::Signed) {
            let signed = if needs_signed { "a signed" } else { "a" };
            return Err(format!("{kind} needs {signed} topic: there is no such [[traffic]]"));
        }
        let is_coded = matches!(kind, Kind::ShardPollution | Kind::NonCodeword);
        if is_coded && config.gossip.coded.admitted.is_empty() {
            return Err(format!("{kind} needs a coded topic: there is no such [[traffic]]"));
        }
        let config = match kind {
            Kind::Eclipser | Kind::ColdBoot | Kind::Flapper => {
                let mut greedy = (**config).clone();
                greedy.max_peers = PLACES;
                greedy.inbound_per_host = PLACES;
                greedy.inbound_per_site = PLACES;
                Rc::new(greedy)
            }
            _ => config.clone(),
        };
        Ok(Swarm { kind, settings, config, den: None })
    }

    /// Whom they aim at.
    pub(crate) fn aim(&self) -> Option<Aim> {
        (self.kind == Kind::Eclipser).then_some(self.settings.victim)
    }

    /// When a node of theirs stops to read, counted from its start; `None` if it reads on.
    pub(crate) fn deaf_after(&self) -> Option<Duration> {
        (self.kind == Kind::Staller).then_some(self.settings.after)
    }

    /// Tells them who is where.
    pub(crate) fn brief(
        &mut self,
        cast: &Rc<Cast>,
        honest: Vec<(NodeId, SocketAddr)>,
        victim: Option<(NodeId, SocketAddr)>,
    ) {
        self.den = Some(Den::new(cast.clone(), honest, victim));
    }

    /// The configuration of their nodes.
    pub(crate) fn config(&self) -> Rc<Config> {
        self.config.clone()
    }

    /// What makes one of them hostile.
    ///
    /// # Errors
    /// In words, what does not fit.
    pub(crate) fn parts(&self, who: &Recruit<'_>) -> Result<ForeignParts, String> {
        let Some(den) = &self.den else { return Ok(ForeignParts::default()) };
        let record =
            who.cast.record(who.keys, who.now.unix_millis(), who.address).map_err(|error| error.to_string())?;
        den.joined(NodeRecord::clone(&record));
        let settings = &self.settings;
        let from = who.now + settings.after;
        let pace = || Pace::new(settings.rate, from);
        let numbers = Numbers::new(who.host, settings.size);
        let topics = || who.topics.to_vec();
        let flood = |of| Flood::new(of, topics(), pace(), who.seed ^ 1);
        let mut parts = ForeignParts::default();
        match self.kind {
            Kind::Liar => {
                parts.discovery = self.discovery(who, record, self.liar(den, Lies::Everything, from, who));
            }
            Kind::Eclipser => {
                let liar = self.liar(den, Lies::FellowsToTheVictim, from, who);
                let seq = record.seq();
                parts.discovery = self.discovery(who, record, Courtier::new(liar, pace(), who.seed ^ 2, seq));
                parts.dialer = self.dialer(who, Dials::new(den.victim.into_iter().collect(), 0, pace()))?;
                parts.gossip = self.gossip(who, FreeRider { from });
            }
            Kind::Spammer => parts.gossip = self.gossip(who, Spammer { topics: topics(), pace: pace(), numbers }),
            Kind::Staller => {}
            Kind::Equivocator => {
                let signed = who.topics.iter().find(|(_, policy)| *policy == Policy::Signed);
                if let Some((topic, _)) = signed {
                    let mind = Equivocator::new(who.keys.id(), topic.clone(), pace(), numbers);
                    parts.gossip = self.gossip(who, mind);
                }
            }
            Kind::Flapper => {
                parts.dialer = self.dialer(who, self.dials(den, who, pace()))?;
                let leaver = Leaver { stay: settings.stay, sessions: BTreeSet::new() };
                let real = ServerMachine::new(who.keys.id(), &self.config, Rng::new(who.seed ^ 3));
                parts.server = Some(Box::new(Hostile::new(real, leaver, peerage_server::Timer::Useless)));
            }
            Kind::FreeRider => parts.gossip = self.gossip(who, FreeRider { from }),
            Kind::InvalidSignatures => {
                let heard = Heard::default();
                parts.gossip =
                    self.gossip(who, flood(Of::BadSignatures { den: den.clone(), size: settings.size, heard }));
            }
            Kind::GraftFlood => parts.gossip = self.gossip(who, flood(Of::Grafts)),
            Kind::IHaveFlood => parts.gossip = self.gossip(who, flood(Of::Promises)),
            Kind::IWantFlood => parts.gossip = self.gossip(who, flood(Of::Requests(Heard::default()))),
            Kind::ColdBoot => {
                parts.discovery = self.discovery(who, record, self.liar(den, Lies::Fellows, from, who));
                parts.dialer = self.dialer(who, self.dials(den, who, pace()))?;
                parts.gossip = self.gossip(who, FreeRider { from });
            }
            Kind::CovertFlash => {
                let turn = who.now + settings.turn.saturating_sub(who.at);
                parts.discovery = self.discovery(who, record, self.liar(den, Lies::Fellows, turn, who));
                parts.gossip = self.gossip(who, FreeRider { from: turn });
            }
            Kind::ShardPollution => parts.gossip = self.gossip(who, Polluter::new(from)),
            Kind::NonCodeword => {
                let admitted = &self.config.gossip.coded.admitted;
                if let Some((topic, _)) = who.topics.iter().find(|(topic, _)| admitted.contains_key(topic)) {
                    parts.gossip = self.gossip(who, Forger::new(topic.clone(), pace(), numbers));
                }
            }
            Kind::RequestFlood => {
                let handlers = who.services.iter().map(|service| HandlerId::of(&service.name)).collect();
                parts.router = self.router(who, Asker::new(handlers, pace(), settings.size));
            }
            Kind::SlowAnswers => parts.router = self.router(who, Dawdler::new(from)),
        }
        Ok(parts)
    }

    fn liar(&self, den: &Rc<Den>, lies: Lies, from: Time, who: &Recruit<'_>) -> Liar {
        Liar::new(den.clone(), lies, from, who.seed ^ 4)
    }

    /// Dials of all honest nodes.
    fn dials(&self, den: &Den, who: &Recruit<'_>, pace: Pace) -> Dials {
        let first = Rng::new(who.seed ^ 5).index(den.honest.len()).unwrap_or(0);
        Dials::new(den.honest.clone(), first, pace)
    }

    fn discovery(
        &self,
        who: &Recruit<'_>,
        record: Verified<NodeRecord>,
        mind: impl Mind<DiscoveryMachine> + 'static,
    ) -> Option<Foreign<DiscoveryMachine>> {
        let bootnodes = who.bootnodes.to_vec();
        let config = self.config.discovery.clone();
        let real = DiscoveryMachine::new(config, record, Families::BOTH, bootnodes, who.seed ^ 6);
        boxed(real, mind, peerage_discovery::Timer::Refresh)
    }

    /// A dialer that dials nobody but whom the mind names.
    fn dialer(
        &self,
        who: &Recruit<'_>,
        mind: impl Mind<DialerMachine> + 'static,
    ) -> Result<Option<Foreign<DialerMachine>>, String> {
        let mut config = self.config.dialer.clone();
        config.dialing = false;
        let real = DialerMachine::new(config, who.keys.id(), Rng::new(who.seed ^ 7));
        Ok(boxed(real.map_err(|error| error.to_string())?, mind, peerage_dialer::Timer::Sweep))
    }

    fn router(&self, who: &Recruit<'_>, mind: impl Mind<RouterMachine> + 'static) -> Option<Foreign<RouterMachine>> {
        let real = RouterMachine::new(self.config.router.clone(), who.seed ^ 9, who.seed as u32);
        boxed(real, mind, peerage_router::Timer::Asked)
    }

    /// Gossip that pushes to every peer: attackers save nothing.
    fn gossip(&self, who: &Recruit<'_>, mind: impl Mind<GossipMachine> + 'static) -> Option<Foreign<GossipMachine>> {
        let mut config = self.config.gossip.clone();
        if self.kind == Kind::Spammer {
            (config.mode, config.flood_publish) = (Mode::Gossipsub, usize::MAX);
        }
        let real = GossipMachine::new(config, who.keys.id(), who.seed ^ 8).weighing(weigh);
        boxed(real, mind, peerage_gossip::Timer::Heartbeat)
    }
}

fn boxed<M: Machine + 'static, A: Mind<M> + 'static>(real: M, mind: A, alarm: M::Timer) -> Option<Foreign<M>> {
    Some(Box::new(Hostile::new(real, mind, alarm)))
}
