//! Helm, ledger and readiness, part by part, on a real cluster that `cargo xtask test` has started.

mod common;
mod helm;
mod kinds;
mod ledger;
mod lock;
mod objects;
