//! Journeys of the vendor and the operator through both programs, on real servers.

mod faults;
mod lab;
mod microk8s;
mod network;
mod product;
