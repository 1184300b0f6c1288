//! The containerd target, part by part: on containerds that `cargo xtask test` has started, each test on
//! every version.

mod common;
mod faults;
mod load;
