//! All the nodes of a cluster: starting them, following their topics, asking them, ending them.

use std::path::{Path, PathBuf};
use std::sync::mpsc::Sender;
use std::thread;
use std::time::{Duration, Instant};

use super::client::{Answer, Client, ClientError, Counters, StreamEvent};
use super::process::{Facts, NodeProcess, Usage};
use super::publish::{Publish, Step};
use super::tally::{Hash, Life};
use crate::shell::Failure;

/// How long a node may take to drain after SIGINT.
const DRAIN_LIMIT: Duration = Duration::from_secs(5);

/// What the threads of a run tell the one that keeps the account.
#[derive(Debug)]
pub(crate) enum Note {
    Started { node: usize, life: Life, facts: Result<Facts, String> },
    Subscribed { node: usize, life: Life },
    Message { node: usize, life: Life, id: String, hash: Hash, at: Instant },
    Missed { node: usize, count: u64 },
    StreamEnded { node: usize, life: Life, why: String },
    Publisher { step: Step, at: Instant },
    PublisherEnded(Result<(), String>),
}

/// One node over all its lives.
struct Node {
    folder: PathBuf,
    process: NodeProcess,
    life: Life,
    client: Option<Client>,
    subscribed: bool,
    peers: Option<usize>,
    counters: Counters,
    /// What its present process has used, and what those before it had.
    usage: Option<Usage>,
    before: Usage,
}

/// How a node ended when it was asked to.
pub(crate) struct Ended {
    pub(crate) exit_code: Option<i32>,
    /// Why that is not as it should be.
    pub(crate) complaint: Option<String>,
}

pub(crate) struct Nodes {
    program: PathBuf,
    folder: PathBuf,
    notes: Sender<Note>,
    /// The first node's address: all that the others are told.
    bootnode: Option<String>,
    nodes: Vec<Node>,
}

impl Nodes {
    /// No node yet; each will live in a folder of its own below `folder`.
    pub(crate) fn new(program: &Path, folder: &Path, notes: Sender<Note>) -> Self {
        let (program, folder) = (program.to_path_buf(), folder.to_path_buf());
        Self { program, folder, notes, bootnode: None, nodes: Vec::new() }
    }

    pub(crate) fn count(&self) -> usize {
        self.nodes.len()
    }

    /// Starts one more node.
    pub(crate) fn add(&mut self) -> Result<(), Failure> {
        let index = self.nodes.len();
        let folder = self.folder.join(format!("node-{}", index + 1));
        let process = self.start(index, 0, &folder)?;
        self.nodes.push(Node {
            folder,
            process,
            life: 0,
            client: None,
            subscribed: false,
            peers: None,
            counters: Counters::default(),
            usage: None,
            before: Usage::default(),
        });
        Ok(())
    }

    fn start(&self, node: usize, life: Life, folder: &Path) -> Result<NodeProcess, Failure> {
        let notes = self.notes.clone();
        // A note that nobody reads any more is about a run that has ended.
        let started = move |facts| drop(notes.send(Note::Started { node, life, facts }));
        let bootnode = self.bootnode.as_deref().filter(|_| node > 0);
        let spawn = |source| Failure::Spawn { program: self.program.display().to_string(), source };
        NodeProcess::start(&self.program, folder, bootnode, started).map_err(spawn)
    }

    /// Kills a node with SIGKILL and starts it again on its data.
    pub(crate) fn restart(&mut self, index: usize) -> Result<(), Failure> {
        self.measure(index);
        let node = &mut self.nodes[index];
        node.process.kill().map_err(Failure::file(&node.folder))?;
        node.life += 1;
        node.client = None;
        node.subscribed = false;
        node.peers = None;
        if let Some(usage) = node.usage.take() {
            node.before.cpu_s += usage.cpu_s;
            node.before.peak_rss_mib = node.before.peak_rss_mib.max(usage.peak_rss_mib);
        }
        let (life, folder) = (node.life, node.folder.clone());
        self.nodes[index].process = self.start(index, life, &folder)?;
        Ok(())
    }

    /// A node has said where it is: follows its topic.
    pub(crate) fn started(&mut self, index: usize, life: Life, facts: &Facts) {
        if life != self.nodes[index].life {
            return;
        }
        if index == 0 {
            self.bootnode = facts.listening.first().cloned();
        }
        let client = Client::new(&facts.api, &facts.metrics);
        self.nodes[index].client = Some(client.clone());
        let notes = self.notes.clone();
        thread::spawn(move || {
            let result = client.subscribe(|event| {
                let note = match event {
                    StreamEvent::Subscribed => Note::Subscribed { node: index, life },
                    StreamEvent::Message { id, hash } => {
                        Note::Message { node: index, life, id, hash, at: Instant::now() }
                    }
                    StreamEvent::Lagged { missed } => Note::Missed { node: index, count: missed },
                };
                drop(notes.send(note));
            });
            let why = result.map_or_else(|error| error.to_string(), |()| "the node closed it".to_owned());
            drop(notes.send(Note::StreamEnded { node: index, life, why }));
        });
    }

    pub(crate) fn subscribed(&mut self, index: usize, life: Life) {
        if life == self.nodes[index].life {
            self.nodes[index].subscribed = true;
        }
    }

    pub(crate) fn is_present_life(&self, index: usize, life: Life) -> bool {
        self.nodes[index].life == life
    }

    /// Whether the node is up, subscribed and has at least `wanted` peers, asking it now.
    pub(crate) fn is_in_mesh(&mut self, index: usize, wanted: usize) -> bool {
        self.ask(index);
        let node = &self.nodes[index];
        node.subscribed && node.peers.is_some_and(|peers| peers >= wanted)
    }

    /// Where the node is on its way into the mesh, in words.
    pub(crate) fn situation(&self, index: usize) -> String {
        let node = &self.nodes[index];
        match (&node.client, node.subscribed, node.peers) {
            (None, ..) => "has not said it is ready".to_owned(),
            (Some(_), false, _) => "has not confirmed the subscription".to_owned(),
            (Some(_), true, Some(peers)) => format!("has {peers} peers"),
            (Some(_), true, None) => "does not say its peers".to_owned(),
        }
    }

    fn ask(&mut self, index: usize) {
        let node = &mut self.nodes[index];
        if let Some(client) = &node.client {
            node.peers = client.peers().ok();
        }
    }

    /// A node that has ended though nobody asked it to: its number and how.
    pub(crate) fn crashed(&mut self) -> Option<(usize, String)> {
        self.nodes.iter_mut().enumerate().find_map(|(index, node)| match node.process.ended() {
            Ok(None) => None,
            Ok(Some(status)) => Some((index, format!("node {} ended by itself ({status})", index + 1))),
            Err(error) => Some((index, format!("node {} cannot be watched: {error}", index + 1))),
        })
    }

    /// Reads what every node has used and counted, as long as they can still be asked.
    pub(crate) fn measure_all(&mut self) {
        for index in 0..self.nodes.len() {
            self.ask(index);
            self.measure(index);
            let node = &mut self.nodes[index];
            if let Some(counters) = node.client.as_ref().and_then(|client| client.counters().ok()) {
                node.counters = counters;
            }
        }
    }

    fn measure(&mut self, index: usize) {
        let node = &mut self.nodes[index];
        node.usage = node.process.usage().or(node.usage);
    }

    pub(crate) fn peers(&self, index: usize) -> Option<usize> {
        self.nodes[index].peers
    }

    pub(crate) fn counters(&self, index: usize) -> Counters {
        self.nodes[index].counters
    }

    /// The largest memory of its processes, and their CPU time together.
    pub(crate) fn usage(&self, index: usize) -> Option<Usage> {
        let node = &self.nodes[index];
        node.usage.map(|usage| Usage {
            peak_rss_mib: usage.peak_rss_mib.max(node.before.peak_rss_mib),
            cpu_s: usage.cpu_s + node.before.cpu_s,
        })
    }

    pub(crate) fn was_restarted(&self, index: usize) -> bool {
        self.nodes[index].life > 0
    }

    pub(crate) fn tail(&self, index: usize, lines: usize) -> String {
        self.nodes[index].process.tail(lines)
    }

    /// Something that publishes through these nodes from another thread.
    pub(crate) fn publisher(&self) -> impl Publish + Send + use<> {
        Clients(self.nodes.iter().map(|node| node.client.clone()).collect())
    }

    /// Asks all nodes to drain, waits, and kills whoever has not ended in time.
    pub(crate) fn stop(&mut self) -> Vec<Ended> {
        for node in &mut self.nodes {
            // Whoever cannot be asked is found still running, or ended, below.
            let _ = node.process.interrupt();
        }
        let deadline = Instant::now() + DRAIN_LIMIT;
        self.nodes.iter_mut().enumerate().map(|(index, node)| end(index, &mut node.process, deadline)).collect()
    }
}

fn end(index: usize, process: &mut NodeProcess, deadline: Instant) -> Ended {
    let name = format!("node {}", index + 1);
    loop {
        match process.ended() {
            Ok(Some(status)) => {
                let complaint = (!status.success()).then(|| format!("{name} did not drain with code 0 ({status})"));
                return Ended { exit_code: status.code(), complaint };
            }
            Ok(None) if Instant::now() < deadline => thread::sleep(Duration::from_millis(10)),
            Ok(None) => {
                let killed = process.kill().map_or_else(|error| error.to_string(), |_| "killed".to_owned());
                let complaint = format!("{name} had not drained {} s after SIGINT ({killed})", DRAIN_LIMIT.as_secs());
                return Ended { exit_code: None, complaint: Some(complaint) };
            }
            Err(error) => {
                return Ended { exit_code: None, complaint: Some(format!("{name} cannot be watched: {error}")) };
            }
        }
    }
}

/// The APIs of all nodes, by number.
struct Clients(Vec<Option<Client>>);

impl Publish for Clients {
    fn publish(&self, node: usize, payload: &[u8]) -> Result<Answer, ClientError> {
        match self.0.get(node) {
            Some(Some(client)) => client.publish(payload),
            _ => Err(ClientError::Malformed { what: "a started node" }),
        }
    }
}
