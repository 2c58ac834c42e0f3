//! A node in memory with its pools and counters, and peers that hold real keys and say with them whatever a test wants.

mod ends;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
pub(crate) use ends::{UNIX, keys, presented, stream};
use metrics::{Counter, Gauge, Histogram, Key, KeyName, Metadata, Recorder, SharedString, Unit};
use peerage_peer_session::handshake::{HandshakeError, Keys, Presented};
use peerage_peer_session::peerage_mailbox::{Capacity, Clock, Inlet, Meter, Port, Supervisor, data_queue};
use peerage_peer_session::peerage_queue::throttle::{ThrottleLimits, Throttles};
use peerage_peer_session::peerage_queue::{
    ChannelId, Door, Inbound, InboundPool, LanesConfig, Message, Pool, PoolConfig, SessionId, lanes,
};
use peerage_peer_session::peerage_transport::Stream;
use peerage_peer_session::peerage_wire::frame::{CHANNEL_WINDOW, Header, Kind, Lane};
use peerage_peer_session::peerage_wire::{DisconnectReason, NodeId};
use peerage_peer_session::{Args, Buffers, Config, Ended, Established, Handshaker, SessionMailbox, spawn};
use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};

/// Nothing that a test waits for takes longer.
const LONG: Duration = Duration::from_secs(3600);

/// A connection that holds `room` bytes in each direction.
pub(crate) fn link(room: usize) -> (Stream, Stream) {
    let (a, b) = duplex(room);
    (stream(a), stream(b))
}

/// Counters by name, whatever their labels.
#[derive(Debug, Default)]
pub(crate) struct Counts(Mutex<BTreeMap<String, Arc<AtomicU64>>>);

impl Counts {
    pub(crate) fn get(&self, name: &str) -> u64 {
        let counts = self.0.lock().expect("no panic");
        counts.get(name).map_or(0, |count| count.load(Ordering::Relaxed))
    }
}

impl Recorder for Counts {
    fn describe_counter(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
    fn describe_gauge(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
    fn describe_histogram(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}

    fn register_counter(&self, key: &Key, _: &Metadata<'_>) -> Counter {
        let mut counts = self.0.lock().expect("no panic");
        Counter::from_arc(counts.entry(key.name().to_owned()).or_default().clone())
    }

    fn register_gauge(&self, _: &Key, _: &Metadata<'_>) -> Gauge {
        Gauge::noop()
    }

    fn register_histogram(&self, _: &Key, _: &Metadata<'_>) -> Histogram {
        Histogram::noop()
    }
}

/// A node: its sessions share its pools, buffers and counters.
pub(crate) struct Node {
    pub(crate) handshaker: Handshaker,
    pub(crate) presented: Presented,
    pub(crate) inbound: InboundPool,
    pub(crate) outbound: Pool,
    pub(crate) counts: Arc<Counts>,
    n: u8,
    clock: Clock,
    buffers: Buffers,
    lanes: LanesConfig,
    sessions: AtomicU64,
}

impl Node {
    pub(crate) fn new(n: u8) -> Node {
        let clock = Clock::simulated(UNIX);
        Node {
            handshaker: Handshaker::new(Config::recommended(), keys(n), clock),
            presented: presented(n),
            inbound: InboundPool::new(64 << 20, PoolConfig::inbound()),
            outbound: Pool::new(PoolConfig::outbound()),
            counts: Arc::default(),
            n,
            clock,
            buffers: Buffers::new(),
            lanes: LanesConfig::recommended(),
            sessions: AtomicU64::new(0),
        }
    }

    pub(crate) fn id(&self) -> NodeId {
        keys(self.n).id()
    }

    pub(crate) async fn accept(&self, stream: Stream) -> Result<Established, HandshakeError> {
        self.handshaker.accept(stream, &self.presented, |_| async { Ok(()) }).await
    }

    pub(crate) async fn dial(&self, stream: Stream, to: NodeId) -> Result<Established, HandshakeError> {
        self.handshaker.dial(stream, &self.presented, to, |_| async { Ok(()) }).await
    }

    /// A session whose protocols take what fits into `room` messages before somebody hears them.
    pub(crate) async fn start(&self, established: Established, room: usize) -> Session {
        let windows = CHANNEL_WINDOW * established.remote.channels.len();
        let share = self.inbound.admit(windows, 0).expect("the pool has room for a session's windows");
        let (door, lane_end) = lanes(self.lanes, &self.outbound, 0);
        let (ended_to, ended) = tokio::sync::mpsc::unbounded_channel();
        let queue = |_| data_queue(Capacity { items: room, weight: 64 << 20 });
        let (outlets, inlets): (Vec<_>, Vec<_>) = established.remote.channels.iter().map(queue).unzip();
        let args = Args {
            session: SessionId(self.sessions.fetch_add(1, Ordering::Relaxed)),
            config: Config::recommended(),
            established,
            lanes: lane_end,
            inbound: share,
            throttle: Throttles::new(self.clock, ThrottleLimits::recommended()).peer(self.clock.now(), 0),
            accept: BTreeMap::new(),
            buffers: self.buffers.clone(),
            routes: (1..).map(ChannelId).zip(outlets).collect(),
            traffic: None,
            ended: Port::from_fn(move |ended| {
                let _ = ended_to.send(ended);
            }),
            clock: self.clock,
            meter: Meter::new(self.counts.clone()),
        };
        let (mailbox, _) = spawn(args, &Supervisor::none()).await.expect("starts");
        Session { mailbox, door, inlets, ended }
    }

    /// A session with the nth identity, which is hostile, over a connection that holds `room` bytes.
    pub(crate) async fn meet(&self, n: u8, room: usize) -> (Session, Hostile) {
        let (near, far) = link(room);
        let hostile = Node::new(n);
        let (accepted, dialled) = tokio::join!(self.accept(near), hostile.dial(far, self.id()));
        let session = self.start(accepted.expect("accepts"), 1000).await;
        (session, Hostile::new(dialled.expect("dials")))
    }

    /// A session with an honest node beside all that a test does.
    pub(crate) async fn beside(&self) -> Beside {
        let (near, far) = link(1 << 20);
        let other = Node::new(200);
        let (accepted, dialled) = tokio::join!(self.accept(near), other.dial(far, self.id()));
        let here = self.start(accepted.expect("accepts"), 1000).await;
        let there = other.start(dialled.expect("dials"), 1000).await;
        Beside { here, there, said: 0 }
    }
}

/// A node's end of a session.
pub(crate) struct Session {
    pub(crate) mailbox: SessionMailbox,
    pub(crate) door: Door,
    pub(crate) inlets: Vec<Inlet<Inbound>>,
    pub(crate) ended: tokio::sync::mpsc::UnboundedReceiver<Ended>,
}

impl Session {
    pub(crate) fn say(&self, channel: u16, lane: Lane, bytes: impl Into<Bytes>) {
        self.door.offer(Message::new(ChannelId(channel), lane, bytes.into())).expect("room in the lane");
    }

    pub(crate) async fn hear(&mut self, channel: u16) -> Inbound {
        let heard = tokio::time::timeout(LONG, self.inlets[usize::from(channel) - 1].recv());
        heard.await.expect("in time").expect("not lost")
    }

    pub(crate) async fn end(&mut self) -> Ended {
        tokio::time::timeout(LONG, self.ended.recv()).await.expect("in time").expect("told")
    }

    pub(crate) fn lives(&mut self) -> bool {
        self.ended.try_recv().is_err()
    }
}

/// Two honest nodes that go on talking, whatever happens to one of them elsewhere.
pub(crate) struct Beside {
    here: Session,
    there: Session,
    said: u64,
}

impl Beside {
    /// A message in each direction, on every lane, at once: no virtual time passes.
    pub(crate) async fn talk(&mut self) {
        for lane in Lane::ALL {
            self.said += 1;
            let word = self.said.to_be_bytes().to_vec();
            self.here.say(1, lane, word.clone());
            self.there.say(2, lane, word.clone());
            let start = tokio::time::Instant::now();
            assert_eq!(self.there.hear(1).await.delivery.payload, word);
            assert_eq!(self.here.hear(2).await.delivery.payload, word);
            assert!(start.elapsed() < Duration::from_millis(10), "the honest session goes on: {:?}", start.elapsed());
        }
    }

    /// Ends it, and says that it was not the first to go.
    pub(crate) async fn part(mut self) {
        self.talk().await;
        assert!(self.here.lives() && self.there.lives());
        self.there.mailbox.disconnect(DisconnectReason::Quitting);
        assert_eq!(self.here.end().await.reason, DisconnectReason::Quitting);
        tokio::time::sleep(Duration::from_secs(2)).await;
    }
}

/// A peer that has proved who it is, and keeps to nothing else.
pub(crate) struct Hostile {
    pub(crate) keys: Keys,
    pub(crate) stream: Stream,
    read: Vec<u8>,
    frames: std::collections::VecDeque<(Header, Vec<u8>)>,
}

/// A frame as it is to be sent.
pub(crate) type Frame = (Header, Vec<u8>);

/// A frame of the session's own.
pub(crate) fn own(kind: Kind, payload: impl Into<Vec<u8>>) -> Frame {
    let payload = payload.into();
    (Header::new(kind, Lane::Control, 0, payload.len() as u16), payload)
}

/// A message, or a part of one.
pub(crate) fn data(channel: u16, lane: Lane, more: bool, payload: impl Into<Vec<u8>>) -> Frame {
    let payload = payload.into();
    (Header { more, ..Header::new(Kind::Data, lane, channel, payload.len() as u16) }, payload)
}

/// The beginning of a message of `total` bytes.
pub(crate) fn begin(channel: u16, lane: Lane, total: u32, first: &[u8]) -> Frame {
    let (header, payload) = data(channel, lane, true, [&total.to_be_bytes()[..], first].concat());
    (Header { total: true, ..header }, payload)
}

/// A frame about a flow's credit.
pub(crate) fn limit(kind: Kind, channel: u16, lane: Lane, limit: u64) -> Frame {
    (Header::new(kind, lane, channel, 8), limit.to_be_bytes().to_vec())
}

impl Hostile {
    pub(crate) fn new(established: Established) -> Hostile {
        let Established { stream, keys, read, .. } = established;
        Hostile { keys, stream, read: read.to_vec(), frames: Default::default() }
    }

    /// These frames in one record.
    pub(crate) fn seal(&mut self, frames: &[Frame]) -> Vec<u8> {
        let mut text = Vec::new();
        for (header, payload) in frames {
            header.encode(&mut text);
            text.extend_from_slice(payload);
        }
        self.seal_text(&text)
    }

    /// Any bytes as a record.
    pub(crate) fn seal_text(&mut self, text: &[u8]) -> Vec<u8> {
        let mut record = Vec::new();
        let start = self.keys.sealer.begin(&mut record);
        record.extend_from_slice(text);
        self.keys.sealer.finish(&mut record, start);
        record
    }

    /// Sends bytes as they are; false when the other end is gone.
    pub(crate) async fn write(&mut self, bytes: &[u8]) -> bool {
        self.stream.write_all(bytes).await.is_ok()
    }

    /// Sends frames, one a record; false when the other end is gone.
    pub(crate) async fn send(&mut self, frames: &[Frame]) -> bool {
        for frame in frames {
            let record = self.seal(std::slice::from_ref(frame));
            if !self.write(&record).await {
                return false;
            }
        }
        true
    }

    /// The next frame from the other end; `None` when it has closed.
    pub(crate) async fn hear(&mut self) -> Option<Frame> {
        loop {
            if let Some(frame) = self.frames.pop_front() {
                return Some(frame);
            }
            match self.keys.opener.open_first(&mut self.read).expect("the honest end's records") {
                Some(record) => {
                    let mut frames = &self.read[record.text.clone()];
                    while !frames.is_empty() {
                        let (header, payload) = Header::decode(&mut frames).expect("the honest end's frames");
                        self.frames.push_back((header, payload.to_vec()));
                    }
                    self.read.drain(..record.end);
                }
                None => {
                    if self.stream.read_buf(&mut self.read).await.ok()? == 0 {
                        return None;
                    }
                }
            }
        }
    }

    /// Why the other end says that it ends the session.
    pub(crate) async fn farewell(&mut self) -> Option<DisconnectReason> {
        loop {
            let (header, payload) = self.hear().await?;
            if header.kind == Kind::Disconnect {
                let code = payload.first_chunk::<2>().map(|code| u16::from_be_bytes(*code));
                return code.map(DisconnectReason::from_code);
            }
        }
    }
}
