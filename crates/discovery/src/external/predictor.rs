//! Where others see this node: a prediction from what they state, which a few of them cannot make.
//!
//! As go-ethereum's (`p2p/netutil/iptrack.go`), and stricter where it can be talked into something: a statement counts
//! for its reporter's site (IPv4 /24, IPv6 /48), not for its host, and the address must be the majority of all
//! statements, not only the largest part of them.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use peerage_machine::{Effects, Machine, Time};
use peerage_wire::address::{Scope, Site, host, is_local, scope, site};
use serde::{Deserialize, Serialize};

use crate::net::{canonical, may_relay};

/// The numbers of a prediction.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PredictorConfig {
    /// A statement counts for so long (go-ethereum `iptrackWindow`: 5 min).
    pub window: Duration,
    /// Who was spoken with is remembered for so long (go-ethereum `iptrackContactWindow`: 10 min).
    pub contact_window: Duration,
    /// So many sites must state the same address (go-ethereum `iptrackMinStatements`: 10), where that many are heard.
    pub min_statements: usize,
    /// Where fewer are heard, more than half of them must, and never fewer than so many.
    pub min_statements_ever: usize,
    /// Statements remembered of each family and reach; one a site.
    pub max_statements: usize,
    /// Hosts spoken with that are remembered of each family.
    pub max_contacts: usize,
}

impl PredictorConfig {
    /// go-ethereum's, and three where a network is tiny.
    pub const fn recommended() -> PredictorConfig {
        PredictorConfig {
            window: Duration::from_secs(5 * 60),
            contact_window: Duration::from_secs(10 * 60),
            min_statements: 10,
            min_statements_ever: 3,
            max_statements: 256,
            max_contacts: 1024,
        }
    }

    /// Checks that the numbers add up.
    ///
    /// # Errors
    /// The sum that fails, in words.
    pub fn check(&self) -> Result<(), String> {
        if self.min_statements_ever == 0 || self.min_statements < self.min_statements_ever {
            return Err(format!(
                "min_statements_ever ({}) must be from 1 to min_statements ({})",
                self.min_statements_ever, self.min_statements
            ));
        }
        if self.max_statements < self.min_statements || self.max_contacts == 0 {
            return Err(format!(
                "max_statements ({}) must be at least min_statements ({}), and max_contacts ({}) above zero",
                self.max_statements, self.min_statements, self.max_contacts
            ));
        }
        if self.window.is_zero() || self.window > self.contact_window {
            return Err(format!(
                "window ({:?}) must be from above zero to contact_window ({:?})",
                self.window, self.contact_window
            ));
        }
        Ok(())
    }
}

impl Default for PredictorConfig {
    fn default() -> Self {
        PredictorConfig::recommended()
    }
}

/// What may happen to the machine.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum PredictorIn {
    /// A request went to this host.
    Contact(IpAddr),
    /// A node that answered us says where it saw us.
    Stated {
        /// The node's socket.
        by: SocketAddr,
        /// Ours, as it says.
        observed: SocketAddr,
    },
    /// A request came from this host, which proved that it is there.
    Asked(IpAddr),
}

/// Where others see this node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Prediction {
    /// Its IPv4 socket for UDP.
    pub v4: Option<SocketAddr>,
    /// Its IPv6 socket for UDP.
    pub v6: Option<SocketAddr>,
    /// Whether somebody asked to whom this node had not spoken: nothing keeps strangers' packets from it, or a NAT
    /// of the full-cone kind does not.
    pub open: bool,
}

/// What the machine asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PredictorOut {
    /// The prediction is another one than the last.
    Predicted(Prediction),
}

/// The machine's timer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum PredictorTimer {
    /// The oldest statement is too old.
    Lapse,
}

#[derive(Clone, Copy, Debug)]
struct Statement {
    at: Time,
    observed: SocketAddr,
}

/// The statements of one family, by reporters that are as near as the address they state: a neighbour's word counts
/// for an address of the neighbourhood, a stranger's for one of the internet.
#[derive(Debug, Default)]
struct Tracker {
    /// Kept for the contact window, as they tell how many sites are heard.
    statements: BTreeMap<Site, Statement>,
    current: Option<SocketAddr>,
}

impl Tracker {
    fn forget(&mut self, now: Time, config: &PredictorConfig) {
        self.statements.retain(|_, statement| now.since(statement.at) < config.contact_window);
    }

    fn state(&mut self, now: Time, site: Site, observed: SocketAddr, config: &PredictorConfig) {
        self.forget(now, config);
        if !self.statements.contains_key(&site) && self.statements.len() >= config.max_statements {
            let oldest = self.statements.iter().min_by_key(|(_, statement)| statement.at).map(|(site, _)| *site);
            oldest.map(|site| self.statements.remove(&site));
        }
        self.statements.insert(site, Statement { at: now, observed });
    }

    /// What is believed now. An address that was believed stays until another one is, or hardly anybody states it: who
    /// contradicts can make a node doubt, not silent.
    fn predict(&mut self, now: Time, config: &PredictorConfig) -> Option<SocketAddr> {
        self.forget(now, config);
        let heard = self.statements.len();
        let needed = (heard / 2 + 1).clamp(config.min_statements_ever, config.min_statements);
        let mut counts: BTreeMap<SocketAddr, usize> = BTreeMap::new();
        let valid = self.statements.values().filter(|statement| now.since(statement.at) < config.window);
        valid.for_each(|statement| *counts.entry(statement.observed).or_default() += 1);
        let total: usize = counts.values().sum();
        let best = counts.iter().max_by_key(|(_, count)| **count);
        let supported = self.current.and_then(|current| counts.get(&current)).copied().unwrap_or_default();
        self.current = match best {
            Some((address, count)) if *count >= needed && 2 * count > total => Some(*address),
            _ if supported > 0 && 2 * supported >= needed => self.current,
            _ => None,
        };
        self.current
    }

    fn next_lapse(&self, now: Time, window: Duration) -> Option<Time> {
        self.statements.values().map(|statement| statement.at + window).filter(|at| *at > now).min()
    }
}

/// Everything of one family.
#[derive(Debug, Default)]
struct Family {
    public: Tracker,
    local: Tracker,
    /// When each host was last sent something.
    contacts: BTreeMap<IpAddr, Time>,
    /// Until when contacts are missing from the above, as there were too many.
    crowded: Option<Time>,
    /// When a stranger last asked.
    stranger: Option<Time>,
}

impl Family {
    fn contact(&mut self, now: Time, ip: IpAddr, config: &PredictorConfig) {
        if !self.contacts.contains_key(&ip) && self.contacts.len() >= config.max_contacts {
            self.contacts.retain(|_, at| now.since(*at) < config.contact_window);
            if self.contacts.len() >= config.max_contacts {
                // Whoever is forgotten could look like a stranger.
                self.contacts.clear();
                self.crowded = Some(now + config.contact_window);
            }
        }
        self.contacts.insert(ip, now);
    }

    fn asked(&mut self, now: Time, ip: IpAddr, config: &PredictorConfig) {
        let spoken = self.contacts.get(&ip).is_some_and(|at| now.since(*at) < config.contact_window);
        if !spoken && self.crowded.is_none_or(|until| until <= now) {
            self.stranger = Some(now);
        }
    }

    fn is_open(&self, now: Time, config: &PredictorConfig) -> bool {
        self.stranger.is_some_and(|at| now.since(at) < config.contact_window)
    }

    fn predict(&mut self, now: Time, config: &PredictorConfig) -> Option<SocketAddr> {
        let local = self.local.predict(now, config);
        self.public.predict(now, config).or(local)
    }
}

/// Predicts where others see this node. See [`PredictorIn`], [`PredictorOut`].
#[derive(Debug)]
pub struct Predictor {
    config: PredictorConfig,
    v4: Family,
    v6: Family,
    last: Prediction,
}

impl Predictor {
    /// One that has heard nothing.
    pub fn new(config: PredictorConfig) -> Predictor {
        Predictor { config, v4: Family::default(), v6: Family::default(), last: Prediction::default() }
    }

    /// The last prediction.
    pub fn prediction(&self) -> Prediction {
        self.last
    }

    /// How many statements and contacts are remembered.
    pub fn remembered(&self) -> (usize, usize) {
        let families = [&self.v4, &self.v6];
        let statements = families.map(|family| family.public.statements.len() + family.local.statements.len());
        (statements.iter().sum(), families.map(|family| family.contacts.len()).iter().sum())
    }

    fn family(&mut self, ip: IpAddr) -> (&mut Family, &PredictorConfig) {
        let family = if ip.is_ipv4() { &mut self.v4 } else { &mut self.v6 };
        (family, &self.config)
    }

    fn stated(&mut self, now: Time, by: IpAddr, observed: SocketAddr) {
        // What it may not tell of others it may not tell of us: nobody moves us into a place that is no place.
        let nowhere = observed.port() == 0 || matches!(scope(observed.ip()), Scope::Loopback | Scope::Link);
        let same_reach = is_local(by) == is_local(observed.ip());
        if nowhere || !same_reach || by.is_ipv4() != observed.is_ipv4() || !may_relay(by, observed.ip()) {
            return;
        }
        let (family, config) = self.family(by);
        let tracker = if is_local(by) { &mut family.local } else { &mut family.public };
        tracker.state(now, site(by), observed, config);
    }

    fn look(&mut self, now: Time, fx: &mut Effects<PredictorOut, PredictorTimer>) {
        let open = self.v4.is_open(now, &self.config) || self.v6.is_open(now, &self.config);
        let (v4, v6) = (self.v4.predict(now, &self.config), self.v6.predict(now, &self.config));
        let prediction = Prediction { v4, v6, open };
        if prediction != self.last {
            self.last = prediction;
            fx.emit(PredictorOut::Predicted(prediction));
        }
        let trackers = [&self.v4.public, &self.v4.local, &self.v6.public, &self.v6.local];
        match trackers.iter().filter_map(|tracker| tracker.next_lapse(now, self.config.window)).min() {
            Some(at) => fx.arm(PredictorTimer::Lapse, at),
            None => fx.disarm(PredictorTimer::Lapse),
        }
    }
}

impl Machine for Predictor {
    type In = PredictorIn;
    type Out = PredictorOut;
    type Timer = PredictorTimer;

    fn handle(&mut self, now: Time, input: PredictorIn, fx: &mut Effects<PredictorOut, PredictorTimer>) {
        match input {
            PredictorIn::Contact(ip) => {
                let ip = ip.to_canonical();
                let (family, config) = self.family(ip);
                family.contact(now, host_of(ip), config);
            }
            PredictorIn::Stated { by, observed } => {
                self.stated(now, by.ip().to_canonical(), canonical(observed));
                self.look(now, fx);
            }
            PredictorIn::Asked(ip) => {
                let ip = ip.to_canonical();
                let (family, config) = self.family(ip);
                family.asked(now, host_of(ip), config);
                // The rest is looked at when somebody states something.
            }
        }
    }

    fn expire(&mut self, now: Time, timer: PredictorTimer, fx: &mut Effects<PredictorOut, PredictorTimer>) {
        match timer {
            PredictorTimer::Lapse => self.look(now, fx),
        }
    }
}

/// The address that stands for a host: an IPv6 one has a /64 of them.
fn host_of(ip: IpAddr) -> IpAddr {
    host(ip).network().addr()
}

#[cfg(test)]
#[path = "predictor_tests.rs"]
mod tests;
