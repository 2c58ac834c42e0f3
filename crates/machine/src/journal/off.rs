//! Journals of a build without them: the same calls, which do nothing.

use std::fmt::{self, Debug};
use std::marker::PhantomData;

use super::Genesis;
use crate::{Machine, Time, TimerOp};

/// The journals of one node; none, in a build without the feature `journal`.
#[derive(Clone, Debug, Default)]
pub struct Journals(());

impl Journals {
    /// Keeps nothing.
    pub const fn off() -> Journals {
        Journals(())
    }

    /// Begins the journal of a machine's life.
    pub fn begin<G>(
        &self,
        _now: Time,
        _genesis: impl FnOnce() -> G,
        _encode_genesis: fn(&G) -> Vec<u8>,
        _encode: fn(&<G::Machine as Machine>::In) -> Vec<u8>,
    ) -> Recorder<G::Machine>
    where
        G: Genesis,
        <G::Machine as Machine>::Out: Debug,
    {
        Recorder::off()
    }

    /// Notes that the present life of this machine ended in a crash.
    pub fn crashed(&self, _machine: &str) {}
}

/// Keeps what happens to one machine; nothing, in a build without the feature `journal`.
pub struct Recorder<M>(PhantomData<fn(M)>);

impl<M> Debug for Recorder<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Recorder(off)")
    }
}

impl<M: Machine> Recorder<M> {
    /// Keeps nothing.
    pub const fn off() -> Self {
        Recorder(PhantomData)
    }

    #[inline(always)]
    pub(crate) fn begin(&mut self, _now: Time, _input: Option<&M::In>, _outs: &[M::Out]) {}

    #[inline(always)]
    pub(crate) fn timers(&mut self, _ops: &[TimerOp<M::Timer>]) {}

    #[inline(always)]
    pub(crate) fn end(&mut self, _outs: &[M::Out]) {}

    #[inline(always)]
    pub(crate) fn passed_by(&mut self) {}
}
