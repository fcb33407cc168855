//! What a report says of the machine and its network.

use std::collections::BTreeMap;
use std::fs;
use std::io::Read as _;
use std::path::Path;

use rmesh_router::kernel::{HostLink, host_addresses, host_links, host_routes};
use serde::Serialize;
use serde_json::{Value, json};

use super::bounded;

/// Links, addresses and routes listed of each.
const NETWORK_ENTRIES_MAX: usize = 512;
/// Interfaces whose settings are listed; those of containers are not.
const INTERFACES_MAX: usize = 32;
/// Most that is read of a file under `/proc`, in bytes.
const PROC_LEN_MAX: u64 = 1 << 20;

/// Settings of the whole host that bear on rmesh, under `/proc/sys`.
const SETTINGS: [&str; 14] = [
    "kernel/yama/ptrace_scope",
    "net/bridge/bridge-nf-call-ip6tables",
    "net/bridge/bridge-nf-call-iptables",
    "net/core/netdev_max_backlog",
    "net/core/rmem_max",
    "net/core/wmem_max",
    "net/ipv4/ip_forward",
    "net/ipv4/ip_local_port_range",
    "net/ipv4/ip_no_pmtu_disc",
    "net/ipv4/neigh/default/gc_thresh3",
    "net/ipv6/neigh/default/gc_thresh3",
    "net/netfilter/nf_conntrack_count",
    "net/netfilter/nf_conntrack_max",
    "user/max_net_namespaces",
];
/// Settings of an interface, under `/proc/sys/net/ipv4/conf`.
const SETTINGS_IPV4: [&str; 4] = ["arp_ignore", "forwarding", "rp_filter", "src_valid_mark"];
/// The same under `/proc/sys/net/ipv6/conf`.
const SETTINGS_IPV6: [&str; 4] = ["accept_ra", "addr_gen_mode", "disable_ipv6", "forwarding"];
/// Modules that rmesh uses or that change what becomes of its traffic.
const MODULES: [&str; 8] = [
    "br_netfilter",
    "bridge",
    "nf_conntrack",
    "nf_tables",
    "tun",
    "udp_tunnel",
    "veth",
    "vxlan",
];
/// Instructions of the processor that decide how fast frames are sealed.
const CPU_FLAGS: [&str; 8] = [
    "aes",
    "asimd",
    "avx2",
    "avx512f",
    "pclmulqdq",
    "pmull",
    "vaes",
    "vpclmulqdq",
];

/// The machine: kernel, system, processor, memory.
pub(super) fn machine() -> Value {
    let about = rustix::system::uname();
    let text = |name: &std::ffi::CStr| name.to_string_lossy().into_owned();
    let processors = std::thread::available_parallelism().ok();
    let cpu = read("/proc/cpuinfo").unwrap_or_default();
    let flags = field(&cpu, "flags").or_else(|| field(&cpu, "Features"));
    let flags = flags.unwrap_or_default();
    let known = |flag: &&str| flags.split_whitespace().any(|word| word == *flag);
    let memory = read("/proc/meminfo").unwrap_or_default();
    let uptime = read("/proc/uptime").unwrap_or_default();
    let modules = read("/proc/modules").unwrap_or_default();
    let loaded = |name: &&str| modules.lines().any(|l| l.split(' ').next() == Some(*name));
    json!({
        "kernel": text(about.release()),
        "kernel_build": text(about.version()),
        "machine": text(about.machine()),
        "host_name": text(about.nodename()),
        "system": os_name(),
        "uptime_s": uptime.split('.').next().and_then(|s| s.parse::<u64>().ok()),
        "load": read("/proc/loadavg").map(|text| text.trim_end().to_owned()),
        "processors": processors.map(std::num::NonZero::get),
        "processor": field(&cpu, "model name"),
        "processor_flags": CPU_FLAGS.iter().filter(|f| known(f)).collect::<Vec<_>>(),
        "memory_total": field(&memory, "MemTotal"),
        "memory_available": field(&memory, "MemAvailable"),
        "modules_loaded": MODULES.iter().filter(|m| loaded(m)).collect::<Vec<_>>(),
        "tun_device": Path::new("/dev/net/tun").exists(),
    })
}

/// The network as the kernel has it.
pub(super) fn network() -> Value {
    let links = host_links();
    let settings = settings(links.as_deref().unwrap_or_default());
    json!({
        "links": listed(links),
        "addresses": listed(host_addresses()),
        "routes": listed(host_routes()),
        "settings": settings,
        "udp": counters(),
    })
}

fn listed<T: Serialize>(entries: Result<Vec<T>, rmesh_router::kernel::KernelError>) -> Value {
    match entries.map(serde_json::to_value) {
        Ok(Ok(entries)) => bounded(entries, NETWORK_ENTRIES_MAX),
        Ok(Err(error)) => json!({ "error": error.to_string() }),
        Err(error) => json!({ "error": error.to_string() }),
    }
}

/// Settings by their path under `/proc/sys`; those this kernel does not have are left out.
fn settings(links: &[HostLink]) -> BTreeMap<String, String> {
    let mut paths: Vec<String> = SETTINGS.iter().map(ToString::to_string).collect();
    let own = links
        .iter()
        .filter(|link| link.kind.as_deref() != Some("veth"));
    let own = own.map(|link| link.name.as_str()).take(INTERFACES_MAX);
    for interface in ["all", "default"].into_iter().chain(own) {
        let path = |family: &str, name: &&str| format!("net/{family}/conf/{interface}/{name}");
        paths.extend(SETTINGS_IPV4.iter().map(|name| path("ipv4", name)));
        paths.extend(SETTINGS_IPV6.iter().map(|name| path("ipv6", name)));
    }
    let set = paths.into_iter().filter_map(|path| {
        let value = read(&format!("/proc/sys/{path}"))?;
        Some((path, value.trim_end().to_owned()))
    });
    set.collect()
}

/// Counts of UDP over both families, RFC 4113; lost datagrams show here first.
fn counters() -> BTreeMap<String, u64> {
    let mut counters = BTreeMap::new();
    let ipv4 = read("/proc/thread-self/net/snmp").unwrap_or_default();
    let mut udp = ipv4.lines().filter_map(|line| line.strip_prefix("Udp: "));
    if let (Some(names), Some(values)) = (udp.next(), udp.next()) {
        let pairs = names.split_whitespace().zip(values.split_whitespace());
        counters.extend(pairs.filter_map(|(n, v)| Some((format!("Udp{n}"), v.parse().ok()?))));
    }
    let ipv6 = read("/proc/thread-self/net/snmp6").unwrap_or_default();
    let udp = ipv6.lines().filter(|line| line.starts_with("Udp6"));
    counters.extend(udp.filter_map(|line| {
        let (name, value) = line.split_once(char::is_whitespace)?;
        Some((name.to_owned(), value.trim().parse().ok()?))
    }));
    counters
}

fn os_name() -> Option<String> {
    let text = read("/etc/os-release")?;
    let line = text.lines().find_map(|l| l.strip_prefix("PRETTY_NAME="))?;
    Some(line.trim_matches('"').to_owned())
}

/// The value behind `NAME :` in a file of `/proc`.
pub(super) fn field(text: &str, name: &str) -> Option<String> {
    let mut lines = text.lines().filter_map(|line| line.split_once(':'));
    let (_, value) = lines.find(|(found, _)| found.trim_end() == name)?;
    Some(value.trim().to_owned())
}

/// A small file as text, if it is there.
pub(super) fn read(path: &str) -> Option<String> {
    let mut bytes = Vec::new();
    let file = fs::File::open(path).ok()?;
    file.take(PROC_LEN_MAX).read_to_end(&mut bytes).ok()?;
    Some(String::from_utf8_lossy(&bytes).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_machine_has_a_kernel_and_a_loopback() {
        let machine = machine();
        assert!(machine["kernel"].as_str().is_some_and(|k| !k.is_empty()));
        assert!(machine["processors"].as_u64() > Some(0));
        let network = network();
        let links = network["links"]["entries"].as_array().unwrap();
        assert!(links.iter().any(|link| link["name"] == "lo"), "{network}");
        assert!(network["routes"]["entries"].is_array(), "{network}");
        assert!(network["settings"]["net/ipv4/ip_forward"].is_string());
        assert!(network["udp"]["UdpInDatagrams"].is_u64(), "{network}");
    }

    #[test]
    fn fields_of_proc_are_found_by_their_whole_name() {
        let text = "MemTotal:  16 kB\nmodel name\t: A: B\nmodel\t: 7\n";
        assert_eq!(field(text, "MemTotal").as_deref(), Some("16 kB"));
        assert_eq!(field(text, "model name").as_deref(), Some("A: B"));
        assert_eq!(field(text, "model").as_deref(), Some("7"));
        assert_eq!(field(text, "Mem"), None);
    }
}
