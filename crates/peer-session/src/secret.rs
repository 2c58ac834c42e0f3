//! A private network's secret.

use std::fmt;
use std::sync::Arc;

use zeroize::Zeroizing;

/// Sets this use of the bytes apart from all others.
const CONTEXT: &str = "peerage 2026-11 secret of a network";

/// What all nodes of a private network share, and mix into every handshake: a stranger is refused at its first message,
/// and told nothing.
///
/// It keeps strangers out and does not replace identities: who is admitted is still decided by id. Every node has it,
/// so whoever reads one node's secret can speak to all of them; a new one needs all nodes restarted with it.
///
/// Cheap to clone. It is overwritten in memory when the last clone is gone, and neither printed nor serialized.
///
/// ```
/// use peerage_peer_session::NetworkSecret;
///
/// let secret = NetworkSecret::new(b"hP3kq0Zs9vT1xYb7LwQe")?;
/// assert_eq!(format!("{secret:?}"), "NetworkSecret");
/// assert!(NetworkSecret::new(b"hunter2").is_err());
/// # Ok::<(), peerage_peer_session::SecretTooShort>(())
/// ```
#[derive(Clone)]
pub struct NetworkSecret(Arc<Zeroizing<[u8; 32]>>);

/// A network's secret that could be guessed: it has only so many bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a network's secret of {0} bytes: at least {min} are needed, chosen at random", min = NetworkSecret::MIN)]
pub struct SecretTooShort(pub usize);

impl NetworkSecret {
    /// Fewest bytes a secret is made from.
    pub const MIN: usize = 16;

    /// The secret made from these bytes, all of them: the end of a line counts. They are hashed (BLAKE3, in its mode
    /// for keys) and not stretched: whoever recorded one handshake can try as many as a computer hashes. So a
    /// passphrase must be long; best are 32 random bytes.
    ///
    /// # Errors
    /// Fewer than [`NetworkSecret::MIN`] bytes.
    pub fn new(bytes: &[u8]) -> Result<NetworkSecret, SecretTooShort> {
        if bytes.len() < NetworkSecret::MIN {
            return Err(SecretTooShort(bytes.len()));
        }
        Ok(NetworkSecret(Arc::new(Zeroizing::new(blake3::derive_key(CONTEXT, bytes)))))
    }

    pub(crate) fn psk(&self) -> &[u8; 32] {
        &self.0
    }
}

impl fmt::Debug for NetworkSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("NetworkSecret")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_this_key_and_too_few_bytes_are_none() {
        for len in 0..NetworkSecret::MIN {
            assert_eq!(NetworkSecret::new(&vec![7; len]).map(drop), Err(SecretTooShort(len)));
        }
        let words = "a network's secret of 15 bytes: at least 16 are needed, chosen at random";
        assert_eq!(SecretTooShort(15).to_string(), words);
        let secret = NetworkSecret::new(b"sixteen bytes ok").expect("as long as it must be");
        assert_eq!(
            data_encoding::HEXLOWER.encode(secret.psk()),
            "24871fcbf405e837bd32e5403613b563e9b4b09d618eb9efb39e785e71c771a5"
        );
        assert_ne!(secret.psk(), NetworkSecret::new(b"sixteen bytes ok\n").expect("long").psk());
        let end = crate::handshake::LocalEnd::new(&peerage_wire::Keypair::from_seed([1; 32])).with_secret(Some(secret));
        assert!(format!("{end:?}").contains("secret: true"), "{end:?}");
    }
}
