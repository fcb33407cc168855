//! Every decoder of outside bytes as one function, for cargo-fuzz (`tests/fuzz`) and for the
//! bounded run on stable (`tests/tests/fuzz.rs`) alike.

mod ipam;
mod mutate;
mod wire;

use std::path::{Path, PathBuf};

pub use mutate::Mutator;

/// One decoder, or a chain of them, and what must hold for every input.
#[derive(Debug, Clone, Copy)]
pub struct Target {
    /// Its name: the cargo-fuzz target's and the corpus folder's.
    pub name: &'static str,
    /// Takes one input; panics if something that must hold does not.
    pub run: fn(&[u8]),
}

/// All targets.
pub fn targets() -> impl Iterator<Item = Target> {
    let all = [
        wire::TARGETS,
        ipam::TARGETS,
        rmesh_ipam::fuzz::TARGETS,
        rmesh_gossip::fuzz::TARGETS,
        rmesh_router::fuzz::TARGETS,
        rmesh::fuzz::TARGETS,
    ];
    all.into_iter()
        .flatten()
        .map(|&(name, run)| Target { name, run })
}

/// Runs one target by name.
///
/// # Panics
/// If there is no such target, or its decoder is at fault.
pub fn run(name: &str, bytes: &[u8]) {
    let target = targets().find(|target| target.name == name);
    let target = target.unwrap_or_else(|| panic!("no fuzz target {name}"));
    (target.run)(bytes);
}

/// Where cargo-fuzz has its things.
pub fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz")
}

/// The inputs that are made for a target, by file name.
pub fn made(name: &str) -> Vec<(String, Vec<u8>)> {
    rmesh_ipam::fuzz::seeds(name)
}

/// The kept inputs of a target, by file name.
pub fn corpus(name: &str) -> Vec<Vec<u8>> {
    let Ok(entries) = std::fs::read_dir(folder().join("corpus").join(name)) else {
        return Vec::new();
    };
    let mut paths: Vec<PathBuf> = entries
        .filter_map(|entry| Some(entry.ok()?.path()))
        .collect();
    paths.sort();
    paths
        .iter()
        .filter_map(|path| std::fs::read(path).ok())
        .collect()
}
