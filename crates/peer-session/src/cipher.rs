//! One direction's cipher: sealing and opening in place under a counter, under the handshake and every record.

mod aead;
mod choice;

pub use aead::Implementation;
pub(crate) use aead::Suite;
pub use choice::Ciphers;
use zeroize::Zeroizing;

use self::aead::Aead;

/// Bytes a sealed text is longer than its plain text.
pub(crate) const TAG_LEN: usize = 16;

/// The tag does not match: the bytes were changed, replayed, reordered or sealed by somebody else.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("authentication failed")]
pub struct Forged;

/// One direction's key with its counter nonce. The key is overwritten when dropped.
pub(crate) struct CipherState {
    suite: Suite,
    aead: Aead,
    nonce: u64,
}

impl CipherState {
    pub(crate) fn new(suite: Suite, key: &Zeroizing<[u8; 32]>) -> CipherState {
        CipherState { suite, aead: Aead::new(suite, key), nonce: 0 }
    }

    /// Seals `text` in place and returns its tag.
    ///
    /// # Errors
    /// [`Forged`] for a text longer than the cipher's limit of 64 GiB and more, which no caller has.
    pub(crate) fn seal(&mut self, ad: &[u8], text: &mut [u8]) -> Result<[u8; TAG_LEN], Forged> {
        let tag = self.aead.seal(self.nonce, ad, text)?;
        self.nonce += 1;
        Ok(tag)
    }

    /// Opens `sealed`, text and tag, in place and returns the text.
    ///
    /// # Errors
    /// [`Forged`]; the counter does not move then, and the bytes are of no use.
    pub(crate) fn open<'a>(&mut self, ad: &[u8], sealed: &'a mut [u8]) -> Result<&'a mut [u8], Forged> {
        let text = self.aead.open(self.nonce, ad, sealed)?;
        self.nonce += 1;
        Ok(text)
    }

    /// Noise's REKEY: the key becomes the sealing of 32 zero bytes under the last nonce there is. The counter goes on.
    pub(crate) fn rekey(&mut self) {
        let mut fresh = Zeroizing::new([0; 32]);
        self.aead.seal(u64::MAX, &[], fresh.as_mut_slice()).expect("32 bytes are not too long");
        self.aead = Aead::new(self.suite, &fresh);
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
        write!(f, "CipherState({:?}, {} uses)", self.suite, self.nonce)
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use peerage_wire::handshake::CipherId;
    use snow::params::CipherChoice;
    use snow::resolvers::{CryptoResolver, DefaultResolver};

    use super::*;

    /// Every cipher in every implementation that this build and this processor have.
    pub(crate) fn suites() -> Vec<Suite> {
        #[cfg(feature = "accelerated")]
        return [Suite::PureChaCha, Suite::ChaCha, Suite::Aes]
            .into_iter()
            .filter(|suite| Ciphers::only(suite.cipher()).is_some())
            .collect();
        #[cfg(not(feature = "accelerated"))]
        vec![Suite::PureChaCha]
    }

    fn state(suite: Suite) -> CipherState {
        CipherState::new(suite, &Zeroizing::new([7; 32]))
    }

    fn seal(state: &mut CipherState, ad: &[u8], text: &[u8]) -> Vec<u8> {
        let mut bytes = text.to_vec();
        let tag = state.seal(ad, &mut bytes).expect("short");
        bytes.extend_from_slice(&tag);
        bytes
    }

    #[test]
    fn what_is_sealed_opens_once_in_order_and_after_rekeys() {
        for suite in suites() {
            let (mut a, mut b) = (state(suite), state(suite));
            let first = seal(&mut a, b"", b"first");
            let mut replay = first.clone();
            assert_eq!(b.open(b"", &mut first.clone()).expect("true"), b"first");
            assert_eq!(b.open(b"", &mut replay), Err(Forged));
            a.rekey();
            let mut second = seal(&mut a, b"", b"second");
            assert_eq!(b.open(b"", &mut second.clone()), Err(Forged), "under the old key");
            b.rekey();
            assert_eq!(b.open(b"", &mut second).expect("true"), b"second");
        }
    }

    #[test]
    fn no_bit_can_be_flipped() {
        for suite in suites() {
            let (mut a, mut b) = (state(suite), state(suite));
            let sealed = seal(&mut a, b"", b"text");
            for bit in 0..sealed.len() * 8 {
                let mut flipped = sealed.clone();
                flipped[bit / 8] ^= 1 << (bit % 8);
                assert_eq!(b.open(b"", &mut flipped), Err(Forged), "{suite:?} bit {bit}");
            }
            assert_eq!(b.open(b"", &mut [0; 15]), Err(Forged), "shorter than a tag");
        }
    }

    /// `snow` is the independent implementation: it settles the form of the nonces and of REKEY. Since each suite seals
    /// the same bytes as it does, so do the two ChaCha implementations among themselves.
    #[test]
    fn every_implementation_seals_the_bytes_of_the_noise_specification() {
        for suite in suites() {
            let choice = match suite.cipher() {
                CipherId::AES_256_GCM => CipherChoice::AESGCM,
                _ => CipherChoice::ChaChaPoly,
            };
            let mut theirs = DefaultResolver.resolve_cipher(&choice).expect("built in");
            theirs.set(&[7; 32]);
            let mut ours = state(suite);
            for nonce in [0, 1, 0x0102_0304_0506_0708, u64::MAX - 1] {
                for (ad, len) in [(&b""[..], 0), (b"ad", 1), (b"", 15), (b"", 16), (b"longer ad", 64), (b"", 65_519)] {
                    let text: Vec<u8> = (0..len).map(|n| n as u8).collect();
                    ours.skip_to(nonce);
                    let sealed = seal(&mut ours, ad, &text);
                    let mut expected = vec![0; len + TAG_LEN];
                    theirs.encrypt(nonce, ad, &text, &mut expected);
                    assert_eq!(sealed, expected, "{suite:?}, {len} bytes under nonce {nonce}");
                }
                ours.rekey();
                theirs.rekey();
            }
        }
    }
}
