//! What a scenario says of its adversaries, checked.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::scenario::{Kind, OptionValue, Size, Span};

/// What an adversary's options say, or their defaults.
#[derive(Clone, Debug)]
pub(super) struct Settings {
    /// How often it does what it does, a second: messages, ids, topic changes, dials or requests.
    pub(super) rate: u64,
    /// Bytes of what it publishes.
    pub(super) size: u32,
    /// How long its sessions last.
    pub(super) stay: Duration,
    /// How long after its start it begins.
    pub(super) after: Duration,
    /// When it turns, by the scenario's clock.
    pub(super) turn: Duration,
    /// Whom it aims at.
    pub(super) victim: Aim,
}

/// Whom a kind with one victim aims at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Aim {
    /// The last honest node of those that are there from the start.
    Last,
    /// The honest node of this number, from 0; bootnodes are the first.
    Node(u32),
}

/// Options of a kind, and how often it does what it does a second if nobody says.
fn known(kind: Kind) -> (&'static [&'static str], u64) {
    match kind {
        Kind::Liar => (&["after"], 0),
        Kind::Eclipser => (&["victim", "rate", "after"], 2),
        Kind::Spammer => (&["rate", "size", "after"], 5),
        Kind::Staller => (&["after"], 0),
        Kind::Equivocator => (&["rate", "size", "after"], 1),
        Kind::Flapper => (&["rate", "stay", "after"], 5),
        Kind::FreeRider => (&["after"], 0),
        Kind::InvalidSignatures => (&["rate", "size", "after"], 10),
        Kind::GraftFlood => (&["rate", "after"], 1_000),
        Kind::IHaveFlood | Kind::IWantFlood => (&["rate", "after"], 4_000),
        Kind::ColdBoot => (&["rate", "after"], 10),
        Kind::CovertFlash => (&["turn"], 0),
        Kind::ShardPollution => (&["after"], 0),
        Kind::NonCodeword => (&["rate", "size", "after"], 1),
        Kind::RequestFlood => (&["rate", "size", "after"], 1_000),
        Kind::SlowAnswers => (&["after"], 0),
    }
}

impl Settings {
    /// Reads the options of a kind.
    ///
    /// # Errors
    /// In words: which option there is not, or what it should be.
    pub(super) fn read(kind: Kind, options: &BTreeMap<String, OptionValue>) -> Result<Settings, String> {
        let (names, rate) = known(kind);
        if let Some(name) = options.keys().find(|name| !names.contains(&name.as_str())) {
            return Err(format!("{kind} has no option `{name}`: it has {}", names.join(", ")));
        }
        let span = |name: &str, default: u64| match options.get(name) {
            None => Ok(Duration::from_secs(default)),
            Some(OptionValue::Text(text)) if Span::read(text).is_some() => {
                Ok(Span::read(text).unwrap_or_default().get())
            }
            Some(_) => Err(format!("{kind}: `{name}` is a time like \"10s\"")),
        };
        let rate = match options.get("rate") {
            None => rate,
            Some(OptionValue::Number(rate)) if (1..=1_000_000).contains(rate) => rate.unsigned_abs(),
            Some(_) => return Err(format!("{kind}: `rate` is a whole number a second, from 1 to 1000000")),
        };
        let size = match options.get("size") {
            // Smaller ones are not coded.
            None if kind == Kind::NonCodeword => Some(128 << 10),
            None => Some(1_024),
            Some(OptionValue::Text(text)) => Size::read(text).and_then(|size| u32::try_from(size.bytes()).ok()),
            Some(OptionValue::Number(_)) => None,
        };
        let victim = match options.get("victim") {
            None => Aim::Last,
            Some(OptionValue::Text(text)) if text == "last" => Aim::Last,
            Some(OptionValue::Number(number)) => {
                let number = u32::try_from(*number);
                Aim::Node(number.map_err(|_| format!("{kind}: `victim` is \"last\" or a number from 0"))?)
            }
            Some(OptionValue::Text(_)) => return Err(format!("{kind}: `victim` is \"last\" or a number from 0")),
        };
        Ok(Settings {
            rate,
            size: size.ok_or_else(|| format!("{kind}: `size` is a size like \"1KiB\""))?,
            stay: span("stay", 1)?,
            after: span("after", if kind == Kind::Staller { 10 } else { 0 })?,
            turn: span("turn", 30)?,
            victim,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(kind: Kind, name: &str, value: OptionValue) -> Result<Settings, String> {
        Settings::read(kind, &BTreeMap::from([(name.to_owned(), value)]))
    }

    #[test]
    fn every_kind_has_defaults_and_refuses_what_it_does_not_know() {
        for kind in Kind::ALL {
            assert!(Settings::read(kind, &BTreeMap::new()).is_ok(), "{kind}");
            let said = read(kind, "colour", OptionValue::Number(1)).expect_err("no kind has a colour");
            assert!(said.contains("no option `colour`"), "{said}");
        }
    }

    #[test]
    fn options_are_read_with_their_units() {
        let text = |text: &str| OptionValue::Text(text.to_owned());
        let turn = read(Kind::CovertFlash, "turn", text("45s")).expect("a time").turn;
        assert_eq!(turn, Duration::from_secs(45));
        assert_eq!(read(Kind::Spammer, "rate", OptionValue::Number(7)).expect("a rate").rate, 7);
        assert_eq!(read(Kind::Spammer, "size", text("4KiB")).expect("a size").size, 4_096);
        assert_eq!(read(Kind::Eclipser, "victim", OptionValue::Number(3)).expect("a node").victim, Aim::Node(3));
        for (kind, name, value) in [
            (Kind::CovertFlash, "turn", OptionValue::Number(45)),
            (Kind::Spammer, "rate", OptionValue::Number(0)),
            (Kind::Spammer, "size", text("much")),
            (Kind::Eclipser, "victim", text("me")),
        ] {
            let said = read(kind, name, value).expect_err("it is no such value");
            assert!(said.contains(&format!("`{name}`")), "{said}");
        }
    }
}
