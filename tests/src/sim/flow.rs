//! The data plane as the published tables make it: follows datagrams and broadcasts through them.

use rmesh_gossip::{Forwarding, Path};
use rmesh_wire::{PeerId, relay};

use super::check::Difference;
use super::world::World;

/// Tables of all nodes; `None` for those that do not run.
type Tables = [Option<Forwarding>];

fn node_of(world: &World, id: PeerId) -> Option<usize> {
    world.numbers.get(&id).copied()
}

/// The address in use leads to the peer, over wires that are open both ways.
fn is_straight(world: &World, from: usize, to: usize, path: Option<Path>) -> bool {
    let Some(Path::Direct(address)) = path else {
        return false;
    };
    world.network.node_at(address) == Some(to)
        && world.network.is_open(from, to)
        && world.network.is_open(to, from)
}

fn path_to(world: &World, tables: &Tables, from: usize, to: usize) -> Option<Path> {
    let entry = tables[from].as_ref()?.peers.get(&world.nodes[to].id)?;
    entry.path
}

/// Announced MACs belong to the same peers everywhere.
pub(crate) fn macs_agree(
    world: &World,
    tables: &Tables,
    members: &[usize],
) -> Result<(), Difference> {
    let mut tables = members
        .iter()
        .filter_map(|&m| Some((m, tables[m].as_ref()?)));
    let Some((first, expected)) = tables.next() else {
        return Ok(());
    };
    for (member, table) in tables {
        if table.macs != expected.macs {
            return Err(format!(
                "peer{first} and peer{member} disagree on who has which MAC"
            ));
        }
    }
    for &member in members {
        for endpoint in &world.nodes[member].endpoints {
            if expected.macs.get(&endpoint.mac) != Some(&world.nodes[member].id) {
                return Err(format!(
                    "{} is at peer{member}, but its MAC is thought to be at {:?}",
                    endpoint.name,
                    expected
                        .macs
                        .get(&endpoint.mac)
                        .map(|id| node_of(world, *id))
                ));
            }
        }
    }
    Ok(())
}

/// A datagram from each member to each other arrives, straight or hop by hop.
pub(crate) fn datagrams_arrive(
    world: &World,
    tables: &Tables,
    members: &[usize],
) -> Result<(), Difference> {
    for &from in members {
        for &to in members.iter().filter(|&&to| to != from) {
            follow(world, tables, from, to)
                .map_err(|why| format!("a datagram from peer{from} to peer{to} {why}"))?;
        }
    }
    Ok(())
}

fn follow(world: &World, tables: &Tables, from: usize, to: usize) -> Result<(), String> {
    let mut next = match path_to(world, tables, from, to) {
        Some(Path::Relay(neighbour)) => neighbour,
        path if is_straight(world, from, to, path) => return Ok(()),
        path => return Err(format!("is sent into the dark: {path:?}")),
    };
    let destination = world.nodes[to].id.short_id();
    let (mut came_from, mut at) = (None, from);
    let mut way = vec![from];
    for _ in 0..relay::TTL {
        let hop = node_of(world, next).ok_or("is relayed by a stranger")?;
        if Some(hop) == came_from {
            return Err(format!("is sent back by peer{at}"));
        }
        if !is_straight(world, at, hop, path_to(world, tables, at, hop)) {
            return Err(format!("cannot go from peer{at} to its relay peer{hop}"));
        }
        if hop == to {
            return Ok(());
        }
        let table = tables[hop].as_ref().ok_or("is relayed by a dead peer")?;
        next = *table
            .next_hops
            .get(&destination)
            .ok_or_else(|| format!("is dropped by peer{hop}, which knows no next hop"))?;
        (came_from, at) = (Some(at), hop);
        way.push(hop);
    }
    Err(format!("loops: {way:?}"))
}

/// A broadcast of each source is accepted exactly once by every other member.
pub(crate) fn broadcasts_arrive_once(
    world: &World,
    tables: &Tables,
    sources: &[usize],
    members: &[usize],
) -> Result<(), Difference> {
    let mut copies = vec![0u32; world.nodes.len()];
    for &source in sources {
        copies.fill(0);
        flood(world, tables, source, &mut copies)
            .map_err(|why| format!("a broadcast of peer{source} {why}"))?;
        for &member in members {
            let expected = u32::from(member != source);
            if copies[member] != expected {
                let got = copies[member];
                return Err(format!(
                    "a broadcast of peer{source} arrives {got} times at peer{member}"
                ));
            }
        }
    }
    Ok(())
}

fn flood(world: &World, tables: &Tables, source: usize, copies: &mut [u32]) -> Result<(), String> {
    let name = world.nodes[source].id.short_id();
    let mut frontier = vec![(source, rmesh_wire::flood::TTL)];
    while let Some((at, ttl)) = frontier.pop() {
        let tree = tables[at]
            .as_ref()
            .and_then(|table| table.floods.tree(name));
        for child in tree.iter().flat_map(|tree| &tree.children) {
            let to = node_of(world, *child).ok_or("is passed on to a stranger")?;
            if !is_straight(world, at, to, path_to(world, tables, at, to)) {
                return Err(format!("cannot go from peer{at} to its child peer{to}"));
            }
            let theirs = tables[to]
                .as_ref()
                .and_then(|table| table.floods.tree(name));
            let is_parent = theirs.is_some_and(|tree| tree.parent == Some(world.nodes[at].id));
            if !is_parent {
                continue;
            }
            copies[to] += 1;
            if copies[to] == 1 && ttl > 1 {
                frontier.push((to, ttl - 1));
            }
        }
    }
    Ok(())
}

/// Both ends of every wanted pair hold a session with each other's keys.
pub(crate) fn sessions_match(
    world: &World,
    tables: &Tables,
    members: &[usize],
) -> Result<(), Difference> {
    for &(from, to) in &world.wanted {
        if !members.contains(&from) || !members.contains(&to) {
            continue;
        }
        if !has_session(world, tables, from, to) {
            return Err(format!("peer{from} has no usable session with peer{to}"));
        }
    }
    Ok(())
}

fn has_session(world: &World, tables: &Tables, from: usize, to: usize) -> bool {
    let (Some(mine), Some(theirs)) = (&tables[from], &tables[to]) else {
        return false;
    };
    let index = mine
        .peers
        .get(&world.nodes[to].id)
        .and_then(|entry| entry.session);
    let Some(session) = mine
        .sessions
        .iter()
        .find(|session| Some(session.local_index) == index)
    else {
        return false;
    };
    theirs.sessions.iter().any(|other| {
        other.peer == world.nodes[from].id
            && other.local_index == session.remote_index
            && other.remote_index == session.local_index
            && other.open_key == session.seal_key
            && other.seal_key == session.open_key
            && other.cipher == session.cipher
    })
}
