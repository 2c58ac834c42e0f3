use proptest::prelude::*;

use super::*;

fn lanes(items: usize, bytes: usize) -> Lanes<u32> {
    Lanes::new(LanesConfig { items, bytes })
}

fn flow(channel: u16, lane: Lane) -> Flow {
    Flow { channel: ChannelId(channel), stream: 0, lane }
}

fn offer_on(lanes: &mut Lanes<u32>, flow: Flow, len: usize, drop_oldest: bool, guard: u32) -> Result<Vec<u32>, u32> {
    let offer = Offer { flow, payload: Bytes::from(vec![0; len]), expires: None, drop_oldest, guard };
    lanes.offer(offer).map_err(|refused| refused.guard)
}

fn offer(lanes: &mut Lanes<u32>, lane: Lane, len: usize, drop_oldest: bool, guard: u32) -> Result<Vec<u32>, u32> {
    offer_on(lanes, flow(1, lane), len, drop_oldest, guard)
}

fn pop(lanes: &mut Lanes<u32>) -> Option<(Fragment, Option<u32>)> {
    lanes.pop(Time::ZERO, usize::MAX)
}

/// Credit beyond the first window, which is used up by the first message.
fn used_up(lanes: &mut Lanes<u32>, flow: Flow) -> u64 {
    let window = first_window(flow.lane);
    let payload = Bytes::from(vec![0; (window - MESSAGE_COST) as usize]);
    assert!(lanes.offer(Offer { flow, payload, expires: None, drop_oldest: false, guard: 0 }).is_ok());
    assert_eq!(drain(lanes), [0], "the first window needs no grant");
    window
}

/// The guards of the messages that go out whole, in order.
fn drain(lanes: &mut Lanes<u32>) -> Vec<u32> {
    std::iter::from_fn(|| pop(lanes)).filter_map(|(_, guard)| guard).collect()
}

#[test]
fn a_full_lane_refuses_or_drops_the_oldest_that_have_not_begun() {
    let mut lanes = lanes(9, 40_000);
    assert_eq!(offer(&mut lanes, Lane::Normal, 20_000, false, 1), Ok(vec![]));
    assert!(pop(&mut lanes).is_some_and(|(fragment, _)| fragment.more), "message 1 has begun");
    assert_eq!(offer(&mut lanes, Lane::Normal, 20_000, false, 2), Ok(vec![]));
    assert_eq!(offer(&mut lanes, Lane::Normal, 15_000, false, 3), Ok(vec![]));
    assert_eq!(offer(&mut lanes, Lane::Normal, 15_000, false, 4), Err(4));
    assert_eq!(lanes.waiting_bytes(), 35_000, "a refused message changes nothing");
    assert_eq!(
        offer_on(&mut lanes, flow(2, Lane::Normal), 30_000, false, 7),
        Ok(vec![]),
        "a channel's lane is its own"
    );
    assert_eq!(offer(&mut lanes, Lane::Normal, 15_000, true, 5), Ok(vec![2]));
    assert_eq!(offer(&mut lanes, Lane::Normal, 90_000, true, 6), Ok(vec![3, 5]), "too large, but the lane is empty");
    assert_eq!(pop(&mut lanes).and_then(|(_, guard)| guard), Some(1), "what had begun goes on");
    assert_eq!(pop(&mut lanes).and_then(|(fragment, _)| fragment.more.then_some(fragment.flow.channel.0)), Some(2));
    assert_eq!(lanes.clear(), [6, 7]);
    assert!(lanes.is_empty() && lanes.waiting_bytes() == 0);
}

#[test]
fn what_has_not_begun_can_be_taken_back_and_what_has_begun_goes_on() {
    let mut lanes = lanes(9, 400_000);
    for guard in [7, 1, 7, 2] {
        assert_eq!(offer(&mut lanes, Lane::Normal, 20_000, false, guard), Ok(vec![]));
    }
    assert_eq!(offer(&mut lanes, Lane::High, 9, false, 7), Ok(vec![]));
    assert_eq!(drain(&mut lanes).len(), 5);
    for guard in [7, 1, 7, 2] {
        assert_eq!(offer(&mut lanes, Lane::Normal, 20_000, false, guard), Ok(vec![]));
    }
    assert!(pop(&mut lanes).is_some_and(|(fragment, _)| fragment.more), "the first 7 has begun");
    assert_eq!(lanes.take_back(Lane::Normal, |guard| *guard == 7), [7]);
    assert_eq!(lanes.take_back(Lane::Normal, |guard| *guard == 7), [0; 0]);
    assert_eq!(lanes.waiting_bytes(), 40_000);
    assert_eq!(drain(&mut lanes), [7, 1, 2]);
    assert!(lanes.is_empty() && lanes.waiting_bytes() == 0);
}

#[test]
fn fragments_carry_the_message_and_the_first_states_the_total() {
    let mut lanes = lanes(9, 1 << 20);
    let payload: Bytes = (0..40_000u32).map(|n| n as u8).collect::<Vec<_>>().into();
    let flow = Flow { stream: 5, ..flow(3, Lane::Bulk) };
    let offer = Offer { flow, payload: payload.clone(), expires: None, drop_oldest: false, guard: 7 };
    lanes.offer(offer).expect("room");
    let mut whole = Vec::new();
    let mut totals = Vec::new();
    for room in [1000, usize::MAX, usize::MAX, usize::MAX] {
        let (fragment, guard) = lanes.pop(Time::ZERO, room).expect("more");
        assert_eq!((fragment.flow, guard), (flow, (!fragment.more).then_some(7)));
        assert!(fragment.payload.len() <= room && fragment.payload.len() + 4 <= MAX_FRAGMENT);
        totals.push(fragment.total);
        whole.extend_from_slice(&fragment.payload);
    }
    assert_eq!((whole, totals), (payload.to_vec(), vec![Some(40_000), None, None, None]));
}

#[test]
fn control_overtakes_all_and_the_others_share_by_weight() {
    let mut lanes = lanes(10_000, 1 << 30);
    for lane in [Lane::Bulk, Lane::Normal, Lane::High] {
        for _ in 0..2000 {
            offer(&mut lanes, lane, 16_370, false, 0).expect("room");
        }
    }
    offer(&mut lanes, Lane::Control, 8, false, 0).expect("room");
    let order: Vec<Lane> = (0..2101).filter_map(|_| pop(&mut lanes)).map(|(f, _)| f.flow.lane).collect();
    assert_eq!(order[0], Lane::Control);
    let count = |lane| order.iter().filter(|l| **l == lane).count();
    let (high, normal, bulk) = (count(Lane::High), count(Lane::Normal), count(Lane::Bulk));
    assert!(
        (1590..=1610).contains(&high) && (390..=410).contains(&normal) && (95..=105).contains(&bulk),
        "{high} {normal} {bulk}"
    );
}

#[test]
fn empty_messages_do_not_starve_the_lanes_below() {
    let mut lanes = lanes(100_000, 1 << 30);
    for _ in 0..50_000 {
        offer(&mut lanes, Lane::High, 0, false, 0).expect("room");
    }
    offer(&mut lanes, Lane::Bulk, 10, false, 1).expect("room");
    let position = drain(&mut lanes).iter().position(|guard| *guard == 1);
    assert!(position.is_some_and(|position| position < 40_000), "{position:?}");
}

#[test]
fn an_urgent_message_waits_for_one_fragment_at_most() {
    let mut lanes = lanes(10, 32 << 20);
    offer(&mut lanes, Lane::Bulk, 16 << 20, false, 1).expect("room");
    for _ in 0..50 {
        pop(&mut lanes);
    }
    offer(&mut lanes, Lane::High, 128, false, 2).expect("room");
    assert_eq!(pop(&mut lanes).map(|(fragment, guard)| (fragment.flow.lane, guard)), Some((Lane::High, Some(2))));
}

#[test]
fn channels_take_turns_and_keep_their_own_order() {
    let mut lanes = lanes(100, 1 << 20);
    for (channel, guard) in [(1, 10), (1, 11), (1, 12), (2, 20), (2, 21), (3, 30)] {
        offer_on(&mut lanes, flow(channel, Lane::Normal), 100, false, guard).expect("room");
    }
    assert_eq!(drain(&mut lanes), [10, 20, 30, 11, 21, 12]);
}

#[test]
fn a_flow_without_credit_waits_and_holds_up_nobody_else() {
    let mut lanes = lanes(100, 1 << 20);
    lanes.require_credit(3);
    let flows = [flow(1, Lane::Normal), flow(2, Lane::Normal), flow(1, Lane::High)];
    let used = flows.map(|flow| used_up(&mut lanes, flow));
    for channel in [1, 2] {
        for n in 0..3 {
            offer_on(&mut lanes, flow(channel, Lane::Normal), 100, false, u32::from(channel) * 10 + n).expect("room");
        }
    }
    offer(&mut lanes, Lane::High, 1, false, 99).expect("room");
    assert_eq!(drain(&mut lanes), [], "nothing is granted yet");
    lanes.grant(flow(2, Lane::Normal), used[1] + 2 * (100 + MESSAGE_COST));
    assert_eq!(drain(&mut lanes), [20, 21], "two messages' worth");
    lanes.grant(flow(1, Lane::High), used[2] + 1 + MESSAGE_COST);
    assert_eq!(drain(&mut lanes), [99], "lanes have their own");
    lanes.grant(flow(2, Lane::Normal), 10);
    assert_eq!(drain(&mut lanes), [], "a lower limit counts for nothing");
    lanes.grant(flow(1, Lane::Normal), u64::MAX);
    assert_eq!(drain(&mut lanes), [10, 11, 12]);
}

#[test]
fn a_large_message_goes_as_far_as_its_credit_and_on_from_there() {
    let mut lanes = lanes(100, 1 << 20);
    lanes.require_credit(3);
    let flow = flow(1, Lane::Bulk);
    let used = used_up(&mut lanes, flow);
    offer(&mut lanes, Lane::Bulk, 50_000, false, 1).expect("room");
    lanes.grant(flow, used + MESSAGE_COST + 20_000);
    let sent = |lanes: &mut Lanes<u32>| -> usize {
        std::iter::from_fn(|| pop(lanes)).map(|(fragment, _)| fragment.payload.len()).sum()
    };
    assert_eq!(sent(&mut lanes), 20_000);
    lanes.grant(flow, used + MESSAGE_COST + 20_100);
    assert_eq!(sent(&mut lanes), 0, "a sliver waits for more");
    lanes.grant(flow, used + MESSAGE_COST + 50_000);
    assert_eq!(sent(&mut lanes), 30_000);
    assert!(lanes.is_empty());
}

#[test]
fn credit_can_be_taken_back_only_where_it_was_not_used() {
    let mut lanes = lanes(100, 1 << 20);
    lanes.require_credit(3);
    let flow = flow(1, Lane::Normal);
    lanes.grant(flow, 100_000);
    offer(&mut lanes, Lane::Normal, 1000, false, 1).expect("room");
    assert_eq!(drain(&mut lanes), [1]);
    assert_eq!(lanes.reclaim(flow, 5000), 5000);
    assert_eq!(lanes.reclaim(flow, 10), 1000 + MESSAGE_COST, "what was sent was sent");
    assert_eq!(lanes.reclaim(flow, 9999), 1000 + MESSAGE_COST, "and taking back never gives");
}

#[test]
fn a_message_that_waited_too_long_does_not_go_out() {
    let mut lanes = lanes(100, 1 << 20);
    let at = |seconds| Duration::from_secs(seconds);
    for (guard, expires) in [(1, Some(at(1))), (2, Some(at(3))), (3, None)] {
        let payload = Bytes::from_static(b"x");
        let flow = flow(1, Lane::High);
        assert!(lanes.offer(Offer { flow, payload, expires, drop_oldest: false, guard }).is_ok());
    }
    let popped = lanes.pop(Time::ZERO + at(2), 99).and_then(|(_, guard)| guard);
    assert_eq!((popped, lanes.take_expired()), (Some(2), vec![1]));
    assert_eq!(lanes.pop(Time::ZERO + at(99), 99).and_then(|(_, guard)| guard), Some(3));
    assert!(lanes.is_empty() && lanes.waiting_bytes() == 0);
}

proptest! {
    #[test]
    fn every_accepted_message_is_popped_or_dropped_once(
        ops in proptest::collection::vec((0usize..4, 0usize..60_000, any::<bool>(), 0usize..4, 1u16..3, 0u64..90_000), 1..80),
        credited: bool,
    ) {
        let mut lanes = lanes(6, 100_000);
        if credited {
            lanes.require_credit(3);
        }
        let mut ended = Vec::new();
        let mut granted = 0;
        for (n, (lane, len, drop_oldest, pops, channel, credit)) in ops.iter().enumerate() {
            let flow = flow(*channel, Lane::ALL[*lane]);
            let expires = (len % 3 == 0).then(|| Duration::from_secs(n as u64 + 5));
            let payload = Bytes::from(vec![0; *len]);
            match lanes.offer(Offer { flow, payload, expires, drop_oldest: *drop_oldest, guard: n as u32 }) {
                Ok(dropped) => ended.extend(dropped),
                Err(refused) => ended.push(refused.guard),
            }
            granted += credit;
            lanes.grant(flow, granted);
            for _ in 0..*pops {
                ended.extend(lanes.pop(Time::ZERO + Duration::from_secs(n as u64), 50_000).and_then(|(_, guard)| guard));
            }
            ended.extend(lanes.take_expired());
        }
        ended.extend(lanes.clear());
        ended.sort_unstable();
        prop_assert_eq!(ended, (0..ops.len() as u32).collect::<Vec<_>>());
        prop_assert_eq!(lanes.waiting_bytes(), 0);
    }
}
