//! Heartbeats come in by VXLAN only: what a container sends to the heartbeat MAC of its own host is
//! dropped where the bridge would hand it to the host. What a heartbeat says is sealed, so that a
//! kernel without nftables for bridges loses nothing but the time to look at forgeries.

use rmesh_wire::Mac;

use super::FastOptions;
use super::devices::{FAMILIES, name};
use super::table::table_name;
use crate::kernel::KernelError;
use crate::kernel::nftables::encode::{Base, Header, Is, Meta, Rule, Table, Verdict, hook};
use crate::kernel::nftables::shape::Shape;
use crate::kernel::nftables::{Family, Nftables};

const CHAIN: &str = "heartbeats";

/// The table of one bridge, of family bridge.
pub(super) struct Inlet {
    bridge: String,
    own: Mac,
    nftables: Nftables,
    /// `None` if the kernel does not do it.
    shape: Option<Shape>,
}

impl Inlet {
    pub(super) fn ensure(options: &FastOptions, own: Mac) -> Result<Inlet, KernelError> {
        let mut inlet = Inlet {
            bridge: options.bridge.name().to_owned(),
            own,
            nftables: Nftables::open()?,
            shape: None,
        };
        if let Err(error) = inlet.replace() {
            tracing::warn!("{error}; containers can send what looks like heartbeats");
        }
        Ok(inlet)
    }

    pub(super) fn verify(&mut self, words: &mut Vec<String>) -> Result<(), KernelError> {
        let Some(wanted) = &self.shape else {
            return Ok(());
        };
        let shape = self.nftables.shape(&table(&self.bridge))?;
        if shape == *wanted {
            return Ok(());
        }
        let fault = shape.fault();
        words.push(format!(
            "nftables table {} for heartbeats {fault}",
            table(&self.bridge).name
        ));
        self.replace()
    }

    fn replace(&mut self) -> Result<(), KernelError> {
        let table = table(&self.bridge);
        let base = Base {
            hook: hook::INPUT,
            priority: 0,
            device: None,
            policy: Verdict::Accept,
        };
        let to_own = Rule::default().bytes(Header::Link, 0, Is::Equal, &self.own.0);
        let from_others = FAMILIES.into_iter().fold(to_own, |rule, family| {
            rule.interface(Meta::InterfaceIn, Is::Other, &name(&self.bridge, family))
        });
        let changes = [
            table.create(),
            table.delete(),
            table.create(),
            table.chain(CHAIN, Some(base)),
            table.rule(CHAIN, &from_others.end(Verdict::Drop)),
        ];
        let doing = "make the nftables table for heartbeats";
        self.nftables.commit(doing, &changes)?;
        self.shape = Some(self.nftables.shape(&table)?);
        Ok(())
    }
}

/// Removes the table of a bridge; success too if there is none, or if the kernel has no tables.
pub(super) fn remove(bridge: &str) -> Result<(), KernelError> {
    match Nftables::available()? {
        Some(mut nftables) => {
            let doing = "remove the nftables table for heartbeats";
            nftables.remove_table(doing, &table(bridge))
        }
        None => Ok(()),
    }
}

fn table(bridge: &str) -> Table {
    Table {
        family: Family::BRIDGE,
        name: table_name(bridge),
    }
}
