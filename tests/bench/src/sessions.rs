//! The jobs over sessions of Peerage's, one task a process beside the session's own.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use tokio::time::Instant;

use crate::Failure;
use crate::job::{Job, Values, Work};
use crate::machine::raise_open_files;
use crate::peer::{Host, Lane, Peer, Receiver, Sender};
use crate::role::Console;
use crate::stats::{Window, percentile};

/// Connections that are being made at a time.
pub(crate) const DIALLERS: usize = 4;
/// Connections of a run at most: all stay open, and a run ends early when they are made.
pub(crate) const CONNECTIONS: usize = 6000;
/// Bytes of a small message.
pub(crate) const SMALL: usize = 128;
/// How often each session under load sends one.
pub(crate) const LOAD_INTERVAL: Duration = Duration::from_millis(100);
/// How often an urgent message is sent while bulk fills the session.
const URGENT_INTERVAL: Duration = Duration::from_millis(2);
/// Bytes of a bulk message that it has to overtake.
pub(crate) const CHUNK: usize = 64 * 1024;
/// Files that a process needs besides its connections.
const OTHER_FILES: usize = 64;

/// The accepting process: counts, echoes, or only takes.
pub(crate) async fn accept(job: Job, console: &mut Console) -> Result<Option<Values>, Failure> {
    raise_open_files();
    let host = Arc::new(Host::accepting(job.by)?);
    let mut listener = host.listen(SocketAddr::from((Ipv4Addr::LOCALHOST, 0))).await?;
    console.listening(listener.local_addr()?);
    if let Work::Setup | Work::Idle { .. } | Work::Load { .. } = job.work {
        loop {
            let stream = listener.accept().await?;
            let host = host.clone();
            tokio::spawn(async move {
                // What does not succeed the dialling process misses.
                if let Ok(mut peer) = host.accept(stream).await {
                    while peer.receiver.recv().await.is_some() {}
                }
            });
        }
    }
    let peer = host.accept(listener.accept().await?).await?;
    match job.work {
        Work::Bulk { .. } => {
            count(peer.receiver, Window::new(job.warm, job.run, 1)).await.map(|rate| Some(mb_s(rate.bytes)))
        }
        Work::Small { .. } => {
            let rate = count(peer.receiver, Window::new(job.warm, job.run, 64)).await?;
            Ok(Some(Values::from([("msgs_s".to_owned(), rate.items)])))
        }
        Work::RoundTrip { .. } => {
            echo(peer, |_| true).await;
            Ok(None)
        }
        _ => {
            echo(peer, |lane| lane == Lane::High).await;
            Ok(None)
        }
    }
}

pub(crate) fn mb_s(bytes: f64) -> Values {
    Values::from([("mb_s".to_owned(), bytes / 1e6)])
}

/// Takes messages until the window is over.
pub(crate) async fn count(mut from: Receiver, mut window: Window) -> Result<crate::stats::Rate, Failure> {
    while let Some((_, message)) = from.recv().await {
        if let Some(rate) = window.arrived(message.len()) {
            return Ok(rate);
        }
    }
    Err("the session ended before the window did".into())
}

/// Sends messages back in their lane, those of which `answered` says so, and forgets the others.
pub(crate) async fn echo(mut peer: Peer, answered: impl Fn(Lane) -> bool) {
    while let Some((lane, message)) = peer.receiver.recv().await {
        if answered(lane) && !peer.sender.send(lane, &message).await {
            return;
        }
    }
}

/// The dialling process: sends, or measures.
pub(crate) async fn dial(job: Job, at: SocketAddr, console: &mut Console) -> Result<Option<Values>, Failure> {
    let files = raise_open_files().saturating_sub(OTHER_FILES);
    let host = Arc::new(Host::dialling(job.by)?);
    match job.work {
        Work::Bulk { size } => {
            push(host.dial(at).await?.sender, Lane::Bulk, size).await;
            Ok(None)
        }
        Work::Small { size } => {
            push(host.dial(at).await?.sender, Lane::Normal, size).await;
            Ok(None)
        }
        Work::RoundTrip { size } => round_trip(host.dial(at).await?, job, size).await.map(Some),
        Work::Priority => {
            let samples = overtake(host.dial(at).await?, job.warm, job.run).await?;
            Ok(Some(round_trips(samples)))
        }
        Work::Setup => {
            let made = Arc::new(AtomicUsize::new(0));
            let most = files.min(CONNECTIONS);
            for _ in 0..DIALLERS {
                tokio::spawn(keep_dialling(host.clone(), at, most, made.clone()));
            }
            count_between_marks(&made, most, job, console).await.map(Some)
        }
        Work::Idle { sessions } => {
            let wanted = sessions;
            let sessions = wanted.min(files);
            if sessions < wanted {
                eprintln!("only {sessions} of {wanted} sessions: the system allows no more open files");
            }
            console.mark().await?;
            let _peers = dial_many(&host, at, sessions).await?;
            tokio::time::sleep(job.run).await;
            console.mark().await?;
            Ok(Some(Values::from([("sessions".to_owned(), sessions as f64)])))
        }
        Work::Load { sessions } => {
            let peers = dial_many(&host, at, sessions).await?;
            let sent = Arc::new(AtomicUsize::new(0));
            for (n, peer) in peers.into_iter().enumerate() {
                let start = LOAD_INTERVAL.mul_f64(n as f64 / sessions as f64);
                tokio::spawn(keep_sending(peer, start, sent.clone()));
            }
            count_between_marks(&sent, usize::MAX, job, console).await.map(Some)
        }
        work => Err(format!("no pair of processes does {work:?}").into()),
    }
}

/// Pushes message by message, without a pause where there is room, until the session ends. The messages share their
/// bytes: making them is not what is measured.
pub(crate) async fn push(mut to: Sender, lane: Lane, size: usize) {
    let message = Bytes::from(vec![7; size]);
    while to.send(lane, &message).await {}
}

async fn round_trip(mut peer: Peer, job: Job, size: usize) -> Result<Values, Failure> {
    let message = Bytes::from(vec![7; size]);
    let mut samples = Vec::new();
    let start = Instant::now();
    while start.elapsed() < job.warm + job.run {
        let asked = Instant::now();
        if !peer.sender.send(Lane::Normal, &message).await || peer.receiver.recv().await.is_none() {
            return Err("the session ended before the window did".into());
        }
        if start.elapsed() >= job.warm {
            samples.push(asked.elapsed());
        }
    }
    Ok(round_trips(samples))
}

/// The figures of round trips.
pub(crate) fn round_trips(mut samples: Vec<Duration>) -> Values {
    let micros = |time: Duration| time.as_secs_f64() * 1e6;
    Values::from([
        ("p50_us".to_owned(), micros(percentile(&mut samples, 50.0))),
        ("p99_us".to_owned(), micros(percentile(&mut samples, 99.0))),
    ])
}

/// Fills the bulk lane and meanwhile sends an urgent message every two milliseconds; how long each took there and back.
/// Those that are still under way at the end are waited for: the slow ones count.
pub(crate) async fn overtake(peer: Peer, warm: Duration, run: Duration) -> Result<Vec<Duration>, Failure> {
    let Peer { sender, mut receiver, .. } = peer;
    let bulk = tokio::spawn(push(sender.clone(), Lane::Bulk, CHUNK));
    let start = Instant::now();
    let asking = tokio::spawn(ask(sender, start, warm + run));
    let mut samples = Vec::new();
    let (mut heard, mut asked) = (0, None);
    let mut asking = std::pin::pin!(asking);
    let patience = tokio::time::sleep(warm + run * 2 + Duration::from_secs(10));
    let mut patience = std::pin::pin!(patience);
    while asked != Some(heard) {
        tokio::select! {
            message = receiver.recv() => {
                let (_, message) = message.ok_or("the session ended before the window did")?;
                let stamp = message.first_chunk().ok_or("a short echo")?;
                let sent = Duration::from_nanos(u64::from_le_bytes(*stamp));
                heard += 1;
                if sent >= warm {
                    samples.push(start.elapsed().saturating_sub(sent));
                }
            }
            count = &mut asking, if asked.is_none() => asked = Some(count?),
            () = &mut patience => return Err(format!("of {asked:?} urgent messages only {heard} came back").into()),
        }
    }
    bulk.abort();
    if samples.is_empty() { Err("no urgent message was answered".into()) } else { Ok(samples) }
}

/// Sends an urgent message at every tick, with the time in it, and says how many went out.
async fn ask(mut sender: Sender, start: Instant, until: Duration) -> usize {
    let mut ticks = tokio::time::interval(URGENT_INTERVAL);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut asked = 0;
    let mut message = [0; SMALL];
    while start.elapsed() < until {
        ticks.tick().await;
        message[..8].copy_from_slice(&(start.elapsed().as_nanos() as u64).to_le_bytes());
        if !sender.send(Lane::High, &Bytes::copy_from_slice(&message)).await {
            break;
        }
        asked += 1;
    }
    asked
}

async fn keep_dialling(host: Arc<Host>, at: SocketAddr, most: usize, made: Arc<AtomicUsize>) {
    let mut kept = Vec::new();
    while made.load(Ordering::Relaxed) < most {
        match host.dial(at).await {
            Ok(peer) => kept.push(peer),
            Err(error) => {
                eprintln!("a session was not made: {error}");
                break;
            }
        }
        made.fetch_add(1, Ordering::Relaxed);
    }
    // Ending sessions is not part of setting them up.
    std::future::pending::<()>().await;
}

/// Makes sessions, a few at a time, and keeps them.
async fn dial_many(host: &Arc<Host>, at: SocketAddr, sessions: usize) -> Result<Vec<Peer>, Failure> {
    let dialler = |n: usize| {
        let host = host.clone();
        tokio::spawn(async move {
            let mut peers = Vec::new();
            for _ in (n..sessions).step_by(DIALLERS) {
                peers.push(host.dial(at).await?);
            }
            Ok::<_, Failure>(peers)
        })
    };
    let diallers: Vec<_> = (0..DIALLERS).map(dialler).collect();
    let mut peers = Vec::with_capacity(sessions);
    for dialler in diallers {
        peers.extend(dialler.await??);
    }
    Ok(peers)
}

async fn keep_sending(mut peer: Peer, start: Duration, sent: Arc<AtomicUsize>) {
    tokio::time::sleep(start).await;
    let message = Bytes::from(vec![7; SMALL]);
    let mut ticks = tokio::time::interval(LOAD_INTERVAL);
    while peer.sender.send(Lane::Normal, &message).await {
        sent.fetch_add(1, Ordering::Relaxed);
        ticks.tick().await;
    }
}

/// Counts what is done between two marks, which note what both processes use, until the time is over or `most` are done.
pub(crate) async fn count_between_marks(
    done: &AtomicUsize,
    most: usize,
    job: Job,
    console: &mut Console,
) -> Result<Values, Failure> {
    tokio::time::sleep(job.warm).await;
    console.mark().await?;
    let (start, before) = (Instant::now(), done.load(Ordering::Relaxed));
    while start.elapsed() < job.run && done.load(Ordering::Relaxed) < most {
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    let (seconds, count) = (start.elapsed().as_secs_f64(), done.load(Ordering::Relaxed) - before);
    console.mark().await?;
    if count == 0 {
        return Err("nothing was done".into());
    }
    Ok(Values::from([("count".to_owned(), count as f64), ("seconds".to_owned(), seconds)]))
}
