//! What flags say together: what cannot be meant, what most likely is not, and what follows from all of them.

use std::net::SocketAddr;

use peerage::server::MAX_ADMISSION;
use peerage::{Nat, NodeId, PeerAddress};

use super::Settings;

/// Refuses what contradicts itself.
pub(super) fn contradictions(settings: &Settings) -> Result<(), String> {
    let Settings { bootnodes, statics, admission, .. } = settings;
    if !bootnodes.is_empty() && !settings.discovery && !settings.dialing {
        return Err("--bootnode is of no use with both --no-discovery and --no-dial, as nobody would ask it; \
                    leave out one of the three"
            .into());
    }
    if !settings.listen.is_empty() && !settings.listening && !settings.discovery {
        return Err("--listen has nothing to bind with both --no-listen and --no-discovery; \
                    leave out one of the three"
            .into());
    }
    if !settings.discovery && (settings.nodes_file.is_some() || !settings.dns_lists.is_empty()) {
        return Err("--nodes-file and --dns-list are of no use with --no-discovery, which takes what they tell; \
                    leave one out, or name nodes with --static-peer"
            .into());
    }
    for (family, v4) in [("IPv4", true), ("IPv6", false)] {
        let named = settings.external.iter().filter(|external| external.ip.is_ipv4() == v4).count();
        if named > 1 {
            return Err(format!(
                "--external names {named} {family} addresses, and others can be told of one; leave one"
            ));
        }
    }
    if statics.len() > settings.max_static_peers as usize {
        return Err(format!(
            "{} static peers are named, and --max-static-peers allows {}; raise it",
            statics.len(),
            settings.max_static_peers
        ));
    }
    admission
        .check(MAX_ADMISSION)
        .map_err(|error| format!("{error}; name larger ones with --allow-net, --deny-net"))?;

    let named = |flag: &'static str, peers: &'static str| move |id: &NodeId| (flag, peers, *id);
    let all = (bootnodes.iter().map(|peer| &peer.id).map(named("--bootnode", "bootnode")))
        .chain(statics.iter().map(|peer| &peer.id).map(named("--static-peer", "static peer")))
        .chain(settings.trusted.iter().map(named("--trusted", "trusted node")));
    for (flag, peer, id) in all {
        if !admission.permits_id(&id) {
            return Err(format!(
                "the {peer} {id} is not among those that --only admits; add --only {id}, or leave out its {flag}"
            ));
        }
    }
    // Where a name leads is seen later.
    let refused = |peer: &&PeerAddress| {
        peer.hosts.is_empty() && !peer.addresses.iter().any(|socket| admission.permits_ip(socket.ip()))
    };
    for (flag, peers) in [("--bootnode", bootnodes), ("--static-peer", statics)] {
        if let Some(peer) = peers.iter().find(refused) {
            let address = peer.addresses.first().map(|socket| socket.ip().to_string()).unwrap_or_default();
            return Err(format!(
                "--allow-net and --deny-net do not admit {address}, which {flag} names; change one of them"
            ));
        }
    }
    Ok(())
}

/// What will work, and most likely is not what was meant.
pub(super) fn warnings(settings: &Settings) -> Vec<String> {
    let mut warnings = Vec::new();
    if !settings.statics.is_empty() && !settings.dialing {
        warnings.push("static peers are not dialled with --no-dial: they have to dial this node".into());
    }
    if settings.nat.is_some_and(|nat| nat != Nat::None) && settings.local {
        warnings.push("--nat has nothing to ask for: everything that is bound is on loopback".into());
    }
    if settings.admission.only.as_ref().is_some_and(|only| only.is_empty()) {
        warnings.push("--only-file names nobody, so nobody is admitted".into());
    }
    warnings
}

/// Whether everything that is bound and named is on this machine.
pub(super) fn is_local(settings: &Settings) -> bool {
    let on_loopback = |socket: &SocketAddr| socket.ip().is_loopback();
    let mut named = settings.bootnodes.iter().chain(&settings.statics).flat_map(|peer| &peer.addresses);
    let bound = if settings.listening || settings.discovery {
        !settings.listen.is_empty() && settings.listen.iter().all(on_loopback)
    } else {
        // Nothing is, so who is named decides.
        !settings.statics.is_empty()
    };
    let hosts = settings.bootnodes.iter().chain(&settings.statics).any(|peer| !peer.hosts.is_empty());
    bound && named.all(on_loopback) && !hosts && settings.dns_lists.is_empty()
}
