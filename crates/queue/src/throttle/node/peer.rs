//! A session's half of the node's throttles.

use std::fmt;
use std::sync::atomic::Ordering;
use std::time::Duration;

use peerage_machine::Time;

use super::{Ids, ThrottleReason, Throttles};
use crate::throttle::{Processing, Take, Throttle, TimeSource};
use crate::{HolderId, Returned};

/// Less of a handler's time than this is not worth the lock.
const WORTH_TELLING: Duration = Duration::from_micros(100);

/// A large message is granted in pieces of this size at least.
const LEAST_GRANT: u64 = 128 << 10;

/// One that had to wait for its share of the handlers' time has so few messages in processing for a while: else all that
/// has come meanwhile would be handled as soon as it has a little of its share again.
const FEW: u64 = 4;
const SLOW_FOR: Duration = Duration::from_secs(5);

/// Which limits there are: looked at without the lock.
#[derive(Clone, Copy, Default)]
struct On {
    messages: bool,
    download: bool,
    upload: bool,
    cpu: bool,
}

#[derive(Clone, Copy)]
struct Channel {
    id: HolderId,
    /// Messages known to be done with.
    handled: u64,
    waits_since: Option<Time>,
}

#[derive(Clone, Copy)]
struct Wait {
    since: Time,
    until: Option<Time>,
}

/// One session's half of the node's throttles, owned by the task that owns its socket. Dropping it gives everything back.
pub struct PeerThrottle {
    node: Throttles,
    ids: Ids,
    processing: Processing,
    /// Each protocol has its messages in processing, so that one that is slow holds up no other.
    channels: Vec<Channel>,
    /// How many, and since when no more than a few because of the time they take.
    most: u64,
    slow: Option<Time>,
    /// What may be granted at a time of a large message.
    piece: u64,
    seen: u64,
    on: On,
    /// By reason.
    waits: [Option<Wait>; 4],
    /// What was taken for the read, and for the turn, under way.
    reading: u64,
    writing: u64,
}

impl PeerThrottle {
    pub(super) fn new(node: Throttles, ids: Ids) -> PeerThrottle {
        let mut peer = PeerThrottle {
            node,
            ids,
            processing: Processing::new(u64::MAX),
            channels: Vec::new(),
            most: u64::MAX,
            slow: None,
            piece: 0,
            seen: 0,
            on: On::default(),
            waits: [None; 4],
            reading: 0,
            writing: 0,
        };
        peer.refresh();
        peer
    }

    /// Looks whether the limits have changed. Once a turn of the session's task: a reading without a lock.
    pub fn refresh(&mut self) {
        let generation = self.node.0.generation.load(Ordering::Acquire);
        if generation == self.seen {
            return;
        }
        self.seen = generation;
        let limits = self.node.limits();
        self.on = On {
            messages: limits.messages.is_some(),
            download: limits.download.is_limited(),
            upload: limits.upload.is_limited(),
            cpu: limits.cpu.is_some(),
        };
        self.most = limits.messages.unwrap_or(u64::MAX);
        self.set_pace(self.slow);
        let slowest = limits.download.peer.into_iter().chain(limits.download.node).min();
        self.piece = slowest.map_or(u64::MAX, |rate| (rate / 8).max(LEAST_GRANT));
    }

    /// Of a large message so many bytes may be on their way, so that nothing else the peer says waits behind more.
    pub const fn piece(&self) -> u64 {
        self.piece
    }

    /// Whether what goes out is bounded by bandwidth.
    pub const fn limits_upload(&self) -> bool {
        self.on.upload
    }

    /// What measures the time that this session's messages take.
    pub fn time_source(&self) -> TimeSource {
        self.node.0.time.clone()
    }

    /// A handle that changes its weight wherever this has gone.
    pub fn weight(&self) -> ThrottleWeight {
        ThrottleWeight { node: self.node.clone(), ids: self.ids }
    }

    /// Whether what comes in is bounded by bandwidth.
    pub const fn limits_download(&self) -> bool {
        self.on.download
    }

    /// Whether a read waits for bandwidth.
    pub const fn holds_reader(&self) -> bool {
        self.waits[ThrottleReason::Download as usize].is_some()
    }

    /// When, after this instant, something that waits is to be tried again. What was to be tried before and was not has
    /// nothing to go on with now.
    pub fn next(&self, now: Time) -> Option<Time> {
        self.waits.iter().flatten().filter_map(|wait| wait.until).filter(|until| *until > now).min()
    }

    /// How many of so many bytes may be read now; zero to wait. To be followed by [`have_read`](PeerThrottle::have_read).
    pub fn may_read(&mut self, now: Time, wanted: usize) -> usize {
        if !self.on.download {
            self.waited(now, ThrottleReason::Download);
            return wanted;
        }
        if self.is_early(now, ThrottleReason::Download) {
            return 0;
        }
        let take = self.node.0.lock().download.take(now, self.ids.download, wanted as u64);
        self.reading = self.answered(now, ThrottleReason::Download, take);
        usize::try_from(self.reading).unwrap_or(wanted)
    }

    /// So many of them were there. What was not is given back, and so is the place in the line of one that needs none.
    pub fn have_read(&mut self, now: Time, bytes: usize) {
        let unused = std::mem::take(&mut self.reading).saturating_sub(bytes as u64);
        if unused > 0 {
            self.node.0.lock().download.give_back(now, self.ids.download, unused);
        }
    }

    /// How many bytes of so many the next turn to write may have; zero to wait. To be followed by
    /// [`have_written`](PeerThrottle::have_written).
    pub fn may_write(&mut self, now: Time, wanted: usize) -> usize {
        if !self.on.upload {
            self.waited(now, ThrottleReason::Upload);
            return wanted;
        }
        if self.is_early(now, ThrottleReason::Upload) {
            return 0;
        }
        let take = self.node.0.lock().upload.take(now, self.ids.upload, wanted as u64);
        self.writing = self.answered(now, ThrottleReason::Upload, take);
        usize::try_from(self.writing).unwrap_or(wanted)
    }

    /// The turn has so many bytes: fewer than it could have, or more, with the session's own frames, which go at once and
    /// are paid for later.
    pub fn have_written(&mut self, now: Time, bytes: usize) {
        if !self.on.upload {
            return;
        }
        let (taken, bytes) = (std::mem::take(&mut self.writing), bytes as u64);
        if taken == bytes {
            return;
        }
        let mut state = self.node.0.lock();
        state.upload.give_back(now, self.ids.upload, taken.saturating_sub(bytes));
        if bytes > taken {
            state.upload.charge(now, self.ids.upload, bytes - taken);
        }
    }

    /// There is nothing to write any more: its place in the line is somebody else's.
    pub fn writes_nothing(&mut self, now: Time) {
        if self.waits[ThrottleReason::Upload as usize].is_some() {
            self.node.0.lock().upload.cancel(self.ids.upload);
            self.waited(now, ThrottleReason::Upload);
        }
    }

    /// The session is over but for what came before: it is neither read nor written to.
    pub fn moves_nothing(&mut self, now: Time) {
        self.writes_nothing(now);
        if self.holds_reader() {
            self.node.0.lock().download.cancel(self.ids.download);
            self.waited(now, ThrottleReason::Download);
        }
    }

    /// Whether messages may be handed to their protocols: not while the peer has used more than its share of the
    /// handlers' time.
    pub fn has_time(&mut self, now: Time, returned: &Returned) -> bool {
        if self.slow.is_some_and(|since| !self.on.cpu || now.since(since) >= SLOW_FOR) {
            self.set_pace(None);
        }
        if !self.on.cpu {
            self.waited(now, ThrottleReason::Cpu);
            return true;
        }
        let waits = self.waits[ThrottleReason::Cpu as usize].is_some();
        let spent = returned.take_spent(WORTH_TELLING);
        if spent.is_none() && (!waits || self.is_early(now, ThrottleReason::Cpu)) {
            return !waits;
        }
        let mut state = self.node.0.lock();
        if let Some(spent) = spent {
            state.cpu.spent(now, self.ids.cpu, spent);
        }
        let take = state.cpu.take(now, self.ids.cpu, 1);
        drop(state);
        if take != Take::Now(1) {
            self.set_pace(Some(now));
        }
        self.answered(now, ThrottleReason::Cpu, take) > 0
    }

    fn set_pace(&mut self, slow: Option<Time>) {
        self.slow = slow;
        self.processing.set_most(if slow.is_some() { self.most.min(FEW) } else { self.most });
    }

    /// How many of so many messages of a channel (from zero) may be handed on now: as many as are not in processing. What
    /// is not handed on is [kept](PeerThrottle::kept). The task is woken when half of what is in processing is done with;
    /// it must have [registered](Returned::register).
    pub fn may_hand_on(&mut self, now: Time, channel: usize, wanted: usize, returned: &Returned) -> usize {
        if !self.on.messages && self.slow.is_none() && self.channels.is_empty() {
            return wanted;
        }
        while self.channels.len() <= channel {
            let id = self.processing.join(now, 0);
            let handled = returned.handled(self.channels.len());
            self.channels.push(Channel { id, handled, waits_since: None });
        }
        let known = &mut self.channels[channel];
        let mut take = Take::Later(None);
        // Looked at twice: before the mark is set at which the task is woken, and after.
        for mark in [true, false] {
            let handled = returned.handled(channel);
            self.processing.give_back(now, known.id, handled - known.handled);
            known.handled = handled;
            take = self.processing.take(now, known.id, wanted as u64);
            let half = self.processing.held(known.id).div_ceil(2);
            let waits = take == Take::Later(None) && mark;
            if !waits || returned.wake_at_handled(channel, handled + half) {
                break;
            }
        }
        let reason = ThrottleReason::Processing as usize;
        match take {
            Take::Now(count) => {
                if let Some(since) = known.waits_since.take() {
                    returned.wake_at_handled(channel, u64::MAX);
                    self.node.0.add_waited(reason, now.since(since));
                }
                usize::try_from(count).unwrap_or(wanted)
            }
            Take::Later(_) => {
                if known.waits_since.replace(known.waits_since.unwrap_or(now)).is_none() {
                    self.node.0.waits[reason].fetch_add(1, Ordering::Relaxed);
                }
                0
            }
        }
    }

    /// So many that [might be handed on](PeerThrottle::may_hand_on) were not: their protocol has no room, or is gone.
    pub fn kept(&mut self, now: Time, channel: usize, messages: usize) {
        if let Some(channel) = self.channels.get(channel) {
            self.processing.give_back(now, channel.id, messages as u64);
        }
    }

    /// Whether it was told to wait for longer than until now.
    fn is_early(&self, now: Time, reason: ThrottleReason) -> bool {
        self.waits[reason as usize].is_some_and(|wait| wait.until.is_some_and(|until| now < until))
    }

    fn answered(&mut self, now: Time, reason: ThrottleReason, take: Take) -> u64 {
        match take {
            Take::Now(count) => {
                self.waited(now, reason);
                count
            }
            Take::Later(until) => {
                let wait = &mut self.waits[reason as usize];
                let since = wait.map_or(now, |wait| wait.since);
                if wait.replace(Wait { since, until }).is_none() {
                    self.node.0.waits[reason as usize].fetch_add(1, Ordering::Relaxed);
                }
                0
            }
        }
    }

    fn waited(&mut self, now: Time, reason: ThrottleReason) {
        if let Some(wait) = self.waits[reason as usize].take() {
            self.node.0.add_waited(reason as usize, now.since(wait.since));
        }
    }
}

impl Drop for PeerThrottle {
    fn drop(&mut self) {
        let mut state = self.node.0.lock();
        // At the machines' own last instant: none of them goes back in time.
        let now = Time::ZERO;
        state.download.leave(now, self.ids.download);
        state.upload.leave(now, self.ids.upload);
        state.cpu.leave(now, self.ids.cpu);
    }
}

impl fmt::Debug for PeerThrottle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PeerThrottle(waits until {:?})", self.next(Time::ZERO))
    }
}

/// Changes the weight of a session's [`PeerThrottle`] while the session has it. Once that is gone it does nothing.
#[derive(Clone)]
pub struct ThrottleWeight {
    node: Throttles,
    ids: Ids,
}

impl ThrottleWeight {
    /// Changes the session's weight, and with it everybody's part of what is reserved.
    pub fn set(&self, now: Time, weight: u64) {
        let mut state = self.node.0.lock();
        state.download.set_weight(now, self.ids.download, weight);
        state.upload.set_weight(now, self.ids.upload, weight);
        state.cpu.set_weight(now, self.ids.cpu, weight);
    }
}

impl fmt::Debug for ThrottleWeight {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ThrottleWeight")
    }
}
