//! Whole nodes in this process: started, connected as told, and asked what they have sent.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusHandle};
use peerage_server::gossip::{self, Message, Policy, Publish, PublishError, Topic};
use peerage_server::mailbox::{Capacity, Inlet, Meter, ask, data_queue};
use peerage_server::wire::NodeId;
use peerage_server::{Args, Config, PeerAddress, ServerMailbox, start};
use tokio::time::Instant;

use super::tally::Tally;
use crate::{Failure, node};

/// What a mode changes of gossip's configuration.
pub(super) type Change = fn(&mut gossip::Config);

/// Long enough for connections and for telling each other of topics.
const READY: Duration = Duration::from_secs(30);

#[derive(Clone)]
pub(super) struct Node {
    server: ServerMailbox,
    counted: PrometheusHandle,
    pub(super) at: SocketAddr,
    pub(super) id: NodeId,
}

/// What nodes have sent and received so far.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Wire {
    /// Bytes that sessions wrote to their sockets: everything but the handshakes and TCP's own.
    pub(super) sent: u64,
    /// Messages that came for the first time.
    pub(super) first: f64,
    /// Messages that came again.
    pub(super) again: f64,
}

fn topic() -> Result<Topic, Failure> {
    Ok(Topic::new("bench")?)
}

impl Node {
    /// A node as recommended for one machine, with its metrics on, that knows nobody.
    pub(super) async fn start(number: u8, change: Change) -> Result<Node, Failure> {
        // Connections are those that the bench makes.
        let mut config = Config { discovery_on: false, exchange_on: false, ..Config::local() };
        change(&mut config.gossip);
        let recorder = PrometheusBuilder::new().build_recorder();
        let counted = recorder.handle();
        let args = Args { meter: Meter::new(Arc::new(recorder)), ..node::args(number, config) };
        let server = start(args).await?;
        let local = PeerAddress::from(&*server.local().await?.record);
        let at = *local.addresses.first().ok_or("it listens nowhere")?;
        Ok(Node { server, counted, at, id: local.id })
    }

    /// Keeps a connection to a node.
    pub(super) async fn dial(&self, at: SocketAddr, id: NodeId) -> Result<(), Failure> {
        Ok(self.server.add_static(PeerAddress { id, addresses: vec![at], hosts: Vec::new() }).await?)
    }

    /// Waits until it has so many peers.
    pub(super) async fn connected(&self, peers: usize) -> Result<(), Failure> {
        let begun = Instant::now();
        while self.server.peer_count().await? < peers {
            if begun.elapsed() > READY {
                return Err(format!("a node has fewer than {peers} peers").into());
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        Ok(())
    }

    pub(super) async fn subscribe(&self) -> Result<Inlet<Message>, Failure> {
        let (outlet, inlet) = data_queue(Capacity { items: 100_000, weight: 256 << 20 });
        self.server.subscribe(topic()?, Policy::Signed, outlet).await?;
        Ok(inlet)
    }

    /// Has the tally told of what this node is handed, as the one of this number.
    pub(super) async fn listen(&self, number: usize, tally: Tally) -> Result<(), Failure> {
        let mut inlet = self.subscribe().await?;
        tokio::spawn(async move {
            // Lag would show as messages that were not delivered.
            while let Ok(message) = inlet.recv().await {
                if message.from.is_some() {
                    tally.delivered(number, &message.payload);
                }
            }
        });
        Ok(())
    }

    /// Publishes, and again while the node is busy: as an application does.
    pub(super) async fn publish(&self, payload: Bytes) -> Result<(), Failure> {
        loop {
            let topic = topic()?;
            let answer = ask(Duration::from_secs(10), |reply| {
                // A full queue drops the reply, which is an answer too.
                let publish = Publish { topic, policy: Policy::Signed, payload: payload.clone(), reply };
                drop(self.server.publisher().offer(publish));
            });
            match answer.await? {
                Ok(_) => return Ok(()),
                Err(PublishError::Busy { retry_after }) => tokio::time::sleep(retry_after).await,
                Err(error) => return Err(error.to_string().into()),
            }
        }
    }

    pub(super) async fn wire(&self) -> Result<Wire, Failure> {
        let sent = self.server.peers().await?.iter().map(|peer| peer.bytes_out).sum();
        let text = self.counted.render();
        let first = counter(&text, "peerage_gossip_messages_total{result=\"accepted\"}");
        Ok(Wire { sent, first, again: counter(&text, "peerage_gossip_duplicates_total") })
    }

    pub(super) async fn stop(&self) {
        self.server.shutdown().await;
    }
}

/// All nodes' together.
pub(super) async fn wire(nodes: &[Node]) -> Result<Wire, Failure> {
    let mut sum = Wire::default();
    for node in nodes {
        let Wire { sent, first, again } = node.wire().await?;
        sum = Wire { sent: sum.sent + sent, first: sum.first + first, again: sum.again + again };
    }
    Ok(sum)
}

/// The value of one counter of a Prometheus text; zero if nothing was counted.
fn counter(text: &str, name: &str) -> f64 {
    let value = |line: &str| line.strip_prefix(name)?.strip_prefix(' ')?.parse().ok();
    text.lines().find_map(value).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_counter_is_read_by_its_whole_name() {
        let text = "# TYPE a counter\na_b 1\na{x=\"y\"} 3\na 7\n";
        assert_eq!((counter(text, "a"), counter(text, "a{x=\"y\"}"), counter(text, "b")), (7.0, 3.0, 0.0));
    }
}
