//! What sessions count, by capability and direction, never by peer.

use std::collections::BTreeMap;

use metrics::Counter;
use peerage_mailbox::Meter;
use peerage_queue::ChannelId;
use peerage_wire::MatchedCapability;

struct Channel {
    messages_in: Counter,
    messages_out: Counter,
    bytes_in: Counter,
    bytes_out: Counter,
    undeliverable: Counter,
}

pub(crate) struct PumpMetrics {
    channels: BTreeMap<ChannelId, Channel>,
    pub(crate) skipped: Counter,
    pub(crate) unanswered: Counter,
}

impl PumpMetrics {
    pub(crate) fn new(meter: &Meter, channels: &[MatchedCapability]) -> PumpMetrics {
        meter.describe("peerage_session_messages_total", "Messages, by capability and direction");
        meter.describe("peerage_session_bytes_total", "Payload bytes of messages, by capability and direction");
        meter.describe(
            "peerage_session_undeliverable_total",
            "Messages for a protocol that is gone or had no room for too long, by capability",
        );
        meter.describe("peerage_session_skipped_frames_total", "Frames of kinds this version does not know");
        meter.describe("peerage_session_unanswered_pings_total", "Pings that came faster than they can be answered");
        let channel = |matched: &MatchedCapability| {
            // A capability both ends speak is one that this node was configured with.
            let name = &*matched.capability.name;
            let counter = |metric, direction| meter.counter(metric, &[("channel", name), ("direction", direction)]);
            let channel = Channel {
                messages_in: counter("peerage_session_messages_total", "in"),
                messages_out: counter("peerage_session_messages_total", "out"),
                bytes_in: counter("peerage_session_bytes_total", "in"),
                bytes_out: counter("peerage_session_bytes_total", "out"),
                undeliverable: meter.counter("peerage_session_undeliverable_total", &[("channel", name)]),
            };
            (ChannelId(matched.channel), channel)
        };
        PumpMetrics {
            channels: channels.iter().map(channel).collect(),
            skipped: meter.counter("peerage_session_skipped_frames_total", &[]),
            unanswered: meter.counter("peerage_session_unanswered_pings_total", &[]),
        }
    }

    pub(crate) fn received(&self, channel: ChannelId, bytes: usize) {
        if let Some(channel) = self.channels.get(&channel) {
            channel.messages_in.increment(1);
            channel.bytes_in.increment(bytes as u64);
        }
    }

    pub(crate) fn sent(&self, channel: ChannelId, bytes: usize, last: bool) {
        if let Some(channel) = self.channels.get(&channel) {
            channel.bytes_out.increment(bytes as u64);
            channel.messages_out.increment(u64::from(last));
        }
    }

    pub(crate) fn undeliverable(&self, channel: ChannelId) {
        if let Some(channel) = self.channels.get(&channel) {
            channel.undeliverable.increment(1);
        }
    }
}
