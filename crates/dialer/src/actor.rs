//! The dialer's shell: an actor that feeds the machine, sends what it asks for, and counts.

use peerage_machine::Driver;
use peerage_machine::journal::{Genesis as _, Journals};
use peerage_mailbox::{Alarm, Child, Clock, Meter, Port, SpawnError, Supervisor, spawn_child};
use peerage_wire::{NodeId, codec};
use ractor::{Actor, ActorProcessingErr, ActorRef};

use crate::ingress::Msg;
use crate::metrics::Metrics;
use crate::{Config, Diagnosis, DialerGenesis, DialerMachine, DialerMailbox, Out};

/// What a dialer is started with.
#[derive(Clone, Debug)]
pub struct Args {
    /// Its bounds and intervals.
    pub config: Config,
    /// The node it dials for.
    pub id: NodeId,
    /// Decides the order of static peers and the jitter of pauses.
    pub seed: u64,
    /// The node's clock; the same in every life of its dialer, as attempts are numbered by it.
    pub clock: Clock,
    /// Where it counts.
    pub meter: Meter,
    /// Where its machine's inputs are kept, in a build with the feature `journal`.
    pub journals: Journals,
    /// Takes what it asks for; [`Out::Count`] is not sent.
    pub out: Port<Out>,
}

/// Starts a dialer. It dials nobody before [`DialerMailbox::start`].
///
/// # Errors
/// A configuration that cannot work, in words.
pub async fn spawn(args: Args, parent: &Supervisor) -> Result<(DialerMailbox, Child), SpawnError> {
    let (actor, child) = spawn_child(Dialer, args, parent).await?;
    Ok((DialerMailbox::new(actor), child))
}

struct Dialer;

struct State {
    driver: Driver<DialerMachine>,
    clock: Clock,
    alarm: Alarm,
    metrics: Metrics,
    out: Port<Out>,
}

impl Actor for Dialer {
    type Msg = Msg;
    type State = State;
    type Arguments = Args;

    async fn pre_start(&self, myself: ActorRef<Msg>, args: Args) -> Result<State, ActorProcessingErr> {
        let genesis = DialerGenesis { config: args.config, id: args.id, seed: args.seed };
        let recorder = args.journals.begin(args.clock.now(), || genesis.clone(), codec::encode, codec::encode);
        Ok(State {
            driver: Driver::new(genesis.build()?).recorded(recorder),
            clock: args.clock,
            alarm: Alarm::new(&myself, args.clock, || Msg::Tick),
            metrics: Metrics::new(args.meter),
            out: args.out,
        })
    }

    async fn handle(&self, _myself: ActorRef<Msg>, message: Msg, state: &mut State) -> Result<(), ActorProcessingErr> {
        let now = state.clock.now();
        match message {
            Msg::Input(input) => state.driver.handle(now, input),
            Msg::Tick => {
                state.alarm.ticked();
                state.driver.expire_due(now);
            }
            #[cfg(feature = "fault-injection")]
            Msg::Panic => panic!("a fault injected by a test"),
        }
        state.perform();
        Ok(())
    }
}

impl State {
    fn perform(&mut self) {
        for out in self.driver.drain() {
            self.metrics.note(&out);
            if let Out::Seeking(Some(diagnosis)) = &out {
                tell(diagnosis);
            }
            if !matches!(out, Out::Count(_)) {
                self.out.send(out);
            }
        }
        self.metrics.show(self.driver.machine().status());
        self.alarm.set(self.driver.next_deadline());
    }
}

/// Says why peers are missing; the machine says how often.
fn tell(diagnosis: &Diagnosis) {
    if diagnosis.is_pressing() {
        tracing::info!(advice = diagnosis.advice(), "looking for peers: {diagnosis}");
    } else {
        tracing::debug!(advice = diagnosis.advice(), "looking for peers: {diagnosis}");
    }
}
