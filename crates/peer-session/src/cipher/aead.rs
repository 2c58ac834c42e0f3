//! The authenticated ciphers, each as Noise uses it, and who computes them.

#[cfg(feature = "accelerated")]
use aws_lc_rs::aead as aws;
use chacha20poly1305::aead::{AeadInOut, KeyInit};
use chacha20poly1305::{ChaCha20Poly1305, Key, Nonce, Tag};
use peerage_wire::handshake::CipherId;

use super::{Forged, TAG_LEN};

/// Who computes a cipher. The bytes on the wire do not depend on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Implementation {
    /// The `chacha20poly1305` crate: always there.
    Pure,
    /// aws-lc, in builds with the feature `accelerated`.
    Accelerated,
}

impl Implementation {
    /// A word for metrics and people.
    pub const fn label(self) -> &'static str {
        match self {
            Implementation::Pure => "pure",
            Implementation::Accelerated => "aws-lc",
        }
    }
}

/// A cipher and who computes it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Suite {
    /// AES-256-GCM by aws-lc.
    #[cfg(feature = "accelerated")]
    Aes,
    /// ChaCha20-Poly1305 by aws-lc.
    #[cfg(feature = "accelerated")]
    ChaCha,
    /// ChaCha20-Poly1305 by the crate of that name.
    PureChaCha,
}

impl Suite {
    pub(crate) const fn cipher(self) -> CipherId {
        match self {
            #[cfg(feature = "accelerated")]
            Suite::Aes => CipherId::AES_256_GCM,
            #[cfg(feature = "accelerated")]
            Suite::ChaCha => CipherId::CHACHA20_POLY1305,
            Suite::PureChaCha => CipherId::CHACHA20_POLY1305,
        }
    }

    pub(crate) const fn implementation(self) -> Implementation {
        match self {
            #[cfg(feature = "accelerated")]
            Suite::Aes | Suite::ChaCha => Implementation::Accelerated,
            Suite::PureChaCha => Implementation::Pure,
        }
    }
}

/// Noise's nonce for ChaCha20-Poly1305: four zero bytes and the counter, little-endian.
fn chacha_nonce(counter: u64) -> [u8; 12] {
    let mut nonce = [0; 12];
    nonce[4..].copy_from_slice(&counter.to_le_bytes());
    nonce
}

/// Noise's nonce for AES-GCM: four zero bytes and the counter, big-endian.
#[cfg(feature = "accelerated")]
fn aes_nonce(counter: u64) -> [u8; 12] {
    let mut nonce = [0; 12];
    nonce[4..].copy_from_slice(&counter.to_be_bytes());
    nonce
}

/// A cipher with its key, which is overwritten when this is dropped: `chacha20poly1305` does so by its feature
/// `zeroize`, aws-lc by overwriting whatever memory it frees.
pub(crate) enum Aead {
    Pure(ChaCha20Poly1305),
    #[cfg(feature = "accelerated")]
    Accelerated {
        key: aws::LessSafeKey,
        nonce: fn(u64) -> [u8; 12],
    },
}

impl Aead {
    pub(crate) fn new(suite: Suite, key: &[u8; 32]) -> Aead {
        #[cfg(feature = "accelerated")]
        let accelerated = |algorithm, nonce| {
            let key = aws::UnboundKey::new(algorithm, key).expect("both ciphers take keys of 32 bytes");
            Aead::Accelerated { key: aws::LessSafeKey::new(key), nonce }
        };
        match suite {
            #[cfg(feature = "accelerated")]
            Suite::Aes => accelerated(&aws::AES_256_GCM, aes_nonce),
            #[cfg(feature = "accelerated")]
            Suite::ChaCha => accelerated(&aws::CHACHA20_POLY1305, chacha_nonce),
            // By reference: an owned `Key` would leave a copy behind that nobody overwrites.
            Suite::PureChaCha => Aead::Pure(ChaCha20Poly1305::new(<&Key>::from(key))),
        }
    }

    pub(crate) fn seal(&self, counter: u64, ad: &[u8], text: &mut [u8]) -> Result<[u8; TAG_LEN], Forged> {
        match self {
            Aead::Pure(aead) => {
                let nonce = Nonce::from(chacha_nonce(counter));
                let tag = aead.encrypt_inout_detached(&nonce, ad, text.into()).map_err(|_| Forged)?;
                Ok(tag.into())
            }
            #[cfg(feature = "accelerated")]
            Aead::Accelerated { key, nonce } => {
                let nonce = aws::Nonce::assume_unique_for_key(nonce(counter));
                let tag = key.seal_in_place_separate_tag(nonce, aws::Aad::from(ad), text).map_err(|_| Forged)?;
                tag.as_ref().try_into().map_err(|_| Forged)
            }
        }
    }

    pub(crate) fn open<'a>(&self, counter: u64, ad: &[u8], sealed: &'a mut [u8]) -> Result<&'a mut [u8], Forged> {
        match self {
            Aead::Pure(aead) => {
                let len = sealed.len().checked_sub(TAG_LEN).ok_or(Forged)?;
                let (text, tag) = sealed.split_at_mut(len);
                let tag = Tag::try_from(&*tag).map_err(|_| Forged)?;
                let nonce = Nonce::from(chacha_nonce(counter));
                aead.decrypt_inout_detached(&nonce, ad, (&mut *text).into(), &tag).map_err(|_| Forged)?;
                Ok(text)
            }
            #[cfg(feature = "accelerated")]
            Aead::Accelerated { key, nonce } => {
                let nonce = aws::Nonce::assume_unique_for_key(nonce(counter));
                key.open_in_place(nonce, aws::Aad::from(ad), sealed).map_err(|_| Forged)
            }
        }
    }
}
