//! Where nodes are learnt of, besides the table's own lookups.

use peerage_wire::address::is_local;
use serde::{Deserialize, Serialize};
use std::net::IpAddr;

/// Most records of one offer; the rest of a longer one is ignored and counted.
pub const MAX_OFFER: usize = 64;

/// Where a candidate was learnt.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Source {
    /// The node's own lookups.
    Kademlia,
    /// A node that the user named to begin with.
    Bootnode,
    /// A signed list in the DNS.
    Dns,
    /// The local network.
    Mdns,
    /// A file of the user's.
    File,
    /// The peers, over their sessions.
    Exchange,
}

impl Source {
    /// Every source, in order.
    pub const ALL: [Source; 6] =
        [Source::Kademlia, Source::Bootnode, Source::Dns, Source::Mdns, Source::File, Source::Exchange];

    /// A word for metrics.
    pub const fn label(self) -> &'static str {
        match self {
            Source::Kademlia => "kademlia",
            Source::Bootnode => "bootnode",
            Source::Dns => "dns",
            Source::Mdns => "mdns",
            Source::File => "file",
            Source::Exchange => "exchange",
        }
    }

    /// Whether the source's word is enough to connect to an address that it tells of. Who signs a list of nodes, and
    /// who wrote a file, was chosen by the user. On the local network anybody may speak, and is believed as far as that
    /// network reaches. Peers are not believed: a record may name a bystander's address, who would get a connection
    /// from every node that heard of it.
    pub(crate) fn vouches_for(self, ip: IpAddr) -> bool {
        match self {
            Source::Dns | Source::File | Source::Bootnode => true,
            Source::Mdns => is_local(ip),
            Source::Kademlia | Source::Exchange => false,
        }
    }
}
