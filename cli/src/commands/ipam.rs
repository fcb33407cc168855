//! `rmesh ipam`: addresses of containers.

use super::{print, print_json, print_line};
use crate::api::{
    AddressView, AdoptBody, AdoptReply, CheckView, ClaimBody, ClaimReply, IpamView, PoolBody,
    PoolReply, ReleaseBody, ReleaseReply,
};
use crate::args::{
    AddPoolArgs, AdoptArgs, ClaimArgs, Global, IpamArgs, IpamVerb, LsArgs, PoolVerb, ReleaseArgs,
    ReleaseWhat,
};
use crate::client;
use crate::failure::Failure;
use crate::render;

pub(super) fn run(global: &Global, args: IpamArgs) -> Result<(), Failure> {
    match args.verb {
        IpamVerb::Status => status(global),
        IpamVerb::Ls(args) => ls(global, &args),
        IpamVerb::Claim(args) => claim(global, args),
        IpamVerb::Release(args) => release(global, args),
        IpamVerb::Check => check(global),
        IpamVerb::Adopt(args) => adopt(global, args),
        IpamVerb::Pool(args) => match args.verb {
            PoolVerb::Add(args) => add_pool(global, &args),
        },
    }
}

fn status(global: &Global) -> Result<(), Failure> {
    let view: IpamView = client::get(global, "/v1/ipam")?;
    if global.json {
        return print_json(&view);
    }
    print(&render::ipam_status(&view))
}

fn ls(global: &Global, args: &LsArgs) -> Result<(), Failure> {
    let mut addresses: Vec<AddressView> = client::get(global, "/v1/ipam/addresses")?;
    addresses.retain(|address| args.all || address.here);
    if global.json {
        return print_json(&addresses);
    }
    print(&render::ipam_addresses(&addresses, args.all))
}

fn claim(global: &Global, args: ClaimArgs) -> Result<(), Failure> {
    let (address, prefix_len) = args.address;
    let body = ClaimBody {
        address,
        prefix_len,
        target: args.target,
        ifname: args.ifname,
    };
    let reply: ClaimReply = client::post(global, "/v1/ipam/claim", &body)?;
    if !reply.attached {
        eprintln!(
            "note: {0} is not attached; the address is kept for it until `rmesh attach {0}`",
            reply.target
        );
    }
    if global.json {
        return print_json(&reply);
    }
    print_line(&reply.address.to_string())
}

fn release(global: &Global, args: ReleaseArgs) -> Result<(), Failure> {
    let (address, target) = match args.what {
        ReleaseWhat::Address(address) => (Some(address), None),
        ReleaseWhat::Target(target) => (None, Some(target)),
    };
    let body = ReleaseBody {
        address,
        target,
        container: None,
    };
    let reply: ReleaseReply = client::post(global, "/v1/ipam/release", &body)?;
    if global.json {
        return print_json(&reply);
    }
    let mut released = reply.released.iter();
    released.try_for_each(|address| print_line(&format!("released: {address}")))
}

fn check(global: &Global) -> Result<(), Failure> {
    let view: CheckView = client::get(global, "/v1/ipam/check")?;
    if global.json {
        print_json(&view)?;
    } else {
        print(&render::ipam_check(&view))?;
    }
    let why = match view.differences.len() {
        0 => return Ok(()),
        1 => "1 difference".into(),
        count => format!("{count} differences"),
    };
    Err(
        Failure::failed("ring, ledger and containers do not agree", why)
            .todo("each line above says what helps"),
    )
}

fn adopt(global: &Global, args: AdoptArgs) -> Result<(), Failure> {
    let body = AdoptBody { to: args.to };
    let reply: AdoptReply = client::post(global, "/v1/ipam/adopt", &body)?;
    if global.json {
        return print_json(&reply);
    }
    print_line(&format!(
        "this peer is in ring {} now; addresses its containers carry are being claimed there (see \
         `rmesh ipam status`)",
        reply.ring
    ))
}

fn add_pool(global: &Global, args: &AddPoolArgs) -> Result<(), Failure> {
    let body = PoolBody { pool: args.pool };
    let reply: PoolReply = client::post(global, "/v1/ipam/pools", &body)?;
    if global.json {
        return print_json(&reply);
    }
    let pool = reply.pool;
    match reply.added {
        true => print_line(&format!(
            "added: {pool}; containers get addresses of it by: rmesh attach TARGET --subnet {pool}"
        )),
        false => print_line(&format!("{pool} was a pool already")),
    }
}
