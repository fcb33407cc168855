//! Which peer an operator means.

use std::collections::BTreeSet;
use std::fmt::Display;

use rmesh_gossip::Report;
use rmesh_ipam::Outlook;
use rmesh_wire::PeerId;

use crate::daemon::Snapshot;
use crate::failure::{Failure, FailureKind};
use crate::peer_address::PeerAddress;
use crate::render::short;

/// Peers named in an error.
const NAMES_SHOWN: usize = 16;
/// Fewest digits of an id that name a peer.
const ID_DIGITS_MIN: usize = 6;

/// Why nobody is found.
pub(crate) const NOBODY: &str =
    "no peer has this name, or an id that starts with at least 6 such digits";

/// The peer with exactly this name, else the one whose id starts with these digits.
fn peer(report: &Report, text: &str) -> Result<Option<PeerId>, Failure> {
    let ids: Vec<String> = report.peers.iter().map(|p| p.id.to_string()).collect();
    let names = report.peers.iter().map(|peer| peer.name.as_str());
    let found = one_of(text, names.zip(ids.iter().map(String::as_str)))?;
    let at = found.and_then(|found| ids.iter().position(|id| id == found));
    Ok(at.and_then(|at| Some(report.peers.get(at)?.id)))
}

/// The id of the peer with exactly this name, else the one that starts with these digits, among names and ids.
pub(crate) fn one_of<'a>(
    text: &str,
    all: impl Iterator<Item = (&'a str, &'a str)> + Clone,
) -> Result<Option<&'a str>, Failure> {
    let named = all.clone().filter(|(name, _)| *name == text);
    if let Some(id) = only_one(text, named.map(|(_, id)| id))? {
        return Ok(Some(id));
    }
    let digits = text.to_ascii_lowercase();
    if digits.len() < ID_DIGITS_MIN || !digits.bytes().all(|b| b.is_ascii_hexdigit()) {
        return Ok(None);
    }
    let started = all.filter(|(_, id)| id.starts_with(&digits));
    only_one(text, started.map(|(_, id)| id))
}

/// Of ids the only one.
fn only_one<T: Display>(
    text: &str,
    mut found: impl Iterator<Item = T>,
) -> Result<Option<T>, Failure> {
    let first = found.next();
    let shown = |id: &T| short(&id.to_string()).to_owned();
    let more: Vec<String> = found.map(|id| shown(&id)).collect();
    match (first, more.as_slice()) {
        (Some(first), [_, ..]) => {
            let why = format!(
                "several peers match: {}, {}",
                shown(&first),
                more.join(", ")
            );
            let todo = "give more digits of the id";
            Err(Failure::new(
                FailureKind::Usage,
                format!("cannot tell who {text} is"),
                why,
            )
            .todo(todo))
        }
        (first, _) => Ok(first),
    }
}

/// The remembered peers an operator means: by the words they were remembered with, else all that
/// lead to the peer of that name or id.
pub(super) fn targets(report: &Report, text: &str) -> Result<Vec<PeerAddress>, Failure> {
    let remembered = |name: &str| name.parse::<PeerAddress>().ok();
    if let Ok(address) = text.parse::<PeerAddress>() {
        let known = report
            .targets
            .iter()
            .filter_map(|target| remembered(&target.name));
        let same: Vec<PeerAddress> = known.filter(|known| *known == address).collect();
        if !same.is_empty() {
            return Ok(same);
        }
    }
    let meant = peer(report, text)?;
    let leads = report
        .targets
        .iter()
        .filter(|t| meant.is_some() && t.peer == meant);
    let found: Vec<PeerAddress> = leads.filter_map(|t| remembered(&t.name)).collect();
    if !found.is_empty() {
        return Ok(found);
    }
    let names: Vec<&str> = report.targets.iter().map(|t| t.name.as_str()).collect();
    let why = match meant {
        Some(_) => "it was found through others, no remembered peer leads to it",
        None => "it is not among the remembered peers",
    };
    let todo = match names.as_slice() {
        [] => "no peers are remembered".into(),
        names => format!("remembered are: {}", names.join(", ")),
    };
    Err(Failure::new(FailureKind::Missing, format!("cannot forget {text}"), why).todo(todo))
}

/// A peer that may own addresses, and its name: one of the mesh or this one, else one that was removed
/// or is only known as an owner.
pub(super) fn owner(
    snapshot: &Snapshot,
    outlook: &Outlook,
    text: &str,
) -> Result<(PeerId, String), Failure> {
    let report = &snapshot.report;
    if let Some(id) = peer(report, text)? {
        return Ok((id, snapshot.name_of(id)));
    }
    let is_id = |id: PeerId| {
        let digits = text.to_ascii_lowercase();
        digits.len() >= ID_DIGITS_MIN && id.to_string().starts_with(&digits)
    };
    if report.name == text || is_id(report.id) {
        return Ok((report.id, report.name.clone()));
    }
    // Of those that the mesh has forgotten, or not seen since the start.
    let mut names = snapshot.ring.names.clone();
    names.extend(outlook.removed.clone());
    let named = names
        .iter()
        .filter(|(id, name)| *name == text || is_id(**id));
    if let Some(id) = only_one(text, named.map(|(id, _)| *id))? {
        let name = names.get(&id).cloned();
        return Ok((id, name.unwrap_or_default()));
    }
    let owners = outlook.pools.iter().flat_map(|pool| pool.owners.keys());
    let owners: BTreeSet<PeerId> = owners.map(|owner| owner.peer).collect();
    let started = owners.into_iter().filter(|id| is_id(*id));
    match only_one(text, started)? {
        Some(id) => Ok((id, id.short().to_string())),
        None => Err(unknown(report, text)),
    }
}

fn unknown(report: &Report, text: &str) -> Failure {
    let mut names: Vec<&str> = report.peers.iter().map(|peer| peer.name.as_str()).collect();
    names.sort_unstable();
    let known = match names.as_slice() {
        [] => "no other peer is known".into(),
        names if names.len() > NAMES_SHOWN => "rmesh status peers shows all".into(),
        names => format!("known are: {}", names.join(", ")),
    };
    Failure::new(FailureKind::Missing, format!("cannot find {text}"), NOBODY).todo(known)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::convert::samples;

    fn names(text: &str) -> Result<Vec<String>, Failure> {
        let report = samples::snapshot().report;
        Ok(targets(&report, text)?
            .iter()
            .map(ToString::to_string)
            .collect())
    }

    #[test]
    fn the_words_it_was_remembered_with_come_first() {
        assert_eq!(names("hostb").unwrap(), ["hostb:6783"]);
        assert_eq!(names("hostb:6783").unwrap(), ["hostb:6783"]);
    }

    #[test]
    fn then_the_name_then_six_digits_of_the_id() {
        assert_eq!(names("b").unwrap(), ["hostb:6783"]);
        assert_eq!(names("bbbbbb").unwrap(), ["hostb:6783"]);
        assert_eq!(names("bbbbb").unwrap_err().kind, FailureKind::Missing);
    }

    #[test]
    fn what_is_not_remembered_is_said_with_what_is() {
        let failure = names("c").unwrap_err();
        assert!(failure.why.contains("through others"), "{failure}");
        assert!(failure.todo.contains("hostb:6783"), "{failure}");
    }

    #[test]
    fn a_name_of_two_peers_is_ambiguous() {
        let mut report = samples::snapshot().report;
        for peer in &mut report.peers {
            peer.name = "twin".into();
        }
        assert!(
            targets(&report, "twin")
                .unwrap_err()
                .why
                .contains("several")
        );
    }

    #[test]
    fn an_owner_is_found_by_name_by_id_and_after_it_was_forgotten() {
        let gone = PeerId([0xdd; 16]);
        let silent = PeerId([0xee; 16]);
        let owner = rmesh_ipam::OwnerId {
            peer: silent,
            incarnation: 1,
        };
        let pool = rmesh_ipam::PoolUse {
            range: rmesh_ipam::Range::V4,
            counts: Default::default(),
            owners: [(owner, 7)].into(),
        };
        let outlook = Outlook {
            removed: [(gone, "hostd".into())].into(),
            pools: vec![pool],
            ..Outlook::default()
        };
        let snapshot = samples::snapshot();
        let found = |text: &str| super::owner(&snapshot, &outlook, text);
        let b = (samples::B, "b".to_string());
        assert_eq!(found("b").unwrap(), b);
        assert_eq!(found("BBBBBB").unwrap(), b);
        assert_eq!(found(&"b".repeat(32)).unwrap(), b);
        assert_eq!(found("a").unwrap().0, samples::A);
        assert_eq!(found("hostd").unwrap(), (gone, "hostd".into()));
        assert_eq!(found("dddddd").unwrap(), (gone, "hostd".into()));
        assert_eq!(found("eeeeee").unwrap(), (silent, "e".repeat(12)));
        let failure = found("eeeee").unwrap_err();
        assert_eq!(failure.kind, FailureKind::Missing);
        assert!(failure.todo.contains("known are: b, c"), "{failure}");
    }
}
