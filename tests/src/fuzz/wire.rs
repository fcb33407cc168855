//! The layouts of `wire`: what decodes encodes to the same bytes again, and another version is
//! refused by its number.

use rmesh_wire::codec::{self, CODEC_VERSION, CodecError};
use rmesh_wire::datagram::{HEADER_LEN, Header, HeaderError, VERSION};
use rmesh_wire::ethernet::{addresses, parse_second_way_probe, second_way_probe};
use rmesh_wire::flood::FloodHeader;
use rmesh_wire::fragment::FragmentHeader;
use rmesh_wire::handshake::Hello;
use rmesh_wire::payload::{Head, PayloadKind};
use rmesh_wire::port_probe::PortProbe;
use rmesh_wire::probe::Probe;
use rmesh_wire::relay::{INNER_OFFSET, RelayEnds};
use rmesh_wire::{Mac, PeerId};

pub(super) const TARGETS: &[rmesh_gossip::fuzz::Entry] = &[
    ("wire_header", header),
    ("wire_relay", relay),
    ("wire_payload", payload),
    ("wire_fragment", fragment),
    ("wire_bundle", bundle),
    ("wire_flood", flood),
    ("wire_probe", probe),
    ("wire_hello", hello),
    ("wire_ethernet", ethernet),
    ("wire_id", id),
];

/// Entries end within the body, each at least its own length behind the one before, and encode to the same.
fn bundle(bytes: &[u8]) {
    let mut at = 0;
    while let Some((head, range)) = rmesh_wire::bundle::entry(bytes, at) {
        let before = rmesh_wire::bundle::encode(&head, range.len() as u16);
        assert_eq!(bytes[at..range.start], before);
        assert!(range.end <= bytes.len() && range.start == at + before.len());
        at = range.end;
    }
}

fn header(bytes: &[u8]) {
    match Header::decode(bytes) {
        Ok(header) => assert_eq!(header.encode()[..], bytes[..HEADER_LEN]),
        Err(error @ HeaderError::Version(version)) => {
            assert_ne!(version, VERSION);
            assert!(error.to_string().contains(&version.to_string()));
        }
        Err(error) => assert!(!error.to_string().is_empty()),
    }
}

fn relay(bytes: &[u8]) {
    if let Some((ends, inner)) = RelayEnds::split(bytes) {
        assert_eq!(ends.encode()[..], bytes[HEADER_LEN..INNER_OFFSET]);
        assert!(bytes[INNER_OFFSET..].starts_with(inner));
        header(inner);
    }
}

/// A whole payload, whatever it carries.
fn payload(bytes: &[u8]) {
    let Some((head, body)) = Head::split(bytes) else {
        return;
    };
    assert_eq!([&head.encode()[..], body].concat(), bytes);
    match head.kind {
        PayloadKind::Frame => ethernet(body),
        PayloadKind::Fragment => {
            FragmentHeader::split(head.aux, body);
        }
        PayloadKind::Probe => {
            Probe::decode(head, body);
        }
        PayloadKind::PortProbe => {
            if let Some(probe) = PortProbe::decode(head, body) {
                let again = probe.encode();
                let (head, body) = Head::split(&again).expect("an encoded probe has a head");
                assert_eq!(PortProbe::decode(head, body), Some(probe));
            }
        }
        PayloadKind::Bundle => bundle(body),
        PayloadKind::Flood => flood(body),
        // The codec's, and what has no body.
        PayloadKind::Control | PayloadKind::Keep => {}
    }
}

fn fragment(bytes: &[u8]) {
    let Some((aux, body)) = bytes.split_first_chunk::<2>() else {
        return;
    };
    let aux = u16::from_be_bytes(*aux);
    if let Some((header, piece)) = FragmentHeader::split(aux, body) {
        assert_eq!(header.aux(), aux);
        assert_eq!([&header.encode()[..], piece].concat(), body);
    }
}

fn flood(bytes: &[u8]) {
    if let Some((header, frame)) = FloodHeader::split(bytes) {
        assert_eq!([&header.encode()[..], frame].concat(), bytes);
    }
}

fn probe(bytes: &[u8]) {
    let Some(([flags, aux @ ..], body)) = bytes.split_first_chunk::<3>() else {
        return;
    };
    let head = Head {
        flags: *flags,
        aux: u16::from_be_bytes(*aux),
        ..Head::new(PayloadKind::Probe)
    };
    if let Some(probe) = Probe::decode(head, body) {
        let again = probe.encode(bytes.len());
        let (head, body) = Head::split(&again).expect("an encoded probe has a head");
        assert_eq!(Probe::decode(head, body), Some(probe));
    }
}

fn hello(bytes: &[u8]) {
    match codec::decode::<Hello>(bytes) {
        Ok(hello) => assert_eq!(codec::encode(&hello).as_deref(), Ok(bytes)),
        Err(error @ CodecError::Version(version)) => {
            assert_ne!(version, CODEC_VERSION);
            assert!(error.to_string().contains(&version.to_string()));
        }
        Err(error) => assert!(!error.to_string().is_empty()),
    }
}

fn ethernet(bytes: &[u8]) {
    let ends = addresses(bytes);
    assert_eq!(ends.is_some(), bytes.len() >= 14);
    if let (Some((mesh, peer)), Some((_, source))) = (parse_second_way_probe(bytes), ends) {
        let made = second_way_probe(source, mesh, &peer);
        assert_eq!(parse_second_way_probe(&made), Some((mesh, peer)));
    }
}

fn id(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else {
        return;
    };
    if let Ok(mac) = text.parse::<Mac>() {
        assert_eq!(mac.to_string(), text.to_ascii_lowercase());
    }
    if let Ok(peer) = text.parse::<PeerId>() {
        assert_eq!(peer.to_string(), text.to_ascii_lowercase());
    }
}
