//! The reference: the same messages over the same graph by plain TCP, each sent on to everybody but who sent it.

use std::net::Ipv4Addr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use peerage_machine::Rng;
use tokio::net::{TcpListener, TcpStream};
use tokio::time::interval;

use super::rate::{DEGREE, NODES, PAUSE, SIZE, messages, times};
use super::tally::Tally;
use super::{Times, graph};
use crate::Failure;
use crate::job::Values;
use crate::machine::Usage;

struct Node {
    number: usize,
    links: Vec<TcpStream>,
    /// By the message's number.
    seen: Vec<AtomicBool>,
    tally: Tally,
    /// A socket did not take a message at once: the figures are of something else then.
    blocked: AtomicBool,
}

impl Node {
    /// Sends a message to all but the link that it came by, if it is new.
    fn pass_on(&self, message: &[u8], from: Option<usize>) {
        let number = message[..8].try_into().map_or(usize::MAX, |bytes| u64::from_be_bytes(bytes) as usize);
        if self.seen.get(number).is_none_or(|seen| seen.swap(true, Ordering::Relaxed)) {
            return;
        }
        if from.is_some() {
            self.tally.delivered(self.number, message);
        }
        for (link, stream) in self.links.iter().enumerate() {
            if Some(link) != from && !matches!(stream.try_write(message), Ok(SIZE)) {
                self.blocked.store(true, Ordering::Relaxed);
            }
        }
    }

    async fn read(self: Arc<Node>, link: usize) {
        let (mut buffer, mut filled) = (vec![0; 64 * SIZE], 0);
        while self.links[link].readable().await.is_ok() {
            match self.links[link].try_read(&mut buffer[filled..]) {
                Ok(len @ 1..) => filled += len,
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => continue,
                _ => return,
            }
            let whole = filled / SIZE * SIZE;
            buffer[..whole].chunks(SIZE).for_each(|message| self.pass_on(message, Some(link)));
            buffer.copy_within(whole..filled, 0);
            filled -= whole;
        }
    }
}

pub(super) async fn run(Times { warm, run }: Times, seed: u64) -> Result<Values, Failure> {
    let mut links: Vec<Vec<TcpStream>> = (0..NODES).map(|_| Vec::new()).collect();
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
    for (from, to) in graph::regular(NODES, DEGREE, seed).ok_or("there is no such graph")? {
        let (dialled, accepted) = tokio::join!(TcpStream::connect(listener.local_addr()?), listener.accept());
        for (node, stream) in [(from, dialled?), (to, accepted?.0)] {
            stream.set_nodelay(true)?;
            links[node].push(stream);
        }
    }
    let (tally, total) = (Tally::new(NODES - 1), messages(warm) + messages(run));
    let node = |(number, links)| {
        let seen = (0..total).map(|_| AtomicBool::new(false)).collect();
        Arc::new(Node { number, links, seen, tally: tally.clone(), blocked: AtomicBool::new(false) })
    };
    let nodes: Vec<Arc<Node>> = links.into_iter().enumerate().map(node).collect();
    for node in &nodes {
        for link in 0..node.links.len() {
            tokio::spawn(node.clone().read(link));
        }
    }
    let (mut rng, mut tick) = (Rng::new(seed), interval(PAUSE));
    let mut publish = async |count: usize| {
        for _ in 0..count {
            tick.tick().await;
            let (node, (_, message)) = (nodes[rng.index(NODES).unwrap_or(0)].clone(), tally.publish(SIZE));
            tokio::spawn(async move { node.pass_on(&message, None) });
        }
        tick.tick().await;
    };
    publish(messages(warm)).await;
    let (cpu, deliveries) = (Usage::now().cpu_us, tally.deliveries());
    publish(messages(run)).await;
    let (cpu, deliveries) = (Usage::now().cpu_us - cpu, (tally.deliveries() - deliveries).max(1) as f64);
    tally.settle(Duration::from_secs(5)).await;
    let (delivered, due, took) = tally.since(messages(warm));
    if delivered < due || nodes.iter().any(|node| node.blocked.load(Ordering::Relaxed)) {
        return Err("plain TCP did not keep up".into());
    }
    let mut values = Values::from([("cpu_us".to_owned(), cpu / deliveries)]);
    times(&mut values, took);
    Ok(values)
}
