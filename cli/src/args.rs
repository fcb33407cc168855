//! The command line: verbs, flags and their `RMESH_*` variables, and help by example.

mod ipam;

pub(crate) use ipam::{
    AddPoolArgs, AdoptArgs, ClaimArgs, IpamArgs, IpamVerb, LsArgs, PoolVerb, ReleaseArgs,
    ReleaseWhat, RmpeerArgs,
};

use std::ffi::OsString;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use clap::builder::FalseyValueParser;
use clap::parser::ValueSource;
use clap::{
    ArgAction, Args, CommandFactory as _, FromArgMatches as _, Parser, Subcommand, ValueEnum,
};
use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use crate::daemon::TcpPort;
use crate::duration;
use crate::logging::LogFormat;
use crate::peer_address::{PORT_DEFAULT, PeerAddress, parse_socket_address};
use crate::rate::Rate;
use crate::secret_word::SecretWord;
use crate::subnet::{parse_cidr, parse_cidr6, parse_network, parse_subnet};
use crate::without::Feature;

/// Where the daemon's socket is.
pub(crate) const RUN_DIR_DEFAULT: &str = "/run/rmesh";
/// Where identity, secret and the rest are kept.
pub(crate) const STATE_DIR_DEFAULT: &str = "/var/lib/rmesh";
/// Fits an encrypted frame into 1500 bytes over IPv6 relayed and 1460 over IPv4 relayed.
const MTU_DEFAULT: &str = "1328";
/// Longest bridge name: the kernel takes 15 bytes, and the TAP is called `BRIDGE-tap`.
const BRIDGE_LEN_MAX: usize = 11;
/// Longest interface name (IFNAMSIZ - 1).
const INTERFACE_LEN_MAX: usize = 15;
/// Longest name of a peer or a container, in bytes.
const NAME_LEN_MAX: usize = 63;

/// Everything on one command line.
#[derive(Debug, Parser)]
#[command(
    name = "rmesh",
    version,
    about = "Container networks that need no store, no controller and no launch order",
    long_about = "Joins containers on many hosts into one encrypted Ethernet network.\n\
        Hosts find each other from one or two names; there is no key-value store, no controller \
        and no launch order.",
    after_help = "Examples:\n  \
        sudo rmesh launch                          # the first host founds a mesh\n  \
        sudo rmesh secret | ssh host2 sudo rmesh launch --secret-file - host1\n  \
        sudo rmesh attach web                      # a network namespace made by `ip netns add web`\n  \
        sudo rmesh status\n\n\
        Exit codes: 0 done, 1 failed, 2 wrong usage."
)]
pub(crate) struct Arguments {
    #[command(flatten)]
    pub(crate) global: Global,
    #[command(subcommand)]
    pub(crate) verb: Verb,
}

/// Flags accepted before and after the verb.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Global options")]
pub(crate) struct Global {
    /// Print JSON instead of text
    #[arg(long, global = true, env = "RMESH_JSON", action = ArgAction::SetTrue,
          value_parser = FalseyValueParser::new())]
    pub(crate) json: bool,
    /// Give up after this time (10, 10s, 500ms, 2m)
    #[arg(long, global = true, env = "RMESH_TIMEOUT", default_value = "10s",
          value_parser = duration::parse)]
    pub(crate) timeout: Duration,
    /// Folder of the daemon's socket
    #[arg(long, global = true, env = "RMESH_RUN_DIR", default_value = RUN_DIR_DEFAULT)]
    pub(crate) run_dir: PathBuf,
    /// Folder of identity, secret, remembered peers and the log
    #[arg(long, global = true, env = "RMESH_STATE_DIR", default_value = STATE_DIR_DEFAULT)]
    pub(crate) state_dir: PathBuf,
}

/// What to do. A doc comment here would hide the long text of the verb's own arguments.
#[derive(Debug, Subcommand)]
pub(crate) enum Verb {
    Launch(Box<LaunchArgs>),
    /// Stop the router; containers keep their interfaces and local traffic
    #[command(after_help = "Example:\n  sudo rmesh stop && sudo rmesh launch    # restart")]
    Stop,
    Reset(ResetArgs),
    /// Connect to further peers, now and after every restart
    Connect(ConnectArgs),
    Forget(ForgetArgs),
    Attach(AttachArgs),
    /// Take a container's interface away
    Detach(DetachArgs),
    /// Addresses of containers: who owns them, who has them, and what to do about it
    Ipam(IpamArgs),
    Rmpeer(RmpeerArgs),
    /// List the attached containers of this host
    #[command(
        after_help = "Examples:\n  sudo rmesh ps\n  sudo rmesh ps --json | jq '.[].addresses'"
    )]
    Ps,
    /// Show how the mesh is doing
    Status(StatusArgs),
    Why(WhyArgs),
    /// Show what this host's network allows: UDP, TCP, address translation, IPv6, MTU
    #[command(
        long_about = "Shows what this host's network allows, as the other peers have it: how many answer by UDP and \
            which are reached by TCP only; whether somebody translates its address, and whether each peer \
            sees another one, so that such hosts are relayed to each other; IPv6; and the path MTUs.\n\n\
            What kind of translation it is takes two peers beyond it.",
        after_help = "Examples:\n  sudo rmesh netcheck\n  sudo rmesh netcheck --json | jq .ipv4.mapping"
    )]
    Netcheck,
    /// Print the mesh secret that the next host needs
    #[command(after_help = "Example:\n  \
        sudo rmesh secret | ssh host2 sudo rmesh launch --secret-file - host1")]
    Secret,
    /// Print everything for a bug report as JSON, without secrets
    #[command(
        long_about = "Prints one JSON document with everything a bug report needs: version, kernel, \
            processor and memory; the daemon's arguments, RMESH_* variables, capabilities and \
            memory; all that `status`, `ps` and the API show; names, sizes and modes of the files \
            in the state and run folders, and whether their checksums are right; links, addresses, \
            routes and settings of the host's network; the last 200 lines of the log.\n\n\
            It holds no secret: neither the mesh secret nor the identity key nor a passphrase, and \
            nothing of the files that keep them. It does hold addresses, MACs and the names of \
            hosts, peers and containers: read it before you publish it.\n\n\
            It is made within --timeout whatever hangs, and without a daemon too; what is missing \
            is named under \"problems\", and the exit code is 0.",
        after_help = "Examples:\n  \
            sudo rmesh report > report.json\n  \
            sudo rmesh report | jq .problems"
    )]
    Report,
    /// Print what makes a shell complete rmesh's words
    Completions(CompletionsArgs),
    /// Write the man pages into a folder; for packagers
    #[command(hide = true)]
    Man(ManArgs),
    /// Print the version
    Version,
    Demo(DemoArgs),
}

/// `rmesh launch`.
#[derive(Debug, Clone, Args)]
#[command(
    about = "Start the router on this host",
    long_about = "Starts the router and returns when it serves, which does not wait for peers.\n\
        Peers given are added to the remembered ones. Without peers, on a host without state, \
        founds a new mesh and makes its secret unless one is given.",
    after_help = "Examples:\n  \
        sudo rmesh launch                                    # found a mesh\n  \
        sudo rmesh launch --secret-file mesh.secret host1    # join the mesh of host1\n  \
        sudo rmesh launch                                    # start again with what is remembered\n  \
        sudo rmesh launch --advertise 203.0.113.9:6783       # behind a port forwarding\n  \
        sudo rmesh launch --cidr 10.40.0.0/16 --cidr6 fd40::/48 # addresses for containers, if there is no ring\n  \
        sudo rmesh launch --subnet 10.40.1.0/24 host1        # this host's containers get theirs from here\n  \
        sudo rmesh launch --init-peers 3 host1 host2         # three hosts found a ring together, in any order\n  \
        sudo rmesh launch --trusted-subnets 192.0.2.0/24     # no encryption within this network\n  \
        sudo rmesh launch --foreground                       # under systemd\n\n\
        The secret is what `rmesh secret` prints on a member, or a passphrase of 16 to 256 bytes; \
        whoever records the traffic can guess at a passphrase offline."
)]
pub(crate) struct LaunchArgs {
    #[arg(
        value_name = "PEER",
        help = "Peers to connect to: host, host:port, 192.0.2.1, 2001:db8::1, [2001:db8::1]:6783"
    )]
    pub(crate) peers: Vec<PeerAddress>,
    /// Name of this peer [default: the host name]
    #[arg(long, env = "RMESH_NAME", value_parser = parse_name)]
    pub(crate) name: Option<String>,
    /// The mesh secret; it shows in the shell's history, --secret-file does not
    #[arg(
        long,
        env = "RMESH_SECRET",
        hide_env_values = true,
        conflicts_with = "secret_file"
    )]
    pub(crate) secret: Option<SecretWord>,
    /// File with the mesh secret that only its owner can read; `-` reads standard input
    #[arg(long, env = "RMESH_SECRET_FILE")]
    pub(crate) secret_file: Option<PathBuf>,
    /// UDP port
    #[arg(long, env = "RMESH_PORT", default_value_t = PORT_DEFAULT)]
    pub(crate) port: u16,
    /// TCP port for hosts that UDP does not reach, or `none` [default: the number of the UDP port]
    ///
    /// The same datagrams cross by TCP where UDP to a peer has not been answered for 5 s and no other peer
    /// relays, and by UDP again as soon as that works. Where only few ports are open, 443 may be one of them.
    #[arg(long, value_name = "PORT", env = "RMESH_TCP_PORT", value_parser = parse_tcp_port)]
    pub(crate) tcp_port: Option<TcpPort>,
    /// Local address to use; repeatable [default: all]
    #[arg(long, env = "RMESH_BIND", value_delimiter = ',')]
    pub(crate) bind: Vec<IpAddr>,
    /// Use one network interface only, whatever addresses it has and gets
    ///
    /// UDP and TCP are sent and received by it alone, and its addresses are the only ones published. The kernel's
    /// VXLAN goes by the host's routes all the same.
    #[arg(long, value_name = "NAME", env = "RMESH_BIND_INTERFACE", value_parser = parse_interface,
          conflicts_with = "bind")]
    pub(crate) bind_interface: Option<String>,
    /// Address others can reach this peer at besides those found; repeatable
    #[arg(long, env = "RMESH_ADVERTISE", value_delimiter = ',',
          value_parser = parse_socket_address)]
    pub(crate) advertise: Vec<SocketAddr>,
    /// MTU of the containers in bytes, the same on all hosts
    ///
    /// The default fits packets of 1,500 bytes over any path. Up to 78 bytes below the underlay's
    /// packets (IPv4; 98 over IPv6, and 48 less again through other peers) frames cross whole: 8,832
    /// fits jumbo frames of 9,000. A larger one works: TCP is cut into shorter segments, other
    /// packets into sealed fragments.
    #[arg(long, env = "RMESH_MTU", default_value = MTU_DEFAULT,
          value_parser = clap::value_parser!(u16).range(576..=9216))]
    pub(crate) mtu: u16,
    /// Name of the Linux bridge
    #[arg(long, env = "RMESH_BRIDGE", default_value = "rmesh", value_parser = parse_bridge)]
    pub(crate) bridge: String,
    /// Addresses for containers, if there is no ring of addresses yet
    #[arg(long, env = "RMESH_CIDR", default_value = "10.32.0.0/12", value_parser = parse_cidr)]
    pub(crate) cidr: Ipv4Net,
    /// The same for IPv6 [default: a unique local prefix made from the mesh secret]
    #[arg(long, env = "RMESH_CIDR6", value_parser = parse_cidr6)]
    pub(crate) cidr6: Option<Ipv6Net>,
    /// Part of them that this host's containers get theirs from; one for IPv4, one for IPv6
    #[arg(long, value_name = "NET", env = "RMESH_SUBNET", value_delimiter = ',',
          value_parser = parse_subnet)]
    pub(crate) subnet: Vec<IpNet>,
    /// How many hosts found a ring of addresses together [default: this one and the peers given]
    #[arg(long, value_name = "N", env = "RMESH_INIT_PEERS",
          value_parser = clap::value_parser!(u16).range(1..))]
    pub(crate) init_peers: Option<u16>,
    /// Let frames cross by the kernel's VXLAN, not encrypted, to peers that are launched so too
    ///
    /// That is UDP port + 1, which firewalls between the hosts have to let through, and as fast as the
    /// kernel is. Whoever can read or forge packets between the hosts can read and forge containers'
    /// traffic then. Handshakes and control traffic stay encrypted, and so do broadcasts, translated and relayed paths.
    #[arg(long, env = "RMESH_NO_ENCRYPTION", action = ArgAction::SetTrue,
          value_parser = FalseyValueParser::new())]
    pub(crate) no_encryption: bool,
    /// The same only between hosts whose addresses are in these networks; the others have to say so too
    #[arg(long, value_name = "NET", env = "RMESH_TRUSTED_SUBNETS", value_delimiter = ',',
          value_parser = parse_network)]
    pub(crate) trusted_subnets: Vec<IpNet>,
    /// Carry nothing for others: no peer's traffic with another goes through this host
    ///
    /// What has no other way is not carried at all, so do without this on a host that joins two networks.
    #[arg(long, env = "RMESH_NO_RELAY", action = ArgAction::SetTrue,
          value_parser = FalseyValueParser::new())]
    pub(crate) no_relay: bool,
    /// Carry at most so many bits a second for each other peer: 500k, 20M, 1G [default: all]
    ///
    /// Counts what a peer sends to others through this host. What is more is dropped, and counted as `relay_limit`; a
    /// tenth of a second's worth may come at once. This host's own traffic and broadcasts are not limited.
    #[arg(
        long,
        value_name = "RATE",
        env = "RMESH_RELAY_LIMIT",
        conflicts_with = "no_relay"
    )]
    pub(crate) relay_limit: Option<Rate>,
    /// Threads that carry frames [default: one a core, at most 8]
    #[arg(long, value_name = "N", env = "RMESH_WORKERS",
          value_parser = clap::value_parser!(u16).range(1..=64))]
    pub(crate) workers: Option<u16>,
    /// Do without what kernel or processor could do for the data plane, to look for a fault
    #[arg(
        long,
        value_name = "FEATURE",
        env = "RMESH_WITHOUT",
        value_delimiter = ',',
        value_enum
    )]
    pub(crate) without: Vec<Feature>,
    /// Renew sessions earlier than after 120 s; for tests
    #[arg(long, hide = true, env = "RMESH_REKEY_AFTER", value_parser = duration::parse)]
    pub(crate) rekey_after: Option<Duration>,
    /// Form of the log; RMESH_LOG=debug makes it say more
    #[arg(long, env = "RMESH_LOG_FORMAT", value_enum, default_value_t = LogFormat::Text)]
    pub(crate) log_format: LogFormat,
    /// Stay in the foreground, log to standard error, tell systemd when ready
    #[arg(long, env = "RMESH_FOREGROUND", action = ArgAction::SetTrue,
          value_parser = FalseyValueParser::new())]
    pub(crate) foreground: bool,
}

/// `rmesh connect`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  \
    sudo rmesh connect host4\n  \
    sudo rmesh connect --replace host4 [2001:db8::5]:7000   # forget all others")]
pub(crate) struct ConnectArgs {
    /// Peers to connect to, as for `launch`
    #[arg(value_name = "PEER", required = true)]
    pub(crate) peers: Vec<PeerAddress>,
    /// Forget all other remembered peers
    #[arg(long, env = "RMESH_REPLACE", action = ArgAction::SetTrue,
          value_parser = FalseyValueParser::new())]
    pub(crate) replace: bool,
}

/// `rmesh forget`.
#[derive(Debug, Args)]
#[command(
    about = "Forget remembered peers",
    long_about = "Forgets remembered peers: they are not called again, now or after a restart. \
        A peer that others know is still found through them.",
    after_help = "Examples:\n  sudo rmesh forget host4\n  sudo rmesh forget 3f2a9c    # start of a peer id"
)]
pub(crate) struct ForgetArgs {
    /// As given to `launch` or `connect`, or a peer's name or at least 6 digits of its id
    #[arg(value_name = "PEER", required = true)]
    pub(crate) peers: Vec<String>,
}

/// `rmesh reset`.
#[derive(Debug, Args)]
#[command(
    about = "Remove every trace of rmesh from this host",
    long_about = "Removes every trace of rmesh from this host: ends the daemon, takes the \
        containers' interfaces and the bridge away, and removes identity, secret, all other state \
        and the log. What lies in the folders and is not rmesh's stays and is named.\n\n\
        Refuses while the daemon runs or containers are attached, and names what would be lost, \
        unless --force is given. Doing it again, after a crash, or with damaged files is fine.\n\n\
        The secret goes too: if this is the last host of its mesh, keep what `rmesh secret` prints.",
    after_help = "Examples:\n  \
        sudo rmesh stop && sudo rmesh reset    # refused if containers are still attached\n  \
        sudo rmesh reset --force\n  \
        sudo systemctl disable --now rmesh && sudo rmesh reset --force"
)]
pub(crate) struct ResetArgs {
    /// Also while the daemon runs or containers are attached
    #[arg(long, env = "RMESH_FORCE", action = ArgAction::SetTrue,
          value_parser = FalseyValueParser::new())]
    pub(crate) force: bool,
}

/// `rmesh attach`.
#[derive(Debug, Args)]
#[command(
    about = "Give a container an interface in the mesh",
    long_about = "Gives a container an interface in the mesh and returns when it is usable. \
        Prints its addresses, one a line. Doing it again changes nothing.",
    after_help = "Examples:\n  \
        sudo rmesh attach web                                # free addresses of both families\n  \
        sudo rmesh attach web --subnet 10.32.1.0/24          # a free address of this subnet\n  \
        sudo rmesh attach web --subnet 10.32.1.0/24 --subnet fd32:0:0:1::/64\n  \
        sudo rmesh attach web --ip 10.32.0.1/24 --ip fd32::1/64 # these, and no others\n  \
        sudo rmesh attach pid:4711 --ifname eth1\n  \
        sudo rmesh attach /proc/4711/ns/net\n\n\
        TARGET is a namespace made by `ip netns add`, a path to one, or a process in one. An address \
        inside a pool is claimed from the host that owns it; outside every pool it is taken as it is, \
        unless another host announces it. `rmesh ipam status` shows the pools.\n\n\
        Just after launch it waits up to half of --timeout, at most 5 s, for configured peers, so \
        that an address they use is noticed."
)]
pub(crate) struct AttachArgs {
    /// Name of a network namespace, absolute path to one, or pid:N
    #[arg(value_name = "TARGET")]
    pub(crate) target: String,
    /// Address with prefix length; repeatable
    #[arg(long, value_name = "ADDR/LEN", env = "RMESH_IP", value_delimiter = ',',
          value_parser = parse_ip)]
    pub(crate) ip: Vec<IpNet>,
    /// Get a free address of this subnet; one for IPv4, one for IPv6
    #[arg(long, value_name = "NET", env = "RMESH_SUBNET", value_delimiter = ',',
          value_parser = parse_subnet)]
    pub(crate) subnet: Vec<IpNet>,
    /// Give it no address: it gets one by DHCP or SLAAC from a container, or configures itself
    #[arg(long, env = "RMESH_NO_IP", action = ArgAction::SetTrue,
          value_parser = FalseyValueParser::new(), conflicts_with_all = ["ip", "subnet"])]
    pub(crate) no_ip: bool,
    /// Name of the interface in the container
    #[arg(long, env = "RMESH_IFNAME", value_parser = parse_interface,
          default_value = rmesh_router::attach::INTERFACE_DEFAULT)]
    pub(crate) ifname: String,
    /// Name of the container, for people
    #[arg(long, env = "RMESH_CONTAINER_NAME", default_value = "", hide_default_value = true,
          value_parser = parse_name)]
    pub(crate) name: String,
}

/// `rmesh detach`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  \
    sudo rmesh detach web\n  sudo rmesh detach pid:4711 --ifname eth1")]
pub(crate) struct DetachArgs {
    /// As given to `attach`
    #[arg(value_name = "TARGET")]
    pub(crate) target: String,
    /// Only this interface [default: all of the container's]
    #[arg(long, env = "RMESH_IFNAME", value_parser = parse_interface)]
    pub(crate) ifname: Option<String>,
}

/// `rmesh status`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  \
    sudo rmesh status              # one screen\n  \
    sudo rmesh status peers        # path, MTU, round-trip time, bytes; why not a better path\n  \
    sudo rmesh status paths        # every address tried\n  \
    sudo rmesh status --json | jq .peers_reachable\n\n\
    For Prometheus:\n  \
    sudo curl --unix-socket /run/rmesh/rmesh.sock http://rmesh/metrics")]
pub(crate) struct StatusArgs {
    /// A table instead of the first page
    #[arg(value_enum)]
    pub(crate) table: Option<Table>,
}

/// `rmesh why`.
#[derive(Debug, Args)]
#[command(
    about = "Show how one peer reaches another, and why not better",
    long_about = "Shows each way from this host to a peer, the best kind first, with what came of it and why it is \
        used or not. For two other peers it shows what they publish: their links, and the way the \
        routes take between them; what they have tried is known there.",
    after_help = "Examples:\n  \
        sudo rmesh why host3           # from this host\n  \
        sudo rmesh why host2 host3     # between two others\n  \
        sudo rmesh why 3f2a9c          # start of a peer id"
)]
pub(crate) struct WhyArgs {
    /// A peer's name or at least 6 digits of its id
    #[arg(value_name = "PEER")]
    pub(crate) peer: String,
    /// The other end [default: this host]
    #[arg(value_name = "OTHER")]
    pub(crate) other: Option<String>,
}

/// Tables of `rmesh status`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Table {
    /// Other peers and the path to each
    Peers,
    /// Every path to each peer, and its state
    Paths,
    /// Shortest routes through the mesh
    Routes,
    /// Containers of all peers
    Endpoints,
}

/// `rmesh completions`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  \
    source <(rmesh completions bash)         # in ~/.bashrc\n  \
    rmesh completions bash | sudo tee /usr/share/bash-completion/completions/rmesh > /dev/null\n  \
    rmesh completions zsh > ~/.zfunc/_rmesh  # a folder of $fpath\n  \
    rmesh completions fish > ~/.config/fish/completions/rmesh.fish")]
pub(crate) struct CompletionsArgs {
    /// The shell
    #[arg(value_enum)]
    pub(crate) shell: clap_complete::Shell,
}

/// `rmesh man`.
#[derive(Debug, Args)]
#[command(
    after_help = "Example:\n  sudo rmesh man /usr/local/share/man/man1    # then: man rmesh-launch"
)]
pub(crate) struct ManArgs {
    /// Where they go; made if it does not exist
    #[arg(value_name = "DIR")]
    pub(crate) folder: PathBuf,
}

/// `rmesh demo`.
#[derive(Debug, Args)]
#[command(
    about = "Show a mesh of three virtual hosts on this machine",
    long_about = "Makes three virtual hosts a - b - c in network namespaces of this machine, a \
        real peer in each and a container on each; a and c reach each other only through b. Shows \
        traffic crossing, stays until Ctrl-C, and removes everything.",
    after_help = "Examples:\n  sudo rmesh demo\n  sudo rmesh demo --once      # end after the tour"
)]
pub(crate) struct DemoArgs {
    /// End after the tour instead of staying until Ctrl-C
    #[arg(long, env = "RMESH_ONCE", action = ArgAction::SetTrue,
          value_parser = FalseyValueParser::new())]
    pub(crate) once: bool,
}

/// What clap knows of the command line, for completions and man pages.
pub(crate) fn command() -> clap::Command {
    Arguments::command()
}

/// Reads a command line.
pub(crate) fn parse(
    arguments: impl IntoIterator<Item = impl Into<OsString> + Clone>,
) -> Result<Arguments, clap::Error> {
    let matches = command().try_get_matches_from(arguments)?;
    let mut parsed = Arguments::from_arg_matches(&matches)?;
    let given = matches
        .subcommand()
        .and_then(|(_, verb)| verb.value_source("timeout"));
    let is_default = given.is_none_or(|source| source == ValueSource::DefaultValue);
    if is_default && matches!(parsed.verb, Verb::Rmpeer(_)) {
        parsed.global.timeout = ipam::RMPEER_TIMEOUT;
    }
    Ok(parsed)
}

fn parse_tcp_port(text: &str) -> Result<TcpPort, String> {
    match text {
        "none" | "0" => Ok(TcpPort::Off),
        port => port
            .parse()
            .map(TcpPort::At)
            .map_err(|_| format!("{text:?} is no port; `none` switches TCP off")),
    }
}

fn parse_ip(text: &str) -> Result<IpNet, String> {
    let net: IpNet = text
        .parse()
        .map_err(|_| format!("{text:?} is not like 10.32.0.1/24 or fd32::1/64"))?;
    check_ip(&net)?;
    Ok(net)
}

/// Refuses addresses that no container can have.
pub(crate) fn check_ip(net: &IpNet) -> Result<(), String> {
    let address = net.addr();
    if address.is_unspecified() || address.is_multicast() || address.is_loopback() {
        return Err(format!("{address} cannot be given to a container"));
    }
    Ok(())
}

/// Checks the name of a peer or a container.
pub(crate) fn parse_name(text: &str) -> Result<String, String> {
    let printable = text.chars().all(|c| !c.is_control() && !c.is_whitespace());
    if text.len() > NAME_LEN_MAX || !printable {
        return Err(format!(
            "a name has at most {NAME_LEN_MAX} bytes and no spaces"
        ));
    }
    Ok(text.into())
}

fn parse_bridge(text: &str) -> Result<String, String> {
    let name = parse_interface(text)?;
    if name.len() > BRIDGE_LEN_MAX {
        return Err(format!("a bridge name has at most {BRIDGE_LEN_MAX} bytes"));
    }
    Ok(name)
}

/// Checks the name of a network interface as the kernel does.
pub(crate) fn parse_interface(text: &str) -> Result<String, String> {
    let plain = text
        .bytes()
        .all(|b| b.is_ascii_graphic() && b != b'/' && b != b':');
    if text.is_empty() || text.len() > INTERFACE_LEN_MAX || !plain || matches!(text, "." | "..") {
        return Err(format!(
            "an interface name has 1 to {INTERFACE_LEN_MAX} letters, digits or dashes"
        ));
    }
    Ok(text.into())
}

#[cfg(test)]
mod tests;
