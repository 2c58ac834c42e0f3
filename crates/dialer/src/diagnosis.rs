//! Why a node has fewer peers than it wants, in counts and in words.

use std::collections::BTreeMap;
use std::fmt;

use peerage_wire::{Consequence, DisconnectReason};
use serde::Serialize;

use crate::{DialOutcome, Refusal};

macro_rules! causes {
    ($($(#[$doc:meta])* $name:ident = $label:literal, $text:literal;)*) => {
        /// What kept a node from becoming a dialled peer.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
        pub enum Cause {
            $($(#[$doc])* $name,)*
        }

        impl Cause {
            /// Every cause.
            pub const ALL: &'static [Cause] = &[$(Cause::$name,)*];

            /// A word for metrics.
            pub const fn label(self) -> &'static str {
                match self {
                    $(Cause::$name => $label,)*
                }
            }

            /// What is said after the number of nodes.
            const fn text(self) -> &'static str {
                match self {
                    $(Cause::$name => $text,)*
                }
            }
        }
    };
}

causes! {
    /// Tried: it has no free place.
    Saturated = "saturated", "were full";
    /// Tried: it did not answer.
    Unreachable = "unreachable", "did not answer";
    /// Tried: it is another node, or of another network, fork or protocol.
    Useless = "useless", "of another network, fork or protocol";
    /// Tried: it bans this node, or does not admit it.
    Refused = "refused", "do not admit this node";
    /// Tried: it broke the set-up off, or the session soon after.
    Dropped = "dropped", "hung up";
    /// Found, or named: no address of it is known.
    NoAddress = "no_address", "without a known address";
    /// Found: the admission policy leaves it out.
    Restricted = "restricted", "left out by the admission policy";
    /// Found: it, or somebody at its address, was dialled a short while ago or has failed, and its time has not come.
    HeldBack = "held_back", "still held back";
    /// Found: it is connected or being connected to.
    Known = "known", "known already";
    /// Candidates were asked for, and for the whole time of the report nobody came.
    Empty = "empty", "time nobody was found";
}

impl Cause {
    const fn is_of_an_attempt(self) -> bool {
        use Cause as C;
        matches!(self, C::Saturated | C::Unreachable | C::Useless | C::Refused | C::Dropped)
    }

    /// What the end of an attempt says; nothing if the attempt succeeded or was called off.
    pub const fn of_outcome(outcome: DialOutcome) -> Option<Cause> {
        use DisconnectReason as R;
        match outcome {
            DialOutcome::Connected | DialOutcome::Cancelled => None,
            DialOutcome::Restricted => Some(Cause::Restricted),
            DialOutcome::ConnectFailed | DialOutcome::TimedOut => Some(Cause::Unreachable),
            DialOutcome::Unresolved => Some(Cause::NoAddress),
            DialOutcome::HandshakeFailed(reason) => match (reason, reason.consequence(false)) {
                (R::TooManyPeers, _) => Some(Cause::Saturated),
                (R::Banned | R::Misbehaved | R::NotAllowed, _) => Some(Cause::Refused),
                (R::HandshakeTimeout, _) => Some(Cause::Unreachable),
                (_, Consequence::Ignore) => Some(Cause::Known),
                (_, Consequence::Avoid | Consequence::Blame(_)) => Some(Cause::Useless),
                (_, Consequence::BackOff) => Some(Cause::Dropped),
            },
        }
    }

    /// What it says that a candidate is not dialled; nothing if it has nothing to do with the node.
    pub const fn of_refusal(refusal: Refusal) -> Option<Cause> {
        match refusal {
            Refusal::Restricted => Some(Cause::Restricted),
            Refusal::RecentlyDialled | Refusal::BackingOff | Refusal::AddressDialled => Some(Cause::HeldBack),
            Refusal::NoAddress => Some(Cause::NoAddress),
            Refusal::Static
            | Refusal::AlreadyDialing
            | Refusal::AlreadyConnected
            | Refusal::PendingInbound
            | Refusal::Waiting => Some(Cause::Known),
            Refusal::Unsolicited | Refusal::OwnId | Refusal::MemoryFull | Refusal::NoSlot => None,
        }
    }
}

/// Why fewer peers are dialled than wanted: what has happened since the last report. Static peers are counted by
/// themselves, as it is now.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Diagnosis {
    /// Connected peers that this end dialled.
    pub dialled: u32,
    /// Peers it wants to have dialled.
    pub wanted: u32,
    /// Attempts that have ended, those that were called off not counted.
    pub tried: u32,
    /// How often candidates were asked for.
    pub asked: u32,
    /// Candidates that came.
    pub found: u32,
    /// How many attempts each cause ended, or how many nodes it left out; what did not happen is not listed.
    pub causes: BTreeMap<Cause, u32>,
    /// Static peers that were named.
    pub statics: u32,
    /// How many of them are connected.
    pub statics_connected: u32,
    /// How many of them may be connected or dialled at once.
    pub static_places: u32,
    /// Why the others are not: how many there are of each cause, by the last attempt at each or the policy. Those that
    /// were not tried yet are not listed.
    pub static_causes: BTreeMap<Cause, u32>,
}

impl Diagnosis {
    /// How often this was the cause.
    pub fn count(&self, cause: Cause) -> u32 {
        self.causes.get(&cause).copied().unwrap_or(0)
    }

    /// The cause that explains most: the policy if it left out more than were tried; else what became of most
    /// attempts; if there was none, what kept most candidates from being tried; and at last that there were none.
    pub fn dominant(&self) -> Option<Cause> {
        use Cause as C;
        let most = |causes: &[Cause]| most(&self.causes, causes);
        if self.tried > 0 && self.count(C::Restricted) > self.tried {
            return Some(C::Restricted);
        }
        most(&[C::Saturated, C::Unreachable, C::Useless, C::Refused, C::Dropped])
            .or_else(|| most(&[C::Restricted, C::HeldBack, C::Known, C::NoAddress]))
            .or_else(|| most(&[C::Empty]))
    }

    /// Whether there is anything to tell of others than static peers.
    fn is_of_others(&self) -> bool {
        self.tried > 0 || self.asked > 0 || !self.causes.is_empty() || self.statics == 0
    }

    /// The dominant cause in words for who runs the node, with what can be done about it where something can.
    pub fn advice(&self) -> &'static str {
        match self.dominant() {
            Some(Cause::Saturated) => "most nodes have no free place: it takes time, or a static peer",
            Some(Cause::Unreachable) => "most nodes do not answer: is this node's network up, and are they?",
            Some(Cause::Useless) => {
                "most nodes are of another network, fork or protocol: are the bootnodes the right ones?"
            }
            Some(Cause::Refused) => "most nodes do not admit this node: is it on their lists?",
            Some(Cause::Dropped) => "most nodes hang up: do their logs say why?",
            Some(Cause::Restricted) => "the admission policy of this node leaves most nodes out",
            Some(Cause::HeldBack) => "everybody who was found was tried a short while ago",
            Some(Cause::Known) => "nobody was found who is not connected already: the network may be this small",
            Some(Cause::Empty) => "nobody was found: is there a bootnode that can be reached over UDP?",
            Some(Cause::NoAddress) => "no address is known of those who were found",
            None => self.static_advice(),
        }
    }

    /// The same for static peers, if there is nothing else to tell.
    fn static_advice(&self) -> &'static str {
        match most(&self.static_causes, Cause::ALL) {
            Some(Cause::Saturated) => "static peers have no free place: is this node a static peer of theirs?",
            Some(Cause::Unreachable) => "static peers do not answer: are their addresses right, and are they up?",
            Some(Cause::Useless) => {
                "other nodes than the static peers answer, or of another network, fork or protocol: are the ids right?"
            }
            Some(Cause::Refused) => "static peers do not admit this node: is it on their lists?",
            Some(Cause::Dropped) => "static peers hang up: do their logs say why?",
            Some(Cause::Restricted) => "the admission policy of this node leaves static peers out",
            Some(Cause::NoAddress) => "no address is known of static peers: can they be named with one?",
            Some(Cause::HeldBack | Cause::Known | Cause::Empty) | None => "nothing has failed yet",
        }
    }

    /// Whether so few peers are dialled that it should be said aloud (geth's limit of three), or no static one is
    /// connected.
    pub fn is_pressing(&self) -> bool {
        self.dialled < self.wanted.min(3) || (self.statics > 0 && self.statics_connected == 0)
    }
}

/// Which of these causes there is most of; of equals the first.
fn most(counts: &BTreeMap<Cause, u32>, causes: &[Cause]) -> Option<Cause> {
    let count = |cause: &Cause| counts.get(cause).copied().unwrap_or(0);
    causes.iter().copied().filter(|cause| count(cause) > 0).rev().max_by_key(count)
}

/// Writes the causes that count, most frequent first.
fn write_causes(
    f: &mut fmt::Formatter<'_>,
    opening: &str,
    causes: &BTreeMap<Cause, u32>,
    counts: impl Fn(Cause) -> bool,
) -> fmt::Result {
    let mut causes: Vec<(Cause, u32)> = causes.iter().map(|(cause, count)| (*cause, *count)).collect();
    causes.retain(|(cause, _)| counts(*cause));
    causes.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
    let mut before = opening;
    for (cause, count) in causes {
        write!(f, "{before}{count} {}", cause.text())?;
        before = ", ";
    }
    Ok(())
}

impl fmt::Display for Diagnosis {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_of_others() {
            write!(f, "{} of {} dialled; {} tried", self.dialled, self.wanted, self.tried)?;
            write_causes(f, ": ", &self.causes, Cause::is_of_an_attempt)?;
            write_causes(f, "; not tried: ", &self.causes, |cause| !cause.is_of_an_attempt())?;
        }
        if self.statics > 0 {
            let before = if self.is_of_others() { "; " } else { "" };
            write!(f, "{before}static peers: {} of {} connected", self.statics_connected, self.statics)?;
            write_causes(f, "; ", &self.static_causes, |_| true)?;
            if self.statics > self.static_places {
                write!(f, "; no more than {} at once", self.static_places)?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn diagnosis(tried: u32, causes: &[(Cause, u32)]) -> Diagnosis {
        Diagnosis { dialled: 1, wanted: 16, tried, causes: causes.iter().copied().collect(), ..Diagnosis::default() }
    }

    #[test]
    fn one_line_says_why() {
        let diagnosis = diagnosis(
            40,
            &[(Cause::Useless, 3), (Cause::Saturated, 31), (Cause::Unreachable, 6), (Cause::HeldBack, 2)],
        );
        assert_eq!(
            diagnosis.to_string(),
            "1 of 16 dialled; 40 tried: 31 were full, 6 did not answer, \
             3 of another network, fork or protocol; not tried: 2 still held back"
        );
        assert_eq!(diagnosis.dominant(), Some(Cause::Saturated));
        assert!(diagnosis.is_pressing());
        assert!(!Diagnosis { dialled: 3, ..diagnosis }.is_pressing());
    }

    #[test]
    fn static_peers_are_told_by_themselves_and_alone_where_there_is_nobody_else() {
        let statics = Diagnosis {
            wanted: 16,
            statics: 3,
            statics_connected: 1,
            static_places: 32,
            static_causes: [(Cause::Unreachable, 1), (Cause::NoAddress, 1)].into(),
            ..Diagnosis::default()
        };
        let alone = "static peers: 1 of 3 connected; 1 did not answer, 1 without a known address";
        assert_eq!(statics.to_string(), alone);
        assert!(statics.advice().contains("are their addresses right"), "{}", statics.advice());
        let others = Diagnosis { asked: 3, causes: [(Cause::Empty, 1)].into(), ..statics.clone() };
        assert_eq!(
            others.to_string(),
            format!("0 of 16 dialled; 0 tried; not tried: 1 time nobody was found; {alone}")
        );
        assert!(others.advice().contains("bootnode"));
        let crowded = Diagnosis { static_places: 1, static_causes: BTreeMap::new(), ..statics.clone() };
        assert_eq!(crowded.to_string(), "static peers: 1 of 3 connected; no more than 1 at once");
        let lost = Diagnosis { wanted: 0, statics_connected: 0, ..statics };
        assert!(lost.is_pressing());
        assert!(!Diagnosis { statics_connected: 1, ..lost }.is_pressing());
    }

    #[test]
    fn what_was_tried_explains_more_than_what_was_only_found() {
        use Cause as C;
        for (tried, causes, dominant) in [
            (2, &[(C::Unreachable, 1), (C::HeldBack, 90)][..], Some(C::Unreachable)),
            (2, &[(C::Unreachable, 2), (C::Restricted, 3)], Some(C::Restricted)),
            (2, &[(C::Unreachable, 1), (C::Dropped, 1)], Some(C::Unreachable)),
            (0, &[(C::Known, 9), (C::HeldBack, 1), (C::Restricted, 8)], Some(C::Known)),
            (0, &[(C::Known, 1), (C::HeldBack, 1)], Some(C::HeldBack)),
            (0, &[(C::Known, 1), (C::Empty, 1)], Some(C::Known)),
            (0, &[(C::NoAddress, 1), (C::Empty, 1)], Some(C::NoAddress)),
            (0, &[(C::Empty, 1)], Some(C::Empty)),
            (1, &[], None),
        ] {
            assert_eq!(diagnosis(tried, causes).dominant(), dominant, "{causes:?}");
        }
    }

    #[test]
    fn every_outcome_has_its_cause() {
        use DisconnectReason as R;
        for (reason, cause) in [
            (R::TooManyPeers, Cause::Saturated),
            (R::WrongNetwork, Cause::Useless),
            (R::WrongFork, Cause::Useless),
            (R::Useless, Cause::Useless),
            (R::NoCommonCapability, Cause::Useless),
            (R::UnexpectedIdentity, Cause::Useless),
            (R::Banned, Cause::Refused),
            (R::NotAllowed, Cause::Refused),
            (R::AlreadyConnected, Cause::Known),
            (R::HandshakeTimeout, Cause::Unreachable),
            (R::NetworkError, Cause::Dropped),
            (R::Unknown(9_999), Cause::Dropped),
        ] {
            assert_eq!(Cause::of_outcome(DialOutcome::HandshakeFailed(reason)), Some(cause), "{reason:?}");
        }
        assert_eq!(Cause::of_outcome(DialOutcome::TimedOut), Some(Cause::Unreachable));
        assert_eq!(Cause::of_outcome(DialOutcome::Unresolved), Some(Cause::NoAddress));
        assert_eq!(Cause::of_outcome(DialOutcome::Connected), None);
        assert_eq!(Cause::of_outcome(DialOutcome::Cancelled), None);
    }
}
