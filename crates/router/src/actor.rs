//! The shell: an actor that feeds the machine and performs what it asks for.

mod streams;

use std::collections::{BTreeMap, VecDeque};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::time::Duration;

use peerage_machine::journal::{Genesis as _, Journals};
use peerage_machine::{Driver, Time};
use peerage_mailbox::{
    Alarm, Bell, Capacity, Child, Clock, Inlet, Meter, Outlet, Port, Reply, SpawnError, Supervisor, data_queue,
    spawn_child,
};
use peerage_queue::stream::AcceptedStream;
use peerage_queue::throttle::{Spending, Stopwatch};
use peerage_queue::{FanOut, Inbound, Pool, Push, SendFailed, SessionId, WhenFull};
use peerage_wire::codec;
use ractor::{Actor, ActorProcessingErr, ActorRef};
use tokio::sync::watch;

use crate::config::{Config, Limits};
use crate::genesis::RouterGenesis;
use crate::handler::HandlerId;
use crate::ingress::{Add, Ask, Event, RouterMailbox, RouterMsg};
use crate::machine::{Answer, Call, Fault, In, Out, Outgoing, Payload, RequestError, RouterMachine};
use crate::memory::Memory;
use crate::metrics::{Metrics, outcome};
use crate::resilience::Sampled;
use crate::turns::Turns;
use crate::wire::ErrorCode;
use crate::work::{Done, Handler, Responder};
use streams::Streams;

/// Session messages, answers, failures, and asks, handled before others get their turn.
const BUDGET: usize = 128;
/// Bytes of session messages, likewise: one message may carry a thousand requests.
const BYTE_BUDGET: usize = 64 << 10;

/// What a router actor needs. All of it outlives the actor, so that its next life goes on where it was.
#[derive(Clone, Debug)]
pub struct Args {
    /// Limits and intervals.
    pub config: Config,
    /// Of all random decisions, and of what lives are told apart by.
    pub seed: u64,
    /// What sessions receive on their router channels.
    pub inbound: Inlet<Inbound>,
    /// The streams that peers open on their router channels.
    pub streams: Inlet<AcceptedStream>,
    /// What the application asks; see [`Router::new`](crate::Router::new).
    pub asks: Inlet<Ask>,
    /// Pushes that failed; both ends of one queue.
    pub failures: Inlet<SendFailed>,
    /// Given along with every push that somebody waits for.
    pub report_failures: Outlet<SendFailed>,
    /// The node's byte pool: what is said goes through the peers' doors at once, without the queue actor's turn.
    pub pool: Pool,
    /// To the root.
    pub events: Port<Event>,
    /// The node's clock.
    pub clock: Clock,
    /// Where to count.
    pub meter: Meter,
    /// Of earlier lives.
    pub memory: Memory,
    /// Where its machine's inputs are kept, in a build with the feature `journal`.
    pub journals: Journals,
}

/// Starts the actor. Its parent tells it of every handler, peer and set of members, again after a restart, handlers
/// first.
///
/// # Errors
/// [`SpawnError`] for a configuration that does not add up.
pub async fn spawn(args: Args, parent: &Supervisor) -> Result<(RouterMailbox, Child), SpawnError> {
    let (actor, child) = spawn_child(RouterActor, args, parent).await?;
    Ok((RouterMailbox(actor), child))
}

struct RouterActor;

struct State {
    driver: Driver<RouterMachine>,
    args: Args,
    alarm: Alarm,
    /// Rung for what comes in, once there is a peer for it to come from: what was queued before would be dropped as
    /// nobody's if it came before the news of its session.
    bell: Option<Bell>,
    /// The bell of all queues.
    wakes: Bell,
    metrics: Metrics,
    doors: FanOut,
    handlers: BTreeMap<HandlerId, Handler>,
    adding: BTreeMap<u64, Add>,
    /// Dropped with the actor, which tells whoever asked that it restarted.
    asking: BTreeMap<u64, Reply<Result<Answer, RequestError>>>,
    sending: BTreeMap<u64, Reply<Result<Sampled, RequestError>>>,
    /// Calls at work; what is dropped here is cancelled there.
    working: BTreeMap<u64, Working>,
    /// Of this life: what answers to a call of an earlier one finds its queue closed.
    done: Inlet<Done>,
    /// Whose handlers go on when, and whom their time is charged to.
    turns: Turns,
    spending: BTreeMap<SessionId, Spending>,
    streams: Streams,
    report_done: Outlet<Done>,
    outs: VecDeque<Out>,
    next_token: u64,
}

struct Working {
    session: SessionId,
    handler: HandlerId,
    /// By running time.
    began: Duration,
    wanted: Option<watch::Sender<()>>,
}

impl Actor for RouterActor {
    type Msg = RouterMsg;
    type State = State;
    type Arguments = Args;

    async fn pre_start(&self, myself: ActorRef<RouterMsg>, args: Args) -> Result<State, ActorProcessingErr> {
        args.config.validate()?;
        let (life, guilty) = args.memory.begin();
        for session in guilty {
            args.events.send(Event::Crashed { session });
        }
        let bell = Bell::new(&myself, || RouterMsg::Wake).shared();
        // Each call at work answers once, and the last may find one more. Their number is the machine's to bound, and may
        // grow while the actor lives.
        let (served, most) = (args.config.served, Limits::MOST);
        let capacity = Capacity {
            items: served.node.max(most.node).saturating_add(1),
            weight: served.node_bytes.max(most.node_bytes),
        };
        let (report_done, done) = data_queue(capacity);
        args.asks.bind(bell.clone());
        args.failures.bind(bell.clone());
        done.bind(bell.clone());
        let metrics = Metrics::new(&args.meter);
        let streams = Streams::new(metrics.streams.clone());
        streams.notes.bind(bell.clone());
        let epoch = ((args.seed >> 32) as u32).wrapping_add(life);
        let genesis = RouterGenesis { config: args.config.clone(), seed: args.seed, epoch };
        let recorder = args.journals.begin(args.clock.now(), || genesis.clone(), codec::encode, codec::encode);
        Ok(State {
            driver: Driver::new(genesis.build()?).recorded(recorder),
            alarm: Alarm::new(&myself, args.clock, || RouterMsg::Tick),
            wakes: bell.clone(),
            bell: Some(bell),
            doors: FanOut::new(args.pool.clone(), &args.meter),
            metrics,
            streams,
            handlers: BTreeMap::new(),
            adding: BTreeMap::new(),
            asking: BTreeMap::new(),
            sending: BTreeMap::new(),
            working: BTreeMap::new(),
            turns: Turns::new(args.clock),
            spending: BTreeMap::new(),
            done,
            report_done,
            outs: VecDeque::new(),
            next_token: 0,
            args,
        })
    }

    async fn handle(
        &self,
        myself: ActorRef<RouterMsg>,
        message: RouterMsg,
        state: &mut State,
    ) -> Result<(), ActorProcessingErr> {
        let now = state.args.clock.now();
        match message {
            RouterMsg::PeerUp(up, door) => {
                state.doors.insert(up.session, door);
                state.feed(now, In::PeerUp(up));
                if let Some(bell) = state.bell.take() {
                    state.args.inbound.bind(bell.clone());
                    state.args.streams.bind(bell);
                }
            }
            RouterMsg::PeerDown { session } => {
                // Its last messages were offered before this was sent, and count.
                state.last_of(now, session);
                state.turn(now, 0, 0);
                state.last_streams_of(now, session);
                state.spending.remove(&session);
                state.streams.session_ended(session);
                state.feed(now, In::PeerDown { session });
                state.doors.remove(session);
            }
            RouterMsg::Members(weights) => state.feed(now, In::Members(weights)),
            RouterMsg::AddHandler(add) => {
                let token = state.token();
                let (name, config) = (add.name.clone(), add.config);
                state.adding.insert(token, *add);
                state.feed(now, In::AddHandler { token, name, config });
            }
            RouterMsg::RemoveHandler(handler) => {
                state.handlers.remove(&handler);
                state.feed(now, In::RemoveHandler(handler));
            }
            RouterMsg::Limits { asked, served } => state.feed(now, In::Limits { asked, served }),
            // What is queued now came after the news of its sessions was sent, but such news may still be behind this
            // message. It is ahead of the next one.
            RouterMsg::Wake => {
                state.wakes.heard();
                let (deliveries, streams) = (state.args.inbound.call(), state.args.streams.call());
                RouterMailbox(myself).turn(deliveries.min(BUDGET), streams.min(BUDGET));
            }
            RouterMsg::Turn { deliveries, streams } => {
                state.turn(now, deliveries, streams);
                // The runtime would poll this task on until it has had a hundred messages, turns among them, and meanwhile
                // neither look at sockets nor at the tasks that this thread has woken.
                if !state.args.inbound.is_empty() {
                    tokio::task::yield_now().await;
                }
            }
            RouterMsg::Streams(session, door) => state.streams.door(session, door),
            RouterMsg::AddStreams(add) => state.add_streams(now, *add),
            RouterMsg::RemoveStreams(handler) => state.remove_streams(now, handler),
            RouterMsg::Tick => {
                state.alarm.ticked();
                state.driver.expire_due(now);
                state.collect();
                state.settle(now);
            }
            #[cfg(any(test, feature = "fault-injection"))]
            RouterMsg::Panic => panic!("injected"),
        }
        state.metrics.holds(state.driver.machine().stats(), state.turns.waiting());
        state.alarm.set(state.driver.next_deadline());
        Ok(())
    }
}

impl State {
    fn turn(&mut self, now: Time, deliveries: usize, streams: usize) {
        for failed in self.args.failures.take(BUDGET) {
            self.feed(now, In::SendFailed { session: failed.session, tag: failed.tag });
        }
        for done in self.done.take(BUDGET) {
            self.done(now, done);
        }
        for _ in 0..BUDGET {
            let Some(ask) = self.args.asks.pop() else { break };
            self.ask(now, ask);
        }
        // One at a time: what is still queued when one of them makes the machine panic is not lost. In turns of sessions:
        // whoever floods waits for itself.
        let deliveries = if self.bell.is_none() { deliveries } else { 0 };
        let (mut handling, mut bytes) = (Stopwatch::new(), 0);
        for _ in 0..deliveries {
            let Some(inbound) = self.args.inbound.pop_called() else { break };
            bytes += inbound.delivery.payload.len();
            self.inbound(now, inbound, &mut handling);
            if bytes >= BYTE_BUDGET {
                break;
            }
        }
        drop(handling);
        self.streams_turn(now, streams);
        self.metrics.turn(self.args.clock.now().since(now));
        self.args.failures.ring_if_more();
        self.args.asks.ring_if_more();
        self.args.inbound.ring_if_more();
        self.done.ring_if_more();
    }

    fn last_of(&mut self, now: Time, session: SessionId) {
        let mut handling = Stopwatch::new();
        while let Some(inbound) = self.args.inbound.pop_of(session.0) {
            self.inbound(now, inbound, &mut handling);
        }
    }

    /// The permit goes back when the machine has seen the message: what it keeps, it bounds itself.
    fn inbound(&mut self, now: Time, inbound: Inbound, handling: &mut Stopwatch) {
        let Inbound { delivery, permit } = inbound;
        handling.of(&permit);
        if !self.spending.get(&delivery.session).is_some_and(|spending| spending.is_of(&permit)) {
            match permit.spending() {
                Some(spending) => drop(self.spending.insert(delivery.session, spending)),
                None => drop(self.spending.remove(&delivery.session)),
            }
        }
        self.metrics.received(delivery.payload.len());
        self.feed(now, In::Inbound { session: delivery.session, payload: delivery.payload });
    }

    fn ask(&mut self, now: Time, ask: Ask) {
        match ask {
            // Nobody waits: its cancellation came with no room for it, or its asker's patience ended.
            Ask::Request { reply, .. } if reply.is_abandoned() => {}
            Ask::Request { key, request, reply } => {
                self.asking.insert(key, reply);
                self.feed(now, In::Request { token: key, request });
            }
            Ask::Cancel { key } => self.feed(now, In::Cancel { token: key }),
            Ask::Open(ask) if ask.reply.is_abandoned() => {}
            Ask::Open(ask) => self.open(now, ask),
            Ask::Send { to, handler, payload, reply } => {
                let token = self.token();
                self.sending.insert(token, reply);
                self.feed(now, In::Send { token, to, handler, payload });
            }
        }
    }

    fn done(&mut self, now: Time, done: Done) {
        let Done { call, answer, crashed } = done;
        let working = self.working.remove(&call);
        if let Some(Working { handler, began, .. }) = &working {
            let outcome = if crashed { "crashed" } else { outcome(&answer) };
            self.metrics.handled(*handler, outcome, self.args.clock.running().saturating_sub(*began));
        }
        if let Some(Working { session, .. }) = working.filter(|_| crashed) {
            self.feed(now, In::HandlerPanicked { session });
        }
        self.feed(now, In::Answered { call, answer: answer.map(Payload) });
    }

    fn token(&mut self) -> u64 {
        self.next_token += 1;
        self.next_token
    }

    /// Tells the machine, and does what it asks for.
    fn feed(&mut self, now: Time, input: In) {
        self.tell(now, input);
        self.settle(now);
    }

    /// Tells the machine. A panic is charged to what was being handled.
    fn tell(&mut self, now: Time, input: In) {
        let driver = &mut self.driver;
        if let Err(panic) = catch_unwind(AssertUnwindSafe(|| driver.handle(now, input))) {
            if let Some(session) = self.driver.machine().handling() {
                self.args.memory.charge(session);
            }
            resume_unwind(panic);
        }
        self.collect();
    }

    fn collect(&mut self) {
        self.outs.extend(self.driver.drain());
    }

    /// Does what was asked for, and what is asked for because of it.
    fn settle(&mut self, now: Time) {
        while let Some(out) = self.outs.pop_front() {
            if let Some(input) = self.carry_out(out) {
                self.tell(now, input);
            }
        }
    }

    /// Does one thing. What comes of it at once is the machine's next input.
    fn carry_out(&mut self, out: Out) -> Option<In> {
        match out {
            Out::Push(outgoing) => self.push(outgoing),
            Out::Call(call) => return self.begin(call),
            Out::Abandon { call } => {
                if let Some(working) = self.working.get_mut(&call) {
                    working.wanted = None;
                }
            }
            Out::Completed { token, result } => {
                if let Ok(answer) = &result {
                    self.metrics.answered(answer.took);
                }
                if let Some(reply) = self.asking.remove(&token) {
                    reply.send(result);
                }
            }
            Out::HandlerAdded { token, result } => {
                let Add { name, handler, reply, .. } = self.adding.remove(&token)?;
                match &result {
                    Ok(id) => {
                        self.metrics.serves(*id, &name);
                        self.handlers.insert(*id, handler);
                    }
                    Err(error) => tracing::warn!(name, %error, "not served"),
                }
                if let Some(reply) = reply {
                    reply.send(result);
                }
            }
            Out::Sent { token, result } => {
                if let Some(reply) = self.sending.remove(&token) {
                    reply.send(result);
                }
            }
            Out::MembersWanted => self.args.events.send(Event::MembersWanted),
            Out::Report { session, penalty } => self.args.events.send(Event::Report { session, penalty }),
            Out::Count(count) => self.metrics.count(count),
            out => return self.carry_out_streams(out),
        }
        None
    }

    fn begin(&mut self, call: Call) -> Option<In> {
        let (id, session, called, began) = (call.call, call.session, call.handler, self.args.clock.running());
        // Gone between the call and its turn.
        let Some(handler) = self.handlers.get(&call.handler) else {
            return Some(In::Answered { call: id, answer: Err(Fault::new(ErrorCode::UnknownHandler, "")) });
        };
        let (max_payload, report_done, working) = (self.args.config.max_payload, &self.report_done, &mut self.working);
        let (turns, spending) = (&self.turns, self.spending.get(&session).cloned());
        let responder = || {
            let (wanted, withdrawn) = watch::channel(());
            working.insert(id, Working { session, handler: called, began, wanted: Some(wanted) });
            Responder::new(id, report_done.clone(), max_payload, withdrawn)
        };
        // A panic of the application's is not the actor's end.
        match catch_unwind(AssertUnwindSafe(|| {
            handler.start(call, |answering| turns.of(session, spending, answering), responder)
        })) {
            Ok(answer) => {
                let answer = answer?;
                self.metrics.handled(called, outcome(&answer), self.args.clock.running().saturating_sub(began));
                Some(In::Answered { call: id, answer: answer.map(Payload) })
            }
            Err(_) => {
                // Its answer is the next input; this one says nothing but whose doing it was.
                self.metrics.handled(called, "crashed", self.args.clock.running().saturating_sub(began));
                self.tell(self.args.clock.now(), In::HandlerPanicked { session });
                Some(In::Answered { call: id, answer: Err(Fault::new(ErrorCode::Internal, "")) })
            }
        }
    }

    fn push(&self, outgoing: Outgoing) {
        let Outgoing { to, lane, bytes, tag } = outgoing;
        self.metrics.sent(bytes.len(), to.len());
        // What is refused is reported at once, and waits for its turn as what fails later does.
        let failures = tag.map(|_| self.args.report_failures.clone());
        let tag = tag.unwrap_or_default();
        self.doors.push(Push { to, lane, payload: bytes, when_full: WhenFull::Refuse, tag, failures });
    }
}
