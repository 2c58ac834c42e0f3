//! Measures sessions between two processes, beside references taken in the same run, a node under a flood and attacked
//! by its peers, discovery, gossip, and the world of `peerage-sim`. Started by `cargo xtask bench`.

mod attack;
mod curve;
mod discovery;
mod flood;
mod gossip;
mod job;
mod link;
mod machine;
mod names;
mod node;
mod pairs;
mod peer;
mod pipe;
mod process;
mod rawtcp;
mod report;
mod requests;
mod role;
mod session;
mod sessions;
mod stats;
mod streams;
mod world;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Why a run is broken: there is nothing to do about it but to say so.
type Failure = Box<dyn std::error::Error + Send + Sync>;

#[derive(Parser)]
#[command(name = "peerage-bench", about = "Measures Peerage between two processes")]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// One session: bulk, small messages, round trips, priority, long links, set-up, memory, load.
    Session(session::Args),
    /// Requests and streams between two nodes: round trips, and as much as they can.
    Router(session::RouterArgs),
    /// A flood of connections against a node, while honest peers gossip through it.
    Flood(flood::Args),
    /// Fifty hostile peers against a node, while honest peers ask it and gossip through it.
    Attack(attack::Args),
    /// What a session costs a whole node that does nothing with it.
    NodeMem(flood::idle::Args),
    /// Discovery's table, packets and gate, operation by operation.
    Discovery(discovery::Args),
    /// A flood of datagrams against discovery, while honest peers ping it.
    DiscoveryFlood(discovery::FloodArgs),
    /// Gossip among twenty nodes and through one, beside a flood over plain TCP.
    Gossip(gossip::Args),
    /// The simulated world: a plain flood beside a bare heap.
    World(world::Args),
    /// One of the processes of an attack; this program starts it itself.
    #[command(hide = true)]
    AttackPart { part: String },
    /// One of the processes of a flood; this program starts it itself.
    #[command(hide = true)]
    FloodPart { part: String },
    /// One of the processes of gossip; this program starts it itself.
    #[command(hide = true)]
    GossipPart { part: String },
    /// One of the processes that do a job; this program starts it itself.
    #[command(hide = true)]
    Role { side: role::Side, job: String, port: u16 },
}

/// Does what the command line says.
pub fn main() -> ExitCode {
    let outcome = match Cli::parse().command {
        Command::Session(args) => session::run(&args),
        Command::Router(args) => session::run_router(&args),
        Command::Flood(args) => flood::run(&args),
        Command::Attack(args) => attack::run(&args),
        Command::NodeMem(args) => flood::idle::run(&args),
        Command::Discovery(args) => discovery::run(&args),
        Command::DiscoveryFlood(args) => discovery::run_flood(&args),
        Command::Gossip(args) => gossip::run(&args),
        Command::World(args) => world::run(&args),
        Command::AttackPart { part } => attack::part(&part),
        Command::FloodPart { part } => flood::part(&part),
        Command::GossipPart { part } => gossip::part(&part),
        Command::Role { side, job, port } => role::main(side, &job, port),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}
