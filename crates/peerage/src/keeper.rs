//! The task beside a node: it keeps the data directory for as long as the node runs, and says when it has
//! stopped.

use std::time::Duration;

use peerage_nodedb::NodeDb;
use peerage_server::mailbox::{Inlet, RecvError};
use tokio::sync::watch;
use tokio::time::{MissedTickBehavior, interval};

use crate::builder::StartError;
use crate::data_dir::DataDir;
use crate::node::Node;
use crate::{Event, Node as Kept};

/// How often the record's sequence is looked at besides: a node signs its record anew once a day.
const LOOK: Duration = Duration::from_secs(60);

/// Keeps a node's data directory locked until the node has stopped.
pub(crate) async fn keep(node: Node, data_dir: Option<DataDir>, db: NodeDb) -> Result<Kept, StartError> {
    // Its end, and changes of its record, are of interest.
    let events = node.server().events(1).await?;
    let stopped = node.stopped_sender();
    tokio::spawn(run(node.clone(), events, data_dir, db, stopped));
    Ok(node)
}

async fn run(
    node: Node,
    mut events: Inlet<Event>,
    mut data_dir: Option<DataDir>,
    db: NodeDb,
    stopped: watch::Sender<bool>,
) {
    let mut look = interval(LOOK);
    look.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut known = None;
    loop {
        tokio::select! {
            biased;
            event = events.recv() => match event {
                Err(RecvError::Closed) => break,
                // It was among those that were lost, or it was not.
                Ok(Event::LocalChanged { .. }) | Err(RecvError::Lagged(_)) => look.reset_immediately(),
                Ok(_) => {}
            },
            _ = look.tick(), if data_dir.is_some() => {
                let Ok(record) = node.record().await else { continue };
                if let Some(data_dir) = &mut data_dir && known != Some(record.seq()) {
                    match data_dir.remember_record_seq(record.seq()) {
                        Ok(()) => known = Some(record.seq()),
                        Err(error) => tracing::warn!(%error, "the record's sequence is not remembered"),
                    }
                }
            }
        }
    }
    if let Some(data_dir) = data_dir {
        // The next one to lock the directory must find the database closed.
        match tokio::task::spawn_blocking(move || db.close()).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::warn!(%error, "not all that the node remembers is on disk"),
            Err(error) => tracing::warn!(%error, "the node database was not closed"),
        }
        data_dir.unlock();
    }
    stopped.send_replace(true);
}
