//! Two routers joined by plain queues: one serves `ping/1`, the other asks it, and both end.

use std::time::Duration;

use peerage_router::codec::Bincode;
use peerage_router::peerage_machine::journal::Journals;
use peerage_router::peerage_mailbox::{Capacity, Clock, Inlet, Meter, Outlet, Port, Supervisor, data_queue};
use peerage_router::peerage_queue::{ChannelId, Delivery, Inbound, Push, SessionId};
use peerage_router::peerage_wire::Keypair;
use peerage_router::{Args, Config, Handler, HandlerConfig, Memory, PeerUp, Router, RouterMailbox};

type Failure = Box<dyn std::error::Error>;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Failure> {
    let (alice, bob) = (Keypair::from_seed([1; 32]).id(), Keypair::from_seed([2; 32]).id());
    let (at_alice, to_alice, from_alice, asking) = node(1).await?;
    let (at_bob, to_bob, from_bob, _) = node(2).await?;
    join(from_alice, to_bob);
    join(from_bob, to_alice);

    // The protocol: a number comes, the next one goes back.
    let pong = Handler::typed(Bincode, |ping: u64, _from| async move { Ok(ping + 1) });
    at_bob.add_handler("ping/1", HandlerConfig::concurrent(), pong, None);

    at_bob.peer_up(PeerUp { session: SessionId(1), id: alice, channel: ChannelId(1) });
    at_alice.peer_up(PeerUp { session: SessionId(1), id: bob, channel: ChannelId(1) });

    let ping = asking.client::<_, u64, u64>("ping/1", Bincode);
    let mut number = 0;
    while number < 10 {
        number = ping.request(bob, &number, Duration::from_secs(1)).await?;
        println!("pong {number}");
    }
    let nobody = asking.request(bob, "pong/1", "", Duration::from_secs(1)).await;
    println!("and pong/1? {}", nobody.err().ok_or("bob serves ping/1 only")?);
    Ok(())
}

const ROOM: Capacity = Capacity { items: 1_000, weight: 8 << 20 };

/// A router, what it hears, what it says, and who asks through it. In a node, sessions and queues are between.
async fn node(seed: u64) -> Result<(RouterMailbox, Outlet<Inbound>, Inlet<Push>, Router), Failure> {
    let (hears, inbound) = data_queue(ROOM);
    let (push, says) = data_queue(ROOM);
    let (report_failures, failures) = data_queue(ROOM);
    let (router, asks) = Router::new(ROOM);
    let args = Args {
        config: Config::recommended(),
        seed,
        inbound,
        asks,
        failures,
        report_failures,
        push,
        events: Port::closed(),
        clock: Clock::system(),
        meter: Meter::none(),
        memory: Memory::new(),
        journals: Journals::off(),
    };
    let (mailbox, _) = peerage_router::spawn(args, &Supervisor::none()).await?;
    Ok((mailbox, hears, says, router))
}

/// Carries what one says to where the other hears it.
fn join(mut says: Inlet<Push>, hears: Outlet<Inbound>) {
    tokio::spawn(async move {
        while let Ok(Push { to, lane, payload, .. }) = says.recv().await {
            for recipient in to {
                let (session, channel, payload) = (recipient.session, recipient.channel, payload.clone());
                drop(hears.offer(Delivery { session, channel, stream: 0, lane, payload }.into()));
            }
        }
    });
}
