//! Journeys of the vendor and the operator through both programs, on real servers.

mod choices;
mod faults;
mod microk8s;
mod midway;
mod network;
mod product;
mod refusals;
mod releases;
mod unchanged;
