//! Nodes that are known by a host's name: who is told where a name leads, and when it is resolved anew.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::Arc;

use peerage_dialer::StaticPeer;
use peerage_discovery::sources::{Named, Names, NoResolver, Resolve, SystemResolver};
use peerage_discovery::{Bootnode, Source};
use peerage_wire::Host;

use crate::actor::State;
use crate::start::Args;
use crate::types::PeerAddress;

/// Who resolves names where the user says nothing: nobody in virtual time, where the computer must not be asked.
pub(crate) fn resolver(args: &Args) -> Arc<dyn Resolve> {
    if let Some(resolver) = &args.resolver {
        return resolver.clone();
    }
    if args.clock.is_simulated() {
        return Arc::new(NoResolver);
    }
    #[cfg(feature = "dns")]
    if let Some(server) = args.sources.dns_server {
        return Arc::new(peerage_discovery::sources::dns::StubResolver::new(Some(server)));
    }
    Arc::new(SystemResolver)
}

/// The names of peers, and where they led last.
pub(crate) struct Hosts {
    names: Names,
    led: BTreeMap<Host, Vec<SocketAddr>>,
}

impl Hosts {
    pub(crate) fn new(names: Names) -> Hosts {
        Hosts { names, led: BTreeMap::new() }
    }

    /// Puts where its names lead into a peer.
    fn fill(&self, peer: &mut PeerAddress) {
        let led = peer.hosts.iter().filter_map(|host| self.led.get(host)).flatten();
        let mut addresses: Vec<SocketAddr> = Vec::new();
        led.for_each(|socket| {
            if !addresses.contains(socket) {
                addresses.push(*socket);
            }
        });
        if !addresses.is_empty() {
            peer.addresses = addresses;
        }
    }
}

/// Whether a peer can be looked for: one that is only named cannot until its name leads somewhere.
pub(crate) fn is_placed(peer: &PeerAddress) -> bool {
    peer.hosts.is_empty() || !peer.addresses.is_empty()
}

impl State {
    /// Peers were named or are not any more.
    pub(crate) fn hosts_changed(&mut self) {
        let peers = self.bootnodes.iter().chain(self.statics.values());
        let hosts: BTreeSet<Host> = peers.flat_map(|peer| &peer.hosts).cloned().collect();
        self.hosts.led.retain(|host, _| hosts.contains(host));
        self.hosts.names.hosts(hosts.into_iter().collect());
    }

    /// A name leads somewhere new.
    pub(crate) fn named(&mut self, Named { host, sockets }: Named) {
        self.hosts.led.insert(host.clone(), sockets);
        let mut bootnodes = false;
        for peer in self.bootnodes.iter_mut().filter(|peer| peer.hosts.contains(&host)) {
            self.hosts.fill(peer);
            bootnodes = true;
        }
        if bootnodes {
            if let Some(dialer) = &self.services.dialer {
                dialer.bootnodes(self.bootnodes.iter().map(StaticPeer::from).collect());
            }
            self.name_bootnodes();
        }
        for peer in self.statics.values_mut().filter(|peer| peer.hosts.contains(&host)) {
            self.hosts.fill(peer);
            if let Some(dialer) = &self.services.dialer {
                dialer.add_static(StaticPeer::from(&*peer));
            }
        }
        self.privilege();
    }

    /// Tells discovery of bootnodes that were named by their hosts.
    pub(crate) fn name_bootnodes(&self) {
        let named = self.bootnodes.iter().filter(|peer| !peer.hosts.is_empty());
        let nodes: Vec<Bootnode> =
            named.flat_map(|peer| peer.addresses.iter().map(|addr| Bootnode { id: peer.id, addr: *addr })).collect();
        if let Some(discovery) = self.services.discovery.as_ref().filter(|_| !nodes.is_empty()) {
            discovery.bootnodes(Source::Bootnode, nodes);
        }
    }

    /// Sees whether names have to be resolved anew: nobody is known, or somebody who should be here is not.
    pub(crate) fn see_who_is_missing(&self) {
        let connected = |peer: &PeerAddress| self.sessions.values().any(|session| session.meta.id == peer.id);
        let unknown = self.services.discovery.as_ref().is_some_and(|discovery| discovery.table_len() == 0);
        let mut statics = self.statics.values().filter(|peer| !peer.hosts.is_empty());
        self.hosts.names.lonely(unknown || self.sessions.is_empty() || statics.any(|peer| !connected(peer)));
    }
}
