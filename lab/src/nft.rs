//! Silent drops by nf_tables, spoken over raw netlink: a base chain on the ingress hook of one device
//! with policy drop, or with a rule that drops one UDP port. It sits behind the wire, so a sender never learns that nothing arrives.
//! Layouts: `linux/netfilter/nfnetlink.h` and `linux/netfilter/nf_tables.h`.

use std::io;

use netlink_packet_core::{NLM_F_ACK, NLM_F_APPEND, NLM_F_CREATE, NLM_F_REQUEST};
use netlink_sys::protocols::NETLINK_NETFILTER;

use crate::netlink;

const TABLE: &str = "rmesh_lab";
const HEADER_BYTES: usize = 16;

const NLMSG_ERROR: u16 = 2;
const BATCH_BEGIN: u16 = 0x10;
const BATCH_END: u16 = 0x11;
const SUBSYSTEM_NFTABLES: u16 = 10;
const NEW_TABLE: u16 = 0;
const NEW_CHAIN: u16 = 3;
const DELETE_CHAIN: u16 = 5;
const NEW_RULE: u16 = 6;

const FAMILY_NETDEV: u8 = 5;
const HOOK_INGRESS: u32 = 0;
const POLICY_DROP: u32 = 0;
const POLICY_ACCEPT: u32 = 1;
const NESTED: u16 = 0x8000;

const TABLE_NAME: u16 = 1;
const CHAIN_TABLE: u16 = 1;
const CHAIN_NAME: u16 = 3;
const CHAIN_HOOK: u16 = 4;
const CHAIN_POLICY: u16 = 5;
const CHAIN_TYPE: u16 = 7;
const HOOK_NUMBER: u16 = 1;
const HOOK_PRIORITY: u16 = 2;
const HOOK_DEVICE: u16 = 3;
const RULE_TABLE: u16 = 1;
const RULE_CHAIN: u16 = 2;
const RULE_EXPRESSIONS: u16 = 4;
const LIST_ELEMENT: u16 = 1;
const EXPRESSION_NAME: u16 = 1;
const EXPRESSION_DATA: u16 = 2;
const DATA_VALUE: u16 = 1;
const DATA_VERDICT: u16 = 2;
const VERDICT_CODE: u16 = 1;

const REGISTER_VERDICT: u32 = 0;
const REGISTER: u32 = 1;
const META_PROTOCOL: u32 = 16;
const BASE_TRANSPORT: u32 = 2;
const DROP: u32 = 0;
const UDP: u8 = 17;
/// Where a UDP header has the destination port, and its length, in bytes.
const PORT_OFFSET: u32 = 2;
const PORT_LEN: u32 = 2;

/// Drops everything that comes in by `interface` of the calling thread's namespace.
pub(crate) fn drop_ingress(interface: &str) -> io::Result<()> {
    let [table, chain] = base_chain(interface, interface, POLICY_DROP);
    transaction(&[
        (NEW_TABLE, NLM_F_CREATE, table),
        (NEW_CHAIN, NLM_F_CREATE, chain),
    ])
}

/// Undoes [`drop_ingress`].
pub(crate) fn allow_ingress(interface: &str) -> io::Result<()> {
    delete_chain(interface)
}

/// Drops UDP to this port that comes in by `interface` of the calling thread's namespace.
pub(crate) fn drop_port(interface: &str, port: u16) -> io::Result<()> {
    let name = port_chain(interface);
    let [table, chain] = base_chain(&name, interface, POLICY_ACCEPT);
    let expressions = [
        expression("meta", &[number(1, REGISTER), number(2, META_PROTOCOL)]),
        compare(&[UDP]),
        expression(
            "payload",
            &[
                number(1, REGISTER),
                number(2, BASE_TRANSPORT),
                number(3, PORT_OFFSET),
                number(4, PORT_LEN),
            ],
        ),
        compare(&port.to_be_bytes()),
        expression(
            "immediate",
            &[
                number(1, REGISTER_VERDICT),
                nested(2, &nested(DATA_VERDICT, &number(VERDICT_CODE, DROP))),
            ],
        ),
    ];
    let rule = [
        attribute(RULE_TABLE, &text(TABLE)),
        attribute(RULE_CHAIN, &text(&name)),
        nested(RULE_EXPRESSIONS, &expressions.concat()),
    ];
    transaction(&[
        (NEW_TABLE, NLM_F_CREATE, table),
        (NEW_CHAIN, NLM_F_CREATE, chain),
        (NEW_RULE, NLM_F_CREATE | NLM_F_APPEND, rule.concat()),
    ])
}

/// Undoes [`drop_port`].
pub(crate) fn allow_port(interface: &str) -> io::Result<()> {
    delete_chain(&port_chain(interface))
}

fn port_chain(interface: &str) -> String {
    format!("{interface}-port")
}

/// A table and a chain in it at the ingress hook of an interface.
fn base_chain(name: &str, interface: &str, policy: u32) -> [Vec<u8>; 2] {
    let hook = [
        attribute(HOOK_NUMBER, &HOOK_INGRESS.to_be_bytes()),
        attribute(HOOK_PRIORITY, &0_u32.to_be_bytes()),
        attribute(HOOK_DEVICE, &text(interface)),
    ];
    let chain = [
        attribute(CHAIN_TABLE, &text(TABLE)),
        attribute(CHAIN_NAME, &text(name)),
        nested(CHAIN_HOOK, &hook.concat()),
        number(CHAIN_POLICY, policy),
        attribute(CHAIN_TYPE, &text("filter")),
    ];
    [attribute(TABLE_NAME, &text(TABLE)), chain.concat()]
}

fn delete_chain(name: &str) -> io::Result<()> {
    let chain = [
        attribute(CHAIN_TABLE, &text(TABLE)),
        attribute(CHAIN_NAME, &text(name)),
    ];
    transaction(&[(DELETE_CHAIN, 0, chain.concat())])
}

/// One expression of a rule.
fn expression(name: &str, attributes: &[Vec<u8>]) -> Vec<u8> {
    let name = attribute(EXPRESSION_NAME, &text(name));
    let data = nested(EXPRESSION_DATA, &attributes.concat());
    nested(LIST_ELEMENT, &[name, data].concat())
}

/// Goes on only if the register holds this.
fn compare(value: &[u8]) -> Vec<u8> {
    const EQUAL: u32 = 0;
    let data = nested(3, &attribute(DATA_VALUE, value));
    expression("cmp", &[number(1, REGISTER), number(2, EQUAL), data])
}

/// Sends the changes as one batch and waits until the kernel has answered each.
fn transaction(changes: &[(u16, u16, Vec<u8>)]) -> io::Result<()> {
    let mut batch = message(BATCH_BEGIN, NLM_F_REQUEST, 0, 0, SUBSYSTEM_NFTABLES, &[]);
    let mut sequence = 0;
    for (kind, flags, attributes) in changes {
        sequence += 1;
        let kind = (SUBSYSTEM_NFTABLES << 8) | kind;
        let flags = flags | NLM_F_REQUEST | NLM_F_ACK;
        batch.extend(message(kind, flags, sequence, FAMILY_NETDEV, 0, attributes));
    }
    batch.extend(message(
        BATCH_END,
        NLM_F_REQUEST,
        sequence + 1,
        0,
        SUBSYSTEM_NFTABLES,
        &[],
    ));

    exchange(&batch, changes.len())
}

/// Makes the calling thread's namespace forget every connection that it tracks
/// (`linux/netfilter/nfnetlink_conntrack.h`).
pub(crate) fn forget_connections() -> io::Result<()> {
    const SUBSYSTEM_CONNTRACK: u16 = 1;
    const DELETE: u16 = 2;
    const FAMILY_ANY: u8 = 0;
    let kind = (SUBSYSTEM_CONNTRACK << 8) | DELETE;
    let flags = NLM_F_REQUEST | NLM_F_ACK;
    exchange(&message(kind, flags, 1, FAMILY_ANY, 0, &[]), 1)
}

/// Sends messages and waits for so many answers.
fn exchange(messages: &[u8], mut awaited: usize) -> io::Result<()> {
    let socket = netlink::open(NETLINK_NETFILTER)?;
    socket.send(messages, 0)?;
    while awaited > 0 {
        let (datagram, _) = socket.recv_from_full()?;
        awaited = awaited.saturating_sub(acknowledgements(&datagram)?);
    }
    Ok(())
}

/// Counts the positive answers in a datagram; the first negative one is the error.
fn acknowledgements(mut datagram: &[u8]) -> io::Result<usize> {
    let mut count = 0;
    while let Some((header, rest)) = datagram.split_first_chunk::<HEADER_BYTES>() {
        let length = u32::from_ne_bytes([header[0], header[1], header[2], header[3]]) as usize;
        let kind = u16::from_ne_bytes([header[4], header[5]]);
        if let (NLMSG_ERROR, Some(code)) = (kind, rest.first_chunk::<4>()) {
            match i32::from_ne_bytes(*code) {
                0 => count += 1,
                code => return Err(io::Error::from_raw_os_error(code.saturating_neg())),
            }
        }
        let next = length.max(HEADER_BYTES).next_multiple_of(4);
        datagram = datagram.get(next..).unwrap_or_default();
    }
    Ok(count)
}

/// `nlmsghdr`, `nfgenmsg` and the attributes.
fn message(
    kind: u16,
    flags: u16,
    sequence: u32,
    family: u8,
    resource: u16,
    attributes: &[u8],
) -> Vec<u8> {
    let length = HEADER_BYTES + 4 + attributes.len();
    let mut bytes = Vec::with_capacity(length);
    bytes.extend((length as u32).to_ne_bytes());
    bytes.extend(kind.to_ne_bytes());
    bytes.extend(flags.to_ne_bytes());
    bytes.extend(sequence.to_ne_bytes());
    bytes.extend(0_u32.to_ne_bytes());
    bytes.extend([family, 0]);
    bytes.extend(resource.to_be_bytes());
    bytes.extend(attributes);
    bytes
}

/// `nlattr` with its value, padded to four bytes.
fn attribute(kind: u16, value: &[u8]) -> Vec<u8> {
    let length = 4 + value.len();
    let mut bytes = Vec::with_capacity(length.next_multiple_of(4));
    bytes.extend((length as u16).to_ne_bytes());
    bytes.extend(kind.to_ne_bytes());
    bytes.extend(value);
    bytes.resize(length.next_multiple_of(4), 0);
    bytes
}

fn nested(kind: u16, attributes: &[u8]) -> Vec<u8> {
    attribute(kind | NESTED, attributes)
}

fn number(kind: u16, value: u32) -> Vec<u8> {
    attribute(kind, &value.to_be_bytes())
}

fn text(text: &str) -> Vec<u8> {
    [text.as_bytes(), &[0]].concat()
}
