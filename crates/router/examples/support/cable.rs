//! Two ends of a session without a session: streams between two programs in one process, with credit for a window each.

use std::future::poll_fn;
use std::task::{Context, Poll};

use peerage_router::peerage_machine::Time;
use peerage_router::peerage_mailbox::Outlet;
use peerage_router::peerage_queue::stream::{AcceptedStream, Change, StreamDoor, StreamEnd, StreamError, stream_doors};
use peerage_router::peerage_queue::{ChannelId, Flow, LaneEnd, LanesConfig, Pool, PoolConfig, SessionId, lanes};
use peerage_router::peerage_wire::frame::Lane;

/// What a stream may have unread.
const WINDOW: u64 = 64 << 10;

struct End {
    streams: StreamEnd,
    lanes: LaneEnd,
    accept: Outlet<AcceptedStream>,
    next: u64,
}

/// Joins two ends, each given where the streams go that the other one opens. Where each opens streams, and what carries
/// them while it is polled.
pub(crate) fn cable(
    left: Outlet<AcceptedStream>,
    right: Outlet<AcceptedStream>,
) -> (StreamDoor, StreamDoor, impl Future<Output = ()> + Send) {
    let pool = Pool::new(PoolConfig::outbound());
    let end = |accept, next| {
        let (door, streams) = stream_doors();
        let (_, lanes) = lanes(LanesConfig::recommended(), &pool, 0);
        (door, End { streams, lanes, accept, next })
    };
    let ((left_door, mut left), (right_door, mut right)) = (end(left, 1), end(right, 2));
    let carry = poll_fn(move |cx| {
        while carry_one_way(&mut left, &mut right, cx) | carry_one_way(&mut right, &mut left, cx) {}
        Poll::Pending
    });
    (left_door, right_door, carry)
}

fn carry_one_way(from: &mut End, to: &mut End, cx: &mut Context<'_>) -> bool {
    let (opens, changes) = from.streams.take(cx.waker());
    let mut moved = !opens.is_empty() || !changes.is_empty();
    for request in opens {
        let flow = Flow { channel: request.channel, stream: from.next, lane: request.lane };
        from.next += 2;
        let mut halves = [&mut *from, &mut *to].map(|end| {
            end.lanes.open_stream(flow);
            end.lanes.grant(flow, WINDOW);
            let door = end.lanes.door();
            let halves = end.streams.add(flow, door);
            end.streams.tell_at(flow.stream, WINDOW / 2);
            Some(halves)
        });
        let (writer, reader) = halves[1].take().expect("made above");
        // One that is not taken is dropped, and so reset.
        let accepted = AcceptedStream { session: SessionId(1), channel: ChannelId(1), writer, reader };
        drop(to.accept.offer(accepted));
        request.answer(Ok(halves[0].take().expect("made above")));
    }
    for Change { stream, read, stop, reset } in changes {
        let flow = |lane| Flow { channel: ChannelId(1), stream, lane };
        for lane in [Lane::Normal, Lane::Bulk] {
            to.lanes.grant(flow(lane), read + WINDOW);
        }
        from.streams.tell_at(stream, read + WINDOW / 2);
        if let Some(code) = stop {
            to.streams.fail_writing(stream, StreamError::Stopped(code));
            to.lanes.end_stream(stream);
        }
        if let Some(code) = reset {
            from.lanes.end_stream(stream);
            to.streams.fail_reading(stream, StreamError::Reset(code));
        }
    }
    let mut fragments = Vec::new();
    from.lanes.pop_batch(Time::ZERO, 1 << 20, cx, &mut fragments);
    moved |= !fragments.is_empty();
    for fragment in fragments {
        to.streams.deliver(fragment.flow.stream, &fragment.payload);
        if fragment.end {
            to.streams.end(fragment.flow.stream);
        }
    }
    moved
}
