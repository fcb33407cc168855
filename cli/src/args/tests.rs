//! The words of the command line, and what they become.

use super::*;

fn read(line: &str) -> Arguments {
    parse(line.split_whitespace()).unwrap()
}

fn refused(line: &str) -> i32 {
    parse(line.split_whitespace()).unwrap_err().exit_code()
}

#[test]
fn the_definition_is_sound() {
    Arguments::command().debug_assert();
}

#[test]
fn global_flags_go_before_and_after_the_verb() {
    for line in [
        "rmesh --json --timeout 500ms --run-dir /r --state-dir /s ps",
        "rmesh ps --json --timeout 500ms --run-dir /r --state-dir /s",
        "rmesh --json --run-dir /r ps --timeout 500ms --state-dir /s",
    ] {
        let Arguments { global, verb } = read(line);
        assert!(global.json && matches!(verb, Verb::Ps), "{line}");
        assert_eq!(global.timeout, Duration::from_millis(500));
        assert_eq!(global.run_dir, PathBuf::from("/r"));
        assert_eq!(global.state_dir, PathBuf::from("/s"));
    }
}

#[test]
fn defaults_are_those_documented() {
    let Arguments { global, verb } = read("rmesh launch host1 [2001:db8::1]:7000");
    assert_eq!(global.timeout, Duration::from_secs(10));
    assert_eq!(global.run_dir, PathBuf::from("/run/rmesh"));
    assert_eq!(global.state_dir, PathBuf::from("/var/lib/rmesh"));
    let Verb::Launch(launch) = verb else {
        panic!("{verb:?}")
    };
    let peers: Vec<String> = launch.peers.iter().map(ToString::to_string).collect();
    assert_eq!(peers, ["host1:6783", "[2001:db8::1]:7000"]);
    assert_eq!(
        (launch.port, launch.mtu, launch.workers),
        (6783, 1328, None)
    );
    assert_eq!(launch.bridge, "rmesh");
}

#[test]
fn the_systemd_unit_starts_the_daemon() {
    let unit = include_str!("../../../deploy/rmesh.service");
    let line = unit
        .lines()
        .find_map(|l| l.strip_prefix("ExecStart=/usr/bin/"));
    let line = line.unwrap().replace("$RMESH_PEERS", "host1 host2");
    let Verb::Launch(launch) = read(&line).verb else {
        panic!("{line}")
    };
    assert!(launch.foreground && launch.peers.len() == 2);
}

#[test]
fn attach_takes_several_addresses() {
    let Verb::Attach(attach) = read("rmesh attach web --ip 10.0.0.1/8 --ip fd32::1/64").verb else {
        panic!()
    };
    assert_eq!(attach.ip.len(), 2);
    assert_eq!(
        (attach.ifname.as_str(), attach.name.as_str()),
        ("rmesh0", "")
    );
}

#[test]
fn wrong_usage_is_exit_code_two() {
    for line in [
        "rmesh",
        "rmesh lunch",
        "rmesh launch --secret x --secret-file y",
        "rmesh launch host:0",
        "rmesh launch --mtu 100",
        "rmesh launch --bridge a/b",
        "rmesh launch --cidr 10.32.0.1/12",
        "rmesh launch --cidr fd32::/48",
        "rmesh launch --cidr6 10.32.0.0/12",
        "rmesh launch --cidr 224.0.0.0/8",
        "rmesh launch --cidr 10.32.0.0/31",
        "rmesh launch --init-peers 0",
        "rmesh attach web --subnet 10.32.0.7/24",
        "rmesh attach web --no-ip --ip 10.32.0.7/24",
        "rmesh launch --bridge twelve-bytes",
        "rmesh connect",
        "rmesh attach",
        "rmesh attach web --ip 10.0.0.1",
        "rmesh attach web --ip 224.0.0.1/24",
        "rmesh attach web --ifname sixteen-bytes-xx",
        "rmesh status nothing",
        "rmesh ps --timeout 0",
    ] {
        assert_eq!(refused(line), 2, "{line}");
    }
}

#[test]
fn every_flag_has_its_variable_and_every_verb_teaches_by_example() {
    let command = Arguments::command();
    let flags = |command: &clap::Command| {
        for arg in command.get_arguments().filter(|a| a.get_long().is_some()) {
            let variable = arg.get_env().map(|v| v.to_string_lossy().into_owned());
            let builtin = matches!(arg.get_long(), Some("help" | "version"));
            let named = variable.is_some_and(|v| v.starts_with("RMESH_"));
            assert!(named || builtin, "{arg}");
        }
    };
    flags(&command);
    let verbs = command.get_subcommands();
    let verbs = verbs.flat_map(|verb| [verb].into_iter().chain(verb.get_subcommands()));
    for verb in verbs.filter(|v| v.get_name() != "version") {
        flags(verb);
        let help = verb
            .get_after_help()
            .map(ToString::to_string)
            .unwrap_or_default();
        assert!(help.contains("rmesh"), "{}", verb.get_name());
    }
    for verb in ["launch", "forget", "attach", "report", "demo"] {
        let verb = command.find_subcommand(verb).unwrap();
        assert!(verb.get_about().is_some() && verb.get_long_about().is_some());
    }
}

#[test]
fn removing_a_peer_has_a_time_limit_of_its_own() {
    for (line, seconds) in [
        ("rmesh rmpeer host3", 30),
        ("rmesh rmpeer host3 --force", 30),
        ("rmesh rmpeer host3 --timeout 10s", 10),
        ("rmesh --timeout 7s rmpeer host3", 7),
        ("rmesh ipam status", 10),
    ] {
        let timeout = read(line).global.timeout;
        assert_eq!(timeout, Duration::from_secs(seconds), "{line}");
    }
}

#[test]
fn an_address_is_claimed_with_or_without_its_length() {
    let claimed = |line: &str| match read(line).verb {
        Verb::Ipam(IpamArgs {
            verb: IpamVerb::Claim(args),
        }) => (args.address, args.target),
        verb => panic!("{verb:?}"),
    };
    let ip: IpAddr = "10.32.0.9".parse().unwrap();
    let web = String::from("web");
    assert_eq!(
        claimed("rmesh ipam claim 10.32.0.9 web"),
        ((ip, None), web.clone())
    );
    assert_eq!(
        claimed("rmesh ipam claim 10.32.0.9/24 web"),
        ((ip, Some(24)), web)
    );
}

#[test]
fn what_is_released_is_an_address_or_a_container() {
    let released = |line: &str| match read(line).verb {
        Verb::Ipam(IpamArgs {
            verb: IpamVerb::Release(args),
        }) => args.what,
        verb => panic!("{verb:?}"),
    };
    let address = ReleaseWhat::Address("fd32::9".parse().unwrap());
    assert_eq!(released("rmesh ipam release fd32::9"), address);
    let target = ReleaseWhat::Target("pid:7".into());
    assert_eq!(released("rmesh ipam release pid:7"), target);
    for line in [
        "rmesh ipam release 10.32.0.0/24",
        "rmesh ipam claim 10.32.0.300 web",
        "rmesh ipam claim 10.32.0.1/33 web",
        "rmesh ipam claim 224.0.0.1 web",
        "rmesh ipam claim 10.32.0.1",
        "rmesh ipam",
        "rmesh ipam adopt",
        "rmesh ipam pool",
        "rmesh ipam pool add",
        "rmesh ipam pool add 10.96.0.1/16",
        "rmesh ipam pool add 10.96.0.0",
        "rmesh ipam pool add ::/0",
        "rmesh rmpeer",
    ] {
        assert_eq!(refused(line), 2, "{line}");
    }
}
