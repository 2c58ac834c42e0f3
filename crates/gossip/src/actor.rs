//! The shell: an actor that feeds the machine and performs what it asks for.

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};

use peerage_machine::journal::{Genesis as _, Journals};
use peerage_machine::{Driver, Time};
use peerage_mailbox::{
    Alarm, Bell, Capacity, Child, Clock, Inlet, Meter, Outlet, Port, Refused, Reply, SpawnError, Supervisor,
    data_queue, spawn_child,
};
use peerage_nodedb::{Logs, ReadLimit};
use peerage_queue::throttle::Stopwatch;
use peerage_queue::{Inbound, Pressure, Push, Refusal, SendFailed, SessionId, WhenFull};
use peerage_wire::frame::Lane;
use peerage_wire::{Keypair, NodeId, codec};
use ractor::{Actor, ActorProcessingErr, ActorRef};

use self::durable::Kept;
use crate::coded::work::Coder;
use crate::config::{Config, Work};
use crate::durable::DurableAsk;
use crate::durable::shell::Durables;
use crate::genesis::GossipGenesis;
use crate::ingress::{Confirm, Event, GossipMailbox, GossipMsg, Publish, Subscribe};
use crate::machine::{
    Blame, ConfirmError, Confirmed, DropReason, GossipMachine, Handling, In, Out, Outgoing, PublishError, Published,
    SubscribeError,
};
use crate::memory::{Memory, Recollection};
use crate::message::{Checked, Fingerprint, Message, MessageId, Topic};
use crate::metrics::Metrics;
use crate::validation::{Judge, Judged, Unjudged};
use crate::work::Checker;

/// Session messages, and failures, handled before others get their turn.
const BUDGET: usize = 128;
/// Publications handled before others get their turn, and before the pressure they make is looked at again.
const PUBLISH_BUDGET: usize = 16;

/// What a gossip actor needs. All of it outlives the actor, so that its next life goes on where it was.
#[derive(Clone, Debug)]
pub struct Args {
    /// Limits and intervals.
    pub config: Config,
    /// Who this node is, to sign what it publishes.
    pub keys: Keypair,
    /// Of all random decisions.
    pub seed: u64,
    /// What sessions receive on their gossip channels.
    pub inbound: Inlet<Inbound>,
    /// What the application publishes.
    pub publish: Inlet<Publish>,
    /// What readers of durable topics ask.
    pub durable: Inlet<DurableAsk>,
    /// Where durable topics are kept.
    pub logs: Logs,
    /// Pushes that failed; both ends of one queue.
    pub failures: Inlet<SendFailed>,
    /// Given along with every push.
    pub report_failures: Outlet<SendFailed>,
    /// To the queue actor.
    pub push: Outlet<Push>,
    /// Whether the node's own lanes are over half full.
    pub pressure: Pressure,
    /// To the root.
    pub events: Port<Event>,
    /// The node's clock. If it is simulated, signatures are checked inline.
    pub clock: Clock,
    /// Where to count.
    pub meter: Meter,
    /// Of earlier lives.
    pub memory: Memory,
    /// Where its machine's inputs are kept, in a build with the feature `journal`.
    pub journals: Journals,
}

/// Starts the actor. Its parent tells it of every peer and subscriber, again after a restart, subscribers
/// first.
///
/// # Errors
/// [`SpawnError`] for a configuration that does not add up.
pub async fn spawn(args: Args, parent: &Supervisor) -> Result<(GossipMailbox, Child), SpawnError> {
    let (actor, child) = spawn_child(Gossip, args, parent).await?;
    Ok((GossipMailbox(actor), child))
}

struct Gossip;

struct State {
    driver: Driver<GossipMachine>,
    args: Args,
    alarm: Alarm,
    checker: Checker,
    coder: Coder,
    /// Rung for what comes in, once there is a peer for it to come from. After a restart the root tells of
    /// subscribers and then of peers; what was queued before would be dropped as nobody's if it came first.
    bell: Option<Bell>,
    /// The bell of all queues.
    wakes: Bell,
    metrics: Metrics,
    subscribers: BTreeMap<Topic, Vec<Outlet<Message>>>,
    subscribing: BTreeMap<u64, Subscribe>,
    publishing: BTreeMap<u64, Reply<Result<Published, PublishError>>>,
    confirming: BTreeMap<u64, Reply<Result<Confirmed, ConfirmError>>>,
    /// Who judges the messages of a topic.
    validators: BTreeMap<Topic, Outlet<Unjudged>>,
    /// Of this life: what an earlier one asked is nobody's question any more.
    verdicts: (Outlet<Judged>, Inlet<Judged>),
    next_token: u64,
    durables: Durables,
    /// The panic that ends this life was charged, or found to be nobody's, where it was caught first.
    judged: bool,
}

impl Actor for Gossip {
    type Msg = GossipMsg;
    type State = State;
    type Arguments = Args;

    async fn pre_start(&self, myself: ActorRef<GossipMsg>, args: Args) -> Result<State, ActorProcessingErr> {
        args.config.validate()?;
        let bell = Bell::new(&myself, || GossipMsg::Wake).shared();
        args.publish.bind(bell.clone());
        args.failures.bind(bell.clone());
        args.durable.bind(bell.clone());
        let durables = Durables::new(&args.config, args.keys.id(), args.logs.clone(), bell.clone(), &args.meter);
        let work = if args.clock.is_simulated() { Work::Inline } else { args.config.work };
        // What is being judged, and as much again of which the time is over.
        let judged = 2 * args.config.in_flight;
        let verdicts = data_queue(Capacity { items: judged, weight: judged });
        verdicts.1.bind(bell.clone());
        let genesis = GossipGenesis { config: args.config.clone(), node: args.keys.id(), seed: args.seed };
        let recorder = args.journals.begin(args.clock.now(), || genesis.clone(), codec::encode, codec::encode);
        let mut state = State {
            driver: Driver::new(genesis.build()?).recorded(recorder),
            alarm: Alarm::new(&myself, args.clock, || GossipMsg::Tick),
            checker: Checker::new(work, bell.clone()),
            coder: Coder::new(work, bell.clone()),
            wakes: bell.clone(),
            bell: Some(bell),
            metrics: Metrics::new(&args.meter),
            subscribers: BTreeMap::new(),
            subscribing: BTreeMap::new(),
            publishing: BTreeMap::new(),
            confirming: BTreeMap::new(),
            validators: BTreeMap::new(),
            verdicts,
            next_token: 0,
            durables,
            judged: false,
            args,
        };
        state.recall();
        Ok(state)
    }

    async fn handle(
        &self,
        myself: ActorRef<GossipMsg>,
        message: GossipMsg,
        state: &mut State,
    ) -> Result<(), ActorProcessingErr> {
        let now = state.args.clock.now();
        match message {
            GossipMsg::PeerUp(up) => {
                state.feed(now, In::PeerUp(up));
                if let Some(bell) = state.bell.take() {
                    state.args.inbound.bind(bell);
                }
            }
            GossipMsg::PeerDown { session } => {
                // Its last messages were offered before this was sent, and count.
                state.last_of(now, session);
                state.turn(now, 0);
                state.feed(now, In::PeerDown { session });
                state.args.memory.useful(session, false);
            }
            GossipMsg::Subscribe(subscribe) => state.subscribe(now, subscribe),
            GossipMsg::SubscribeDurable(subscribe) => state.durables.subscribe(now, subscribe),
            GossipMsg::Confirm(Confirm { id, peers, within, reply }) => {
                let token = state.token();
                state.confirming.insert(token, reply);
                state.feed(now, In::Confirm { token, id, peers, within });
            }
            GossipMsg::Standings(reply) => reply.send(state.driver.machine().standings(now)),
            GossipMsg::Limits(limits) => state.feed(now, In::Limits(limits)),
            GossipMsg::Admit { topic, publishers } => state.feed(now, In::Admit { topic, publishers }),
            // What is queued now came after the news of its sessions was sent, but such news may still be
            // behind this message. It is ahead of the next one.
            GossipMsg::Wake => {
                state.wakes.heard();
                GossipMailbox(myself).turn(state.args.inbound.call().min(BUDGET));
            }
            GossipMsg::Turn { deliveries } => {
                state.turn(now, deliveries);
                // Else the runtime would poll this task on through many turns.
                if !state.args.inbound.is_empty() {
                    tokio::task::yield_now().await;
                }
            }
            GossipMsg::Tick => {
                state.alarm.ticked();
                state.leave_unheard(now);
                state.durables_due(now);
                state.driver.expire_due(now);
                state.perform(now);
                state.metrics.holds(state.driver.machine().stats());
            }
            #[cfg(any(test, feature = "fault-injection"))]
            GossipMsg::Panic => panic!("injected"),
        }
        state.checker.start();
        state.coder.start();
        state.alarm.set(state.next_deadline());
        Ok(())
    }
}

impl State {
    /// Tells the machine, and the root, of earlier lives.
    fn recall(&mut self) {
        let now = self.args.clock.now();
        let recalled = self.args.memory.recall();
        for blame in recalled.guilty {
            self.args.events.send(Event::Crashed { blame });
        }
        let Recollection { seen, sequence, useful, .. } = recalled;
        self.feed(now, In::Restore { seen, sequence, useful });
        for fingerprint in recalled.poison {
            self.feed(now, In::Refuse { fingerprint });
        }
    }

    fn turn(&mut self, now: Time, deliveries: usize) {
        for failed in self.args.failures.take(BUDGET) {
            let SendFailed { session, tag, reason } = failed;
            self.feed(
                now,
                match reason {
                    Refusal::Shed => In::Shed { session, tag },
                    _ => In::SendFailed { session, tag },
                },
            );
        }
        for (token, outcome) in self.checker.answers() {
            self.checked(now, token, outcome);
        }
        for (token, coding) in self.coder.answers() {
            self.feed(now, In::Coded { token, coding: coding.map(Box::new) });
        }
        for Judged { token, verdict, topic, asked } in self.verdicts.1.take(BUDGET) {
            self.metrics.judged(&topic, verdict, now.since(asked));
            self.feed(now, In::Verdict { token, verdict });
        }
        self.durable_turn(now);
        for _ in 0..PUBLISH_BUDGET {
            let Some(publish) = self.args.publish.pop() else { break };
            self.publish(now, publish);
        }
        // One at a time: what is still queued when one of them makes the machine panic is not lost. In turns of sessions:
        // whoever floods waits for itself.
        let deliveries = if self.bell.is_none() { deliveries } else { 0 };
        let mut handling = Stopwatch::new();
        for _ in 0..deliveries {
            let Some(inbound) = self.args.inbound.pop_called() else { break };
            self.inbound(now, inbound, &mut handling);
        }
        drop(handling);
        self.metrics.turn(self.args.clock.now().since(now));
        self.args.failures.ring_if_more();
        self.verdicts.1.ring_if_more();
        self.args.publish.ring_if_more();
        self.args.durable.ring_if_more();
        self.args.inbound.ring_if_more();
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
        self.metrics.received(delivery.payload.len());
        // Gossip has no streams but the channel's message flow.
        if delivery.stream == 0 {
            self.feed(now, In::Inbound { session: delivery.session, payload: delivery.payload });
        } else {
            self.metrics.dropped(DropReason::Malformed);
        }
    }

    fn publish(&mut self, now: Time, publish: Publish) {
        let Publish { topic, policy, payload, reply } = publish;
        let token = self.token();
        self.publishing.insert(token, reply);
        let pressed = self.args.pressure.over_half();
        self.feed(now, In::Publish { token, topic, policy, payload, pressed });
    }

    fn subscribe(&mut self, now: Time, subscribe: Subscribe) {
        let judged = self.validators.get(&subscribe.topic).is_some_and(|validator| !validator.is_closed());
        if judged && subscribe.validator.is_some() {
            if let Some(reply) = subscribe.reply {
                reply.send(Err(SubscribeError::Validated));
            }
            return;
        }
        let token = self.token();
        let (topic, policy) = (subscribe.topic.clone(), subscribe.policy);
        let input = match subscribe.config.clone() {
            Some(config) => In::SubscribeWith { token, topic, config, validated: subscribe.validator.is_some() },
            None => In::Subscribe { token, topic, policy },
        };
        self.subscribing.insert(token, subscribe);
        self.feed(now, input);
    }

    fn token(&mut self) -> u64 {
        self.next_token += 1;
        self.next_token
    }

    fn checked(&mut self, now: Time, token: u64, outcome: Checked) {
        let answer = match outcome {
            Checked::Holds => In::Verified { token, ok: true },
            Checked::Fails => In::Verified { token, ok: false },
            Checked::Panicked => In::CheckPanicked { token },
        };
        self.feed(now, answer);
    }

    /// Tells the machine, and does what it asks for. A panic is charged to what was being handled.
    fn feed(&mut self, now: Time, input: In) {
        let driver = &mut self.driver;
        if let Err(panic) = catch_unwind(AssertUnwindSafe(|| driver.handle(now, input))) {
            match self.driver.machine().handling() {
                Some(Handling::Session(session)) => self.charge(Some(Blame::Session(session)), None),
                Some(Handling::Message(suspect)) => self.charge(suspect.blame(), Some(suspect.fingerprint)),
                None => self.judged = true,
            }
            resume_unwind(panic);
        }
        self.perform(now);
    }

    /// Notes whose doing the panic is that ends this life, once: it unwinds through all that led to it.
    fn charge(&mut self, blame: Option<Blame>, fingerprint: Option<Fingerprint>) {
        if !std::mem::replace(&mut self.judged, true) {
            // A message of this node that came back is no peer's doing.
            let blame = blame.filter(|blame| *blame != Blame::Publisher(self.args.keys.id()));
            self.args.memory.charge(blame, fingerprint);
        }
    }

    /// A message that came from a peer could not be handed over: its signature has held. It is marked as seen, and
    /// refused for its age when that is forgotten; an anonymous one has no age.
    fn charge_delivery(&mut self, id: MessageId, publisher: Option<NodeId>) {
        let fingerprint = publisher.is_none().then(|| Fingerprint::of(&id, None));
        self.charge(publisher.map(Blame::Publisher), fingerprint);
    }

    fn perform(&mut self, now: Time) {
        let outs: Vec<Out> = self.driver.drain().collect();
        for out in outs {
            let delivering = match &out {
                Out::Deliver(message) if message.from.is_some() => Some((message.id, message.publisher)),
                Out::Keep { id, parcel, from: Some(_), .. } => {
                    Some((*id, parcel.origin.as_ref().map(|origin| origin.publisher)))
                }
                _ => None,
            };
            if let Err(panic) = catch_unwind(AssertUnwindSafe(|| self.carry_out(now, out))) {
                if let Some((id, publisher)) = delivering {
                    self.charge_delivery(id, publisher);
                }
                resume_unwind(panic);
            }
        }
    }

    fn carry_out(&mut self, now: Time, out: Out) {
        match out {
            Out::Push(outgoing) => self.push(now, outgoing),
            Out::Cancel { to, tag } => {
                // If the fan-out is full it goes out, and is a copy too many.
                drop(self.args.push.offer(Push::take_back(vec![to], Lane::Normal, tag)));
            }
            Out::Deliver(message) => self.deliver(now, message),
            Out::Keep { id, parcel, from, first, old } => self.keep(now, Kept { id, parcel, from, first, old }),
            Out::History { topic, first } => {
                let known = self.durables.known(topic, first);
                self.feed(now, known);
            }
            Out::ReadHistory { token, ask, entries, bytes } => {
                if let Some(answer) = self.durables.select(token, ask, ReadLimit { entries, bytes }) {
                    self.feed(now, answer);
                }
            }
            Out::CatchUp { topic, running, until } => self.catch_up(now, &topic, running, until),
            Out::Subscribed { token, result } if self.durables.subscribed(token, result) => {}
            Out::Subscribed { token, result } => {
                let Some(Subscribe { topic, outlet, validator, reply, .. }) = self.subscribing.remove(&token) else {
                    return;
                };
                match result {
                    Ok(()) => {
                        if let Some(validator) = validator {
                            self.validators.insert(topic.clone(), validator);
                        }
                        self.subscribers.entry(topic).or_default().push(outlet);
                    }
                    Err(error) => tracing::warn!(%topic, %error, "not subscribed"),
                }
                if let Some(reply) = reply {
                    reply.send(result);
                }
            }
            Out::Published { token, result } => {
                if let Some(reply) = self.publishing.remove(&token) {
                    reply.send(result);
                }
            }
            Out::Validate { token, message } => self.validate(now, token, message),
            Out::Confirmed { token, result } => {
                if let Some(reply) = self.confirming.remove(&token) {
                    reply.send(result);
                }
            }
            Out::Sign { token, claim, sequence } => {
                self.args.memory.used(sequence);
                let signature = claim.sign(&self.args.keys);
                self.feed(now, In::Signed { token, signature });
            }
            Out::Verify { token, check, from } => {
                if let Some(outcome) = self.checker.check(token, check, from) {
                    self.checked(now, token, outcome);
                }
            }
            Out::Code { token, job } => {
                if let Some(coding) = self.coder.code(token, job) {
                    self.feed(now, In::Coded { token, coding: coding.map(Box::new) });
                }
            }
            Out::Report { session, penalty } => self.args.events.send(Event::Report { session, penalty }),
            Out::Useful { session, useful } => {
                self.args.memory.useful(session, useful);
                self.args.events.send(Event::Useful { session, useful });
            }
            Out::Crashed { session, fingerprint } => {
                self.args.memory.refuse(fingerprint);
                self.args.events.send(Event::Crashed { blame: Blame::Session(session) });
            }
            Out::Remember(id) => {
                let Config { seen_ids, .. } = self.args.config;
                self.args.memory.seen(now, id, seen_ids, self.args.config.seen_for());
            }
            Out::Count(count) => self.metrics.count(count),
        }
    }

    /// Asks who judges the topic's messages. Nobody is there if the validator has ended and the topic is not left yet.
    fn validate(&mut self, now: Time, token: u64, message: Message) {
        let topic = message.topic.clone();
        let unjudged = Unjudged { message, judge: Judge::new(token, topic.clone(), now, self.verdicts.0.clone()) };
        let refused = match self.validators.get(&topic) {
            Some(validator) => match validator.offer(unjudged) {
                Ok(()) => return,
                Err(Refused::Full(unjudged)) => unjudged,
                Err(Refused::Closed(unjudged)) => {
                    tracing::warn!(%topic, "the validator has ended: no message of a peer is delivered any more");
                    self.validators.remove(&topic);
                    unjudged
                }
            },
            None => unjudged,
        };
        refused.judge.forget();
        self.feed(now, In::NotJudged { token });
    }

    fn push(&mut self, now: Time, outgoing: Outgoing) {
        let Outgoing { to, lane, bytes, drop_oldest, tag } = outgoing;
        self.metrics.sent(bytes.len(), to.len());
        let when_full = if drop_oldest { WhenFull::DropOldest } else { WhenFull::Refuse };
        let failures = Some(self.args.report_failures.clone());
        let push = Push { to, lane, payload: bytes, when_full, tag, failures };
        if let Err(refused) = self.args.push.offer(push) {
            let Push { to, tag, .. } = refused.into_inner();
            for recipient in to {
                self.feed(now, In::SendFailed { session: recipient.session, tag });
            }
        }
    }

    fn deliver(&mut self, now: Time, message: Message) {
        #[cfg(any(test, feature = "fault-injection"))]
        if message.from.is_some() {
            crate::poison::at(crate::poison::DELIVERY, &message.payload);
        }
        let topic = message.topic.clone();
        let Some(subscribers) = self.subscribers.get_mut(&topic) else { return };
        subscribers.retain(|outlet| !matches!(outlet.offer(message.clone()), Err(Refused::Closed(_))));
        if subscribers.is_empty() {
            self.subscribers.remove(&topic);
            self.leave(now, topic);
        } else {
            self.metrics.delivered.increment(1);
        }
    }

    /// Leaves the topics whose subscribers are all closed.
    fn leave_unheard(&mut self, now: Time) {
        let mut unheard = Vec::new();
        self.subscribers.retain(|topic, outlets| {
            outlets.retain(|outlet| !outlet.is_closed());
            if outlets.is_empty() {
                unheard.push(topic.clone());
            }
            !outlets.is_empty()
        });
        for topic in unheard {
            self.leave(now, topic);
        }
    }
}

mod durable;
#[cfg(test)]
mod tests;
