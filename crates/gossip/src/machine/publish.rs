//! Publishing: an id, a signature where the topic wants one, and then as any other message.

use bytes::Bytes;
use peerage_machine::Time;
use peerage_wire::Signature;

use super::cache::Slots;
use super::contract::{Count, Out, PublishError, Published};
use super::drops::DropReason;
use super::{Fx, GossipMachine, dropped};
use crate::coded::Publication;
use crate::message::{Claim, MessageId, Origin, Policy, Topic};
use crate::wire::Parcel;

/// Publications that wait for their signature. The shell signs at once, so this is never reached by one
/// that works.
const MAX_DRAFTS: usize = 1024;

/// A publication that waits for its signature.
#[derive(Debug)]
pub(super) struct Draft {
    topic: Topic,
    payload: Bytes,
    sequence: u64,
    claim: Claim,
}

impl GossipMachine {
    #[allow(clippy::too_many_arguments, reason = "the fields of one input")]
    pub(super) fn publish(
        &mut self,
        now: Time,
        token: u64,
        topic: Topic,
        policy: Policy,
        payload: Bytes,
        pressed: bool,
        fx: &mut Fx,
    ) -> Result<(), PublishError> {
        let limit = self.max_payload(&topic);
        if payload.len() > limit {
            return Err(PublishError::TooLarge { bytes: payload.len(), limit });
        }
        if let Some(other) = self.subscriptions.get(&topic).filter(|other| **other != policy) {
            return Err(PublishError::Policy(*other));
        }
        if pressed || self.drafts.len() >= MAX_DRAFTS {
            dropped(DropReason::Busy, fx);
            return Err(PublishError::Busy { retry_after: self.config.retry_after });
        }
        match policy {
            Policy::Signed => {
                // A clock that was set back does not make sequences fall.
                let clock = u64::try_from(now.unix().as_nanos()).unwrap_or(u64::MAX);
                let sequence = self.next_of_durable(&topic, clock);
                self.last_sequence = self.last_sequence.max(sequence);
                let id = MessageId::signed(&topic, &self.node, sequence, &payload);
                let claim = Claim { id, issued: now.unix_millis() };
                self.drafts.insert(token, Draft { topic, payload, sequence, claim });
                fx.emit(Out::Sign { token, claim, sequence });
            }
            Policy::Anonymous => {
                let parcel = Parcel::new(topic, None, &payload);
                let id = parcel.id();
                let peers = if self.seen.contains(&id) {
                    fx.emit(Out::Count(Count::Duplicate));
                    0
                } else {
                    self.publish_parcel(now, id, parcel, fx)
                };
                fx.emit(Out::Published { token, result: Ok(Published { id, peers }) });
            }
        }
        Ok(())
    }

    pub(super) fn signed(&mut self, now: Time, token: u64, signature: Signature, fx: &mut Fx) {
        let Some(Draft { topic, payload, sequence, claim }) = self.drafts.remove(&token) else {
            return self.coded_signed(now, token, signature, fx);
        };
        let origin = Origin { publisher: self.node, sequence, issued: claim.issued, signature };
        if let Some(shape) = self.coded_shape(&topic, &payload) {
            let publication = Publication { token, topic, origin, payload, id: claim.id };
            return self.coded.encode(publication, shape, fx);
        }
        let parcel = Parcel::new(topic, Some(origin), &payload);
        let peers = self.publish_parcel(now, claim.id, parcel, fx);
        fx.emit(Out::Published { token, result: Ok(Published { id: claim.id, peers }) });
    }

    pub(super) fn publish_parcel(&mut self, now: Time, id: MessageId, parcel: Parcel, fx: &mut Fx) -> usize {
        fx.emit(Out::Count(Count::Published));
        self.accept(now, id, parcel, None, None, Slots::default(), fx)
    }
}
