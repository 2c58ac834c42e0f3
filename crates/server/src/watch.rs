//! The root's part in watching itself: it looks at the node every second, sheds load, and changes limits.

use std::sync::Arc;
use std::time::Duration;

use peerage_machine::{Driver, Time};
use peerage_mailbox::Meter;
use peerage_peer_session::handshake::Direction;
use peerage_queue::Shed;
use peerage_wire::address::is_local;

use crate::actor::State;
use crate::health::{self, Check, Finding, HealthMachine, Reading};
use crate::ingress::ServerMsg;
use crate::machine::{In, Running};
use crate::metrics::WatchMetrics;
use crate::shedding::{self, Level, Probe, SheddingMachine, Usage};
use crate::types::Event;
use crate::wiring::first_windows;
use crate::{Config, Limits};

/// How often the node is looked at.
pub(crate) const EVERY: Duration = Duration::from_secs(1);

/// What the root keeps for it.
pub(crate) struct Watch {
    health: Driver<HealthMachine>,
    shedding: Driver<SheddingMachine>,
    probe: Option<Arc<dyn Probe>>,
    /// Whether it is being asked.
    asking: bool,
    /// When the next look is meant to be.
    due: Time,
    /// Bytes of sessions that have ended.
    gone: (u64, u64),
    /// Peers that came, ever.
    inbound_total: u64,
    /// What the node was started with.
    first: Box<Config>,
    metrics: WatchMetrics,
}

impl Watch {
    pub(crate) fn new(config: &Config, now: Time, meter: &Meter) -> Watch {
        Watch {
            health: Driver::new(HealthMachine::new(config.health.clone(), now)),
            shedding: Driver::new(SheddingMachine::new(config.shedding.clone())),
            probe: None,
            asking: false,
            due: now + EVERY,
            gone: (0, 0),
            inbound_total: 0,
            first: Box::new(config.clone()),
            metrics: WatchMetrics::new(meter),
        }
    }

    /// What every check found when it was looked last.
    pub(crate) fn findings(&self) -> Vec<Finding> {
        self.health.machine().findings().cloned().collect()
    }

    pub(crate) fn came(&mut self, direction: Direction) {
        self.inbound_total += u64::from(direction == Direction::Inbound);
    }

    pub(crate) fn went(&mut self, (received, sent): (u64, u64)) {
        self.gone = (self.gone.0 + received, self.gone.1 + sent);
    }
}

impl State {
    pub(crate) fn watch(&mut self) {
        self.look();
        let now = self.clock.now();
        let lag = now.since(self.watch.due);
        self.watch.due = now + EVERY;
        match self.watch.probe.clone() {
            // What was known last holds until there is an answer.
            Some(_) if self.watch.asking => {}
            Some(probe) if self.config.shedding.is_on() => {
                if self.clock.is_simulated() {
                    self.used(Usage { lag: Some(lag), ..probe.read() });
                } else {
                    self.watch.asking = true;
                    let told = self.ports.usage();
                    // A disk that does not answer holds up nobody else.
                    tokio::task::spawn_blocking(move || told.send(Usage { lag: Some(lag), ..probe.read() }));
                }
            }
            _ => self.used(Usage { lag: Some(lag), ..Usage::default() }),
        }
        self.later(EVERY, ServerMsg::Watch);
    }

    pub(crate) fn set_probe(&mut self, probe: Arc<dyn Probe>) {
        self.watch.probe = Some(probe);
    }

    /// The probe has answered.
    pub(crate) fn told_usage(&mut self, usage: Usage) {
        self.watch.asking = false;
        self.used(usage);
    }

    fn used(&mut self, usage: Usage) {
        let now = self.clock.now();
        self.watch.shedding.handle(now, shedding::In::Read(usage));
        for shedding::Out::Level(level) in self.watch.shedding.drain().collect::<Vec<_>>() {
            self.shed(level);
        }
        let machine = self.watch.shedding.machine();
        self.watch.metrics.shedding(machine.level(), machine.scarcest());
    }

    /// What is shed is what this node takes on: messages to send, and newcomers. How fast peers that it has are read, handled
    /// and written to is the throttles' alone, whatever the level, or both would slow the same peer for one shortage.
    fn shed(&mut self, level: Level) {
        self.pool.shed(match level {
            Level::Nothing => Shed::Nothing,
            Level::Bulk => Shed::Bulk,
            Level::Normal | Level::Newcomers => Shed::Normal,
        });
        self.keep_newcomers_out();
        let why = self.watch.shedding.machine().words();
        match &why {
            Some(why) => tracing::warn!(level = level.label(), "{why}"),
            None => tracing::info!("the node sheds nothing any more"),
        }
        self.events.tell(&Event::Shedding { level, why });
    }

    /// Tells the listener and the dialer, for what they are told again when they restart.
    pub(crate) fn keep_newcomers_out(&self) {
        if self.driver.machine().running() != Running::Running {
            return;
        }
        let out = self.watch.shedding.machine().level() == Level::Newcomers;
        if let Some(listener) = &self.services.listener {
            if out { listener.pause() } else { listener.resume() }
        }
        if let Some(dialer) = &self.services.dialer {
            dialer.pause(out);
        }
    }

    fn reading(&self) -> Reading {
        let (mut received, mut sent) = self.watch.gone;
        let mut sends = Vec::with_capacity(self.sessions.len());
        let mut inbound_peers = 0;
        for (id, session) in &self.sessions {
            let (stats, tally) = (session.mailbox.stats(), session.door.tally());
            (received, sent) = (received + stats.bytes_in, sent + stats.bytes_out);
            sends.push((*id, tally.sent, tally.failed));
            inbound_peers += u32::from(!session.meta.dialled());
        }
        let discovery = self.services.discovery.as_ref();
        let sought = self.services.blueprints.discovery.is_some() && !self.bootnodes.is_empty();
        let known = discovery.map(|discovery| format!("; discovery knows {} nodes", discovery.table_len()));
        let missing = self.seeking.as_ref().map(|why| format!("{why}{}", known.unwrap_or_default()));
        let public = || !self.config.external.is_empty() || self.sockets.iter().any(|at| !is_local(at.ip()));
        let disk = self.db.stats().disk;
        Reading {
            down: self.services.degraded().map(|service| service.label().to_owned()).collect(),
            reachable: self.config.listening_on || self.config.dialing_on,
            peers: u32::try_from(self.sessions.len()).unwrap_or(u32::MAX),
            told: sought || !self.statics.is_empty(),
            // A bootnode may be dialled without discovery.
            missing: missing.filter(|_| !(self.bootnodes.is_empty() && self.statics.is_empty())),
            drift: discovery.map_or(0, |discovery| discovery.clock_drift()),
            bytes: (received, sent),
            sends,
            inbound_meant: self.config.listening_on && self.config.health.expect_inbound.unwrap_or_else(public),
            inbound_peers,
            inbound_total: self.watch.inbound_total,
            commits: (disk.commits, disk.failed_commits),
            shedding: self.watch.shedding.machine().words(),
        }
    }

    /// Looks at the node's health, and tells what has changed.
    pub(crate) fn look(&mut self) {
        let (now, reading) = (self.clock.now(), Box::new(self.reading()));
        self.watch.health.handle(now, health::In::Read(reading));
        for health::Out::Changed(finding) in self.watch.health.drain().collect::<Vec<_>>() {
            let (check, threshold, sentence) = (finding.check.label(), &finding.threshold, &finding.sentence);
            match finding.fails() {
                true => tracing::warn!(check, threshold, "{sentence}"),
                false => tracing::info!(check, threshold, "well again: {sentence}"),
            }
        }
        let machine = self.watch.health.machine();
        self.watch.metrics.health(machine.findings(), machine.send_fail_rate(now));
    }

    /// Changes the limits, all of them or none.
    pub(crate) async fn set_limits(&mut self, limits: Limits) -> Result<(), String> {
        let changed = limits.changed(&self.watch.first, &self.config);
        self.watch.metrics.limits(changed.is_ok());
        let mut config = changed?;
        config.dialer.max_dial_peers = config.dial_share();
        config.dialer.max_static_peers = config.max_static_peers;
        self.config = config;
        warn_of_memory(&limits);
        let trusted = self.driver.machine().trusted().count();
        self.pool.set_config(limits.outbound);
        let windows = first_windows(&self.config, self.tracker.channels(), trusted);
        self.inbound_pool.set_limits(windows, limits.inbound);
        let now = self.clock.now();
        self.throttles.set_limits(now, limits.throttle);
        self.watch.health.handle(now, health::In::Config(limits.health.clone()));
        self.watch.shedding.handle(now, shedding::In::Config(limits.shedding.clone()));
        let (services, config) = (&mut self.services, &self.config);
        services.blueprints.gossip.config = config.gossip.clone();
        services.blueprints.dialer.config = config.dialer.clone();
        services.blueprints.listener.config = limits.listener.clone();
        if let Some(router) = &mut services.blueprints.router {
            (router.config.asked, router.config.served) = (limits.asked, limits.served);
        }
        services.gossip.iter().for_each(|gossip| gossip.limits(limits.gossip));
        services.router.iter().for_each(|router| router.limits(limits.asked, limits.served));
        services.listener.iter().for_each(|listener| listener.limits(limits.listener.clone()));
        let (dialled, statics) = (config.dialer.max_dial_peers, config.dialer.max_static_peers);
        services.dialer.iter().for_each(|dialer| dialer.limits(dialled, statics));
        tracing::info!("limits changed");
        tell_of_bandwidth(&limits);
        self.feed(In::Limits(Box::new(limits))).await;
        Ok(())
    }
}

/// A limit of memory that peers alone can fill would let them choose when the node sheds.
pub(crate) fn warn_of_memory(limits: &Limits) {
    let (limit, held) = (limits.shedding.memory, limits.held_for_peers() as u64);
    if limit > 0 && limit < held {
        tracing::warn!(
            limit,
            held,
            "peers can make the node hold more than shedding.memory allows, and so shed load; raise it, or lower the pools"
        );
    }
}

/// Bytes a second, if there is any limit: who wonders why peers are slow finds it in the log.
pub(crate) fn tell_of_bandwidth(limits: &Limits) {
    let (download, upload) = (&limits.throttle.download, &limits.throttle.upload);
    if download.is_limited() || upload.is_limited() {
        tracing::info!(
            download = download.node,
            upload = upload.node,
            peer_download = download.peer,
            peer_upload = upload.peer,
            "bandwidth is limited, in bytes a second"
        );
    }
}

/// In sentences, one for each thing that is missing.
pub(crate) fn reasons(findings: &[Finding]) -> Vec<String> {
    let failing = findings.iter().filter(|finding| finding.fails());
    let sentences = failing.flat_map(|finding| match finding.check {
        Check::Actors => finding.sentence.split(", ").map(str::to_owned).collect(),
        _ => vec![finding.sentence.clone()],
    });
    sentences.collect()
}
