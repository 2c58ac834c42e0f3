//! Whole nodes on loopback, as the benches start them.

use std::net::Ipv4Addr;
use std::time::Duration;

use bytes::Bytes;
use peerage_server::gossip::{Policy, Publish, PublishError, Topic};
use peerage_server::journal::Journals;
use peerage_server::mailbox::{Clock, Meter, ask};
use peerage_server::nodedb::NodeDb;
use peerage_server::transport::Transport;
use peerage_server::wire::Keypair;
use peerage_server::{Args, Config, Listen, ServerMailbox};

use crate::Failure;

/// A node of this number, which is its identity too, that keeps nothing, knows nobody and counts nothing.
pub(crate) fn args(number: u8, config: Config) -> Args {
    Args {
        config,
        keys: Keypair::from_seed([number; 32]),
        listen: Listen::At(vec![(Ipv4Addr::LOCALHOST, 0).into()]),
        bootnodes: Vec::new(),
        statics: Vec::new(),
        trusted: Vec::new(),
        doors: Vec::new(),
        foreign: None,
        protocols: Vec::new(),
        membership: None,
        secret: None,
        transport: Transport::sockets(),
        clock: Clock::system(),
        meter: Meter::none(),
        journals: Journals::off(),
        seed: u64::from(number),
        db: NodeDb::memory(peerage_server::nodedb::Config::recommended()),
        min_record_seq: 0,
        sources: Default::default(),
        resolver: None,
    }
}

/// Publishes, signed, and again while the node is busy.
pub(crate) async fn publish(node: &ServerMailbox, topic: Topic, payload: Bytes) -> Result<(), Failure> {
    loop {
        let (topic, payload) = (topic.clone(), payload.clone());
        let asked = ask(Duration::from_secs(10), |reply| {
            // A full queue drops the reply, which is an answer too.
            drop(node.publisher().offer(Publish { topic, policy: Policy::Signed, payload, reply }));
        });
        match asked.await? {
            Ok(_) => return Ok(()),
            Err(PublishError::Busy { retry_after }) => tokio::time::sleep(retry_after).await,
            Err(error) => return Err(error.to_string().into()),
        }
    }
}
