//! The root's part in the node's own address: which one is told, what the gateway is asked, and the record of it.

use std::cmp::Reverse;
use std::net::SocketAddr;
use std::time::Duration;

use peerage_discovery::external::{AddressConfig, AddressIn, AddressMachine, AddressOut, External, Mapper};
use peerage_machine::Driver;
use peerage_wire::address::{self, Scope, scope};
use peerage_wire::{Keypair, NetworkId, NodeRecord, RecordDraft, RecordError, Verified};

use crate::Config;
use crate::actor::State;
use crate::types::Event;

/// Sockets named in the record, which has 300 bytes: each needs an address for TCP and one for UDP.
const RECORD_SOCKETS: usize = 3;
/// How long the gateway may take at the node's end.
const GIVE_BACK: Duration = Duration::from_secs(1);

/// What the root knows of the node's own address.
pub(crate) struct OwnAddress {
    driver: Driver<AddressMachine>,
    pub(crate) mapper: Option<Mapper>,
}

impl OwnAddress {
    /// Of a node that is bound to these sockets, wildcards as the addresses they stand for.
    pub(crate) fn new(config: &Config, now: peerage_machine::Time, bound: &[SocketAddr]) -> OwnAddress {
        let machine = AddressMachine::new(AddressConfig {
            statics: config.external.clone(),
            bound: bound.to_vec(),
            tcp: config.listening_on,
            udp: config.discovery_on,
            settle: AddressConfig::SETTLE,
        });
        let mut driver = Driver::new(machine);
        driver.handle(now, AddressIn::Start);
        OwnAddress { driver, mapper: None }
    }

    /// The addresses that the node did not bind itself, as they are told.
    pub(crate) fn external(&self) -> &[External] {
        self.driver.machine().external()
    }

    pub(crate) fn next_deadline(&self) -> Option<peerage_machine::Time> {
        self.driver.next_deadline()
    }
}

/// Signs what the node tells of itself: its external addresses first, then those it is bound to, as many as fit.
pub(crate) fn record(
    config: &Config,
    keys: &Keypair,
    seq: u64,
    external: &[External],
    bound: &[SocketAddr],
) -> Result<Verified<NodeRecord>, String> {
    let mut pairs: Vec<(Option<SocketAddr>, Option<SocketAddr>)> =
        external.iter().map(|external| (external.tcp_socket(), external.udp_socket())).collect();
    let mut bound = bound.to_vec();
    if !external.is_empty() {
        // Room is short: who comes from elsewhere has no use for loopback.
        bound.retain(|socket| scope(socket.ip()) != Scope::Loopback);
        bound.sort_by_key(|socket| Reverse(scope(socket.ip())));
    }
    let own = |socket: SocketAddr| {
        (Some(socket).filter(|_| config.listening_on), Some(socket).filter(|_| config.discovery_on))
    };
    pairs.extend(bound.into_iter().map(own).filter(|pair| !external_names(external, *pair)));
    pairs.truncate(RECORD_SOCKETS);
    loop {
        let addresses = pairs.iter().flat_map(|(tcp, udp)| [tcp.map(address::from_tcp), udp.map(address::from_udp)]);
        let entries = config.record_entries.iter();
        let draft = entries.fold(RecordDraft::new(seq, NetworkId::named(&config.network)), |draft, (key, value)| {
            draft.entry(key.clone(), value.clone())
        });
        match addresses.flatten().fold(draft, RecordDraft::address).sign(keys) {
            // The last one is the least useful.
            Err(RecordError::TooLong(_) | RecordError::TooMany) if pairs.len() > 1 => drop(pairs.pop()),
            signed => return signed.map_err(|error| error.to_string()),
        }
    }
}

fn external_names(external: &[External], pair: (Option<SocketAddr>, Option<SocketAddr>)) -> bool {
    external.iter().any(|external| (external.tcp_socket(), external.udp_socket()) == pair)
}

impl State {
    /// Tells the machine of the own address what happened, and does what follows.
    pub(crate) fn own_address(&mut self, input: AddressIn) {
        self.own.driver.handle(self.clock.now(), input);
        self.address_changed();
    }

    pub(crate) fn own_address_due(&mut self) {
        self.own.driver.expire_due(self.clock.now());
        self.address_changed();
    }

    fn address_changed(&mut self) {
        let changes: Vec<AddressOut> = self.own.driver.drain().collect();
        for AddressOut::Changed(external) in changes {
            for External { ip, tcp, udp, origin } in &external {
                tracing::info!(%ip, ?tcp, ?udp, source = origin.label(), "others reach this node here");
            }
            if external.is_empty() {
                tracing::info!("no external address is known any more");
            }
            self.metrics.external_changed();
            self.sign();
            let seq = self.presented.borrow().record.seq();
            self.events.tell(&Event::LocalChanged { seq, external });
        }
    }

    /// Signs the node's record anew, with a sequence above the last, and tells everybody who shows it.
    pub(crate) fn sign(&mut self) {
        let last = self.presented.borrow().record.seq();
        let seq = self.clock.now().unix_millis().max(last + 1);
        match record(&self.config, &self.keys, seq, self.own.external(), &self.sockets) {
            Ok(record) => {
                if let Some(discovery) = &self.services.discovery {
                    discovery.local_changed(record.clone());
                }
                if let Some(discovery) = &mut self.services.blueprints.discovery {
                    discovery.record = record.clone();
                }
                self.tell_exchange_of(&record);
                self.presented.send_modify(|presented| presented.record = record);
            }
            // It fitted when the node started, and what does not fit is left out.
            Err(error) => tracing::error!(%error, "the record was not signed anew"),
        }
    }

    /// The ports that a gateway could let in, if there is a point in asking one: over IPv4, beyond this computer, where
    /// nothing better is known.
    #[cfg(feature = "nat")]
    fn mappable(&self) -> Option<u16> {
        let real = !self.clock.is_simulated() && self.services.blueprints.connector.transport.is_sockets();
        let named = self.config.external.iter().any(|external| external.ip.is_ipv4());
        let v4 = || self.sockets.iter().filter(|socket| socket.is_ipv4());
        let public = v4().any(|socket| scope(socket.ip()) == Scope::Global);
        let private = v4().find(|socket| scope(socket.ip()) != Scope::Loopback).map(|socket| socket.port());
        private.filter(|_| real && !named && !public && self.config.nat != peerage_discovery::external::Nat::None)
    }

    /// Begins to ask the gateway for a way in, which nobody waits for.
    #[cfg(feature = "nat")]
    pub(crate) fn ask_gateway(&mut self, seed: u64) {
        use peerage_discovery::external::{MappingConfig, MappingMachine, SystemGateway};
        let Some(port) = self.mappable() else { return };
        let (tcp, udp) = (self.config.listening_on.then_some(port), self.config.discovery_on.then_some(port));
        let machine = MappingMachine::new(MappingConfig::recommended(), tcp, udp, seed);
        let gateway = SystemGateway::new(self.config.nat);
        self.own.mapper = Some(Mapper::spawn(gateway, machine, self.clock, self.ports.mapped()));
    }

    /// Without gateways in the build, none is asked.
    #[cfg(not(feature = "nat"))]
    pub(crate) fn ask_gateway(&mut self, _seed: u64) {}

    /// Gives the gateway's ports back.
    pub(crate) async fn leave_gateway(&mut self) {
        if let Some(mapper) = self.own.mapper.take() {
            mapper.stop(GIVE_BACK).await;
        }
    }
}

#[cfg(test)]
#[path = "own_tests.rs"]
mod tests;
