//! What holds whatever peers do.

use proptest::prelude::*;

use super::*;

#[derive(Clone, Debug)]
enum Act {
    Up(u8, u8, u8),
    Down(u8),
    Graft(u8, u8),
    Prune(u8, u8),
    First(u8, u8),
    NearFirst(u8, u8),
    Invalid(u8, u8),
    Bad(u8, i64),
    Slow(u8),
    Application(u8, i64),
    Wait(u16),
}

fn act() -> impl Strategy<Value = Act> {
    let session = 0..12u8;
    let topic = 0..6u8;
    prop_oneof![
        3 => (session.clone(), 0..8u8, 0..4u8).prop_map(|(s, n, ip)| Act::Up(s, n, ip)),
        2 => session.clone().prop_map(Act::Down),
        2 => (session.clone(), topic.clone()).prop_map(|(s, t)| Act::Graft(s, t)),
        1 => (session.clone(), topic.clone()).prop_map(|(s, t)| Act::Prune(s, t)),
        6 => (session.clone(), topic.clone()).prop_map(|(s, t)| Act::First(s, t)),
        3 => (session.clone(), topic.clone()).prop_map(|(s, t)| Act::NearFirst(s, t)),
        2 => (session.clone(), topic).prop_map(|(s, t)| Act::Invalid(s, t)),
        2 => (session.clone(), any::<i64>().prop_map(|n| n >> 40)).prop_map(|(s, n)| Act::Bad(s, n)),
        2 => session.prop_map(Act::Slow),
        1 => (0..8u8, any::<i64>()).prop_map(|(n, v)| Act::Application(n, v)),
        4 => (0..500u16).prop_map(Act::Wait),
    ]
}

fn config(retained: usize) -> ScoreConfig {
    let mut config = ScoreConfig { max_topics: 4, retained, ..ScoreConfig::recommended() };
    config.topic.silence_cost = 30 * POINT;
    config.topic.silence_least = 3 * POINT;
    config
}

fn perform(scores: &mut Scores, now: &mut u64, act: &Act) {
    let session = |s: u8| SessionId(u64::from(s));
    let topic = |t: u8| topic(usize::from(t));
    let time = at(*now);
    match *act {
        Act::Up(s, n, last) => scores.up(time, session(s), node(n), ip(&format!("192.0.2.{last}"))),
        Act::Down(s) => scores.down(time, session(s)),
        Act::Graft(s, t) => scores.grafted(time, session(s), &topic(t)),
        Act::Prune(s, t) => scores.pruned(time, session(s), &topic(t)),
        Act::First(s, t) => scores.first(session(s), &topic(t)),
        Act::NearFirst(s, t) => scores.near_first(session(s), &topic(t)),
        Act::Invalid(s, t) => scores.invalid(time, session(s), &topic(t)),
        Act::Bad(s, n) => scores.behaved_badly(time, session(s), n),
        Act::Slow(s) => scores.slow(time, session(s)),
        Act::Application(n, v) => scores.application(time, node(n), v),
        Act::Wait(seconds) => {
            *now += u64::from(seconds);
            scores.tick(at(*now));
        }
    }
}

fn run(acts: &[Act], retained: usize) -> (Scores, u64) {
    let (mut scores, mut now) = (Scores::new(config(retained)), 1);
    acts.iter().for_each(|act| perform(&mut scores, &mut now, act));
    (scores, now)
}

proptest! {
    #[test]
    fn memory_and_credit_are_bounded_and_the_parts_add_up(acts in proptest::collection::vec(act(), 0..200)) {
        let (scores, now) = run(&acts, 3);
        let config = scores.config();
        let most = config.topic_cap + config.application_cap;
        for session in scores.sessions.keys() {
            let why = scores.explain(at(now), *session);
            prop_assert!(why.score <= most);
            prop_assert!(why.in_mesh >= 0 && why.firsts >= 0 && why.in_mesh + why.firsts <= config.topic_cap);
            let costs = [why.silence, why.debt, why.invalid, why.crowd, why.behaviour, why.slow];
            prop_assert!(costs.iter().all(|cost| *cost <= 0));
            prop_assert_eq!(why.score, why.in_mesh + why.firsts + why.application + costs.iter().sum::<i64>());
        }
        prop_assert!(scores.retained.len() <= 3 && scores.carried.len() <= 4);
        prop_assert!(scores.nodes.values().all(|record| record.topics() <= 4 && !record.sessions.is_empty()));
        let sessions: usize = scores.nodes.values().map(|record| record.sessions.len()).sum();
        prop_assert_eq!(sessions, scores.sessions.len());
        let standing = |seat: &Seat| scores.nodes.get(&seat.node).map(|record| record.standing);
        prop_assert!(scores.sessions.values().all(|seat| standing(seat) == Some(seat.standing)));
    }

    #[test]
    fn nobody_is_better_off_for_leaving_and_coming_back(
        acts in proptest::collection::vec(act(), 0..100),
        leaver in 0..12u8,
    ) {
        let (mut scores, now) = run(&acts, 8);
        let session = SessionId(u64::from(leaver));
        let Some(leaver) = scores.node(session) else { return Ok(()) };
        let sessions = scores.nodes.get(&leaver).map(|record| record.sessions.clone()).unwrap_or_default();
        let ip = sessions.iter().find(|(other, _)| *other == session).and_then(|(_, ip)| *ip);
        let before = scores.explain(at(now), session);
        scores.down(at(now), session);
        scores.up(at(now), session, leaver, ip);
        let after = scores.explain(at(now), session);
        prop_assert!(after.score - after.crowd <= before.score - before.crowd, "{} → {}", before, after);
    }

    #[test]
    fn time_alone_never_makes_anything_worse_and_in_the_end_all_is_forgotten(
        acts in proptest::collection::vec(act(), 0..100),
        pauses in proptest::collection::vec(1..5_000u64, 1..10),
    ) {
        let (mut scores, mut now) = run(&acts, 3);
        (0..12).for_each(|s| (0..6).for_each(|t| scores.pruned(at(now), SessionId(s), &topic(t))));
        let negative = |scores: &Scores, now| -> Vec<i64> {
            let whys = scores.sessions.keys().map(|session| scores.explain(at(now), *session));
            whys.map(|why| why.debt + why.invalid + why.behaviour + why.slow).collect()
        };
        let mut before = negative(&scores, now);
        for pause in pauses {
            now += pause;
            scores.tick(at(now));
            let after = negative(&scores, now);
            prop_assert!(after.iter().zip(&before).all(|(after, before)| after >= before));
            before = after;
        }
        now += 100 * 3_600;
        scores.tick(at(now));
        prop_assert!(negative(&scores, now).iter().all(|score| *score == 0));
        prop_assert!(scores.nodes.values().all(|record| record.topics() == 0));
        prop_assert!(scores.carried.is_empty() && scores.retained.len() == 0);
        (0..12).for_each(|s| scores.down(at(now), SessionId(s)));
        prop_assert!(scores.places.is_empty() && scores.sessions.is_empty() && scores.nodes.is_empty());
    }

    #[test]
    fn equal_acts_give_equal_scores(acts in proptest::collection::vec(act(), 0..100)) {
        let all = |(scores, now): (Scores, u64)| -> Vec<Breakdown> {
            scores.sessions.keys().map(|session| scores.explain(at(now), *session)).collect()
        };
        prop_assert_eq!(all(run(&acts, 3)), all(run(&acts, 3)));
    }
}
