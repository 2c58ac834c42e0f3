//! A file of nodes: one record (`pnr:…`) or address (`/ip4/…/tcp/…/p2p/ID`) a line, and comments after `#`.

use std::collections::BTreeSet;

use peerage_wire::address::{self, AddressError};
use peerage_wire::{NetworkId, NodeRecord, RecordError, Verified};

use crate::machine::Bootnode;

/// Bytes that the file may have.
pub const MAX_FILE: usize = 1024 * 1024;
/// Nodes that are taken from it, in its order; lines after them are not read.
pub const MAX_LINES: usize = 1_024;
/// Bad lines that are told apart; of more, only how many.
const MAX_TOLD: usize = 16;

/// Why a line names no node.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FileError {
    /// Not a usable record.
    #[error(transparent)]
    Record(#[from] RecordError),
    /// Not a usable address.
    #[error(transparent)]
    Address(#[from] AddressError),
    /// An address that does not say whose it is.
    #[error("the address does not end in /p2p/ and the node's id; copy the whole address that the node printed")]
    NoId,
    /// A record of another network.
    #[error("a node of another network")]
    Foreign,
    /// Its node was named before.
    #[error("a node that an earlier line names")]
    Again,
}

/// A line that names no node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BadLine {
    /// Its number, from 1.
    pub number: usize,
    /// Why.
    pub error: FileError,
}

/// What a file says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NodesFile {
    /// Nodes whose records it holds.
    pub records: Vec<Verified<NodeRecord>>,
    /// Nodes whose addresses it holds; UDP is expected at the port of TCP.
    pub nodes: Vec<Bootnode>,
    /// The first lines that name no node.
    pub bad: Vec<BadLine>,
    /// How many lines name no node.
    pub bad_lines: usize,
    /// Whether it names more than [`MAX_LINES`] nodes, so that the rest was left out.
    pub too_long: bool,
}

enum Line {
    Record(Verified<NodeRecord>),
    Node(Bootnode),
}

fn line(text: &str, network: NetworkId) -> Result<Line, FileError> {
    if text.starts_with("pnr:") {
        let record = text.parse::<NodeRecord>()?.verify()?;
        return if record.network() == network { Ok(Line::Record(record)) } else { Err(FileError::Foreign) };
    }
    let (bare, id) = address::split_id(&address::parse(text)?)?;
    let addr = address::require_tcp(&bare)?;
    Ok(Line::Node(Bootnode { id: id.ok_or(FileError::NoId)?, addr }))
}

impl NodesFile {
    /// Reads a file's text. A bad line is noted, and the others are used.
    pub fn read(text: &str, network: NetworkId) -> NodesFile {
        let mut file = NodesFile::default();
        let (mut seen, mut named) = (BTreeSet::new(), BTreeSet::new());
        for (number, text) in (1..).zip(text.lines()) {
            let text = text.split('#').next().unwrap_or_default().trim();
            if text.is_empty() {
                continue;
            }
            // Bad ones count too: their signatures have to be checked like any other.
            if file.records.len() + file.nodes.len() + file.bad_lines >= MAX_LINES {
                file.too_long = true;
                break;
            }
            match line(text, network) {
                Ok(Line::Record(record)) if seen.insert(record.id()) => file.records.push(record),
                // One node may have many addresses.
                Ok(Line::Node(node)) if named.insert((node.id, node.addr)) => file.nodes.push(node),
                Ok(_) => file.bad(number, FileError::Again),
                Err(error) => file.bad(number, error),
            }
        }
        file
    }

    fn bad(&mut self, number: usize, error: FileError) {
        self.bad_lines += 1;
        if self.bad.len() < MAX_TOLD {
            self.bad.push(BadLine { number, error });
        }
    }
}

#[cfg(test)]
mod tests {
    use peerage_wire::{Keypair, RecordDraft};
    use proptest::prelude::*;

    use super::*;

    fn network() -> NetworkId {
        NetworkId::named("test")
    }

    fn record(n: u8, network: NetworkId) -> Verified<NodeRecord> {
        let draft = RecordDraft::new(1, network).address("/ip4/192.0.2.1/tcp/30303".parse().expect("address"));
        draft.sign(&Keypair::from_seed([n; 32])).expect("small")
    }

    #[test]
    fn records_addresses_and_comments_are_read() {
        let (a, id) = (record(1, network()), Keypair::from_seed([2; 32]).id());
        let text =
            format!("# ours\n\n{a} # the first\n  /ip4/192.0.2.2/tcp/5/p2p/{id}\r\n/ip6/2001:db8::1/tcp/5/p2p/{id}");
        let file = NodesFile::read(&text, network());
        assert_eq!((&file.records[..], file.bad_lines, file.too_long), (&[a][..], 0, false));
        assert_eq!(file.nodes.iter().map(|node| node.addr.port()).collect::<Vec<_>>(), [5, 5]);
    }

    #[test]
    fn a_bad_line_is_told_with_its_number_and_the_others_are_used() {
        let (good, foreign) = (record(1, network()), record(2, NetworkId::named("other")));
        let mut forged = record(3, network()).to_string();
        forged.replace_range(forged.len() - 4.., "AAAA");
        let id = Keypair::from_seed([4; 32]).id();
        let lines = [
            "hello",
            &good.to_string(),
            "/ip4/192.0.2.1/tcp/5",
            &foreign.to_string(),
            &forged,
            "pnr:garbage!",
            &format!("/ip4/192.0.2.1/udp/5/quic-v1/p2p/{id}"),
            &good.to_string(),
        ];
        let file = NodesFile::read(&lines.join("\n"), network());
        assert_eq!((file.records.len(), file.bad_lines), (1, 7));
        assert_eq!(file.bad.iter().map(|bad| bad.number).collect::<Vec<_>>(), [1, 3, 4, 5, 6, 7, 8]);
        let said: Vec<String> = file.bad.iter().map(|bad| bad.error.to_string()).collect();
        for (said, word) in
            said.iter().zip(["multiaddr", "/p2p/", "network", "signature", "base64url", "quic", "earlier"])
        {
            assert!(said.contains(word), "{said}");
        }
    }

    #[test]
    fn a_file_is_bounded_in_nodes_and_in_complaints() {
        let id = Keypair::from_seed([1; 32]).id();
        let many: String = (1..3_000).map(|port| format!("/ip4/192.0.2.1/tcp/{port}/p2p/{id}\n")).collect();
        let file = NodesFile::read(&many, network());
        assert_eq!((file.nodes.len(), file.too_long), (MAX_LINES, true));
        let file = NodesFile::read(&"x\n".repeat(5_000), network());
        assert_eq!((file.bad_lines, file.bad.len(), file.too_long), (MAX_LINES, MAX_TOLD, true));
    }

    proptest! {
        #[test]
        fn arbitrary_text_never_panics(text in "\\PC{0,200}(\n\\PC{0,50}){0,5}") {
            NodesFile::read(&text, network());
        }
    }
}
