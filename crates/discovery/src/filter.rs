//! Which records are worth dialling, by what their owners say in them.

use peerage_wire::NodeRecord;
use serde::{Deserialize, Serialize};

/// What a record must say for its owner to be dialled. It is asked of candidates only: the table holds, and tells others
/// of, the nodes of the whole network.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum EntryRule {
    /// It has an entry with this key.
    Present {
        /// The key.
        key: Vec<u8>,
    },
    /// It has an entry with this key and one of these values.
    OneOf {
        /// The key.
        key: Vec<u8>,
        /// The values.
        values: Vec<Vec<u8>>,
    },
    /// It has an entry with this key and a value that begins so.
    StartsWith {
        /// The key.
        key: Vec<u8>,
        /// The beginning.
        prefix: Vec<u8>,
    },
}

impl EntryRule {
    /// Whether a record says all that it must.
    pub(crate) fn all_hold(rules: &[EntryRule], record: &NodeRecord) -> bool {
        rules.iter().all(|rule| rule.holds(record))
    }

    /// Whether a record says what it must.
    pub fn holds(&self, record: &NodeRecord) -> bool {
        match self {
            EntryRule::Present { key } => record.entry(key).is_some(),
            EntryRule::OneOf { key, values } => {
                record.entry(key).is_some_and(|value| values.iter().any(|wanted| wanted == value))
            }
            EntryRule::StartsWith { key, prefix } => record.entry(key).is_some_and(|value| value.starts_with(prefix)),
        }
    }
}

#[cfg(test)]
mod tests {
    use peerage_wire::{Keypair, NetworkId, RecordDraft};

    use super::*;

    #[test]
    fn a_rule_holds_for_what_the_owner_says() {
        let record = RecordDraft::new(1, NetworkId::named("test"))
            .entry("fork", [1, 2, 3, 4])
            .sign(&Keypair::from_seed([1; 32]))
            .expect("small");
        let key = |key: &str| key.as_bytes().to_vec();
        let one_of = |values: &[&[u8]]| EntryRule::OneOf {
            key: key("fork"),
            values: values.iter().map(|value| value.to_vec()).collect(),
        };
        let prefix = |prefix: &[u8]| EntryRule::StartsWith { key: key("fork"), prefix: prefix.to_vec() };
        for (rule, holds) in [
            (EntryRule::Present { key: key("fork") }, true),
            (EntryRule::Present { key: key("snap") }, false),
            (one_of(&[&[9], &[1, 2, 3, 4]]), true),
            (one_of(&[&[1, 2, 3]]), false),
            (one_of(&[]), false),
            (prefix(&[1, 2]), true),
            (prefix(&[2]), false),
            (EntryRule::StartsWith { key: key("snap"), prefix: Vec::new() }, false),
        ] {
            assert_eq!(rule.holds(&record), holds, "{rule:?}");
        }
    }
}
