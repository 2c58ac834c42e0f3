//! The shell of the mapping: a task that speaks with the gateway, and nobody waits for.

use std::future::Future;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use peerage_machine::Driver;
use peerage_mailbox::{Clock, Port};
use tokio::sync::Notify;
use tokio::task::JoinHandle;
use tokio::time::timeout;

use super::mapping::{Mapping, MappingIn, MappingMachine, MappingOut, Protocol};

/// No question to a gateway takes longer: UPnP's search and its two documents may take ten seconds each.
const PATIENCE: Duration = Duration::from_secs(30);

/// Why a gateway did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum GatewayError {
    /// This computer has no default gateway, or it is not known.
    #[error("no default gateway is known")]
    None,
    /// Nothing answered that maps ports.
    #[error("the gateway {0} speaks none of the protocols that map ports")]
    Silent(std::net::IpAddr),
    /// It does not want to.
    #[error("the gateway refuses: {0}")]
    Refused(String),
    /// It did not answer in time.
    #[error("the gateway does not answer")]
    Timeout,
}

/// A port that a gateway lets in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Granted {
    /// Its own address and port.
    pub external: SocketAddr,
    /// For how long; zero for ever.
    pub lease: Duration,
}

/// What is asked of a gateway: the arguments of [`MappingOut::Map`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MapRequest {
    /// For what.
    pub protocol: Protocol,
    /// The node's port.
    pub internal: u16,
    /// The gateway's port that is wished for.
    pub external: u16,
    /// Whether another one will do.
    pub any: bool,
    /// For how long.
    pub lease: Duration,
}

/// The answer of a gateway, once it comes.
pub type Answer<'a, T> = Pin<Box<dyn Future<Output = Result<T, GatewayError>> + Send + 'a>>;

/// Somebody who can let others in. Asked one thing at a time.
pub trait Gateway: Send + 'static {
    /// Looks for it; afterwards it can be asked.
    fn find(&mut self) -> Answer<'_, ()>;

    /// Asks for a port, or for the same one again.
    fn map(&mut self, request: MapRequest) -> Answer<'_, Granted>;

    /// Gives a port back.
    fn unmap(&mut self, protocol: Protocol, internal: u16, external: u16) -> Answer<'_, ()>;
}

/// A running mapping. It ends, without giving anything back, when it is dropped.
#[derive(Debug)]
pub struct Mapper {
    stop: Arc<Notify>,
    task: Option<JoinHandle<()>>,
}

impl Mapper {
    /// Begins to map ports: a task of its own asks `gateway` what `machine` wants asked, and tells what is mapped.
    pub fn spawn(
        gateway: impl Gateway,
        machine: MappingMachine,
        clock: Clock,
        mapped: Port<Option<Mapping>>,
    ) -> Mapper {
        let stop = Arc::new(Notify::new());
        let shell = Shell { gateway, driver: Driver::new(machine), clock, mapped };
        let task = tokio::spawn(shell.run(stop.clone()));
        Mapper { stop, task: Some(task) }
    }

    /// Gives everything back; waits for so long at most.
    pub async fn stop(mut self, limit: Duration) {
        self.stop.notify_one();
        if let Some(task) = &mut self.task
            && timeout(limit, task).await.is_err()
        {
            tracing::debug!("the gateway was not told in time that its ports are not needed any more");
        }
    }
}

impl Drop for Mapper {
    fn drop(&mut self) {
        if let Some(task) = self.task.take() {
            task.abort();
        }
    }
}

struct Shell<G> {
    gateway: G,
    driver: Driver<MappingMachine>,
    clock: Clock,
    mapped: Port<Option<Mapping>>,
}

impl<G: Gateway> Shell<G> {
    async fn run(mut self, stop: Arc<Notify>) {
        self.driver.handle(self.clock.now(), MappingIn::Start);
        loop {
            let stopped = {
                let stopped = stop.notified();
                tokio::pin!(stopped);
                tokio::select! {
                    biased;
                    () = &mut stopped => true,
                    () = self.perform() => {
                        let deadline = self.driver.next_deadline();
                        tokio::select! {
                            biased;
                            () = stopped => true,
                            () = self.clock.sleep_until(deadline) => false,
                        }
                    }
                }
            };
            if stopped {
                break;
            }
            self.driver.expire_due(self.clock.now());
        }
        self.driver.handle(self.clock.now(), MappingIn::Stop);
        self.perform().await;
    }

    /// Asks the gateway one thing after the other until there is nothing left to ask.
    async fn perform(&mut self) {
        loop {
            let outs: Vec<MappingOut> = self.driver.drain().collect();
            if outs.is_empty() {
                return;
            }
            for out in outs {
                if let Some(input) = self.ask(out).await {
                    self.driver.handle(self.clock.now(), input);
                }
            }
        }
    }

    async fn ask(&mut self, out: MappingOut) -> Option<MappingIn> {
        match out {
            MappingOut::Mapped(mapping) => {
                self.mapped.send(mapping);
                None
            }
            MappingOut::Find => match in_time(self.gateway.find()).await {
                Ok(()) => Some(MappingIn::Found),
                Err(error) => {
                    tracing::debug!(%error, "no gateway maps ports");
                    Some(MappingIn::NotFound)
                }
            },
            MappingOut::Map { protocol, internal, external, any, lease } => {
                let request = MapRequest { protocol, internal, external, any, lease };
                match in_time(self.gateway.map(request)).await {
                    Ok(Granted { external, lease }) => {
                        tracing::debug!(protocol = protocol.label(), internal, %external, ?lease, "port mapped");
                        Some(MappingIn::Granted { protocol, external, lease })
                    }
                    Err(error) => {
                        tracing::debug!(protocol = protocol.label(), internal, %error, "port not mapped");
                        Some(MappingIn::Refused(protocol))
                    }
                }
            }
            MappingOut::Unmap { protocol, internal, external } => {
                if let Err(error) = in_time(self.gateway.unmap(protocol, internal, external)).await {
                    tracing::debug!(protocol = protocol.label(), external, %error, "port not given back");
                }
                None
            }
        }
    }
}

async fn in_time<T>(answer: Answer<'_, T>) -> Result<T, GatewayError> {
    timeout(PATIENCE, answer).await.unwrap_or(Err(GatewayError::Timeout))
}

#[cfg(test)]
#[path = "gateway_tests.rs"]
mod tests;
