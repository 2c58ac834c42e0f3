//! Which protocols a node speaks: checked once, when it starts.

use std::collections::BTreeSet;

use peerage_wire::Capability;

use super::rules::{Agreed, CODE_LEN};

/// A version of a protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Version {
    /// Its number.
    pub version: u16,
    /// Its number of message codes.
    pub codes: u16,
}

/// What a protocol is to those who match it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Spec {
    /// Its name: a capability's, at most 16 bytes.
    pub name: String,
    /// The versions that this node speaks.
    pub versions: Vec<Version>,
    /// Largest payload of a message, in bytes.
    pub max_message: usize,
}

/// Why a node cannot speak these protocols.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PlanError {
    /// The name is empty, too long, or cannot be told from a version.
    #[error("{0:?} is no name of a protocol: it has 1 to 16 bytes, and no `/`")]
    Name(String),
    /// The node has something of its own by this name.
    #[error("{0:?} is a protocol of the node's own; choose another name")]
    Reserved(String),
    /// Two protocols have the same name.
    #[error("there are two protocols {0:?}; the versions of one protocol are said in one")]
    Twice(String),
    /// It has no version.
    #[error("the protocol {0:?} has no version; say one with its number of message codes")]
    NoVersion(String),
    /// It has a version twice, or one without codes.
    #[error("version {version} of {name:?} is there twice, or has no message codes")]
    Version {
        /// Of which protocol.
        name: String,
        /// Its number.
        version: u16,
    },
    /// Its messages do not fit into a session.
    #[error("messages of {name:?} have up to {bytes} bytes, and a session carries {limit}")]
    MaxMessage {
        /// Of which protocol.
        name: String,
        /// Bytes of its largest message, code included.
        bytes: usize,
        /// The session's limit.
        limit: usize,
    },
    /// There is nothing to withhold.
    #[error("{0} is to be withheld, and the node does not speak it anyhow")]
    Unknown(Capability),
    /// More than a greeting holds.
    #[error("the node speaks {count} versions of protocols, its own included, and can tell of {limit}")]
    TooMany {
        /// How many.
        count: usize,
        /// How many may be.
        limit: usize,
    },
}

/// Capabilities that a greeting holds.
const MAX_CAPABILITIES: usize = 32;

/// The protocols of a node, in the order in which they were said.
#[derive(Clone, Debug, Default)]
pub struct Plan {
    specs: Vec<Spec>,
    /// What the node tells its peers of, its own included and what is withheld left out.
    capabilities: Vec<Capability>,
}

impl Plan {
    /// Checks that a node can speak these protocols besides its own, of which it withholds some versions; a session
    /// carries messages of `max_message` bytes.
    ///
    /// # Errors
    /// [`PlanError`].
    pub fn new(
        own: impl IntoIterator<Item = Capability>,
        specs: Vec<Spec>,
        withheld: &[Capability],
        max_message: usize,
    ) -> Result<Plan, PlanError> {
        let mut capabilities: Vec<Capability> = own.into_iter().collect();
        let reserved: BTreeSet<String> = capabilities.iter().map(|own| own.name.to_string()).collect();
        let mut names = BTreeSet::new();
        for Spec { name, versions, max_message: limit } in &specs {
            if name.is_empty() || name.contains('/') || Capability::new(name, 0).is_none() {
                return Err(PlanError::Name(name.clone()));
            } else if reserved.contains(name) {
                return Err(PlanError::Reserved(name.clone()));
            } else if !names.insert(name) {
                return Err(PlanError::Twice(name.clone()));
            } else if versions.is_empty() {
                return Err(PlanError::NoVersion(name.clone()));
            }
            let bytes = limit.saturating_add(CODE_LEN);
            if bytes > max_message {
                return Err(PlanError::MaxMessage { name: name.clone(), bytes, limit: max_message });
            }
            for &Version { version, codes } in versions {
                let capability = Capability::new(name, version).ok_or_else(|| PlanError::Name(name.clone()))?;
                if codes == 0 || capabilities.contains(&capability) {
                    return Err(PlanError::Version { name: name.clone(), version });
                }
                capabilities.push(capability);
            }
        }
        if let Some(unknown) = withheld.iter().find(|withheld| !capabilities.contains(withheld)) {
            return Err(PlanError::Unknown(unknown.clone()));
        }
        capabilities.retain(|capability| !withheld.contains(capability));
        if capabilities.len() > MAX_CAPABILITIES {
            return Err(PlanError::TooMany { count: capabilities.len(), limit: MAX_CAPABILITIES });
        }
        Ok(Plan { specs, capabilities })
    }

    /// What the node tells its peers of.
    pub fn capabilities(&self) -> &[Capability] {
        &self.capabilities
    }

    /// Most channels of a session: one for each name.
    pub fn channels(&self) -> usize {
        self.capabilities.iter().map(|capability| &capability.name).collect::<BTreeSet<_>>().len()
    }

    /// The place of the protocol that a matched capability is of, and what is agreed on; `None` if it is no protocol's.
    pub fn agreed(&self, matched: &Capability) -> Option<(usize, Agreed)> {
        let place = self.specs.iter().position(|spec| *spec.name == *matched.name)?;
        let spec = self.specs.get(place)?;
        let found = spec.versions.iter().find(|version| version.version == matched.version)?;
        let Version { version, codes } = *found;
        Some((place, Agreed { version, codes, max_message: spec.max_message }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec(name: &str, versions: &[(u16, u16)]) -> Spec {
        let versions = versions.iter().map(|&(version, codes)| Version { version, codes }).collect();
        Spec { name: name.to_owned(), versions, max_message: 100 }
    }

    fn capability(text: &str) -> Capability {
        text.parse().expect("a capability")
    }

    fn plan(specs: Vec<Spec>, withheld: &[&str]) -> Result<Plan, PlanError> {
        let withheld: Vec<Capability> = withheld.iter().map(|text| capability(text)).collect();
        Plan::new([capability("gossip/1")], specs, &withheld, 102)
    }

    #[test]
    fn versions_of_one_protocol_share_a_channel_and_what_is_withheld_is_not_told() {
        let specs = || vec![spec("eth", &[(68, 17), (69, 18)]), spec("snap", &[(1, 8)])];
        let all = plan(specs(), &[]).expect("sound");
        let told = |plan: &Plan| plan.capabilities().iter().map(ToString::to_string).collect::<Vec<_>>().join(" ");
        assert_eq!((told(&all).as_str(), all.channels()), ("gossip/1 eth/68 eth/69 snap/1", 3));
        let agreed = Agreed { version: 69, codes: 18, max_message: 100 };
        assert_eq!(all.agreed(&capability("eth/69")), Some((0, agreed)));
        assert_eq!(all.agreed(&capability("snap/1")).map(|(place, agreed)| (place, agreed.codes)), Some((1, 8)));
        for other in ["eth/70", "gossip/1", "les/1"] {
            assert_eq!(all.agreed(&capability(other)), None, "{other}");
        }
        let some = plan(specs(), &["eth/69", "snap/1", "gossip/1"]).expect("sound");
        assert_eq!((told(&some).as_str(), some.channels()), ("eth/68", 1));
    }

    #[test]
    fn what_does_not_add_up_is_refused_with_what_to_change() {
        let refused = |specs, withheld: &[&str]| plan(specs, withheld).expect_err("refused").to_string();
        let one = &[(1, 1)][..];
        for name in ["", "seventeen-letters", "a/1"] {
            assert!(refused(vec![spec(name, one)], &[]).contains("1 to 16 bytes"), "{name}");
        }
        assert!(refused(vec![spec("gossip", one)], &[]).contains("of the node's own"));
        assert!(refused(vec![spec("a", one), spec("a", &[(2, 1)])], &[]).contains("two protocols"));
        assert!(refused(vec![spec("a", &[])], &[]).contains("has no version"));
        assert!(refused(vec![spec("a", &[(1, 1), (1, 2)])], &[]).contains("twice"));
        assert!(refused(vec![spec("a", &[(1, 0)])], &[]).contains("no message codes"));
        assert!(refused(vec![spec("a", one)], &["a/2"]).contains("a/2 is to be withheld"));
        let large = Spec { max_message: 101, ..spec("a", one) };
        assert!(refused(vec![large], &[]).contains("103 bytes"));
        let many: Vec<(u16, u16)> = (1..=32).map(|version| (version, 1)).collect();
        assert!(refused(vec![spec("a", &many)], &[]).contains("33 versions"));
        assert!(plan(vec![spec("a", &many)], &["a/32"]).is_ok());
    }
}
