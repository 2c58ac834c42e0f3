//! What a handshake costs, both ends together and without I/O, beside the curve operations it is made of.

mod support;

use std::hint::black_box;
use std::time::Duration;

use criterion::{Criterion, criterion_group, criterion_main};
use ed25519_dalek::{Signer, SigningKey};
use peerage_peer_session::Ciphers;
use support::end;
use x25519_dalek::{PublicKey, StaticSecret};

fn handshake(c: &mut Criterion) {
    let build = if cfg!(feature = "accelerated") { "accelerated" } else { "pure" };
    let mut group = c.benchmark_group("handshake");
    for (name, ciphers) in [("best", Ciphers::best()), ("pure", Ciphers::pure())] {
        let (alice, bob) = (end(1, ciphers), end(2, ciphers));
        group.bench_function(format!("both ends/{build} curve, {name} ciphers"), |b| {
            b.iter(|| support::handshake(&alice, &bob));
        });
    }
    group.finish();
}

fn curves(c: &mut Criterion) {
    let secret = [3; 32];
    let theirs = PublicKey::from(&StaticSecret::from([5; 32]));
    let message = [7; 300];
    let signing = SigningKey::from_bytes(&[9; 32]);
    let signature = signing.sign(&message);

    let mut group = c.benchmark_group("dalek");
    group.bench_function("x25519 public key", |b| {
        b.iter(|| PublicKey::from(&StaticSecret::from(black_box(secret))));
    });
    let ours = StaticSecret::from(secret);
    group.bench_function("x25519 agreement", |b| b.iter(|| ours.diffie_hellman(black_box(&theirs))));
    group.bench_function("ed25519 strict verification", |b| {
        let key = signing.verifying_key().to_bytes();
        b.iter(|| {
            let key = ed25519_dalek::VerifyingKey::from_bytes(black_box(&key)).expect("a key");
            key.verify_strict(&message, &signature).expect("true");
        });
    });
    group.finish();

    #[cfg(feature = "accelerated")]
    {
        use aws_lc_rs::agreement::{PrivateKey, UnparsedPublicKey, X25519, agree};
        use aws_lc_rs::signature::{ED25519, UnparsedPublicKey as Verifier};
        let mut group = c.benchmark_group("aws-lc");
        group.bench_function("x25519 public key", |b| {
            b.iter(|| {
                let secret = PrivateKey::from_private_key(&X25519, black_box(&secret)).expect("a secret");
                secret.compute_public_key().expect("has one")
            });
        });
        let ours = PrivateKey::from_private_key(&X25519, &secret).expect("a secret");
        group.bench_function("x25519 agreement", |b| {
            b.iter(|| {
                let theirs = UnparsedPublicKey::new(&X25519, black_box(theirs.as_bytes()));
                agree(&ours, theirs, (), |shared| <[u8; 32]>::try_from(shared).map_err(drop)).expect("ordinary")
            });
        });
        // For comparison only: it accepts keys and signatures that strict verification refuses.
        group.bench_function("ed25519 lax verification", |b| {
            let key = signing.verifying_key().to_bytes();
            b.iter(|| Verifier::new(&ED25519, black_box(&key)).verify(&message, &signature.to_bytes()).expect("true"));
        });
        group.finish();
    }
}

criterion_group! {
    name = benches;
    config = Criterion::default().warm_up_time(Duration::from_millis(300)).measurement_time(Duration::from_secs(2));
    targets = handshake, curves
}
criterion_main!(benches);
