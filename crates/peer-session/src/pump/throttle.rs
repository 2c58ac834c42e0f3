//! The pump's part in throttling: it waits for bandwidth before it reads, and passes grants on as fast as what they let in
//! may come.

use peerage_machine::Time;

use super::Pump;
use crate::machine::In;

/// What the inbound pool has granted for large messages, where bandwidth is limited: passed on in pieces, or a whole
/// message would be on its way, and the peer's pings behind it.
#[derive(Debug, Default)]
pub(super) struct Owed {
    /// Granted and not passed on.
    pub(super) bytes: u64,
    /// Passed on, and not read since.
    ahead: u64,
}

impl Pump {
    /// How many bytes may be read now. None while the peer waits for bandwidth: what it does not say meanwhile is not held
    /// against it.
    pub(super) fn may_read(&mut self, now: Time, wanted: usize) -> usize {
        let room = self.throttle.may_read(now, wanted);
        if (room == 0) != self.held {
            self.held = room == 0;
            self.input(now, In::Held(self.held));
        }
        room
    }

    pub(super) fn have_read(&mut self, now: Time, bytes: usize) {
        self.throttle.have_read(now, bytes);
        self.owed.ahead = self.owed.ahead.saturating_sub(bytes as u64);
    }

    /// What may be passed on of what is owed.
    pub(super) fn next_piece(&mut self) -> u64 {
        if self.owed.bytes == 0 {
            return 0;
        }
        let room = if self.throttle.limits_download() {
            self.throttle.piece().saturating_sub(self.owed.ahead)
        } else {
            u64::MAX
        };
        let piece = self.owed.bytes.min(room);
        self.owed.bytes -= piece;
        self.owed.ahead += piece;
        piece
    }

    /// Passes on what may be.
    pub(super) fn pass_on(&mut self, now: Time) {
        let piece = self.next_piece();
        if piece > 0 && self.ended.is_none() {
            self.input(now, In::Granted(piece));
            self.wanting = self.driver.machine().wants();
        }
    }
}
