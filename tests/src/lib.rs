//! The proof: a simulator for the mesh core, and the words end-to-end tests are told in.

pub mod bench;
pub mod failing_disk;
pub mod flood;
pub mod fuzz;
pub mod heap;
pub mod hostile;
pub mod idle;
pub mod lease;
pub mod lossy;
pub mod model;
pub mod outage;
pub mod own_hosts;
pub mod packets;
pub mod pair;
pub mod ring;
pub mod ring_cost;
pub mod scrape;
pub mod sim;
pub mod site;
pub mod story;
pub mod stream;
pub mod throughput;
