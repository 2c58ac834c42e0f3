//! The program as a user sees it: figures on stdout, an exit code, and no process left behind.

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

const PROGRAM: &str = env!("CARGO_BIN_EXE_peerage-bench");

#[test]
fn a_bench_prints_its_figures_and_the_ratio_of_its_pairs() {
    let output = Command::new(PROGRAM)
        .args(["session", "--quick", "--pairs", "1", "--only", "rtt128"])
        .output()
        .expect("the program is built");
    let said = String::from_utf8(output.stdout).expect("text");
    assert!(output.status.success(), "{said}");
    assert!(said.starts_with("machine cpu="), "{said}");
    let line = |start: &str| said.lines().any(|line| line.starts_with(start));
    assert!(line("bench=rtt128 impl=rawtcp metric=p50_us value="), "{said}");
    assert!(said.contains("metric=p99_us") && said.contains("metric=ratio") && said.contains("vs=rawtcp"), "{said}");
}

#[test]
fn the_world_is_measured_beside_a_bare_heap() {
    let output =
        Command::new(PROGRAM).args(["world", "--nodes", "500", "--pairs", "2"]).output().expect("the program is built");
    let said = String::from_utf8(output.stdout).expect("text");
    assert!(output.status.success(), "{said}{}", String::from_utf8_lossy(&output.stderr));
    let line = |start: &str| said.lines().any(|line| line.starts_with(start));
    assert!(line("bench=world impl=peerage metric=events_s value="), "{said}");
    assert!(line("bench=world impl=binary-heap metric=events_s value="), "{said}");
    assert!(said.contains("metric=ratio") && said.contains("vs=binary-heap"), "{said}");
}

/// Only Linux has all of 127.0.0.0/8 to come from.
#[cfg(target_os = "linux")]
#[test]
fn a_flood_ends_by_itself_and_says_what_the_honest_noticed_of_it() {
    let output = Command::new(PROGRAM)
        .args(["flood", "--attempts", "200", "--seconds", "2"])
        .output()
        .expect("the program is built");
    let said = String::from_utf8(output.stdout).expect("text");
    assert!(output.status.success(), "{said}{}", String::from_utf8_lossy(&output.stderr));
    for prefixes in ["many_prefixes", "few_prefixes"] {
        let figure = |metric: &str, value: &str| {
            let start = format!("bench=flood impl=peerage metric={prefixes}.{metric} value={value}");
            assert!(said.lines().any(|line| line.starts_with(&start)), "{start}: {said}");
        };
        figure("honest_peers_lost", "0.000 ");
        figure("delivery_percent", "100.0 ");
        figure("rss_peak_kib", "");
        figure("refused.unknown_protocol", "");
    }
}

#[test]
fn a_process_ends_when_the_one_that_started_it_is_gone() {
    let job = r#"{"work":{"RoundTrip":{"size":128}},"by":"RawTcp","warm":{"secs":0,"nanos":0},
        "run":{"secs":60,"nanos":0},"one_cpu":false}"#;
    let mut child = Command::new(PROGRAM)
        .args(["role", "accept", job, "0"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("the program is built");
    let mut listening = String::new();
    let stdout = child.stdout.take().expect("piped");
    BufReader::new(stdout).read_line(&mut listening).expect("it says where it listens");
    assert!(listening.contains("Port"), "{listening}");
    drop(child.stdin.take());
    let deadline = Instant::now() + Duration::from_secs(30);
    while child.try_wait().expect("ours").is_none() {
        assert!(Instant::now() < deadline, "it goes on without a parent");
        std::thread::sleep(Duration::from_millis(5));
    }
}
