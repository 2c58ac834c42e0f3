//! x25519 as the handshake uses it: which keys of the other end are refused, and who computes.

use zeroize::Zeroizing;

use super::NoiseError;

#[cfg(feature = "accelerated")]
pub(crate) use self::aws::SecretKey;
#[cfg(not(feature = "accelerated"))]
pub(crate) use self::dalek::SecretKey;

type Shared = Zeroizing<[u8; 32]>;

/// The field's prime, 2^255 - 19, little-endian.
const PRIME: [u8; 32] = {
    let mut prime = [0xff; 32];
    prime[0] = 0xed;
    prime[31] = 0x7f;
    prime
};

/// Refuses a key that is written as no honest end writes it: x25519 reduces such a number and ignores its top bit, so
/// that one key would have several spellings, and each library would draw the line elsewhere.
pub(crate) fn require_canonical(key: &[u8; 32]) -> Result<(), NoiseError> {
    match key.iter().rev().lt(PRIME.iter().rev()) {
        true => Ok(()),
        false => Err(NoiseError::NonCanonicalKey),
    }
}

/// By aws-lc: both operations take less than half of dalek's time, and a whole handshake less than two thirds
/// (`benches/handshake.rs`). Identities and signatures stay with dalek, whose strict verification aws-lc does not have.
#[cfg(feature = "accelerated")]
mod aws {
    use aws_lc_rs::agreement::{PrivateKey, UnparsedPublicKey, X25519, agree};

    use super::{NoiseError, Shared, Zeroizing};

    /// A secret with its public key. aws-lc overwrites its copy when it frees it.
    pub(crate) struct SecretKey {
        secret: PrivateKey,
        public: [u8; 32],
    }

    impl SecretKey {
        pub(crate) fn new(secret: &[u8; 32]) -> SecretKey {
            let secret = PrivateKey::from_private_key(&X25519, secret).expect("any 32 bytes are a secret");
            let public = secret.compute_public_key().expect("a secret has a public key");
            let public = public.as_ref().try_into().expect("a public key has 32 bytes");
            SecretKey { secret, public }
        }

        pub(crate) const fn public(&self) -> &[u8; 32] {
            &self.public
        }

        /// The secret shared with the owner of `theirs`.
        pub(crate) fn agree(&self, theirs: &[u8; 32]) -> Result<Shared, NoiseError> {
            // Any 32 bytes are a key: what is refused is the shared secret of all zeros, as RFC 7748 has it.
            agree(&self.secret, UnparsedPublicKey::new(&X25519, theirs), NoiseError::WeakKey, |bytes| {
                let mut shared = Zeroizing::new([0; 32]);
                shared.copy_from_slice(bytes);
                Ok(shared)
            })
        }
    }
}

#[cfg(any(test, not(feature = "accelerated")))]
mod dalek {
    use x25519_dalek::{PublicKey, StaticSecret};

    use super::{NoiseError, Shared, Zeroizing};

    /// A secret with its public key. Overwritten when dropped.
    pub(crate) struct SecretKey {
        secret: StaticSecret,
        public: [u8; 32],
    }

    impl SecretKey {
        pub(crate) fn new(secret: &[u8; 32]) -> SecretKey {
            let secret = StaticSecret::from(*secret);
            let public = PublicKey::from(&secret).to_bytes();
            SecretKey { secret, public }
        }

        pub(crate) const fn public(&self) -> &[u8; 32] {
            &self.public
        }

        /// The secret shared with the owner of `theirs`.
        pub(crate) fn agree(&self, theirs: &[u8; 32]) -> Result<Shared, NoiseError> {
            let shared = self.secret.diffie_hellman(&PublicKey::from(*theirs));
            if !shared.was_contributory() {
                return Err(NoiseError::WeakKey);
            }
            Ok(Zeroizing::new(shared.to_bytes()))
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::dalek::SecretKey as Dalek;
    use super::*;

    /// Every spelling of a point of small order that fits 32 bytes without the top bit, as listed at
    /// <https://cr.yp.to/ecdh.html#validate>: the first five are canonical.
    const SMALL_ORDER: [&str; 7] = [
        "0000000000000000000000000000000000000000000000000000000000000000",
        "0100000000000000000000000000000000000000000000000000000000000000",
        "e0eb7a7c3b41b8ae1656e3faf19fc46ada098deb9c32b1fd866205165f49b800",
        "5f9c95bca3508c24b1d0b1559c83ef5b04445cc4581c8e86d8224eddd09f1157",
        "ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
        "edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
        "eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
    ];

    fn key(hex: &str) -> [u8; 32] {
        data_encoding::HEXLOWER.decode(hex.as_bytes()).expect("hex").try_into().expect("32 bytes")
    }

    fn with_top_bit(mut key: [u8; 32]) -> [u8; 32] {
        key[31] |= 0x80;
        key
    }

    /// Both libraries where both are there, so that the two builds are known to refuse alike.
    fn agreed(secret: u8, theirs: &[u8; 32]) -> Result<Shared, NoiseError> {
        let agreed = SecretKey::new(&[secret; 32]).agree(theirs);
        assert_eq!(agreed, Dalek::new(&[secret; 32]).agree(theirs), "the libraries differ");
        agreed
    }

    #[test]
    fn keys_of_small_order_are_refused_however_they_are_written() {
        for (n, hex) in SMALL_ORDER.into_iter().enumerate() {
            for theirs in [key(hex), with_top_bit(key(hex))] {
                assert_eq!(agreed(3, &theirs), Err(NoiseError::WeakKey), "{hex}");
            }
            assert_eq!(require_canonical(&key(hex)).is_ok(), n < 5, "{hex}");
            assert!(require_canonical(&with_top_bit(key(hex))).is_err(), "{hex}");
        }
    }

    #[test]
    fn a_key_has_one_spelling() {
        for above in 0..=18 {
            let mut theirs = PRIME;
            theirs[0] += above;
            assert_eq!(require_canonical(&theirs), Err(NoiseError::NonCanonicalKey), "the prime and {above}");
        }
        assert_eq!(require_canonical(&[0xff; 32]), Err(NoiseError::NonCanonicalKey));
        let mut greatest = PRIME;
        greatest[0] -= 1;
        assert_eq!(require_canonical(&greatest), Ok(()));
        let real = *SecretKey::new(&[5; 32]).public();
        assert_eq!(require_canonical(&real), Ok(()));
        assert_eq!(require_canonical(&with_top_bit(real)), Err(NoiseError::NonCanonicalKey));
    }

    #[test]
    fn the_example_of_rfc_7748_is_reproduced() {
        let bob = SecretKey::new(&key("5dab087e624a8a4b79e17f8b83800ee66f3bb1292618b6fd1c2f8b27ff88e0eb"));
        assert_eq!(*bob.public(), key("de9edb7d7b7dc1b4d35b61c2ece435373f8343c85b78674dadfc7e146f882b4f"));
        let alice = key("8520f0098930a754748b7ddcb43ef75a0dbf3a0d26381af4eba4a98eaa9b4e6a");
        let shared = bob.agree(&alice).expect("an ordinary key");
        assert_eq!(*shared, key("4a5d9d5ba4ce2de1728e3bf480350f25e07e21c947d19e3376f09b3c1e161742"));
    }

    proptest! {
        #[test]
        fn both_libraries_agree_and_public_keys_are_canonical(secret: [u8; 32], other: [u8; 32], any: [u8; 32]) {
            let (ours, theirs) = (SecretKey::new(&secret), Dalek::new(&secret));
            prop_assert_eq!(ours.public(), theirs.public());
            prop_assert_eq!(require_canonical(ours.public()), Ok(()));
            let other = Dalek::new(&other);
            prop_assert_eq!(ours.agree(other.public()), other.agree(ours.public()));
            prop_assert_eq!(ours.agree(&any), theirs.agree(&any));
        }
    }
}
