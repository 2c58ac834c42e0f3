//! When each message was published, who has it, and how long it took until all had it.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Semaphore;
use tokio::time::Instant;

/// One message.
#[derive(Debug)]
struct Track {
    published: Instant,
    /// By whom it was delivered, one bit each.
    has: u64,
    /// From its publication until the last had it.
    took: Option<Duration>,
}

#[derive(Debug, Default)]
struct State {
    tracks: Vec<Track>,
    delivered: u64,
    twice: u64,
}

/// The account of a run; clones share it.
#[derive(Clone, Debug)]
pub(super) struct Tally {
    state: Arc<Mutex<State>>,
    /// How many are to have each message.
    due: u32,
    /// Gets a permit back for each message that all have.
    room: Option<Arc<Semaphore>>,
}

impl Tally {
    pub(super) fn new(due: usize) -> Tally {
        Tally { state: Arc::default(), due: due as u32, room: None }
    }

    /// Also gives a permit back for each message that all have.
    pub(super) fn making_room(due: usize, room: Arc<Semaphore>) -> Tally {
        Tally { room: Some(room), ..Tally::new(due) }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A message is about to be published: its number, and its bytes.
    pub(super) fn publish(&self, size: usize) -> (u64, Vec<u8>) {
        let mut state = self.lock();
        let number = state.tracks.len() as u64;
        state.tracks.push(Track { published: Instant::now(), has: 0, took: None });
        drop(state);
        let mut payload = vec![7; size];
        payload[..8].copy_from_slice(&number.to_be_bytes());
        (number, payload)
    }

    /// A node, one of 64 at most, was handed a message that another had published.
    pub(super) fn delivered(&self, node: usize, payload: &[u8]) {
        let number = payload.get(..8).and_then(|bytes| bytes.try_into().ok()).map(u64::from_be_bytes);
        let mut state = self.lock();
        let Some(track) = number.and_then(|number| state.tracks.get_mut(usize::try_from(number).ok()?)) else {
            return;
        };
        let bit = 1 << node;
        if track.has & bit != 0 {
            state.twice += 1;
            return;
        }
        track.has |= bit;
        let whole = track.has.count_ones() == self.due;
        if whole {
            track.took = Some(track.published.elapsed());
        }
        state.delivered += 1;
        drop(state);
        if let Some(room) = self.room.as_ref().filter(|_| whole) {
            room.add_permits(1);
        }
    }

    /// Deliveries so far.
    pub(super) fn deliveries(&self) -> u64 {
        self.lock().delivered
    }

    /// Deliveries of what had been delivered there.
    pub(super) fn twice(&self) -> u64 {
        self.lock().twice
    }

    /// Messages that all have, by now.
    pub(super) fn whole(&self) -> usize {
        self.lock().tracks.iter().filter(|track| track.took.is_some()).count()
    }

    /// Waits until all have everything, and not for ever.
    pub(super) async fn settle(&self, within: Duration) {
        let begun = Instant::now();
        while self.whole() < self.lock().tracks.len() && begun.elapsed() < within {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Of the messages from `first` on: the deliveries, those that were due, and how long it took until all had one.
    pub(super) fn since(&self, first: usize) -> (u64, u64, Vec<Duration>) {
        let state = self.lock();
        let tracks = state.tracks.get(first..).unwrap_or_default();
        let delivered = tracks.iter().map(|track| u64::from(track.has.count_ones())).sum();
        let due = tracks.len() as u64 * u64::from(self.due);
        (delivered, due, tracks.iter().filter_map(|track| track.took).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_message_is_whole_once_each_of_those_who_are_due_has_it() {
        let room = Arc::new(Semaphore::new(0));
        let tally = Tally::making_room(2, room.clone());
        let (number, payload) = tally.publish(16);
        assert_eq!((number, payload.len()), (0, 16));
        tally.delivered(3, &payload);
        tally.delivered(3, &payload);
        assert_eq!((tally.deliveries(), tally.twice(), tally.whole(), room.available_permits()), (1, 1, 0, 0));
        tally.delivered(4, &payload);
        tally.delivered(5, b"short");
        assert_eq!((tally.deliveries(), tally.whole(), room.available_permits()), (2, 1, 1));
        tally.settle(Duration::from_secs(5)).await;
        let (delivered, due, took) = tally.since(0);
        assert_eq!((delivered, due, took.len()), (2, 2, 1));
        assert_eq!(tally.since(1), (0, 0, Vec::new()));
    }
}
