//! The addresses of one peer, and what is known of each.

use alloc::vec::Vec;
use core::net::SocketAddr;

use super::path::PathState;

/// Paths by address, in order. Of most peers of a large mesh one address is known or two, and a list of just
/// those takes a tenth of what a tree does.
#[derive(Debug, Default)]
pub(crate) struct Ways(Vec<(SocketAddr, PathState)>);

impl Ways {
    fn place(&self, address: &SocketAddr) -> Result<usize, usize> {
        self.0.binary_search_by(|(known, _)| known.cmp(address))
    }

    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(crate) fn contains_key(&self, address: &SocketAddr) -> bool {
        self.place(address).is_ok()
    }

    pub(crate) fn get(&self, address: &SocketAddr) -> Option<&PathState> {
        let at = self.place(address).ok()?;
        self.0.get(at).map(|(_, path)| path)
    }

    pub(crate) fn get_mut(&mut self, address: &SocketAddr) -> Option<&mut PathState> {
        let at = self.place(address).ok()?;
        self.0.get_mut(at).map(|(_, path)| path)
    }

    pub(crate) fn insert(&mut self, address: SocketAddr, path: PathState) {
        match self.place(&address) {
            Ok(at) => {
                if let Some(known) = self.0.get_mut(at) {
                    *known = (address, path);
                }
            }
            Err(at) => {
                self.0.reserve_exact(1);
                self.0.insert(at, (address, path));
            }
        }
    }

    pub(crate) fn remove(&mut self, address: &SocketAddr) -> Option<PathState> {
        let at = self.place(address).ok()?;
        Some(self.0.remove(at).1)
    }

    pub(crate) fn retain(&mut self, mut keep: impl FnMut(&SocketAddr, &mut PathState) -> bool) {
        self.0.retain_mut(|(address, path)| keep(address, path));
    }

    pub(crate) fn clear(&mut self) {
        self.0 = Vec::new();
    }

    pub(crate) fn keys(&self) -> impl Iterator<Item = &SocketAddr> {
        self.0.iter().map(|(address, _)| address)
    }

    pub(crate) fn values(&self) -> impl Iterator<Item = &PathState> {
        self.0.iter().map(|(_, path)| path)
    }

    pub(crate) fn values_mut(&mut self) -> impl Iterator<Item = &mut PathState> {
        self.0.iter_mut().map(|(_, path)| path)
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (&SocketAddr, &PathState)> {
        self.0.iter().map(|(address, path)| (address, path))
    }

    pub(crate) fn iter_mut(&mut self) -> impl Iterator<Item = (&SocketAddr, &mut PathState)> {
        self.0.iter_mut().map(|(address, path)| (&*address, path))
    }
}
