//! Journeys of the vendor and the operator through both programs, on real servers.

mod choices;
mod crashes;
mod crds;
mod data;
mod faults;
mod hardware;
mod manifests;
mod microk8s;
mod midway;
mod network;
mod paper;
mod plans;
mod product;
mod refusals;
mod releases;
mod unchanged;
mod upkeep;
mod values;
