use std::time::Duration;

use peerage_machine::{Driver, Time};
use proptest::prelude::*;

use super::*;

fn at(seconds: u64) -> Time {
    Time::ZERO + Duration::from_secs(seconds)
}

fn config() -> SheddingConfig {
    SheddingConfig { memory: 1_000, ..SheddingConfig::off() }
}

fn node(config: SheddingConfig) -> Driver<SheddingMachine> {
    Driver::new(SheddingMachine::new(config))
}

fn memory(bytes: u64) -> Usage {
    Usage { memory: Some(bytes), ..Usage::default() }
}

fn read(node: &mut Driver<SheddingMachine>, second: u64, usage: Usage) -> Level {
    node.handle(at(second), In::Read(usage));
    node.drain().for_each(drop);
    node.machine().level()
}

#[test]
fn bulk_goes_first_then_normal_then_newcomers_each_at_its_part_of_the_limit() {
    for (used, last) in [(799, Level::Nothing), (800, Level::Bulk), (900, Level::Normal), (1_000, Level::Newcomers)] {
        let mut node = node(config());
        let seen: Vec<Level> = (0..5).map(|second| read(&mut node, second, memory(used))).collect();
        let mut expected = vec![Level::Bulk, Level::Normal, Level::Newcomers];
        expected.truncate(last as usize);
        expected.resize(5, last);
        assert_eq!(seen, expected, "{used}: one step a reading");
    }
}

#[test]
fn it_recovers_by_itself_a_step_at_a_time_and_not_at_the_limits_edge() {
    let mut node = node(config());
    for second in 0..3 {
        read(&mut node, second, memory(1_200));
    }
    assert_eq!(node.machine().level(), Level::Newcomers);
    for second in 3..60 {
        assert_eq!(read(&mut node, second, memory(950)), Level::Newcomers, "a little below is not below");
    }
    let mut levels: Vec<(u64, Level)> =
        (60..120).map(|second| (second, read(&mut node, second, memory(100)))).collect();
    levels.dedup_by_key(|(_, level)| *level);
    let steps = [(60, Level::Newcomers), (70, Level::Normal), (80, Level::Bulk), (90, Level::Nothing)];
    assert_eq!(levels, steps);
    assert_eq!(node.machine().words(), None);
}

#[test]
fn one_bad_moment_costs_one_step_for_a_while() {
    let limits = SheddingConfig { lag: Duration::from_secs(5), ..SheddingConfig::off() };
    let mut node = node(limits);
    let late = |seconds| Usage { lag: Some(Duration::from_secs(seconds)), ..Usage::default() };
    assert_eq!(read(&mut node, 0, late(3600)), Level::Bulk, "a computer that slept");
    let levels: Vec<Level> = (1..=11).map(|second| read(&mut node, second, late(0))).collect();
    assert!(levels[..10].iter().all(|level| *level == Level::Bulk) && levels[10] == Level::Nothing, "{levels:?}");
}

#[test]
fn a_busy_second_is_no_shortage_of_processors_and_a_busy_minute_is() {
    let mut node = node(SheddingConfig { cpu: 900, ..SheddingConfig::off() });
    let cpu = |share| Usage { cpu: Some(share), ..Usage::default() };
    assert_eq!(read(&mut node, 0, cpu(100)), Level::Nothing);
    assert_eq!(read(&mut node, 1, cpu(1_000)), Level::Nothing);
    let levels: Vec<Level> = (2..20).map(|second| read(&mut node, second, cpu(1_000))).collect();
    assert_eq!(levels.last(), Some(&Level::Newcomers), "{levels:?}");
}

#[test]
fn the_scarcest_decides_and_is_named_with_what_is_not_done() {
    let limits = SheddingConfig { memory: 100 << 20, disk: 1_000, ..SheddingConfig::off() };
    let mut node = node(limits);
    let usage = Usage { memory: Some(90 << 20), disk: Some(500), ..Usage::default() };
    read(&mut node, 0, usage);
    assert_eq!(node.machine().scarcest(), Some((Resource::Disk, 2_000)));
    read(&mut node, 1, Usage { disk: Some(1 << 40), ..usage });
    let words = node.machine().words().expect("something is shed");
    assert_eq!(words, "the node is short of memory: bulk and normal messages are not taken (90 % of 100 MiB)");
}

#[test]
fn what_cannot_be_read_or_has_no_limit_is_not_looked_at() {
    let mut off = node(SheddingConfig::off());
    let all = Usage { memory: Some(u64::MAX), cpu: Some(u32::MAX), disk: Some(0), lag: Some(Duration::MAX) };
    let mut on = node(SheddingConfig { memory: 1, cpu: 1, disk: 1, ..SheddingConfig::recommended() });
    for second in 0..10 {
        assert_eq!(read(&mut off, second, all), Level::Nothing);
        assert_eq!(read(&mut on, second, Usage::default()), Level::Nothing);
    }
    assert_eq!(read(&mut on, 10, all), Level::Bulk, "however much that is");
}

#[test]
fn limits_that_change_are_those_of_the_next_reading() {
    let mut node = node(config());
    for second in 0..3 {
        read(&mut node, second, memory(1_000));
    }
    node.handle(at(3), In::Config(SheddingConfig { memory: 1_000_000, ..config() }));
    for second in 4..40 {
        read(&mut node, second, memory(1_000));
    }
    assert_eq!(node.machine().level(), Level::Nothing);
}

proptest! {
    #[test]
    fn whatever_is_read_levels_move_by_single_steps_and_end_with_the_shortage(
        readings in prop::collection::vec((0..2_000u64, 0..2_000u32, 0..3_000u64), 1..100),
    ) {
        let limits = SheddingConfig { cpu: 900, disk: 1_000, ..config() };
        let mut node = node(limits);
        let mut before = Level::Nothing;
        let mut second = 0;
        for (bytes, cpu, free) in readings {
            second += 1;
            let usage = Usage { memory: Some(bytes), cpu: Some(cpu), disk: Some(free), lag: None };
            let level = read(&mut node, second, usage);
            prop_assert!((level as i8 - before as i8).abs() <= 1);
            before = level;
        }
        for _ in 0..60 {
            second += 1;
            read(&mut node, second, Usage { cpu: Some(0), ..memory(0) });
        }
        prop_assert_eq!(node.machine().level(), Level::Nothing);
    }
}
