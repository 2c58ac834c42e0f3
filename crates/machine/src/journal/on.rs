//! Recording: the journals of a node, and the recorder of one machine.

use std::collections::BTreeMap;
use std::fmt::{self, Debug, Write};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::Genesis;
use super::dump::What;
use super::ring::Ring;
use crate::{Machine, Time, TimerOp};

type Life = Arc<Mutex<Ring>>;
type Sink = dyn Fn(Snapshot) + Send + Sync;

/// Held for one call and never across an await; nothing in it is half done between calls.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The journals of one node: of each machine the present life, and the last one that crashed. Clones are the
/// same journals.
#[derive(Clone, Default)]
pub struct Journals(Option<Arc<Shared>>);

struct Shared {
    bytes: usize,
    lives: Mutex<BTreeMap<&'static str, Lives>>,
    on_crash: Option<Box<Sink>>,
}

#[derive(Default)]
struct Lives {
    begun: u32,
    present: Option<Life>,
    crashed: Option<Life>,
}

impl Journals {
    /// Keeps nothing.
    pub const fn off() -> Journals {
        Journals(None)
    }

    /// Keeps at most `bytes` of each life of a machine, and so twice as many of a machine. `on_crash` is given the
    /// journal of every life that ends in a crash, on the thread of whoever noticed: it must not take long.
    pub fn recording(bytes: usize, on_crash: impl Fn(Snapshot) + Send + Sync + 'static) -> Journals {
        Journals(Some(Arc::new(Shared { bytes, lives: Mutex::default(), on_crash: Some(Box::new(on_crash)) })))
    }

    /// Begins the journal of a machine's life. A life of it that was under way has crashed, or it would not
    /// begin anew. This crate has no codec of its own; the shell brings one.
    pub fn begin<G>(
        &self,
        now: Time,
        genesis: impl FnOnce() -> G,
        encode_genesis: fn(&G) -> Vec<u8>,
        encode: fn(&<G::Machine as Machine>::In) -> Vec<u8>,
    ) -> Recorder<G::Machine>
    where
        G: Genesis,
        <G::Machine as Machine>::Out: Debug,
    {
        let Some(shared) = &self.0 else { return Recorder::off() };
        let mut lives = lock(&shared.lives);
        let lives = lives.entry(G::NAME).or_default();
        lives.end();
        lives.begun += 1;
        let ring = Ring::new(G::NAME, lives.begun, now, encode_genesis(&genesis()), shared.bytes);
        let life = Arc::new(Mutex::new(ring));
        lives.present = Some(life.clone());
        Recorder(Some(Box::new(Recording { life, encode, note: note_all, note_timers: note_all, turn: None })))
    }

    /// Notes that the present life of this machine ended in a crash, and tells whoever wants to know.
    pub fn crashed(&self, machine: &str) {
        let Some(shared) = &self.0 else { return };
        let ended = lock(&shared.lives).get_mut(machine).and_then(Lives::end);
        if let (Some(life), Some(tell)) = (ended, &shared.on_crash) {
            tell(Snapshot::of(&life));
        }
    }

    /// All that is kept now: of each machine the life that crashed last, if one did, and the present one.
    pub fn snapshots(&self) -> Vec<Snapshot> {
        let Some(shared) = &self.0 else { return Vec::new() };
        let lives = lock(&shared.lives);
        lives.values().flat_map(|lives| lives.crashed.iter().chain(&lives.present)).map(Snapshot::of).collect()
    }
}

impl Debug for Journals {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.0.is_some() { "Journals(recording)" } else { "Journals(off)" })
    }
}

impl Lives {
    fn end(&mut self) -> Option<Life> {
        let life = self.present.take()?;
        lock(&life).crashed = true;
        self.crashed = Some(life.clone());
        Some(life)
    }
}

/// A journal as it was at one moment. What happens to the machine meanwhile is not held up.
#[derive(Clone)]
pub struct Snapshot(Ring);

impl Snapshot {
    fn of(life: &Life) -> Snapshot {
        Snapshot(lock(life).clone())
    }

    /// The machine's name.
    pub fn machine(&self) -> &'static str {
        self.0.machine
    }

    /// Which life of it, counted from 1.
    pub fn life(&self) -> u32 {
        self.0.life
    }

    /// Whether that life ended in a crash.
    pub fn has_crashed(&self) -> bool {
        self.0.crashed
    }

    /// Entries in it.
    pub fn len(&self) -> usize {
        self.0.entries.len()
    }

    /// Whether nothing is in it.
    pub fn is_empty(&self) -> bool {
        self.0.entries.is_empty()
    }

    /// Bytes of the ring that are in use.
    pub fn bytes_kept(&self) -> usize {
        self.0.bytes()
    }

    /// The bytes of the dump, which [`Dump::read`](super::Dump::read) reads.
    pub fn to_bytes(&self) -> Vec<u8> {
        self.0.encode()
    }
}

impl Debug for Snapshot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Snapshot({} life {}, {} entries)", self.machine(), self.life(), self.len())
    }
}

/// What a replayed machine just did; see [`Recorder::echoing`].
#[derive(Debug)]
pub struct Echo(Life);

/// One entry of a replay.
#[derive(Clone, Debug)]
pub struct Echoed {
    /// The input as it is encoded now.
    pub input: Arc<[u8]>,
    /// A hash of the effects that followed, as in [`Entry::effects`](super::Entry::effects).
    pub effects: Option<[u8; 8]>,
}

impl Echo {
    /// The last entry; `None` if nothing happened since
    /// the last call, as for an expiry without a timer that is due.
    pub fn take(&self) -> Option<Echoed> {
        let mut ring = lock(&self.0);
        let last = ring.entries.pop_back()?;
        ring.clear();
        Some(Echoed { input: last.input, effects: last.effects })
    }
}

/// Keeps what happens to one machine; hang it on its [`Driver`](crate::Driver::recorded).
pub struct Recorder<M: Machine>(Option<Box<Recording<M>>>);

/// Boxed, so that machines which are not recorded pay for a pointer.
struct Recording<M: Machine> {
    life: Life,
    encode: fn(&M::In) -> Vec<u8>,
    // Plain functions, so that a driver need not know that its machine's effects can be printed.
    note: fn(&mut Hashed, &[M::Out]),
    note_timers: fn(&mut Hashed, &[TimerOp<M::Timer>]),
    turn: Option<Turn>,
}

/// What is being handled.
struct Turn {
    number: u64,
    /// Effects that were there before.
    before: usize,
    hashed: Hashed,
}

/// A hash of what is printed into it.
struct Hashed(blake3::Hasher);

impl Write for Hashed {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.0.update(text.as_bytes());
        Ok(())
    }
}

/// Effects are hashed as they print: that has no addresses and no order of a hash map in it, and needs nothing
/// more of their types.
fn note_all<T: Debug>(hashed: &mut Hashed, items: &[T]) {
    for item in items {
        // A hash takes everything; a value that fails to print does so alike in the replay.
        writeln!(hashed, "{item:?}").unwrap_or_default();
    }
}

impl<M: Machine> Recorder<M> {
    /// Keeps nothing.
    pub const fn off() -> Self {
        Recorder(None)
    }

    /// A recorder for a replay: what it keeps is taken after every entry, to be compared.
    pub fn echoing(encode: fn(&M::In) -> Vec<u8>) -> (Self, Echo)
    where
        M::Out: Debug,
    {
        let life = Arc::new(Mutex::new(Ring::new("", 0, Time::ZERO, Vec::new(), usize::MAX)));
        let echo = Echo(life.clone());
        (Recorder::on(life, encode), echo)
    }

    fn on(life: Life, encode: fn(&M::In) -> Vec<u8>) -> Self
    where
        M::Out: Debug,
    {
        Recorder(Some(Box::new(Recording { life, encode, note: note_all, note_timers: note_all, turn: None })))
    }

    pub(crate) fn begin(&mut self, now: Time, input: Option<&M::In>, outs: &[M::Out]) {
        let Some(recording) = &mut self.0 else { return };
        let (what, bytes) = match input {
            Some(input) => (What::Input, (recording.encode)(input)),
            None => (What::Expiry, Vec::new()),
        };
        let number = lock(&recording.life).push(now, what, bytes);
        recording.turn = Some(Turn { number, before: outs.len(), hashed: Hashed(blake3::Hasher::new()) });
    }

    pub(crate) fn timers(&mut self, ops: &[TimerOp<M::Timer>]) {
        if let Some(recording) = &mut self.0
            && let Some(turn) = &mut recording.turn
        {
            (recording.note_timers)(&mut turn.hashed, ops);
        }
    }

    pub(crate) fn end(&mut self, outs: &[M::Out]) {
        let Some(recording) = &mut self.0 else { return };
        let Some(Turn { number, before, mut hashed }) = recording.turn.take() else { return };
        (recording.note)(&mut hashed, outs.get(before..).unwrap_or_default());
        let mut effects = [0; 8];
        effects.copy_from_slice(&hashed.0.finalize().as_bytes()[..8]);
        lock(&recording.life).followed(number, effects);
    }

    /// The machine is changed by something that cannot be recorded.
    pub(crate) fn passed_by(&mut self) {
        if let Some(recording) = &mut self.0 {
            lock(&recording.life).push(Time::ZERO, What::PassedBy, Vec::new());
        }
    }
}

impl<M: Machine> Debug for Recorder<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.0.is_some() { "Recorder(on)" } else { "Recorder(off)" })
    }
}
