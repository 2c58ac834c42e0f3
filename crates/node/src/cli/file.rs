//! The file of settings: the flags' own names, so that both say the same and are read the same way.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::io::Read;
use std::path::Path;

use clap::parser::ValueSource;
use clap::{ArgAction, ArgMatches, CommandFactory, Parser};
use serde_json::Value;
use toml::{Table, Value as Toml};

use super::{Arguments, sentence};

/// Bytes that a file of settings may have.
const LARGEST: u64 = 1024 * 1024;
/// The flags that are limits too, and which limit each is: the flag wins.
const LIMITS: [(&str, &str); 14] = [
    ("max_peers", "/max_peers"),
    ("max_static_peers", "/max_static_peers"),
    ("dial_ratio", "/dial_ratio"),
    ("max_pending", "/listener/slots"),
    ("max_download", "/throttle/download/node"),
    ("max_upload", "/throttle/upload/node"),
    ("max_peer_download", "/throttle/download/peer"),
    ("max_peer_upload", "/throttle/upload/peer"),
    ("shared_net", "/listener/shared_addresses"),
    ("min_peers", "/health/min_peers"),
    ("expect_inbound", "/health/expect_inbound"),
    ("shed_memory", "/shedding/memory"),
    ("shed_cpu", "/shedding/cpu"),
    ("shed_disk", "/shedding/disk"),
];

/// What a file says that the command line does not.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct FileSays {
    /// Of the limits, as `PATCH /v1/limits` takes them.
    pub(crate) limits: Option<Value>,
    /// Of what a running node cannot change, as text.
    pub(crate) fixed: BTreeMap<String, String>,
}

/// Reads the file; everything that is said then, by what was typed or else by the file.
pub(super) fn read(path: &Path, said: &ArgMatches, typed: &[OsString]) -> Result<(Vec<OsString>, FileSays), String> {
    let wrong = |error: &dyn std::fmt::Display| format!("--config {}: {error}", path.display());
    let text = text(path).map_err(|error| wrong(&error))?;
    // The first line says where, the others show it.
    let one_line = |error: toml::de::Error| {
        let line = error.span().map_or(0, |span| text[..span.start.min(text.len())].lines().count().max(1));
        wrong(&format!("line {line}: {}", error.message()))
    };
    let mut table: Table = text.parse().map_err(one_line)?;
    let limits = table.remove("limits").map(serde_json::to_value).transpose().map_err(|error| wrong(&error))?;
    let (arguments, fixed) = arguments(table, said).map_err(|error| wrong(&error))?;
    // Alone first, so that what is wrong in it is known to be.
    let name = typed.first().cloned().unwrap_or_else(|| "node".into());
    let own = [name].into_iter().chain(arguments.iter().cloned());
    Arguments::try_parse_from(own).map_err(|error| wrong(&sentence(&error)))?;
    let all: Vec<OsString> = typed.iter().cloned().chain(arguments).collect();
    let mut limits = limits;
    if let Some(limits) = &mut limits {
        let both = Arguments::command().try_get_matches_from(&all).map_err(|error| wrong(&sentence(&error)))?;
        LIMITS.iter().filter(|(id, _)| is_said(&both, id)).for_each(|(_, at)| remove(limits, at));
    }
    Ok((all, FileSays { limits, fixed }))
}

fn text(path: &Path) -> std::io::Result<String> {
    let mut text = String::new();
    let read = std::fs::File::open(path)?.take(LARGEST + 1).read_to_string(&mut text)?;
    if read as u64 > LARGEST {
        return Err(std::io::Error::other(format!("it has more than {LARGEST} bytes; is it the right file?")));
    }
    Ok(text)
}

fn is_said(said: &ArgMatches, id: &str) -> bool {
    said.value_source(id) == Some(ValueSource::CommandLine)
}

/// Takes one out.
fn remove(limits: &mut Value, at: &str) {
    let Some((parent, name)) = at.rsplit_once('/') else { return };
    if let Some(Value::Object(parent)) = limits.pointer_mut(parent) {
        parent.remove(name);
    }
}

/// The flags that a table stands for, without those that were typed; and what of it a running node cannot change.
fn arguments(table: Table, said: &ArgMatches) -> Result<(Vec<OsString>, BTreeMap<String, String>), String> {
    let command = Arguments::command();
    let (mut arguments, mut fixed) = (Vec::new(), BTreeMap::new());
    for (key, value) in table {
        let known = command.get_arguments().find(|arg| arg.get_long() == Some(&key) && key != "config");
        let Some(arg) = known else {
            let names = command.get_arguments().filter_map(|arg| arg.get_long()).chain(["limits"]);
            return Err(unknown(&key, names.filter(|name| *name != "config")));
        };
        if !LIMITS.iter().any(|(id, _)| *id == arg.get_id().as_str()) {
            fixed.insert(key.clone(), value.to_string());
        }
        let takes_many = matches!(arg.get_action(), ArgAction::Append);
        let values = match (arg.get_action(), value) {
            (ArgAction::SetTrue, Toml::Boolean(on)) => {
                if on && !is_said(said, arg.get_id().as_str()) {
                    arguments.push(format!("--{key}").into());
                }
                continue;
            }
            (ArgAction::SetTrue, _) => return Err(format!("`{key}` is true or false")),
            (_, Toml::Array(values)) if takes_many => values,
            (_, value) => vec![value],
        };
        if is_said(said, arg.get_id().as_str()) {
            continue;
        }
        for value in values {
            let text = match value {
                Toml::String(text) => text,
                Toml::Integer(number) => number.to_string(),
                other => return Err(format!("`{key}` cannot be {other}: write it as text, or as a whole number")),
            };
            arguments.push(format!("--{key}={text}").into());
        }
    }
    Ok((arguments, fixed))
}

fn unknown<'a>(key: &str, names: impl Iterator<Item = &'a str>) -> String {
    let meant = nearest(key, names).map(|name| format!("; did you mean `{name}`?")).unwrap_or_default();
    format!("there is no `{key}`{meant}")
}

/// The name that takes fewest changes to become this one; nothing if that is most of it.
pub(crate) fn nearest<'a>(name: &str, names: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let near = names.map(|known| (distance(name, known), known)).min()?;
    (near.0 <= name.chars().count().max(3) / 2).then_some(near.1)
}

/// Letters to be added, left out or changed.
fn distance(one: &str, other: &str) -> usize {
    let other: Vec<char> = other.chars().collect();
    let mut row: Vec<usize> = (0..=other.len()).collect();
    for (n, letter) in one.chars().enumerate() {
        let mut diagonal = std::mem::replace(&mut row[0], n + 1);
        for (m, against) in other.iter().enumerate() {
            let changed = diagonal + usize::from(letter != *against);
            diagonal = row[m + 1];
            row[m + 1] = changed.min(row[m] + 1).min(diagonal + 1);
        }
    }
    row.last().copied().unwrap_or_default()
}
