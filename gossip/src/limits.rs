//! Every bound of the mesh's state, with its unit and reason.

use core::time::Duration;

/// Peers whose records are kept; beyond it new ones are refused and counted.
pub const PEERS_MAX: usize = 16_384;
/// Addresses a record may carry: enough for a multi-homed, dual-stack host behind NAT.
pub const ADDRESSES_MAX: usize = 8;
/// Control links a record may carry; the overlay asks for about 4 + log2 N each way.
pub const LINKS_MAX: usize = 40;
/// Endpoints in one record section, so that a section fits one datagram.
pub const ENDPOINTS_PER_SECTION: usize = 8;
/// Endpoint sections a peer may publish: 2,040 containers a host.
pub const SECTIONS_MAX: u8 = 255;
/// Addresses one endpoint may have.
pub const ENDPOINT_ADDRESSES_MAX: usize = 8;
/// Labels one endpoint may have.
pub const ENDPOINT_LABELS_MAX: usize = 4;
/// Longest label key or value, in bytes.
pub const LABEL_LEN_MAX: usize = 63;
/// Largest control message in bytes: fits a 1280-byte IPv6 path, relayed, with all headers
/// (1280 - 48 IPv6/UDP - 48 relay - 16 header - 4 payload head - 16 tag), and some room.
pub const CONTROL_LEN_MAX: usize = 1_120;
/// Outgoing datagrams waiting for the shell; beyond it the oldest are dropped and counted.
pub const TRANSMITS_MAX: usize = 8_192;
/// Half-open handshakes, both roles together.
pub const HALF_OPEN_MAX: usize = 1_024;
/// A half-open handshake is forgotten after this time.
pub const HALF_OPEN_TIMEOUT: Duration = Duration::from_secs(5);
/// Half-open handshakes that others began, of each standing (nothing shown, a cookie, a neighbour): what strangers
/// can fill with recorded first messages leaves the places of those that have shown their address.
pub const HALF_OPEN_PER_STANDING_MAX: usize = HALF_OPEN_MAX / 4;
/// Sessions with one peer, replaced ones included; beyond it the oldest ends. Renewed every second,
/// as fast as can be, they are 16.
pub const SESSIONS_PER_PEER_MAX: usize = 32;
/// A session is renewed when it is this old (WireGuard's figure).
pub const REKEY_AFTER: Duration = Duration::from_secs(120);
/// A session is renewed after this many records over all lanes together.
pub const REKEY_AFTER_RECORDS: u64 = 1 << 26;
/// Nothing is sealed or opened under a session older than this.
pub const SESSION_LIFETIME: Duration = Duration::from_secs(180);
/// A replaced session is still received on for this long: datagrams may be under way.
pub const REPLACED_SESSION_GRACE: Duration = Duration::from_secs(15);
/// Up to this many peers everybody keeps a control link with everybody.
pub const FULL_MESH_PEERS_MAX: usize = 9;
/// Records are published again after this time even if nothing changed. That somebody is there is
/// known by the links that lead to it; this only bounds for how long a member that has gone can be
/// made to look alive by another that claims a link with it.
pub const RECORD_REFRESH: Duration = Duration::from_secs(4 * 3_600);
/// A record not refreshed for this long is dropped.
pub const RECORD_AGE_MAX: Duration = Duration::from_secs(12 * 3_600);
/// A record of somebody to whom no links have led for this long is dropped.
pub const RECORD_APART_MAX: Duration = Duration::from_secs(900);
/// Moves of one MAC within [`MOVE_WINDOW`] that freeze it (RFC 7432 section 15.1).
pub const MOVES_MAX: u32 = 5;
/// See [`MOVES_MAX`].
pub const MOVE_WINDOW: Duration = Duration::from_secs(180);
/// A record older than [`RECORD_AGE_MAX`] or out of reach longer than [`RECORD_APART_MAX`] less this
/// is neither given to others nor taken from them: longer than any datagram travels. Without it,
/// holders that drop a dead peer's record at slightly different times would hand it back to each other.
pub const RECORD_END: Duration = Duration::from_secs(30);
/// Records one peer may publish at once, all its sections and more, …
pub const RECORDS_BURST: u32 = 320;
/// … and a second after that; others are not taken, and so not passed on.
pub const RECORDS_PER_S: u32 = 4;
/// Bytes of records sent in a second, to all neighbours together: what is news is only announced then, what others lack
/// they ask for again. It leaves room below 1 Mbit/s for handshakes and probes where a thousand peers start in one second, …
pub const SPREAD_BYTES_PER_S: u32 = 80 * 1_024;
/// … and fewer may send more: so much all of them together.
pub const SPREAD_BYTES_PER_S_OF_ALL: u32 = 16 * 1_024 * 1_024;
/// Beyond this many known peers a mesh is large: control links that carry nothing else are probed more rarely,
/// repairs are spaced, and a configured peer that is reachable needs no session.
pub const SPARSE_PEERS_MIN: usize = 32;
