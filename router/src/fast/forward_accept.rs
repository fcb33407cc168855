//! Lets frames through between ports of the bridge where the host's firewall would drop them.
//!
//! With br_netfilter on, frames that a bridge passes on are shown to the rules for packets that the
//! host routes, and Docker sets the policy of those to drop. So each such chain gets one rule at its
//! head that accepts what comes in and goes out by our bridge. It is marked by a comment. So do chains whose
//! policy is to accept and whose last rule refuses all that is left, as firewalld and others write them.

use std::fs;
use std::path::Path;

use crate::kernel::KernelError;
use crate::kernel::link::check_name;
use crate::kernel::nftables::decode::{Attributes, ChainState, RuleState};
use crate::kernel::nftables::encode::{
    Is, Meta, Rule, Table, Verdict, attribute, attributes, comment, hook, message, text,
};
use crate::kernel::nftables::{Family, Nftables};

/// Chains and rules looked at: more than the largest hosts have.
const OBJECTS_MAX: usize = 1 << 18;
/// Where br_netfilter's switches are, one a family of addresses.
const SWITCHES: [&str; 2] = ["bridge-nf-call-iptables", "bridge-nf-call-ip6tables"];
/// Tables of the old xtables kind in use here, one a line, and the program that changes them.
const OLD_TABLES: [(&str, &str); 2] = [
    ("/proc/net/ip_tables_names", "iptables-legacy"),
    ("/proc/net/ip6_tables_names", "ip6tables-legacy"),
];

/// Sees to it that the host's firewall lets frames through between ports of the bridge, in the
/// caller's network namespace; says in words what was done. What only the operator can do is said
/// at each call: rules of the old xtables kind, where they are in use.
///
/// # Errors
/// If the kernel refuses.
pub fn accept_bridged(bridge: &str) -> Result<Vec<String>, KernelError> {
    check_name(bridge)?;
    let mut words = Vec::new();
    if !sees_bridged() {
        return Ok(words);
    }
    let Some(mut nftables) = Nftables::available()? else {
        return Ok(old_tables(bridge));
    };
    for (table, chain) in dropping(&mut nftables)? {
        // Only what is in this chain: a host of a cluster has tens of thousands of rules.
        let within = attribute(attributes::RULE_CHAIN, &text(&chain));
        let within = [table.attribute(), within].concat();
        let rules = ours(&mut nftables, bridge, (table.family, &within))?;
        let here = |rule: &Found| rule.table == table && rule.chain == chain;
        if rules.iter().any(here) {
            continue;
        }
        let rule = Rule::default()
            .interface(Meta::InterfaceIn, Is::Equal, bridge)
            .interface(Meta::InterfaceOut, Is::Equal, bridge)
            .count()
            .end(Verdict::Accept);
        let change = table.first_rule(&chain, &rule, &mark(bridge));
        let doing = format!("let frames through {bridge} past chain {chain}");
        nftables.commit(&doing, &[change])?;
        words.push(format!(
            "the firewall's chain {chain} of table {} drops what it does not know, frames between \
             containers too; a rule that accepts those of {bridge} was added",
            table.name
        ));
    }
    words.extend(old_tables(bridge));
    Ok(words)
}

/// Undoes [`accept_bridged`], for a bridge that is there or not; success too if there is nothing.
///
/// # Errors
/// If the kernel refuses.
pub fn unaccept_bridged(bridge: &str) -> Result<(), KernelError> {
    check_name(bridge)?;
    let Some(mut nftables) = Nftables::available()? else {
        return Ok(());
    };
    for rule in ours(&mut nftables, bridge, (Family::ANY, &[]))? {
        let change = rule.table.delete_rule(&rule.chain, rule.handle);
        match nftables.commit("remove a rule that accepts bridged frames", &[change]) {
            Err(error) if error.errno() == Some(libc::ENOENT) => {}
            other => other?,
        }
    }
    Ok(())
}

/// A rule of ours.
struct Found {
    table: Table,
    chain: String,
    handle: u64,
}

fn sees_bridged() -> bool {
    let folder = Path::new("/proc/sys/net/bridge");
    let is_on = |name: &str| fs::read_to_string(folder.join(name)).is_ok_and(|v| v.trim() != "0");
    SWITCHES.into_iter().any(is_on)
}

fn mark(bridge: &str) -> String {
    format!("rmesh {bridge}")
}

fn is_routed(family: Family) -> bool {
    [Family::INET, Family::IPV4, Family::IPV6].contains(&family)
}

/// Our rules, in the chain that the attributes name or in all.
fn ours(
    nftables: &mut Nftables,
    bridge: &str,
    (family, within): (Family, &[u8]),
) -> Result<Vec<Found>, KernelError> {
    let mark = comment(&mark(bridge));
    let doing = "list the firewall's rules";
    let kind = (family, message::GET_RULE);
    nftables.dump(doing, kind, within, |all: &mut Vec<_>, family, one| {
        let Some(rule) = RuleState::read(Attributes(one)) else {
            return;
        };
        if is_routed(family) && rule.user_data == mark && all.len() < OBJECTS_MAX {
            let table = Table {
                family,
                name: rule.table,
            };
            let (chain, handle) = (rule.chain, rule.handle);
            all.push(Found {
                table,
                chain,
                handle,
            });
        }
    })
}

/// Chains that drop what the host would route unless a rule accepts it.
fn dropping(nftables: &mut Nftables) -> Result<Vec<(Table, String)>, KernelError> {
    let mut dropping = Vec::new();
    for (table, chain, by_policy) in forwarding(nftables)? {
        if by_policy || ends_with_refusal(nftables, &table, &chain)? {
            dropping.push((table, chain));
        }
    }
    Ok(dropping)
}

/// Whether the last rule of a chain refuses all that is left.
fn ends_with_refusal(
    nftables: &mut Nftables,
    table: &Table,
    chain: &str,
) -> Result<bool, KernelError> {
    let within = attribute(attributes::RULE_CHAIN, &text(chain));
    let within = [table.attribute(), within].concat();
    let kind = (table.family, message::GET_RULE);
    let doing = "look at the end of a chain of the firewall";
    let last = nftables.dump(doing, kind, &within, |last: &mut Option<bool>, _, one| {
        let rule = RuleState::read(Attributes(one));
        let here = rule.filter(|rule| rule.table == table.name && rule.chain == chain);
        *last = here.map(|rule| rule.refuses_all).or(*last);
    })?;
    Ok(last.unwrap_or(false))
}

/// Chains for what the host would route, and whether their policy is to drop it.
fn forwarding(nftables: &mut Nftables) -> Result<Vec<(Table, String, bool)>, KernelError> {
    let kind = (Family::ANY, message::GET_CHAIN);
    nftables.dump(
        "list the firewall's chains",
        kind,
        &[],
        |all: &mut Vec<_>, family, one| {
            let Some(chain) = ChainState::read(Attributes(one)) else {
                return;
            };
            let forwards = chain
                .hook
                .is_some_and(|(number, _)| number == hook::FORWARD);
            if forwards && is_routed(family) && all.len() < OBJECTS_MAX {
                let table = Table {
                    family,
                    name: chain.table,
                };
                all.push((table, chain.name, chain.policy == Some(attributes::DROP)));
            }
        },
    )
}

/// What to do about rules that nftables does not show.
fn old_tables(bridge: &str) -> Vec<String> {
    let uses = |file: &str| {
        fs::read_to_string(file).is_ok_and(|names| names.lines().any(|name| name == "filter"))
    };
    let used = OLD_TABLES.into_iter().filter(|(file, _)| uses(file));
    let advice = |(_, program)| {
        format!(
            "the host's firewall uses old xtables rules; if their FORWARD policy is DROP, \
             containers of one host do not reach each other before: \
             {program} -I FORWARD -i {bridge} -o {bridge} -j ACCEPT"
        )
    };
    used.map(advice).collect()
}
