//! Do the ring, the ledger, what this peer announces and what its containers carry agree?

use std::collections::BTreeMap;
use std::net::IpAddr;

use ipnet::IpNet;
use rmesh_ipam::OwnerId;
use rmesh_router::attach::Attachment;

use super::lease::is_lease;
use super::{Containers, Snapshot, blocking};
use crate::api::{CheckView, Difference};
use crate::failure::Failure;

/// Addresses that one container is looked at for: a hostile one may carry thousands.
const CARRIED_MAX: usize = 256;

/// One attached container, and what was found in it.
struct Looked {
    attachment: Attachment,
    /// `None`: the interface has vanished; an error: it could not be looked at.
    carried: Result<Option<Vec<IpNet>>, String>,
}

/// All that is compared.
struct Evidence {
    looked: Vec<Looked>,
    /// The ledger's addresses and for which key.
    allocated: BTreeMap<IpAddr, String>,
    /// What the ring says; nothing for addresses outside every pool.
    owners: BTreeMap<IpAddr, OwnerId>,
    me: Option<OwnerId>,
    /// What reachable other peers announce: peer's name and container's.
    announced: BTreeMap<IpAddr, (String, String)>,
    names: BTreeMap<OwnerId, String>,
}

impl Containers {
    /// Compares them all.
    pub(crate) async fn check(&self) -> Result<CheckView, Failure> {
        let _assigning = self.assigning.write().await;
        let _one = self.one.lock().await;
        let snapshot = self.handle.snapshot().await?;
        let (ports, attachments) = (self.kernel(), snapshot.attachments.clone());
        let looked = blocking(move || {
            let look = |attachment: Attachment| Looked {
                carried: ports.carried(&attachment).map_err(|e| e.to_string()),
                attachment,
            };
            attachments.into_iter().map(look).collect::<Vec<_>>()
        });
        let evidence = self.evidence(looked.await?, &snapshot).await?;
        Ok(CheckView {
            containers: evidence.looked.len(),
            addresses: evidence.allocated.len(),
            differences: differences(&evidence),
        })
    }

    async fn evidence(
        &self,
        mut looked: Vec<Looked>,
        snapshot: &Snapshot,
    ) -> Result<Evidence, Failure> {
        for one in &mut looked {
            if let Ok(Some(nets)) = &mut one.carried {
                nets.truncate(CARRIED_MAX);
            }
        }
        let report = snapshot.ring.report.as_ref();
        let allocated = report.map(|report| report.allocated.clone());
        let allocated: BTreeMap<IpAddr, String> =
            allocated.unwrap_or_default().into_iter().collect();
        let mut asked: Vec<IpAddr> = allocated.keys().copied().collect();
        for one in &looked {
            let carried = one.carried.iter().flatten().flatten();
            let all = carried.chain(&one.attachment.addresses);
            asked.extend(all.map(IpNet::addr));
        }
        let outlook = self.handle.outlook(asked.clone()).await?;
        let owners = outlook.map(|outlook| outlook.owners).unwrap_or_default();
        let owners = asked.into_iter().zip(owners);
        let owners: BTreeMap<IpAddr, OwnerId> = owners
            .filter_map(|(ip, owner)| Some((ip, owner?)))
            .collect();
        let names = owners.values();
        let names = names.map(|owner| (*owner, snapshot.name_of(owner.peer)));
        Ok(Evidence {
            names: names.collect(),
            looked,
            allocated,
            owners,
            me: report.and_then(|report| report.owner),
            announced: announced(snapshot),
        })
    }
}

fn announced(snapshot: &Snapshot) -> BTreeMap<IpAddr, (String, String)> {
    let others = snapshot.report.endpoints.iter();
    let others = others.filter(|e| e.reachable && e.peer != snapshot.report.id);
    let each = others.flat_map(|e| {
        let who = (snapshot.name_of(e.peer), e.endpoint.name.clone());
        let addresses = e.endpoint.addresses.iter();
        addresses.map(move |net| (net.addr(), who.clone()))
    });
    each.collect()
}

fn differences(evidence: &Evidence) -> Vec<Difference> {
    let mut found = Vec::new();
    for one in &evidence.looked {
        of_container(evidence, one, &mut found);
    }
    for (address, key) in &evidence.allocated {
        of_ledger(evidence, *address, key, &mut found);
    }
    found
}

fn of_container(evidence: &Evidence, one: &Looked, found: &mut Vec<Difference>) {
    let Attachment {
        target,
        addresses: given,
        ..
    } = &one.attachment;
    let mut say = |address: Option<IpAddr>, what: &str, todo: String| {
        found.push(Difference {
            address,
            container: target.clone(),
            what: what.into(),
            todo,
        });
    };
    let detach = format!("rmesh detach {target}, then attach it again");
    let carried = match &one.carried {
        Ok(Some(nets)) => nets,
        Ok(None) => {
            say(None, "its interface has vanished", detach);
            return;
        }
        Err(why) => {
            say(
                None,
                &format!("it could not be looked at: {why}"),
                String::new(),
            );
            return;
        }
    };
    let has = |nets: &[IpNet], ip: IpAddr| nets.iter().any(|net| net.addr() == ip);
    let key = Containers::key(&one.attachment);
    for ip in carried.iter().map(IpNet::addr) {
        // The ring has no say in addresses outside every pool.
        if evidence.owners.contains_key(&ip) && !has(given, ip) {
            let todo = format!("rmesh ipam claim {ip} {target}, or take it away in the container");
            say(
                Some(ip),
                "it carries an address that it was not given",
                todo,
            );
        }
    }
    for ip in given.iter().map(IpNet::addr) {
        if !has(carried, ip) {
            let todo = format!("rmesh ipam release {ip}, or {detach}");
            say(
                Some(ip),
                "it does not carry an address that it was given",
                todo,
            );
        }
        let claim = format!("rmesh ipam claim {ip} {target}");
        match evidence.allocated.get(&ip) {
            Some(other) if *other != key => {
                say(
                    Some(ip),
                    &format!("the ledger has it for {other}"),
                    detach.clone(),
                );
            }
            None if evidence.owners.contains_key(&ip) => {
                say(Some(ip), "the ledger does not have it", claim);
            }
            _ => {}
        }
        if let Some((peer, name)) = evidence.announced.get(&ip) {
            let todo = format!("rmesh detach {target}, or the other one on {peer}");
            say(Some(ip), &announced_in_words(peer, name), todo);
        }
    }
}

fn announced_in_words(peer: &str, name: &str) -> String {
    match name {
        "" => format!("peer {peer} announces the same address"),
        name => format!("peer {peer} announces the same address for {name:?}"),
    }
}

fn of_ledger(evidence: &Evidence, address: IpAddr, key: &str, found: &mut Vec<Difference>) {
    let attached = evidence.looked.iter();
    let mut attached = attached.map(|one| &one.attachment);
    let attached = attached.find(|a| Containers::key(a) == key);
    let mut say = |what: String, todo: String| {
        found.push(Difference {
            address: Some(address),
            container: attached.map_or(key, |a| a.target.as_str()).into(),
            what,
            todo,
        });
    };
    let release = format!("rmesh ipam release {address}");
    match attached {
        None if is_lease(key) => {}
        None => say(
            "the ledger has it for a container that is not attached".into(),
            format!("attach it, or {release}"),
        ),
        Some(a) if a.addresses.iter().all(|net| net.addr() != address) => {
            say("the ledger has it, but it was not given".into(), release);
        }
        Some(_) => {}
    }
    let owner = evidence.owners.get(&address).copied();
    let is_former = |owner: &OwnerId| evidence.me.is_some_and(|me| me.peer == owner.peer);
    if owner != evidence.me && owner.as_ref().is_some_and(is_former) {
        let what = "the ring says that this host owned it before it began anew";
        let todo = "wait until the witnesses answer: see rmesh ipam status";
        say(what.into(), todo.into());
    } else if owner != evidence.me {
        let name = owner.and_then(|owner| evidence.names.get(&owner).cloned());
        let (what, todo) = match name {
            Some(name) => (
                format!("the ring says that {name} owns it"),
                format!(
                    "it is asked for until {name} answers; if {name} is gone: rmesh rmpeer {name}"
                ),
            ),
            None => ("no pool has it".into(), "rmesh ipam status".into()),
        };
        say(what, todo);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rmesh_wire::{Mac, PeerId};

    const ME: OwnerId = OwnerId {
        peer: PeerId([1; 16]),
        incarnation: 7,
    };
    const OTHER: OwnerId = OwnerId {
        peer: PeerId([2; 16]),
        incarnation: 9,
    };

    fn nets(texts: &[&str]) -> Vec<IpNet> {
        texts.iter().map(|text| text.parse().unwrap()).collect()
    }

    /// A container that was given two addresses and carries them, as the ring and the ledger say.
    fn sound() -> Evidence {
        let given = nets(&["10.32.0.1/12", "fd32::1/48"]);
        let attachment = Attachment {
            target: "web".into(),
            netns_inode: 1,
            interface: "rmesh0".into(),
            host_interface: String::new(),
            mac: Mac([2; 6]),
            addresses: given.clone(),
            name: String::new(),
        };
        let allocated = given.iter().map(|net| (net.addr(), "1/rmesh0".into()));
        Evidence {
            allocated: allocated.collect(),
            owners: given.iter().map(|net| (net.addr(), ME)).collect(),
            looked: vec![Looked {
                carried: Ok(Some(given)),
                attachment,
            }],
            me: Some(ME),
            announced: BTreeMap::new(),
            names: BTreeMap::from([(ME, "a".into()), (OTHER, "b".into())]),
        }
    }

    fn found(evidence: &Evidence) -> Vec<String> {
        let found = differences(evidence).into_iter();
        let found = found.map(|d| format!("{} {}", d.container, d.what));
        found.collect()
    }

    #[test]
    fn what_agrees_is_not_mentioned() {
        assert_eq!(differences(&sound()), []);
        let mut outside = sound();
        outside.looked[0]
            .attachment
            .addresses
            .push(nets(&["192.0.2.1/24"])[0]);
        outside.looked[0].carried = Ok(Some(nets(&[
            "10.32.0.1/12",
            "fd32::1/48",
            "192.0.2.1/24",
            "198.51.100.7/24",
        ])));
        assert_eq!(differences(&outside), [], "the ring has no say in those");
    }

    #[test]
    fn what_was_added_or_taken_away_by_hand_is_found() {
        let mut evidence = sound();
        evidence.looked[0].carried = Ok(Some(nets(&["10.32.0.1/12", "10.32.0.9/12"])));
        evidence.owners.insert("10.32.0.9".parse().unwrap(), OTHER);
        let all = differences(&evidence);
        assert_eq!(all.len(), 2, "{all:?}");
        assert_eq!(all[0].address, Some("10.32.0.9".parse().unwrap()));
        assert!(all[0].todo.contains("rmesh ipam claim 10.32.0.9 web"));
        assert_eq!(all[1].address, Some("fd32::1".parse().unwrap()));
        assert!(all[1].todo.contains("rmesh ipam release fd32::1"));
    }

    #[test]
    fn a_ledger_that_says_something_else_is_found() {
        let mut evidence = sound();
        evidence.allocated.remove(&"10.32.0.1".parse().unwrap());
        evidence
            .allocated
            .insert("10.32.0.8".parse().unwrap(), "9/rmesh0".into());
        evidence.owners.insert("10.32.0.8".parse().unwrap(), ME);
        let expected = [
            "web the ledger does not have it",
            "9/rmesh0 the ledger has it for a container that is not attached",
        ];
        assert_eq!(found(&evidence), expected);
        evidence
            .allocated
            .insert("10.32.0.1".parse().unwrap(), "9/rmesh0".into());
        assert_eq!(found(&evidence)[0], "web the ledger has it for 9/rmesh0");
    }

    #[test]
    fn an_owner_that_is_another_and_an_address_used_twice_are_found() {
        let mut evidence = sound();
        let ip = "10.32.0.1".parse().unwrap();
        evidence.owners.insert(ip, OTHER);
        evidence.announced.insert(ip, ("b".into(), "db".into()));
        let expected = [
            "web peer b announces the same address for \"db\"",
            "web the ring says that b owns it",
        ];
        assert_eq!(found(&evidence), expected);
    }

    #[test]
    fn a_container_that_cannot_be_looked_at_is_named() {
        let mut evidence = sound();
        evidence.looked[0].carried = Err("no entry".into());
        assert_eq!(
            found(&evidence),
            ["web it could not be looked at: no entry"]
        );
        evidence.looked[0].carried = Ok(None);
        assert_eq!(found(&evidence), ["web its interface has vanished"]);
    }
}
