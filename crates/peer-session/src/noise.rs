//! `Noise_XX_25519_ChaChaPoly_SHA256`, revision 34 of the specification: three messages, after which both
//! ends know each other's static key and share keys that no listener has.
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
    fn new(prologue: &[u8]) -> Symmetric {
        let mut symmetric = Symmetric { chaining_key: Zeroizing::new(*NAME), hash: *NAME, cipher: None };
        symmetric.mix_hash(prologue);
        symmetric
    }

    fn mix_hash(&mut self, bytes: &[u8]) {
        self.hash = sha256(&[&self.hash, bytes]);
    }

    fn mix_key(&mut self, secret: &SecretKey, public: &[u8; 32]) -> Result<(), NoiseError> {
        let shared = secret.agree(public)?;
        let (chaining_key, key) = hkdf(&self.chaining_key, &*shared);
        self.chaining_key = chaining_key;
        self.cipher = Some(CipherState::new(Suite::PureChaCha, &key));
        Ok(())
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

/// One end of a handshake in progress. The calls must come in the order of the messages, which
/// [`crate::handshake`] sees to by its types.
pub(crate) struct NoiseXx {
    symmetric: Symmetric,
    static_secret: Arc<SecretKey>,
    ephemeral: SecretKey,
    remote_ephemeral: [u8; 32],
    remote_static: [u8; 32],
}

impl NoiseXx {
    /// Ephemeral keys come from the operating system, through the shell; only test vectors choose them.
    pub(crate) fn new(static_secret: Arc<SecretKey>, ephemeral: Secret, prologue: &[u8]) -> NoiseXx {
        NoiseXx {
            symmetric: Symmetric::new(prologue),
            static_secret,
            ephemeral: SecretKey::new(&ephemeral),
            remote_ephemeral: [0; 32],
            remote_static: [0; 32],
        }
    }

    fn write_ephemeral(&mut self, to: &mut Vec<u8>) {
        let public = self.ephemeral.public();
        to.extend_from_slice(public);
        self.symmetric.mix_hash(public);
    }

    fn read_ephemeral<'a>(&mut self, message: &'a [u8]) -> Result<&'a [u8], NoiseError> {
        let (public, rest) = message.split_first_chunk::<32>().ok_or(NoiseError::Short)?;
        require_canonical(public)?;
        self.remote_ephemeral = *public;
        self.symmetric.mix_hash(public);
        Ok(rest)
    }

    fn read_static<'a>(&mut self, message: &'a [u8]) -> Result<&'a [u8], NoiseError> {
        let (sealed, rest) = message.split_at_checked(32 + TAG_LEN).ok_or(NoiseError::Short)?;
        let opened = self.symmetric.open(sealed)?;
        self.remote_static = opened.try_into().map_err(|_| NoiseError::Short)?;
        require_canonical(&self.remote_static)?;
        Ok(rest)
    }

    /// `-> e`, by the dialling end.
    pub(crate) fn write_m1(&mut self, payload: &[u8], to: &mut Vec<u8>) -> Result<(), NoiseError> {
        self.write_ephemeral(to);
        self.symmetric.seal(payload, to)
    }

    pub(crate) fn read_m1(&mut self, message: &[u8]) -> Result<Vec<u8>, NoiseError> {
        let rest = self.read_ephemeral(message)?;
        self.symmetric.open(rest)
    }

    /// `<- e, ee, s, es`, by the accepting end.
    pub(crate) fn write_m2(&mut self, payload: &[u8], to: &mut Vec<u8>) -> Result<(), NoiseError> {
        self.write_ephemeral(to);
        self.symmetric.mix_key(&self.ephemeral, &self.remote_ephemeral)?;
        self.symmetric.seal(self.static_secret.public(), to)?;
        self.symmetric.mix_key(&self.static_secret, &self.remote_ephemeral)?;
        self.symmetric.seal(payload, to)
    }

    pub(crate) fn read_m2(&mut self, message: &[u8]) -> Result<Vec<u8>, NoiseError> {
        let rest = self.read_ephemeral(message)?;
        self.symmetric.mix_key(&self.ephemeral, &self.remote_ephemeral)?;
        let rest = self.read_static(rest)?;
        self.symmetric.mix_key(&self.ephemeral, &self.remote_static)?;
        self.symmetric.open(rest)
    }

    /// `-> s, se`, by the dialling end.
    pub(crate) fn write_m3(&mut self, payload: &[u8], to: &mut Vec<u8>) -> Result<(), NoiseError> {
        self.symmetric.seal(self.static_secret.public(), to)?;
        self.symmetric.mix_key(&self.static_secret, &self.remote_ephemeral)?;
        self.symmetric.seal(payload, to)
    }

    pub(crate) fn read_m3(&mut self, message: &[u8]) -> Result<Vec<u8>, NoiseError> {
        let rest = self.read_static(message)?;
        self.symmetric.mix_key(&self.ephemeral, &self.remote_static)?;
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
mod tests {
    use std::path::Path;

    use super::*;

    fn own() -> Arc<SecretKey> {
        Arc::new(SecretKey::new(&[3; 32]))
    }

    fn unhex(value: &serde_json::Value) -> Vec<u8> {
        data_encoding::HEXLOWER.decode(value.as_str().expect("text").as_bytes()).expect("hex")
    }

    fn secret(value: &serde_json::Value) -> Secret {
        Zeroizing::new(unhex(value).try_into().expect("32 bytes"))
    }

    #[test]
    fn the_public_vector_is_reproduced_byte_for_byte() {
        let file =
            Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/data/noise-xx-25519-chachapoly-sha256.json");
        let Ok(text) = std::fs::read_to_string(&file) else {
            println!("no vector file beside the checkout: the test against snow stands alone");
            return;
        };
        println!("using the public vector file");
        let vectors: serde_json::Value = serde_json::from_str(&text).expect("JSON");
        for vector in vectors["vectors"].as_array().expect("a list") {
            let end = |side: &str| {
                NoiseXx::new(
                    Arc::new(SecretKey::new(&secret(&vector[format!("{side}_static")]))),
                    secret(&vector[format!("{side}_ephemeral")]),
                    &unhex(&vector[format!("{side}_prologue")]),
                )
            };
            let (mut dialler, mut listener) = (end("init"), end("resp"));
            let messages = vector["messages"].as_array().expect("a list");
            let part = |n: usize| (unhex(&messages[n]["payload"]), unhex(&messages[n]["ciphertext"]));

            let mut sent = [Vec::new(), Vec::new(), Vec::new()];
            dialler.write_m1(&part(0).0, &mut sent[0]).expect("m1");
            assert_eq!(listener.read_m1(&sent[0]).expect("m1"), part(0).0);
            listener.write_m2(&part(1).0, &mut sent[1]).expect("m2");
            assert_eq!(dialler.read_m2(&sent[1]).expect("m2"), part(1).0);
            dialler.write_m3(&part(2).0, &mut sent[2]).expect("m3");
            assert_eq!(listener.read_m3(&sent[2]).expect("m3"), part(2).0);
            for (n, sent) in sent.iter().enumerate() {
                assert_eq!(*sent, part(n).1, "message {n}");
            }
            assert_eq!(dialler.symmetric.hash.to_vec(), unhex(&vector["handshake_hash"]));
            let (mut to_listener, mut to_dialler) = dialler.split();
            for n in 3..messages.len() {
                let (payload, ciphertext) = part(n);
                // The vectors' transport messages alternate; the accepting end sends the first.
                let cipher = if n % 2 == 1 { &mut to_dialler } else { &mut to_listener };
                let mut sealed = payload;
                let tag = cipher.seal(&[], &mut sealed).expect("short");
                sealed.extend_from_slice(&tag);
                assert_eq!(sealed, ciphertext, "message {n}");
            }
        }
    }

    #[test]
    fn snow_understands_both_ends() {
        let params = || "Noise_XX_25519_ChaChaPoly_SHA256".parse::<snow::params::NoiseParams>().expect("known");
        let ours = || NoiseXx::new(own(), Zeroizing::new([4; 32]), b"prologue");
        let theirs = || {
            snow::Builder::new(params())
                .local_private_key(&[5; 32])
                .and_then(|b| b.prologue(b"prologue"))
                .expect("valid")
        };
        let mut buffer = [0; 1024];

        let (mut a, mut b) = (ours(), theirs().build_responder().expect("complete"));
        let mut m1 = Vec::new();
        a.write_m1(b"", &mut m1).expect("m1");
        b.read_message(&m1, &mut buffer).expect("m1");
        let len = b.write_message(b"two", &mut buffer).expect("m2");
        assert_eq!(a.read_m2(&buffer[..len]).expect("m2"), b"two");
        let mut m3 = Vec::new();
        a.write_m3(b"three", &mut m3).expect("m3");
        let len = b.read_message(&m3, &mut buffer).expect("m3");
        assert_eq!(&buffer[..len], b"three");
        assert_eq!(b.get_handshake_hash(), a.symmetric.hash);

        let (mut a, mut b) = (theirs().build_initiator().expect("complete"), ours());
        let len = a.write_message(b"", &mut buffer).expect("m1");
        b.read_m1(&buffer[..len]).expect("m1");
        let mut m2 = Vec::new();
        b.write_m2(b"two", &mut m2).expect("m2");
        a.read_message(&m2, &mut buffer).expect("m2");
        let len = a.write_message(b"three", &mut buffer).expect("m3");
        assert_eq!(b.read_m3(&buffer[..len]).expect("m3"), b"three");
        assert_eq!(a.get_remote_static().map(<[u8]>::to_vec), Some(b.static_secret.public().to_vec()));
    }

    #[test]
    fn keys_of_small_order_and_of_a_second_spelling_are_refused() {
        let mut listener = NoiseXx::new(own(), Zeroizing::new([4; 32]), b"");
        for weak in [[0; 32], {
            let mut one = [0; 32];
            one[0] = 1;
            one
        }] {
            listener.read_m1(&weak).expect("only a key so far");
            assert_eq!(listener.write_m2(b"", &mut Vec::new()), Err(NoiseError::WeakKey));
        }
        let mut second_spelling = *listener.ephemeral.public();
        second_spelling[31] |= 0x80;
        assert_eq!(listener.read_m1(&second_spelling), Err(NoiseError::NonCanonicalKey));
        assert_eq!(listener.read_m2(&second_spelling), Err(NoiseError::NonCanonicalKey));
    }

    #[test]
    fn different_ciphers_have_different_keys_and_so_have_the_directions() {
        let noise = NoiseXx::new(own(), Zeroizing::new([4; 32]), b"");
        let (a, b) = noise.record_keys(b"one");
        let (c, _) = noise.record_keys(b"two");
        assert!(*a != *b && *a != *c);
    }
}
