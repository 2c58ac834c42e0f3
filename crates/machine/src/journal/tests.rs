use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde::Serialize;

use super::*;
use crate::{Driver, Effects, Rng, Time};

/// Asks for one draw an input, and for two more a second later; 13 is not to its taste.
struct Dice {
    rng: Rng,
}

#[derive(Serialize)]
struct Seed(u64);

impl Genesis for Seed {
    type Machine = Dice;

    const NAME: &'static str = "dice";

    fn build(self) -> Result<Dice, String> {
        Ok(Dice { rng: Rng::new(self.0) })
    }
}

impl Machine for Dice {
    type In = u64;
    type Out = u64;
    type Timer = u8;

    fn handle(&mut self, now: Time, sides: u64, fx: &mut Effects<u64, u8>) {
        assert!(sides != 13, "unlucky");
        fx.emit(self.rng.below(sides));
        fx.arm(1, now + Duration::from_secs(1));
        fx.arm(2, now + Duration::from_secs(1));
    }

    fn expire(&mut self, _now: Time, timer: u8, fx: &mut Effects<u64, u8>) {
        fx.emit(u64::from(timer) + self.rng.below(1_000));
    }
}

fn json<T: Serialize>(value: &T) -> Vec<u8> {
    serde_json::to_vec(value).expect("a number")
}

fn at(millis: u64) -> Time {
    Time::new(Duration::from_millis(millis), Duration::from_secs(1_700_000_000))
}

fn dice(journals: &Journals, seed: u64) -> Driver<Dice> {
    let recorder = journals.begin(at(0), || Seed(seed), json, json);
    Driver::new(Seed(seed).build().expect("always")).recorded(recorder)
}

/// A hundred throws and what follows them.
fn play(driver: &mut Driver<Dice>) {
    for n in 0..100 {
        driver.expire_due(at(300 * n));
        driver.handle(at(300 * n), 20 + n);
        if n % 3 == 0 {
            driver.drain();
        }
    }
    driver.expire_due(at(60_000));
}

fn recorded(seed: u64) -> Vec<u8> {
    let journals = Journals::recording(1 << 20, |_| {});
    play(&mut dice(&journals, seed));
    journals.snapshots()[0].to_bytes()
}

#[test]
fn everything_that_happens_is_kept_in_order_with_its_time_and_a_hash_of_what_followed() {
    let bytes = recorded(7);
    let dump = Dump::read(&bytes).expect("whole");
    assert_eq!((dump.header.machine, dump.header.life, dump.header.lost), ("dice", 1, 0));
    assert_eq!((dump.header.genesis, dump.damage), (&b"7"[..], None));
    let inputs: Vec<_> = dump.entries.iter().filter(|entry| entry.what == What::Input).collect();
    assert_eq!((inputs.len(), inputs[3].input), (100, &b"23"[..]));
    assert_eq!((inputs[3].at.running(), inputs[3].at.unix().as_secs()), (Duration::from_millis(900), 1_700_000_000));
    assert!(dump.entries.iter().any(|entry| entry.what == What::Expiry), "rounds in which timers were due");
    assert!(dump.entries.iter().all(|entry| entry.effects.is_some()));
}

#[test]
fn the_same_run_is_the_same_dump_and_another_seed_has_other_effects() {
    assert_eq!(recorded(7), recorded(7));
    let (one, other) = (recorded(7), recorded(8));
    let [one, other] = [&one, &other].map(|bytes| Dump::read(bytes).expect("whole").entries);
    assert_eq!(one.len(), other.len());
    assert_ne!(one, other);
}

#[test]
fn a_ring_never_holds_more_than_its_bytes_and_counts_what_it_lost() {
    let journals = Journals::recording(4_096, |_| {});
    let mut driver = dice(&journals, 1);
    for n in 0..1_000 {
        driver.handle(at(n), 6);
        let snapshot = &journals.snapshots()[0];
        assert!(snapshot.bytes_kept() <= 4_096);
    }
    let bytes = journals.snapshots()[0].to_bytes();
    let dump = Dump::read(&bytes).expect("whole");
    assert_eq!(dump.first() + dump.entries.len() as u64, 1_000);
    assert!(dump.entries.len() > 10 && dump.entries.iter().all(|entry| entry.effects.is_some()));
    assert_eq!(dump.entries.last().map(|entry| entry.at), Some(at(999)), "the newest are kept");

    let none = Journals::recording(1, |_| {});
    dice(&none, 1).handle(at(0), 6);
    assert!(none.snapshots()[0].is_empty(), "a ring without room holds nothing");
}

#[test]
fn a_crash_leaves_the_input_that_led_to_it_and_is_told_once() {
    let told = Arc::new(Mutex::new(Vec::new()));
    let tell = told.clone();
    let journals = Journals::recording(1 << 20, move |snapshot| tell.lock().expect("whole").push(snapshot));
    let mut driver = dice(&journals, 1);
    driver.handle(at(1), 6);
    assert!(catch_unwind(AssertUnwindSafe(|| driver.handle(at(2), 13))).is_err());
    drop(driver);
    journals.crashed("dice");
    journals.crashed("dice");
    journals.crashed("never begun");
    let mut told = std::mem::take(&mut *told.lock().expect("whole"));
    assert_eq!(told.len(), 1);
    let bytes = told.remove(0).to_bytes();
    let dump = Dump::read(&bytes).expect("whole");
    assert!(dump.header.crashed);
    assert_eq!(dump.entries.last().map(|entry| (entry.input, entry.effects)), Some((&b"13"[..], None)));

    dice(&journals, 2).handle(at(3), 6);
    let kept: Vec<_> = journals.snapshots().iter().map(|s| (s.life(), s.has_crashed(), s.len())).collect();
    assert_eq!(kept, [(1, true, 2), (2, false, 1)], "the life that crashed stays beside the present one");
}

#[test]
fn a_life_that_begins_anew_without_a_word_has_crashed() {
    let journals = Journals::recording(1 << 20, |_| {});
    for seed in 1..=3 {
        dice(&journals, seed).handle(at(seed), 6);
    }
    let kept: Vec<_> = journals.snapshots().iter().map(|s| (s.life(), s.has_crashed())).collect();
    assert_eq!(kept, [(2, true), (3, false)]);
}

#[test]
fn a_change_that_cannot_be_recorded_is_said() {
    let journals = Journals::recording(1 << 20, |_| {});
    let mut driver = dice(&journals, 1);
    driver.machine_mut().rng = Rng::new(2);
    driver.with(|_, fx| fx.emit(1));
    let bytes = journals.snapshots()[0].to_bytes();
    let what: Vec<_> = Dump::read(&bytes).expect("whole").entries.iter().map(|entry| entry.what).collect();
    assert_eq!(what, [What::PassedBy, What::PassedBy]);
}

#[test]
fn journals_that_are_off_keep_nothing() {
    let journals = Journals::off();
    play(&mut dice(&journals, 1));
    journals.crashed("dice");
    assert!(journals.snapshots().is_empty());
}

#[test]
fn a_dump_that_was_cut_anywhere_is_read_up_to_the_cut_and_says_so() {
    let whole = recorded(3);
    let entries = Dump::read(&whole).expect("whole").entries.len();
    let mut last = 0;
    for len in 0..whole.len() {
        match Dump::read(&whole[..len]) {
            Err(error) => assert!(last == 0 && matches!(error, DumpError::NotADump | DumpError::Header)),
            Ok(dump) => {
                let damage = dump.damage.expect("it was cut");
                assert_eq!(damage.entry, dump.entries.len() as u64);
                assert!(dump.entries.len() >= last && dump.entries.len() < entries && damage.bytes < 100);
                last = dump.entries.len();
            }
        }
    }
    assert_eq!(last, entries - 1);
}

#[test]
fn a_changed_byte_ends_the_dump_there_and_a_claimed_length_costs_nothing() {
    let whole = recorded(3);
    let good = Dump::read(&whole).expect("whole").entries;
    for position in 0..whole.len() {
        let mut bytes = whole.clone();
        bytes[position] ^= 0x81;
        match Dump::read(&bytes) {
            Err(_) => assert!(position < 120, "only without a header"),
            Ok(dump) => {
                assert!(dump.damage.is_some(), "byte {position}");
                assert_eq!(dump.entries, good[..dump.entries.len()], "what is read is what was written");
            }
        }
    }
    let mut bytes = whole.clone();
    bytes.truncate(bytes.len() - 5);
    bytes.extend_from_slice(&u32::MAX.to_le_bytes());
    assert!(Dump::read(&bytes).expect("a header").damage.is_some());
}

#[test]
fn another_layout_and_another_file_are_refused_in_words() {
    let mut bytes = recorded(3);
    bytes[8] = 9;
    assert!(Dump::read(&bytes).expect_err("version 9").to_string().contains("layout 9"));
    assert_eq!(Dump::read(b"#!/bin/sh"), Err(DumpError::NotADump));
    assert_eq!(Dump::read(&bytes[..9]), Err(DumpError::Header));
}
