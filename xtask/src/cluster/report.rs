//! What a run says at its end: a table for people, totals for scripts.

use std::fmt::Write;
use std::time::Duration;

use serde::Serialize;

use super::tally::{Sums, percentile};

/// One node's line of the table.
#[derive(Debug, Clone, Default)]
pub(crate) struct Row {
    pub(crate) peers: Option<usize>,
    /// By its present process.
    pub(crate) delivered: usize,
    /// By all its processes, each message once.
    pub(crate) has: usize,
    pub(crate) duplicates: Option<u64>,
    pub(crate) bytes_in: Option<u64>,
    pub(crate) bytes_out: Option<u64>,
    /// The largest of the node's processes.
    pub(crate) peak_rss_mib: Option<f64>,
    /// The sum of the node's processes.
    pub(crate) cpu_s: Option<f64>,
    pub(crate) exit_code: Option<i32>,
    pub(crate) restarted: bool,
}

/// The totals, with the keys that `--json` promises.
#[derive(Debug, Serialize)]
pub(crate) struct Report {
    nodes: usize,
    messages: usize,
    payload_bytes: usize,
    expected: usize,
    delivered: usize,
    lost: usize,
    duplicate_deliveries: usize,
    /// How often a message arrived at a node that stayed up and had not published it itself.
    copies_per_message: Option<f64>,
    /// Bytes that the sessions of nodes that stayed up wrote, all of them: messages, control and their frames.
    wire_bytes: Option<u64>,
    /// The same for each byte of payload that those nodes delivered and had not published themselves.
    wire_bytes_per_byte: Option<f64>,
    mesh_ready_s: Option<f64>,
    propagation_ms: Propagation,
    rss_mib: Memory,
    cpu_s: f64,
    exit_codes: Vec<Option<i32>>,
}

#[derive(Debug, Serialize)]
struct Propagation {
    p50: Option<f64>,
    p99: Option<f64>,
    max: Option<f64>,
}

#[derive(Debug, Serialize)]
struct Memory {
    median: Option<f64>,
    max: Option<f64>,
}

impl Report {
    /// Adds up a run. `propagation` is sorted.
    pub(crate) fn new(
        items: &[Vec<u8>],
        sums: &Sums,
        mesh_ready: Option<Duration>,
        propagation: &[Duration],
        rows: &[Row],
    ) -> Self {
        let milliseconds = |percent| percentile(propagation, percent).map(|time| rounded(time.as_secs_f64() * 1e3));
        let mut memory: Vec<f64> = rows.iter().filter_map(|row| row.peak_rss_mib).collect();
        memory.sort_by(f64::total_cmp);
        let wire = wire(rows);
        Self {
            nodes: rows.len(),
            messages: items.len(),
            payload_bytes: items.iter().map(Vec::len).sum(),
            expected: sums.expected,
            delivered: sums.delivered,
            lost: sums.lost,
            duplicate_deliveries: sums.duplicates,
            copies_per_message: copies(sums, rows),
            wire_bytes: wire,
            wire_bytes_per_byte: wire.and_then(|wire| per_byte(wire, items, sums)),
            mesh_ready_s: mesh_ready.map(|time| rounded(time.as_secs_f64())),
            propagation_ms: Propagation { p50: milliseconds(50), p99: milliseconds(99), max: milliseconds(100) },
            rss_mib: Memory {
                median: percentile(&memory, 50).map(rounded),
                max: percentile(&memory, 100).map(rounded),
            },
            cpu_s: rounded(rows.iter().filter_map(|row| row.cpu_s).sum()),
            exit_codes: rows.iter().map(|row| row.exit_code).collect(),
        }
    }
}

/// Copies that came over the wire for each message that did; unknown if a node did not say.
fn copies(sums: &Sums, rows: &[Row]) -> Option<f64> {
    let received = sums.delivered.checked_sub(sums.own).filter(|received| *received > 0)? as f64;
    let mut duplicates = 0;
    for row in rows.iter().filter(|row| !row.restarted) {
        duplicates += row.duplicates?;
    }
    Some(rounded((received + duplicates as f64) / received))
}

/// What was written by the nodes that stayed up; unknown if one of them did not say.
fn wire(rows: &[Row]) -> Option<u64> {
    rows.iter().filter(|row| !row.restarted).map(|row| row.bytes_out).sum()
}

/// Each message is delivered about as often as every other, so a delivery has a message's mean size.
fn per_byte(wire: u64, items: &[Vec<u8>], sums: &Sums) -> Option<f64> {
    let received = sums.delivered.checked_sub(sums.own)?;
    let payload = items.iter().map(Vec::len).sum::<usize>() as f64 * received as f64 / items.len().max(1) as f64;
    (payload > 0.0).then(|| rounded(wire as f64 / payload))
}

fn rounded(value: f64) -> f64 {
    (value * 1000.0).round() / 1000.0
}

/// The table, one node a line.
pub(crate) fn table(rows: &[Row]) -> String {
    const HEAD: [&str; 10] =
        ["node", "peers", "delivered", "has", "duplicates received", "in", "out", "peak RSS", "CPU s", "exit"];
    let mut cells: Vec<[String; 10]> = vec![HEAD.map(str::to_owned)];
    for (index, row) in rows.iter().enumerate() {
        cells.push([
            (index + 1).to_string(),
            or_dash(row.peers),
            row.delivered.to_string(),
            row.has.to_string(),
            or_dash(row.duplicates),
            row.bytes_in.map_or_else(dash, size),
            row.bytes_out.map_or_else(dash, size),
            row.peak_rss_mib.map_or_else(dash, |mib| format!("{mib:.1} MiB")),
            row.cpu_s.map_or_else(dash, |seconds| format!("{seconds:.2}")),
            or_dash(row.exit_code),
        ]);
    }
    let mut text = String::new();
    for (index, line) in cells.iter().enumerate() {
        for (column, cell) in line.iter().enumerate() {
            let width = cells.iter().map(|line| line[column].chars().count()).max().unwrap_or(0);
            let gap = if column == 0 { "" } else { "  " };
            let _ = write!(text, "{gap}{cell:>width$}"); // Writing to a string cannot fail.
        }
        let restarted = index.checked_sub(1).is_some_and(|node| rows[node].restarted);
        text.push_str(if restarted { "  killed and restarted\n" } else { "\n" });
    }
    text
}

fn dash() -> String {
    "-".to_owned()
}

fn or_dash(value: Option<impl ToString>) -> String {
    value.map_or_else(dash, |value| value.to_string())
}

fn size(bytes: u64) -> String {
    let mut value = bytes as f64;
    for unit in ["B", "KiB", "MiB"] {
        if value < 1024.0 {
            return if unit == "B" { format!("{bytes} B") } else { format!("{value:.1} {unit}") };
        }
        value /= 1024.0;
    }
    format!("{value:.1} GiB")
}

/// The totals, in words.
pub(crate) fn totals(report: &Report) -> String {
    let Report { messages, payload_bytes, expected, delivered, lost, duplicate_deliveries, .. } = report;
    let Propagation { p50, p99, max } = &report.propagation_ms;
    format!(
        "{messages} messages, {payload_bytes} bytes: expected {expected}, delivered {delivered}, lost {lost}, \
         delivered twice {duplicate_deliveries}\n\
         mesh ready after {} s; propagation p50 {} ms, p99 {} ms, max {} ms; {} copies per message; CPU {} s\n\
         on the wire {}, {} bytes sent for each byte delivered",
        or_dash(report.mesh_ready_s),
        or_dash(*p50),
        or_dash(*p99),
        or_dash(*max),
        or_dash(report.copies_per_message),
        report.cpu_s,
        report.wire_bytes.map_or_else(dash, size),
        or_dash(report.wire_bytes_per_byte),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sums() -> Sums {
        Sums { expected: 4, delivered: 4, lost: 0, duplicates: 0, foreign: 0, missed: 0, own: 2 }
    }

    fn rows() -> Vec<Row> {
        let row = Row {
            peers: Some(1),
            delivered: 2,
            has: 2,
            duplicates: Some(1),
            bytes_in: Some(2048),
            bytes_out: Some(10),
            peak_rss_mib: Some(12.5),
            cpu_s: Some(0.25),
            exit_code: Some(0),
            restarted: false,
        };
        vec![row.clone(), row]
    }

    #[test]
    fn the_json_has_exactly_the_promised_keys() {
        let times = [Duration::from_millis(4), Duration::from_millis(8)];
        let report =
            Report::new(&[vec![0; 3], vec![0; 4]], &sums(), Some(Duration::from_millis(1500)), &times, &rows());
        let json = serde_json::to_value(&report).expect("a report is JSON");
        let expected = serde_json::json!({
            "nodes": 2, "messages": 2, "payload_bytes": 7, "expected": 4, "delivered": 4, "lost": 0,
            "duplicate_deliveries": 0, "copies_per_message": 2.0, "wire_bytes": 20,
            "wire_bytes_per_byte": 2.857, "mesh_ready_s": 1.5,
            "propagation_ms": {"p50": 4.0, "p99": 8.0, "max": 8.0},
            "rss_mib": {"median": 12.5, "max": 12.5}, "cpu_s": 0.5, "exit_codes": [0, 0],
        });
        assert_eq!(json, expected);
    }

    #[test]
    fn what_is_not_known_is_null_in_json_and_a_dash_in_the_table() {
        let rows = [Row { duplicates: None, ..Row::default() }];
        let nothing = Sums { delivered: 0, own: 0, ..sums() };
        let json = serde_json::to_value(Report::new(&[], &nothing, None, &[], &rows)).expect("a report is JSON");
        assert!(json["copies_per_message"].is_null() && json["mesh_ready_s"].is_null());
        assert!(json["wire_bytes"].is_null() && json["wire_bytes_per_byte"].is_null());
        assert!(json["propagation_ms"]["p99"].is_null() && json["exit_codes"][0].is_null());
        assert_eq!(table(&rows).lines().nth(1).map(|line| line.matches('-').count()), Some(7));
    }

    #[test]
    fn the_table_lines_up_and_names_restarted_nodes() {
        let mut rows = rows();
        rows[1].restarted = true;
        let table = table(&rows);
        let lines: Vec<&str> = table.lines().collect();
        assert_eq!(lines[0].len(), lines[1].len());
        assert!(lines[1].contains("2.0 KiB") && lines[1].contains("10 B"));
        assert!(lines[2].ends_with("killed and restarted"));
    }

    #[test]
    fn a_restarted_nodes_duplicates_do_not_blur_the_copies_of_those_that_stayed() {
        let mut rows = rows();
        rows[1] = Row { duplicates: None, restarted: true, ..rows[1].clone() };
        assert_eq!(copies(&sums(), &rows), Some(1.5));
    }
}
