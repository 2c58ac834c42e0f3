//! The gateways that there are: PCP and NAT-PMP through `crab_nat`, UPnP through `igd-next`.
//!
//! Only the default gateway is asked. Who else answers a search on the local network is not believed: it would be
//! told where the node listens, and could say that the node is anywhere.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};
use std::num::NonZeroU16;
use std::time::Duration;

use crab_nat::{InternetProtocol, PortMapping, PortMappingOptions, PortMappingType, TimeoutConfig, natpmp};
use igd_next::aio::tokio::{Tokio, search_gateway};
use igd_next::{AddPortError, PortMappingProtocol, SearchOptions};

use super::address::Nat;
use super::gateway::{Answer, Gateway, GatewayError, Granted, MapRequest};
use super::mapping::Protocol;

/// What UPnP shows in the router's list of mappings.
const DESCRIPTION: &str = "peerage";
/// How long routers may take to answer a search; ours asks them to within three seconds.
const SEARCH: Duration = Duration::from_secs(5);
/// Where routers are searched for (UPnP device architecture 1.3).
const SSDP: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::new(239, 255, 255, 250)), 1900);
/// A mapping that a router keeps for ever is renewed like one of an hour, as a restart of the router ends it.
const FOR_EVER: Duration = Duration::from_secs(3600);
/// A datagram and three repetitions, within 2.75 seconds: gateways are one hop away.
const PATIENCE: TimeoutConfig = TimeoutConfig {
    initial_timeout: Duration::from_millis(250),
    max_retries: 3,
    max_retry_timeout: Some(Duration::from_secs(1)),
};

/// The default gateway of this computer, by the protocols that the user allows.
pub struct SystemGateway {
    nat: Nat,
    ssdp: SocketAddr,
    /// For tests; else it is looked up at each search.
    fixed: Option<Ipv4Addr>,
    found: Option<Found>,
}

enum Found {
    /// NAT-PMP (RFC 6886).
    Pmp { gateway: Ipv4Addr },
    /// PCP (RFC 6887), with the mappings, which have nonces.
    Pcp { gateway: Ipv4Addr, client: IpAddr, mappings: BTreeMap<Protocol, PortMapping> },
    /// UPnP.
    Upnp { gateway: igd_next::aio::Gateway<Tokio>, client: IpAddr },
}

/// What a gateway said may be long, and of its own making: a line of it is enough.
fn refused(error: impl std::fmt::Display) -> GatewayError {
    let text: String = error.to_string().chars().filter(|char| !char.is_control()).take(200).collect();
    GatewayError::Refused(text)
}

/// This computer's address towards the gateway. Nothing is sent.
fn client_towards(gateway: Ipv4Addr) -> Result<IpAddr, GatewayError> {
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).map_err(refused)?;
    socket.connect((gateway, crab_nat::GATEWAY_PORT)).map_err(refused)?;
    Ok(socket.local_addr().map_err(refused)?.ip())
}

const fn internet(protocol: Protocol) -> InternetProtocol {
    match protocol {
        Protocol::Tcp => InternetProtocol::Tcp,
        Protocol::Udp => InternetProtocol::Udp,
    }
}

const fn upnp(protocol: Protocol) -> PortMappingProtocol {
    match protocol {
        Protocol::Tcp => PortMappingProtocol::TCP,
        Protocol::Udp => PortMappingProtocol::UDP,
    }
}

impl SystemGateway {
    /// The default gateway, asked in these ways.
    pub fn new(nat: Nat) -> SystemGateway {
        SystemGateway { nat, ssdp: SSDP, fixed: None, found: None }
    }

    async fn search(&mut self) -> Result<(), GatewayError> {
        self.found = None;
        let gateway = match self.fixed {
            Some(gateway) => gateway,
            None => super::route::default_gateway().await.ok_or(GatewayError::None)?,
        };
        let client = client_towards(gateway)?;
        if matches!(self.nat, Nat::Auto | Nat::Pcp) {
            // Its answer tells which of the two it speaks, if any.
            self.found = match natpmp::external_address(gateway.into(), Some(PATIENCE)).await {
                // Another version is refused in a packet of any of three lengths.
                Err(natpmp::Failure::UnsupportedVersion(_) | natpmp::Failure::InvalidResponse(_)) => {
                    Some(Found::Pcp { gateway, client, mappings: BTreeMap::new() })
                }
                Err(natpmp::Failure::Timeout | natpmp::Failure::Socket(_)) => None,
                // One that is not connected yet will be.
                Ok(_) | Err(_) => Some(Found::Pmp { gateway }),
            };
        }
        if self.found.is_none() && matches!(self.nat, Nat::Auto | Nat::Upnp) {
            let mut options = SearchOptions::default();
            options.bind_addr = SocketAddr::new(client, 0);
            options.broadcast_address = self.ssdp;
            options.timeout = Some(SEARCH);
            options.single_search_timeout = Some(SEARCH);
            options.allowed_gateway_ips = vec![gateway.into()];
            let found = search_gateway(options).await.ok();
            let found = found.filter(|found| found.addr.ip() == IpAddr::V4(gateway));
            self.found = found.map(|gateway| Found::Upnp { gateway, client });
        }
        match &self.found {
            Some(found) => {
                let protocol = match found {
                    Found::Pmp { .. } => "NAT-PMP",
                    Found::Pcp { .. } => "PCP",
                    Found::Upnp { .. } => "UPnP",
                };
                tracing::info!(%gateway, protocol, "the gateway maps ports");
                Ok(())
            }
            None => Err(GatewayError::Silent(gateway.into())),
        }
    }

    async fn request(&mut self, request: MapRequest) -> Result<Granted, GatewayError> {
        let MapRequest { protocol, internal, external, any, lease } = request;
        let inside = NonZeroU16::new(internal).ok_or_else(|| refused("port 0"))?;
        let seconds = u32::try_from(lease.as_secs()).unwrap_or(u32::MAX);
        let options = PortMappingOptions {
            external_port: NonZeroU16::new(external),
            lifetime_seconds: Some(seconds),
            timeout_config: Some(PATIENCE),
        };
        // A lease of no time is none; and asking for it again would be asking for its end (RFC 6887, section 15).
        let lasting = |mapping: PortMapping| match mapping.lifetime() {
            0 => Err(refused("it grants no time")),
            _ => Ok(mapping),
        };
        let granted = |ip: IpAddr, mapping: &PortMapping| Granted {
            external: SocketAddr::new(ip, mapping.external_port().get()),
            lease: Duration::from_secs(mapping.lifetime().into()),
        };
        match self.found.as_mut().ok_or(GatewayError::None)? {
            Found::Pmp { gateway } => {
                let gateway = (*gateway).into();
                let mapping = natpmp::port_mapping(gateway, internet(protocol), inside, options).await;
                let mapping = mapping.map_err(refused).and_then(lasting)?;
                let ip = natpmp::external_address(gateway, Some(PATIENCE)).await.map_err(refused)?;
                Ok(granted(ip.into(), &mapping))
            }
            Found::Pcp { gateway, client, mappings } => {
                // The same mapping again: its nonce shows that it is ours.
                let mapping = match mappings.get(&protocol) {
                    Some(mapping) => {
                        let mut mapping = mapping.clone();
                        mapping.renew().await.map(|()| mapping)
                    }
                    None => PortMapping::new((*gateway).into(), *client, internet(protocol), inside, options).await,
                };
                let mapping = mapping.map_err(refused).and_then(lasting)?;
                mappings.insert(protocol, mapping.clone());
                match mapping.mapping_type() {
                    PortMappingType::Pcp { external_ip, .. } => Ok(granted(external_ip, &mapping)),
                    PortMappingType::NatPmp => {
                        let ip = natpmp::external_address((*gateway).into(), Some(PATIENCE)).await;
                        Ok(granted(ip.map_err(refused)?.into(), &mapping))
                    }
                }
            }
            Found::Upnp { gateway, client } => {
                let ip = gateway.get_external_ip().await.map_err(refused)?;
                let inside = SocketAddr::new(*client, internal);
                let protocol = upnp(protocol);
                let (lease, added) = match gateway.add_port(protocol, external, inside, seconds, DESCRIPTION).await {
                    Err(AddPortError::OnlyPermanentLeasesSupported) => {
                        (FOR_EVER, gateway.add_port(protocol, external, inside, 0, DESCRIPTION).await)
                    }
                    added => (lease, added),
                };
                let port = match added {
                    Ok(()) => external,
                    Err(AddPortError::PortInUse | AddPortError::SamePortValuesRequired) if any => {
                        let seconds = if lease == FOR_EVER { 0 } else { seconds };
                        gateway.add_any_port(protocol, inside, seconds, DESCRIPTION).await.map_err(refused)?
                    }
                    Err(error) => return Err(refused(error)),
                };
                Ok(Granted { external: SocketAddr::new(ip, port), lease })
            }
        }
    }

    async fn give_back(&mut self, protocol: Protocol, internal: u16, external: u16) -> Result<(), GatewayError> {
        match self.found.as_mut().ok_or(GatewayError::None)? {
            Found::Pmp { gateway } => {
                let inside = NonZeroU16::new(internal);
                natpmp::try_drop_mapping((*gateway).into(), internet(protocol), inside, Some(PATIENCE))
                    .await
                    .map_err(refused)
            }
            Found::Pcp { mappings, .. } => match mappings.remove(&protocol) {
                Some(mapping) => mapping.try_drop().await.map_err(|(error, _)| refused(error)),
                None => Ok(()),
            },
            Found::Upnp { gateway, .. } => gateway.remove_port(upnp(protocol), external).await.map_err(refused),
        }
    }
}

impl Gateway for SystemGateway {
    fn find(&mut self) -> Answer<'_, ()> {
        Box::pin(self.search())
    }

    fn map(&mut self, request: MapRequest) -> Answer<'_, Granted> {
        Box::pin(self.request(request))
    }

    fn unmap(&mut self, protocol: Protocol, internal: u16, external: u16) -> Answer<'_, ()> {
        Box::pin(self.give_back(protocol, internal, external))
    }
}

#[cfg(test)]
#[path = "nat_tests.rs"]
mod tests;
