//! The shell of the exchange: feeds the machine what comes in, sends, checks signatures and dials back.

use std::net::SocketAddr;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use peerage_machine::Driver;
use peerage_machine::journal::{Genesis as _, Journals};
use peerage_mailbox::{Alarm, Bell, Child, Clock, Inlet, Meter, Outlet, Port, SpawnError, Supervisor, spawn_child};
use peerage_queue::{Inbound, Push, Recipient, SessionId, WhenFull};
use peerage_transport::Transport;
use peerage_wire::frame::Lane;
use peerage_wire::{Admission, NodeRecord, Penalty, Verified, codec};
use ractor::{Actor, ActorProcessingErr, ActorRef};
use tokio::task::JoinSet;

use super::config::Config;
use super::count::DropReason;
use super::genesis::ExchangeGenesis;
use super::ingress::{ExchangeMailbox, ExchangeOut, Msg};
use super::machine::{ExchangeMachine, In, Out};
use super::metrics::Metrics;
use super::wire::MAX_MESSAGE;

/// Session messages handled before others get their turn.
const BUDGET: usize = 64;

/// Whether a panic of the actor was charged to the peer whose message caused it: such a death does not count against
/// the actor. Clones are the same note.
#[derive(Clone, Debug, Default)]
pub struct Charge(Arc<AtomicBool>);

impl Charge {
    /// Whether the last death was charged; asked once for each.
    pub fn take(&self) -> bool {
        self.0.swap(false, Ordering::SeqCst)
    }
}

/// What an exchange actor needs. All of it outlives the actor.
#[derive(Clone, Debug)]
pub struct Args {
    /// Its numbers.
    pub config: Config,
    /// The node's record.
    pub record: Verified<NodeRecord>,
    /// Whom the node has to do with.
    pub admission: Arc<Admission>,
    /// Decides whom it asks, and when.
    pub seed: u64,
    /// What sessions receive on their channels `peers/1`.
    pub inbound: Inlet<Inbound>,
    /// To the queue actor.
    pub push: Outlet<Push>,
    /// Where connections to peers that ask for one are opened.
    pub transport: Transport,
    /// To the root.
    pub out: Port<ExchangeOut>,
    /// Who caused the last death.
    pub charge: Charge,
    /// The node's clock.
    pub clock: Clock,
    /// Where to count.
    pub meter: Meter,
    /// Where its machine's inputs are kept, in a build with the feature `journal`.
    pub journals: Journals,
}

/// Starts the actor. Its parent tells it of every session, again after a restart.
///
/// # Errors
/// [`SpawnError`] for a configuration that does not add up.
pub async fn spawn(args: Args, parent: &Supervisor) -> Result<(ExchangeMailbox, Child), SpawnError> {
    let (actor, child) = spawn_child(Exchange, args, parent).await?;
    Ok((ExchangeMailbox::new(actor), child))
}

struct Exchange;

struct State {
    driver: Driver<ExchangeMachine>,
    args: Args,
    alarm: Alarm,
    myself: ExchangeMailbox,
    /// Rung for what comes in, once there is a session for it to come from.
    bell: Option<Bell>,
    metrics: Metrics,
    /// Connections that are being opened for peers; as many as the machine asks for at a time. They end with it.
    dials: JoinSet<()>,
}

impl Actor for Exchange {
    type Msg = Msg;
    type State = State;
    type Arguments = Args;

    async fn pre_start(&self, myself: ActorRef<Msg>, args: Args) -> Result<State, ActorProcessingErr> {
        let genesis = ExchangeGenesis {
            config: args.config.clone(),
            record: args.record.clone(),
            admission: args.admission.clone(),
            seed: args.seed,
        };
        let recorder = args.journals.begin(args.clock.now(), || genesis.clone(), codec::encode, codec::encode);
        let mut state = State {
            driver: Driver::new(genesis.build()?).recorded(recorder),
            alarm: Alarm::new(&myself, args.clock, || Msg::Tick),
            bell: Some(Bell::new(&myself, || Msg::Wake)),
            myself: ExchangeMailbox::new(myself),
            metrics: Metrics::new(&args.meter),
            dials: JoinSet::new(),
            args,
        };
        state.feed(In::Start);
        state.alarm.set(state.driver.next_deadline());
        Ok(state)
    }

    async fn handle(&self, _: ActorRef<Msg>, message: Msg, state: &mut State) -> Result<(), ActorProcessingErr> {
        match message {
            Msg::Input(input) => {
                if let In::PeerDown(_) = input {
                    // Its last messages were offered before this was sent, and count.
                    state.turn(state.args.inbound.len());
                }
                let is_peer = matches!(input, In::PeerUp(_));
                state.feed(input);
                if is_peer && let Some(bell) = state.bell.take() {
                    state.args.inbound.bind(bell);
                }
            }
            // What is queued now came after the news of its sessions was sent, but such news may still be behind
            // this message. It is ahead of the next one.
            Msg::Wake => state.myself.turn(state.args.inbound.len().min(BUDGET)),
            Msg::Turn(deliveries) => state.turn(deliveries),
            Msg::Tick => {
                state.alarm.ticked();
                state.driver.expire_due(state.args.clock.now());
                state.perform();
            }
            #[cfg(feature = "fault-injection")]
            Msg::Panic => panic!("injected into the exchange"),
        }
        while state.dials.try_join_next().is_some() {}
        state.metrics.known(state.driver.machine().known());
        state.alarm.set(state.driver.next_deadline());
        Ok(())
    }
}

impl State {
    fn turn(&mut self, deliveries: usize) {
        let deliveries = if self.bell.is_none() { deliveries } else { 0 };
        for _ in 0..deliveries {
            // The permit goes back when the machine has seen the message.
            let Some(Inbound { delivery, permit: _permit }) = self.args.inbound.pop() else { break };
            self.metrics.bytes_in.increment(delivery.payload.len() as u64);
            let (session, stream) = (delivery.session, delivery.stream);
            // Longer ones are refused anyway, so a journal need not keep all of them.
            let payload = match delivery.payload.len() > MAX_MESSAGE {
                true => delivery.payload.slice(..=MAX_MESSAGE),
                false => delivery.payload,
            };
            self.inbound(session, stream, payload);
        }
        self.args.inbound.ring_if_more();
    }

    /// A panic is charged to whoever sent what was being handled.
    fn inbound(&mut self, session: SessionId, stream: u64, payload: Bytes) {
        let handled = catch_unwind(AssertUnwindSafe(|| self.feed(In::Inbound { session, stream, payload })));
        if let Err(panic) = handled {
            self.args.charge.0.store(true, Ordering::SeqCst);
            self.args.out.send(ExchangeOut::Report { session, penalty: Penalty::Crash });
            resume_unwind(panic);
        }
    }

    fn feed(&mut self, input: In) {
        self.driver.handle(self.args.clock.now(), input);
        self.perform();
    }

    /// Performs what the machine asks for until it asks for nothing more.
    fn perform(&mut self) {
        loop {
            let outs: Vec<Out> = self.driver.drain().collect();
            if outs.is_empty() {
                return;
            }
            for out in outs {
                self.perform_one(out);
            }
        }
    }

    fn perform_one(&mut self, out: Out) {
        match out {
            Out::Send { to, payload } => self.push(to, payload),
            Out::Verify { token, records } => {
                let records = records.into_iter().filter_map(|record| record.verify().ok()).collect();
                self.driver.handle(self.args.clock.now(), In::Verified { token, records });
            }
            Out::Offer(records) => self.args.out.send(ExchangeOut::Offer(records)),
            Out::Candidates(found) => self.args.out.send(ExchangeOut::Candidates(found)),
            Out::DialBack { token, to } => self.dial_back(token, to),
            Out::Observed { by, observed } => self.args.out.send(ExchangeOut::Observed { by, observed }),
            Out::Reachable(state) => {
                self.metrics.reachable(state);
                self.args.out.send(ExchangeOut::Reachable(state));
            }
            Out::Report { session, penalty } => self.args.out.send(ExchangeOut::Report { session, penalty }),
            Out::Drop(reason) => self.metrics.dropped(reason),
            Out::Event(event) => self.metrics.event(event),
        }
    }

    /// What is lost is asked again, or times out at the other end.
    fn push(&self, to: Recipient, payload: Bytes) {
        self.metrics.bytes_out.increment(payload.len() as u64);
        let to = vec![to];
        let push = Push { to, lane: Lane::Normal, payload, when_full: WhenFull::Refuse, tag: 0, failures: None };
        if self.args.push.offer(push).is_err() {
            self.metrics.dropped(DropReason::NotSent);
        }
    }

    fn dial_back(&mut self, token: u64, to: SocketAddr) {
        let answer = Answer { token, reached: false, to: self.myself.clone() };
        self.dials.spawn(answer.find(self.args.transport.clone(), to, self.args.config.probe.dial_timeout));
    }
}

/// Answers however the dial ends, so that no place among them stays taken.
struct Answer {
    token: u64,
    reached: bool,
    to: ExchangeMailbox,
}

impl Answer {
    /// Sees whether a port takes a connection, which is closed at once: nothing is sent, and nothing read.
    async fn find(mut self, transport: Transport, to: SocketAddr, limit: Duration) {
        self.reached = matches!(tokio::time::timeout(limit, transport.connect(to)).await, Ok(Ok(_)));
    }
}

impl Drop for Answer {
    fn drop(&mut self) {
        let input = In::DialledBack { token: self.token, reached: self.reached };
        self.to.tell(input);
    }
}
