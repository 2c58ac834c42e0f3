//! Metrics through a recorder that is passed along, so that many nodes in one process do not mix.

use std::fmt;
use std::sync::Arc;

use metrics::{Counter, Gauge, Histogram, Key, KeyName, Label, Level, Metadata, NoopRecorder, Recorder};

/// Makes the counters, gauges and histograms of one node. Cheap to clone.
///
/// Label values come from closed enums and from this node's own configuration; a peer can choose none.
#[derive(Clone)]
pub struct Meter(Arc<dyn Recorder + Send + Sync>);

static METADATA: Metadata<'static> = Metadata::new(module_path!(), Level::INFO, Some(module_path!()));

impl Meter {
    /// Records with `recorder`.
    pub fn new(recorder: Arc<dyn Recorder + Send + Sync>) -> Meter {
        Meter(recorder)
    }

    /// Records nothing.
    pub fn none() -> Meter {
        Meter(Arc::new(NoopRecorder))
    }

    /// A count that only rises. Names end in `_total`.
    pub fn counter(&self, name: &'static str, labels: &[(&'static str, &str)]) -> Counter {
        self.0.register_counter(&key(name, labels), &METADATA)
    }

    /// A value that rises and falls.
    pub fn gauge(&self, name: &'static str, labels: &[(&'static str, &str)]) -> Gauge {
        self.0.register_gauge(&key(name, labels), &METADATA)
    }

    /// A distribution. Seconds or bytes, as the name says.
    pub fn histogram(&self, name: &'static str, labels: &[(&'static str, &str)]) -> Histogram {
        self.0.register_histogram(&key(name, labels), &METADATA)
    }

    /// Says what the metrics of this name mean, for who reads them.
    pub fn describe(&self, name: &'static str, help: &'static str) {
        // Recorders key descriptions by name; the kind only picks a table, and counters' serves all.
        self.0.describe_counter(KeyName::from_const_str(name), None, help.into());
    }
}

fn key(name: &'static str, labels: &[(&'static str, &str)]) -> Key {
    Key::from_parts(name, labels.iter().map(|(name, value)| Label::new(*name, (*value).to_owned())).collect::<Vec<_>>())
}

impl fmt::Debug for Meter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Meter")
    }
}
