//! The shell of the machine: reads sockets, seals and sends, checks signatures, keeps the timers.

use std::collections::BTreeMap;
use std::sync::Arc;

use peerage_machine::Driver;
use peerage_machine::journal::{Genesis as _, Journals};
use peerage_mailbox::{
    Alarm, Bell, Capacity, Child, Clock, Inlet, Meter, Port, SpawnError, Supervisor, data_queue, spawn_child,
};
use peerage_transport::Datagram;
use peerage_wire::{Admission, AdmissionError, Keypair, NetworkId, NodeRecord, Verified, codec};
use ractor::{Actor, ActorProcessingErr, ActorRef};
use tokio::sync::watch;

use crate::config::{Config, ConfigError};
use crate::count::DropReason;
use crate::gate::{Gate, Inbound};
use crate::genesis::DiscoveryGenesis;
use crate::ingress::{Asked, DiscoveryMailbox, DiscoveryOut, Msg, TableGauge};
use crate::machine::{Bootnode, DiscoveryMachine, In, Out, Outgoing};
use crate::metrics::Metrics;
use crate::secrets::Secrets;
use crate::socket::{self, Reader, Sockets};
use crate::wire::MAX_PACKET;

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
    /// Bound sockets: one for each family, or one for each address.
    pub sockets: Vec<Arc<Datagram>>,
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
    alarm: Alarm,
    inlet: Inlet<Inbound>,
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
    /// Ended when dropped, and so whenever this actor ends.
    _readers: Vec<Reader>,
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
        let Args { meter, journals, out, .. } = args;
        let (network, metrics) = (record.network(), Metrics::new(&meter));
        let items = config.queue_packets;
        let (outlet, inlet) = data_queue(Capacity { items, weight: items * MAX_PACKET });
        inlet.bind(Bell::new(&myself, || Msg::Wake));
        let (admission, admitted) = watch::channel(admission);
        let readers = sockets
            .iter()
            .map(|socket| {
                let gate = Gate::new(config.clone(), keys.id(), network, secrets.clone());
                let mut admitted = admitted.clone();
                admitted.mark_changed();
                let ended = Port::to_actor(&myself, |()| Msg::ReaderEnded);
                socket::read(socket.clone(), gate, admitted, clock, outlet.clone(), metrics.clone(), ended)
            })
            .collect();
        let sockets = Sockets::new(&sockets);
        let turn = config.turn;
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
            _readers: readers,
        })
    }

    async fn post_start(&self, _: ActorRef<Msg>, state: &mut State) -> Result<(), ActorProcessingErr> {
        state.metrics.table(state.table);
        state.tell(In::Start);
        state.settle();
        Ok(())
    }

    async fn handle(&self, _: ActorRef<Msg>, message: Msg, state: &mut State) -> Result<(), ActorProcessingErr> {
        match message {
            Msg::Wake => {
                for _ in 0..state.turn {
                    let Some(inbound) = state.inlet.pop() else { break };
                    state.tell(In::Packet(inbound));
                    state.perform();
                }
                state.inlet.ring_if_more();
            }
            Msg::Tick => {
                state.alarm.ticked();
                let now = state.clock.now();
                state.driver.expire_due(now);
            }
            Msg::Want(count) => state.tell(In::Want(count)),
            Msg::Outcome { id, ok } => state.tell(In::Outcome { id, ok }),
            Msg::LocalChanged(record) => state.tell(In::LocalChanged(record)),
            Msg::Admission(admission) => {
                warn_of_refused(&state.bootnodes, &admission);
                state.admission.send_replace(admission.clone());
                state.tell(In::Admission(admission));
            }
            Msg::ResolveFor { attempt, id } => state.ask(Asked::Attempt(attempt), |token| In::Resolve { token, id }),
            Msg::Lookup { target, reply } => state.ask(Asked::Records(reply), |token| In::Lookup { token, target }),
            Msg::Resolve { id, reply } => state.ask(Asked::Record(reply), |token| In::Resolve { token, id }),
            Msg::Random { count, reply } => state.ask(Asked::Records(reply), |token| In::Random { token, count }),
            Msg::Closest { target, count, reply } => {
                state.ask(Asked::Records(reply), |token| In::Closest { token, target, count });
            }
            // The parent starts this actor anew, with new readers.
            Msg::ReaderEnded => return Err("a socket reader ended".into()),
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
                        self.tell(In::Verified { token, records });
                    }
                    Out::Candidates(found) => {
                        self.metrics.candidates.increment(found.len() as u64);
                        self.out.send(DiscoveryOut::Candidates(found));
                    }
                    Out::Answer { token, records } => {
                        if let Some(asked) = self.asked.remove(&token) {
                            self.answer(asked, records);
                        }
                    }
                    Out::Alive(record) => self.out.send(DiscoveryOut::Alive(record)),
                    Out::Drop(reason) => self.metrics.dropped(reason),
                    Out::Event(event) => self.metrics.event(event),
                }
            }
        }
    }

    fn send(&mut self, outgoing: Outgoing) {
        let Outgoing { to, addr, packet } = outgoing.tied(&self.secrets);
        let kind = packet.message.kind();
        if self.sockets.send(&packet.seal(self.network, &self.keys, to), addr) {
            self.metrics.sent(kind);
        } else {
            self.metrics.dropped(DropReason::NotSent);
        }
    }

    /// Ends a turn.
    fn settle(&mut self) {
        self.perform();
        self.alarm.set(self.driver.next_deadline());
        let table = self.driver.machine().table_sizes();
        if table != self.table {
            self.table = table;
            self.table_len.set(table.iter().sum());
            self.metrics.table(table);
        }
    }
}
