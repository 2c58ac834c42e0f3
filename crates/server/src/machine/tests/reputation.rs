//! Blame and bans.

use super::*;

const MISBEHAVED: DisconnectReason = DisconnectReason::Misbehaved;
const BAN: Duration = Duration::from_secs(300);

fn banned(n: u8) -> Out {
    Out::Banned(Banned::Id(node(n)), BAN)
}

#[test]
fn penalties_add_up_to_a_ban_that_ends() {
    let mut world = World::new(10);
    let session = world.add(meta(1, Inbound)).expect("free");
    assert_eq!(
        world.input(In::Report(session, Penalty::InvalidMessage)),
        [Out::Blamed(node(1), Penalty::InvalidMessage, 50)]
    );
    let outs = world.deeds(In::Report(session, Penalty::InvalidMessage));
    assert_eq!(outs, [Out::Disconnect(session, MISBEHAVED), banned(1)]);
    assert_eq!(world.input(In::Report(session, Penalty::InvalidMessage)), [], "it is being ended already");
    world.input(In::Ended(session, Ended { reason: MISBEHAVED, by: EndedBy::Us }));
    assert_eq!(world.add(meta(1, Inbound)), Err(DisconnectReason::Banned));
    assert_eq!(world.wait(BAN), [Out::Unbanned(Banned::Id(node(1)))]);
    assert!(world.add(meta(1, Inbound)).is_ok());
    assert_eq!(world.driver.machine().bans().count(), 0);
}

#[test]
fn blame_outlasts_a_session_and_fades_with_time() {
    let idle = Ended { reason: DisconnectReason::Idle, by: EndedBy::Peer };
    let mut world = World::new(10);
    let first = world.add(meta(1, Inbound)).expect("free");
    world.input(In::Report(first, Penalty::MalformedMessage));
    world.input(In::Ended(first, idle));
    let second = world.add(meta(1, Inbound)).expect("free");
    let outs = world.deeds(In::Report(second, Penalty::MalformedMessage));
    assert_eq!(outs, [Out::Disconnect(second, MISBEHAVED), banned(1)]);

    let gone = world.add(meta(2, Inbound)).expect("free");
    world.input(In::Ended(gone, idle));
    assert_eq!(world.deeds(In::Report(gone, Penalty::Crash)), [banned(2)], "hanging up does not help");

    let third = world.add(meta(3, Inbound)).expect("free");
    world.input(In::Report(third, Penalty::MalformedMessage));
    world.wait(Duration::from_secs(1200));
    let outs = world.input(In::Report(third, Penalty::MalformedMessage));
    assert_eq!(outs, [Out::Blamed(node(3), Penalty::MalformedMessage, 62)], "after two half-lives a quarter is left");
}

#[test]
fn a_peer_is_dropped_before_it_is_banned_and_may_come_back() {
    let mut world =
        World::with(Config { reputation: Reputation { control_flood: 28, ..Reputation::recommended() }, ..config() });
    let session = world.add(meta(1, Inbound)).expect("free");
    let flood = In::Report(session, Penalty::ControlFlood);
    assert_eq!(world.deeds(flood.clone()), []);
    assert_eq!(world.deeds(flood.clone()), []);
    assert_eq!(world.deeds(flood.clone()), [Out::Disconnect(session, MISBEHAVED)]);
    world.input(In::Ended(session, Ended { reason: MISBEHAVED, by: EndedBy::Us }));
    let again = world.add(meta(1, Inbound)).expect("it is not banned");
    assert_eq!(
        world.deeds(In::Report(again, Penalty::ControlFlood)),
        [Out::Disconnect(again, MISBEHAVED), banned(1)],
        "and has little left to lose"
    );
}

/// Points fade from the first moment on: two offences a minute apart are a little less than twice one.
#[test]
fn a_second_offence_a_minute_later_bans() {
    let mut world = World::new(10);
    let session = world.add(meta(1, Inbound)).expect("free");
    world.input(In::Report(session, Penalty::InvalidMessage));
    world.wait(Duration::from_secs(60));
    let outs = world.deeds(In::Report(session, Penalty::InvalidMessage));
    assert_eq!(outs, [Out::Disconnect(session, MISBEHAVED), banned(1)]);
}

#[test]
fn a_trusted_peer_can_be_dropped_and_never_banned() {
    let mut world = World::new(10);
    world.input(In::AddTrusted(node(1)));
    let session = world.add(meta(1, Inbound)).expect("free");
    for _ in 0..9 {
        let outs = world.input(In::Report(session, Penalty::Crash));
        assert!(!outs.contains(&banned(1)));
    }
    world.input(In::Ended(session, Ended { reason: MISBEHAVED, by: EndedBy::Us }));
    assert!(world.add(meta(1, Inbound)).is_ok());
    assert_eq!(world.driver.machine().blame_of(world.now, &node(1)), 89);
    world.input(In::RemoveTrusted(node(1)));
    assert!(world.input(In::Blame(node(1), Penalty::ControlFlood)).contains(&banned(1)), "not for ever");
}

#[test]
fn a_session_that_broke_the_protocol_is_blamed_and_one_that_says_so_of_us_is_not() {
    let mut world = World::new(10);
    for (n, by, points) in [(1, EndedBy::Us, 50), (2, EndedBy::Peer, 0), (3, EndedBy::Network, 0)] {
        let session = world.add(meta(n, Inbound)).expect("free");
        world.input(In::Ended(session, Ended { reason: DisconnectReason::ProtocolError, by }));
        assert_eq!(world.driver.machine().blame_of(world.now, &node(n)), points, "{by:?}");
    }
    let session = world.add(meta(4, Inbound)).expect("free");
    let crashed = Ended { reason: DisconnectReason::Crashed, by: EndedBy::Us };
    assert_eq!(world.deeds(In::Ended(session, crashed)), [], "it may have been our own fault");
    let session = world.add(meta(4, Inbound)).expect("free");
    assert_eq!(world.deeds(In::Ended(session, crashed)), [banned(4)], "hardly twice");
}

#[test]
fn many_banned_identities_of_one_host_get_the_host_banned_unless_a_friend_lives_there() {
    let at = |n: u8, ip: [u8; 4]| Meta { ip: ip.into(), ..meta(n, Inbound) };
    let mut world = World::new(50);
    let crash = |world: &mut World, meta: Meta| {
        let session = world.add(meta).expect("not banned yet");
        world.input(In::Ended(session, Ended { reason: DisconnectReason::Requested, by: EndedBy::Peer }));
        world.deeds(In::Report(session, Penalty::Crash))
    };
    let host = [20, 1, 1, 1];
    for n in 1..=3 {
        assert_eq!(crash(&mut world, at(n, host)), [banned(n)]);
    }
    let network = Banned::Network("20.1.1.1/32".parse().expect("network"));
    assert_eq!(crash(&mut world, at(4, host)), [banned(4), Out::Banned(network, BAN)]);
    assert_eq!(world.add(at(5, host)), Err(DisconnectReason::Banned));
    assert!(!world.driver.machine().admission().permits_ip(host.into()), "the listener need not ask the root");
    assert!(world.add(at(6, [20, 1, 1, 2])).is_ok(), "its neighbour is not it");

    let shared = [20, 2, 2, 2];
    world.input(In::AddTrusted(node(20)));
    world.add(at(20, shared)).expect("free");
    for n in 21..=29 {
        assert_eq!(crash(&mut world, at(n, shared)), [banned(n)]);
    }
    for n in 31..=39 {
        assert_eq!(crash(&mut world, at(n, [127, 0, 0, 1])), [banned(n)], "local hosts are exempt");
    }
    world.wait(BAN);
    assert!(world.add(at(5, host)).is_ok() && world.driver.machine().admission().denied.is_empty());
}

#[test]
fn bans_by_hand_end_what_they_name_and_survive_as_told() {
    let network = Banned::Network("20.0.0.0/16".parse().expect("network"));
    let mut world = World::new(10);
    let first = world.add(meta(1, Inbound)).expect("free");
    let other = world.add(Meta { ip: [21, 0, 0, 1].into(), ..meta(2, Inbound) }).expect("free");
    let hour = Duration::from_secs(3600);
    let outs = world.deeds(In::Ban(network, hour));
    assert_eq!(outs, [Out::Banned(network, hour), Out::Disconnect(first, DisconnectReason::Banned)]);
    assert_eq!(world.deeds(In::Ban(network, BAN)), [], "a shorter ban changes nothing");
    assert_eq!(world.deeds(In::Unban(network)), [Out::Unbanned(network)]);
    assert_eq!(world.deeds(In::Unban(network)), []);
    let outs = world.deeds(In::Ban(Banned::Id(node(2)), hour));
    assert_eq!(outs, [Out::Banned(Banned::Id(node(2)), hour), Out::Disconnect(other, DisconnectReason::Banned)]);

    let mut next = World::new(10);
    let restored =
        Restored { bans: vec![(Banned::Id(node(2)), hour)], blame: vec![(node(3), 90)], ..Restored::default() };
    next.input(In::Restore(restored));
    assert_eq!(next.add(meta(2, Inbound)), Err(DisconnectReason::Banned));
    let third = next.add(meta(3, Inbound)).expect("free");
    assert!(next.deeds(In::Report(third, Penalty::InvalidMessage)).contains(&banned(3)), "the slate was kept");
    assert!(next.wait(hour).contains(&Out::Unbanned(Banned::Id(node(2)))));
}

#[test]
fn what_is_remembered_of_the_blamed_and_banned_is_bounded() {
    let mut world = World::new(10);
    let id = |n: u32| {
        NodeId::from_bytes(
            [n.to_be_bytes(), [9; 4], [9; 4], [9; 4], [9; 4], [9; 4], [9; 4], [9; 4]].concat().try_into().expect("32"),
        )
    };
    world.input(In::Blame(id(0), Penalty::InvalidMessage));
    for n in 1..5_000 {
        world.input(In::Blame(id(n), Penalty::ControlFlood));
        world.input(In::Ban(Banned::Id(id(10_000 + n)), BAN + Duration::from_secs(u64::from(n))));
    }
    let machine = world.driver.machine();
    assert_eq!(machine.blame_of(world.now, &id(0)), 50, "small blame does not push out great");
    assert_eq!(machine.bans().count(), 4096);
    assert!(machine.bans().all(|(banned, _)| banned != Banned::Id(id(10_001))), "who would be free soonest is");
    let brief = In::Ban(Banned::Id(id(1)), Duration::from_secs(1));
    assert_eq!(world.deeds(brief), [], "a shorter ban does not push out a longer one");
}
