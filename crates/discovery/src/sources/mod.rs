//! Where nodes are learnt of besides the table: names of hosts, a file, signed lists in the DNS, the local network.
//!
//! Each is a machine or plain functions where it has rules, and a task around it that only offers what it found
//! ([`DiscoveryMailbox::offer`](crate::DiscoveryMailbox::offer)). How offers of many sources become one fair stream for
//! the dialer is discovery's own rule.
//!
//! | file | what |
//! |---|---|
//! | `names`, `name_task` | nodes known by a host's name (`/dns4/…`) |
//! | `file`, `file_task` | a file of records and addresses |
//! | `dns` (feature `dns`) | signed lists of records in TXT records, in the manner of EIP-1459, and the tool's side |
//! | `mdns` (feature `mdns`) | nodes of the local network |

mod count;
#[cfg(feature = "dns")]
pub mod dns;
mod file;
#[cfg(feature = "mdns")]
pub mod mdns;
mod names;

#[cfg(feature = "actor")]
mod file_task;
#[cfg(feature = "actor")]
mod name_task;
#[cfg(feature = "actor")]
mod tasks;

pub use count::SourceEvent;
pub use file::{BadLine, FileError, MAX_FILE, MAX_LINES, NodesFile};
pub use names::{In as NamesIn, MAX_HOSTS, NamesMachine, Out as NamesOut, Timer as NamesTimer};

#[cfg(feature = "actor")]
pub use name_task::{Named, Names, NoResolver, Resolution, Resolve, SystemResolver};
#[cfg(feature = "actor")]
pub use tasks::Sources;
#[cfg(feature = "actor")]
pub(crate) use tasks::{Running, Shell};
