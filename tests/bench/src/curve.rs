//! The curve operations of one XX handshake and nothing else: 8 x25519 (two of them making a public key) and two
//! checks of an ed25519 signature, both ends together.

use aws_lc_rs::agreement::{self, UnparsedPublicKey, X25519};
use aws_lc_rs::signature::{self, ED25519};
use ed25519_dalek::{Signer, SigningKey, VerifyingKey};
use x25519_dalek::{PublicKey, StaticSecret};

use crate::Failure;
use crate::job::{Impl, Job, Values};
use crate::machine::Usage;

/// Public keys made in a handshake: one ephemeral at each end.
const MADE: usize = 2;
/// Shared secrets: ee, es and se at each end.
const SHARED: usize = 6;
/// Records checked: the other end's, at each end.
const CHECKED: usize = 2;
/// As long as a record that a handshake carries.
const SIGNED: usize = 236;

/// CPU microseconds a handshake.
pub(crate) fn run(job: Job) -> Result<Values, Failure> {
    let signer = SigningKey::from_bytes(&[3; 32]);
    let message = [9; SIGNED];
    let (signed, verifying) = (signer.sign(&message), signer.verifying_key().to_bytes());
    let other = PublicKey::from(&StaticSecret::from([4; 32]));
    let operations: Box<dyn Fn(u64) -> Result<(), Failure>> = match job.by {
        Impl::CurveDalek => Box::new(move |n| {
            let secret = StaticSecret::from(seed(n));
            for _ in 0..MADE {
                std::hint::black_box(PublicKey::from(std::hint::black_box(&secret)));
            }
            for _ in 0..SHARED {
                std::hint::black_box(std::hint::black_box(&secret).diffie_hellman(&other));
            }
            for _ in 0..CHECKED {
                // A record carries its key as bytes.
                let key = VerifyingKey::from_bytes(std::hint::black_box(&verifying))?;
                key.verify_strict(std::hint::black_box(&message), &signed)?;
            }
            Ok(())
        }),
        Impl::CurveAwsLc => {
            let signed = signed.to_bytes();
            Box::new(move |n| {
                let secret = agreement::PrivateKey::from_private_key(&X25519, &seed(n))?;
                for _ in 0..MADE {
                    std::hint::black_box(std::hint::black_box(&secret).compute_public_key()?);
                }
                for _ in 0..SHARED {
                    let other = UnparsedPublicKey::new(&X25519, other.as_bytes());
                    agreement::agree(std::hint::black_box(&secret), other, (), |shared| {
                        std::hint::black_box(shared[0]);
                        Ok(())
                    })
                    .map_err(|()| "no agreement")?;
                }
                for _ in 0..CHECKED {
                    let key = signature::UnparsedPublicKey::new(&ED25519, &verifying);
                    key.verify(std::hint::black_box(&message), &signed)?;
                }
                Ok(())
            })
        }
        by => return Err(format!("{} is not a curve library", by.name()).into()),
    };
    let (start, mut done) = (std::time::Instant::now(), 0);
    while start.elapsed() < job.warm {
        operations(done)?;
        done += 1;
    }
    let (before, start, first) = (Usage::now(), std::time::Instant::now(), done);
    while start.elapsed() < job.run {
        operations(done)?;
        done += 1;
    }
    let spent = Usage::now().cpu_us - before.cpu_us;
    Ok(Values::from([("cpu_us".to_owned(), spent / (done - first) as f64)]))
}

fn seed(n: u64) -> [u8; 32] {
    let mut seed = [1; 32];
    seed[8..16].copy_from_slice(&n.to_le_bytes());
    seed
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::job::Work;

    #[test]
    fn both_libraries_do_the_operations() {
        for by in [Impl::CurveDalek, Impl::CurveAwsLc] {
            let (warm, run) = (Duration::ZERO, Duration::from_millis(5));
            let values = run_once(Job { work: Work::Setup, by, warm, run, one_cpu: false });
            assert!(values["cpu_us"] > 0.0);
        }
    }

    fn run_once(job: Job) -> Values {
        run(job).expect("the libraries agree with themselves")
    }
}
