//! The session actor: life and death only. It starts the pump, passes on what the root wants of it, and
//! turns its end, a panic included, into one [`Ended`].

use std::collections::BTreeMap;
use std::sync::Arc;

use peerage_machine::Driver;
use peerage_mailbox::{Child, Clock, Meter, Outlet, Port, SpawnError, Supervisor, spawn_child};
use peerage_queue::{ChannelId, Delivery, LaneEnd, SessionId};
use peerage_wire::DisconnectReason;
use ractor::{Actor, ActorProcessingErr, ActorRef};
use tokio::sync::watch;

use crate::handshaker::Established;
use crate::ingress::{SessionMailbox, SessionMsg, pump_ended};
use crate::machine::{EndedBy, SessionMachine};
use crate::metrics::PumpMetrics;
use crate::pump::{Control, Pump};
use crate::stats::Counters;
use crate::{Config, Ended};

/// What a session needs.
#[derive(Debug)]
pub struct Args {
    /// Its id in this process.
    pub session: SessionId,
    /// Times and sizes.
    pub config: Config,
    /// The connection.
    pub established: Established,
    /// What goes out.
    pub lanes: LaneEnd,
    /// Where each channel's messages go.
    pub routes: BTreeMap<ChannelId, Outlet<Delivery>>,
    /// Told once, when the session has ended.
    pub ended: Port<Ended>,
    /// The node's clock.
    pub clock: Clock,
    /// Where to count.
    pub meter: Meter,
}

/// Starts a session.
///
/// # Errors
/// [`SpawnError`].
pub async fn spawn(args: Args, parent: &Supervisor) -> Result<(SessionMailbox, Child), SpawnError> {
    let counters = Arc::new(Counters::default());
    let (actor, child) = spawn_child(PeerSession, (args, counters.clone()), parent).await?;
    Ok((SessionMailbox::new(actor, counters), child))
}

struct PeerSession;

struct State {
    control: watch::Sender<Control>,
    ended: Port<Ended>,
}

impl Actor for PeerSession {
    type Msg = SessionMsg;
    type State = State;
    type Arguments = (Args, Arc<Counters>);

    async fn pre_start(
        &self,
        myself: ActorRef<SessionMsg>,
        (args, counters): Self::Arguments,
    ) -> Result<State, ActorProcessingErr> {
        let (control, controlled) = watch::channel(Control::Run);
        let Established { stream, keys, read, remote, .. } = args.established;
        let (reader, writer) = tokio::io::split(stream);
        let channels = remote.channels.len() as u16;
        let pump = Pump {
            driver: Driver::new(SessionMachine::new(args.config, args.session, channels)),
            config: args.config,
            clock: args.clock,
            keys,
            reader,
            writer,
            read,
            lanes: args.lanes,
            routes: args.routes,
            control: controlled,
            counters,
            metrics: PumpMetrics::new(&args.meter, &remote.channels),
            out: Vec::new(),
            written: 0,
            own: Default::default(),
            undelivered: Default::default(),
            waiting_since: None,
            dropping: false,
            write_first: true,
            ended: None,
        };
        let ended = pump_ended(&myself);
        let pump = tokio::spawn(pump.run());
        tokio::spawn(async move {
            let crashed = Ended { reason: DisconnectReason::Crashed, by: EndedBy::Us };
            ended.send(pump.await.unwrap_or(crashed));
        });
        Ok(State { control, ended: args.ended })
    }

    async fn handle(
        &self,
        myself: ActorRef<SessionMsg>,
        message: SessionMsg,
        state: &mut State,
    ) -> Result<(), ActorProcessingErr> {
        match message {
            SessionMsg::Disconnect(reason) => drop(state.control.send_replace(Control::Disconnect(reason))),
            SessionMsg::PumpEnded(ended) => {
                state.ended.send(ended);
                myself.stop(None);
            }
            #[cfg(feature = "fault-injection")]
            SessionMsg::PanicPump => drop(state.control.send_replace(Control::Panic)),
        }
        Ok(())
    }
}
