//! What the transport owes its callers: one end for each question, and deadlines that no clock can move.

use std::collections::BTreeMap;

use super::*;

/// How many times each token was answered.
fn answered(outs: &[Out], counts: &mut BTreeMap<u64, usize>) {
    for out in outs {
        if let Out::Answer { token, .. } = out {
            *counts.entry(*token).or_default() += 1;
        }
    }
}

#[test]
fn two_hundred_questions_end_once_each_by_answer_or_by_time_out() {
    let peers: Vec<Peer> = (1..=20).map(Peer::new).collect();
    let mut solo = Solo::knowing(config(), &peers.iter().collect::<Vec<_>>());
    let mut counts = BTreeMap::new();
    for token in 0..200 {
        let peer = &peers[token as usize % peers.len()];
        let outs = solo.tell(In::Resolve { token, id: peer.id });
        answered(&outs, &mut counts);
        let question = requests(&outs).into_iter().find(|request| request.to == peer.id);
        // Every third is answered twice, every other third once, the rest never.
        for _ in 0..token % 3 {
            if let Some(question) = &question {
                answered(&solo.tell(peer.shows_record(question)), &mut counts);
            }
        }
        answered(&solo.pass(Duration::from_millis(7)), &mut counts);
    }
    answered(&solo.pass(Duration::from_secs(30)), &mut counts);
    assert_eq!(counts.len(), 200);
    assert!(counts.values().all(|count| *count == 1), "{counts:?}");
}

#[test]
fn a_wall_clock_that_jumps_either_way_neither_hurries_nor_delays_a_time_out() {
    for jump in [-86_400_i64, 86_400] {
        let boot = Peer::new(1);
        let mut solo = Solo::new(config(), &[&boot]);
        let request = only_request(&solo.tell(In::Start), Message::RecordRequest);
        let unix = solo.now.unix().as_secs().checked_add_signed(jump).expect("after 1970");
        solo.now = Time::new(solo.now.running(), Duration::from_secs(unix));
        let timed_out = |outs: &[Out]| outs.contains(&Out::Event(Event::Timeout));
        assert!(!timed_out(&solo.pass(Duration::from_millis(499))), "by {jump} s");
        // Its answer still counts, and tells of a node that entered.
        solo.tell(boot.shows_record(&request));
        assert!(solo.knows(&boot), "by {jump} s");
    }
}
