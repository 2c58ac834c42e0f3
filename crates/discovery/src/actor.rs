//! The shell of the machine: reads sockets, seals and sends, checks signatures, keeps the timers.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use peerage_machine::Driver;
use peerage_machine::journal::{Genesis as _, Journals};
use peerage_mailbox::{
    Alarm, Bell, Capacity, Child, Clock, Inlet, Meter, Outlet, Port, SpawnError, Supervisor, data_queue, spawn_child,
};
use peerage_transport::Datagram;
use peerage_wire::{Admission, AdmissionError, Keypair, NetworkId, NodeRecord, Verified, codec};
use ractor::{Actor, ActorProcessingErr, ActorRef};
use tokio::sync::watch;

use crate::clock::{ClockIn, ClockMachine, ClockOut};
use crate::config::{Config, ConfigError};
use crate::count::{DropReason, Event};
use crate::external::{Predictor, PredictorConfig, PredictorIn, PredictorOut};
use crate::foreign::Foreign;
use crate::gate::{Gate, Known};
use crate::genesis::DiscoveryGenesis;
use crate::ingress::{Asked, DiscoveryMailbox, DiscoveryOut, Msg, TableGauge};
use crate::machine::{Bootnode, DiscoveryMachine, In, Out, Outgoing};
use crate::metrics::Metrics;
use crate::routes::Sockets;
use crate::secrets::Secrets;
use crate::socket::{Arrival, News, Reader, Reading};
use crate::sources::{Running, Shell, Sources};
use crate::wire::{MAX_PACKET, Message};

/// Questions that may wait for their answer at once.
const MAX_ASKED: usize = 256;

/// What a discovery actor is started with. All of it can be given again to start it anew after a failure: the
/// sockets are lent, and the same secrets keep the cookies that other nodes hold good.
#[derive(Clone)]
pub struct Args {
    /// Its numbers.
    pub config: Config,
    /// The node's key, to sign packets.
    pub keys: Keypair,
    /// The node's record.
    pub record: Verified<NodeRecord>,
    /// Bound sockets: one for each family, or one for each address. Answers leave from the one that was asked.
    pub sockets: Vec<Arc<Datagram>>,
    /// Where datagrams go that are not discovery's; see [`Foreign::queue`]. Without it they are dropped.
    pub foreign: Option<Outlet<Foreign>>,
    /// Whom to ask first.
    pub bootnodes: Vec<Bootnode>,
    /// What an earlier process remembered of [`DiscoveryOut::Alive`]: found nodes from the start. The first
    /// [`MAX_SEEDS`](crate::MAX_SEEDS) are used, and neither they nor bootnodes are needed.
    pub seeds: Vec<Verified<NodeRecord>>,
    /// Whom the node has to do with; see [`DiscoveryMailbox::admission`].
    pub admission: Arc<Admission>,
    /// Keys of cookies and nonces.
    pub secrets: Secrets,
    /// Decides jitter and sampling.
    pub seed: u64,
    /// The node's clock.
    pub clock: Clock,
    /// Where it learns of nodes besides the table.
    pub sources: Sources,
    /// Where it counts.
    pub meter: Meter,
    /// Where its machine's inputs are kept, in a build with the feature `journal`.
    pub journals: Journals,
    /// Who takes what it finds.
    pub out: Port<DiscoveryOut>,
}

/// Why discovery cannot start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The configuration does not add up.
    #[error("discovery configuration: {0}")]
    Config(#[from] ConfigError),
    /// The policy is too large.
    #[error(transparent)]
    Admission(#[from] AdmissionError),
    /// The record is another node's.
    #[error("the record is not signed by the node's own key")]
    Record,
    /// The actor did not come up.
    #[error(transparent)]
    Spawn(#[from] SpawnError),
}

/// Starts discovery.
///
/// # Errors
/// [`StartError`].
pub async fn spawn(args: Args, parent: &Supervisor) -> Result<(DiscoveryMailbox, Child), StartError> {
    args.config.check()?;
    args.admission.check(Admission::MAX_NETWORKS)?;
    if args.record.id() != args.keys.id() {
        return Err(StartError::Record);
    }
    let table = TableGauge::default();
    let (actor, child) = spawn_child(DiscoveryActor, (args, table.clone()), parent).await?;
    Ok((DiscoveryMailbox::new(actor, table), child))
}

struct DiscoveryActor;

struct State {
    driver: Driver<DiscoveryMachine>,
    predictor: Driver<Predictor>,
    alarm: Alarm,
    inlet: Inlet<Arrival>,
    turn: usize,
    sockets: Sockets,
    keys: Keypair,
    network: NetworkId,
    secrets: Secrets,
    clock: Clock,
    metrics: Metrics,
    out: Port<DiscoveryOut>,
    asked: BTreeMap<u64, Asked>,
    next_token: u64,
    table: [usize; crate::BUCKETS],
    table_len: TableGauge,
    bootnodes: Vec<Bootnode>,
    /// What the gates admit.
    admission: watch::Sender<Arc<Admission>>,
    /// Whom the gates keep signature checks for, in ascending order.
    known: watch::Sender<Arc<[Known]>>,
    /// Whether the table may hold others than `known`.
    table_changed: bool,
    /// Of packets.
    lifetime: Duration,
    /// Compares the clocks.
    comparison: Driver<ClockMachine>,
    /// Started once the actor runs, so that it can take what they offer.
    sources: (Sources, Option<Shell>),
    /// Ended when dropped, and so whenever this actor ends.
    running: Option<Running>,
    readers: Vec<Reader>,
}

impl Actor for DiscoveryActor {
    type Msg = Msg;
    type State = State;
    type Arguments = (Args, TableGauge);

    async fn pre_start(
        &self,
        myself: ActorRef<Msg>,
        (args, table_len): (Args, TableGauge),
    ) -> Result<State, ActorProcessingErr> {
        let Args { config, keys, record, sockets, bootnodes, seeds, admission, secrets, seed, clock, .. } = args;
        let Args { meter, journals, out, foreign, sources, .. } = args;
        let offering = DiscoveryMailbox::new(myself.clone(), table_len.clone());
        let shell = Shell::new(offering, record.network(), clock, &meter, seed);
        let (network, metrics) = (record.network(), Metrics::new(&meter));
        let items = config.queue_packets;
        let (outlet, inlet) = data_queue(Capacity { items, weight: items * MAX_PACKET });
        inlet.bind(Bell::new(&myself, || Msg::Wake));
        let (admission, admitted) = watch::channel(admission);
        let (known, in_table) = watch::channel(Arc::default());
        let news = News { admission: admitted, known: in_table };
        let sockets = Sockets::new(&sockets);
        let readers = sockets
            .numbered()
            .map(|(number, socket)| {
                let gate = Gate::new(config.clone(), keys.id(), network, secrets.clone());
                let (socket, news, outlet) = (socket.clone(), news.clone(), outlet.clone());
                let (foreign, metrics) = (foreign.clone(), metrics.clone());
                Reading { socket, number, gate, news, clock, outlet, foreign, metrics }
                    .start(Port::to_actor(&myself, |()| Msg::ReaderEnded))
            })
            .collect();
        let comparison = Driver::new(ClockMachine::new(config.exempt_local));
        let (turn, lifetime) = (config.turn, config.packet_lifetime);
        warn_of_refused(&bootnodes, &admission.borrow());
        let genesis = DiscoveryGenesis {
            config,
            record,
            families: sockets.families(),
            bootnodes: bootnodes.clone(),
            seeds,
            admission: admission.borrow().clone(),
            seed,
        };
        let recorder = journals.begin(clock.now(), || genesis.clone(), codec::encode, codec::encode);
        Ok(State {
            driver: Driver::new(genesis.build()?).recorded(recorder),
            predictor: Driver::new(Predictor::new(PredictorConfig::recommended())),
            alarm: Alarm::new(&myself, clock, || Msg::Tick),
            inlet,
            turn,
            sockets,
            keys,
            network,
            secrets,
            clock,
            metrics,
            out,
            asked: BTreeMap::new(),
            next_token: 0,
            table: [0; crate::BUCKETS],
            table_len,
            bootnodes,
            admission,
            known,
            table_changed: false,
            lifetime,
            comparison,
            sources: (sources, Some(shell)),
            running: None,
            readers,
        })
    }

    async fn post_start(&self, _: ActorRef<Msg>, state: &mut State) -> Result<(), ActorProcessingErr> {
        state.metrics.table(state.table);
        state.tell(In::Start);
        state.settle();
        let (sources, shell) = &mut state.sources;
        let local = state.driver.machine().local();
        state.running = shell.take().map(|shell| sources.start(local, shell));
        Ok(())
    }

    async fn post_stop(&self, _: ActorRef<Msg>, state: &mut State) -> Result<(), ActorProcessingErr> {
        // The state outlives the actor, and whoever starts the node anew needs its ports.
        for reader in state.readers.drain(..) {
            reader.end().await;
        }
        state.sockets = Sockets::new(&[]);
        Ok(())
    }

    async fn handle(&self, _: ActorRef<Msg>, message: Msg, state: &mut State) -> Result<(), ActorProcessingErr> {
        match message {
            Msg::Wake => {
                for _ in 0..state.turn {
                    let Some(arrival) = state.inlet.pop() else { break };
                    state.arrived(arrival);
                    state.perform();
                }
                state.inlet.ring_if_more();
            }
            Msg::Tick => {
                state.alarm.ticked();
                let now = state.clock.now();
                state.driver.expire_due(now);
                state.predictor.expire_due(now);
            }
            Msg::Want(count) => state.tell(In::Want(count)),
            Msg::Outcome { id, ok } => state.tell(In::Outcome { id, ok }),
            Msg::LocalChanged(record) => {
                #[cfg(feature = "mdns")]
                if let Some(announcer) = state.running.as_ref().and_then(|running| running.mdns.as_ref()) {
                    announcer.changed(record.clone());
                }
                state.tell(In::LocalChanged(record));
            }
            Msg::Admission(admission) => {
                warn_of_refused(&state.bootnodes, &admission);
                state.admission.send_replace(admission.clone());
                state.tell(In::Admission(admission));
            }
            Msg::Filter(rules) => state.tell(In::Filter(rules)),
            Msg::ResolveFor { attempt, id } => state.ask(Asked::Attempt(attempt), |token| In::Resolve { token, id }),
            Msg::Bootnodes { source, nodes } => {
                warn_of_refused(&nodes, &state.admission.borrow());
                state.tell(In::Bootnodes { source, nodes });
            }
            Msg::Offer { source, records, reply } => {
                state.tell(In::Offer { source, records });
                reply.send(());
            }
            Msg::Lookup { target, reply } => state.ask(Asked::Records(reply), |token| In::Lookup { token, target }),
            Msg::Resolve { id, reply } => state.ask(Asked::Record(reply), |token| In::Resolve { token, id }),
            Msg::Random { count, reply } => state.ask(Asked::Records(reply), |token| In::Random { token, count }),
            Msg::Closest { target, count, reply } => {
                state.ask(Asked::Records(reply), |token| In::Closest { token, target, count });
            }
            // The parent starts this actor anew, with new readers.
            Msg::ReaderEnded => return Err("a socket reader ended".into()),
            Msg::Local(reply) => reply.send(state.driver.machine().local().clone()),
            Msg::TableSizes(reply) => reply.send(state.driver.machine().table_sizes()),
            #[cfg(feature = "fault-injection")]
            Msg::Panic => panic!("injected into discovery"),
        }
        state.settle();
        Ok(())
    }
}

/// Says which bootnodes are of no use, or their user would wonder why nobody is found.
fn warn_of_refused(bootnodes: &[Bootnode], admission: &Admission) {
    for Bootnode { id, addr } in bootnodes {
        if !admission.permits_ip(addr.ip()) || !admission.permits_id(id) {
            tracing::warn!(%id, %addr, "this bootnode is not used: the node's own policy does not admit it");
        }
    }
}

impl State {
    fn tell(&mut self, input: In) {
        self.driver.handle(self.clock.now(), input);
    }

    fn arrived(&mut self, arrival: Arrival) {
        match arrival {
            Arrival::Told(told) => self.compare(ClockIn::Told(told)),
            Arrival::Packet { socket, inbound } => {
                // Before the machine speaks: its answer leaves from where the question came in.
                self.sockets.heard(inbound.addr, socket);
                if let Some(told) = inbound.told(self.lifetime) {
                    // A cookie is no answer yet: a node whose clock is wrong gets nothing else.
                    if inbound.packet.message != Message::Cookie {
                        self.compare(ClockIn::Answered);
                    }
                    self.compare(ClockIn::Told(told));
                }
                self.table_changed |= matches!(inbound.packet.message, Message::RecordResponse { .. });
                self.tell(In::Packet(inbound));
            }
        }
    }

    fn compare(&mut self, input: ClockIn) {
        self.comparison.handle(self.clock.now(), input);
        for out in self.comparison.take_outs() {
            match out {
                ClockOut::Drift(seconds) => {
                    self.table_len.set_drift(seconds);
                    self.metrics.clock_drift(seconds);
                }
                ClockOut::Warn(seconds) => {
                    let which = if seconds > 0 { "ahead of" } else { "behind" };
                    tracing::warn!(
                        "this computer's clock is {} s {which} its peers': they will refuse its packets, so set it right",
                        seconds.unsigned_abs()
                    );
                }
            }
        }
    }

    /// Puts a question to the machine and keeps where its answer goes.
    fn ask(&mut self, asked: Asked, question: impl FnOnce(u64) -> In) {
        if self.asked.len() >= MAX_ASKED {
            return self.answer(asked, Vec::new());
        }
        self.next_token += 1;
        self.asked.insert(self.next_token, asked);
        self.tell(question(self.next_token));
    }

    fn answer(&self, asked: Asked, records: Vec<Verified<NodeRecord>>) {
        match asked {
            Asked::Records(reply) => reply.send(records),
            Asked::Record(reply) => reply.send(records.into_iter().next()),
            Asked::Attempt(attempt) => {
                self.out.send(DiscoveryOut::Resolved { attempt, record: records.into_iter().next() });
            }
        }
    }

    /// Performs what the machine asks for until it asks for nothing more.
    fn perform(&mut self) {
        loop {
            let outs: Vec<Out> = self.driver.drain().collect();
            if outs.is_empty() {
                return;
            }
            for out in outs {
                match out {
                    Out::Send(outgoing) => self.send(outgoing),
                    Out::Verify { token, records } => {
                        let records = records.into_iter().filter_map(|record| match record.verify() {
                            Ok(record) => Some(record),
                            Err(_) => {
                                self.metrics.dropped(DropReason::BadRecord);
                                None
                            }
                        });
                        let records = records.collect();
                        self.table_changed = true;
                        self.tell(In::Verified { token, records });
                    }
                    Out::Candidates(found) => self.out.send(DiscoveryOut::Candidates(found)),
                    Out::Walked { hops, queries, .. } => self.metrics.walked(hops, queries),
                    Out::Handed(source) => self.metrics.handed(source),
                    Out::Answer { token, records } => {
                        if let Some(asked) = self.asked.remove(&token) {
                            self.answer(asked, records);
                        }
                    }
                    Out::Alive(record) => self.out.send(DiscoveryOut::Alive(record)),
                    Out::Observed { by, observed } => {
                        self.predictor.handle(self.clock.now(), PredictorIn::Stated { by, observed });
                    }
                    Out::Drop(reason) => self.metrics.dropped(reason),
                    Out::Event(event) => {
                        self.table_changed |= matches!(event, Event::NodeAdded | Event::NodeRemoved);
                        if event == Event::Timeout {
                            self.compare(ClockIn::TimedOut);
                        }
                        self.metrics.event(event);
                    }
                }
            }
        }
    }

    fn send(&mut self, outgoing: Outgoing) {
        let Outgoing { to, addr, packet } = outgoing.tied(&self.secrets);
        let kind = packet.message.kind();
        if kind.is_request() {
            self.predictor.handle(self.clock.now(), PredictorIn::Contact(addr.ip()));
        }
        if self.sockets.send(&packet.seal(self.network, &self.keys, to), addr) {
            self.metrics.sent(kind);
        } else {
            self.metrics.dropped(DropReason::NotSent);
        }
    }

    /// Ends a turn.
    fn settle(&mut self) {
        self.perform();
        for PredictorOut::Predicted(prediction) in self.predictor.drain() {
            self.out.send(DiscoveryOut::Predicted(prediction));
        }
        let deadlines = [self.driver.next_deadline(), self.predictor.next_deadline()];
        self.alarm.set(deadlines.into_iter().flatten().min());
        if std::mem::take(&mut self.table_changed) {
            let mut known: Vec<Known> = self.driver.machine().known().collect();
            known.sort_unstable();
            self.known.send_if_modified(|sent| {
                let changed = **sent != *known;
                if changed {
                    *sent = known.into();
                }
                changed
            });
        }
        let table = self.driver.machine().table_sizes();
        if table != self.table {
            self.table = table;
            self.table_len.set(table.iter().sum());
            self.metrics.table(table);
        }
    }
}
