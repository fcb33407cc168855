//! A peer that will not come back is removed: what it owned is taken over.

use std::time::Duration;

use rmesh_ipam::{Answer, Refusal, Request};
use rmesh_wire::PeerId;
use tokio::time::{Instant, sleep};

use super::addresses::refused;
use super::call::{Call, Handle, Snapshot};
use crate::api::{Count, RemoveReply};
use crate::duration::millis;
use crate::failure::{Failure, FailureKind};

/// How long the peer is given to show that it lives.
const PROBE: Duration = Duration::from_secs(2);
/// For how long at most a peer that is removed by force is looked for.
const FORCED_LOOK: Duration = Duration::from_millis(1_500);
/// How often it is looked at meanwhile.
const LOOK_INTERVAL: Duration = Duration::from_millis(50);
/// What is left for the answer to travel back before the client's time is up.
const ANSWER_MARGIN: Duration = Duration::from_millis(300);
/// Conflicting addresses named in one error.
const CONFLICTS_SHOWN: usize = 8;

/// Takes over what a peer owns.
pub(crate) async fn remove(
    handle: &Handle,
    (peer, name): (PeerId, String),
    is_forced: bool,
    deadline: Instant,
) -> Result<RemoveReply, Failure> {
    let what = format!("cannot remove {name}");
    // By force it is what became of this peer's former lives that is taken over, and the witnesses are
    // formed anew where those there were forgot too much.
    let is_self = handle.snapshot().await?.report.id == peer;
    if is_self && !is_forced {
        let why = "this is the peer itself";
        return Err(Failure::new(FailureKind::Usage, what, why)
            .todo("rmesh stop, then run rmesh rmpeer on another member"));
    }
    if is_forced {
        look_again(handle, peer).await?;
    } else {
        probe(handle, &what, (peer, &name), deadline).await?;
    }
    let left = deadline.saturating_duration_since(Instant::now());
    let request = Request::RemovePeer {
        peer,
        name: name.clone(),
        is_forced,
    };
    let asked = handle.ring(request, left.saturating_sub(ANSWER_MARGIN));
    let (taken, held) = match asked.await? {
        Ok(Answer::Removed { taken, held }) => (taken, held),
        Ok(_) => (Vec::new(), 0),
        Err(Refusal::NoMajority { why, .. }) => return Err(no_majority(what, &why, &name)),
        Err(refusal) => return Err(refused(&what, &refusal)),
    };
    let outlook = handle.outlook(Vec::new()).await?;
    let holds = outlook.map(|outlook| outlook.holds).unwrap_or_default();
    let holds = holds.into_iter().filter(|hold| hold.peer == peer);
    let ends_in = holds.map(|hold| hold.left).max();
    Ok(RemoveReply {
        peer: peer.to_string(),
        name,
        taken: taken.iter().map(ToString::to_string).collect(),
        held: Count(held),
        held_for_ms: ends_in.map(millis),
    })
}

/// Gives the peer time to show that it lives: an error if it does.
async fn probe(
    handle: &Handle,
    what: &str,
    (peer, name): (PeerId, &str),
    deadline: Instant,
) -> Result<(), Failure> {
    let asked = Instant::now();
    handle.tell(Call::Suspect(peer)).await?;
    loop {
        sleep(LOOK_INTERVAL).await;
        let snapshot = handle.snapshot().await?;
        let heard = heard_ago(&snapshot, peer);
        if heard.is_some_and(|ago| ago < asked.elapsed()) {
            let why = format!("{name} answers");
            return Err(Failure::new(FailureKind::Conflict, what, why)
                .todo(format!("stop it first, or: rmesh rmpeer {name} --force")));
        }
        if asked.elapsed() >= PROBE && !is_reachable(&snapshot, peer) {
            return Ok(());
        }
        if Instant::now() + ANSWER_MARGIN >= deadline {
            let why = format!("it is not sure yet that {name} does not answer");
            return Err(Failure::new(FailureKind::Timeout, what, why)
                .todo("try again, with a longer --timeout"));
        }
    }
}

/// Whether it lives or not, what is asked for after this is to find here what is true: a peer that has
/// just died may pass for one that is there until it is asked.
async fn look_again(handle: &Handle, peer: PeerId) -> Result<(), Failure> {
    let asked = Instant::now();
    handle.tell(Call::Suspect(peer)).await?;
    while asked.elapsed() < FORCED_LOOK {
        sleep(LOOK_INTERVAL).await;
        let snapshot = handle.snapshot().await?;
        let answered = heard_ago(&snapshot, peer).is_some_and(|ago| ago < asked.elapsed());
        if answered || !is_reachable(&snapshot, peer) {
            break;
        }
    }
    Ok(())
}

/// Its own word; that others still speak of it does not count.
fn heard_ago(snapshot: &Snapshot, peer: PeerId) -> Option<Duration> {
    let mut peers = snapshot.report.peers.iter();
    peers.find(|report| report.id == peer)?.heard_ago
}

fn is_reachable(snapshot: &Snapshot, peer: PeerId) -> bool {
    let mut peers = snapshot.report.peers.iter();
    peers.any(|report| report.id == peer && report.reachable)
}

fn no_majority(what: String, why: &str, name: &str) -> Failure {
    let why = format!(
        "most witnesses of the ring do not answer or do not act ({why}); without them an address that \
         only they know to be in use may be given twice"
    );
    Failure::new(FailureKind::Conflict, what, why).todo(format!(
        "start them; or, if they are gone for good and that risk is small, form the witnesses anew \
         from the peers that answer: rmesh rmpeer {name} --force"
    ))
}

/// Joins the ring that a peer is in.
pub(crate) async fn adopt(
    handle: &Handle,
    (peer, name): (PeerId, String),
    deadline: Instant,
) -> Result<String, Failure> {
    let what = format!("cannot join the ring of {name}");
    let left = deadline.saturating_duration_since(Instant::now());
    let request = Request::Adopt { peer };
    let asked = handle.ring(request, left.saturating_sub(ANSWER_MARGIN));
    match asked.await? {
        Ok(Answer::Adopted(ring)) => Ok(ring.to_string()),
        Ok(_) => Ok(String::new()),
        Err(refusal) => {
            let conflicts = handle.outlook(Vec::new()).await?;
            let others = conflicts.map(|outlook| outlook.others).unwrap_or_default();
            let mut others = others.iter().filter(|other| other.members.contains(&peer));
            match others.next().filter(|other| !other.conflicts.is_empty()) {
                Some(other) => Err(conflict(handle, what, other).await?),
                None => Err(refused(&what, &refusal)),
            }
        }
    }
}

/// Containers of this host carry what the other ring has in use.
async fn conflict(
    handle: &Handle,
    what: String,
    other: &rmesh_ipam::OtherRing,
) -> Result<Failure, Failure> {
    let snapshot = handle.snapshot().await?;
    let each = other.conflicts.iter().map(|(address, key, peer)| {
        let there = snapshot.name_of(*peer);
        format!(
            "{address} of {} is also used on {there}",
            snapshot.target_of(key)
        )
    });
    let each: Vec<String> = each.take(CONFLICTS_SHOWN).collect();
    let mut detach: Vec<String> = other
        .conflicts
        .iter()
        .take(CONFLICTS_SHOWN)
        .map(|(_, key, _)| format!("rmesh detach {}", snapshot.target_of(key)))
        .collect();
    detach.dedup();
    let why = match other.conflicts.len().saturating_sub(CONFLICTS_SHOWN) {
        0 => each.join(", "),
        more => format!("{} and {more} more", each.join(", ")),
    };
    Ok(Failure::new(FailureKind::Conflict, what, why)
        .todo(format!("{}, and try again", detach.join("; "))))
}
