//! The ring's node in a small world in memory: stories, and random faults by seed.

mod random;
mod stories;
mod world;
