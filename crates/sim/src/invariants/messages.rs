//! What applications get.

use std::collections::BTreeMap;

use super::{Happening, Invariant, Scene, Verdict};
use crate::engine::HostId;
use crate::node::{Descriptor, Note};

/// A message is delivered to an honest node once in each of its lives.
#[derive(Default)]
pub struct DeliveredOnce {
    /// By message: who got it, a bit for each host.
    got: BTreeMap<u64, Vec<u64>>,
}

fn bit(host: HostId) -> (usize, u64) {
    (host.index() / 64, 1 << (host.0 % 64))
}

impl Invariant for DeliveredOnce {
    fn name(&self) -> &'static str {
        "delivered-once"
    }

    fn noted(&mut self, scene: &Scene<'_>, host: HostId, note: &Note) -> Verdict {
        let Note::Delivered(Descriptor { number, .. }) = note else { return Ok(()) };
        if scene.roster.is_hostile(host) {
            return Ok(());
        }
        let got = self.got.entry(*number).or_default();
        let (word, bit) = bit(host);
        if got.len() <= word {
            got.resize(word + 1, 0);
        }
        let before = got[word];
        got[word] |= bit;
        if before & bit == 0 { Ok(()) } else { Err(format!("host {} got message {number} twice in one life", host.0)) }
    }

    fn happened(&mut self, _scene: &Scene<'_>, what: &Happening) {
        if let Happening::Stopped(host) = what {
            let (word, bit) = bit(*host);
            self.got.values_mut().filter_map(|got| got.get_mut(word)).for_each(|got| *got &= !bit);
        }
    }
}

/// Nothing is delivered that nobody has published, and everything as it was published. What hostile nodes publish is not
/// written down; its numbers say that it is theirs.
#[derive(Default)]
pub struct Genuine {
    /// Sizes by number.
    published: BTreeMap<u64, u32>,
}

impl Invariant for Genuine {
    fn name(&self) -> &'static str {
        "genuine"
    }

    fn noted(&mut self, scene: &Scene<'_>, host: HostId, note: &Note) -> Verdict {
        let Note::Delivered(Descriptor { number, size }) = note else { return Ok(()) };
        if number & Descriptor::HOSTILE != 0 {
            return Ok(());
        }
        match self.published.get(number) {
            Some(published) if published == size => Ok(()),
            // Hostile nodes publish what they like, in numbers of their own.
            None if number & Descriptor::HOSTILE != 0 => Ok(()),
            _ if scene.roster.is_hostile(host) => Ok(()),
            Some(published) => {
                Err(format!("host {} got message {number} with {size} bytes, and it has {published}", host.0))
            }
            None => Err(format!("host {} got message {number}, which nobody has published", host.0)),
        }
    }

    fn happened(&mut self, _scene: &Scene<'_>, what: &Happening) {
        if let Happening::Published(Descriptor { number, size }) = what {
            self.published.insert(*number, *size);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::trial::{HOSTILE, Trial};
    use super::*;

    const WHAT: Descriptor = Descriptor { number: 7, size: 100 };

    #[test]
    fn a_second_delivery_in_one_life_is_noticed() {
        let trial = Trial::new();
        let mut once = DeliveredOnce::default();
        assert_eq!(trial.noted(&mut once, 1, 0, Note::Delivered(WHAT)), Ok(()));
        assert_eq!(trial.noted(&mut once, 1, 1, Note::Delivered(WHAT)), Ok(()));
        assert!(trial.noted(&mut once, 2, 0, Note::Delivered(WHAT)).is_err());
        trial.happened(&mut once, 3, Happening::Stopped(HostId(0)));
        assert_eq!(trial.noted(&mut once, 4, 0, Note::Delivered(WHAT)), Ok(()), "a new life");
        assert!(trial.noted(&mut once, 4, 1, Note::Delivered(WHAT)).is_err(), "the other one lives on");
    }

    #[test]
    fn what_nobody_published_and_what_was_changed_is_noticed() {
        let trial = Trial::new();
        let mut genuine = Genuine::default();
        assert!(trial.noted(&mut genuine, 1, 0, Note::Delivered(WHAT)).is_err());
        assert_eq!(trial.noted(&mut genuine, 1, HOSTILE, Note::Delivered(WHAT)), Ok(()));
        trial.happened(&mut genuine, 2, Happening::Published(WHAT));
        assert_eq!(trial.noted(&mut genuine, 3, 0, Note::Delivered(WHAT)), Ok(()));
        assert!(trial.noted(&mut genuine, 3, 0, Note::Delivered(Descriptor { size: 99, ..WHAT })).is_err());
        let theirs = Descriptor { number: Descriptor::HOSTILE | 1, ..WHAT };
        assert_eq!(trial.noted(&mut genuine, 3, 0, Note::Delivered(theirs)), Ok(()));
    }
}
