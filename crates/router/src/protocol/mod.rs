//! Protocols that run once for every peer, as geth's do: a task of the application's own, which reads and writes the
//! channel that it has in the peer's session.
//!
//! A [`Protocol`] is a name, the versions of it that this node speaks with their numbers of message codes, and what to
//! run. It is one of the node's capabilities; with a peer, the highest version that both speak is run, by one task.
//! Messages go from the session's task straight to the run, and from the run straight into the peer's lanes: no actor
//! is between them, so no restart of one is felt. What waits to be read holds its part of the peer's credit: a run that
//! does not read stops its own protocol with this peer, and nothing else. When a run returns, or panics, the peer's
//! session ends with a reason that says why ([`How`]).
//!
//! On the wire a message is its code as a u16, big-endian, and its payload, as the protocol's [`Codec`](crate::codec) has
//! it. Codes count from zero in each protocol.
//!
//! [`Agreed`], [`Plan`] and [`Runs`] are the rules: what may be said, who speaks what, and which end of a run ends a
//! session. The rest, with the `actor` feature, carries.
#![cfg_attr(
    feature = "actor",
    doc = r#"
```
use peerage_router::codec::Bincode;
use peerage_router::protocol::Protocol;

/// Codes.
const PING: u16 = 0;
const PONG: u16 = 1;

let ping = Protocol::new("ping", Bincode, |peer, mut channel| async move {
    channel.send(PING, &7u64).await?;
    loop {
        let message = channel.recv().await?;
        match message.code {
            PING => channel.send(PONG, &message.value::<u64>()?).await?,
            _ => println!("{} answered {}", peer.id, message.value::<u64>()?),
        }
    }
});
let ping = ping.version(1, 2);
# drop(ping);
```
"#
)]

#[cfg(feature = "actor")]
mod channel;
#[cfg(feature = "actor")]
mod define;
#[cfg(feature = "actor")]
mod live;
mod plan;
mod rules;
mod runs;

#[cfg(feature = "actor")]
pub use channel::{Channel, Outbox, Received, RecvError, SendError, send_to_all};
#[cfg(feature = "actor")]
pub use define::{Peer, Protocol, Protocols, RunError};
#[cfg(feature = "actor")]
pub use live::{Event, Live, Run, Tracker};
pub use plan::{Plan, PlanError, Spec, Version};
pub use rules::{Agreed, Breach, CODE_LEN, DEFAULT_MAX_MESSAGE, Unsendable, code_of, message};
pub use runs::{How, RunId, Runs};
