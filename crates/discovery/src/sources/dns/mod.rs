//! Lists of nodes in the DNS, in the manner of EIP-1459: a Merkle tree of TXT records under one signed root.
//!
//! A list is named by who signs it and where it is: `pnrtree://KEY@nodes.example.org`. At that name is the root, and
//! at `HASH.nodes.example.org` the entry whose text has that hash; so one signature, of the root, holds for all:
//!
//! ```text
//! nodes.example.org.       "pnr-root:v1 e=HASH l=HASH seq=7 sig=…"   e: nodes, l: links to other lists
//! HASH.nodes.example.org.  "pnr-branch:HASH,HASH,…"
//! HASH.nodes.example.org.  "pnr:…"                                   a node's record
//! HASH.nodes.example.org.  "pnrtree://KEY@other.example.org"         a list to be followed too
//! ```
//!
//! | file | what |
//! |---|---|
//! | `entry` | the texts, their hashes, and the root's signature |
//! | `tree` | building a list and checking one: the tool's side |
//! | `list` | following lists: the client's rules |
//! | `message` | DNS queries and answers, as far as they are needed |
//! | `stub` | asking name servers |

mod entry;
mod list;
#[cfg(feature = "actor")]
mod message;
mod tree;

#[cfg(feature = "actor")]
mod stub;
#[cfg(feature = "actor")]
mod task;

pub use entry::{Entry, EntryError, Hash, ListLink, MAX_CHILDREN, MAX_TEXT, Root};
pub use list::{In, ListConfig, ListMachine, Out, Refusal, Timer};
pub use tree::{SignedList, TreeError};

#[cfg(feature = "actor")]
pub use stub::{Lookup, StubResolver, Texts};
#[cfg(feature = "actor")]
pub(super) use task::run;
