//! Scenario files: what is understood, and what is refused with which words.

use super::*;

const SMALL: &str = r#"
name = "small"
about = "Ten nodes."
seeds = 3
duration = "60s"

[population]
nodes = 100

[[expect]]
metric = "bootstrapped"
at_least = "100%"
"#;

fn parse(text: &str) -> Result<Scenario, String> {
    Scenario::parse("some/where/small.toml", text).map_err(|error| error.to_string())
}

/// The small scenario with more at its end.
fn with(more: &str) -> Result<Scenario, String> {
    parse(&format!("{SMALL}{more}"))
}

/// Why the small scenario with more at its end is none; `more` starts in line 13.
#[track_caller]
fn refused(more: &str, why: &str) {
    let said = with(more).expect_err("this cannot be");
    assert!(said.starts_with("some/where/small.toml:"), "{said}");
    assert!(said.contains(why), "{said}");
}

#[test]
fn what_a_file_leaves_out_has_its_default() {
    let scenario = parse(SMALL).expect("it is a scenario");
    let Scenario { population, links, .. } = &scenario;
    assert_eq!((population.nodes, population.bootnodes, population.max_peers), (100, 1, None));
    assert_eq!((population.preset, population.sites), (Preset::Recommended, Sites::Own));
    assert_eq!((population.nat, population.skew, population.start), (Share::NONE, Span::default(), Span::default()));
    assert_eq!(
        population.limits,
        Limits { exempt_local: false, discovery_site_limits: true, lookup_paths: 3, requests: true }
    );
    assert_eq!((links.regions, links.jitter.ppm(), links.loss), (Regions::World, 100_000, Share::NONE));
    assert!(!scenario.quick && scenario.traffic.is_empty() && scenario.adversaries.is_empty());
}

#[test]
fn a_file_that_says_everything_is_understood() {
    let scenario = Scenario::parse("full.toml", FULL).expect("it is a scenario");
    let Population { slow, up, sites, preset, limits, .. } = &scenario.population;
    let slow = slow.expect("some are slow");
    assert_eq!((slow.share.ppm(), slow.up.map(Rate::bytes), slow.down), (200_000, Some(1_250_000), None));
    assert_eq!((up.map(Rate::bytes), *sites, *preset), (Some(6_250_000), Sites::Spread(7), Preset::Local));
    assert!(limits.exempt_local && !limits.discovery_site_limits);
    let latency = Span::read("20ms").expect("a duration");
    assert_eq!(scenario.links.regions, Regions::One { latency, spread: Share::from_ppm(300_000) });
    let traffic = &scenario.traffic[0];
    assert_eq!((traffic.pace, traffic.messages()), (Pace::PerSecond(10), 600));
    assert_eq!((traffic.size.min.bytes(), traffic.size.max.bytes()), (100, 4_096));
    assert_eq!(scenario.traffic[1].pace, Pace::Every(Span::seconds(4)));
    assert_eq!(scenario.traffic[1].policy, Policy::Anonymous);
    assert_eq!(scenario.lookups[0].count, 200);
    let actions: Vec<u64> = scenario.timeline.iter().map(|event| event.at.get().as_secs()).collect();
    assert_eq!(actions, [30, 35, 40, 41, 42, 43, 44, 45, 46], "in the order of time");
    let crash = Action::Crash { share: Share::from_ppm(300_000), restart_after: Some(Span::seconds(5)), keep: false };
    assert_eq!(scenario.timeline[2].action, crash);
    let adversary = &scenario.adversaries[0];
    assert_eq!((adversary.kind, adversary.sites), (Kind::Eclipser, Sites::Spread(20)));
    assert_eq!(adversary.options["victim"], OptionValue::Text("last".into()));
    assert_eq!(adversary.options["bursts"], OptionValue::Number(3));
    let Expectation { bound, value, .. } = &scenario.expect[1];
    assert_eq!((*bound, value.to_string()), (Bound::AtMost, "1.5 s".to_owned()));
}

const FULL: &str = r#"
name = "full"
about = "Everything at once."
seeds = 20
quick = true
duration = "90s"

[population]
nodes = 1000
bootnodes = 2
start = "10s"
preset = "local"
max_peers = 30
sites = 7
nat = "10%"
skew = "2s"
slow = { share = "20%", up = "10Mbit" }
up = "50Mbit"
down = "50Mbit"
limits = { exempt_local = true, discovery_site_limits = false }

[links]
regions = "one"
latency = "20ms"
spread = "30%"
jitter = "5%"
loss = "1%"
reorder = "1%"
corrupt = "0.1%"

[[traffic]]
topic = "blocks"
subscribers = "50%"
publishers = "10%"
rate = 10
size = "100B..4KiB"
from = "20s"
until = "80s"

[[traffic]]
topic = "rumours"
policy = "anonymous"
every = "4s"
size = "1KiB"
from = "20s"
until = "80s"

[[lookups]]
count = 200
from = "60s"
until = "80s"

[[timeline]]
at = "35s"
do = "heal"
[[timeline]]
at = "30s"
do = "partition"
shares = ["50%", "30%", "20%"]
[[timeline]]
at = "40s"
do = "crash"
share = "30%"
restart_after = "5s"
keep = false
[[timeline]]
at = "41s"
do = "restart-all"
within = "2s"
[[timeline]]
at = "42s"
do = "churn"
every = "1s"
share = "1%"
down_for = "10s"
until = "60s"
[[timeline]]
at = "43s"
do = "slow-reader"
share = "5%"
for = "30s"
[[timeline]]
at = "44s"
do = "clock-step"
share = "5%"
by = "-30s"
[[timeline]]
at = "45s"
do = "join"
nodes = 100
within = "1s"
[[timeline]]
at = "46s"
do = "cut"
from = "eu"
to = "us"

[[adversaries]]
kind = "eclipser"
share = "20%"
sites = 20
at = "15s"
options = { victim = "last", bursts = 3 }

[[expect]]
metric = "delivered"
at_least = "100%"
[[expect]]
metric = "delivery.p99"
at_most = "1.5s"
[[expect]]
metric = "copies"
at_most = "2.5"
[[expect]]
metric = "bans"
equals = 0
"#;

#[test]
fn an_unknown_key_is_named_with_its_line() {
    let said = with("colour = 1\n").expect_err("no such key");
    assert!(said.starts_with("some/where/small.toml:13: unknown field `colour`"), "{said}");
    assert!(said.contains("at_least"), "{said}");
    let said = with("[[timeline]]\nat = \"5s\"\ndo = \"heal\"\nhow = 1\n").expect_err("no such key");
    assert!(said.starts_with("some/where/small.toml:16: unknown field `how`"), "{said}");
}

#[test]
fn a_value_of_the_wrong_kind_is_answered_with_a_right_one() {
    let wrong = |from: &str, to: &str| parse(&SMALL.replace(from, to)).expect_err("a wrong value");
    let said = wrong("at_least = \"100%\"", "at_least = \"5 parsecs\"");
    assert!(said.contains(":12: ") && said.contains("a time such as \"400ms\""), "{said}");
    let said = wrong("duration = \"60s\"", "duration = 60");
    assert!(said.contains(":5: ") && said.contains("expected a duration such as \"250ms\""), "{said}");
    let said = wrong("nodes = 100", "nodes = 100\nnat = 0.2");
    assert!(said.contains(":9: ") && said.contains("expected a share such as \"20%\""), "{said}");
    let said = wrong("nodes = 100", "nodes = 100\nup = \"50MB\"");
    assert!(said.contains(":9: ") && said.contains("expected a bandwidth such as \"50Mbit\""), "{said}");
    let said = wrong("nodes = 100", "nodes = 100\nsites = 0");
    assert!(said.contains(":9: ") && said.contains("\"own\" or a number of /24"), "{said}");
    let said = wrong("nodes = 100", "nodes = -1");
    assert!(said.contains(":8: "), "{said}");
}

#[test]
fn a_scenario_is_called_as_its_file() {
    let said = parse(&SMALL.replace("\"small\"", "\"tiny\"")).expect_err("another name");
    assert_eq!(said, "some/where/small.toml:2: `name = \"tiny\"`, but the file is called `small`");
    let said = parse(&SMALL.replace("\"small\"", "\"Small one\"")).expect_err("no name");
    assert!(said.contains("lower-case"), "{said}");
}

#[test]
fn a_scenario_that_expects_nothing_is_refused() {
    let text = &SMALL[..SMALL.find("[[expect]]").expect("it expects something")];
    assert!(parse(text).expect_err("no expectation").contains("passes whatever happens"));
}

#[test]
fn populations_that_cannot_be_are_refused() {
    let wrong = |to: &str| parse(&SMALL.replace("nodes = 100", to)).expect_err("it cannot be");
    assert!(wrong("nodes = 0").contains(":7: `nodes` is from 1"));
    assert!(wrong("nodes = 5\nbootnodes = 6").contains("at most the 5 nodes"));
    assert!(wrong("nodes = 5\nbootnodes = 0").contains("at least 1"));
    assert!(wrong("nodes = 5\nstart = \"60s\"").contains("would never start"));
    assert!(wrong("nodes = 5\nmax_peers = 0").contains("`max_peers` is at least 1"));
    assert!(wrong("nodes = 5\nstatics = 5").contains("there are 4 others"));
    assert!(wrong("nodes = 5\nslow = { share = \"5%\" }").contains("`slow` needs `up`"));
    let said = wrong("nodes = 5\n[links]\nlatency = \"5ms\"");
    assert!(said.contains(":9: `latency` and `spread` are for `regions = \"one\"`"), "{said}");
}

#[test]
fn traffic_that_cannot_be_is_refused() {
    let traffic = |keys: &str| format!("[[traffic]]\ntopic = \"a\"\nsize = \"1KiB\"\n{keys}\n");
    let cases = [
        ("rate = 1\nfrom = \"5s\"\nuntil = \"5s\"", ":13: `until` is not after `from`"),
        ("rate = 1\nfrom = \"5s\"\nuntil = \"61s\"", "after the run's end"),
        ("from = \"5s\"\nuntil = \"6s\"", "how often?"),
        ("rate = 1\nevery = \"1s\"\nfrom = \"5s\"\nuntil = \"6s\"", "keep one"),
        ("rate = 0\nfrom = \"5s\"\nuntil = \"6s\"", "more than 0"),
        ("rate = 1\npublishers = \"0.1%\"\nfrom = \"5s\"\nuntil = \"6s\"", "`publishers`: 0.1 % of 100 nodes is none"),
    ];
    for (keys, why) in cases {
        refused(&traffic(keys), why);
    }
    refused("[[lookups]]\ncount = 0\nfrom = \"1s\"\nuntil = \"2s\"\n", "`count` is at least 1");
}

#[test]
fn events_that_cannot_be_are_refused() {
    let cases = [
        ("at = \"60s\"\ndo = \"heal\"", "not before the run's end"),
        ("at = \"6s\"\ndo = \"heal\"", "nothing to heal"),
        ("at = \"6s\"\ndo = \"partition\"\nshares = [\"50%\", \"60%\"]", "`shares` are 110 % together"),
        ("at = \"6s\"\ndo = \"partition\"\nshares = [\"100%\"]", "at least two groups"),
        ("at = \"6s\"\ndo = \"partition\"", "`partition` needs `shares`, for example"),
        ("at = \"6s\"\ndo = \"crash\"\nshare = \"5%\"\nkeep = true", "`keep` is about nodes that come back"),
        ("at = \"6s\"\ndo = \"heal\"\nrestart_after = \"5s\"", "`heal` takes no `restart_after`"),
        ("at = \"6s\"\ndo = \"crash\"\nshare = \"5%\"\nrestart_after = \"55s\"", "after the run's end"),
        ("at = \"6s\"\ndo = \"crash\"\nshare = \"0.1%\"", "is none"),
        (
            "at = \"6s\"\ndo = \"churn\"\nevery = \"1s\"\nshare = \"1%\"\ndown_for = \"1s\"\nuntil = \"5s\"",
            "`until` is not after `at`",
        ),
        ("at = \"6s\"\ndo = \"join\"\nnodes = 0", "`nodes` is at least 1"),
        ("at = \"6s\"\ndo = \"cut\"\nfrom = \"eu\"\nto = \"eu\"", "same region"),
        ("at = \"6s\"\ndo = \"explode\"", "unknown variant `explode`, expected one of `partition`, `heal`"),
    ];
    for (keys, why) in cases {
        refused(&format!("[[timeline]]\n{keys}\n"), why);
    }
}

#[test]
fn adversaries_that_cannot_be_are_refused() {
    let cases = [
        ("kind = \"liar\"\nshare = \"20%\"", ":13: where do they come from?"),
        ("kind = \"liar\"\nsites = 4", "how many?"),
        ("kind = \"liar\"\nsites = 4\nshare = \"5%\"\ncount = 5", "keep one"),
        ("kind = \"liar\"\nsites = 4\ncount = 0", "none of them"),
        ("kind = \"liar\"\nsites = 4\nshare = \"100%\"", "no honest node would be left"),
        ("kind = \"liar\"\nsites = 4\ncount = 1\nat = \"60s\"", "would never start"),
        ("kind = \"liar\"\nsites = 4\ncount = 1\noptions = { a = [1] }", "a string or an integer"),
        ("kind = \"devil\"\nsites = 4\ncount = 1", "unknown variant `devil`"),
    ];
    for (keys, why) in cases {
        refused(&format!("[[adversaries]]\n{keys}\n"), why);
    }
}

#[test]
fn expectations_that_cannot_be_are_refused() {
    let cases = [
        ("metric = \"bootstrapped\"\nat_least = 5", ":13: `bootstrapped` is a share (\"99.9%\")"),
        ("metric = \"bootstrapped\"", "exactly one of"),
        ("metric = \"bootstrapped\"\nat_least = \"1%\"\nat_most = \"2%\"", "exactly one of"),
        ("metric = \"delivered\"\nat_least = \"1%\"", "no `[[traffic]]`"),
        ("metric = \"lookup.exact\"\nat_least = \"1%\"", "no `[[lookups]]`"),
        ("metric = \"victim.table\"\nat_most = \"1%\"", "no `[[adversaries]]`"),
        ("metric = \"bans\"\nat_least = 1", "no `[[adversaries]]`"),
        ("metric = \"own\"\nat_most = 2.5", "a ratio such as \"2.31\""),
        ("metric = \"own\"\nat_most = -1", "a count such as 12"),
    ];
    for (keys, why) in cases {
        refused(&format!("[[expect]]\n{keys}\n"), why);
    }
}

const REQUESTS: &str = r#"
[[requests]]
handler = "height/1"
rate = 10
question = "100B"
answer = "1KiB"
deadline = "5s"
from = "10s"
until = "50s"
"#;

#[test]
fn members_and_places_are_understood_and_refused_where_they_would_be_none() {
    let members = |share: &str| SMALL.replace("nodes = 100", &format!("nodes = 100\nmembers = {share}"));
    let text = members("{ share = \"20%\", weight = 10 }") + REQUESTS + "places = 16\n";
    let expects = "[[expect]]\nmetric = \"requests.members.answered\"\nat_least = \"99%\"\n";
    let scenario = parse(&(text + expects)).expect("it is a scenario");
    assert_eq!(scenario.population.members, Some(Members { share: Share::from_ppm(200_000), weight: 10 }));
    assert_eq!(scenario.requests[0].places, Some(16));
    let said = parse(&members("{ share = \"0.1%\", weight = 10 }")).expect_err("it is nobody");
    assert!(said.contains("`members`: 0.1 % of 100 nodes is none"), "{said}");
    let said = parse(&members("{ share = \"10%\" }")).expect_err("it has no weight");
    assert!(said.contains("missing field `weight`"), "{said}");
    refused(&format!("{REQUESTS}places = 0\n"), "`places` is at least 1");
    refused(&format!("{REQUESTS}{expects}"), "no `members` in its [population]");
}

#[test]
fn what_is_held_is_compared_with_a_time_in_the_first_half() {
    let held = |from: &str| SMALL.replace("duration = ", &format!("held_from = \"{from}\"\nduration = "));
    let expects = "[[expect]]\nmetric = \"held.growth\"\nat_most = \"1.25\"\n";
    assert_eq!(parse(&(held("30s") + expects)).expect("it is a scenario").held_from, Some(Span::seconds(30)));
    assert_eq!(parse(SMALL).expect("it is a scenario").held_from, None);
    let said = parse(&held("31s")).expect_err("it is in the second half");
    assert!(said.starts_with("some/where/small.toml:5: `held_from` is in the first half"), "{said}");
    refused(expects, "no `held_from`");
}

#[test]
fn hostile_nodes_are_their_share_of_the_whole() {
    let hostile = |more: &str| with(more).expect("it is a scenario").hostile();
    let table = |keys: &str| format!("[[adversaries]]\nkind = \"liar\"\nsites = 4\n{keys}\n");
    assert_eq!(hostile(&table("share = \"50%\"")), [100]);
    assert_eq!(hostile(&table("share = \"20%\"")), [25]);
    assert_eq!(hostile(&table("count = 7")), [7]);
    assert_eq!(hostile(&table("share = \"0.01%\"")), [1], "never none");
    let both = table("count = 20") + &table("share = \"25%\"") + &table("share = \"25%\"");
    assert_eq!(hostile(&both), [20, 60, 60]);
}

#[test]
fn messages_come_evenly_from_the_first_moment_to_before_the_last() {
    let scenario = Scenario::parse("full.toml", FULL).expect("it is a scenario");
    let (fast, slow) = (&scenario.traffic[0], &scenario.traffic[1]);
    assert_eq!(fast.moment(0).as_millis(), 20_000);
    assert_eq!(fast.moment(599).as_millis(), 79_900);
    assert_eq!((slow.messages(), slow.moment(14).as_secs()), (15, 76));
    assert_eq!(Pace::PerSecond(3).offset(1).as_nanos(), 333_333_333, "rounded down, never added up");
    assert_eq!(Pace::PerSecond(3).offset(3).as_nanos(), 1_000_000_000);
}

#[test]
fn a_file_that_is_not_there_is_named() {
    let error = Scenario::read(Path::new("no/such/file.toml")).expect_err("it is not there");
    assert!(error.to_string().starts_with("no/such/file.toml: "), "{error}");
}
