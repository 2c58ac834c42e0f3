//! What befalls the world, and when.

use serde::Deserialize;

use super::units::{Share, Span, Step};

/// One entry of the timeline.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// When, from the run's start.
    pub at: Span,
    /// What.
    pub action: Action,
}

/// What befalls the world. Shares are of the honest nodes, bootnodes aside unless it says otherwise.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// All nodes, bootnodes included, fall into groups of these shares (together 100 %) that do not hear each other.
    Partition {
        /// The groups.
        shares: Vec<Share>,
    },
    /// Partitions and cuts end.
    Heal,
    /// Nodes stop without a word.
    Crash {
        /// How many.
        share: Share,
        /// They start again after this long. Default: never.
        restart_after: Option<Span>,
        /// Whether they then still have what they had persisted. Default: yes.
        keep: bool,
    },
    /// Every node, bootnodes included, stops and starts again.
    RestartAll {
        /// At seeded moments within this long.
        within: Span,
        /// Whether they still have what they had persisted. Default: yes.
        keep: bool,
    },
    /// Again and again, some nodes stop and come back.
    Churn {
        /// How often.
        every: Span,
        /// How many each time.
        share: Share,
        /// How long each is away.
        down_for: Span,
        /// When none stops any more.
        until: Span,
        /// Whether they come back with what they had persisted. Default: yes.
        keep: bool,
    },
    /// Nodes stop reading what they are sent.
    SlowReader {
        /// How many.
        share: Share,
        /// For how long.
        lasts: Span,
    },
    /// Wall clocks are set.
    ClockStep {
        /// Of how many nodes.
        share: Share,
        /// How far.
        by: Step,
    },
    /// New honest nodes appear.
    Join {
        /// How many.
        nodes: u32,
        /// At seeded moments within this long. Default: all at once.
        within: Span,
    },
    /// Nothing travels from one region to another any more.
    Cut {
        /// The region where it starts.
        from: String,
        /// The region where it would arrive.
        to: String,
    },
}

/// How a file names an action.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Do {
    Partition,
    Heal,
    Crash,
    RestartAll,
    Churn,
    SlowReader,
    ClockStep,
    Join,
    Cut,
}

impl Do {
    fn name(self) -> &'static str {
        match self {
            Self::Partition => "partition",
            Self::Heal => "heal",
            Self::Crash => "crash",
            Self::RestartAll => "restart-all",
            Self::Churn => "churn",
            Self::SlowReader => "slow-reader",
            Self::ClockStep => "clock-step",
            Self::Join => "join",
            Self::Cut => "cut",
        }
    }
}

/// `[[timeline]]` as written: the keys of every action.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawEvent {
    at: Span,
    #[serde(rename = "do")]
    verb: Do,
    shares: Option<Vec<Share>>,
    share: Option<Share>,
    restart_after: Option<Span>,
    keep: Option<bool>,
    within: Option<Span>,
    every: Option<Span>,
    down_for: Option<Span>,
    until: Option<Span>,
    #[serde(rename = "for")]
    lasts: Option<Span>,
    by: Option<Step>,
    nodes: Option<u32>,
    from: Option<String>,
    to: Option<String>,
}

/// The key's value, which the action needs.
fn need<T>(verb: Do, key: &str, example: &str, value: Option<T>) -> Result<T, String> {
    value.ok_or_else(|| format!("`{}` needs `{key}`, for example `{key} = {example}`", verb.name()))
}

impl RawEvent {
    pub(super) fn checked(mut self) -> Result<Event, String> {
        let verb = self.verb;
        let share = |share: &mut Option<Share>| need(verb, "share", "\"5%\"", share.take());
        let action = match verb {
            Do::Partition => {
                Action::Partition { shares: need(verb, "shares", "[\"50%\", \"50%\"]", self.shares.take())? }
            }
            Do::Heal => Action::Heal,
            Do::Crash => Action::Crash {
                keep: self.crash_keep()?,
                share: share(&mut self.share)?,
                restart_after: self.restart_after.take(),
            },
            Do::RestartAll => Action::RestartAll {
                within: need(verb, "within", "\"2s\"", self.within.take())?,
                keep: self.keep.take().unwrap_or(true),
            },
            Do::Churn => Action::Churn {
                every: need(verb, "every", "\"1s\"", self.every.take())?,
                share: share(&mut self.share)?,
                down_for: need(verb, "down_for", "\"10s\"", self.down_for.take())?,
                until: need(verb, "until", "\"60s\"", self.until.take())?,
                keep: self.keep.take().unwrap_or(true),
            },
            Do::SlowReader => Action::SlowReader {
                share: share(&mut self.share)?,
                lasts: need(verb, "for", "\"30s\"", self.lasts.take())?,
            },
            Do::ClockStep => {
                Action::ClockStep { share: share(&mut self.share)?, by: need(verb, "by", "\"30s\"", self.by.take())? }
            }
            Do::Join => Action::Join {
                nodes: need(verb, "nodes", "100", self.nodes.take())?,
                within: self.within.take().unwrap_or_default(),
            },
            Do::Cut => Action::Cut {
                from: need(verb, "from", "\"eu\"", self.from.take())?,
                to: need(verb, "to", "\"us\"", self.to.take())?,
            },
        };
        match self.left_over() {
            Some(key) => Err(format!("`{}` takes no `{key}`", verb.name())),
            None => Ok(Event { at: self.at, action }),
        }
    }

    fn crash_keep(&mut self) -> Result<bool, String> {
        match self.keep.take() {
            Some(_) if self.restart_after.is_none() => {
                Err("`keep` is about nodes that come back: `crash` needs `restart_after` too".to_owned())
            }
            keep => Ok(keep.unwrap_or(true)),
        }
    }

    /// A key that the action has not used.
    fn left_over(&self) -> Option<&'static str> {
        let keys = [
            ("shares", self.shares.is_some()),
            ("share", self.share.is_some()),
            ("restart_after", self.restart_after.is_some()),
            ("keep", self.keep.is_some()),
            ("within", self.within.is_some()),
            ("every", self.every.is_some()),
            ("down_for", self.down_for.is_some()),
            ("until", self.until.is_some()),
            ("for", self.lasts.is_some()),
            ("by", self.by.is_some()),
            ("nodes", self.nodes.is_some()),
            ("from", self.from.is_some()),
            ("to", self.to.is_some()),
        ];
        keys.into_iter().find(|(_, given)| *given).map(|(key, _)| key)
    }
}
