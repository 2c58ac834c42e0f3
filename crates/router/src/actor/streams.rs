//! The shell's part in streams: it hands them on, and keeps those that nobody has decided on.

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};

use bytes::Bytes;
use peerage_machine::Time;
use peerage_mailbox::{Capacity, Inlet, Outlet, Reply, data_queue};
use peerage_queue::stream::{AcceptedStream, StreamCode, StreamDoor};
use peerage_queue::{Recipient, SessionId};
use tokio::sync::oneshot;

use super::{BUDGET, State};
use crate::handler::HandlerId;
use crate::ingress::{AddStreams, OpenAsk};
use crate::machine::{AnswerSent, In, OpenStreamError, Out, Payload};
use crate::stream::tasks::{Held, Note, Unread, bring_answer, take_answer};
use crate::stream::{Counted, IncomingStream, Opening, Place, Stream, StreamHandler};
use crate::wire::streams::{Header, codes};

/// A stream that a peer opened, and that no application has.
enum Here {
    /// As it came.
    Unread(Held),
    /// A task reads it, until it is told to refuse it.
    Reading(oneshot::Sender<StreamCode>),
    /// Its header was read, and this came with that.
    Begun(Held, Bytes),
}

pub(super) struct Streams {
    doors: BTreeMap<SessionId, StreamDoor>,
    handlers: BTreeMap<HandlerId, StreamHandler>,
    adding: BTreeMap<u64, AddStreams>,
    opening: BTreeMap<u64, Reply<Result<Opening, OpenStreamError>>>,
    here: BTreeMap<u64, Here>,
    /// Answers that tasks send; what is dropped here ends there.
    sending: BTreeMap<u64, oneshot::Sender<()>>,
    /// Of this life: streams of an earlier one find their queue closed.
    pub(super) notes: Inlet<Note>,
    report: Outlet<Note>,
    counted: Counted,
}

impl Streams {
    pub(super) fn new(counted: Counted) -> Streams {
        // Places bound how many there are: this never has no room.
        let (report, notes) = data_queue(Capacity { items: usize::MAX, weight: usize::MAX });
        Streams {
            doors: BTreeMap::new(),
            handlers: BTreeMap::new(),
            adding: BTreeMap::new(),
            opening: BTreeMap::new(),
            here: BTreeMap::new(),
            sending: BTreeMap::new(),
            notes,
            report,
            counted,
        }
    }

    pub(super) fn door(&mut self, session: SessionId, door: StreamDoor) {
        self.doors.insert(session, door);
    }

    pub(super) fn session_ended(&mut self, session: SessionId) {
        self.doors.remove(&session);
    }
}

impl State {
    pub(super) fn add_streams(&mut self, now: Time, add: AddStreams) {
        let token = self.token();
        let (name, config) = (add.name.clone(), add.config);
        self.streams.adding.insert(token, add);
        self.feed(now, In::AddStreams { token, name, config });
    }

    pub(super) fn remove_streams(&mut self, now: Time, handler: HandlerId) {
        self.streams.handlers.remove(&handler);
        self.feed(now, In::RemoveStreams(handler));
    }

    pub(super) fn open(&mut self, now: Time, OpenAsk { peer, handler, reply }: OpenAsk) {
        let stream = self.token();
        self.streams.opening.insert(stream, reply);
        self.feed(now, In::OpenStream { stream, peer, handler });
    }

    pub(super) fn streams_turn(&mut self, now: Time, came: usize) {
        for note in self.streams.notes.take(BUDGET) {
            self.noted(now, note);
        }
        let came = if self.bell.is_none() { came } else { 0 };
        for _ in 0..came {
            let Some(accepted) = self.args.streams.pop_called() else { break };
            self.came(now, accepted);
        }
        self.streams.notes.ring_if_more();
        self.args.streams.ring_if_more();
    }

    /// The streams that a session opened before it ended.
    pub(super) fn last_streams_of(&mut self, now: Time, session: SessionId) {
        while let Some(accepted) = self.args.streams.pop_of(session.0) {
            self.came(now, accepted);
        }
    }

    fn came(&mut self, now: Time, accepted: AcceptedStream) {
        let (stream, session) = (self.token(), accepted.session);
        self.streams.here.insert(stream, Here::Unread(Held::new(accepted)));
        self.feed(now, In::StreamCame { stream, session });
    }

    fn noted(&mut self, now: Time, note: Note) {
        match note {
            Note::Header { stream, held, rest, header } => {
                // One that was refused meanwhile is not here any more.
                let Some(here) = self.streams.here.get_mut(&stream) else { return held.refuse(codes::HEADER) };
                *here = Here::Begun(held, rest);
                self.feed(now, In::StreamHeader { stream, header });
            }
            Note::Over { stream } => self.feed(now, In::StreamOver { stream }),
            Note::Panicked { session } => self.feed(now, In::HandlerPanicked { session }),
            Note::AnswerCame { stream, answer } => {
                self.streams.here.remove(&stream);
                self.feed(now, In::AnswerCame { stream, answer: answer.map(Payload) });
            }
            Note::AnswerSent { call, sent } => {
                self.streams.sending.remove(&call);
                self.feed(now, In::AnswerSent { call, sent });
            }
        }
    }

    /// Does one thing that the machine asks for, about streams.
    pub(super) fn carry_out_streams(&mut self, out: Out) -> Option<In> {
        match out {
            Out::StreamsAdded { token, result } => {
                let AddStreams { name, handler, reply, .. } = self.streams.adding.remove(&token)?;
                match &result {
                    Ok(id) => drop(self.streams.handlers.insert(*id, handler)),
                    Err(error) => tracing::warn!(name, %error, "streams are not served"),
                }
                if let Some(reply) = reply {
                    reply.send(result);
                }
            }
            Out::Opened { stream, result } => return self.opened(stream, result),
            Out::ReadHeader { stream } => return self.read_header(stream),
            Out::RefuseStream { stream, code } => match self.streams.here.remove(&stream) {
                Some(Here::Unread(held) | Here::Begun(held, _)) => held.refuse(code),
                // The task may have ended by itself.
                Some(Here::Reading(withdraw)) => drop(withdraw.send(code)),
                None => {}
            },
            Out::ServeStream { stream, handler, from, session } => {
                let Some(Here::Begun(held, rest)) = self.streams.here.remove(&stream) else {
                    return Some(In::StreamOver { stream });
                };
                return self.serve_stream(stream, handler, (held, rest), from, session);
            }
            Out::ReadAnswer { stream, length } => {
                let here = self.streams.here.remove(&stream)?;
                let Here::Begun(held, rest) = here else { return None };
                let withdraw = take_answer(stream, held, rest, length, self.streams.report.clone());
                self.streams.here.insert(stream, Here::Reading(withdraw));
            }
            Out::SendAnswer { call, to, header, payload } => {
                let Some(door) = self.streams.doors.get(&to.session).cloned() else {
                    return Some(In::AnswerSent { call, sent: AnswerSent::NoStream });
                };
                let wanted = bring_answer(call, door, to, header, payload, self.streams.report.clone());
                self.streams.sending.insert(call, wanted);
            }
            Out::WithdrawAnswer { call } => drop(self.streams.sending.remove(&call)),
            _ => {}
        }
        None
    }

    fn opened(&mut self, stream: u64, result: Result<(Recipient, Header), OpenStreamError>) -> Option<In> {
        let reply = self.streams.opening.remove(&stream)?;
        match result {
            Ok((Recipient { session, channel }, header)) => {
                let Some(door) = self.streams.doors.get(&session).cloned() else {
                    reply.send(Err(OpenStreamError::NotConnected));
                    return Some(In::StreamOver { stream });
                };
                let place = Place::new(stream, self.streams.report.clone());
                let counted = self.streams.counted.clone();
                // Whoever has stopped waiting drops it, and its place.
                reply.send(Ok(Opening { door, channel, header, place, counted }));
            }
            Err(error) => reply.send(Err(error)),
        }
        None
    }

    fn read_header(&mut self, stream: u64) -> Option<In> {
        let Some(Here::Unread(held)) = self.streams.here.remove(&stream) else { return None };
        match Unread::new(held).try_read() {
            Ok((held, (header, rest))) => {
                self.streams.here.insert(stream, Here::Begun(held, rest));
                Some(In::StreamHeader { stream, header })
            }
            Err(unread) => {
                let withdraw = unread.wait(stream, self.streams.report.clone());
                self.streams.here.insert(stream, Here::Reading(withdraw));
                None
            }
        }
    }

    fn serve_stream(
        &mut self,
        stream: u64,
        handler: HandlerId,
        (held, rest): (Held, Bytes),
        from: peerage_wire::NodeId,
        session: SessionId,
    ) -> Option<In> {
        let (report, counted) = (self.streams.report.clone(), self.streams.counted.clone());
        let Some(handler) = self.streams.handlers.get(&handler) else {
            held.refuse(codes::UNKNOWN_HANDLER);
            return Some(In::StreamOver { stream });
        };
        // From here on the place ends with the halves, whoever has them.
        let halves = Stream::accepted(held, rest, Place::new(stream, report.clone()), counted)?;
        let incoming = IncomingStream { from, session, stream: halves };
        // A panic of the application's is not the actor's end.
        let started = catch_unwind(AssertUnwindSafe(|| handler.start(incoming, &self.turns, report)));
        started.is_err().then_some(In::HandlerPanicked { session })
    }
}
