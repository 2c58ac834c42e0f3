//! What the shells of discovery, dialer and gossip do.

use std::net::SocketAddr;

use peerage_dialer::DialOutcome;
use peerage_discovery::wire::Sealed;
use peerage_discovery::{Outgoing, Verdict};
use peerage_machine::Time;
use peerage_wire::Consequence;

use super::USABLE;
use super::{Clockwork, Command, Descriptor, Message, Note, Oracle, PeerageNode, Todo};
use crate::engine::{Net, Payload};

/// Who asked discovery.
pub(super) enum Asked {
    Scenario(u64),
    Dialer(peerage_dialer::Attempt),
}

impl PeerageNode {
    // ---- Discovery.

    pub(super) fn packet(&mut self, from: SocketAddr, sealed: Sealed, net: &mut Net<'_, PeerageNode>) {
        let now = net.now();
        let (asker, asked) = (sealed.from, sealed.to);
        match self.gate.admit_value(now, from, sealed) {
            Verdict::Pass(inbound) => self.tell_discovery(now, peerage_discovery::In::Packet(inbound), net),
            Verdict::Challenge(packet) => {
                let network = self.cast.network();
                let sealed = Sealed { network, from: asked, to: asker, packet, genuine: false };
                self.send_packet(from, sealed, net);
            }
            Verdict::Drop(..) => self.tally.dropped += 1,
        }
    }

    fn send_packet(&mut self, to: SocketAddr, sealed: Sealed, net: &mut Net<'_, PeerageNode>) {
        let message = Message::Packet(Box::new(sealed));
        self.tally.packets += 1;
        self.tally.packet_bytes += message.size() as u64;
        net.send(to, message);
    }

    pub(super) fn tell_discovery(&mut self, now: Time, input: peerage_discovery::In, net: &mut Net<'_, PeerageNode>) {
        self.discovery.lend(&self.cast.discovery_room);
        self.discovery.handle(now, input);
        self.carry_out_discovery(now, net);
    }

    pub(super) fn carry_out_discovery(&mut self, now: Time, net: &mut Net<'_, PeerageNode>) {
        use peerage_discovery::Out;
        let mut outs = self.discovery.take_outs();
        while !outs.is_empty() {
            for out in outs.drain(..) {
                match out {
                    Out::Send(outgoing) => {
                        let Outgoing { to, addr, packet } = outgoing.tied(&self.secrets);
                        let network = self.cast.network();
                        self.send_packet(addr, Sealed { network, from: self.id, to, packet, genuine: true }, net);
                    }
                    Out::Verify { token, records } => {
                        let told = records.len();
                        let records: Vec<_> = records.iter().filter_map(|record| self.cast.verify(record)).collect();
                        self.tally.dropped += (told - records.len()) as u64;
                        self.discovery.handle(now, peerage_discovery::In::Verified { token, records });
                    }
                    Out::Candidates(found) => {
                        self.todo.push_back(Todo::Dialer(peerage_dialer::In::Candidates(found)));
                    }
                    Out::Alive(record) => self.remember(now, &record),
                    // Nodes of a world know their addresses.
                    Out::Observed { .. } => {}
                    Out::Answer { token, records } => match self.asked.remove(&token) {
                        Some(Asked::Scenario(token)) => net.note(Note::Answer { token, records }),
                        Some(Asked::Dialer(attempt)) => {
                            let record = records.into_iter().next();
                            self.todo.push_back(Todo::Dialer(peerage_dialer::In::Resolved { attempt, record }));
                        }
                        None => {}
                    },
                    Out::Drop(_) => self.tally.dropped += 1,
                    Out::Walked { token, hops, queries } => {
                        if let Some(Asked::Scenario(_)) = token.and_then(|token| self.asked.get(&token)) {
                            net.note(Note::Walked { hops, queries: u32::try_from(queries).unwrap_or(u32::MAX) });
                        }
                    }
                    Out::Handed(_) | Out::Event(_) => {}
                }
            }
            let more = self.discovery.take_outs();
            self.cast.discovery_room.give_back(std::mem::replace(&mut outs, more));
        }
        self.cast.discovery_room.give_back(outs);
        if !self.usable && self.discovery.own().is_some_and(|discovery| discovery.usable() >= USABLE) {
            self.usable = true;
            net.note(Note::Usable);
        }
        self.due[Clockwork::Discovery as usize] = self.discovery.next_deadline();
    }

    // ---- Dialer.

    pub(super) fn tell_dialer(&mut self, now: Time, input: peerage_dialer::In, net: &mut Net<'_, PeerageNode>) {
        self.dialer.handle(now, input);
        self.carry_out_dialer(now, net);
    }

    pub(super) fn carry_out_dialer(&mut self, now: Time, net: &mut Net<'_, PeerageNode>) {
        use peerage_dialer::Out;
        for out in self.dialer.take_outs() {
            match out {
                Out::Want(count) => {
                    self.todo.push_back(Todo::Discovery(peerage_discovery::In::Want(count.get() as usize)));
                }
                Out::Resolve { attempt, id } => {
                    let token = self.token();
                    self.asked.insert(token, Asked::Dialer(attempt));
                    self.todo.push_back(Todo::Discovery(peerage_discovery::In::Resolve { token, id }));
                }
                Out::Dial { attempt, target } => {
                    net.note(Note::Dials(target.id));
                    self.begin_dial(now, attempt, target, net);
                }
                Out::Cancel(attempt) => self.cancel_dial(attempt, net),
                Out::Seeking(_) | Out::Count(_) => {}
            }
        }
        self.due[Clockwork::Dialer as usize] = self.dialer.next_deadline();
    }

    /// A dial is over: what the root tells the dialer and discovery.
    pub(super) fn dialled(
        &mut self,
        attempt: peerage_dialer::Attempt,
        id: peerage_wire::NodeId,
        outcome: DialOutcome,
        net: &mut Net<'_, PeerageNode>,
    ) {
        let ok = outcome == DialOutcome::Connected;
        net.note(Note::Dialled { id, ok });
        self.todo.push_back(Todo::Dialer(peerage_dialer::In::Done { attempt, outcome }));
        // What is not the node's own doing says nothing of it.
        if ok || outcome.consequence() != Consequence::Ignore {
            self.todo.push_back(Todo::Discovery(peerage_discovery::In::Outcome { id, ok }));
        }
    }

    // ---- Gossip.

    pub(super) fn tell_gossip(&mut self, now: Time, input: peerage_gossip::In, net: &mut Net<'_, PeerageNode>) {
        self.gossip.lend(&self.cast.gossip_room);
        self.gossip.handle(now, input);
        self.carry_out_gossip(now, net);
    }

    pub(super) fn carry_out_gossip(&mut self, now: Time, net: &mut Net<'_, PeerageNode>) {
        use peerage_gossip::{Count, In, Out};
        let mut outs = self.gossip.take_outs();
        while !outs.is_empty() {
            for out in outs.drain(..) {
                match out {
                    Out::Push(outgoing) => self.push(now, outgoing, net),
                    Out::Cancel { to, tag } => self.cancel(to.session, tag),
                    Out::Deliver(message) => {
                        if let Some(what) = Descriptor::at_end_of(&message.payload) {
                            net.note(Note::Delivered(what));
                        }
                    }
                    Out::Sign { token, claim, .. } => {
                        let signature = self.cast.sign(self.id, &claim);
                        self.gossip.handle(now, In::Signed { token, signature });
                    }
                    Out::Verify { token, check, .. } => {
                        let ok = self.cast.holds(&check);
                        self.gossip.handle(now, In::Verified { token, ok });
                    }
                    Out::Code { token, job } => {
                        let coding = job.run(&Oracle).map(Box::new);
                        self.gossip.handle(now, In::Coded { token, coding });
                    }
                    Out::Report { session, penalty } => {
                        self.todo.push_back(Todo::Root(peerage_server::In::Report(session, penalty)));
                    }
                    Out::Useful { session, useful } => {
                        self.todo.push_back(Todo::Root(peerage_server::In::Useful(session, useful)));
                    }
                    Out::Published { result, .. } => {
                        net.note(Note::Published(result.ok().map(|published| published.peers)));
                    }
                    Out::Count(Count::Accepted) => self.tally.accepted += 1,
                    Out::Count(Count::Duplicate) => self.tally.duplicates += 1,
                    Out::Count(Count::Shard(true)) => self.tally.shards += 1,
                    Out::Count(Count::Shard(false)) => self.tally.shards_again += 1,
                    Out::Count(Count::ShardsAsked(shards)) => self.tally.shards_asked += shards as u64,
                    Out::Count(Count::RequestedOut(ids)) => self.tally.asked += ids as u64,
                    // Nothing is validated, confirmed or kept in the world.
                    Out::Validate { .. } | Out::Confirmed { .. } | Out::Keep { .. } => {}
                    // Nor is a topic durable.
                    Out::History { .. } | Out::ReadHistory { .. } | Out::CatchUp { .. } => {}
                    Out::Count(_) | Out::Subscribed { .. } | Out::Remember(_) | Out::Crashed { .. } => {}
                }
            }
            let more = self.gossip.take_outs();
            self.cast.gossip_room.give_back(std::mem::replace(&mut outs, more));
        }
        self.cast.gossip_room.give_back(outs);
        self.due[Clockwork::Gossip as usize] = self.gossip.next_deadline();
    }

    // ---- The scenario.

    pub(super) fn command(&mut self, command: Command, net: &mut Net<'_, PeerageNode>) {
        let now = net.now();
        match command {
            Command::Publish { topic, policy, what } => {
                let token = self.token();
                let pressed = self.queued_bytes > self.config.queue.outbound.at_large / 2;
                let payload = what.payload();
                self.tell_gossip(now, peerage_gossip::In::Publish { token, topic, policy, payload, pressed }, net);
            }
            Command::Lookup { token: named, target } => {
                let token = self.token();
                self.asked.insert(token, Asked::Scenario(named));
                self.tell_discovery(now, peerage_discovery::In::Lookup { token, target }, net);
            }
            Command::Ask { service, what } => self.ask(now, service, what, net),
            Command::Shutdown => self.tell_root(now, peerage_server::In::Shutdown, net),
        }
    }
}
