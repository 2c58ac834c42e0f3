//! The texts of a list: root, branches, nodes and links; their hashes, and the root's signature.

use std::fmt;
use std::str::FromStr;

use data_encoding::{BASE32_NOPAD, BASE64URL_NOPAD};
use peerage_wire::{Domain, IdentityError, Keypair, NodeId, NodeRecord, RecordError, Signature, is_name};
use serde::{Deserialize, Serialize};

/// Longest text of an entry, in bytes. As strings of at most 255 bytes with their lengths it has 512 (EIP-1459).
pub const MAX_TEXT: usize = 509;
/// Most children of a branch: as many as fit its text.
pub const MAX_CHILDREN: usize = (MAX_TEXT - BRANCH.len() + 1) / (HASH_TEXT + 1);

const HASH_BYTES: usize = 16;
/// 16 bytes in base32 without padding.
const HASH_TEXT: usize = 26;
const ROOT: &str = "pnr-root:v1 ";
const BRANCH: &str = "pnr-branch:";
const LINK: &str = "pnrtree://";
const RECORD: &str = "pnr:";
const SIGNED: Domain = Domain::new("peerage dns list 1");
/// A name before which a hash still fits: 253 bytes, the hash and its dot.
const MAX_DOMAIN: usize = 253 - HASH_TEXT - 1;

/// Why a text is no entry.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EntryError {
    /// Longer than [`MAX_TEXT`].
    #[error("an entry of {0} bytes, and at most {MAX_TEXT} fit")]
    TooLong(usize),
    /// None of the known kinds.
    #[error("not an entry of a list of nodes")]
    Unknown,
    /// A root with a field missing, twice, or malformed.
    #[error("a root must read: {ROOT}e=HASH l=HASH seq=NUMBER sig=BASE64URL")]
    Root,
    /// Not 26 letters of base32.
    #[error("a hash must be 26 capital letters of base32")]
    Hash,
    /// More children than [`MAX_CHILDREN`].
    #[error("a branch of {0} children, and at most {MAX_CHILDREN} fit")]
    TooManyChildren(usize),
    /// Not `pnrtree://`, a key in base32, `@` and a name.
    #[error("a link must read: {LINK}KEY@NAME, as who publishes the list gives it")]
    Link,
    /// The record is unusable.
    #[error(transparent)]
    Record(#[from] RecordError),
    /// Not signed by the list's key.
    #[error("the root is not signed by the list's key: {0}")]
    Signature(#[from] IdentityError),
}

/// What an entry is found by: the first 16 bytes of the BLAKE3 hash of its text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Hash([u8; HASH_BYTES]);

impl Hash {
    /// Of a text.
    pub fn of(text: &str) -> Hash {
        let mut hash = [0; HASH_BYTES];
        hash.copy_from_slice(&blake3::hash(text.as_bytes()).as_bytes()[..HASH_BYTES]);
        Hash(hash)
    }
}

impl fmt::Display for Hash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&BASE32_NOPAD.encode(&self.0))
    }
}

impl FromStr for Hash {
    type Err = EntryError;

    fn from_str(text: &str) -> Result<Hash, EntryError> {
        if text.len() != HASH_TEXT {
            return Err(EntryError::Hash);
        }
        let bytes = BASE32_NOPAD.decode(text.as_bytes()).map_err(|_| EntryError::Hash)?;
        bytes.try_into().map(Hash).map_err(|_| EntryError::Hash)
    }
}

/// Who signs a list, and at which name it is.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct ListLink {
    /// Whose signature the root must have.
    pub key: NodeId,
    /// Where the root is, in lower case and without a dot at the end.
    domain: String,
}

impl ListLink {
    /// A list at this name.
    ///
    /// # Errors
    /// [`EntryError::Link`] for a name that no name server could have, or that leaves no room for a hash before it.
    pub fn new(key: NodeId, domain: &str) -> Result<ListLink, EntryError> {
        let domain = domain.strip_suffix('.').unwrap_or(domain).to_ascii_lowercase();
        if is_name(&domain) && domain.len() <= MAX_DOMAIN {
            Ok(ListLink { key, domain })
        } else {
            Err(EntryError::Link)
        }
    }

    /// Where its root is.
    pub fn domain(&self) -> &str {
        &self.domain
    }

    /// Where one of its entries is.
    pub fn name_of(&self, hash: Hash) -> String {
        format!("{hash}.{}", self.domain)
    }
}

impl fmt::Display for ListLink {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{LINK}{}@{}", BASE32_NOPAD.encode(self.key.as_bytes()), self.domain)
    }
}

impl FromStr for ListLink {
    type Err = EntryError;

    fn from_str(text: &str) -> Result<ListLink, EntryError> {
        let (key, domain) = text.strip_prefix(LINK).and_then(|rest| rest.split_once('@')).ok_or(EntryError::Link)?;
        let key = BASE32_NOPAD.decode(key.as_bytes()).map_err(|_| EntryError::Link)?;
        ListLink::new(NodeId::from_bytes(key.try_into().map_err(|_| EntryError::Link)?), domain)
    }
}

/// The root of a list, its signature checked or made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Root {
    /// The top of the tree of nodes.
    pub nodes: Hash,
    /// The top of the tree of links.
    pub links: Hash,
    /// Rises with each version of the list.
    pub seq: u64,
}

impl Root {
    fn body(&self) -> String {
        format!("{ROOT}e={} l={} seq={}", self.nodes, self.links, self.seq)
    }

    /// Its text, signed.
    pub fn sign(&self, keys: &Keypair) -> String {
        let body = self.body();
        let signature = keys.sign(SIGNED, body.as_bytes());
        format!("{body} sig={}", BASE64URL_NOPAD.encode(&signature))
    }

    /// Whether a text claims to be a root.
    pub fn is_root(text: &str) -> bool {
        text.starts_with(ROOT)
    }

    /// Reads a root's text, and checks that `key` signed it.
    ///
    /// # Errors
    /// [`EntryError`].
    pub fn verify(text: &str, key: &NodeId) -> Result<Root, EntryError> {
        if text.len() > MAX_TEXT {
            return Err(EntryError::TooLong(text.len()));
        }
        let fields = text.strip_prefix(ROOT).ok_or(EntryError::Root)?;
        let fields: Vec<&str> = fields.split(' ').collect();
        let [nodes, links, seq, signature] = fields[..] else { return Err(EntryError::Root) };
        let value = |field: &'static str, name| field_of(name, field);
        let root = Root {
            nodes: value("e=", nodes)?.parse()?,
            links: value("l=", links)?.parse()?,
            seq: value("seq=", seq)?.parse().map_err(|_| EntryError::Root)?,
        };
        let signature = BASE64URL_NOPAD.decode(value("sig=", signature)?.as_bytes()).map_err(|_| EntryError::Root)?;
        let signature: Signature = signature.try_into().map_err(|_| EntryError::Root)?;
        // What is signed is the one way to write it: `seq=+7` or `seq=07` is not.
        key.verify(SIGNED, root.body().as_bytes(), &signature)?;
        if text.starts_with(&root.body()) { Ok(root) } else { Err(EntryError::Root) }
    }
}

fn field_of<'a>(text: &'a str, name: &str) -> Result<&'a str, EntryError> {
    text.strip_prefix(name).ok_or(EntryError::Root)
}

/// An entry below the root.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Entry {
    /// Where the tree goes on; empty for a tree of nothing.
    Branch(Vec<Hash>),
    /// A node. Whether its owner signed it is not checked yet.
    Node(NodeRecord),
    /// Another list.
    Link(ListLink),
}

impl FromStr for Entry {
    type Err = EntryError;

    fn from_str(text: &str) -> Result<Entry, EntryError> {
        if text.len() > MAX_TEXT {
            return Err(EntryError::TooLong(text.len()));
        }
        if let Some(children) = text.strip_prefix(BRANCH) {
            let count = children.split(',').count();
            if children.is_empty() {
                return Ok(Entry::Branch(Vec::new()));
            } else if count > MAX_CHILDREN {
                return Err(EntryError::TooManyChildren(count));
            }
            return children.split(',').map(str::parse).collect::<Result<_, _>>().map(Entry::Branch);
        }
        if text.starts_with(LINK) {
            return text.parse().map(Entry::Link);
        }
        if text.starts_with(RECORD) {
            return Ok(Entry::Node(text.parse()?));
        }
        Err(EntryError::Unknown)
    }
}

impl fmt::Display for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Entry::Branch(children) => {
                f.write_str(BRANCH)?;
                for (n, child) in children.iter().enumerate() {
                    write!(f, "{}{child}", if n == 0 { "" } else { "," })?;
                }
                Ok(())
            }
            Entry::Node(record) => record.fmt(f),
            Entry::Link(link) => link.fmt(f),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn keys() -> Keypair {
        Keypair::from_seed([7; 32])
    }

    fn root() -> Root {
        Root { nodes: Hash::of("a"), links: Hash::of("b"), seq: 7 }
    }

    #[test]
    fn a_link_is_this_text_and_comes_back() {
        let link = ListLink::new(keys().id(), "Nodes.Example.ORG.").expect("a name");
        let text = "pnrtree://5JFGHY6YU4KICSXX2UCBGLVRXD42KR3KV27L46BOPQG4BHCFQPYA@nodes.example.org";
        let shape = |text: &str| (text.len(), text.split('@').next_back().map(str::to_owned));
        assert_eq!(shape(&link.to_string()), shape(text));
        assert_eq!(link.to_string().parse(), Ok(link.clone()));
        assert_eq!(link.name_of(Hash::of("x")).len(), 26 + 1 + link.domain().len());
    }

    #[test]
    fn links_that_lead_nowhere_are_refused() {
        let key = BASE32_NOPAD.encode(keys().id().as_bytes());
        let long = ["abcdefg"; 29].join(".");
        assert!(long.len() <= 253 && is_name(&long));
        for text in [
            "enrtree://x@y".to_owned(),
            format!("pnrtree://{key}"),
            format!("pnrtree://{key}@"),
            format!("pnrtree://{key}@a b"),
            format!("pnrtree://{}@example.org", &key[2..]),
            format!("pnrtree://{key}@{long}"),
            format!("pnrtree://{}@example.org", key.to_lowercase()),
        ] {
            assert_eq!(text.parse::<ListLink>(), Err(EntryError::Link), "{text}");
        }
    }

    #[test]
    fn a_root_holds_for_its_key_its_fields_and_one_spelling() {
        let text = root().sign(&keys());
        assert_eq!(Root::verify(&text, &keys().id()), Ok(root()));
        assert!(text.len() <= MAX_TEXT && Root::is_root(&text), "{text}");
        let other = Keypair::from_seed([8; 32]);
        assert!(matches!(Root::verify(&text, &other.id()), Err(EntryError::Signature(_))));
        assert!(matches!(Root::verify(&text.replace("seq=7", "seq=8"), &keys().id()), Err(EntryError::Signature(_))));
        for changed in [
            text.replace("seq=7", "seq=07"),
            text.replace("seq=7", "seq=+7"),
            text.replace("seq=7", "seq=99999999999999999999"),
            text.replace(" l=", "  l="),
            text.replace("v1", "v2"),
            format!("{text} more"),
            text.replace(" sig=", " sig"),
            text.split(" sig").next().unwrap_or_default().to_owned(),
        ] {
            assert_eq!(Root::verify(&changed, &keys().id()), Err(EntryError::Root), "{changed}");
        }
    }

    #[test]
    fn a_branch_holds_as_many_children_as_fit_a_text() {
        assert_eq!(MAX_CHILDREN, 18);
        let children: Vec<Hash> = (0..=MAX_CHILDREN).map(|n| Hash::of(&n.to_string())).collect();
        let full = Entry::Branch(children[..MAX_CHILDREN].to_vec());
        assert!(full.to_string().len() <= MAX_TEXT);
        assert_eq!(full.to_string().parse(), Ok(full));
        let over = Entry::Branch(children).to_string();
        assert!(matches!(over.parse::<Entry>(), Err(EntryError::TooLong(_) | EntryError::TooManyChildren(_))));
        assert_eq!("pnr-branch:".parse(), Ok(Entry::Branch(Vec::new())));
        let huge = format!("pnr-branch:{}", ",".repeat(MAX_TEXT - BRANCH.len()));
        assert!(matches!(huge.parse::<Entry>(), Err(EntryError::TooManyChildren(_))));
    }

    #[test]
    fn what_is_no_entry_is_refused() {
        for text in ["", "v=spf1 -all", "pnr-branch:x", "pnr-branch:,", "pnr-leaf:x"] {
            assert!(text.parse::<Entry>().is_err(), "{text}");
        }
    }

    proptest! {
        #[test]
        fn arbitrary_text_never_panics(text in "(pnr|pnr-branch|pnrtree|pnr-root)?[:/v1 ]{0,4}\\PC{0,200}") {
            let _ = text.parse::<Entry>();
            let _ = Root::verify(&text, &keys().id());
        }
    }
}
