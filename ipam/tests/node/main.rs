//! The ring's node in a small world in memory: stories, and random faults by seed.

mod dice;
mod random;
mod record;
mod stories;
mod stories_lives;
mod stories_pools;
mod stories_reform;
mod stories_return;
mod stories_witness;
mod world;
