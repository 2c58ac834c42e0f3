//! The reference without a cipher: the same jobs over plain TCP.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt, BufReader, BufWriter};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::Instant;

use crate::Failure;
use crate::job::{Job, Values, Work};
use crate::role::Console;
use crate::sessions::{CONNECTIONS, DIALLERS, LOAD_INTERVAL, SMALL, count_between_marks, round_trips};
use crate::stats::Window;

/// What small messages are collected in on both sides.
const BUFFER: usize = 64 * 1024;

/// The accepting process: counts or echoes.
pub(crate) async fn accept(job: Job, console: &mut Console) -> Result<Option<Values>, Failure> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
    console.listening(listener.local_addr()?);
    match job.work {
        Work::Bulk { size } => {
            let (mut stream, _) = listener.accept().await?;
            let mut buffer = vec![0; size];
            let mut window = Window::new(job.warm, job.run, 1);
            loop {
                let len = stream.read(&mut buffer).await?;
                if len == 0 {
                    return Err("the sender ended before the window did".into());
                }
                if let Some(rate) = window.arrived(len) {
                    return Ok(Some(Values::from([("mb_s".to_owned(), rate.bytes / 1e6)])));
                }
            }
        }
        Work::Small { .. } => {
            let (stream, _) = listener.accept().await?;
            let mut stream = BufReader::with_capacity(BUFFER, stream);
            let mut message = Vec::new();
            let mut window = Window::new(job.warm, job.run, 64);
            loop {
                let len = stream.read_u32_le().await?;
                message.resize(len as usize, 0);
                stream.read_exact(&mut message).await?;
                if let Some(rate) = window.arrived(message.len()) {
                    return Ok(Some(Values::from([("msgs_s".to_owned(), rate.items)])));
                }
            }
        }
        Work::RoundTrip { size } | Work::Request { size } => {
            let (mut stream, _) = listener.accept().await?;
            stream.set_nodelay(true)?;
            echo(&mut stream, size).await;
            Ok(None)
        }
        Work::Requests { size, .. } => {
            let (stream, _) = listener.accept().await?;
            stream.set_nodelay(true)?;
            echo_in_batches(stream, size).await?;
            Ok(None)
        }
        Work::Setup | Work::Load { .. } => loop {
            let (mut stream, _) = listener.accept().await?;
            stream.set_nodelay(true)?;
            let size = if job.work == Work::Setup { 1 } else { SMALL };
            let answers = job.work == Work::Setup;
            tokio::spawn(async move { if answers { echo(&mut stream, size).await } else { drain(&mut stream).await } });
        },
        work => Err(format!("plain TCP has no {work:?}").into()),
    }
}

/// Sends back message by message until the other end goes.
async fn echo(stream: &mut TcpStream, size: usize) {
    let mut buffer = vec![0; size * 2];
    while read_message(stream, &mut buffer, size).await.is_ok() && stream.write_all(&buffer[..size]).await.is_ok() {}
}

/// Sends back what is there, as much as came together at once.
async fn echo_in_batches(stream: TcpStream, size: usize) -> Result<(), Failure> {
    let (from, to) = stream.into_split();
    let (mut from, mut to) = (BufReader::with_capacity(BUFFER, from), BufWriter::with_capacity(BUFFER, to));
    let mut message = vec![0; size];
    while from.read_exact(&mut message).await.is_ok() {
        to.write_all(&message).await?;
        if from.buffer().len() < size {
            to.flush().await?;
        }
    }
    Ok(())
}

/// Keeps so many messages on their way there and back.
async fn outstanding_at_once(
    job: Job,
    stream: TcpStream,
    size: usize,
    outstanding: usize,
    console: &mut Console,
) -> Result<Values, Failure> {
    let (from, to) = stream.into_split();
    let done = Arc::new(AtomicUsize::new(0));
    let count = done.clone();
    tokio::spawn(async move {
        let (mut from, mut to) = (BufReader::with_capacity(BUFFER, from), BufWriter::with_capacity(BUFFER, to));
        let mut message = vec![7; size];
        for _ in 0..outstanding {
            to.write_all(&message).await?;
        }
        to.flush().await?;
        loop {
            from.read_exact(&mut message).await?;
            count.fetch_add(1, Ordering::Relaxed);
            to.write_all(&message).await?;
            if from.buffer().len() < size {
                to.flush().await?;
            }
        }
        #[expect(unreachable_code, reason = "says what the block's errors are")]
        Ok::<(), std::io::Error>(())
    });
    count_between_marks(&done, usize::MAX, job, console).await
}

/// Reads one message into a buffer with room for more: a read that fills its buffer has to be followed by one that
/// finds nothing, which is what the fastest round trip does without.
async fn read_message(stream: &mut TcpStream, buffer: &mut [u8], size: usize) -> std::io::Result<()> {
    let mut filled = 0;
    while filled < size {
        match stream.read(&mut buffer[filled..]).await? {
            0 => return Err(std::io::ErrorKind::UnexpectedEof.into()),
            len => filled += len,
        }
    }
    Ok(())
}

async fn drain(stream: &mut TcpStream) {
    let mut message = vec![0; SMALL];
    while matches!(stream.read(&mut message).await, Ok(1..)) {}
}

/// The dialling process: sends, or measures round trips and connections.
pub(crate) async fn dial(job: Job, at: SocketAddr, console: &mut Console) -> Result<Option<Values>, Failure> {
    match job.work {
        Work::Bulk { size } => {
            let mut stream = connect(at).await?;
            let message = vec![7; size];
            while stream.write_all(&message).await.is_ok() {}
            Ok(None)
        }
        Work::Small { size } => {
            let mut stream = BufWriter::with_capacity(BUFFER, connect(at).await?);
            let message = vec![7; size];
            let len = u32::try_from(size)?;
            while stream.write_u32_le(len).await.is_ok() && stream.write_all(&message).await.is_ok() {}
            Ok(None)
        }
        Work::RoundTrip { size } | Work::Request { size } => {
            let mut stream = connect(at).await?;
            let mut buffer = vec![7; size * 2];
            let mut samples = Vec::new();
            let start = Instant::now();
            while start.elapsed() < job.warm + job.run {
                let asked = Instant::now();
                stream.write_all(&buffer[..size]).await?;
                read_message(&mut stream, &mut buffer, size).await?;
                if start.elapsed() >= job.warm {
                    samples.push(asked.elapsed());
                }
            }
            Ok(Some(round_trips(samples)))
        }
        Work::Requests { size, outstanding } => {
            outstanding_at_once(job, connect(at).await?, size, outstanding, console).await.map(Some)
        }
        Work::Setup => connections(job, at, console).await.map(Some),
        Work::Load { sessions } => load(job, at, sessions, console).await.map(Some),
        work => Err(format!("plain TCP has no {work:?}").into()),
    }
}

async fn connect(at: SocketAddr) -> Result<TcpStream, Failure> {
    let stream = TcpStream::connect(at).await?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

/// Connects and has one byte answered, so that the other end has its connection too. They stay open.
async fn connections(job: Job, at: SocketAddr, console: &mut Console) -> Result<Values, Failure> {
    let made = Arc::new(AtomicUsize::new(0));
    for _ in 0..DIALLERS {
        let made = made.clone();
        tokio::spawn(async move {
            let mut kept = Vec::new();
            while made.load(Ordering::Relaxed) < CONNECTIONS {
                let Ok(mut stream) = connect(at).await else { break };
                if stream.write_all(&[1]).await.is_err() || stream.read_u8().await.is_err() {
                    break;
                }
                made.fetch_add(1, Ordering::Relaxed);
                kept.push(stream);
            }
            // Closing is not part of setting up.
            std::future::pending::<()>().await;
        });
    }
    count_between_marks(&made, CONNECTIONS, job, console).await
}

async fn load(job: Job, at: SocketAddr, sessions: usize, console: &mut Console) -> Result<Values, Failure> {
    let sent = Arc::new(AtomicUsize::new(0));
    for n in 0..sessions {
        let mut stream = connect(at).await?;
        let sent = sent.clone();
        tokio::spawn(async move {
            tokio::time::sleep(LOAD_INTERVAL.mul_f64(n as f64 / sessions as f64)).await;
            let mut ticks = tokio::time::interval(LOAD_INTERVAL);
            while stream.write_all(&[7; SMALL]).await.is_ok() {
                sent.fetch_add(1, Ordering::Relaxed);
                ticks.tick().await;
            }
        });
    }
    // The mark tells what was spent; the pause before it lets the connections settle.
    tokio::time::sleep(Duration::from_millis(100)).await;
    count_between_marks(&sent, usize::MAX, job, console).await
}
