//! Whole nodes, over the in-memory network and over sockets: how connections become sessions, and what the root does with them.

mod address;
mod dialling;
mod hostile;
mod listening;
mod members;
mod net;
mod run_loop;
mod support;
mod watching;
