//! Two routers joined by lanes alone: one serves `ping/1`, the other asks it, and both end.

mod support;

use std::time::Duration;

use peerage_router::codec::Bincode;
use peerage_router::{Handler, HandlerConfig};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let (alice, bob) = support::pair().await?;

    // The protocol: a number comes, the next one goes back.
    let pong = Handler::typed(Bincode, |ping: u64, _from| async move { Ok(ping + 1) });
    bob.mailbox.add_handler("ping/1", HandlerConfig::concurrent(), pong, None);

    let ping = alice.router.client::<_, u64, u64>("ping/1", Bincode);
    let mut number = 0;
    while number < 10 {
        number = ping.request(bob.id, &number, Duration::from_secs(1)).await?;
        println!("pong {number}");
    }
    let nobody = alice.router.request(bob.id, "pong/1", "", Duration::from_secs(1)).await;
    println!("and pong/1? {}", nobody.err().ok_or("bob serves ping/1 only")?);
    Ok(())
}
