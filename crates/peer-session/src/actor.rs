//! The session actor: life and death only. It starts the pump, passes on what the root wants of it, and
//! turns its end, a panic included, into one [`Ended`].

use std::collections::BTreeMap;
use std::sync::Arc;

use peerage_mailbox::{Child, Clock, Meter, Outlet, Port, SpawnError, Supervisor, spawn_child};
use peerage_queue::stream::{AcceptedStream, StreamEnd, stream_doors};
use peerage_queue::throttle::PeerThrottle;
use peerage_queue::{ChannelId, Inbound, InboundShare, LaneEnd, SessionId};
use ractor::{Actor, ActorProcessingErr, ActorRef};

use crate::buffers::Buffers;
use crate::control::{Control, Controller, control};
use crate::handshaker::Established;
use crate::ingress::{SessionMailbox, SessionMsg, pump_ended};
use crate::pump::Pump;
use crate::stats::Counters;
use crate::traffic::Traffic;
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
    /// Its part of the node's inbound pool, admitted with [`CHANNEL_WINDOW`](peerage_wire::frame::CHANNEL_WINDOW) for each
    /// channel; what it has beyond that is kept for streams that the peer opens
    /// ([`STREAM_ALLOWANCE`](crate::STREAM_ALLOWANCE)).
    pub inbound: InboundShare,
    /// How fast the peer may be.
    pub throttle: PeerThrottle,
    /// Where each channel's messages go.
    pub routes: BTreeMap<ChannelId, Outlet<Inbound>>,
    /// Where the streams go that the peer opens, by channel. A channel without an outlet takes none.
    pub accept: BTreeMap<ChannelId, Outlet<AcceptedStream>>,
    /// The buffers of the node's sessions.
    pub buffers: Buffers,
    /// Told of every message, if anybody watches. Called in the session's own task: it must not wait, and a panic of it
    /// ends the session as if the peer had caused it.
    pub traffic: Option<Port<Traffic>>,
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
    let (streams, streams_end) = stream_doors();
    let (actor, child) = spawn_child(PeerSession, (args, streams_end, counters.clone()), parent).await?;
    Ok((SessionMailbox::new(actor, streams, counters), child))
}

struct PeerSession;

struct State {
    control: Controller,
    ended: Port<Ended>,
}

impl Actor for PeerSession {
    type Msg = SessionMsg;
    type State = State;
    type Arguments = (Args, StreamEnd, Arc<Counters>);

    async fn pre_start(
        &self,
        myself: ActorRef<SessionMsg>,
        (args, streams, counters): Self::Arguments,
    ) -> Result<State, ActorProcessingErr> {
        let (controller, controlled) = control();
        let ended = args.ended.clone();
        let pump = Pump::new(args, streams, controlled, counters);
        tokio::spawn(pump.run(pump_ended(&myself)));
        Ok(State { control: controller, ended })
    }

    async fn handle(
        &self,
        myself: ActorRef<SessionMsg>,
        message: SessionMsg,
        state: &mut State,
    ) -> Result<(), ActorProcessingErr> {
        match message {
            SessionMsg::Disconnect(reason) => state.control.send(Control::Disconnect(reason)),
            SessionMsg::PumpEnded(ended) => {
                state.ended.send(ended);
                myself.stop(None);
            }
            #[cfg(feature = "fault-injection")]
            SessionMsg::PanicPump => state.control.send(Control::Panic),
        }
        Ok(())
    }
}
