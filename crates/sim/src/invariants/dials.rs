//! How often a node is dialled.

use std::collections::BTreeMap;
use std::time::Duration;

use peerage_wire::NodeId;

use super::{Happening, Invariant, Scene, Verdict};
use crate::engine::HostId;
use crate::node::Note;

/// No honest node dials a node again within the history of its dialer, static peers neither. A new life knows of no dials.
#[derive(Default)]
pub struct DialHistory {
    /// When who dialled whom last; what is too old to matter is forgotten now and then.
    dials: BTreeMap<(HostId, NodeId), Duration>,
    forget_at: Duration,
}

impl Invariant for DialHistory {
    fn name(&self) -> &'static str {
        "dial-history"
    }

    fn noted(&mut self, scene: &Scene<'_>, host: HostId, note: &Note) -> Verdict {
        let Note::Dials(id) = note else { return Ok(()) };
        if scene.roster.is_hostile(host) {
            return Ok(());
        }
        let last = self.dials.insert((host, *id), scene.now);
        match last.map(|last| scene.now - last) {
            Some(since) if since < scene.config.dialer.history => {
                Err(format!("host {} dialled {id} again after {} ms", host.0, since.as_millis()))
            }
            _ => Ok(()),
        }
    }

    fn happened(&mut self, _scene: &Scene<'_>, what: &Happening) {
        if let Happening::Stopped(host) = what {
            let (first, last) = (NodeId::from_bytes([0; 32]), NodeId::from_bytes([u8::MAX; 32]));
            let own: Vec<_> = self.dials.range((*host, first)..=(*host, last)).map(|(dial, _)| *dial).collect();
            own.iter().for_each(|dial| {
                self.dials.remove(dial);
            });
        }
    }

    fn looked(&mut self, scene: &Scene<'_>) -> Verdict {
        let history = scene.config.dialer.history;
        if scene.now >= self.forget_at {
            self.forget_at = scene.now + history;
            self.dials.retain(|_, at| *at + history > scene.now);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::trial::{HOSTILE, Trial, id};
    use super::*;

    #[test]
    fn a_dial_within_the_history_is_noticed_unless_a_new_life_or_a_hostile_node_made_it() {
        let trial = Trial::new();
        let history = trial.config.dialer.history.as_secs();
        let mut dials = DialHistory::default();
        let mut dial = |second, host| trial.noted(&mut dials, second, host, Note::Dials(id(3)));
        assert_eq!(dial(1, 0), Ok(()));
        assert_eq!(dial(2, 1), Ok(()), "another node did");
        assert_eq!(dial(1 + history, 0), Ok(()));
        assert!(dial(2 * history, 0).is_err());
        assert_eq!(dial(3, HOSTILE), Ok(()));
        assert_eq!(dial(4, HOSTILE), Ok(()));
        trial.happened(&mut dials, 2 * history, Happening::Stopped(HostId(0)));
        assert_eq!(trial.looked(&mut dials, 2 * history), Ok(()));
        let mut dial = |second, host| trial.noted(&mut dials, second, host, Note::Dials(id(3)));
        assert_eq!(dial(2 * history + 1, 0), Ok(()));
        assert!(dial(2 * history + 2, 0).is_err(), "what was looked at is not forgotten");
    }
}
