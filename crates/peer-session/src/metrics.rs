//! What sessions count, by capability and direction, never by peer.

use metrics::Counter;
use peerage_mailbox::Meter;
use peerage_queue::ChannelId;
use peerage_wire::MatchedCapability;

use crate::handshake::Keys;

struct Channel {
    messages_in: Counter,
    messages_out: Counter,
    bytes_in: Counter,
    bytes_out: Counter,
    undeliverable: Counter,
}

pub(crate) struct PumpMetrics {
    /// Channel 1 first.
    channels: Vec<Channel>,
    pub(crate) skipped: Counter,
    pub(crate) unanswered: Counter,
    pub(crate) streams_opened: Counter,
    pub(crate) streams_accepted: Counter,
    pub(crate) streams_refused: Counter,
    pub(crate) late: Counter,
}

impl PumpMetrics {
    pub(crate) fn new(meter: &Meter, keys: &Keys, channels: &[MatchedCapability]) -> PumpMetrics {
        meter.describe("peerage_sessions_total", "Sessions that began, by record cipher and who computes it");
        let cipher = [("cipher", keys.cipher.label()), ("implementation", keys.implementation.label())];
        meter.counter("peerage_sessions_total", &cipher).increment(1);
        meter.describe("peerage_session_messages_total", "Messages, by capability and direction");
        meter.describe("peerage_session_bytes_total", "Payload bytes of messages, by capability and direction");
        meter.describe("peerage_session_undeliverable_total", "Messages for a protocol that is gone, by capability");
        meter.describe("peerage_session_skipped_frames_total", "Frames of kinds this version does not know");
        meter.describe("peerage_session_unanswered_pings_total", "Pings that came faster than they can be answered");
        let streams = "peerage_session_streams_total";
        meter.describe(streams, "Streams, by who opened them");
        meter.describe("peerage_session_refused_streams_total", "Streams of peers that their protocol did not take");
        meter.describe("peerage_session_late_frames_total", "Frames of streams that were over");
        let channel = |matched: &MatchedCapability| {
            // A capability both ends speak is one that this node was configured with.
            let name = &*matched.capability.name;
            let counter = |metric, direction| meter.counter(metric, &[("channel", name), ("direction", direction)]);
            Channel {
                messages_in: counter("peerage_session_messages_total", "in"),
                messages_out: counter("peerage_session_messages_total", "out"),
                bytes_in: counter("peerage_session_bytes_total", "in"),
                bytes_out: counter("peerage_session_bytes_total", "out"),
                undeliverable: meter.counter("peerage_session_undeliverable_total", &[("channel", name)]),
            }
        };
        PumpMetrics {
            channels: channels.iter().map(channel).collect(),
            skipped: meter.counter("peerage_session_skipped_frames_total", &[]),
            streams_opened: meter.counter(streams, &[("by", "us")]),
            streams_accepted: meter.counter(streams, &[("by", "peer")]),
            streams_refused: meter.counter("peerage_session_refused_streams_total", &[]),
            late: meter.counter("peerage_session_late_frames_total", &[]),
            unanswered: meter.counter("peerage_session_unanswered_pings_total", &[]),
        }
    }

    fn channel(&self, channel: ChannelId) -> Option<&Channel> {
        self.channels.get(usize::from(channel.0).checked_sub(1)?)
    }

    pub(crate) fn received(&self, channel: ChannelId, messages: u64, bytes: u64) {
        if let Some(channel) = self.channel(channel) {
            channel.messages_in.increment(messages);
            channel.bytes_in.increment(bytes);
        }
    }

    pub(crate) fn sent(&self, channel: ChannelId, bytes: usize, last: bool) {
        if let Some(channel) = self.channel(channel) {
            channel.bytes_out.increment(bytes as u64);
            channel.messages_out.increment(u64::from(last));
        }
    }

    pub(crate) fn undeliverable(&self, channel: ChannelId, messages: u64) {
        if let Some(channel) = self.channel(channel) {
            channel.undeliverable.increment(messages);
        }
    }
}
