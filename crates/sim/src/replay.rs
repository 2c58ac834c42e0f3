//! Replay: what a real node's journal says happened to a machine happens to the same machine again.
//!
//! A node that is built with the feature `journal` keeps what its machines were told, and dumps it after a crash or
//! when asked. [`replay`] makes the machine that the dump is of, feeds it the same inputs at the same times, and
//! compares what it asks for with what it asked for in the node, entry by entry. A difference means that the build is
//! another one, or that the machine depends on something it should not; a panic that comes again can be looked at in a
//! debugger.

use std::any::Any;
use std::fmt::{self, Debug};
use std::panic::{AssertUnwindSafe, catch_unwind};

use peerage_dialer::DialerGenesis;
use peerage_discovery::DiscoveryGenesis;
use peerage_discovery::exchange::ExchangeGenesis;
use peerage_gossip::GossipGenesis;
use peerage_machine::journal::{Damage, Dump, DumpError, Entry, Genesis, Recorder, What};
use peerage_machine::{Driver, Machine, Time};
use peerage_router::RouterGenesis;
use peerage_server::{ListenerGenesis, ServerGenesis};
use peerage_wire::codec::{self, CodecError};
use serde::de::DeserializeOwned;

/// Bytes of one input or of what a machine is made of; a node's rings are smaller.
const MAX_VALUE: usize = 1 << 30;

/// Why a dump was not replayed to its end.
#[derive(Debug, PartialEq, Eq)]
pub enum ReplayError {
    /// It is not a dump.
    Dump(DumpError),
    /// It is of a machine that this build does not know.
    UnknownMachine(String),
    /// Its beginning is lost, and with it the state of the machine.
    BeginningLost {
        /// Entries lost.
        lost: u64,
    },
    /// What the machine is made of cannot be read.
    Genesis(CodecError),
    /// What was read makes no machine.
    Refused(String),
    /// An input cannot be read.
    Input {
        /// Which, counted from 0 through the machine's life.
        entry: u64,
        /// Why.
        error: CodecError,
    },
    /// The shell changed the machine by something that is in no journal.
    PassedBy {
        /// Where, counted as above.
        entry: u64,
    },
}

impl fmt::Display for ReplayError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ReplayError::Dump(error) => write!(f, "{error}"),
            ReplayError::UnknownMachine(name) => {
                write!(f, "a journal of `{name}`, a machine that this build does not have")
            }
            ReplayError::BeginningLost { lost } => write!(
                f,
                "the first {lost} entries were lost from the ring before the dump, and with them the machine's state: its \
                 effects cannot be reproduced; with --partial what is left is fed to a new machine all the same"
            ),
            ReplayError::Genesis(error) => {
                write!(
                    f,
                    "what the machine is made of cannot be read by this build ({error}); use the build of the node"
                )
            }
            ReplayError::Refused(why) => write!(f, "what the journal holds makes no machine: {why}"),
            ReplayError::Input { entry, error } => {
                write!(f, "entry {entry} cannot be read by this build ({error}); use the build of the node")
            }
            ReplayError::PassedBy { entry } => {
                write!(f, "at entry {entry} the shell changed the machine by something that is in no journal")
            }
        }
    }
}

impl std::error::Error for ReplayError {}

impl From<DumpError> for ReplayError {
    fn from(error: DumpError) -> ReplayError {
        ReplayError::Dump(error)
    }
}

/// One thing that happened again.
#[derive(Clone, Copy)]
pub struct Step<'a> {
    /// Its number, counted from 0 through the machine's life.
    pub entry: u64,
    /// When it happened in the node.
    pub at: Time,
    /// The input; `None` for timers that were due.
    pub input: Option<&'a dyn Debug>,
    /// What the machine asked for.
    pub effects: &'a [&'a dyn Debug],
}

/// What came of a replay.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// Whose journal it is.
    pub machine: &'static str,
    /// Which life of it in the node, counted from 1.
    pub life: u32,
    /// Whether that life ended in a crash.
    pub crashed: bool,
    /// The version of Peerage that recorded it.
    pub build: String,
    /// Entries lost before the first one that was fed.
    pub lost: u64,
    /// Entries that were fed, the one that panicked among them.
    pub fed: u64,
    /// Entries whose effects were compared and are the same as in the node.
    pub same: u64,
    /// The first entry after which the machine did something else than in the node.
    pub difference: Option<Difference>,
    /// If the machine panicked.
    pub panicked: Option<Panicked>,
    /// The last entry, if the node did not see the end of its handling and the replay did: it was under way when the
    /// dump was made, or the panic did not come again.
    pub unfinished: Option<u64>,
    /// What could not be read of the dump.
    pub damage: Option<Damage>,
}

/// An entry that had other effects than in the node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Difference {
    /// Which, counted from 0 through the machine's life.
    pub entry: u64,
    /// The input, printed.
    pub input: String,
    /// What the machine asks for now, printed. What it asked for in the node is known by its hash only.
    pub effects: Vec<String>,
}

/// A panic of the machine in the replay.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Panicked {
    /// Which entry led to it, counted from 0 through the machine's life.
    pub entry: u64,
    /// The input, printed.
    pub input: String,
    /// What the panic says.
    pub message: String,
    /// Whether the node did not come back from this entry either.
    pub as_in_the_node: bool,
}

impl Outcome {
    /// Whether the machine did what it did in the node: the same effects of every entry, and the panic if there was
    /// one. A panic in the shell, outside of the machine, is not in the journal and comes after the last entry.
    pub fn is_same(&self) -> bool {
        let crashed_alike = match (&self.panicked, self.crashed) {
            (Some(panicked), _) => panicked.as_in_the_node,
            (None, crashed) => !(crashed && self.unfinished.is_some()),
        };
        self.difference.is_none() && crashed_alike
    }
}

/// Replays a dump. `partial` feeds a journal whose beginning was lost all the same, to a new machine; `seen` is told
/// of every entry after its effects.
///
/// # Errors
/// [`ReplayError`]. No bytes, however made, make it panic or take more memory than in proportion to their number and
/// to what the machine's own bounds allow.
pub fn replay(bytes: &[u8], partial: bool, seen: &mut dyn FnMut(&Step<'_>)) -> Result<Outcome, ReplayError> {
    let dump = Dump::read(bytes)?;
    if dump.first() > 0 && !partial {
        return Err(ReplayError::BeginningLost { lost: dump.first() });
    }
    match dump.header.machine {
        DiscoveryGenesis::NAME => feed::<DiscoveryGenesis>(&dump, seen),
        ExchangeGenesis::NAME => feed::<ExchangeGenesis>(&dump, seen),
        DialerGenesis::NAME => feed::<DialerGenesis>(&dump, seen),
        GossipGenesis::NAME => feed::<GossipGenesis>(&dump, seen),
        RouterGenesis::NAME => feed::<RouterGenesis>(&dump, seen),
        ServerGenesis::NAME => feed::<ServerGenesis>(&dump, seen),
        ListenerGenesis::NAME => feed::<ListenerGenesis>(&dump, seen),
        other => Err(ReplayError::UnknownMachine(other.to_owned())),
    }
}

fn feed<G>(dump: &Dump<'_>, seen: &mut dyn FnMut(&Step<'_>)) -> Result<Outcome, ReplayError>
where
    G: Genesis + DeserializeOwned,
    <G::Machine as Machine>::In: Debug + DeserializeOwned,
    <G::Machine as Machine>::Out: Debug,
{
    let genesis: G = codec::decode_unbounded(dump.header.genesis, MAX_VALUE).map_err(ReplayError::Genesis)?;
    // What a damaged configuration leads to while the machine is made is no panic of the machine.
    let machine = catch_unwind(AssertUnwindSafe(|| genesis.build()));
    let machine = machine.unwrap_or_else(|_| Err("its constructor panics".into())).map_err(ReplayError::Refused)?;
    // The hashes are made as they were in the node.
    let (recorder, echo) = Recorder::echoing(codec::encode);
    let mut driver = Driver::new(machine).recorded(recorder);
    let mut outcome = Outcome {
        machine: G::NAME,
        life: dump.header.life,
        crashed: dump.header.crashed,
        build: dump.header.build.to_owned(),
        lost: dump.first(),
        fed: 0,
        same: 0,
        difference: None,
        panicked: None,
        unfinished: None,
        damage: dump.damage,
    };
    for (number, entry) in (dump.first()..).zip(&dump.entries) {
        let input = read::<G>(number, entry)?;
        let shown = input.clone();
        outcome.fed += 1;
        let handled = catch_unwind(AssertUnwindSafe(|| match input {
            Some(input) => driver.handle(entry.at, input),
            None => driver.expire_due(entry.at),
        }));
        if let Err(panic) = handled {
            let as_in_the_node = entry.effects.is_none();
            let (input, message) = (print(shown.as_ref()), said(panic.as_ref()));
            outcome.panicked = Some(Panicked { entry: number, input, message, as_in_the_node });
            return Ok(outcome);
        }
        let outs: Vec<_> = driver.drain().collect();
        let effects: Vec<&dyn Debug> = outs.iter().map(|out| out as &dyn Debug).collect();
        let input = shown.as_ref().map(|input| input as &dyn Debug);
        seen(&Step { entry: number, at: entry.at, input, effects: &effects });
        let again = echo.take();
        match entry.effects {
            None => outcome.unfinished = Some(number),
            // That the input is written as it was read shows that nothing in it was lost.
            Some(_) if again.is_some_and(|again| *again.input == *entry.input && again.effects == entry.effects) => {
                outcome.same += 1;
            }
            Some(_) if outcome.difference.is_none() => {
                let effects = effects.iter().map(|effect| format!("{effect:?}")).collect();
                outcome.difference = Some(Difference { entry: number, input: print(shown.as_ref()), effects });
            }
            Some(_) => {}
        }
    }
    Ok(outcome)
}

type InOf<G> = <<G as Genesis>::Machine as Machine>::In;

fn read<G: Genesis>(number: u64, entry: &Entry<'_>) -> Result<Option<InOf<G>>, ReplayError>
where
    InOf<G>: DeserializeOwned,
{
    match entry.what {
        What::Expiry => Ok(None),
        What::PassedBy => Err(ReplayError::PassedBy { entry: number }),
        What::Input => codec::decode_unbounded(entry.input, MAX_VALUE)
            .map(Some)
            .map_err(|error| ReplayError::Input { entry: number, error }),
    }
}

fn print<T: Debug>(input: Option<&T>) -> String {
    input.map_or_else(|| "timers that are due".to_owned(), |input| format!("{input:?}"))
}

/// The words of a panic.
fn said(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().copied();
    let text = text.or_else(|| panic.downcast_ref::<String>().map(String::as_str));
    text.unwrap_or("without words").to_owned()
}
