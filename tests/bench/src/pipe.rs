//! The ideal pipe: TCP, records sealed and opened in place, and nothing else. No session can beat its own cipher here.

use std::net::{Ipv4Addr, SocketAddr};

use aws_lc_rs::aead::{AES_256_GCM, Aad, CHACHA20_POLY1305, LessSafeKey, Nonce, UnboundKey};
use chacha20poly1305::aead::{AeadInOut, KeyInit};
use chacha20poly1305::{ChaCha20Poly1305, Key, Tag};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use crate::Failure;
use crate::job::{Impl, Job, Values};
use crate::role::Console;
use crate::stats::Window;

const KEY: [u8; 32] = [7; 32];
const TAG: usize = 16;
/// Before each record.
const LEN: usize = 2;
/// The largest text whose record's length fits two bytes.
const PLAIN: usize = u16::MAX as usize - TAG;
const RECORD: usize = LEN + PLAIN + TAG;
/// Records sealed before they are written, and bytes asked for in one read: 256 KiB.
const BATCH: usize = 4;
const READ: usize = 256 * 1024;

enum Aead {
    AwsLc(LessSafeKey),
    Pure(ChaCha20Poly1305),
}

fn nonce(counter: u64) -> [u8; 12] {
    let mut nonce = [0; 12];
    nonce[4..].copy_from_slice(&counter.to_le_bytes());
    nonce
}

impl Aead {
    fn of(by: Impl) -> Result<Aead, Failure> {
        let algorithm = match by {
            Impl::PipePure => return Ok(Aead::Pure(ChaCha20Poly1305::new(&Key::from(KEY)))),
            Impl::PipeChacha => &CHACHA20_POLY1305,
            Impl::PipeAes => &AES_256_GCM,
            _ => return Err(format!("{} is not a pipe", by.name()).into()),
        };
        Ok(Aead::AwsLc(LessSafeKey::new(UnboundKey::new(algorithm, &KEY)?)))
    }

    /// Seals all but the last 16 bytes and puts the tag there.
    fn seal(&self, counter: u64, record: &mut [u8]) -> Result<(), Failure> {
        let (text, tag) = record.split_at_mut(record.len() - TAG);
        match self {
            Aead::AwsLc(key) => {
                let nonce = Nonce::assume_unique_for_key(nonce(counter));
                tag.copy_from_slice(key.seal_in_place_separate_tag(nonce, Aad::empty(), text)?.as_ref());
            }
            Aead::Pure(key) => {
                let made = key.encrypt_inout_detached(&nonce(counter).into(), &[], text.into());
                tag.copy_from_slice(&made.map_err(|_| "too long")?);
            }
        }
        Ok(())
    }

    fn open(&self, counter: u64, record: &mut [u8]) -> Result<usize, Failure> {
        let len = record.len().checked_sub(TAG).ok_or("a record without a tag")?;
        match self {
            Aead::AwsLc(key) => {
                let nonce = Nonce::assume_unique_for_key(nonce(counter));
                key.open_in_place(nonce, Aad::empty(), record)?;
            }
            Aead::Pure(key) => {
                let (text, tag) = record.split_at_mut(len);
                let tag = Tag::try_from(&*tag)?;
                let opened = key.decrypt_inout_detached(&nonce(counter).into(), &[], text.into(), &tag);
                opened.map_err(|_| "a record that does not open")?;
            }
        }
        Ok(len)
    }
}

/// Seals the same buffer again and again, so that not even a copy is added, until the other end has seen enough.
pub(crate) async fn dial(job: Job, at: SocketAddr) -> Result<(), Failure> {
    let mut stream = TcpStream::connect(at).await?;
    stream.set_nodelay(true)?;
    let aead = Aead::of(job.by)?;
    let mut buffer = vec![0; BATCH * RECORD];
    for counter in (0..).step_by(BATCH) {
        for (record, counter) in buffer.chunks_exact_mut(RECORD).zip(counter..) {
            let (len, record) = record.split_at_mut(LEN);
            len.copy_from_slice(&u16::MAX.to_be_bytes());
            aead.seal(counter, record)?;
        }
        if stream.write_all(&buffer).await.is_err() {
            break;
        }
    }
    Ok(())
}

/// Counts the bytes of text that arrive.
pub(crate) async fn accept(job: Job, console: &mut Console) -> Result<Values, Failure> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
    console.listening(listener.local_addr()?);
    let (mut stream, _) = listener.accept().await?;
    let aead = Aead::of(job.by)?;
    let mut window = Window::new(job.warm, job.run, 1);
    let mut buffer = vec![0; READ + RECORD];
    let (mut filled, mut counter) = (0, 0);
    loop {
        let end = (filled + READ).min(buffer.len());
        match stream.read(&mut buffer[filled..end]).await? {
            0 => return Err("the sender ended before the window did".into()),
            read => filled += read,
        }
        let mut start = 0;
        while let Some(len) =
            buffer[start..filled].first_chunk::<LEN>().map(|len| usize::from(u16::from_be_bytes(*len)))
            && start + LEN + len <= filled
        {
            let opened = aead.open(counter, &mut buffer[start + LEN..start + LEN + len])?;
            counter += 1;
            start += LEN + len;
            if let Some(rate) = window.arrived(opened) {
                return Ok(Values::from([("mb_s".to_owned(), rate.bytes / 1e6)]));
            }
        }
        buffer.copy_within(start..filled, 0);
        filled -= start;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_cipher_opens_what_it_sealed_and_both_backends_of_one_agree() {
        for by in [Impl::PipeChacha, Impl::PipeAes, Impl::PipePure] {
            let aead = Aead::of(by).expect("a pipe");
            let mut record = vec![5; PLAIN + TAG];
            aead.seal(3, &mut record).expect("short");
            assert_ne!(record[..PLAIN], [5; PLAIN]);
            if by != Impl::PipeAes {
                let other = if by == Impl::PipePure { Impl::PipeChacha } else { Impl::PipePure };
                let opened = Aead::of(other).expect("a pipe").open(3, &mut record.clone());
                assert_eq!(opened.expect("the same cipher"), PLAIN);
            }
            assert!(aead.open(4, &mut record.clone()).is_err());
            assert_eq!(aead.open(3, &mut record).expect("sealed so"), PLAIN);
            assert_eq!(record[..PLAIN], [5; PLAIN]);
        }
    }
}
