//! The floor table: which package stands on which floor, including those that are still to come.

/// Packages by floor. A package may use only lower floors.
const FLOORS: [(&str, u8); 15] = [
    ("peerage-machine", 0),
    ("peerage-wire", 0),
    ("peerage-mailbox", 1),
    ("peerage-transport", 1),
    ("peerage-nodedb", 2),
    ("peerage-queue", 2),
    ("peerage-peer-session", 3),
    ("peerage-discovery", 3),
    ("peerage-dialer", 3),
    ("peerage-gossip", 3),
    ("peerage-router", 3),
    ("peerage-server", 4),
    ("peerage-sim", 5),
    ("peerage", 5),
    ("node", 6),
];

/// Tools and whole-stack tests: they may use every floor, and no floor may use them.
const OUTSIDE: [&str; 3] = ["xtask", "peerage-tests", "peerage-bench"];

/// Crates that hold an actor: their public signatures may not leak how it is reached.
const ACTOR_CRATES: [&str; 7] = [
    "peerage-queue",
    "peerage-peer-session",
    "peerage-discovery",
    "peerage-dialer",
    "peerage-gossip",
    "peerage-router",
    "peerage-server",
];

/// Crates that never see a runtime: the world runs them by the ten thousand.
const PURE: [&str; 3] = ["peerage-machine", "peerage-wire", "peerage-sim"];

/// Where a package stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Place {
    Floor(u8),
    Outside,
    Unknown,
}

pub(crate) fn place(package: &str) -> Place {
    match FLOORS.iter().find(|(name, _)| *name == package) {
        Some((_, floor)) => Place::Floor(*floor),
        None if OUTSIDE.contains(&package) => Place::Outside,
        None => Place::Unknown,
    }
}

pub(crate) fn is_actor_crate(package: &str) -> bool {
    ACTOR_CRATES.contains(&package)
}

pub(crate) fn is_pure(package: &str) -> bool {
    PURE.contains(&package)
}

/// Whether the machines of this package must compile without its shell: those of every actor crate, for the world
/// runs them all.
pub(crate) fn has_machine_without_shell(package: &str) -> bool {
    is_actor_crate(package)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_actor_crate_and_every_pure_crate_has_a_floor() {
        for name in ACTOR_CRATES.iter().chain(&PURE) {
            assert!(matches!(place(name), Place::Floor(_)), "{name} has no floor");
        }
    }
}
