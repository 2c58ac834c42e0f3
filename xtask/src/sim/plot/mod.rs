//! `cargo xtask sim plot`: pictures of what runs gave, one SVG for each scenario and curve.

mod draw;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::PathBuf;

use peerage_sim::report::{Curve, Report};

use crate::shell::Failure;
use draw::{Axis, Chart, Line};

#[derive(clap::Args)]
pub(crate) struct Args {
    /// What `cargo xtask sim run --json` wrote.
    #[arg(value_name = "REPORT.json")]
    report: PathBuf,
    /// The folder to write the pictures to; made if it is not there. Default: the present one.
    #[arg(long, value_name = "DIR", default_value = ".")]
    out: PathBuf,
}

pub(super) fn run(args: &Args, say: &mut dyn FnMut(&str)) -> Result<(), Failure> {
    let text = fs::read_to_string(&args.report).map_err(Failure::file(&args.report))?;
    let reports: Vec<Report> = serde_json::from_str(&text).map_err(|error| {
        let path = args.report.display();
        Failure::Check(format!("{path} is not what `cargo xtask sim run --json` writes: {error}"))
    })?;
    let charts = charts(&reports);
    if charts.is_empty() {
        return Err(Failure::Check(format!("{} has no curve to draw", args.report.display())));
    }
    fs::create_dir_all(&args.out).map_err(Failure::file(&args.out))?;
    for (name, chart) in charts {
        let path = args.out.join(format!("{name}.svg"));
        let picture = draw::svg(&chart).map_err(|error| Failure::Check(format!("cannot draw {name}: {error}")))?;
        fs::write(&path, picture).map_err(Failure::file(&path))?;
        say(&path.display().to_string());
    }
    Ok(())
}

/// A picture for each curve of each scenario, by the name of its file; all seeds in one.
fn charts(reports: &[Report]) -> BTreeMap<String, Chart> {
    let scenarios: BTreeSet<&str> = reports.iter().map(|report| report.scenario.as_str()).collect();
    let mut charts = BTreeMap::new();
    for scenario in scenarios {
        let own: Vec<&Report> = reports.iter().filter(|report| report.scenario == scenario).collect();
        let curves: BTreeSet<&String> = own.iter().flat_map(|report| report.curves.keys()).collect();
        for curve in curves {
            let seeds: Vec<(u64, &Curve)> =
                own.iter().filter_map(|report| Some((report.seed, report.curves.get(curve)?))).collect();
            if seeds.iter().any(|(_, curve)| !curve.points.is_empty()) {
                charts.insert(format!("{scenario}-{curve}"), chart(scenario, curve, &seeds));
            }
        }
    }
    charts
}

fn chart(scenario: &str, name: &str, seeds: &[(u64, &Curve)]) -> Chart {
    let whole = Some((0.0, 100.0));
    let percent = |text: &str| Axis { name: text.to_owned(), scale: 10_000.0, log: false, range: whole };
    let axis = |text: &str, scale: f64| Axis { name: text.to_owned(), scale, log: false, range: None };
    let from_zero = |text: &str, scale: f64| Axis { range: Some((0.0, 0.0)), ..axis(text, scale) };
    let (title, x, y, lines) = match name {
        "delivery-cdf" => {
            let x = Axis { log: true, ..axis("time since publication, ms (logarithmic)", 1_000.0) };
            ("how long delivery takes", x, percent("deliveries within that time, %"), lines(seeds))
        }
        "partition" => {
            let y = percent("online nodes in the largest component, %");
            ("does the network hang together", from_zero("virtual time, s", 1_000.0), y, lines(seeds))
        }
        "delivered" => {
            let x = from_zero("virtual time, s", 1_000.0);
            ("deliveries that were made", x, percent("of those due, %"), lines(seeds))
        }
        "copies" => {
            let y = from_zero("deliveries, %", 1.0);
            ("copies of a message that a node receives", axis("copies", 1.0), y, vec![shares(seeds)])
        }
        "table-fill" => {
            let y = from_zero("entries, mean of all nodes", 1_000.0);
            ("how full discovery's tables are", axis("bucket", 1.0), y, vec![mean(seeds)])
        }
        "degree" => {
            let y = from_zero("nodes", 1.0);
            ("how many peers nodes have", axis("peers", 1.0), y, vec![mean(seeds)])
        }
        other => {
            let (x, y) = seeds.first().map_or(("", ""), |(_, curve)| (curve.x.as_str(), curve.y.as_str()));
            (other, axis(x, 1.0), from_zero(y, 1.0), lines(seeds))
        }
    };
    let bars = matches!(name, "copies" | "table-fill" | "degree");
    let of = match seeds {
        [(seed, _)] => format!("seed {seed}"),
        _ if bars => format!("mean of {} seeds", seeds.len()),
        _ => format!("{} seeds", seeds.len()),
    };
    Chart { title: format!("{scenario}: {title} ({of})"), x, y, bars, lines }
}

/// Every seed's points as they are.
fn lines(seeds: &[(u64, &Curve)]) -> Vec<Line> {
    let points = |curve: &Curve| curve.points.iter().map(|(x, y)| (*x as f64, *y as f64)).collect();
    seeds.iter().map(|(seed, curve)| Line { name: format!("seed {seed}"), points: points(curve) }).collect()
}

fn sums(seeds: &[(u64, &Curve)]) -> BTreeMap<u64, u64> {
    let mut sums = BTreeMap::new();
    for (x, y) in seeds.iter().flat_map(|(_, curve)| &curve.points) {
        *sums.entry(*x).or_default() += y;
    }
    sums
}

/// The mean of all seeds at each x; a seed without a point there has 0.
fn mean(seeds: &[(u64, &Curve)]) -> Line {
    let count = seeds.len() as f64;
    let points = sums(seeds).into_iter().map(|(x, y)| (x as f64, y as f64 / count)).collect();
    Line { name: String::new(), points }
}

/// The part of the whole, in percent, that lies at each x.
fn shares(seeds: &[(u64, &Curve)]) -> Line {
    let sums = sums(seeds);
    let all = sums.values().sum::<u64>().max(1) as f64;
    let points = sums.into_iter().map(|(x, y)| (x as f64, 100.0 * y as f64 / all)).collect();
    Line { name: String::new(), points }
}

#[cfg(test)]
mod tests {
    use peerage_sim::report::Cost;

    use super::*;

    fn report(seed: u64) -> Report {
        let curve = |points: &[(u64, u64)]| Curve { x: "own x".into(), y: "own y".into(), points: points.to_vec() };
        let cdf: Vec<(u64, u64)> = (0..=100).map(|part| (20_000 + part * part * (40 + seed), part * 10_000)).collect();
        let partition: Vec<(u64, u64)> = (0..60)
            .map(|second| (second * 1_000, if (20..30 + seed).contains(&second) { 500_000 } else { 1_000_000 }))
            .collect();
        let degree: Vec<(u64, u64)> =
            (5..=30_u64).map(|peers| (peers, 200 - seed - peers.abs_diff(18).pow(2))).collect();
        let curves = [
            ("delivery-cdf", curve(&cdf)),
            ("partition", curve(&partition)),
            ("copies", curve(&[(1, 9_000 + seed), (2, 700), (3, 40)])),
            (
                "table-fill",
                curve(&(240..=255).map(|bucket| (bucket, 16_000 - (255 - bucket) * 900)).collect::<Vec<_>>()),
            ),
            ("degree", curve(&degree)),
            ("of-its-own", curve(&[(1, 5), (2, 3)])),
            ("empty", curve(&[])),
        ];
        Report {
            scenario: "small".into(),
            seed,
            nodes: 10,
            digest: String::new(),
            events: 1,
            virtual_ms: 1,
            metrics: [].into(),
            curves: curves.map(|(name, curve)| (name.to_owned(), curve)).into(),
            violations: Vec::new(),
            cost: Cost::default(),
        }
    }

    /// Draws `reports` into a folder and gives back the pictures by name.
    fn drawn(reports: &[Report]) -> BTreeMap<String, String> {
        let folder = tempfile::tempdir().expect("a folder");
        let json = folder.path().join("report.json");
        fs::write(&json, serde_json::to_string(reports).expect("reports are JSON")).expect("it can be written");
        let out = folder.path().join("plots");
        let mut names = Vec::new();
        run(&Args { report: json, out }, &mut |line| names.push(line.to_owned())).expect("it draws");
        let read = |path: &String| fs::read_to_string(path).expect("the picture is there");
        let name = |path: &String| path.rsplit('/').next().unwrap_or_default().to_owned();
        names.iter().map(|path| (name(path), read(path))).collect()
    }

    #[test]
    fn every_curve_with_points_becomes_a_picture_with_title_and_axes() {
        let pictures = drawn(&[report(1), report(2), report(3)]);
        let names: Vec<&str> = pictures.keys().map(String::as_str).collect();
        let expected = ["copies", "degree", "delivery-cdf", "of-its-own", "partition", "table-fill"];
        assert_eq!(names, expected.map(|name| format!("small-{name}.svg")));
        for (name, words) in [
            ("copies", vec!["copies of a message that a node receives (mean of 3 seeds)", "deliveries, %"]),
            ("delivery-cdf", vec!["how long delivery takes (3 seeds)", "time since publication, ms", "seed 2"]),
            ("of-its-own", vec!["own x", "own y"]),
            ("table-fill", vec!["bucket", "entries, mean"]),
        ] {
            let picture = &pictures[&format!("small-{name}.svg")];
            assert!(picture.starts_with("<svg ") && picture.trim_end().ends_with("</svg>"), "{name}");
            for word in words {
                assert!(picture.contains(word), "{name} lacks `{word}`");
            }
        }
    }

    #[test]
    fn many_seeds_are_drawn_without_a_legend() {
        let reports: Vec<Report> = (1..=20).map(report).collect();
        let pictures = drawn(&reports);
        let cdf = &pictures["small-delivery-cdf.svg"];
        assert!(cdf.contains("(20 seeds)") && !cdf.contains("seed 2\n"));
        assert_eq!(cdf.matches("opacity=\"0.4\"").count(), 20, "a thin line each");
    }

    #[test]
    fn one_seed_is_named_and_a_single_point_is_drawn_too() {
        let mut only = report(9);
        let point = Curve { x: "a".into(), y: "b".into(), points: vec![(5, 0)] };
        only.curves =
            ["delivery-cdf", "partition", "degree", "copies"].map(|name| (name.to_owned(), point.clone())).into();
        let pictures = drawn(&[only]);
        assert_eq!(pictures.len(), 4);
        assert!(pictures.values().all(|picture| picture.contains("(seed 9)") && !picture.contains("NaN")));
    }

    #[test]
    fn bars_of_several_seeds_are_their_mean_and_copies_a_part_of_all() {
        let curve = |points: &[(u64, u64)]| Curve { x: String::new(), y: String::new(), points: points.to_vec() };
        let (one, other) = (curve(&[(1, 10), (2, 4)]), curve(&[(1, 20), (3, 6)]));
        let seeds = [(1, &one), (2, &other)];
        assert_eq!(mean(&seeds).points, [(1.0, 15.0), (2.0, 2.0), (3.0, 3.0)]);
        assert_eq!(shares(&seeds).points, [(1.0, 75.0), (2.0, 10.0), (3.0, 15.0)]);
    }

    #[test]
    fn a_file_without_curves_is_refused() {
        let folder = tempfile::tempdir().expect("a folder");
        let json = folder.path().join("report.json");
        for (text, why) in [("[]", "no curve to draw"), ("{}", "is not what `cargo xtask sim run --json` writes")] {
            fs::write(&json, text).expect("it can be written");
            let end = run(&Args { report: json.clone(), out: folder.path().to_owned() }, &mut |_| {});
            assert!(end.expect_err("nothing to draw").to_string().contains(why));
        }
    }
}
