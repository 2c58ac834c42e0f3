//! The client's shell: asks name servers, keeps the time, and offers what is found.

use std::collections::BTreeSet;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use peerage_machine::Driver;
use peerage_wire::{NodeRecord, Verified};
use tokio::task::JoinSet;

use super::entry::ListLink;
use super::list::{In, ListConfig, ListMachine, Out, Refusal};
use super::stub::{Lookup, StubResolver};
use crate::source::{MAX_OFFER, Source};
use crate::sources::count::SourceEvent;
use crate::sources::tasks::{Shell, sleep_until};

/// With so many nodes in the table, no more are wanted of lists.
const ENOUGH: usize = 64;
/// How often it is seen whether more are.
const LOOK: Duration = Duration::from_secs(15);
/// Complaints that are remembered, so that each is made once.
const MAX_TOLD: usize = 1_024;

/// Runs until it is dropped.
pub(in crate::sources) async fn run(lists: Vec<ListLink>, server: Option<SocketAddr>, shell: Shell) {
    run_with(lists, Arc::new(StubResolver::new(server)), shell).await;
}

async fn run_with(lists: Vec<ListLink>, lookup: Arc<dyn Lookup>, shell: Shell) {
    let config = ListConfig::recommended();
    let mut client = Client {
        driver: Driver::new(ListMachine::new(config, shell.network, lists, shell.seed)),
        lookup,
        limit: config.timeout,
        lookups: JoinSet::new(),
        told: BTreeSet::new(),
        found: Vec::new(),
        shell,
    };
    client.tell(In::Start);
    let mut look = tokio::time::interval(LOOK);
    loop {
        client.perform().await;
        let due = client.driver.next_deadline().map(|due| client.shell.clock.instant(due));
        tokio::select! {
            biased;
            Some(Ok((token, answer))) = client.lookups.join_next() => match answer {
                Ok(texts) => client.tell(In::Answer { token, texts }),
                Err(error) => {
                    tracing::debug!(%error, "a lookup in a list of nodes failed");
                    client.tell(In::Failed { token });
                }
            },
            _ = look.tick() => {
                let wanted = if client.shell.mailbox.table_len() < ENOUGH { MAX_OFFER } else { 0 };
                client.tell(In::Want(wanted));
            }
            () = sleep_until(due) => {
                let now = client.shell.clock.now();
                client.driver.expire_due(now);
            }
        }
    }
}

struct Client {
    driver: Driver<ListMachine>,
    lookup: Arc<dyn Lookup>,
    limit: Duration,
    /// At most as many as the machine lets be unanswered.
    lookups: JoinSet<(u64, io::Result<Vec<String>>)>,
    /// What was complained of since the list was last well.
    told: BTreeSet<(ListLink, Option<Refusal>)>,
    found: Vec<Verified<NodeRecord>>,
    shell: Shell,
}

impl Client {
    fn tell(&mut self, input: In) {
        let now = self.shell.clock.now();
        self.driver.handle(now, input);
    }

    async fn perform(&mut self) {
        let counters = self.shell.counters.clone();
        for out in self.driver.take_outs() {
            match out {
                Out::Query { token, name } => {
                    let (lookup, limit) = (self.lookup.texts(&name), self.limit);
                    self.lookups.spawn(async move {
                        let answer = tokio::time::timeout(limit, lookup).await;
                        (token, answer.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into())))
                    });
                }
                Out::Found(records) => {
                    records.iter().for_each(|_| counters.count(SourceEvent::ListNode));
                    self.found.extend(records);
                }
                Out::Accepted { link, seq } => {
                    counters.count(SourceEvent::ListRoot);
                    tracing::info!(%link, seq, "following a list of nodes");
                    self.told.retain(|(list, _)| *list != link);
                }
                Out::Failed { link, root } => {
                    counters.count(SourceEvent::ListFailed);
                    if root && self.first(&link, None) {
                        tracing::warn!(
                            "the list of nodes {link} cannot be looked up; is its name right, and does DNS work here? \
                             It is tried again"
                        );
                    }
                }
                Out::Refused { link, why } => {
                    counters.count(SourceEvent::ListRefused);
                    if self.first(&link, Some(why)) {
                        tracing::warn!("the list of nodes {link} is not used as it is: {}", why.label());
                    }
                }
            }
        }
        if !self.found.is_empty() {
            let found = std::mem::take(&mut self.found);
            self.shell.offer(Source::Dns, &found).await;
        }
    }

    fn first(&mut self, link: &ListLink, why: Option<Refusal>) -> bool {
        self.told.len() < MAX_TOLD && self.told.insert((link.clone(), why))
    }
}
