//! The few rtnetlink requests a lab needs (RFC 3549), one blocking socket per request, always in the
//! network namespace of the calling thread.

use std::{
    io,
    net::{IpAddr, Ipv4Addr},
    os::fd::{AsRawFd, BorrowedFd},
    time::Duration,
};

use ipnet::IpNet;
use netlink_packet_core::{
    NLM_F_ACK, NLM_F_CREATE, NLM_F_DUMP, NLM_F_EXCL, NLM_F_REPLACE, NLM_F_REQUEST, NetlinkMessage,
    NetlinkPayload,
};
use netlink_packet_route::{
    AddressFamily, RouteNetlinkMessage,
    address::{AddressAttribute, AddressHeaderFlags, AddressMessage},
    link::{
        InfoData, InfoKind, InfoVeth, InfoVxlan, LinkAttribute, LinkFlags, LinkInfo, LinkMessage,
        State,
    },
    neighbour::{NeighbourAddress, NeighbourAttribute, NeighbourMessage, NeighbourState},
    route::{
        RouteAddress, RouteAttribute, RouteHeader, RouteMessage, RouteProtocol, RouteScope,
        RouteType,
    },
};
use netlink_sys::{Socket, protocols::NETLINK_ROUTE};

/// The kernel answers at once; this only bounds a request that it did not understand.
const ANSWER_LIMIT: Duration = Duration::from_secs(5);

/// Network number and UDP port of VXLAN links (RFC 7348).
const VXLAN_ID: u32 = 42;
const VXLAN_PORT: u16 = 4789;

/// One end of a veth pair.
pub(crate) struct VethEnd<'a> {
    pub(crate) interface: &'a str,
    pub(crate) mac: [u8; 6],
    pub(crate) namespace: BorrowedFd<'a>,
}

/// Makes a veth pair whose ends appear in their namespaces at once, both down.
pub(crate) fn add_veth(near: &VethEnd<'_>, far: &VethEnd<'_>) -> io::Result<()> {
    let mut message = veth_end(near);
    message.attributes.push(LinkAttribute::LinkInfo(vec![
        LinkInfo::Kind(InfoKind::Veth),
        LinkInfo::Data(InfoData::Veth(InfoVeth::Peer(veth_end(far)))),
    ]));
    change(
        RouteNetlinkMessage::NewLink(message),
        NLM_F_CREATE | NLM_F_EXCL,
    )
}

fn veth_end(end: &VethEnd<'_>) -> LinkMessage {
    let mut message = LinkMessage::default();
    message.attributes = vec![
        LinkAttribute::IfName(end.interface.to_owned()),
        LinkAttribute::Address(end.mac.to_vec()),
        LinkAttribute::NetNsFd(end.namespace.as_raw_fd()),
    ];
    message
}

/// Makes a bridge, which is down.
pub(crate) fn add_bridge(name: &str) -> io::Result<()> {
    let mut message = LinkMessage::default();
    message.attributes = vec![
        LinkAttribute::IfName(name.to_owned()),
        LinkAttribute::LinkInfo(vec![LinkInfo::Kind(InfoKind::Bridge)]),
    ];
    change(
        RouteNetlinkMessage::NewLink(message),
        NLM_F_CREATE | NLM_F_EXCL,
    )
}

/// Makes a VXLAN interface with one other end, which is down.
pub(crate) fn add_vxlan(name: &str, local: Ipv4Addr, remote: Ipv4Addr, by: &str) -> io::Result<()> {
    let mut message = LinkMessage::default();
    let data = vec![
        InfoVxlan::Id(VXLAN_ID),
        InfoVxlan::Local(local),
        InfoVxlan::Group(remote),
        InfoVxlan::Link(index(by)?),
        InfoVxlan::Port(VXLAN_PORT),
    ];
    message.attributes = vec![
        LinkAttribute::IfName(name.to_owned()),
        LinkAttribute::LinkInfo(vec![
            LinkInfo::Kind(InfoKind::Vxlan),
            LinkInfo::Data(InfoData::Vxlan(data)),
        ]),
    ];
    change(
        RouteNetlinkMessage::NewLink(message),
        NLM_F_CREATE | NLM_F_EXCL,
    )
}

/// Sets the MTU of an interface, in bytes.
pub(crate) fn set_mtu(interface: &str, mtu_bytes: u32) -> io::Result<()> {
    let mut message = LinkMessage::default();
    message.header.index = index(interface)?;
    message.attributes = vec![LinkAttribute::Mtu(mtu_bytes)];
    change(RouteNetlinkMessage::SetLink(message), 0)
}

/// Makes an interface a port of a bridge, or of none.
pub(crate) fn set_controller(interface: &str, bridge: Option<&str>) -> io::Result<()> {
    let controller = bridge.map_or(Ok(0), index)?;
    let mut message = LinkMessage::default();
    message.header.index = index(interface)?;
    message.attributes = vec![LinkAttribute::Controller(controller)];
    change(RouteNetlinkMessage::SetLink(message), 0)
}

/// Brings an interface up.
pub(crate) fn set_up(interface: &str) -> io::Result<()> {
    let mut message = LinkMessage::default();
    message.header.index = index(interface)?;
    message.header.flags = LinkFlags::Up;
    message.header.change_mask = LinkFlags::Up;
    change(RouteNetlinkMessage::SetLink(message), 0)
}

/// Gives an interface another Ethernet address.
pub(crate) fn set_mac(interface: &str, mac: [u8; 6]) -> io::Result<()> {
    let mut message = LinkMessage::default();
    message.header.index = index(interface)?;
    message.attributes = vec![LinkAttribute::Address(mac.to_vec())];
    change(RouteNetlinkMessage::SetLink(message), 0)
}

/// Adds an address that is usable at once (no duplicate address detection).
pub(crate) fn add_address(interface: &str, address: IpNet) -> io::Result<()> {
    let mut message = AddressMessage::default();
    message.header.family = family(address.addr());
    message.header.prefix_len = address.prefix_len();
    message.header.index = index(interface)?;
    message.header.flags = AddressHeaderFlags::Nodad;
    message.attributes = vec![
        AddressAttribute::Address(address.addr()),
        AddressAttribute::Local(address.addr()),
    ];
    if let IpNet::V4(net) = address {
        message
            .attributes
            .push(AddressAttribute::Broadcast(net.broadcast()));
    }
    change(
        RouteNetlinkMessage::NewAddress(message),
        NLM_F_CREATE | NLM_F_EXCL,
    )
}

/// Adds a permanent neighbour, which never needs ARP or neighbour discovery.
pub(crate) fn add_neighbour(interface: &str, address: IpAddr, mac: [u8; 6]) -> io::Result<()> {
    let mut message = NeighbourMessage::default();
    message.header.family = family(address);
    message.header.ifindex = index(interface)?;
    message.header.state = NeighbourState::Permanent;
    let destination = match address {
        IpAddr::V4(address) => NeighbourAddress::Inet(address),
        IpAddr::V6(address) => NeighbourAddress::Inet6(address),
    };
    message.attributes = vec![
        NeighbourAttribute::Destination(destination),
        NeighbourAttribute::LinkLayerAddress(mac.to_vec()),
    ];
    change(
        RouteNetlinkMessage::NewNeighbour(message),
        NLM_F_CREATE | NLM_F_REPLACE,
    )
}

/// Sends what has no route of its own by this neighbour.
pub(crate) fn add_default_route(gateway: Ipv4Addr) -> io::Result<()> {
    let mut message = RouteMessage::default();
    message.header.address_family = AddressFamily::Inet;
    message.header.table = RouteHeader::RT_TABLE_MAIN;
    message.header.protocol = RouteProtocol::Static;
    message.header.scope = RouteScope::Universe;
    message.header.kind = RouteType::Unicast;
    message.attributes = vec![RouteAttribute::Gateway(RouteAddress::Inet(gateway))];
    change(
        RouteNetlinkMessage::NewRoute(message),
        NLM_F_CREATE | NLM_F_REPLACE,
    )
}

/// Drops in silence what has no route.
pub(crate) fn add_blackhole_route() -> io::Result<()> {
    let mut message = RouteMessage::default();
    message.header.address_family = AddressFamily::Inet;
    message.header.table = RouteHeader::RT_TABLE_MAIN;
    message.header.protocol = RouteProtocol::Static;
    message.header.kind = RouteType::BlackHole;
    change(
        RouteNetlinkMessage::NewRoute(message),
        NLM_F_CREATE | NLM_F_REPLACE,
    )
}

/// Names of all interfaces.
pub(crate) fn interface_names() -> io::Result<Vec<String>> {
    let names = links()?.filter_map(|link| name_of(&link).map(str::to_owned));
    Ok(names.collect())
}

/// The Ethernet address of an interface.
pub(crate) fn mac(interface: &str) -> io::Result<[u8; 6]> {
    let bytes = link(interface)?
        .attributes
        .into_iter()
        .find_map(|attribute| match attribute {
            LinkAttribute::Address(bytes) => <[u8; 6]>::try_from(bytes).ok(),
            _ => None,
        });
    bytes.ok_or_else(|| io::Error::other("it has no Ethernet address"))
}

/// Whether an interface is up and has a carrier (RFC 2863 `ifOperStatus` up; a TAP's is unknown).
pub(crate) fn is_operational(interface: &str) -> io::Result<bool> {
    let link = link(interface)?;
    let state = |state| link.attributes.contains(&LinkAttribute::OperState(state));
    let carries = link.header.flags.contains(LinkFlags::LowerUp);
    Ok(state(State::Up) || (carries && state(State::Unknown)))
}

/// Addresses of an interface.
pub(crate) fn addresses(interface: &str) -> io::Result<Vec<IpNet>> {
    let index = index(interface)?;
    let answers = request(
        RouteNetlinkMessage::GetAddress(AddressMessage::default()),
        NLM_F_DUMP,
    )?;
    let of_interface = |answer| match answer {
        RouteNetlinkMessage::NewAddress(message) if message.header.index == index => {
            address_of(&message)
        }
        _ => None,
    };
    Ok(answers.into_iter().filter_map(of_interface).collect())
}

/// Links, addresses and routes, one a line, without counters and ages.
pub(crate) fn describe() -> io::Result<Vec<String>> {
    let mut lines: Vec<String> = links()?.map(describe_link).collect();
    let every = RouteNetlinkMessage::GetAddress(AddressMessage::default());
    for answer in request(every, NLM_F_DUMP)? {
        if let RouteNetlinkMessage::NewAddress(message) = answer {
            let index = message.header.index;
            lines.push(format!(
                "address {:?} of link {index}",
                address_of(&message)
            ));
        }
    }
    for family in [AddressFamily::Inet, AddressFamily::Inet6] {
        let mut message = RouteMessage::default();
        message.header.address_family = family;
        let routes = request(RouteNetlinkMessage::GetRoute(message), NLM_F_DUMP)?;
        lines.extend(routes.into_iter().filter_map(describe_route));
    }
    Ok(lines)
}

fn describe_link(link: LinkMessage) -> String {
    let tells = |attribute: &&LinkAttribute| {
        use LinkAttribute::{Address, Controller, IfName, Mtu};
        matches!(attribute, Address(_) | Controller(_) | IfName(_) | Mtu(_))
    };
    let told: Vec<_> = link.attributes.iter().filter(tells).collect();
    let (index, flags) = (link.header.index, link.header.flags);
    format!("link {index} {flags:?} {told:?}")
}

fn describe_route(answer: RouteNetlinkMessage) -> Option<String> {
    let RouteNetlinkMessage::NewRoute(mut route) = answer else {
        return None;
    };
    let ages = |attribute: &RouteAttribute| matches!(attribute, RouteAttribute::CacheInfo(_));
    route.attributes.retain(|attribute| !ages(attribute));
    Some(format!("route {:?} {:?}", route.header, route.attributes))
}

/// The index of an interface.
pub(crate) fn index(interface: &str) -> io::Result<u32> {
    let socket = Socket::new(NETLINK_ROUTE)?;
    Ok(rustix::net::netdevice::name_to_index(&socket, interface)?)
}

fn address_of(message: &AddressMessage) -> Option<IpNet> {
    let mut found = None;
    for attribute in &message.attributes {
        match attribute {
            // IFA_LOCAL is the own address; IFA_ADDRESS is the other end's where both are there.
            AddressAttribute::Local(address) => found = Some(*address),
            AddressAttribute::Address(address) => found = found.or(Some(*address)),
            _ => {}
        }
    }
    IpNet::new(found?, message.header.prefix_len).ok()
}

/// Asks for one interface by its index. Other than a dump, this makes the kernel act on a new carrier
/// at once and not up to a second later.
fn link(interface: &str) -> io::Result<LinkMessage> {
    let mut message = LinkMessage::default();
    message.header.index = index(interface)?;
    let answers = request(RouteNetlinkMessage::GetLink(message), NLM_F_ACK)?;
    link_messages(answers)
        .next()
        .ok_or_else(|| io::Error::from_raw_os_error(libc::ENODEV))
}

fn links() -> io::Result<impl Iterator<Item = LinkMessage>> {
    let every = RouteNetlinkMessage::GetLink(LinkMessage::default());
    request(every, NLM_F_DUMP).map(link_messages)
}

fn link_messages(answers: Vec<RouteNetlinkMessage>) -> impl Iterator<Item = LinkMessage> {
    answers.into_iter().filter_map(|answer| match answer {
        RouteNetlinkMessage::NewLink(link) => Some(link),
        _ => None,
    })
}

fn name_of(link: &LinkMessage) -> Option<&str> {
    link.attributes
        .iter()
        .find_map(|attribute| match attribute {
            LinkAttribute::IfName(name) => Some(name.as_str()),
            _ => None,
        })
}

fn family(address: IpAddr) -> AddressFamily {
    if address.is_ipv4() {
        AddressFamily::Inet
    } else {
        AddressFamily::Inet6
    }
}

fn change(message: RouteNetlinkMessage, flags: u16) -> io::Result<()> {
    request(message, flags | NLM_F_ACK).map(drop)
}

/// Sends one request and collects the answers up to the acknowledgement or the end of the dump.
fn request(message: RouteNetlinkMessage, flags: u16) -> io::Result<Vec<RouteNetlinkMessage>> {
    let mut message = NetlinkMessage::from(message);
    message.header.flags = flags | NLM_F_REQUEST;
    message.header.sequence_number = 1;
    message.finalize();
    let mut bytes = vec![0; message.buffer_len()];
    message.serialize(&mut bytes);

    let socket = open(NETLINK_ROUTE)?;
    socket.send(&bytes, 0)?;
    let mut answers = Vec::new();
    loop {
        let (datagram, _) = socket.recv_from_full()?;
        if collect(&datagram, &mut answers)? {
            return Ok(answers);
        }
    }
}

/// A netlink socket whose receives are bounded in time.
pub(crate) fn open(protocol: isize) -> io::Result<Socket> {
    let mut socket = Socket::new(protocol)?;
    socket.bind_auto()?;
    socket2::SockRef::from(&socket).set_read_timeout(Some(ANSWER_LIMIT))?;
    Ok(socket)
}

/// Adds the messages of one datagram; true when the kernel has said all.
fn collect(mut datagram: &[u8], answers: &mut Vec<RouteNetlinkMessage>) -> io::Result<bool> {
    while !datagram.is_empty() {
        let message = NetlinkMessage::<RouteNetlinkMessage>::deserialize(datagram)
            .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error.to_string()))?;
        // Messages are padded to four bytes, the last one perhaps not.
        let length = (message.header.length as usize)
            .next_multiple_of(4)
            .min(datagram.len());
        datagram = &datagram[length.max(1)..];
        match message.payload {
            NetlinkPayload::Done(_) => return Ok(true),
            NetlinkPayload::Error(error) if error.code.is_some() => return Err(error.to_io()),
            NetlinkPayload::Error(_) => return Ok(true),
            NetlinkPayload::InnerMessage(answer) => answers.push(answer),
            _ => {}
        }
    }
    Ok(false)
}
