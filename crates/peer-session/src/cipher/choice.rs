//! Which record ciphers an end offers, and which one two ends take.

use peerage_wire::handshake::CipherId;

use super::aead::Suite;

/// The record ciphers an end speaks, best first.
///
/// The order is the same for every node: AES-256-GCM, then ChaCha20-Poly1305. The accepting end lists what it has, the
/// dialling end takes the first of the order that it has too. Both lie inside the handshake's encryption and under its
/// hash, so nobody between two ends can bring them down to a lesser one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ciphers([Option<Suite>; 2]);

impl Ciphers {
    /// Every cipher this build and this processor have, each by its fastest implementation.
    pub fn best() -> Ciphers {
        #[cfg(feature = "accelerated")]
        return Ciphers([has_aes_instructions().then_some(Suite::Aes), Some(Suite::ChaCha)]);
        #[cfg(not(feature = "accelerated"))]
        Ciphers::pure()
    }

    /// Only what a build without the feature `accelerated` has, in any build: to compare the two, and to test that they
    /// understand each other.
    pub const fn pure() -> Ciphers {
        Ciphers([None, Some(Suite::PureChaCha)])
    }

    /// One cipher, by its fastest implementation; `None` if this build or this processor does not have it.
    ///
    /// # Warning
    /// An end that does not offer ChaCha20-Poly1305 cannot talk to every node. This is for tests and benchmarks.
    pub fn only(cipher: CipherId) -> Option<Ciphers> {
        let kept = Ciphers::best().0.map(|suite| suite.filter(|suite| suite.cipher() == cipher));
        kept.iter().any(Option::is_some).then_some(Ciphers(kept))
    }

    #[cfg(test)]
    pub(crate) const fn none() -> Ciphers {
        Ciphers([None, None])
    }

    /// What the accepting end lists, best first.
    pub fn offered(&self) -> impl Iterator<Item = CipherId> + use<> {
        self.0.into_iter().flatten().map(Suite::cipher)
    }

    /// The dialling end's choice.
    pub(crate) fn first_in(&self, listed: &[CipherId]) -> Option<Suite> {
        self.0.into_iter().flatten().find(|suite| listed.contains(&suite.cipher()))
    }

    /// The accepting end's part: what it offered under this name.
    pub(crate) fn offered_as(&self, chosen: CipherId) -> Option<Suite> {
        self.first_in(&[chosen])
    }
}

impl Default for Ciphers {
    fn default() -> Ciphers {
        Ciphers::best()
    }
}

/// Without these, AES in constant time is slower than ChaCha20.
#[cfg(feature = "accelerated")]
fn has_aes_instructions() -> bool {
    #[cfg(target_arch = "x86_64")]
    return std::arch::is_x86_feature_detected!("aes") && std::arch::is_x86_feature_detected!("pclmulqdq");
    #[cfg(target_arch = "aarch64")]
    return std::arch::is_aarch64_feature_detected!("aes") && std::arch::is_aarch64_feature_detected!("pmull");
    #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_end_offers_the_mandatory_cipher_last() {
        for ciphers in [Ciphers::best(), Ciphers::pure(), Ciphers::default()] {
            assert_eq!(ciphers.offered().last(), Some(CipherId::CHACHA20_POLY1305));
        }
        assert_eq!(Ciphers::best().offered().next() == Some(CipherId::AES_256_GCM), {
            Ciphers::only(CipherId::AES_256_GCM).is_some()
        });
        assert_eq!(Ciphers::only(CipherId(300)), None);
    }

    #[test]
    fn the_first_of_the_order_is_taken_however_the_other_end_lists_them() {
        let both = [CipherId(300), CipherId::CHACHA20_POLY1305, CipherId::AES_256_GCM];
        for ours in [Ciphers::best(), Ciphers::pure()] {
            let taken = ours.first_in(&both).map(Suite::cipher);
            assert_eq!(taken, ours.offered().next());
            let lesser = ours.first_in(&both[..2]).map(Suite::cipher);
            assert_eq!(lesser, Some(CipherId::CHACHA20_POLY1305));
            assert_eq!(ours.first_in(&[CipherId(300)]), None);
        }
    }
}
