//! Words about addresses: `rmesh ipam …` and `rmesh rmpeer`.

use std::net::IpAddr;
use std::time::Duration;

use clap::builder::FalseyValueParser;
use clap::{ArgAction, Args, Subcommand};
use ipnet::IpNet;

use super::{check_ip, parse_interface};
use crate::subnet::parse_subnet;

/// Removing a peer takes a probe of 2 s and words with the witnesses, who may be far.
pub(crate) const RMPEER_TIMEOUT: Duration = Duration::from_secs(30);

/// `rmesh ipam`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  \
    sudo rmesh ipam status          # pools, owners, witnesses, and what is not well\n  \
    sudo rmesh ipam ls --all\n  \
    sudo rmesh ipam check && echo all agree\n  \
    sudo rmesh ipam pool add 10.96.0.0/16\n  \
    sudo rmesh ipam release --help  # each has examples")]
pub(crate) struct IpamArgs {
    #[command(subcommand)]
    pub(crate) verb: IpamVerb,
}

/// What to do about addresses.
#[derive(Debug, Subcommand)]
pub(crate) enum IpamVerb {
    /// Show pools, owners, witnesses, holds and what is not well, with the command that helps
    #[command(after_help = "Examples:\n  \
        sudo rmesh ipam status\n  \
        sudo rmesh ipam status --json | jq -r '.advice[]'")]
    Status,
    /// List the addresses of this host's containers
    Ls(LsArgs),
    Claim(ClaimArgs),
    Release(ReleaseArgs),
    /// Compare ring, ledger and what containers really carry; exit code 1 if they differ
    #[command(after_help = "Examples:\n  sudo rmesh ipam check\n  \
        sudo rmesh ipam check --json | jq '.differences[].todo'")]
    Check,
    Adopt(AdoptArgs),
    Pool(PoolArgs),
}

/// `rmesh ipam pool`.
#[derive(Debug, Args)]
#[command(
    about = "Add addresses for containers to the ring",
    after_help = "Examples:\n  \
        sudo rmesh ipam pool add 10.96.0.0/16\n  \
        sudo rmesh ipam status          # shows the pools there are"
)]
pub(crate) struct PoolArgs {
    #[command(subcommand)]
    pub(crate) verb: PoolVerb,
}

/// What to do about pools.
#[derive(Debug, Subcommand)]
pub(crate) enum PoolVerb {
    Add(AddPoolArgs),
}

/// `rmesh ipam pool add`.
#[derive(Debug, Args)]
#[command(
    about = "Add one more pool of addresses, for all hosts",
    long_about = "Adds one more pool of addresses to the ring, for all hosts. Most witnesses have to \
        agree (see `rmesh ipam status`). It cannot be taken away again; a ring has at most eight.\n\n\
        It is refused if it overlaps another pool, a route of this host, or an address at which \
        another host is reached. Other hosts whose routes it overlaps say so in their status.\n\n\
        Containers get addresses of it where they or their host are given it with --subnet; without \
        that they get addresses of the first pool. A pool is one network: containers of two pools \
        reach each other only by routes that you add in them.",
    after_help = "Examples:\n  \
        sudo rmesh ipam pool add 10.96.0.0/16 && sudo rmesh attach web --subnet 10.96.0.0/16\n  \
        sudo rmesh ipam pool add fd40::/48"
)]
pub(crate) struct AddPoolArgs {
    /// The addresses: a whole subnet
    #[arg(value_name = "CIDR", value_parser = parse_subnet)]
    pub(crate) pool: IpNet,
}

/// `rmesh ipam ls`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  sudo rmesh ipam ls\n  sudo rmesh ipam ls --all")]
pub(crate) struct LsArgs {
    /// Those of all hosts too, as they announce them
    #[arg(long, env = "RMESH_ALL", action = ArgAction::SetTrue,
          value_parser = FalseyValueParser::new())]
    pub(crate) all: bool,
}

/// `rmesh ipam claim`.
#[derive(Debug, Args)]
#[command(
    about = "Give a container one more address",
    long_about = "Claims an address for a container, from the host that owns it if that is another. \
        An attached container carries it at once; for one that is not attached it is kept, and \
        `rmesh attach` then gives it. What is kept for a container that is never attached is free \
        again when rmesh is started anew, or with `rmesh ipam release`.",
    after_help = "Examples:\n  \
        sudo rmesh ipam claim 10.32.0.9 web\n  \
        sudo rmesh ipam claim 10.32.0.9/24 pid:4711 --ifname eth1\n\n\
        Without a length it gets that of the network the container is in, else that of the pool."
)]
pub(crate) struct ClaimArgs {
    /// The address, with or without prefix length
    #[arg(value_name = "ADDR", value_parser = parse_claim)]
    pub(crate) address: (IpAddr, Option<u8>),
    /// The container, as for `attach`
    #[arg(value_name = "TARGET")]
    pub(crate) target: String,
    /// Name of the interface in the container
    #[arg(long, env = "RMESH_IFNAME", value_parser = parse_interface,
          default_value = rmesh_router::attach::INTERFACE_DEFAULT)]
    pub(crate) ifname: String,
}

/// `rmesh ipam release`.
#[derive(Debug, Args)]
#[command(
    about = "Free an address, or end the hold on one",
    long_about = "Frees an address that no container of this host carries any more, or all that are \
        kept for a container that is not attached, or ends the hold on one that a removed peer had \
        in use.\n\n\
        It refuses while a container carries the address, since the next container would get it \
        too; there is no flag against that: `rmesh detach` takes it away and frees it.",
    after_help = "Examples:\n  \
        sudo rmesh ipam release 10.32.0.9\n  \
        sudo rmesh ipam release web        # a container that is not attached\n\n\
        A hold is ended on the host that took the address over; another one says which that is."
)]
pub(crate) struct ReleaseArgs {
    /// An address, or a container as for `attach`
    #[arg(value_name = "ADDR|TARGET", value_parser = parse_release)]
    pub(crate) what: ReleaseWhat,
}

/// What is to be released.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum ReleaseWhat {
    /// One address.
    Address(IpAddr),
    /// All of a container.
    Target(String),
}

/// `rmesh ipam adopt`.
#[derive(Debug, Args)]
#[command(
    about = "Join the ring of addresses that another peer is in",
    long_about = "Leaves the ring of addresses this host is in and joins the one another peer is in. \
        Two rings are there when hosts were launched apart and connected later. Usually the smaller \
        one joins the other by itself; it does not while one address is used in both. Containers \
        keep their addresses, which are then claimed in the ring joined.",
    after_help = "Examples:\n  \
        sudo rmesh ipam adopt host1           # the ring host1 is in\n  \
        sudo rmesh ipam adopt 3f2a9c01d4e5    # as `rmesh ipam status` shows it\n\n\
        It refuses while a container here has an address that the other ring has in use, and names \
        both; detach it first."
)]
pub(crate) struct AdoptArgs {
    /// A peer in it, by name or at least 6 digits of its id, or the ring itself
    #[arg(value_name = "PEER|RING")]
    pub(crate) to: String,
}

/// `rmesh rmpeer`.
#[derive(Debug, Args)]
#[command(
    about = "Take over the addresses of a peer that will not come back",
    long_about = "Takes over the addresses that a peer owns which will not come back. Any member can \
        do it, several at once, and twice. Addresses the peer had in use are held: they are not \
        handed out until it returns and claims them, `rmesh ipam release` is run, or 24 hours have \
        passed.\n\n\
        The peer is asked for 2 s for a sign of life first; while it answers it is not removed. Then \
        it is waited until it has been silent for 2.5 s, which --force does not. Most \
        witnesses have to answer (see `rmesh ipam status`). With two hosts, or when most witnesses \
        are gone, --force forms the witnesses anew from the peers that answer: an address that only \
        the others know to be in use may then be given twice.",
    after_help = "Examples:\n  \
        sudo rmesh rmpeer host3\n  \
        sudo rmesh rmpeer 3f2a9c               # start of its id\n  \
        sudo rmesh rmpeer host2 --force        # the other one of two hosts is gone for good\n\n\
        Gives up after 30 s unless --timeout says otherwise."
)]
pub(crate) struct RmpeerArgs {
    /// Its name, or at least 6 digits of its id
    #[arg(value_name = "PEER")]
    pub(crate) peer: String,
    /// Although it answers, or although most witnesses do not
    #[arg(long, env = "RMESH_FORCE", action = ArgAction::SetTrue,
          value_parser = FalseyValueParser::new())]
    pub(crate) force: bool,
}

fn parse_claim(text: &str) -> Result<(IpAddr, Option<u8>), String> {
    let wrong = || format!("{text:?} is not like 10.32.0.9, 10.32.0.9/24 or fd32::9");
    let (address, len) = match text.contains('/') {
        true => {
            let net: IpNet = text.parse().map_err(|_| wrong())?;
            (net.addr(), Some(net.prefix_len()))
        }
        false => (text.parse().map_err(|_| wrong())?, None),
    };
    check_ip(&IpNet::from(address))?;
    Ok((address, len))
}

fn parse_release(text: &str) -> Result<ReleaseWhat, String> {
    if let Ok(address) = text.parse() {
        return Ok(ReleaseWhat::Address(address));
    }
    if text.parse::<IpNet>().is_ok() {
        return Err("an address without prefix length, please".into());
    }
    Ok(ReleaseWhat::Target(text.into()))
}
