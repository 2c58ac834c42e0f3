//! What honest nodes ask each other.

use std::time::Duration;

use serde::Deserialize;

use super::traffic::{Pace, pace};
use super::units::{Share, Size, Span};

/// Requests to one handler, which every honest node serves.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Requests {
    /// The handler's name.
    pub handler: String,
    /// The part of the honest nodes that asks. Default: all.
    pub askers: Share,
    /// How often somebody asks, in the whole network.
    pub pace: Pace,
    /// Bytes of a question.
    pub question: Size,
    /// Bytes of an answer.
    pub answer: Size,
    /// How long a node works on a call, one after another. Default: the answer is there at once.
    pub takes: Span,
    /// How many calls a second a node takes of one peer; it refuses others. Default: as many as there is room for.
    pub allowance: Option<u32>,
    /// How many calls a node has at work or waiting, of all peers together; it refuses others. Default: as the router's.
    pub places: Option<u32>,
    /// How long a request may take, all attempts together.
    pub deadline: Span,
    /// Whether another peer is asked where one does not answer. Default: yes.
    pub retry: bool,
    /// The first request is made now.
    pub from: Span,
    /// The last one before now.
    pub until: Span,
}

impl Requests {
    /// How many requests it is.
    pub fn requests(&self) -> u64 {
        self.pace.count(self.until.get().saturating_sub(self.from.get()))
    }

    /// When request `index` (from 0) is made.
    pub fn moment(&self, index: u64) -> Duration {
        self.from.get().saturating_add(self.pace.offset(index))
    }
}

/// `[[requests]]` as written.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawRequests {
    handler: String,
    #[serde(default = "all")]
    askers: Share,
    rate: Option<u32>,
    every: Option<Span>,
    question: Size,
    answer: Size,
    #[serde(default)]
    takes: Span,
    allowance: Option<u32>,
    places: Option<u32>,
    deadline: Span,
    #[serde(default = "yes")]
    retry: bool,
    from: Span,
    until: Span,
}

impl RawRequests {
    pub(super) fn checked(self) -> Result<Requests, String> {
        let pace = pace(self.rate, self.every, "request would ever be made")?;
        let Self { handler, askers, question, answer, takes, allowance, places, deadline, retry, from, until, .. } =
            self;
        let requests = Requests {
            handler,
            askers,
            pace,
            question,
            answer,
            takes,
            allowance,
            places,
            deadline,
            retry,
            from,
            until,
        };
        Ok(requests)
    }
}

fn all() -> Share {
    Share::ALL
}

fn yes() -> bool {
    true
}
