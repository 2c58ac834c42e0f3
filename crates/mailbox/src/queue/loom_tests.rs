//! The data queue under loom's model checker: every interleaving of its ends.

use loom::thread;

use super::*;

impl Item for u8 {}

/// Whatever the interleaving: an item that was queued is taken on a ring that follows it.
#[test]
fn no_wake_up_is_lost() {
    loom::model(|| {
        let (outlet, inlet) = data_queue::<u8>(Capacity { items: 4, weight: 4 });
        let rings = Arc::new(AtomicUsize::new(0));
        let counted = rings.clone();
        inlet.bind(Bell::from_fn(move || {
            counted.fetch_add(1, Ordering::SeqCst);
        }));
        let senders: Vec<_> = (0..2)
            .map(|n| {
                let outlet = outlet.clone();
                thread::spawn(move || outlet.offer(n).is_ok())
            })
            .collect();
        // The actor: looks once for each ring, and only then.
        let (mut taken, mut handled) = (0, 0);
        let mut look = || {
            if rings.load(Ordering::SeqCst) > handled {
                handled += 1;
                taken += inlet.take(4).len();
                return true;
            }
            false
        };
        look();
        for sender in senders {
            assert!(sender.join().expect("no panic"));
        }
        while look() {}
        assert_eq!(taken, 2);
    });
}

/// An offer that races with the actor's restart rings the new life, or is found by its first look.
#[test]
fn no_wake_up_is_lost_when_the_bell_changes() {
    loom::model(|| {
        let (outlet, inlet) = data_queue::<u8>(Capacity { items: 4, weight: 4 });
        inlet.bind(Bell::from_fn(|| {}));
        let sender = thread::spawn({
            let outlet = outlet.clone();
            move || outlet.offer(1).is_ok()
        });
        // The new life.
        let rings = Arc::new(AtomicUsize::new(0));
        let counted = rings.clone();
        inlet.bind(Bell::from_fn(move || {
            counted.fetch_add(1, Ordering::SeqCst);
        }));
        assert!(sender.join().expect("no panic"));
        let mut taken = 0;
        if rings.swap(0, Ordering::SeqCst) > 0 {
            taken += inlet.take(4).len();
        }
        assert!(outlet.offer(2).is_ok());
        if rings.load(Ordering::SeqCst) > 0 {
            taken += inlet.take(4).len();
        }
        assert_eq!(taken, 2);
    });
}

/// A sender that races with close either queued in time or gets its item back.
#[test]
fn an_offer_that_races_with_close_is_not_left_behind() {
    loom::model(|| {
        let (outlet, inlet) = data_queue::<u8>(Capacity { items: 4, weight: 4 });
        let sender = thread::spawn(move || outlet.offer(1).is_ok());
        inlet.close();
        let _ = sender.join().expect("no panic");
        assert!(inlet.is_empty());
    });
}
