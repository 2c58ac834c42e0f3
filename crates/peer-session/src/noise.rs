//! `Noise_XX_25519_ChaChaPoly_SHA256`, revision 34 of the specification: three messages, after which both
//! ends know each other's static key and share keys that no listener has. In a network with a secret it is
//! `Noise_XXpsk0_25519_ChaChaPoly_SHA256`, whose first message already proves that its sender knows the secret.
//!
//! Our own rather than `snow`'s, so that x25519-dalek and chacha20poly1305 are on the path and secrets are
//! overwritten; the public test vectors and `snow` itself check it in the tests. The messages are always sealed by
//! chacha20poly1305; the feature `accelerated` changes only who multiplies points.

mod curve;

use std::sync::Arc;

use hmac::{Hmac, KeyInit, Mac};
use sha2::{Digest, Sha256};
use zeroize::Zeroizing;

pub(crate) use self::curve::SecretKey;
use self::curve::require_canonical;
use crate::cipher::{CipherState, Forged, Suite, TAG_LEN};

const NAME: &[u8; 32] = b"Noise_XX_25519_ChaChaPoly_SHA256";
/// Longer than a hash, so the handshake begins with its hash instead.
const NAME_PSK: &[u8] = b"Noise_XXpsk0_25519_ChaChaPoly_SHA256";

/// Why a handshake message is not one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoiseError {
    /// It is shorter than its keys and tags.
    #[error("handshake message cut short")]
    Short,
    /// It was changed, or was made for another handshake.
    #[error("handshake {0}")]
    Forged(#[from] Forged),
    /// A key of small order, which would make the shared secret known to everybody.
    #[error("handshake with a key of small order")]
    WeakKey,
    /// A key that is not written in its one canonical form, as no honest end's is.
    #[error("handshake with a key not in canonical form")]
    NonCanonicalKey,
}

type Secret = Zeroizing<[u8; 32]>;

fn hmac(key: &[u8], parts: &[&[u8]]) -> Secret {
    let mut mac = Hmac::<Sha256>::new_from_slice(key).expect("HMAC takes a key of any length");
    parts.iter().for_each(|part| mac.update(part));
    Zeroizing::new(mac.finalize().into_bytes().into())
}

/// HKDF with two outputs, as Noise defines it.
fn hkdf(chaining_key: &[u8; 32], input: &[u8]) -> (Secret, Secret) {
    let temp = hmac(chaining_key, &[input]);
    let first = hmac(&*temp, &[&[1]]);
    let second = hmac(&*temp, &[&*first, &[2]]);
    (first, second)
}

/// HKDF with three outputs.
fn hkdf3(chaining_key: &[u8; 32], input: &[u8]) -> (Secret, Secret, Secret) {
    let temp = hmac(chaining_key, &[input]);
    let first = hmac(&*temp, &[&[1]]);
    let second = hmac(&*temp, &[&*first, &[2]]);
    let third = hmac(&*temp, &[&*second, &[3]]);
    (first, second, third)
}

fn sha256(parts: &[&[u8]]) -> [u8; 32] {
    let mut hash = Sha256::new();
    parts.iter().for_each(|part| hash.update(part));
    hash.finalize().into()
}

struct Symmetric {
    chaining_key: Secret,
    hash: [u8; 32],
    cipher: Option<CipherState>,
}

impl Symmetric {
    fn new(name: [u8; 32], prologue: &[u8]) -> Symmetric {
        let mut symmetric = Symmetric { chaining_key: Zeroizing::new(name), hash: name, cipher: None };
        symmetric.mix_hash(prologue);
        symmetric
    }

    fn mix_hash(&mut self, bytes: &[u8]) {
        self.hash = sha256(&[&self.hash, bytes]);
    }

    fn mix_key(&mut self, input: &[u8; 32]) {
        let (chaining_key, key) = hkdf(&self.chaining_key, input);
        self.chaining_key = chaining_key;
        self.cipher = Some(CipherState::new(Suite::PureChaCha, &key));
    }

    fn mix_shared(&mut self, secret: &SecretKey, public: &[u8; 32]) -> Result<(), NoiseError> {
        self.mix_key(&*secret.agree(public)?);
        Ok(())
    }

    /// The token `psk`: MixKeyAndHash.
    fn mix_psk(&mut self, psk: &[u8; 32]) {
        let (chaining_key, hashed, key) = hkdf3(&self.chaining_key, psk);
        self.chaining_key = chaining_key;
        self.mix_hash(&*hashed);
        self.cipher = Some(CipherState::new(Suite::PureChaCha, &key));
    }

    /// The token `e`. In a handshake with a secret the key is mixed in, so that no two of them have the same keys.
    fn mix_ephemeral(&mut self, public: &[u8; 32], psk: bool) {
        self.mix_hash(public);
        if psk {
            self.mix_key(public);
        }
    }

    /// Appends `plain`, sealed as soon as there is a key.
    fn seal(&mut self, plain: &[u8], to: &mut Vec<u8>) -> Result<(), NoiseError> {
        let start = to.len();
        to.extend_from_slice(plain);
        if let Some(cipher) = &mut self.cipher {
            let tag = cipher.seal(&self.hash, &mut to[start..])?;
            to.extend_from_slice(&tag);
        }
        self.mix_hash(&to[start..]);
        Ok(())
    }

    fn open(&mut self, sealed: &[u8]) -> Result<Vec<u8>, NoiseError> {
        let mut text = sealed.to_vec();
        if let Some(cipher) = &mut self.cipher {
            let len = cipher.open(&self.hash, &mut text)?.len();
            text.truncate(len);
        }
        self.mix_hash(sealed);
        Ok(text)
    }
}

/// The dialling end's first message, read by the accepting end before it has done any work on a curve.
pub(crate) struct Asked {
    symmetric: Symmetric,
    psk: bool,
    remote_ephemeral: [u8; 32],
}

impl Asked {
    /// Reads m1, `-> e` or `-> psk, e`, and its payload.
    pub(crate) fn read_m1(
        psk: Option<&[u8; 32]>,
        prologue: &[u8],
        message: &[u8],
    ) -> Result<(Asked, Vec<u8>), NoiseError> {
        let mut symmetric = NoiseXx::begin(psk, prologue);
        let (public, rest) = message.split_first_chunk::<32>().ok_or(NoiseError::Short)?;
        symmetric.mix_ephemeral(public, psk.is_some());
        let payload = symmetric.open(rest)?;
        // After the tag: who does not know the secret is told apart from who writes keys in another form.
        require_canonical(public)?;
        Ok((Asked { symmetric, psk: psk.is_some(), remote_ephemeral: *public }, payload))
    }

    /// Goes on with this end's keys.
    pub(crate) fn answered_by(self, static_secret: Arc<SecretKey>, ephemeral: &Secret) -> NoiseXx {
        let Asked { symmetric, psk, remote_ephemeral } = self;
        let ephemeral = SecretKey::new(ephemeral);
        NoiseXx { symmetric, psk, static_secret, ephemeral, remote_ephemeral, remote_static: [0; 32] }
    }
}

/// One end of a handshake in progress. The calls must come in the order of the messages, which
/// [`crate::handshake`] sees to by its types.
pub(crate) struct NoiseXx {
    symmetric: Symmetric,
    /// Whether there is a secret: public ephemeral keys then go into the chaining key, too.
    psk: bool,
    static_secret: Arc<SecretKey>,
    ephemeral: SecretKey,
    remote_ephemeral: [u8; 32],
    remote_static: [u8; 32],
}

impl NoiseXx {
    /// The dialling end. Ephemeral keys come from the operating system, through the shell; only test vectors choose
    /// them.
    pub(crate) fn new(
        static_secret: Arc<SecretKey>,
        ephemeral: &Secret,
        psk: Option<&[u8; 32]>,
        prologue: &[u8],
    ) -> NoiseXx {
        NoiseXx {
            symmetric: NoiseXx::begin(psk, prologue),
            psk: psk.is_some(),
            static_secret,
            ephemeral: SecretKey::new(ephemeral),
            remote_ephemeral: [0; 32],
            remote_static: [0; 32],
        }
    }

    /// What both ends begin with, up to the first message's key.
    fn begin(psk: Option<&[u8; 32]>, prologue: &[u8]) -> Symmetric {
        let Some(psk) = psk else { return Symmetric::new(*NAME, prologue) };
        let mut symmetric = Symmetric::new(sha256(&[NAME_PSK]), prologue);
        symmetric.mix_psk(psk);
        symmetric
    }

    fn write_ephemeral(&mut self, to: &mut Vec<u8>) {
        let public = self.ephemeral.public();
        to.extend_from_slice(public);
        self.symmetric.mix_ephemeral(public, self.psk);
    }

    fn read_ephemeral<'a>(&mut self, message: &'a [u8]) -> Result<&'a [u8], NoiseError> {
        let (public, rest) = message.split_first_chunk::<32>().ok_or(NoiseError::Short)?;
        require_canonical(public)?;
        self.remote_ephemeral = *public;
        self.symmetric.mix_ephemeral(public, self.psk);
        Ok(rest)
    }

    fn read_static<'a>(&mut self, message: &'a [u8]) -> Result<&'a [u8], NoiseError> {
        let (sealed, rest) = message.split_at_checked(32 + TAG_LEN).ok_or(NoiseError::Short)?;
        let opened = self.symmetric.open(sealed)?;
        self.remote_static = opened.try_into().map_err(|_| NoiseError::Short)?;
        require_canonical(&self.remote_static)?;
        Ok(rest)
    }

    /// `-> e` or `-> psk, e`, by the dialling end.
    pub(crate) fn write_m1(&mut self, payload: &[u8], to: &mut Vec<u8>) -> Result<(), NoiseError> {
        self.write_ephemeral(to);
        self.symmetric.seal(payload, to)
    }

    /// `<- e, ee, s, es`, by the accepting end.
    pub(crate) fn write_m2(&mut self, payload: &[u8], to: &mut Vec<u8>) -> Result<(), NoiseError> {
        self.write_ephemeral(to);
        self.symmetric.mix_shared(&self.ephemeral, &self.remote_ephemeral)?;
        self.symmetric.seal(self.static_secret.public(), to)?;
        self.symmetric.mix_shared(&self.static_secret, &self.remote_ephemeral)?;
        self.symmetric.seal(payload, to)
    }

    pub(crate) fn read_m2(&mut self, message: &[u8]) -> Result<Vec<u8>, NoiseError> {
        let rest = self.read_ephemeral(message)?;
        self.symmetric.mix_shared(&self.ephemeral, &self.remote_ephemeral)?;
        let rest = self.read_static(rest)?;
        self.symmetric.mix_shared(&self.ephemeral, &self.remote_static)?;
        self.symmetric.open(rest)
    }

    /// `-> s, se`, by the dialling end.
    pub(crate) fn write_m3(&mut self, payload: &[u8], to: &mut Vec<u8>) -> Result<(), NoiseError> {
        self.symmetric.seal(self.static_secret.public(), to)?;
        self.symmetric.mix_shared(&self.static_secret, &self.remote_ephemeral)?;
        self.symmetric.seal(payload, to)
    }

    pub(crate) fn read_m3(&mut self, message: &[u8]) -> Result<Vec<u8>, NoiseError> {
        let rest = self.read_static(message)?;
        self.symmetric.mix_shared(&self.ephemeral, &self.remote_static)?;
        self.symmetric.open(rest)
    }

    /// The other end's static key, proved by now.
    pub(crate) const fn remote_static(&self) -> &[u8; 32] {
        &self.remote_static
    }

    /// The keys of the dialling and the accepting end's records. Bound to the cipher by its label and to
    /// everything both ends said by the handshake's hash, so that a downgrade gives different keys.
    pub(crate) fn record_keys(&self, cipher_label: &[u8]) -> (Secret, Secret) {
        let (extracted, _) = hkdf(&self.symmetric.chaining_key, &self.symmetric.hash);
        hkdf(&extracted, cipher_label)
    }

    /// The keys that Noise itself would go on with, for the public vectors.
    #[cfg(test)]
    fn split(&self) -> (CipherState, CipherState) {
        let (first, second) = hkdf(&self.symmetric.chaining_key, &[]);
        (CipherState::new(Suite::PureChaCha, &first), CipherState::new(Suite::PureChaCha, &second))
    }
}

#[cfg(test)]
mod tests;
