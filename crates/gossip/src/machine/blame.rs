//! Who is to blame when handling what came from the network panics.
//!
//! What a session says of itself and its topics is its own doing, and so is what does not decode. A signed message is
//! its publisher's doing once its signature holds, and until then its sender's: an honest relayer checks before it
//! sends on, so a relayer that is blamed sent on what it had not checked. The signature is checked for the verdict, as
//! a panic may come before the one check of the message or in a later copy of it; otherwise a publisher could have the
//! honest relayers of such a message blamed in its place. An anonymous message is nobody's, and only its hash is
//! refused.

use peerage_queue::SessionId;
use peerage_wire::NodeId;

use crate::message::{Check, Checked, Fingerprint};

/// Whose doing a panic was.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Blame {
    /// What this session sent.
    Session(SessionId),
    /// A message that this node signed, whoever relayed it.
    Publisher(NodeId),
}

/// What the machine is handling: after a panic, what it is charged to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Handling {
    /// What a session sent: control items, or bytes that do not decode yet.
    Session(SessionId),
    /// A copy of a message.
    Message(Suspect),
}

/// A copy of a message whose handling may panic.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Suspect {
    /// The copy: refused from now on if it is the cause.
    pub fingerprint: Fingerprint,
    /// Who sent it here.
    pub sender: SessionId,
    /// Whether its publisher signed it; nothing on an anonymous topic.
    pub check: Option<Check>,
}

impl Suspect {
    /// Whose doing it is; nobody's on an anonymous topic. Takes a signature check.
    pub fn blame(&self) -> Option<Blame> {
        let check = self.check?;
        Some(match check.outcome() {
            Checked::Holds => Blame::Publisher(check.publisher),
            Checked::Fails | Checked::Panicked => Blame::Session(self.sender),
        })
    }
}

#[cfg(test)]
mod tests {
    use peerage_wire::Keypair;

    use super::*;
    use crate::message::{Claim, MessageId};

    #[test]
    fn a_publisher_is_blamed_only_for_what_it_signed() {
        let keys = Keypair::from_seed([1; 32]);
        let claim = Claim { id: MessageId([1; 32]), issued: 1 };
        let check = Check { publisher: keys.id(), claim, signature: claim.sign(&keys) };
        let (fingerprint, sender) = (Fingerprint([1; 32]), SessionId(7));
        let blame = |check| Suspect { fingerprint, sender, check }.blame();
        assert_eq!(blame(Some(check)), Some(Blame::Publisher(keys.id())));
        let framed = Check { signature: [1; 64], ..check };
        assert_eq!(blame(Some(framed)), Some(Blame::Session(sender)));
        let fatal = Check { claim: Claim { issued: crate::poison::ISSUED, ..claim }, ..check };
        assert_eq!(blame(Some(fatal)), Some(Blame::Session(sender)), "who relays it cannot have checked it");
        assert_eq!(blame(None), None);
    }
}
