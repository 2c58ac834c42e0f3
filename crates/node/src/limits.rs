//! The limits of a running node: shown to people, changed in part, and read again from the file.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;

use peerage::server::gossip::Config as GossipConfig;
use peerage::{Config, Limits, Mode, Node};
use serde::Serialize;
use serde_json::{Map, Number, Value, json};
use tokio::sync::Mutex;

use crate::cli::{self, NoRun, Settings};

/// The limits as people write them: durations are seconds.
pub(crate) fn shown(limits: &Limits) -> Result<Value, String> {
    serde_json::to_value(limits).map(human).map_err(|error| error.to_string())
}

fn human(value: Value) -> Value {
    if let Some((seconds, nanos)) = duration(&value) {
        let parts = seconds as f64 + f64::from(nanos) / 1e9;
        return if nanos == 0 { json!(seconds) } else { Number::from_f64(parts).map_or(Value::Null, Value::Number) };
    }
    match value {
        Value::Object(fields) => Value::Object(fields.into_iter().map(|(name, field)| (name, human(field))).collect()),
        Value::Array(items) => Value::Array(items.into_iter().map(human).collect()),
        value => value,
    }
}

/// What serde makes of a `Duration`.
fn duration(value: &Value) -> Option<(u64, u32)> {
    let fields = value.as_object().filter(|fields| fields.len() == 2)?;
    Some((fields.get("secs")?.as_u64()?, u32::try_from(fields.get("nanos")?.as_u64()?).ok()?))
}

/// The limits with some of them changed.
///
/// # Errors
/// What of it cannot be, in words. Whether it adds up is for the node to say.
pub(crate) fn patched(limits: &Limits, patch: &Value) -> Result<Limits, String> {
    let mut value = serde_json::to_value(limits).map_err(|error| error.to_string())?;
    // What is switched off and on again is what it is by default, but for what is said of it.
    let usual = serde_json::to_value(Limits::of(&Config::recommended())).map_err(|error| error.to_string())?;
    merge(&mut value, patch, &usual, "")?;
    serde_json::from_value(value).map_err(|error| format!("limits: {error}"))
}

/// Limits with parts that are switched off as a whole, by `null`.
const OPTIONAL: [&str; 1] = ["throttle.cpu"];

fn merge(current: &mut Value, patch: &Value, usual: &Value, path: &str) -> Result<(), String> {
    if OPTIONAL.contains(&path) {
        if patch.is_null() {
            *current = Value::Null;
            return Ok(());
        }
        if current.is_null() {
            *current = usual.clone();
        }
    }
    if duration(current).is_some() {
        let seconds = patch.as_f64().filter(|seconds| (0.0..=1e9).contains(seconds));
        let seconds = seconds.ok_or_else(|| format!("`{path}` is a number of seconds, and not {patch}"))?;
        let time = std::time::Duration::from_secs_f64(seconds);
        *current = json!({ "secs": time.as_secs(), "nanos": time.subsec_nanos() });
        return Ok(());
    }
    match (current, patch) {
        (Value::Object(fields), Value::Object(patch)) => {
            for (name, patch) in patch {
                let path = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
                match fields.get_mut(name) {
                    Some(field) => merge(field, patch, usual.get(name).unwrap_or(&Value::Null), &path)?,
                    None => return Err(no_such(name, &path, fields)),
                }
            }
            Ok(())
        }
        (Value::Object(fields), patch) => {
            let names: Vec<&str> = fields.keys().map(String::as_str).collect();
            let named = if path.is_empty() { "what is asked" } else { path };
            Err(format!("`{named}` has {}, and cannot be {patch}", names.join(", ")))
        }
        // Where nothing stands for something, `null` is it.
        (Value::Number(_), patch) if !patch.is_u64() && !patch.is_null() => {
            Err(format!("`{path}` is a whole number, and not {patch}"))
        }
        (current, patch) => {
            *current = patch.clone();
            Ok(())
        }
    }
}

fn no_such(name: &str, path: &str, fields: &Map<String, Value>) -> String {
    if let Some(near) = cli::nearest(name, fields.keys().map(String::as_str)) {
        return format!("there is no limit `{path}`; did you mean `{near}`?");
    }
    let names: Vec<&str> = fields.keys().map(String::as_str).collect();
    format!("`{path}` is nothing that can change while the node runs; there are {}", names.join(", "))
}

/// The configuration that the settings ask for.
///
/// # Errors
/// What of the file's limits cannot be.
pub(crate) fn configuration(settings: &Settings) -> Result<Config, String> {
    let mut config = if settings.local { Config::local() } else { Config::recommended() };
    match settings.gossip_mode {
        Mode::Peerage => {}
        Mode::Gossipsub => config.gossip = GossipConfig::gossipsub(),
        Mode::Plumtree => config.gossip = GossipConfig::plumtree(),
    }
    config.gossip.coded.admitted.clone_from(&settings.coded);
    config.max_peers = settings.max_peers;
    config.max_static_peers = settings.max_static_peers;
    config.dial_ratio = settings.dial_ratio;
    config.listener.slots = settings.max_pending;
    config.listener.reserved = config.listener.reserved.min(settings.max_pending / 8);
    config.listener.shared_addresses.clone_from(&settings.shared);
    let throttle = &mut config.queue.throttle;
    [(throttle.download.node, throttle.upload.node), (throttle.download.peer, throttle.upload.peer)] =
        settings.bandwidth;
    config.health.min_peers = settings.min_peers;
    config.health.expect_inbound = settings.expect_inbound.then_some(true);
    let shedding = &mut config.shedding;
    shedding.memory = settings.shed_memory.unwrap_or(shedding.memory);
    shedding.cpu = settings.shed_cpu.map_or(shedding.cpu, |percent| percent * 10);
    shedding.disk = settings.shed_disk.unwrap_or(shedding.disk);
    if let Some(patch) = &settings.file.limits {
        patched(&Limits::of(&config), patch).map_err(|error| format!("[limits]: {error}"))?.apply(&mut config);
    }
    Ok(config)
}

/// What came of a change.
#[derive(Debug, Serialize)]
pub(crate) struct Changed {
    limits: Value,
    /// By name.
    pub(crate) changed: BTreeSet<String>,
    /// What the file says otherwise than when the node was started, and it cannot change while it runs.
    pub(crate) needs_restart: BTreeSet<String>,
}

/// Why nothing changed.
#[derive(Debug)]
pub(crate) enum Refused {
    /// What was asked cannot be; in words.
    Wrong(String),
    /// The node does not answer.
    Gone(peerage::AskError),
}

impl From<peerage::SetLimitsFailed> for Refused {
    fn from(failed: peerage::SetLimitsFailed) -> Refused {
        match failed {
            peerage::SetLimitsFailed::Ask(error) => Refused::Gone(error),
            peerage::SetLimitsFailed::Refused(sum) => Refused::Wrong(sum),
        }
    }
}

/// Changes a node's limits, one change after the other.
pub(crate) struct Changer {
    node: Node,
    typed: Vec<OsString>,
    /// What the file said when the node was started.
    fixed: BTreeMap<String, String>,
    /// Held while one is at it: two that change different limits must not undo each other's.
    turn: Mutex<()>,
}

impl Changer {
    pub(crate) fn new(node: Node, typed: Vec<OsString>, fixed: BTreeMap<String, String>) -> Changer {
        Changer { node, typed, fixed, turn: Mutex::new(()) }
    }

    /// The limits that hold now.
    pub(crate) async fn limits(&self) -> Result<Value, Refused> {
        shown(&self.node.limits().await.map_err(Refused::Gone)?).map_err(Refused::Wrong)
    }

    /// Changes those that are named, all of them or none.
    pub(crate) async fn patch(&self, patch: &Value) -> Result<Changed, Refused> {
        let _turn = self.turn.lock().await;
        let before = self.node.limits().await.map_err(Refused::Gone)?;
        let after = patched(&before, patch).map_err(Refused::Wrong)?;
        self.set(&before, after, BTreeSet::new()).await
    }

    /// Makes them what the command line and the file say now.
    pub(crate) async fn reload(&self) -> Result<Changed, Refused> {
        let _turn = self.turn.lock().await;
        let settings = cli::parse(self.typed.iter().cloned()).map_err(|no_run| match no_run {
            NoRun::Wrong(sentence) => Refused::Wrong(sentence),
            NoRun::Asked(_) => Refused::Wrong("the command line asks for help".into()),
        })?;
        let config = configuration(&settings).map_err(Refused::Wrong)?;
        let said = &settings.file.fixed;
        let names = self.fixed.keys().chain(said.keys());
        let needs_restart = names.filter(|name| self.fixed.get(*name) != said.get(*name)).cloned().collect();
        let before = self.node.limits().await.map_err(Refused::Gone)?;
        self.set(&before, Limits::of(&config), needs_restart).await
    }

    async fn set(&self, before: &Limits, after: Limits, needs_restart: BTreeSet<String>) -> Result<Changed, Refused> {
        let (old, new) = (shown(before).map_err(Refused::Wrong)?, shown(&after).map_err(Refused::Wrong)?);
        let mut changed = BTreeSet::new();
        differences(&old, &new, "", &mut changed);
        if !changed.is_empty() {
            self.node.set_limits(after).await?;
        }
        Ok(Changed { limits: new, changed, needs_restart })
    }
}

fn differences(old: &Value, new: &Value, path: &str, found: &mut BTreeSet<String>) {
    match (old, new) {
        (Value::Object(old), Value::Object(new)) => {
            for (name, value) in new {
                let path = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
                differences(old.get(name).unwrap_or(&Value::Null), value, &path, found);
            }
        }
        (old, new) if old != new => drop(found.insert(path.to_owned())),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use peerage::CpuLimits;

    use super::*;

    fn limits() -> Limits {
        Limits::of(&Config::recommended())
    }

    #[test]
    fn limits_are_shown_in_seconds_and_read_as_they_are_shown() {
        let shown = shown(&limits()).expect("JSON");
        assert_eq!((&shown["max_peers"], &shown["reputation"]["half_life"]), (&json!(50), &json!(600)));
        assert_eq!(shown["listener"]["per_host"], json!({ "burst": 10, "period": 10 }));
        assert_eq!(patched(&limits(), &shown), Ok(limits()), "nothing changes");
    }

    #[test]
    fn what_is_named_changes_and_nothing_else() {
        let patch = json!({
            "max_peers": 9,
            "health": { "min_peers": 3, "settle": 0.5 },
            "listener": { "shared_addresses": [{ "network": "192.0.2.0/24", "factor": 4 }] },
        });
        let after = patched(&limits(), &patch).expect("fine");
        assert_eq!((after.max_peers, after.health.min_peers), (9, Some(3)));
        assert_eq!(after.health.settle, Duration::from_millis(500));
        assert_eq!(after.listener.shared_addresses[0].factor, 4);
        let (mut changed, old) = (BTreeSet::new(), shown(&limits()).expect("JSON"));
        differences(&old, &shown(&after).expect("JSON"), "", &mut changed);
        let names = ["health.min_peers", "health.settle", "listener.shared_addresses", "max_peers"];
        assert_eq!(changed.iter().map(String::as_str).collect::<Vec<_>>(), names);
        assert_eq!(patched(&after, &json!({ "health": { "min_peers": null } })).expect("fine").health.min_peers, None);
    }

    #[test]
    fn a_limit_of_several_parts_is_switched_off_and_on_again_as_a_whole() {
        let before = limits();
        let off = patched(&before, &json!({ "throttle": { "cpu": null } })).expect("it may be off");
        assert_eq!((off.throttle.cpu, off.throttle.messages), (None, before.throttle.messages));
        let part = patched(&off, &json!({ "throttle": { "cpu": { "half_life": 2.5 } } })).expect("in part");
        let cpu = part.throttle.cpu.expect("it is on");
        assert_eq!(cpu, CpuLimits { half_life: Duration::from_millis(2_500), ..CpuLimits::recommended() });
        assert_eq!(patched(&off, &shown(&before).expect("JSON")), Ok(before), "what was shown can be said again");
        let told = patched(&off, &json!({ "throttle": { "cpu": 5 } })).expect_err("no number");
        assert!(told.contains("`throttle.cpu` has "), "{told}");
        let told = patched(&off, &json!({ "throttle": null })).expect_err("not all of it");
        assert!(told.contains("`throttle` has "), "{told}");
    }

    #[test]
    fn what_is_no_limit_or_no_value_of_one_is_refused_with_the_nearest_name() {
        let told = |patch: Value| patched(&limits(), &patch).expect_err("wrong");
        assert_eq!(told(json!({ "max_peer": 1 })), "there is no limit `max_peer`; did you mean `max_peers`?");
        let deep = told(json!({ "listener": { "slot": 1 } }));
        assert_eq!(deep, "there is no limit `listener.slot`; did you mean `slots`?");
        assert!(
            told(json!({ "drain_timeout_of_the_node": 1 })).contains("nothing that can change while the node runs")
        );
        assert!(told(json!({ "max_peers": -1 })).contains("whole number"));
        assert!(told(json!({ "max_peers": "many" })).contains("whole number"));
        assert!(told(json!({ "max_peers": 1u64 << 40 })).contains("limits: "));
        assert!(told(json!({ "health": { "settle": -1 } })).contains("number of seconds"));
        assert!(told(json!({ "health": 5 })).contains("`health` has "));
        assert!(told(json!([1])).contains("what is asked"));
        assert!(told(json!({ "health": { "min_peers": "x" } })).contains("limits: "));
    }
}
