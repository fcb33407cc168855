//! What the first page says of the ring.

use rmesh_ipam::Report;

use crate::daemon::{RingView, Snapshot, lost_in_words};

/// One line.
pub(super) fn line(ring: &RingView) -> String {
    if let Some(why) = &ring.refused {
        return format!("none are handed out: {why}");
    }
    let Some(report) = &ring.report else {
        return "not ready".into();
    };
    let Some(setup) = &report.setup else {
        return format!("no ring yet: {}", report.waiting.join("; "));
    };
    let pools = setup.pools.as_slice().iter();
    let pools: Vec<String> = pools.map(|pool| pool.range.to_string()).collect();
    let used = report.allocated.len();
    let owners = report.owners.len();
    let witnesses = setup.witnesses.as_slice().len();
    format!(
        "{}; {used} used here; {owners} {}; {witnesses} {}, {} may be lost",
        pools.join(", "),
        plural(owners, "owner", "owners"),
        plural(witnesses, "witness", "witnesses"),
        report.spare_witnesses,
    )
}

/// What an operator should look at.
pub(super) fn warnings(snapshot: &Snapshot) -> Vec<String> {
    let ring = &snapshot.ring;
    let mut warnings: Vec<String> = ring.aside.iter().cloned().collect();
    let refused = ring.refused.iter();
    warnings.extend(refused.map(|why| {
        format!("addresses are neither handed out nor freed until the disk takes writes: {why}")
    }));
    warnings.extend(ring.lost.iter().map(|lost| lost_in_words(lost)));
    warnings.extend(ring.overlaps.iter().cloned());
    let Some(report) = &ring.report else {
        return warnings;
    };
    warnings.extend(report.fence.clone());
    warnings.extend(pending(report));
    let has_setup = report.setup.is_some();
    if has_setup && !report.has_majority {
        warnings.push(
            "most witnesses of the ring of addresses do not answer or do not act: hosts use what they own \
             and get no more; rmesh ipam status says why, and the command that helps"
                .into(),
        );
    }
    for ((peer, why), count) in &report.refused {
        let name = snapshot.name_of(*peer);
        warnings.push(format!(
            "peer {name} said {count} times what it cannot about addresses ({why}); nothing was changed"
        ));
    }
    warnings
}

/// Containers that carry what nobody has confirmed to be theirs.
fn pending(report: &Report) -> Option<String> {
    let first = report.pending.first()?;
    let others = match report.pending.len() - 1 {
        0 => String::new(),
        others => format!(" and {others} more"),
    };
    Some(format!(
        "{first}{others} carried by containers of this host but not owned by it: their owners have not \
         answered yet"
    ))
}

fn plural<'a>(count: usize, one: &'a str, many: &'a str) -> &'a str {
    if count == 1 { one } else { many }
}
