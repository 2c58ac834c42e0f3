//! What is let in, what is answered, what is dropped.

use std::time::Duration;

use peerage_machine::Quota;
use peerage_wire::Keypair;
use proptest::prelude::*;

use super::*;
use crate::key::Key;
use crate::machine::Outgoing;
use crate::wire::{COOKIE_PACKET, Cookie, Message, Nonce};

const UNIX: u64 = 1_700_000_000;

fn now() -> Time {
    Time::new(Duration::from_secs(5), Duration::from_secs(UNIX))
}

fn them() -> Keypair {
    Keypair::from_seed([2; 32])
}

fn us() -> Keypair {
    Keypair::from_seed([1; 32])
}

fn network() -> NetworkId {
    NetworkId::named("test")
}

fn secrets() -> Secrets {
    Secrets::from_seed(&[4; 32])
}

fn gate(config: Config) -> Gate {
    Gate::new(config, us().id(), network(), secrets())
}

fn strict() -> Config {
    Config { exempt_local: false, ..Config::recommended() }
}

fn addr(text: &str) -> SocketAddr {
    text.parse().expect("address")
}

fn home() -> SocketAddr {
    addr("192.0.2.9:30303")
}

/// A request as `them` would send it from `home`, with the cookie it was given there.
fn request(message: Message) -> Packet {
    let cookie = secrets().cookie(them().id(), home(), now(), strict().cookie_epoch);
    Packet { nonce: Nonce { counter: 9, mac: [7; 8] }, cookie, expiry: UNIX + 20, message }
}

fn ping() -> Packet {
    request(Message::Ping { record_seq: 1 })
}

/// An answer as `them` would send it from `home` to our request with this counter.
fn answer(message: Message) -> Packet {
    let counter = Nonce::first_counter(now());
    let mac = secrets().nonce_mac(them().id(), home(), counter);
    Packet { nonce: Nonce { counter, mac }, cookie: Cookie::NONE, expiry: UNIX + 20, message }
}

fn pong() -> Packet {
    answer(Message::Pong { record_seq: 1, observed: home() })
}

fn seal(packet: &Packet) -> Vec<u8> {
    packet.seal(network(), &them(), us().id())
}

fn dropped(verdict: Verdict) -> DropReason {
    match verdict {
        Verdict::Drop(reason, _) => reason,
        other => panic!("not dropped: {other:?}"),
    }
}

#[test]
fn a_request_with_its_cookie_and_an_answer_with_our_nonce_pass() {
    for packet in [ping(), pong()] {
        let inbound = Inbound { from: them().id(), addr: home(), packet: packet.clone() };
        assert_eq!(gate(strict()).admit(now(), home(), &seal(&packet)), Verdict::Pass(inbound));
    }
}

#[test]
fn a_request_without_a_cookie_gets_a_smaller_challenge_that_echoes_its_nonce() {
    let mut gate = gate(strict());
    for message in [
        Message::Ping { record_seq: 1 },
        Message::FindNode { target: Key::from_bytes([1; 32]) },
        Message::RecordRequest,
    ] {
        let mut packet = request(message);
        packet.cookie = Cookie::NONE;
        let bytes = seal(&packet);
        let Verdict::Challenge(challenge) = gate.admit(now(), home(), &bytes) else { panic!("not challenged") };
        assert!(challenge.len() < bytes.len());
        assert_eq!(challenge.len(), COOKIE_PACKET);
        let header = Envelope::read(&challenge).expect("a cookie").header;
        assert_eq!((header.kind, header.nonce, header.expiry), (Kind::Cookie, packet.nonce, UNIX));
        packet.cookie = header.cookie;
        assert!(matches!(gate.admit(now(), home(), &seal(&packet)), Verdict::Pass(_)), "with the cookie given");
    }
}

#[test]
fn a_challenge_is_given_before_any_signature_is_checked() {
    let mut packet = ping();
    packet.cookie = Cookie::NONE;
    let mut bytes = seal(&packet);
    *bytes.last_mut().expect("a signature") ^= 1;
    let mut gate = gate(Config { verify_requests: Quota::per_second(0), ..strict() });
    assert!(matches!(gate.admit(now(), home(), &bytes), Verdict::Challenge(_)));
}

#[test]
fn a_cookie_replayed_from_another_address_is_challenged() {
    let mut gate = gate(strict());
    for elsewhere in ["192.0.2.10:30303", "192.0.2.9:30304", "[2001:db8::1]:30303"] {
        assert!(matches!(gate.admit(now(), addr(elsewhere), &seal(&ping())), Verdict::Challenge(_)), "{elsewhere}");
    }
    let stolen = ping().seal(network(), &Keypair::from_seed([8; 32]), us().id());
    assert!(matches!(gate.admit(now(), home(), &stolen), Verdict::Challenge(_)), "another node's cookie");
}

#[test]
fn answers_that_nobody_asked_for_are_dropped_in_silence() {
    let mut gate = gate(strict());
    let mut guessed = pong();
    guessed.nonce.mac = [0; 8];
    assert_eq!(dropped(gate.admit(now(), home(), &seal(&guessed))), DropReason::Nonce);
    let mut other = pong();
    other.nonce.counter += 1;
    assert_eq!(dropped(gate.admit(now(), home(), &seal(&other))), DropReason::Nonce);
    assert_eq!(dropped(gate.admit(now(), addr("192.0.2.9:1"), &seal(&pong()))), DropReason::Nonce);
    let mut cookie = answer(Message::Cookie);
    cookie.nonce.mac = [0; 8];
    assert_eq!(dropped(gate.admit(now(), home(), &seal(&cookie))), DropReason::Nonce);
}

#[test]
fn expired_and_immortal_packets_are_dropped_and_skewed_clocks_are_not() {
    let mut gate = gate(strict());
    let skew = strict().clock_skew.as_secs();
    for (expiry, passes) in [
        (UNIX, true),
        (UNIX - skew, true),
        (UNIX - skew - 1, false),
        (UNIX + 20 + skew, true),
        (UNIX + 21 + skew, false),
        (u64::MAX, false),
        (0, false),
    ] {
        let bytes = seal(&Packet { expiry, ..ping() });
        let verdict = gate.admit(now(), home(), &bytes);
        assert_eq!(matches!(verdict, Verdict::Pass(_)), passes, "expiry {expiry}: {verdict:?}");
    }
}

#[test]
fn foreign_forged_and_misaddressed_packets_are_dropped_by_reason() {
    let mut gate = gate(strict());
    let mut admit = |bytes: &[u8]| dropped(gate.admit(now(), home(), bytes));
    assert_eq!(admit(&[0; MAX_PACKET + 1]), DropReason::TooLong);
    assert_eq!(admit(b"hello"), DropReason::Magic);
    assert_eq!(admit(&ping().seal(NetworkId::named("x"), &them(), us().id())), DropReason::Network);
    assert_eq!(admit(&ping().seal(network(), &them(), them().id())), DropReason::Recipient);
    assert_eq!(admit(&ping().seal(network(), &us(), us().id())), DropReason::Own);
    let mut forged = seal(&ping());
    *forged.last_mut().expect("a signature") ^= 1;
    assert_eq!(admit(&forged), DropReason::Signature);
}

#[test]
fn whoever_is_not_admitted_gets_no_answer_by_address_or_by_name() {
    let mut gate = gate(strict());
    let first_words = seal(&Packet { cookie: Cookie::NONE, ..ping() });
    let mut refused = |admission: Admission| {
        gate.restrict(Arc::new(admission));
        [&first_words, &seal(&ping()), &seal(&pong())]
            .map(|bytes| matches!(gate.admit(now(), home(), bytes), Verdict::Drop(DropReason::NotAdmitted, Some(_))))
    };
    let networks = |text: &str| vec![text.parse().expect("network")];
    assert_eq!(refused(Admission::open()), [false; 3]);
    assert_eq!(refused(Admission { denied: networks("192.0.2.0/24"), ..Admission::open() }), [true; 3]);
    assert_eq!(refused(Admission { allowed: networks("10.0.0.0/8"), ..Admission::open() }), [true; 3]);
    assert_eq!(refused(Admission { only: Some([us().id()].into()), ..Admission::open() }), [true; 3]);
    assert_eq!(refused(Admission { only: Some([them().id()].into()), ..Admission::open() }), [false; 3]);
}

#[test]
fn a_host_and_a_site_are_held_to_their_quotas() {
    let one_host = Config { quota_host: Quota::new(3, Duration::from_secs(9)), ..strict() };
    let mut limited = gate(one_host.clone());
    let bytes = seal(&ping());
    let passed = (0..10).filter(|_| matches!(limited.admit(now(), home(), &bytes), Verdict::Pass(_))).count();
    assert_eq!(passed, 3);
    assert_eq!(dropped(limited.admit(now(), home(), &bytes)), DropReason::HostQuota);
    assert!(matches!(limited.admit(now(), addr("192.0.2.10:1"), &bytes), Verdict::Challenge(_)), "another host");

    let mut limited = gate(Config { quota_site: Quota::new(3, Duration::from_secs(9)), ..strict() });
    let verdicts = (0..10).map(|host| limited.admit(now(), addr(&format!("192.0.2.{host}:1")), &bytes));
    assert_eq!(verdicts.filter(|verdict| matches!(verdict, Verdict::Challenge(_))).count(), 3);
    assert_eq!(dropped(limited.admit(now(), addr("192.0.2.99:1"), &bytes)), DropReason::SiteQuota);

    let mut exempt = gate(Config { exempt_local: true, ..one_host });
    let local = addr("127.0.0.1:1");
    assert!((0..10).all(|_| matches!(exempt.admit(now(), local, &bytes), Verdict::Challenge(_))));
}

#[test]
fn a_flood_in_a_hosts_name_does_not_use_up_its_quota() {
    let mut gate = gate(strict());
    // Without the cookie: what who forges the address can send.
    let forged = seal(&Packet { cookie: Cookie::NONE, ..ping() });
    for _ in 0..10_000 {
        assert!(!matches!(gate.admit(now(), home(), &forged), Verdict::Pass(_)));
    }
    assert!(matches!(gate.admit(now(), home(), &seal(&ping())), Verdict::Pass(_)));
    assert!(matches!(gate.admit(now(), home(), &seal(&pong())), Verdict::Pass(_)));
}

#[test]
fn a_flood_of_requests_leaves_the_signature_checks_of_answers() {
    let mut gate = gate(Config { verify_requests: Quota::per_second(2), ..strict() });
    let verdicts: Vec<_> = (0..5).map(|_| gate.admit(now(), home(), &seal(&ping()))).collect();
    assert_eq!(verdicts.iter().filter(|verdict| matches!(verdict, Verdict::Pass(_))).count(), 2);
    assert_eq!(verdicts.last(), Some(&Verdict::Drop(DropReason::VerifyBudget, Some(Kind::Ping))));
    assert!(matches!(gate.admit(now(), home(), &seal(&pong())), Verdict::Pass(_)));
}

#[test]
fn strangers_with_valid_cookies_cannot_take_the_checks_of_nodes_in_the_table() {
    let mut gate = gate(Config { verify_requests: Quota::per_second(2), ..strict() });
    gate.know([(them().id(), home())].into());
    let stranger = Keypair::from_seed([8; 32]);
    let floods = |gate: &mut Gate, keys: &Keypair, from: SocketAddr| {
        let cookie = secrets().cookie(keys.id(), from, now(), strict().cookie_epoch);
        let bytes = Packet { cookie, ..ping() }.seal(network(), keys, us().id());
        (0..50).filter(|_| matches!(gate.admit(now(), from, &bytes), Verdict::Pass(_))).count()
    };
    assert_eq!(floods(&mut gate, &stranger, addr("198.51.100.1:1")), 2, "everybody's");
    // The id of a known node at an address of the attacker's, to which it lets a cookie be sent.
    assert_eq!(floods(&mut gate, &them(), addr("198.51.100.2:1")), 0);
    let own = GateConfig::recommended().verify_known.burst() as usize;
    assert_eq!(floods(&mut gate, &them(), home()), own, "its own, and not all that it would like");
}

#[test]
fn known_nodes_cannot_take_each_others_checks() {
    let none_for_all = Config { verify_requests: Quota::per_second(0), ..strict() };
    let mut gate = gate(none_for_all);
    let nodes: Vec<Keypair> = (0..60).map(|number| Keypair::from_seed([number + 20; 32])).collect();
    let at = |number: usize| addr(&format!("198.51.{number}.1:7"));
    let mut known: Vec<Known> = (0..).zip(&nodes).map(|(number, keys)| (keys.id(), at(number))).collect();
    known.sort();
    gate.know(known.into());
    let mut passes = |number: usize, times: usize| {
        let (keys, from) = (&nodes[number], at(number));
        let cookie = secrets().cookie(keys.id(), from, now(), strict().cookie_epoch);
        let bytes = Packet { cookie, ..ping() }.seal(network(), keys, us().id());
        (0..times).filter(|_| matches!(gate.admit(now(), from, &bytes), Verdict::Pass(_))).count()
    };
    for hostile in 0..59 {
        passes(hostile, 30);
    }
    assert_eq!(passes(59, 5), 5);
}

#[test]
fn a_gate_that_is_behind_checks_few_strangers_and_all_it_knows() {
    let mut gate =
        gate(Config { quota_host: Quota::per_second(100_000), quota_site: Quota::per_second(100_000), ..strict() });
    let passes = |gate: &mut Gate| {
        (0..1_000).filter(|_| matches!(gate.admit(now(), home(), &seal(&ping())), Verdict::Pass(_))).count()
    };
    gate.pressed(true);
    assert_eq!(passes(&mut gate), GateConfig::recommended().verify_pressed.burst() as usize);
    gate.know([(them().id(), home())].into());
    assert_eq!(passes(&mut gate), GateConfig::recommended().verify_known.burst() as usize);
    assert!(matches!(gate.admit(now(), home(), &seal(&pong())), Verdict::Pass(_)), "answers have their own");
    gate.pressed(false);
    assert_eq!(passes(&mut gate), 1_000);
}

#[test]
fn the_values_door_knows_them_too() {
    let mut gate = gate(Config { verify_requests: Quota::per_second(0), ..strict() });
    let sealed = || Sealed { network: network(), from: them().id(), to: us().id(), packet: ping(), genuine: true };
    let refused = Verdict::Drop(DropReason::VerifyBudget, Some(Kind::Ping));
    assert_eq!(gate.admit_value(now(), home(), sealed()), refused);
    gate.know([(them().id(), home())].into());
    assert!(matches!(gate.admit_value(now(), home(), sealed()), Verdict::Pass(_)));
    gate.know([(them().id(), addr("192.0.2.9:1"))].into());
    assert_eq!(gate.admit_value(now(), home(), sealed()), refused, "it is known elsewhere now");
}

#[test]
fn an_answer_is_refused_unseen_once_it_is_late() {
    let mut gate = gate(Config { verify_answers: Quota::per_second(0), ..strict() });
    let late = strict().request_timeout * LATE_TIMEOUTS;
    let mut after = |by: Duration| dropped(gate.admit(now() + by, home(), &seal(&pong())));
    assert_eq!(after(late), DropReason::VerifyBudget, "in time");
    assert_eq!(after(late + Duration::from_millis(1)), DropReason::Late, "before its signature is looked at");
    // A wall clock that is stepped makes nothing late and nothing early.
    let stepped = Time::new(now().running() + late, now().unix() + Duration::from_secs(86_400));
    assert_eq!(dropped(gate.admit(stepped, home(), &seal(&pong()))), DropReason::VerifyBudget);
    let cookie = Packet { expiry: 0, ..answer(Message::Cookie) };
    assert!(matches!(gate.admit(now() + late, home(), &seal(&cookie)), Verdict::Pass(_)));
    let replayed = gate.admit(now() + late * 2, home(), &seal(&cookie));
    assert_eq!(dropped(replayed), DropReason::Late, "of any type");
}

#[test]
fn who_was_asked_once_cannot_have_endless_answers_checked() {
    let mut gate = gate(strict());
    let mut forged = seal(&pong());
    *forged.last_mut().expect("a signature") ^= 1;
    let reasons: Vec<_> = (0..100).map(|_| dropped(gate.admit(now(), home(), &forged))).collect();
    assert_eq!(reasons.iter().filter(|reason| **reason == DropReason::Signature).count(), MAX_NEIGHBOR_PACKETS + 1);
    assert_eq!(reasons.last(), Some(&DropReason::Excess));
}

#[test]
fn an_expired_answer_tells_its_signers_clock_and_nothing_else_does() {
    let mut gate = gate(strict());
    let far = UNIX + 10_000;
    let told = |gate: &mut Gate, packet: &Packet, forge: bool| {
        let mut bytes = seal(packet);
        if forge {
            *bytes.last_mut().expect("a signature") ^= 1;
        }
        (dropped(gate.admit(now(), home(), &bytes)), gate.take_told())
    };
    assert_eq!(told(&mut gate, &Packet { expiry: far, ..ping() }, false), (DropReason::Expired, None), "unasked");
    assert_eq!(told(&mut gate, &Packet { expiry: far, ..pong() }, true), (DropReason::Signature, None));
    let expected = Told { from: them().id(), addr: home(), clock: far - 20 };
    assert_eq!(told(&mut gate, &Packet { expiry: far, ..pong() }, false), (DropReason::Expired, Some(expected)));
    assert_eq!(gate.take_told(), None, "once");
}

/// What may come, by type and by what is wrong with it.
fn arrivals() -> impl Strategy<Value = (SocketAddr, Sealed)> {
    let messages = prop::sample::select(vec![
        Message::Ping { record_seq: 1 },
        Message::Pong { record_seq: 1, observed: home() },
        Message::FindNode { target: Key::from_bytes([1; 32]) },
        Message::Neighbors { index: 0, total: 1, records: Vec::new() },
        Message::Neighbors { index: 1, total: 1, records: Vec::new() },
        Message::RecordRequest,
        Message::Cookie,
    ]);
    // Most are right in all but one thing.
    (messages, 0..20u8, 0..4u64).prop_map(|(message, wrong, late)| {
        let mut packet = if message.kind().is_request() { request(message) } else { answer(message) };
        packet.expiry = if packet.message == Message::Cookie { 0 } else { packet.expiry - 10 * late };
        let mut from = home();
        let mut sealed = Sealed { network: network(), from: them().id(), to: us().id(), packet, genuine: true };
        match wrong {
            0 => sealed.network = NetworkId::named("another"),
            1 => sealed.to = them().id(),
            2 => sealed.from = us().id(),
            3 => sealed.packet.cookie = Cookie::NONE,
            4 => sealed.packet.nonce.counter += 1,
            5 => sealed.genuine = false,
            6 => from = addr("192.0.2.10:30303"),
            7 => from = addr("[::ffff:192.0.2.9]:30303"),
            _ => {}
        }
        (from, sealed)
    })
}

proptest! {
    /// Whatever comes, and however often: the door for values and that for bytes say the same.
    #[test]
    fn both_doors_judge_alike(arrivals in prop::collection::vec(arrivals(), 1..40)) {
        let quota = Quota::new(4, Duration::from_secs(9));
        let config = Config { quota_host: quota, verify_answers: Quota::per_second(3), ..strict() };
        let (mut bytes_door, mut values_door) = (gate(config.clone()), gate(config));
        for (from, sealed) in arrivals {
            let keys = if sealed.from == us().id() { us() } else { them() };
            let mut bytes = sealed.packet.seal(sealed.network, &keys, sealed.to);
            if !sealed.genuine && sealed.packet.message != Message::Cookie {
                *bytes.last_mut().expect("a signature") ^= 1;
            }
            let header = sealed.header();
            let by_value = match values_door.admit_value(now(), from, sealed) {
                Verdict::Pass(inbound) => Verdict::Pass(inbound),
                Verdict::Challenge(packet) => {
                    prop_assert_eq!(packet.encoded_len(), COOKIE_PACKET);
                    Verdict::Challenge(header.challenge_bytes(&packet))
                }
                Verdict::Drop(reason, kind) => Verdict::Drop(reason, kind),
            };
            prop_assert_eq!(bytes_door.admit(now(), from, &bytes), by_value);
        }
    }
}

#[test]
fn a_value_that_no_datagram_could_hold_is_dropped_as_one() {
    let record = peerage_wire::RecordDraft::new(1, network()).sign(&them()).expect("small").into_inner();
    let message = Message::Neighbors { index: 0, total: 1, records: vec![record; 16] };
    let sealed =
        Sealed { network: network(), from: them().id(), to: us().id(), packet: answer(message), genuine: true };
    assert!(sealed.packet.encoded_len() > MAX_PACKET);
    assert_eq!(gate(strict()).admit_value(now(), home(), sealed), Verdict::Drop(DropReason::TooLong, None));
}

#[test]
fn a_request_is_tied_to_its_recipient_by_its_senders_secret() {
    let mut outgoing = Outgoing { to: us().id(), addr: home(), packet: ping() };
    outgoing.packet.nonce.mac = [0; 8];
    let told = secrets().nonce_mac(us().id(), home(), 9);
    assert_eq!(outgoing.clone().tied(&secrets()).packet.nonce, Nonce { counter: 9, mac: told });
    let answer = Outgoing { packet: pong(), ..outgoing };
    assert_eq!(answer.clone().tied(&secrets()), answer, "an answer echoes its request's");
}
