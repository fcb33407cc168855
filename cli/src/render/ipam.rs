//! The ring of addresses, for people.

use std::fmt::Write as _;
use std::time::Duration;

use super::short;
use super::table::{or_dash, table, text};
use crate::api::{
    AddressState, AddressView, CheckView, ConflictView, HoldView, IpamView, OtherRingView,
    PendingView, PoolView, RefusedView, RemoveReply, WitnessView,
};
use crate::duration;

/// Lines of one kind that are shown; `--json` has them all.
const LINES_MAX: usize = 16;

/// `rmesh ipam status`.
pub(crate) fn ipam_status(view: &IpamView) -> String {
    let mut page = String::new();
    let mut line = |label: &str, value: String| {
        // Writing to a string cannot fail.
        let _ = writeln!(page, "{label:<12}{value}");
    };
    let ring = view.ring.clone();
    line("ring", ring.unwrap_or_else(|| "none yet".into()));
    line("peer", format!("{} ({})", view.name, short(&view.peer)));
    line("witnesses", witnesses(view));
    line("one lost", survival(view));
    line("ledger", ledger(view));
    line("containers", format!("have {} addresses", view.used));
    for pool in &view.pools {
        line("pool", pool_in_words(pool));
    }
    if !view.pools.is_empty() {
        let _ = write!(page, "\n{}", owners(&view.pools));
    }
    troubles(&mut page, view);
    page
}

fn witnesses(view: &IpamView) -> String {
    let name = |w: &WitnessView| match (w.reachable, w.former) {
        (_, true) => format!("{} (began anew)", w.name),
        (true, false) => w.name.clone(),
        (false, false) => format!("{} (does not answer)", w.name),
    };
    let names: Vec<String> = view.witnesses.iter().map(name).collect();
    match names.as_slice() {
        [] => "none yet".into(),
        names if view.has_majority => names.join(", "),
        names => format!("{}: no majority", names.join(", ")),
    }
}

fn survival(view: &IpamView) -> String {
    let yes = if view.survives_loss_of_one {
        "yes"
    } else {
        "no"
    };
    format!(
        "{yes}: the loss of any one peer would{} leave a majority",
        match view.survives_loss_of_one {
            true => " still",
            false => " not",
        }
    )
}

fn ledger(view: &IpamView) -> String {
    match (&view.disk, &view.fence) {
        (Some(why), _) => format!("the disk refuses it: {why}"),
        (None, Some(why)) => why.clone(),
        (None, None) => "current".into(),
    }
}

fn pool_in_words(pool: &PoolView) -> String {
    let mut words = format!(
        "{}: {} addresses, {} owned here, {} free, {} used",
        pool.prefix, pool.size, pool.own, pool.free, pool.used
    );
    for (count, what) in [(pool.resting, "resting"), (pool.held, "held")] {
        if count.0 > 0 {
            let _ = write!(words, ", {count} {what}");
        }
    }
    words
}

fn owners(pools: &[PoolView]) -> String {
    let mut table = table(&["POOL", "OWNER", "ID", "STATE", "ADDRESSES", "SHARE"]);
    for pool in pools {
        for owner in pool.owners.iter().take(LINES_MAX) {
            let state = match (owner.former, owner.reachable) {
                (true, _) => "began anew",
                (false, true) => "answers",
                (false, false) => "does not answer",
            };
            let share = owner.share_per_mille;
            table.add_row([
                pool.prefix.as_str(),
                &owner.name,
                short(&owner.peer),
                state,
                &owner.addresses.to_string(),
                &format!("{}.{} %", share / 10, share % 10),
            ]);
        }
        if let Some(more) = pool.owners.len().checked_sub(LINES_MAX).filter(|n| *n > 0) {
            table.add_row([
                pool.prefix.as_str(),
                &format!("and {more} more: see --json"),
            ]);
        }
    }
    text(&table, "nobody owns anything")
}

/// What is not well, what is going on, and what helps.
fn troubles(page: &mut String, view: &IpamView) {
    let items = [
        ("pending", pending(view)),
        ("held", held(view)),
        ("other ring", other_rings(view)),
        ("conflict", conflicts(view)),
        ("disputed", view.disputed.clone()),
        ("overlap", view.overlaps.clone()),
        ("refused", refused(view)),
        ("waiting", view.waiting.clone()),
        ("ledger", view.aside.iter().cloned().collect()),
        ("to do", view.advice.clone()),
    ];
    if items.iter().any(|(_, lines)| !lines.is_empty()) {
        page.push('\n');
    }
    for (label, lines) in items {
        for line in lines.iter().take(LINES_MAX) {
            let _ = writeln!(page, "{label:<12}{line}");
        }
        if let Some(more) = lines.len().checked_sub(LINES_MAX).filter(|n| *n > 0) {
            let _ = writeln!(page, "{label:<12}and {more} more: see --json");
        }
    }
}

fn pending(view: &IpamView) -> Vec<String> {
    let pending = view.pending.iter();
    let line = |p: &PendingView| {
        format!(
            "{} of {}: its owner has not granted it yet",
            p.address, p.container
        )
    };
    pending.map(line).collect()
}

fn held(view: &IpamView) -> Vec<String> {
    let line = |hold: &HoldView| {
        let left = duration::age(Duration::from_millis(hold.ends_in_ms));
        let (name, id) = (&hold.name, short(&hold.peer));
        format!("{} for {name} ({id}), for {left} yet", hold.addresses)
    };
    view.held.iter().map(line).collect()
}

fn other_rings(view: &IpamView) -> Vec<String> {
    let line = |other: &OtherRingView| {
        format!(
            "{} with {}: {} addresses in use there, {} here, {} in both",
            other.ring,
            other.members.join(", "),
            other.live_there,
            other.live_here,
            other.conflicts.len()
        )
    };
    view.others.iter().map(line).collect()
}

fn conflicts(view: &IpamView) -> Vec<String> {
    let conflicts = view.others.iter().flat_map(|other| &other.conflicts);
    let line = |c: &ConflictView| {
        let (name, id) = (&c.name, short(&c.peer));
        format!(
            "{} of {} here, and on {name} ({id})",
            c.address, c.container
        )
    };
    conflicts.map(line).collect()
}

fn refused(view: &IpamView) -> Vec<String> {
    let line = |refused: &RefusedView| {
        let (name, id) = (&refused.name, short(&refused.peer));
        format!(
            "{} messages of {name} ({id}): {}",
            refused.count, refused.reason
        )
    };
    view.refused.iter().map(line).collect()
}

/// `rmesh ipam ls`.
pub(crate) fn ipam_addresses(addresses: &[AddressView], all: bool) -> String {
    let head: &[&str] = match all {
        true => &["ADDRESS", "PEER", "CONTAINER", "STATE", "SINCE"],
        false => &["ADDRESS", "CONTAINER", "STATE", "SINCE"],
    };
    let mut table = table(head);
    for address in addresses {
        let mut row = vec![address.address.as_str()];
        if all {
            row.push(&address.name);
        }
        let (state, since) = (state(address), since(address));
        row.extend([or_dash(&address.container), &state, or_dash(&since)]);
        table.add_row(row);
    }
    text(&table, "no addresses are in use")
}

/// How long ago it began, if that is known.
fn since(address: &AddressView) -> String {
    let since = address.since_s.map(Duration::from_secs);
    since.map_or_else(String::new, |since| format!("{} ago", duration::age(since)))
}

fn state(address: &AddressView) -> String {
    match address.state {
        AddressState::Used => "used".into(),
        AddressState::Pending => "pending: its owner has not granted it yet".into(),
        AddressState::Kept => "kept for a container that is not attached".into(),
        AddressState::Announced => "announced".into(),
        AddressState::Unreachable => "announced by a peer that does not answer".into(),
        AddressState::Resting => {
            let left = address.ends_in_ms.map(Duration::from_millis);
            format!(
                "free, rests for {} yet",
                duration::age(left.unwrap_or_default())
            )
        }
        AddressState::Held => {
            let who = address.held_for.as_deref().unwrap_or("-");
            let left = address.ends_in_ms.map(Duration::from_millis);
            let left = left.map_or_else(String::new, |left| {
                format!(", for {} yet", duration::age(left))
            });
            format!("held for {who}{left}")
        }
    }
}

/// `rmesh ipam check`.
pub(crate) fn ipam_check(view: &CheckView) -> String {
    let looked = format!(
        "{} containers and {} addresses of the ledger looked at",
        view.containers, view.addresses
    );
    if view.differences.is_empty() {
        return format!("{looked}: all agree\n");
    }
    let mut page = format!("{looked}\n");
    for difference in &view.differences {
        let address = difference.address.map(|ip| format!("{ip} "));
        let _ = writeln!(
            page,
            "{}{}: {}",
            address.unwrap_or_default(),
            difference.container,
            difference.what
        );
        if !difference.todo.is_empty() {
            let _ = writeln!(page, "  to do: {}", difference.todo);
        }
    }
    page
}

/// `rmesh rmpeer`.
pub(crate) fn removed(reply: &RemoveReply) -> String {
    let who = format!("{} ({})", reply.name, short(&reply.peer));
    if reply.taken.is_empty() {
        return format!("{who} owns no addresses; there is nothing to take over\n");
    }
    let mut page = String::new();
    for taken in reply.taken.iter().take(LINES_MAX) {
        let _ = writeln!(page, "taken over from {who}: {taken}");
    }
    if let Some(more) = reply.taken.len().checked_sub(LINES_MAX).filter(|n| *n > 0) {
        let _ = writeln!(
            page,
            "taken over from {who}: {more} more ranges, see --json"
        );
    }
    if reply.held.0 > 0 {
        let left = reply.held_for_ms.map(Duration::from_millis);
        // Some milliseconds have passed since.
        let left = left.map(|left| left + Duration::from_secs(60));
        let left = left.map_or_else(String::new, |left| format!(" for {}", duration::age(left)));
        let _ = writeln!(
            page,
            "{} of them, which it had in use, are held{left}, unless it returns or `rmesh ipam release \
             ADDR` is run; `rmesh ipam ls` shows them",
            reply.held
        );
    }
    page
}

#[cfg(test)]
mod tests;
