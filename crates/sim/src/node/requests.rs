//! What the router's shell does, and the work that its handlers are: each call takes its time, one after another.

use std::collections::{BTreeMap, VecDeque};
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use peerage_machine::Time;
use peerage_queue::{ChannelId, SessionId};
use peerage_router::resilience::Pool;
use peerage_router::{
    Config, HandlerConfig, HandlerId, In, Out, Payload, PeerUp, Request, RouterMachine, Target, Terms,
};
use peerage_wire::NodeId;

use super::message::Descriptor;
use super::part::{Foreign, Part};
use super::{Clockwork, Message, Note, Parcel, PeerageNode, Todo};
use crate::engine::Net;

/// One kind of request that nodes make of each other.
#[derive(Clone, Debug)]
pub struct Service {
    /// The handler's name.
    pub name: String,
    /// Its limits.
    pub limits: HandlerConfig,
    /// Bytes of an answer.
    pub answer: u32,
    /// How long a node works on a call; it works on one at a time. None: the answer is there at once.
    pub takes: Duration,
    /// How long requests may take, and what is tried again.
    pub terms: Terms,
}

/// What a node's router is made of.
pub(crate) struct RouterArgs {
    /// Limits and intervals.
    pub(crate) config: Config,
    /// What it can be asked and asks.
    pub(crate) services: Rc<[Service]>,
    /// Who has a weight among those that ask it.
    pub(crate) members: Rc<BTreeMap<NodeId, u64>>,
    /// Of its decisions.
    pub(crate) seed: u64,
    /// A machine in place of its own.
    pub(crate) foreign: Option<Foreign<RouterMachine>>,
}

/// A node's router, its handlers, and what they have to do.
pub(super) struct Requests {
    machine: Part<RouterMachine>,
    services: Rc<[Service]>,
    members: Rc<BTreeMap<NodeId, u64>>,
    /// Calls that wait for their turn: which, what it is for, and what the answer is.
    waiting: VecDeque<(u64, usize, Bytes)>,
    /// When the call at the front is done.
    done: Option<Time>,
    asked: BTreeMap<u64, Time>,
}

impl Requests {
    pub(super) fn new(args: RouterArgs) -> Requests {
        let RouterArgs { config, services, members, seed, foreign } = args;
        let machine = Part::new(|| RouterMachine::new(config, seed, seed as u32), foreign);
        Requests { machine, services, members, waiting: VecDeque::new(), done: None, asked: BTreeMap::new() }
    }

    /// The machine, if it is the real one.
    pub(super) fn own(&self) -> Option<&RouterMachine> {
        self.machine.own()
    }

    /// Requests that have not ended, and calls that wait or are worked on.
    pub(super) fn held(&self) -> (usize, usize) {
        (self.asked.len(), self.waiting.len())
    }

    fn next_deadline(&self) -> Option<Time> {
        self.machine.next_deadline().into_iter().chain(self.done).min()
    }

    fn service(&self, handler: HandlerId) -> Option<usize> {
        self.services.iter().position(|service| HandlerId::of(&service.name) == handler)
    }

    /// The call at the front is worked on from now.
    fn begin(&mut self, now: Time) {
        self.done = self.waiting.front().map(|(_, service, _)| now + self.services[*service].takes);
    }
}

impl PeerageNode {
    pub(super) fn serve(&mut self, now: Time, net: &mut Net<'_, PeerageNode>) {
        let Some(requests) = &self.requests else { return };
        let (services, members) = (requests.services.clone(), requests.members.clone());
        if !members.is_empty() {
            self.tell_router(now, In::Members((*members).clone()), net);
        }
        for (token, service) in services.iter().enumerate() {
            let (token, name, config) = (token as u64, service.name.clone(), service.limits);
            self.tell_router(now, In::AddHandler { token, name, config }, net);
        }
    }

    pub(super) fn router_up(&mut self, session: SessionId, id: NodeId, channel: ChannelId) {
        self.todo.push_back(Todo::Router(In::PeerUp(PeerUp { session, id, channel })));
    }

    /// Asks any peer.
    pub(super) fn ask(&mut self, now: Time, service: usize, what: Descriptor, net: &mut Net<'_, PeerageNode>) {
        let token = self.token();
        let Some(requests) = &mut self.requests else { return };
        let Some(Service { name, terms, .. }) = requests.services.get(service) else { return };
        let request = Request {
            target: Target::Any(Pool::Everyone),
            handler: HandlerId::of(name),
            payload: what.payload(),
            terms: *terms,
            fallback: None,
        };
        requests.asked.insert(token, now);
        self.tell_router(now, In::Request { token, request: Box::new(request) }, net);
    }

    pub(super) fn tell_router(&mut self, now: Time, input: In, net: &mut Net<'_, PeerageNode>) {
        if let Some(requests) = &mut self.requests {
            requests.machine.handle(now, input);
            self.carry_out_router(now, net);
        }
    }

    pub(super) fn wake_router(&mut self, now: Time, net: &mut Net<'_, PeerageNode>) {
        let Some(requests) = &mut self.requests else { return };
        requests.machine.expire_due(now);
        if requests.done.is_some_and(|done| done <= now)
            && let Some((call, _, answer)) = requests.waiting.pop_front()
        {
            requests.begin(now);
            requests.machine.handle(now, In::Answered { call, answer: Ok(Payload(answer)) });
        }
        self.carry_out_router(now, net);
    }

    fn carry_out_router(&mut self, now: Time, net: &mut Net<'_, PeerageNode>) {
        while let Some(requests) = &mut self.requests {
            let outs = requests.machine.take_outs();
            if outs.is_empty() {
                self.due[Clockwork::Router as usize] = requests.next_deadline();
                break;
            }
            for out in outs {
                self.carry_out_one_of_router(now, out, net);
            }
        }
    }

    fn carry_out_one_of_router(&mut self, now: Time, out: Out, net: &mut Net<'_, PeerageNode>) {
        let Some(requests) = &mut self.requests else { return };
        match out {
            Out::Push(outgoing) => {
                let parcel = Parcel::new(outgoing.bytes, outgoing.lane);
                for to in outgoing.to {
                    self.put(now, to, Message::Request(parcel.clone()), false, outgoing.tag, net);
                }
            }
            Out::Call(call) => {
                let Some(service) = requests.service(call.handler) else { return };
                let Service { answer, takes, .. } = requests.services[service];
                let number = Descriptor::at_end_of(&call.payload).map_or(0, |asked| asked.number);
                let answer = Descriptor { number, size: answer }.payload();
                if takes.is_zero() {
                    requests.machine.handle(now, In::Answered { call: call.call, answer: Ok(Payload(answer)) });
                } else {
                    requests.waiting.push_back((call.call, service, answer));
                    if requests.done.is_none() {
                        requests.begin(now);
                    }
                }
                net.note(Note::Called { from: call.from });
            }
            Out::Completed { token, result } => {
                if let Some(asked) = requests.asked.remove(&token) {
                    net.note(Note::Completed { took: result.is_ok().then(|| now.since(asked)) });
                }
            }
            Out::Report { session, penalty } => {
                self.todo.push_back(Todo::Root(peerage_server::In::Report(session, penalty)));
            }
            // What is at work is worked off, as by a function; and members stay who they are.
            _ => {}
        }
    }
}
