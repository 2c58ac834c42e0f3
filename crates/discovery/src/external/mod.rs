//! The node's own address: where others see it, where its gateway lets them in, and whether they can come.
//!
//! | machine | rule |
//! |---|---|
//! | [`Predictor`] | which address to believe of those that others state |
//! | [`MappingMachine`] | which ports to ask of the gateway, and when |
//! | [`AddressMachine`] | which of both, or of what the user said, is told to others, and how often |
//! | [`Reachability`] | whether others can come |
//!
//! What reaches a gateway: over NAT-PMP or PCP, one datagram to the default gateway's port 5351 that asks for its
//! address, then one for each port; over UPnP, the search of SSDP (two datagrams to 239.255.255.250:1900), and HTTP
//! requests to the default gateway alone: its description, its address, and each port with the word `peerage`. Nothing
//! is asked for a node in virtual time, in memory or on loopback only, nor where no default gateway is known.

mod address;
#[cfg(feature = "actor")]
mod gateway;
mod mapping;
#[cfg(feature = "nat")]
mod nat;
mod predictor;
mod reachability;
#[cfg(feature = "nat")]
mod route;

pub use address::{
    AddressConfig, AddressIn, AddressMachine, AddressOut, AddressTimer, External, Nat, NatError, Origin, Ports,
    StaticAddress, StaticAddressError,
};
#[cfg(feature = "actor")]
pub use gateway::{Answer, Gateway, GatewayError, Granted, MapRequest, Mapper};
pub use mapping::{Mapping, MappingConfig, MappingIn, MappingMachine, MappingOut, MappingTimer, Protocol};
#[cfg(feature = "nat")]
pub use nat::SystemGateway;
pub use predictor::{Prediction, Predictor, PredictorConfig, PredictorIn, PredictorOut, PredictorTimer};
pub use reachability::{Reachability, Reachable};
