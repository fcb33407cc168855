//! What must be true of a mesh once it is quiet.

use rmesh_gossip::Forwarding;

use super::flow;
use super::world::World;

/// In larger meshes the reports of two peers that differ are compared only on request.
const TOLD_MAX: usize = 100;
/// Sources whose broadcasts are followed: all up to this many, and fewer the more peers compute the trees.
const BROADCASTS_MAX: usize = 60;
const BROADCASTS_MIN: usize = 6;

/// The first thing found that keeps the mesh from being at rest.
pub(crate) type Difference = String;

/// Whether all connected peers have the same view, and every datagram, broadcast and data session
/// would find its way. `sides` says which half each node is in.
///
/// # Errors
/// Says who differs from whom and in what.
pub(crate) fn at_rest(world: &World, sides: &[bool]) -> Result<(), Difference> {
    let is_whole = sides.iter().all(|side| !side);
    if is_whole && world.nodes.len() > TOLD_MAX && !digests_agree(world) {
        return Err("not all hold the same records".to_owned());
    }
    views_agree(world, sides)?;
    everything_works(world, sides)
}

/// The second half of [`at_rest`], for views that agree.
fn everything_works(world: &World, sides: &[bool]) -> Result<(), Difference> {
    let tables: Vec<Option<Forwarding>> = world
        .nodes
        .iter()
        .map(|node| node.mesh.as_ref().map(|mesh| mesh.forwarding()))
        .collect();
    for side in [false, true] {
        let members: Vec<usize> = (0..sides.len())
            .filter(|&node| sides[node] == side && tables[node].is_some())
            .collect();
        everybody_reachable(world, &tables, &members)?;
        flow::macs_agree(world, &tables, &members)?;
        flow::datagrams_arrive(world, &tables, &members)?;
        // A broadcast tree is computed for each source at each peer.
        let sources: Vec<usize> = match members.len() {
            0..=BROADCASTS_MAX => members.clone(),
            many => {
                let sources = (BROADCASTS_MAX * BROADCASTS_MAX / many).max(BROADCASTS_MIN);
                let step = many.div_ceil(sources);
                members.iter().copied().step_by(step).collect()
            }
        };
        flow::broadcasts_arrive_once(world, &tables, &sources, &members)?;
        flow::sessions_match(world, &tables, &members)?;
    }
    Ok(())
}

/// Whether all running nodes of a side have one view hash; cheap enough to ask often.
///
/// # Errors
/// Names two that differ.
pub(crate) fn views_agree(world: &World, sides: &[bool]) -> Result<(), Difference> {
    let mut first: [Option<(usize, u64)>; 2] = [None, None];
    for (index, node) in world.nodes.iter().enumerate() {
        let Some(hash) = node.mesh.as_ref().map(|mesh| mesh.view_hash()) else {
            continue;
        };
        match &first[usize::from(sides[index])] {
            None => first[usize::from(sides[index])] = Some((index, hash)),
            Some((_, expected)) if *expected == hash => {}
            Some((other, expected)) => {
                let told = match world.is_traced || world.nodes.len() <= TOLD_MAX {
                    true => unlike(world, *other, index),
                    false => "with --trace it is told in what".to_owned(),
                };
                return Err(format!(
                    "peer{other} and peer{index} have different views ({expected:016x}, {hash:016x}): {told}"
                ));
            }
        }
    }
    Ok(())
}

/// Whether all running nodes hold the same records: cheap enough to ask after every event.
pub(crate) fn digests_agree(world: &World) -> bool {
    let mut digests = world
        .nodes
        .iter()
        .filter_map(|node| Some(node.mesh.as_ref()?.digest()));
    let first = digests.next();
    digests.all(|digest| Some(digest) == first)
}

/// Exactly the members of its side are in each member's tables, each with a path.
fn everybody_reachable(
    world: &World,
    tables: &[Option<Forwarding>],
    members: &[usize],
) -> Result<(), Difference> {
    for &from in members {
        let Some(table) = &tables[from] else {
            continue;
        };
        for &to in members.iter().filter(|&&to| to != from) {
            let entry = table.peers.get(&world.nodes[to].id);
            if entry.is_none_or(|entry| entry.path.is_none()) {
                return Err(format!("peer{from} has no path to peer{to}: {entry:?}"));
            }
        }
        let strangers = world
            .nodes
            .iter()
            .filter(|node| members.binary_search(&node.index).is_err())
            .filter(|node| table.peers.contains_key(&node.id))
            .map(|node| node.name())
            .next();
        if let Some(stranger) = strangers {
            return Err(format!("peer{from} still sees {stranger} as reachable"));
        }
    }
    Ok(())
}

/// What two nodes believe differently, from their reports.
fn unlike(world: &World, a: usize, b: usize) -> String {
    let [Some(left), Some(right)] = [a, b].map(|n| beliefs(world, n)) else {
        return String::new();
    };
    let missing = |from: &[String], to: &[String]| {
        let only: Vec<&str> = from
            .iter()
            .filter(|line| !to.contains(line))
            .map(String::as_str)
            .collect();
        only.join(", ")
    };
    format!(
        "only peer{a}: [{}]; only peer{b}: [{}]",
        missing(&left, &right),
        missing(&right, &left)
    )
}

/// One line for each thing a node believes of the mesh, itself left out.
fn beliefs(world: &World, index: usize) -> Option<Vec<String>> {
    let report = world.nodes[index].mesh.as_ref()?.report(world.now);
    let mut lines: Vec<String> = report
        .peers
        .iter()
        .filter(|peer| peer.reachable)
        .map(|peer| {
            let mut to: Vec<String> = peer.links.iter().map(|(id, _)| name(world, *id)).collect();
            to.sort();
            format!("{} -> {}", peer.name, to.join("+"))
        })
        .collect();
    lines.extend(
        report
            .endpoints
            .iter()
            .filter(|e| e.reachable || e.peer == report.id)
            .map(|e| {
                format!(
                    "{} at {} moves {}",
                    e.endpoint.name,
                    name(world, e.peer),
                    e.moves
                )
            }),
    );
    Some(lines)
}

fn name(world: &World, id: rmesh_wire::PeerId) -> String {
    let node = world.nodes.iter().find(|node| node.id == id);
    node.map_or_else(|| id.short().to_string(), |node| node.name())
}

/// One line for each node: where it is, whom it dials with what result, whom it reaches and how.
pub(crate) fn portrait(world: &World, sides: &[bool]) -> String {
    let lines = world.nodes.iter().map(|node| {
        let open: Vec<usize> = (0..world.nodes.len())
            .filter(|&to| to != node.index && sides[to] == sides[node.index])
            .filter(|&to| world.network.meet(node.index, to))
            .collect();
        let place = world.network.addresses(node.index);
        let Some(mesh) = node.mesh.as_ref() else {
            return format!("  {} at {place:?} does not run", node.name());
        };
        let report = mesh.report(world.now);
        let targets: Vec<String> = report
            .targets
            .iter()
            .map(|t| format!("{} {:?} {} {:?}", t.name, t.addresses, t.state, t.retry_in))
            .collect();
        let peers: Vec<String> = report
            .peers
            .iter()
            .map(|p| {
                let path = match p.path {
                    Some(rmesh_gossip::Path::Relay(by)) => format!("by {}", name(world, by)),
                    other => format!("{other:?}"),
                };
                format!("{} up={} session={} {path}", p.name, p.reachable, p.session)
            })
            .collect();
        format!(
            "  {} at {place:?}, wires to {open:?}\n    targets: {}\n    peers: {}",
            node.name(),
            targets.join("; "),
            peers.join("; ")
        )
    });
    lines.collect::<Vec<String>>().join("\n")
}
