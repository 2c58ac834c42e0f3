//! What peers gain and lose, and what they cannot gain or lose by coming and going.

mod properties;

use std::time::Duration;

use super::*;

const S: SessionId = SessionId(1);

fn at(second: u64) -> Time {
    Time::ZERO + Duration::from_secs(second)
}

fn topic(n: usize) -> Topic {
    Topic::new(&format!("topic {n}")).expect("short")
}

fn node(n: u8) -> NodeId {
    NodeId::from_bytes([n; 32])
}

fn ip(text: &str) -> Option<IpAddr> {
    Some(text.parse().expect("address"))
}

fn scores() -> Scores {
    with(|_| {})
}

/// Scores with one peer, session 1 of node 1.
fn with(change: impl Fn(&mut ScoreConfig)) -> Scores {
    let mut config = ScoreConfig::recommended();
    change(&mut config);
    assert_eq!(config.validate(), Ok(()));
    let mut scores = Scores::new(config);
    scores.up(at(0), S, node(1), None);
    scores
}

fn rejoin(scores: &mut Scores, now: Time) {
    scores.down(now, S);
    scores.up(now, S, node(1), None);
}

fn points(points: i64) -> i64 {
    points * POINT
}

#[test]
fn time_in_meshes_gives_a_point_in_an_hour_and_no_more_in_ten_topics() {
    let mut scores = scores();
    (0..10).for_each(|n| scores.grafted(at(0), S, &topic(n)));
    assert_eq!(scores.score(at(35), S), 0);
    assert_eq!(scores.score(at(36), S), 10 * 10);
    assert_eq!(scores.score(at(100_000), S), POINT);
    assert!(scores.score(at(100_000), S) < scores.config().opportunistic_graft);
    assert_eq!(scores.explain_topic(at(36), S, &topic(3)).in_mesh, 10);
    (0..10).for_each(|n| scores.pruned(at(100_000), S, &topic(n)));
    assert_eq!(scores.score(at(100_000), S), 0);
}

#[test]
fn who_delivers_first_is_worth_more_up_to_a_cap_and_half_of_it_after_ninety_seconds() {
    let mut scores = scores();
    scores.first(S, &topic(0));
    assert_eq!(scores.score(at(0), S), points(1));
    (0..1_000).for_each(|_| scores.first(S, &topic(0)));
    assert_eq!(scores.score(at(0), S), points(40));
    (0..1_000).for_each(|_| scores.first(S, &topic(1)));
    assert_eq!(scores.score(at(0), S), points(50), "all topics together");
    scores.down(at(0), S);
    scores.up(at(0), S, node(1), None);
    (0..40).for_each(|_| scores.first(S, &topic(0)));
    scores.tick(at(90));
    assert!((19_000..=21_000).contains(&scores.score(at(90), S)), "{}", scores.score(at(90), S));
    scores.tick(at(7_200));
    assert_eq!(scores.score(at(7_200), S), 0);
}

#[test]
fn credit_above_the_cap_does_not_pay_for_invalid_messages() {
    let mut scores = scores();
    (0..10).for_each(|n| (0..100).for_each(|_| scores.first(S, &topic(n))));
    scores.invalid(at(0), S, &topic(0));
    assert_eq!(scores.score(at(0), S), points(50 - 20));
    (0..3).for_each(|_| scores.invalid(at(0), S, &topic(0)));
    assert!(scores.standing(S) < scores.config().graylist, "four are enough");
}

#[test]
fn three_invalid_messages_do_not_graylist_and_an_hour_heals() {
    let mut scores = scores();
    (0..3).for_each(|_| scores.invalid(at(0), S, &topic(0)));
    assert_eq!(scores.standing(S), points(-180));
    assert!(scores.standing(S) > scores.config().graylist);
    scores.tick(at(3_600));
    assert!(scores.standing(S) > points(-1), "{}", scores.standing(S));
}

#[test]
fn a_few_broken_promises_cost_nothing_and_ten_cost_the_mesh_and_repair() {
    let mut scores = scores();
    (0..6).for_each(|_| scores.behaved_badly(at(0), S, POINT));
    assert_eq!(scores.score(at(0), S), 0);
    scores.behaved_badly(at(0), S, POINT);
    assert_eq!(scores.score(at(0), S), points(-10));
    (0..3).for_each(|_| scores.behaved_badly(at(0), S, POINT));
    assert!(scores.standing(S) < scores.config().publish);
    scores.behaved_badly(at(0), S, i64::MIN);
    scores.behaved_badly(at(0), S, i64::MAX);
    assert!(scores.standing(S) < points(-1_000_000), "and no sum overflows");
}

#[test]
fn a_slow_reader_leaves_the_mesh_but_keeps_repair_and_is_forgiven_within_minutes() {
    let mut scores = scores();
    (0..10_000).for_each(|_| scores.slow(at(0), S));
    assert_eq!(scores.score(at(0), S), points(-30));
    assert!(scores.score(at(0), S) > scores.config().gossip);
    scores.tick(at(180));
    assert!(scores.score(at(180), S) > points(-1));
}

#[test]
fn nodes_of_one_site_pay_for_each_other_and_those_of_a_local_network_do_not() {
    let mut scores = with(|_| {});
    for n in 2..10 {
        scores.up(at(0), SessionId(n), node(n as u8), ip(&format!("192.0.2.{n}")));
    }
    scores.tick(at(1));
    assert_eq!(scores.standing(SessionId(2)), points(-2 * 16), "eight, and four are free");
    assert_eq!(scores.standing(S), 0, "it is not there");
    (2..6).for_each(|n| scores.down(at(2), SessionId(n)));
    assert_eq!(scores.score(at(2), SessionId(9)), 0);
    for n in 20..24 {
        scores.up(at(3), SessionId(n), node(n as u8), ip("2001:db8::1"));
        scores.up(at(3), SessionId(n + 100), node(n as u8 + 100), ip("127.0.0.1"));
        scores.up(at(3), SessionId(n + 200), node(n as u8 + 50), ip("10.0.0.1"));
    }
    assert_eq!(scores.explain(at(3), SessionId(20)).crowd, points(-2 * 4), "four on a host, and two are free");
    assert_eq!((scores.score(at(3), SessionId(120)), scores.score(at(3), SessionId(220))), (0, 0));
}

/// The server admits four inbound sessions of a host and eight of a site.
#[test]
fn the_crowd_that_admission_allows_keeps_repair() {
    let mut scores = scores();
    for n in 2..10u64 {
        scores.up(at(0), SessionId(n), node(n as u8), ip(&format!("192.0.2.{}", n / 4)));
    }
    let worst = (2..10).map(|n| scores.score(at(0), SessionId(n))).min().expect("eight");
    assert!(worst <= points(-32) && worst > scores.config().gossip, "{worst}");
}

#[test]
fn a_node_with_two_sessions_is_one_node() {
    let mut scores = scores();
    for session in [2, 3, 4, 5] {
        scores.up(at(0), SessionId(session), node(9), ip("192.0.2.1"));
    }
    scores.grafted(at(0), SessionId(2), &topic(0));
    scores.grafted(at(5), SessionId(3), &topic(0));
    scores.invalid(at(10), SessionId(4), &topic(0));
    assert_eq!(scores.score(at(10), SessionId(5)), points(-20), "no crowd, and one slate");
    scores.pruned(at(72), SessionId(3), &topic(0));
    assert_eq!(scores.explain(at(72), SessionId(3)).in_mesh, 20, "it is in with the other session");
    scores.down(at(72), SessionId(2));
    assert_eq!(scores.explain(at(72), SessionId(3)).in_mesh, 0);
    assert_eq!(scores.len(), (2, 0), "its other sessions are up");
}

#[test]
fn what_a_node_did_wrong_waits_for_it_and_what_it_did_well_does_not() {
    let mut scores = scores();
    scores.grafted(at(0), S, &topic(0));
    (0..100).for_each(|_| scores.first(S, &topic(0)));
    scores.invalid(at(0), S, &topic(0));
    assert!(scores.score(at(0), S) > 0, "in gossipsub it would be forgotten altogether");
    scores.down(at(0), S);
    assert_eq!(scores.retained(&node(1)), Some(points(-20)));
    scores.tick(at(3_000));
    scores.up(at(3_000), S, node(1), None);
    assert_eq!(scores.score(at(3_000), S), points(-20), "and time heals only who is here");
    scores.down(at(3_000), S);
    scores.tick(at(6_601));
    assert!(scores.retained(&node(1)).is_none(), "forgotten");
}

#[test]
fn promises_broken_below_the_threshold_are_remembered_too() {
    let mut scores = scores();
    for _ in 0..4 {
        (0..3).for_each(|_| scores.behaved_badly(at(0), S, POINT));
        rejoin(&mut scores, at(0));
    }
    assert_eq!(scores.score(at(0), S), points(-10 * 36), "twelve, and six are free");
}

#[test]
fn wrongs_on_many_topics_are_remembered_in_little_room_and_cost_as_much() {
    let mut scores = scores();
    for n in 0..50 {
        (0..=n % 3).for_each(|_| scores.invalid(at(0), S, &topic(n)));
    }
    let before = scores.score(at(0), S);
    rejoin(&mut scores, at(0));
    assert_eq!(scores.score(at(0), S), before);
    assert_eq!(scores.nodes.values().map(|record| record.topics()).max(), Some(8));
}

#[test]
fn topics_beyond_the_limit_are_counted_together() {
    let mut scores = with(|config| config.max_topics = 2);
    for n in 0..50 {
        scores.grafted(at(0), S, &topic(n));
        scores.first(S, &topic(n));
        scores.invalid(at(0), S, &topic(n));
    }
    assert_eq!((scores.nodes.values().map(|record| record.topics()).max(), scores.carried.len()), (Some(2), 2));
    assert_eq!(scores.explain(at(0), S).invalid, points(-20 * (1 + 1 + 48 * 48)), "together is not less");
}

#[test]
fn the_mildest_gives_way_when_there_is_no_room_to_remember() {
    let mut scores = with(|config| config.retained = 3);
    for n in 2..100u8 {
        let session = SessionId(u64::from(n));
        scores.up(at(0), session, node(n), None);
        (0..if n == 50 { 9 } else { 2 }).for_each(|_| scores.invalid(at(0), session, &topic(0)));
        scores.down(at(0), session);
    }
    assert_eq!(scores.len(), (1, 3));
    assert_eq!(scores.retained(&node(50)), Some(points(-20 * 81)));
    assert!(scores.retained(&node(4)).is_some(), "those that are no worse do not flush it out");
}

#[test]
fn what_the_application_says_counts_up_to_its_cap_and_a_bad_word_waits_for_the_node() {
    let mut scores = scores();
    scores.application(at(0), node(1), i64::MAX);
    assert_eq!(scores.score(at(0), S), points(1_000));
    rejoin(&mut scores, at(0));
    assert_eq!(scores.score(at(0), S), 0, "it can say so again");
    scores.application(at(0), node(2), i64::MIN);
    scores.application(at(0), node(3), points(10));
    assert_eq!((scores.retained(&node(2)), scores.retained(&node(3))), (Some(points(-1_000)), None));
    scores.up(at(1), SessionId(2), node(2), None);
    assert!(scores.standing(SessionId(2)) < scores.config().graylist);
    scores.down(at(1), SessionId(2));
    scores.application(at(2), node(2), 0);
    assert_eq!(scores.len(), (1, 0), "taken back");
}

fn silent(cost: i64) -> Scores {
    with(|config| config.topic.silence_cost = cost)
}

/// A mesh of the silent peer 1 and a busy one, which delivers `rate` messages a second for two minutes.
fn two_minutes(scores: &mut Scores, rate: u64) {
    scores.up(at(0), SessionId(2), node(2), None);
    scores.grafted(at(0), S, &topic(0));
    scores.grafted(at(0), SessionId(2), &topic(0));
    for second in 1..=120 {
        (0..rate).for_each(|_| scores.first(SessionId(2), &topic(0)));
        scores.tick(at(second));
    }
}

#[test]
fn silence_costs_nothing_by_default() {
    let mut scores = scores();
    two_minutes(&mut scores, 100);
    assert_eq!(scores.explain(at(120), S).silence, 0);
}

#[test]
fn silence_costs_the_same_on_a_slow_and_on_a_fast_topic_and_nothing_on_a_quiet_one() {
    for (rate, cost) in [(0, 0), (1, 0), (10, points(-30)), (1_000, points(-30))] {
        let mut scores = silent(points(30));
        two_minutes(&mut scores, rate);
        assert_eq!(scores.explain(at(120), S).silence, cost, "{rate} a second");
        assert_eq!(scores.explain(at(120), SessionId(2)).silence, 0, "{rate} a second");
    }
}

#[test]
fn a_small_share_is_enough_and_half_of_it_costs_a_quarter() {
    for (every, cost) in [(20, 0), (40, -7_500)] {
        let mut scores = silent(points(30));
        scores.up(at(0), SessionId(2), node(2), None);
        scores.grafted(at(0), S, &topic(0));
        for second in 1..=120 {
            for n in 0..200 {
                scores.first(SessionId(2), &topic(0));
                if n % every == 0 {
                    scores.near_first(S, &topic(0));
                }
            }
            scores.tick(at(second));
        }
        let silence = scores.explain(at(120), S).silence;
        assert!((silence - cost).abs() < 100, "{silence} with one in {every}");
    }
}

#[test]
fn a_newcomer_owes_nothing_of_what_came_before_it_and_nothing_at_first() {
    let mut scores = silent(points(30));
    two_minutes(&mut scores, 100);
    scores.up(at(120), SessionId(3), node(3), None);
    scores.grafted(at(120), SessionId(3), &topic(0));
    (0..1_000).for_each(|_| scores.first(SessionId(2), &topic(0)));
    assert_eq!(scores.explain(at(179), SessionId(3)).silence, 0);
    assert_eq!(scores.explain(at(180), SessionId(3)).silence, points(-30));
}

#[test]
fn a_debt_stays_when_the_mesh_is_left_by_whatever_door() {
    let mut scores = silent(points(30));
    two_minutes(&mut scores, 100);
    let before = scores.score(at(120), S) - scores.explain(at(120), S).in_mesh;
    scores.pruned(at(120), S, &topic(0));
    assert_eq!((scores.score(at(120), S), scores.explain(at(120), S).debt), (before, points(-30)));
    let mut scores = silent(points(30));
    two_minutes(&mut scores, 100);
    rejoin(&mut scores, at(120));
    assert_eq!(scores.score(at(120), S), before);
}

#[test]
fn a_topic_counts_as_it_is_configured() {
    let mut scores = with(|config| {
        let scoring = TopicScoring { first_reward: 100, invalid_cost: points(100), ..TopicScoring::recommended() };
        config.topics.insert(topic(7), scoring);
    });
    scores.first(S, &topic(7));
    assert_eq!(scores.score(at(0), S), 100);
    scores.invalid(at(0), S, &topic(7));
    assert_eq!(scores.score(at(0), S), 100 - points(100));
    assert_eq!(scores.explain_topic(at(0), S, &topic(1)), Breakdown::default(), "another topic");
}

#[test]
fn an_explanation_names_each_part_and_adds_up() {
    let mut scores = scores();
    scores.grafted(at(0), S, &topic(0));
    scores.first(S, &topic(0));
    scores.invalid(at(0), S, &topic(0));
    scores.slow(at(0), S);
    let why = scores.explain(at(36), S);
    assert_eq!(why.to_string(), "-19.990: in mesh 0.010, firsts 1.000, invalid -20.000, slow -1.000");
    assert_eq!(scores.explain(at(0), SessionId(99)).to_string(), "0.000", "not up");
}

#[test]
fn sessions_that_are_not_up_change_nothing() {
    let mut scores = scores();
    let late = SessionId(77);
    scores.grafted(at(0), late, &topic(0));
    scores.pruned(at(0), late, &topic(0));
    scores.first(late, &topic(0));
    scores.near_first(late, &topic(0));
    scores.invalid(at(0), late, &topic(0));
    scores.behaved_badly(at(0), late, POINT);
    scores.slow(at(0), late);
    scores.down(at(0), late);
    assert_eq!((scores.len(), scores.score(at(0), late), scores.standing(late)), ((1, 0), 0, 0));
    assert!(scores.carried.is_empty());
}
