//! Sealing and opening in place: the AEAD under the handshake and under every record.

use chacha20poly1305::aead::{AeadInOut, KeyInit};
use chacha20poly1305::{ChaCha20Poly1305, Key, Nonce, Tag};
use zeroize::Zeroizing;

/// Bytes a sealed text is longer than its plain text.
pub(crate) const TAG_LEN: usize = 16;

/// The tag does not match: the bytes were changed, replayed, reordered or sealed by somebody else.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("authentication failed")]
pub struct Forged;

/// One direction's key with its counter nonce. The key is overwritten when dropped.
pub(crate) struct CipherState {
    key: Zeroizing<[u8; 32]>,
    aead: ChaCha20Poly1305,
    nonce: u64,
}

/// Noise's nonce for ChaCha20-Poly1305: four zero bytes and the counter, little-endian.
fn nonce(counter: u64) -> Nonce {
    let mut nonce = [0; 12];
    nonce[4..].copy_from_slice(&counter.to_le_bytes());
    Nonce::from(nonce)
}

impl CipherState {
    pub(crate) fn new(key: Zeroizing<[u8; 32]>) -> CipherState {
        let aead = ChaCha20Poly1305::new(&Key::from(*key));
        CipherState { key, aead, nonce: 0 }
    }

    /// Seals `text` in place and returns its tag.
    ///
    /// # Errors
    /// [`Forged`] for a text longer than the cipher's 256 GiB, which no caller has.
    pub(crate) fn seal(&mut self, ad: &[u8], text: &mut [u8]) -> Result<[u8; TAG_LEN], Forged> {
        let tag = self.aead.encrypt_inout_detached(&nonce(self.nonce), ad, text.into()).map_err(|_| Forged)?;
        self.nonce += 1;
        Ok(tag.into())
    }

    /// Opens `sealed`, text and tag, in place and returns the text.
    ///
    /// # Errors
    /// [`Forged`]; the counter does not move then, and the bytes are of no use.
    pub(crate) fn open<'a>(&mut self, ad: &[u8], sealed: &'a mut [u8]) -> Result<&'a mut [u8], Forged> {
        let len = sealed.len().checked_sub(TAG_LEN).ok_or(Forged)?;
        let (text, tag) = sealed.split_at_mut(len);
        let tag = Tag::try_from(&*tag).map_err(|_| Forged)?;
        self.aead.decrypt_inout_detached(&nonce(self.nonce), ad, (&mut *text).into(), &tag).map_err(|_| Forged)?;
        self.nonce += 1;
        Ok(text)
    }

    /// Noise's REKEY: the key becomes the sealing of 32 zero bytes under the last nonce there is. The counter goes on.
    pub(crate) fn rekey(&mut self) {
        let mut fresh = Zeroizing::new([0; 32]);
        let sealed = self.aead.encrypt_inout_detached(&nonce(u64::MAX), &[], fresh.as_mut_slice().into());
        debug_assert!(sealed.is_ok(), "32 bytes are not too long");
        self.aead = ChaCha20Poly1305::new(&Key::from(*fresh));
        self.key = fresh;
    }

    pub(crate) const fn sealed(&self) -> u64 {
        self.nonce
    }

    #[cfg(test)]
    pub(crate) const fn skip_to(&mut self, nonce: u64) {
        self.nonce = nonce;
    }
}

impl std::fmt::Debug for CipherState {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "CipherState({} uses)", self.nonce)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pair() -> (CipherState, CipherState) {
        let state = || CipherState::new(Zeroizing::new([7; 32]));
        (state(), state())
    }

    fn seal(state: &mut CipherState, text: &[u8]) -> Vec<u8> {
        let mut bytes = text.to_vec();
        let tag = state.seal(b"", &mut bytes).expect("short");
        bytes.extend_from_slice(&tag);
        bytes
    }

    #[test]
    fn what_is_sealed_opens_once_in_order_and_after_rekeys() {
        let (mut a, mut b) = pair();
        let first = seal(&mut a, b"first");
        let mut replay = first.clone();
        assert_eq!(b.open(b"", &mut first.clone()).expect("true"), b"first");
        assert_eq!(b.open(b"", &mut replay), Err(Forged));
        a.rekey();
        let mut second = seal(&mut a, b"second");
        assert_eq!(b.open(b"", &mut second.clone()), Err(Forged), "under the old key");
        b.rekey();
        assert_eq!(b.open(b"", &mut second).expect("true"), b"second");
    }

    #[test]
    fn no_bit_can_be_flipped() {
        let (mut a, mut b) = pair();
        let sealed = seal(&mut a, b"text");
        for bit in 0..sealed.len() * 8 {
            let mut flipped = sealed.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(b.open(b"", &mut flipped), Err(Forged), "bit {bit}");
        }
        assert_eq!(b.open(b"", &mut [0; 15]), Err(Forged), "shorter than a tag");
    }
}
