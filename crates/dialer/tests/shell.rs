//! The dialer as an actor, in virtual time.

use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use peerage_dialer::{Args, Attempt, Candidate, Cause, Config, DialOutcome, DialerMailbox, Out, StaticPeer, spawn};
use peerage_machine::journal::Journals;
use peerage_mailbox::{Child, Clock, Meter, Port, Supervisor};
use peerage_wire::{Admission, Keypair, NetworkId, NodeId, NodeRecord, RecordDraft, Verified};
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};
use tokio::time::Instant;

fn keys(n: u8) -> Keypair {
    Keypair::from_seed([n; 32])
}

fn node(n: u8) -> NodeId {
    keys(n).id()
}

fn record(n: u8) -> Verified<NodeRecord> {
    let address = format!("/ip4/192.0.2.{n}/tcp/30303").parse().expect("multiaddr");
    RecordDraft::new(1, NetworkId::named("test")).address(address).sign(&keys(n)).expect("fits")
}

fn found(n: u8) -> Candidate {
    (record(n), StaticPeer::from(&*record(n)).addresses)
}

fn friend() -> StaticPeer {
    StaticPeer::from(&*record(1))
}

async fn dialer(config: Config, clock: Clock) -> (DialerMailbox, Child, UnboundedReceiver<Out>) {
    let (send, outs) = unbounded_channel();
    let out = Port::from_fn(move |out| drop(send.send(out)));
    let args = Args { config, id: node(0), seed: 7, clock, meter: Meter::none(), journals: Journals::off(), out };
    let (mailbox, child) = spawn(args, &Supervisor::none()).await.expect("starts");
    (mailbox, child, outs)
}

/// The next thing asked for that is not candidates.
async fn next(outs: &mut UnboundedReceiver<Out>) -> Out {
    loop {
        match outs.recv().await.expect("the dialer lives") {
            Out::Want(_) => {}
            other => return other,
        }
    }
}

fn attempt_of(out: &Out) -> Attempt {
    match out {
        Out::Dial { attempt, .. } => *attempt,
        other => panic!("not a dial: {other:?}"),
    }
}

#[tokio::test(start_paused = true)]
async fn a_refused_static_peer_is_dialled_again_when_its_history_has_passed_and_nothing_else_happens() {
    let config = Config { max_dial_peers: 0, static_backoff: Config::local().static_backoff, ..Config::recommended() };
    let (dialer, _child, mut outs) = dialer(config, Clock::simulated(Duration::ZERO)).await;
    dialer.add_static(friend());
    dialer.start();
    let began = Instant::now();
    let first = attempt_of(&next(&mut outs).await);
    dialer.done(first, DialOutcome::HandshakeFailed(peerage_wire::DisconnectReason::TooManyPeers));
    let said = next(&mut outs).await;
    assert!(matches!(&said, Out::Seeking(Some(why)) if why.statics == 1), "{said:?}");
    let second = attempt_of(&next(&mut outs).await);
    assert!(second > first);
    let waited = began.elapsed();
    assert!(waited >= Duration::from_secs(35) && waited < Duration::from_secs(36), "{waited:?}");
}

#[tokio::test(start_paused = true)]
async fn candidates_are_dialled_as_they_come_and_asked_for_again_while_none_come() {
    let (dialer, _child, mut outs) = dialer(Config::local(), Clock::simulated(Duration::ZERO)).await;
    dialer.start();
    for _ in 0..3 {
        assert_eq!(outs.recv().await, Some(Out::Want(NonZeroU32::new(32).expect("not zero"))));
    }
    dialer.candidates([1, 2].map(found).to_vec());
    let dialled = [next(&mut outs).await, next(&mut outs).await];
    assert!(dialled.iter().all(|out| matches!(out, Out::Dial { target, .. } if !target.is_static)));
}

#[tokio::test(start_paused = true)]
async fn a_configuration_that_cannot_work_is_refused_in_words() {
    let config = Config { history: Duration::ZERO, ..Config::local() };
    let clock = Clock::simulated(Duration::ZERO);
    let args = Args {
        config,
        id: node(0),
        seed: 7,
        clock,
        meter: Meter::none(),
        journals: Journals::off(),
        out: Port::closed(),
    };
    let error = spawn(args, &Supervisor::none()).await.expect_err("no history").to_string();
    assert!(error.contains("history must be longer than zero"), "{error}");
}

#[cfg(feature = "fault-injection")]
#[tokio::test(start_paused = true)]
async fn a_restarted_dialer_does_not_take_answers_to_its_earlier_life_for_its_own() {
    let clock = Clock::simulated(Duration::ZERO);
    let (first, child, mut outs) = dialer(Config::local(), clock).await;
    first.add_static(friend());
    first.start();
    let old = attempt_of(&next(&mut outs).await);
    first.inject_panic();
    child.wait().await;
    tokio::time::sleep(Duration::from_millis(500)).await;

    let (second, _child, mut outs) = dialer(Config::local(), clock).await;
    second.peer_up(node(2), true);
    second.add_static(friend());
    second.start();
    let new = attempt_of(&next(&mut outs).await);
    assert!(new > old);
    // Were this taken for its own, the peer would be looked up now.
    second.done(old, DialOutcome::ConnectFailed);
    second.done(new, DialOutcome::Connected);
    second.candidates([2, 3].map(found).to_vec());
    let dialled = next(&mut outs).await;
    assert!(matches!(&dialled, Out::Dial { target, .. } if target.id == node(3)), "{dialled:?}");
}

#[tokio::test(start_paused = true)]
async fn what_the_root_says_reaches_the_machine_and_why_peers_are_missing_reaches_the_root() {
    let (dialer, _child, mut outs) = dialer(Config::recommended(), Clock::simulated(Duration::ZERO)).await;
    let denied = vec!["192.0.2.2/32".parse().expect("network")];
    dialer.set_admission(Arc::new(Admission { denied, ..Admission::open() }));
    dialer.anchors(vec![StaticPeer::from(&*record(2)), StaticPeer::from(&*record(3))]);
    dialer.bootnodes(vec![StaticPeer::from(&*record(4))]);
    dialer.start();
    let first = next(&mut outs).await;
    assert!(matches!(&first, Out::Dial { target, .. } if target.id == node(3)), "{first:?}");
    dialer.done(attempt_of(&first), DialOutcome::ConnectFailed);
    let said = next(&mut outs).await;
    let Out::Seeking(Some(diagnosis)) = &said else { panic!("not a report: {said:?}") };
    assert_eq!((diagnosis.tried, diagnosis.count(Cause::Unreachable), diagnosis.count(Cause::Restricted)), (1, 1, 1));
    loop {
        match next(&mut outs).await {
            Out::Seeking(_) => {}
            Out::Dial { target, .. } => break assert_eq!(target.id, node(4)),
            other => panic!("{other:?}"),
        }
    }
}
