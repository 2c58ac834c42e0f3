//! The jobs over a link in memory, in virtual time: what a slow or a long link leaves of a session.

use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::Failure;
use crate::job::{Impl, Job, Values, Work};
use crate::peer::{Lane, Wire, sessions_over, streams_over};
use crate::sessions::{count, echo, overtake, push};
use crate::stats::{Rate, Window, percentile};

/// 1 Gbit/s and 60 ms there and back.
const WAN: Wire = Wire { each_way: Duration::from_millis(30), bytes_per_second: 125_000_000 };
/// 10 Mbit/s and 40 ms there and back.
const SLOW: Wire = Wire { each_way: Duration::from_millis(20), bytes_per_second: 1_250_000 };
/// Bytes of a bulk message.
const BULK: usize = 64 * 1024;

pub(crate) async fn run(job: Job) -> Result<Values, Failure> {
    match job.work {
        Work::Wan => {
            let window = Window::new(job.warm, job.run, 1);
            let rate = if job.by == Impl::RawTcp { plain(window).await? } else { session(job.by, window).await? };
            Ok(Values::from([("percent".to_owned(), rate.bytes / WAN.bytes_per_second as f64 * 100.0)]))
        }
        Work::PrioritySlowLink => {
            let (near, far) = sessions_over(job.by, SLOW).await?;
            tokio::spawn(echo(far, |lane| lane == Lane::High));
            let mut samples = overtake(near, job.warm, job.run).await?;
            let mut above = |percent| {
                let time = percentile(&mut samples, percent);
                (time.as_secs_f64() - 2.0 * SLOW.each_way.as_secs_f64()) * 1e3
            };
            Ok(Values::from([("p50_ms".to_owned(), above(50.0)), ("p99_ms".to_owned(), above(99.0))]))
        }
        work => Err(format!("{work:?} needs two processes").into()),
    }
}

async fn session(by: Impl, window: Window) -> Result<Rate, Failure> {
    let (near, far) = sessions_over(by, WAN).await?;
    tokio::spawn(push(near.sender, Lane::Bulk, BULK));
    count(far.receiver, window).await
}

/// What the link itself carries.
async fn plain(mut window: Window) -> Result<Rate, Failure> {
    let (mut near, mut far) = streams_over(WAN).await?;
    tokio::spawn(async move {
        let message = vec![7; BULK];
        while near.write_all(&message).await.is_ok() {}
    });
    let mut buffer = vec![0; BULK];
    loop {
        let len = far.read(&mut buffer).await?;
        if len == 0 {
            return Err("the sender ended before the window did".into());
        }
        if let Some(rate) = window.arrived(len) {
            return Ok(rate);
        }
    }
}
