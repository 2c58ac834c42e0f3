//! Five nodes on a line, joined by plain channels: what the first one says reaches the last, though a
//! third of all pushes fail. No server, no sockets, no actors.
//!
//! `cargo run -p peerage-gossip --example rumour`

use std::collections::VecDeque;
use std::time::Duration;

use peerage_gossip::bytes::Bytes;
use peerage_gossip::peerage_machine::{Driver, Rng, Time};
use peerage_gossip::peerage_queue::{ChannelId, SessionId};
use peerage_gossip::peerage_wire::Keypair;
use peerage_gossip::{Config, GossipMachine, In, Out, PeerUp, Policy, Topic};

const NODES: usize = 5;

struct Node {
    keys: Keypair,
    gossip: Driver<GossipMachine>,
}

/// What connects them.
struct Wire {
    /// What is under way: to whom, from whom, what.
    queue: VecDeque<(usize, usize, Bytes)>,
    lossy: bool,
    chance: Rng,
    pushed: usize,
    failed: usize,
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let topic = Topic::new("rumours")?;
    let mut nodes: Vec<Node> = (0..NODES)
        .map(|n| {
            let keys = Keypair::from_seed([n as u8 + 1; 32]);
            let machine = GossipMachine::new(Config::recommended(), keys.id(), n as u64);
            Node { gossip: Driver::new(machine), keys }
        })
        .collect();
    let ids: Vec<_> = nodes.iter().map(|node| node.keys.id()).collect();
    let mut wire = Wire { queue: VecDeque::new(), lossy: false, chance: Rng::new(1), pushed: 0, failed: 0 };

    let start = Time::new(Duration::ZERO, Duration::from_secs(1_800_000_000));
    for (n, node) in nodes.iter_mut().enumerate() {
        let subscribe = In::Subscribe { token: 0, topic: topic.clone(), policy: Policy::Signed };
        node.gossip.handle(start, subscribe);
        // A node's session with node m is session m here, and all use channel 1.
        for m in (0..NODES).filter(|m| m.abs_diff(n) == 1) {
            let up = In::PeerUp(PeerUp::new(SessionId(m as u64), ids[m], ChannelId(1)));
            node.gossip.handle(start, up);
        }
    }

    let mut reached = 0;
    for tick in 0..6_000u32 {
        let now = start + Duration::from_millis(10) * tick;
        if tick == 200 {
            wire.lossy = true;
            println!("{:>5.2} s  node 0 says it", now.running().as_secs_f64());
            let payload = "the bridge is open".into();
            let publish =
                In::Publish { token: 1, topic: topic.clone(), policy: Policy::Signed, payload, pressed: false };
            nodes[0].gossip.handle(now, publish);
        }
        // One hop a tick.
        for _ in 0..wire.queue.len() {
            let Some((to, from, payload)) = wire.queue.pop_front() else { break };
            nodes[to].gossip.handle(now, In::Inbound { session: SessionId(from as u64), payload });
        }
        for (n, node) in nodes.iter_mut().enumerate() {
            node.gossip.expire_due(now);
            reached += usize::from(perform(n, node, now, &mut wire));
        }
        if reached == NODES {
            println!("everybody knows, though {} of {} pushes failed", wire.failed, wire.pushed);
            return Ok(());
        }
    }
    Err("somebody was never told".into())
}

/// Does what a node's machine asks for; says whether it delivered the message.
fn perform(n: usize, node: &mut Node, now: Time, wire: &mut Wire) -> bool {
    let mut delivered = false;
    loop {
        let outs: Vec<Out> = node.gossip.drain().collect();
        if outs.is_empty() {
            return delivered;
        }
        for out in outs {
            match out {
                Out::Push(push) => {
                    for recipient in push.to {
                        wire.pushed += usize::from(wire.lossy);
                        if wire.lossy && wire.chance.below(3) == 0 {
                            wire.failed += 1;
                            node.gossip.handle(now, In::SendFailed { session: recipient.session, tag: push.tag });
                        } else {
                            wire.queue.push_back((recipient.session.0 as usize, n, push.bytes.clone()));
                        }
                    }
                }
                Out::Deliver(message) => {
                    let text = String::from_utf8_lossy(&message.payload);
                    println!("{:>5.2} s  node {n} hears: {text}", now.running().as_secs_f64());
                    delivered = true;
                }
                Out::Sign { token, claim, .. } => {
                    let signature = claim.sign(&node.keys);
                    node.gossip.handle(now, In::Signed { token, signature });
                }
                Out::Verify { token, check, .. } => node.gossip.handle(now, In::Verified { token, ok: check.holds() }),
                _ => {}
            }
        }
    }
}
