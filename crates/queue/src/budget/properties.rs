//! What holds of a pool after any sequence of calls: no byte is lost or made up, and nobody waits for ever.

use proptest::prelude::*;

use super::*;

#[derive(Clone, Debug)]
enum Call {
    Join(u64),
    Weight(usize, u64),
    Leave(usize),
    TakeAll(usize, usize),
    Take(usize, usize),
    Cancel(usize),
    /// Of the finished messages only, as a holder does.
    GiveBack(usize, usize),
    Shared(usize),
    ShareDone,
}

fn call() -> impl Strategy<Value = Call> {
    let (who, bytes) = (0..6_usize, 0..40_usize);
    prop_oneof![
        2 => prop_oneof![Just(0), 0..5_u64, Just(u64::MAX)].prop_map(Call::Join),
        1 => (who.clone(), prop_oneof![Just(0), 0..9_u64]).prop_map(|(who, weight)| Call::Weight(who, weight)),
        1 => who.clone().prop_map(Call::Leave),
        4 => (who.clone(), bytes.clone()).prop_map(|(who, bytes)| Call::TakeAll(who, bytes)),
        8 => (who.clone(), bytes.clone()).prop_map(|(who, bytes)| Call::Take(who, bytes)),
        2 => who.clone().prop_map(Call::Cancel),
        6 => (who, bytes.clone()).prop_map(|(who, bytes)| Call::GiveBack(who, bytes)),
        2 => bytes.prop_map(Call::Shared),
        2 => Just(Call::ShareDone),
    ]
}

fn config() -> impl Strategy<Value = PoolConfig> {
    (0..100_usize, 0..100_usize, 0..60_usize, 0..60_usize)
        .prop_map(|(at_large, shared, holder_max, aside)| PoolConfig { at_large, shared, holder_max, aside })
}

/// What the callers know.
struct Peer {
    id: HolderId,
    finished: usize,
    /// What it has of the message it waits for, and what is missing.
    partial: usize,
    wanted: usize,
}

struct Callers {
    budget: Budget,
    peers: Vec<Peer>,
    shared: Vec<usize>,
    granted: Vec<(HolderId, usize)>,
    /// A holder begins a message only when it has given the last one back.
    one_message: bool,
}

impl Callers {
    fn new(config: PoolConfig, one_message: bool) -> Callers {
        let budget = Budget::new(config);
        Callers { budget, peers: Vec::new(), shared: Vec::new(), granted: Vec::new(), one_message }
    }

    fn call(&mut self, call: Call) {
        let Callers { budget, peers, shared, granted, one_message } = self;
        match call {
            Call::Join(weight) if peers.len() < 6 => {
                peers.push(Peer { id: budget.join(weight), finished: 0, partial: 0, wanted: 0 });
            }
            Call::Shared(bytes) if budget.take_at_large(bytes) => shared.push(bytes),
            Call::ShareDone => budget.give_at_large(shared.pop().unwrap_or(0), granted),
            Call::Leave(who) if who < peers.len() => budget.leave(peers.swap_remove(who).id, granted),
            Call::Weight(who, weight) if who < peers.len() => budget.set_weight(peers[who].id, weight, granted),
            Call::TakeAll(who, bytes) if who < peers.len() && budget.take_all(peers[who].id, bytes) => {
                peers[who].finished += bytes;
            }
            Call::Take(who, bytes) if who < peers.len() && peers[who].wanted == 0 => {
                let (peer, bytes) = (&mut peers[who], bytes.min(budget.config.aside));
                if !*one_message || peer.finished == 0 {
                    let taken = budget.take(peer.id, bytes);
                    (peer.partial, peer.wanted) = (taken, bytes - taken);
                    peer.finish();
                }
            }
            Call::Cancel(who) if who < peers.len() => {
                let peer = &mut peers[who];
                assert_eq!(budget.cancel(peer.id), std::mem::take(&mut peer.wanted));
                budget.give_back(peer.id, std::mem::take(&mut peer.partial), granted);
            }
            Call::GiveBack(who, bytes) if who < peers.len() => {
                let bytes = bytes.min(peers[who].finished);
                peers[who].finished -= bytes;
                budget.give_back(peers[who].id, bytes, granted);
            }
            _ => {}
        }
        for (id, bytes) in self.granted.drain(..) {
            assert!(bytes > 0);
            let peer = self.peers.iter_mut().find(|peer| peer.id == id).expect("granted to one that is there");
            peer.partial += bytes;
            peer.wanted -= bytes;
            peer.finish();
        }
        self.check();
    }

    /// Every finished message is given back, whether or not its holder waits for another.
    fn finish_all(&mut self) {
        for who in 0..self.peers.len() {
            // What the others' bytes finish meanwhile is left for the next time.
            self.call(Call::GiveBack(who, usize::MAX));
        }
        while !self.shared.is_empty() {
            self.call(Call::ShareDone);
        }
    }

    fn check(&self) {
        let budget = &self.budget;
        for peer in &self.peers {
            assert_eq!((budget.held(peer.id), budget.wanted(peer.id)), (peer.finished + peer.partial, peer.wanted));
            assert!(budget.holders[peer.id.index].at_large <= budget.config.holder_max);
        }
        let sum = |part: fn(&Holder) -> usize| budget.holders.iter().map(part).sum::<usize>();
        let anonymous: usize = self.shared.iter().sum();
        assert_eq!(budget.at_large_free + anonymous + sum(|holder| holder.at_large), budget.config.at_large);
        assert_eq!(budget.shared_free + sum(|holder| holder.share), budget.config.shared);
        assert_eq!(budget.aside_free + sum(|holder| holder.aside), budget.config.aside);
        assert_eq!(budget.used() + budget.free(), budget.config.capacity());
        assert_eq!(budget.holders.len() - budget.vacant.len(), self.peers.len());

        // No line keeps one that does not belong, or misses one that does.
        let line = |belongs: &dyn Fn(usize) -> bool| {
            let waits = |index: &usize| budget.holders[*index].wanted > 0 && belongs(*index);
            (0..budget.holders.len()).filter(waits).map(|index| (budget.holders[index].ticket, index)).collect::<Line>()
        };
        assert_eq!(budget.waiters, line(&|_| true));
        assert_eq!(budget.under_cap, line(&|index| budget.holders[index].at_large < budget.config.holder_max));
        assert_eq!(budget.under_share, line(&|index| budget.holders[index].share < budget.share(index)));
        // Nothing is left that a waiter could have.
        assert!(budget.at_large_free == 0 || budget.under_cap.is_empty());
        assert!(budget.shared_free == 0 || budget.under_share.is_empty());
        assert!(budget.aside_free == 0 || budget.waiters.is_empty());
    }
}

impl Peer {
    fn finish(&mut self) {
        if self.wanted == 0 {
            self.finished += std::mem::take(&mut self.partial);
        }
    }
}

proptest! {
    #[test]
    fn every_byte_is_in_one_place_and_no_waiter_is_denied_what_is_free(
        config in config(), calls in prop::collection::vec(call(), 0..200),
    ) {
        let mut callers = Callers::new(config, false);
        calls.into_iter().for_each(|call| callers.call(call));
        while !callers.peers.is_empty() {
            callers.call(Call::Leave(0));
        }
        while !callers.shared.is_empty() {
            callers.call(Call::ShareDone);
        }
        prop_assert_eq!((callers.budget.used(), callers.budget.waiting()), (0, 0));
        prop_assert_eq!(callers.budget.total_weight, 0);
    }

    /// With one message a holder, only holders that do not wait have something to give back; with several, the
    /// finished ones of those that wait come back too. Either is enough.
    #[test]
    fn the_oldest_waiter_is_served_once_finished_messages_are_given_back(
        config in config(), calls in prop::collection::vec(call(), 0..200), one_message: bool,
    ) {
        let mut callers = Callers::new(config, one_message);
        calls.into_iter().for_each(|call| callers.call(call));
        while let Some(oldest) = callers.budget.waiters.first().copied() {
            callers.finish_all();
            prop_assert!(!callers.budget.waiters.contains(&oldest), "{:?} waits for ever", callers.budget);
        }
    }
}
