//! What all peers say of themselves, and what follows from it: records, their repair, routes,
//! broadcast trees, and who has which MAC.

pub(crate) mod control;
pub(crate) mod graph;
pub(crate) mod macs;
pub(crate) mod overlay;
pub(crate) mod record;
pub(crate) mod routes;
pub(crate) mod store;

pub(crate) use graph::Graph;
pub(crate) use routes::Routes;
pub(crate) use store::Store;

#[cfg(test)]
mod tests;
