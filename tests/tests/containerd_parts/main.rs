//! The containerd target, part by part: on containerds that `cargo xtask test` has started, each test on
//! every version.

mod common;
mod content;
mod faults;
mod load;
mod names;
mod site;
