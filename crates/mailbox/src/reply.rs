//! Questions to an actor: one answer, or a reason why there is none, before a deadline.

use std::fmt;
use std::time::Duration;

use tokio::sync::oneshot;

/// Where the answer to a question goes. Dropping it is an answer too: [`AskError::Dropped`].
pub struct Reply<T>(oneshot::Sender<T>);

impl<T> Reply<T> {
    /// Answers. Nothing happens if the asker has given up.
    pub fn send(self, answer: T) {
        drop(self.0.send(answer));
    }

    /// Whether the asker has given up, so that the work can be saved.
    pub fn is_abandoned(&self) -> bool {
        self.0.is_closed()
    }
}

impl<T> fmt::Debug for Reply<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Reply")
    }
}

/// Why a question got no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AskError {
    /// The actor is gone, restarted meanwhile, or had nothing to say.
    #[error("the question was dropped")]
    Dropped,
    /// The deadline passed.
    #[error("no answer in time")]
    TimedOut,
}

/// Asks: `send` gets the [`Reply`] and passes it on, and the answer is awaited for at most `deadline`.
/// Never inside an actor's handler, where waiting stops the actor.
///
/// # Errors
/// [`AskError`].
pub async fn ask<T>(deadline: Duration, send: impl FnOnce(Reply<T>)) -> Result<T, AskError> {
    let (reply, answer) = oneshot::channel();
    send(Reply(reply));
    match tokio::time::timeout(deadline, answer).await {
        Ok(Ok(answer)) => Ok(answer),
        Ok(Err(_)) => Err(AskError::Dropped),
        Err(_) => Err(AskError::TimedOut),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_question_is_answered_dropped_or_times_out() {
        let second = Duration::from_secs(1);
        assert_eq!(ask(second, |reply| reply.send(7)).await, Ok(7));
        assert_eq!(ask::<u8>(second, drop).await, Err(AskError::Dropped));
        let mut kept = None;
        assert_eq!(ask::<u8>(second, |reply| kept = Some(reply)).await, Err(AskError::TimedOut));
        assert!(kept.is_some_and(|reply| reply.is_abandoned()));
    }
}
