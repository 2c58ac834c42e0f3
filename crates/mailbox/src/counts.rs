//! Counts that can be read back.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use metrics::atomics::AtomicU64;
use metrics::{Counter, Gauge, Histogram, Key, KeyName, Metadata, Recorder, SharedString, Unit};

/// A recorder whose counters and gauges can be read, by name and labels: for tests, and for programs without an
/// exporter. Distributions are not kept. Clones are the same counts.
///
/// ```
/// use std::sync::Arc;
/// use peerage_mailbox::{Counts, Meter};
///
/// let counts = Counts::default();
/// Meter::new(Arc::new(counts.clone())).counter("dropped_total", &[("reason", "late")]).increment(2);
/// assert_eq!(counts.counter("dropped_total{reason=late}"), 2);
/// ```
#[derive(Clone, Debug, Default)]
pub struct Counts(Arc<Mutex<Values>>);

#[derive(Debug, Default)]
struct Values {
    counters: BTreeMap<String, Arc<AtomicU64>>,
    gauges: BTreeMap<String, Arc<AtomicU64>>,
}

fn name(key: &Key) -> String {
    let mut labels: Vec<String> = key.labels().map(|label| format!("{}={}", label.key(), label.value())).collect();
    labels.sort();
    format!("{}{{{}}}", key.name(), labels.join(","))
}

impl Counts {
    fn lock(&self) -> MutexGuard<'_, Values> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A counter by its full name, like `peerage_restarts_total{actor=gossip}`, labels in order; zero if it never
    /// counted.
    pub fn counter(&self, name: &str) -> u64 {
        self.lock().counters.get(name).map_or(0, |value| value.load(Ordering::Acquire))
    }

    /// A gauge by its full name; nothing if it was never set.
    pub fn gauge(&self, name: &str) -> Option<f64> {
        let values = self.lock();
        Some(f64::from_bits(values.gauges.get(name)?.load(Ordering::Acquire)))
    }

    /// All counters whose full name begins so, those at zero left out.
    pub fn counters(&self, start: &str) -> BTreeMap<String, u64> {
        let values = self.lock();
        let counted = values.counters.iter().filter(|(name, _)| name.starts_with(start));
        let read = counted.map(|(name, value)| (name.clone(), value.load(Ordering::Acquire)));
        read.filter(|(_, value)| *value > 0).collect()
    }
}

impl Recorder for Counts {
    fn describe_counter(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
    fn describe_gauge(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
    fn describe_histogram(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}

    fn register_counter(&self, key: &Key, _: &Metadata<'_>) -> Counter {
        Counter::from_arc(self.lock().counters.entry(name(key)).or_default().clone())
    }

    fn register_gauge(&self, key: &Key, _: &Metadata<'_>) -> Gauge {
        Gauge::from_arc(self.lock().gauges.entry(name(key)).or_default().clone())
    }

    fn register_histogram(&self, _: &Key, _: &Metadata<'_>) -> Histogram {
        Histogram::noop()
    }
}
