//! The session's own frames that wait to be sealed, bounded whatever the peer asks.

use std::collections::VecDeque;

use peerage_wire::frame::Kind;

use crate::machine::PINGS;

/// Pings of ours (one a timer), answers to pings (at most [`PINGS`]) and one farewell.
#[derive(Debug, Default)]
pub(crate) struct OwnFrames(VecDeque<(Kind, Vec<u8>)>);

impl OwnFrames {
    /// Queues a frame. Of a flood of pings the newest are answered; false if an older answer made room.
    pub(crate) fn push(&mut self, kind: Kind, payload: Vec<u8>) -> bool {
        let pongs = self.0.iter().filter(|(kind, _)| *kind == Kind::Pong).count();
        let crowded = kind == Kind::Pong && pongs >= PINGS;
        if crowded && let Some(oldest) = self.0.iter().position(|(kind, _)| *kind == Kind::Pong) {
            self.0.remove(oldest);
        }
        self.0.push_back((kind, payload));
        !crowded
    }

    /// Takes the oldest frame.
    pub(crate) fn pop(&mut self) -> Option<(Kind, Vec<u8>)> {
        self.0.pop_front()
    }

    /// Takes the farewell, if there is one, and leaves nothing.
    pub(crate) fn farewell(&mut self) -> Option<Vec<u8>> {
        let frames = std::mem::take(&mut self.0);
        frames.into_iter().find(|(kind, _)| *kind == Kind::Disconnect).map(|(_, payload)| payload)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_of_pings_keeps_only_the_newest_answers_and_the_farewell() {
        let mut own = OwnFrames::default();
        assert!(own.push(Kind::Ping, vec![0]));
        for n in 0..1000u16 {
            assert_eq!(own.push(Kind::Pong, n.to_be_bytes().to_vec()), usize::from(n) < PINGS);
        }
        assert!(own.push(Kind::Disconnect, vec![0, 2]));
        assert_eq!(own.pop(), Some((Kind::Ping, vec![0])));
        assert_eq!(own.pop(), Some((Kind::Pong, (1000 - PINGS as u16).to_be_bytes().to_vec())));
        assert_eq!(own.0.len(), PINGS);
        assert_eq!(own.farewell(), Some(vec![0, 2]));
        assert_eq!(own.pop(), None);
    }
}
