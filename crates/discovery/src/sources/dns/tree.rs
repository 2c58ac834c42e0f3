//! Building a list, and checking one that was built: what a publisher does.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use peerage_wire::{Keypair, NodeRecord, Verified};

use super::entry::{Entry, EntryError, Hash, ListLink, MAX_CHILDREN, MAX_TEXT, Root};

/// How long answers may be cached: entries are found by their hash and never change, the root does.
const ROOT_TTL: u32 = 60;
const ENTRY_TTL: u32 = 86_400;

/// Why a list cannot be built, or is not whole.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TreeError {
    /// A text is unusable.
    #[error("{name}: {error}")]
    Entry {
        /// Where.
        name: String,
        /// Why.
        error: EntryError,
    },
    /// There is no entry where one should be.
    #[error("{0}: there is no such entry")]
    Missing(String),
    /// The text at a name is not the one that its hash stands for.
    #[error("{0}: another text than its hash says")]
    Hash(String),
    /// A link among nodes, or a node among links.
    #[error("{0}: of the other tree: nodes are below e=, links below l=")]
    Kind(String),
    /// Not lines of a zone file.
    #[error("line {0}: write it like: NAME. TTL IN TXT \"text\" \"more of it\"")]
    Line(usize),
}

/// A list that is ready to be published.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SignedList {
    link: ListLink,
    /// By name, the root's among them.
    texts: BTreeMap<String, String>,
}

/// The tree over these texts, its entries by hash, and its top.
fn grow(leaves: impl IntoIterator<Item = String>, texts: &mut BTreeMap<Hash, String>) -> Hash {
    // Sorted by hash and without copies: the same nodes make the same tree.
    let mut level: BTreeSet<Hash> = BTreeSet::new();
    for text in leaves {
        let hash = Hash::of(&text);
        texts.insert(hash, text);
        level.insert(hash);
    }
    let mut level: Vec<Hash> = level.into_iter().collect();
    loop {
        let branches = level.chunks(MAX_CHILDREN).map(|children| Entry::Branch(children.to_vec()).to_string());
        let mut branches: Vec<String> = branches.collect();
        if branches.is_empty() {
            branches.push(Entry::Branch(Vec::new()).to_string());
        }
        level = branches.iter().map(|text| Hash::of(text)).collect();
        texts.extend(branches.into_iter().map(|text| (Hash::of(&text), text)));
        if let [top] = level[..] {
            return top;
        }
    }
}

impl SignedList {
    /// Builds and signs a list for a domain. `seq` must exceed that of the list's last version.
    ///
    /// # Errors
    /// [`EntryError::Link`] for a domain that cannot be.
    pub fn build(
        keys: &Keypair,
        domain: &str,
        seq: u64,
        records: &[Verified<NodeRecord>],
        links: &[ListLink],
    ) -> Result<SignedList, EntryError> {
        let link = ListLink::new(keys.id(), domain)?;
        let mut texts = BTreeMap::new();
        let nodes = grow(records.iter().map(|record| record.to_string()), &mut texts);
        let links = grow(links.iter().map(ListLink::to_string), &mut texts);
        let root = Root { nodes, links, seq }.sign(keys);
        let mut texts: BTreeMap<String, String> =
            texts.into_iter().map(|(hash, text)| (link.name_of(hash), text)).collect();
        texts.insert(link.domain().to_owned(), root);
        Ok(SignedList { link, texts })
    }

    /// What users of the list are given.
    pub fn link(&self) -> &ListLink {
        &self.link
    }

    /// Every name with its text.
    pub fn texts(&self) -> impl Iterator<Item = (&str, &str)> {
        self.texts.iter().map(|(name, text)| (name.as_str(), text.as_str()))
    }

    /// The lines of a zone file (RFC 1035, 5), the root's first.
    pub fn zone(&self) -> String {
        let mut zone = String::new();
        let root = self.texts.get_key_value(self.link.domain());
        let rest = self.texts.iter().filter(|(name, _)| *name != self.link.domain());
        for (name, text) in root.into_iter().chain(rest) {
            let ttl = if name == self.link.domain() { ROOT_TTL } else { ENTRY_TTL };
            // Writing to a string does not fail.
            let _ = write!(zone, "{name}. {ttl} IN TXT");
            for part in strings(text) {
                let _ = write!(zone, " \"{part}\"");
            }
            zone.push('\n');
        }
        zone
    }

    /// Reads the lines of [`zone`](SignedList::zone) back and checks that the list is whole and signed; returns how many
    /// nodes and links it holds.
    ///
    /// # Errors
    /// [`TreeError`], with the name at which something is wrong.
    pub fn check(link: &ListLink, zone: &str) -> Result<(Root, usize, usize), TreeError> {
        let texts = read_zone(zone)?;
        let text = |name: &str| texts.get(name).ok_or_else(|| TreeError::Missing(name.to_owned()));
        let wrong = |name: &str| {
            let name = name.to_owned();
            move |error| TreeError::Entry { name, error }
        };
        let root = Root::verify(text(link.domain())?, &link.key).map_err(wrong(link.domain()))?;
        let mut counts = [0, 0];
        for (tree, top) in [root.nodes, root.links].into_iter().enumerate() {
            let (mut waiting, mut seen) = (vec![top], BTreeSet::new());
            while let Some(hash) = waiting.pop() {
                let name = link.name_of(hash);
                let text = text(&name.to_ascii_lowercase())?;
                if Hash::of(text) != hash {
                    return Err(TreeError::Hash(name));
                }
                if !seen.insert(hash) {
                    continue;
                }
                match text.parse().map_err(wrong(&name))? {
                    Entry::Branch(children) => waiting.extend(children),
                    Entry::Node(record) if tree == 0 => {
                        record.verify().map_err(|error| wrong(&name)(error.into()))?;
                        counts[0] += 1;
                    }
                    Entry::Link(_) if tree == 1 => counts[1] += 1,
                    Entry::Node(_) | Entry::Link(_) => return Err(TreeError::Kind(name)),
                }
            }
        }
        Ok((root, counts[0], counts[1]))
    }
}

/// A text as the strings of a TXT record.
fn strings(text: &str) -> impl Iterator<Item = &str> {
    // The texts of a list are ASCII, so every byte is a place to cut.
    (0..text.len()).step_by(255).filter_map(move |at| text.get(at..(at + 255).min(text.len())))
}

fn read_zone(zone: &str) -> Result<BTreeMap<String, String>, TreeError> {
    let mut texts = BTreeMap::new();
    for (number, line) in (1..).zip(zone.lines()).filter(|(_, line)| !line.trim().is_empty() && !line.starts_with(';'))
    {
        let bad = || TreeError::Line(number);
        let (name, rest) = line.split_once('.').and_then(|_| line.split_once(". ")).ok_or_else(bad)?;
        let (_, quoted) = rest.split_once(" IN TXT ").ok_or_else(bad)?;
        let parts: Vec<&str> = quoted.trim().split('"').collect();
        // Between quotes, at odd places, is text; elsewhere are spaces.
        if parts.len().is_multiple_of(2) || parts.iter().step_by(2).any(|space| !space.trim().is_empty()) {
            return Err(bad());
        }
        let text: String = parts.iter().skip(1).step_by(2).copied().collect();
        if text.is_empty() || text.len() > MAX_TEXT {
            return Err(bad());
        }
        texts.insert(name.to_ascii_lowercase(), text);
    }
    Ok(texts)
}

#[cfg(test)]
mod tests {
    use peerage_wire::{NetworkId, RecordDraft};

    use super::*;

    fn keys() -> Keypair {
        Keypair::from_seed([7; 32])
    }

    fn records(count: u16) -> Vec<Verified<NodeRecord>> {
        let record = |n: u16| {
            let mut seed = [9; 32];
            seed[..2].copy_from_slice(&n.to_be_bytes());
            let draft = RecordDraft::new(1, NetworkId::named("test")).entry("n", [0; 60]);
            draft.sign(&Keypair::from_seed(seed)).expect("small")
        };
        (0..count).map(record).collect()
    }

    fn list(count: u16) -> SignedList {
        let other = ListLink::new(keys().id(), "other.example").expect("a name");
        SignedList::build(&keys(), "nodes.example", 3, &records(count), &[other]).expect("a name")
    }

    #[test]
    fn a_list_of_any_size_is_whole_and_every_text_fits() {
        for count in [0, 1, 2, 18, 19, 400] {
            let list = list(count);
            assert!(list.texts().all(|(_, text)| text.len() <= MAX_TEXT && text.is_ascii()));
            let (root, nodes, links) = SignedList::check(list.link(), &list.zone()).expect("whole");
            assert_eq!((root.seq, nodes, links), (3, usize::from(count), 1));
        }
        let mut twice = records(3);
        twice.extend(records(3));
        twice.reverse();
        let other = ListLink::new(keys().id(), "other.example").expect("a name");
        let same = SignedList::build(&keys(), "nodes.example", 3, &twice, &[other]).expect("a name");
        assert_eq!(same, list(3), "copies and order make no difference");
    }

    #[test]
    fn a_zone_has_strings_of_at_most_255_bytes() {
        let zone = list(2).zone();
        assert!(zone.starts_with("nodes.example. 60 IN TXT \"pnr-root:v1 e="), "{zone}");
        for part in zone.lines().flat_map(|line| line.split('"').skip(1).step_by(2)) {
            assert!(part.len() <= 255);
        }
        assert!(zone.contains("\" \""), "a record needs two");
    }

    #[test]
    fn a_list_that_is_not_whole_is_refused_where_it_is_not() {
        let (whole, link) = (list(40), list(40).link().clone());
        let zone = whole.zone();
        let check = |zone: &str| SignedList::check(&link, zone);
        assert!(check(&zone).is_ok());
        for missing in 0..zone.lines().count() {
            let lines: Vec<&str> = zone.lines().enumerate().filter(|(n, _)| *n != missing).map(|(_, l)| l).collect();
            assert!(matches!(check(&lines.join("\n")), Err(TreeError::Missing(_))), "line {missing}");
        }
        let changed = zone.replacen("\"pnr:A", "\"pnr:B", 1);
        assert!(matches!(check(&changed), Err(TreeError::Hash(_))));
        let other = ListLink::new(Keypair::from_seed([1; 32]).id(), "nodes.example").expect("a name");
        assert!(matches!(SignedList::check(&other, &zone), Err(TreeError::Entry { .. })));
        assert_eq!(check("hello"), Err(TreeError::Line(1)));
        let swapped = Root { nodes: Hash::of("pnr-branch:"), links: Hash::of("pnr-branch:"), seq: 1 }.sign(&keys());
        let empty = format!(
            "nodes.example. 60 IN TXT \"{swapped}\"\n{}. 60 IN TXT \"pnr-branch:\"",
            link.name_of(Hash::of("pnr-branch:"))
        );
        assert_eq!(check(&empty).map(|(_, nodes, links)| (nodes, links)), Ok((0, 0)));
    }
}
