//! Who takes and gives nothing: free riders, and those who turn into some.

use peerage_gossip::wire::{self, Item};
use peerage_gossip::{GossipMachine, Out, Outgoing};
use peerage_machine::Time;

use super::hostile::Mind;

/// Largest payload that an attacker reads.
const LARGEST: usize = wire::MAX_PAYLOAD;

/// Sends no message of others, announces none and serves none, from a moment on. What it wants for itself it asks for.
pub(super) struct FreeRider {
    pub(super) from: Time,
}

/// Whether a session message has something in it for others: messages, parts of them, or the promise of some.
pub(super) fn gives(outgoing: &Outgoing) -> bool {
    let mut items = wire::items(outgoing.bytes.clone(), LARGEST);
    items.any(|item| matches!(item, Ok(Item::Message(_) | Item::Shard(_) | Item::IHave { .. })))
}

impl Mind<GossipMachine> for FreeRider {
    fn says(&mut self, now: Time, out: Out, outs: &mut Vec<Out>) {
        match out {
            Out::Push(outgoing) if now >= self.from && gives(&outgoing) => {}
            out => outs.push(out),
        }
    }
}
