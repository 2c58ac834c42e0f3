//! What the root tells the listener, and keeps for its next life.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;

use peerage_wire::Admission;

use super::{Door, DoorError};
use crate::services::Services;

impl Services {
    /// Opens a door on the node's port.
    pub(crate) fn open_door(&mut self, door: Door) -> Result<(), DoorError> {
        self.blueprints.listener.doors.open(door)?;
        self.tell_doors();
        Ok(())
    }

    /// Closes a door; whom it has taken stays.
    pub(crate) fn close_door(&mut self, name: &str) {
        self.blueprints.listener.doors.close(name);
        self.tell_doors();
    }

    fn tell_doors(&self) {
        if let Some(listener) = &self.listener {
            listener.doors(self.blueprints.listener.doors.clone());
        }
    }

    /// Whose connections are accepted from now on.
    pub(crate) fn admit(&mut self, admission: Arc<Admission>) {
        self.blueprints.listener.admission = admission.clone();
        if let Some(listener) = &self.listener {
            listener.admission(admission);
        }
    }

    /// For whom slots are reserved from now on.
    pub(crate) fn privilege(&mut self, addresses: BTreeSet<IpAddr>) {
        self.blueprints.listener.privileged = addresses.clone();
        if let Some(listener) = &self.listener {
            listener.privileged(addresses);
        }
    }
}
