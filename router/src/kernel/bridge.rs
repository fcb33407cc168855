//! The bridge that joins this host's containers and the TAP.
use super::KernelError;

/// The bridge of this host.
#[derive(Debug, Clone)]
pub struct Bridge {
    name: String,
    index: u32,
}

impl Bridge {
    /// Makes the bridge, or adopts it if it exists, in the caller's network namespace.
    pub fn ensure(name: &str, mtu_bytes: u16) -> Result<Bridge, KernelError> {
        let _ = (name, mtu_bytes);
        unimplemented!()
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its interface index.
    pub fn index(&self) -> u32 {
        self.index
    }

    /// Makes an interface a port of the bridge and sets it up.
    pub fn add_port(&self, interface: &str, mtu_bytes: u16) -> Result<(), KernelError> {
        let _ = (interface, mtu_bytes);
        unimplemented!()
    }

    /// Names of its ports.
    pub fn ports(&self) -> Result<Vec<String>, KernelError> {
        unimplemented!()
    }

    /// Removes a bridge; success too if there is none.
    pub fn remove(name: &str) -> Result<(), KernelError> {
        let _ = name;
        unimplemented!()
    }
}
