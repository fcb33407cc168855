//! What a worker does with datagrams: opens them, delivers them, relays them, floods them on.

use std::net::SocketAddr;
use std::time::Instant;

use rmesh_wire::PeerId;
use rmesh_wire::datagram::{HEADER_LEN, Header, HeaderError, Kind, TAG_LEN};
use rmesh_wire::flood::{self, FLOOD_HEADER_LEN, FloodHeader};
use rmesh_wire::fragment::FragmentHeader;
use rmesh_wire::payload::{CONTROL_LANE, HEAD_LEN, Head, PartialChecksum, PayloadKind};
use rmesh_wire::relay::{self, INNER_OFFSET, RelayEnds};

use super::api::PathKind;
use super::buffer::Buffer;
use super::engine::Engine;
use super::fdb;
use super::forward::admit;
use super::oversize::frame_len_max;
use super::reassembly::{Key, Outcome};
use super::screen::Sender;
use super::session::Session;
use super::stats::Reason;
use super::tables::Tables;
use crate::port::{ecn, mss};

/// Where a datagram is: in the batch's buffer of this number, from this byte on.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Place {
    pub(crate) number: usize,
    pub(crate) from: usize,
    /// The traffic class it came with.
    pub(crate) class: u8,
}

/// A frame among a payload's bytes.
pub(crate) enum Body<'a> {
    /// In the batch's buffers.
    Placed(&'a mut [u8], Place),
    /// Put together from fragments, behind its head; whether one of them was marked for congestion.
    Whole(Vec<u8>, bool),
}

impl Body<'_> {
    /// The traffic class it came with, as far as it is of interest.
    fn class(&self) -> u8 {
        match self {
            Body::Placed(_, place) => place.class,
            Body::Whole(_, true) => ecn::CE,
            Body::Whole(_, false) => 0,
        }
    }

    fn bytes(&self) -> &[u8] {
        match self {
            Body::Placed(bytes, _) => bytes,
            Body::Whole(payload, _) => payload.get(HEAD_LEN..).unwrap_or_default(),
        }
    }

    fn bytes_mut(&mut self) -> &mut [u8] {
        match self {
            Body::Placed(bytes, _) => bytes,
            Body::Whole(payload, _) => payload.get_mut(HEAD_LEN..).unwrap_or_default(),
        }
    }
}

impl Engine {
    /// Takes one datagram; whatever is wrong with it moves one counter and nothing else. Frames
    /// wait for [`Engine::deliver_all`].
    pub(crate) fn handle_datagram(
        &mut self,
        source: SocketAddr,
        (datagram, place): (&mut [u8], Place),
        tables: &Tables,
        now: Instant,
    ) {
        let result = match Header::decode(datagram) {
            Err(HeaderError::Version(_)) => Err(Reason::UnknownVersion),
            Err(_) => Err(Reason::Malformed),
            Ok(header) if !is_sealed(&header) => {
                self.inbox.stranger(source, datagram);
                Ok(())
            }
            Ok(header) if header.lane() == CONTROL_LANE => {
                self.pass_on(source, &header, datagram, tables, now)
            }
            Ok(header) if header.kind == Kind::Relay => {
                self.handle_relay(&header, (datagram, place), tables, now)
            }
            Ok(header) => {
                let record = (datagram, place, PathKind::Direct);
                self.handle_record(&header, record, tables, now)
            }
        };
        if let Err(reason) = result {
            self.stats.drop_one(reason);
        }
    }

    /// A datagram of the control side's that the kernel brought here, joined to frames.
    fn pass_on(
        &mut self,
        source: SocketAddr,
        header: &Header,
        datagram: &[u8],
        tables: &Tables,
        now: Instant,
    ) -> Result<(), Reason> {
        match self.screen.judge(header, datagram, tables, now)? {
            Sender::Peer => self.inbox.datagram(source, datagram),
            Sender::Unknown => self.inbox.stranger(source, datagram),
        }
        Ok(())
    }

    /// Whether [`Engine::deliver_all`] has to come first.
    pub(crate) fn must_deliver(&self) -> bool {
        self.deliveries.is_full()
    }

    /// Writes the frames that came in `batch`.
    pub(crate) fn deliver_all(&mut self, batch: &[Buffer]) {
        self.deliveries
            .write(batch, self.port.as_mut(), &self.stats);
    }

    fn handle_record(
        &mut self,
        header: &Header,
        (datagram, place, path): (&mut [u8], Place, PathKind),
        tables: &Tables,
        now: Instant,
    ) -> Result<(), Reason> {
        let session = tables
            .session(header.receiver)
            .ok_or(Reason::UnknownSession)?;
        let payload = session.open_record(header, datagram)?;
        let lane = session.stats.of(self.transmitter.worker.number);
        match path {
            PathKind::Direct => lane.records_direct.add(1),
            PathKind::Relay => lane.records_relayed.add(1),
        }
        let (head, _) = Head::split(payload).ok_or(Reason::BadPayload)?;
        let body = payload.get_mut(HEAD_LEN..).unwrap_or_default();
        let from = place.from + HEADER_LEN + HEAD_LEN;
        let inside = Place { from, ..place };
        if head.kind == PayloadKind::Bundle {
            return self.handle_bundle((session, path), (body, inside), tables, now);
        }
        if head.kind != PayloadKind::Fragment {
            let body = Body::Placed(body, inside);
            return self.handle_payload((session, path), head, body, tables, now);
        }
        let (fragment, piece) = FragmentHeader::split(head.aux, body).ok_or(Reason::BadFragment)?;
        let key = Key {
            session: header.receiver,
            lane: header.lane(),
            id: fragment.id,
        };
        let is_marked = place.class & ecn::CE == ecn::CE;
        match self
            .reassembly
            .push(key, &fragment, (piece, is_marked), now)
        {
            Outcome::Waiting => Ok(()),
            Outcome::Refused => Err(Reason::BadFragment),
            Outcome::Complete(whole, is_marked) => {
                self.stats.reassembled.add(1);
                let (head, _) = Head::split(&whole).ok_or(Reason::BadPayload)?;
                self.handle_payload(
                    (session, path),
                    head,
                    Body::Whole(whole, is_marked),
                    tables,
                    now,
                )
            }
        }
    }

    /// A whole payload: a frame or a flood, nothing else.
    pub(crate) fn handle_payload(
        &mut self,
        sender: (&Session, PathKind),
        head: Head,
        mut body: Body<'_>,
        tables: &Tables,
        now: Instant,
    ) -> Result<(), Reason> {
        let class = body.class();
        let fields_len = match head.kind {
            PayloadKind::Flood => FLOOD_HEADER_LEN,
            _ => 0,
        };
        let frame = body.bytes_mut().get_mut(fields_len..);
        if !frame.is_none_or(|frame| ecn::leave_tunnel(frame, class)) {
            return Err(Reason::EcnNotUnderstood);
        }
        match head.kind {
            PayloadKind::Frame => self.deliver(sender, head, body, tables, now),
            PayloadKind::Flood => self.handle_flood(sender, head.flags, body.bytes(), tables, now),
            _ => Err(Reason::BadPayload),
        }
    }

    fn deliver(
        &mut self,
        (session, path): (&Session, PathKind),
        head: Head,
        mut body: Body<'_>,
        tables: &Tables,
        now: Instant,
    ) -> Result<(), Reason> {
        let frame = body.bytes();
        let source = admit(frame)?;
        let len = frame.len();
        let checksum = PartialChecksum::of_frame(&head, len).ok_or(Reason::BadPayload)?;
        let owner = tables.announced(source);
        if owner == Some(tables.me) {
            // A container of ours: written to the bridge, the frame would make it look for that
            // container here, and who sent it would have cut it off.
            self.look_for_second_way(tables, now);
            return Err(Reason::SecondWay);
        }
        self.count_frame(session, path, frame);
        if owner.is_none() {
            self.learn_unannounced(source, fdb::Place::Remote(session.peer), now);
        }
        if let Some(opening) = mss::opening(frame)
            && let Some(route) = tables
                .route(session.peer)
                .filter(|route| route.is_len_found)
            && opening.clamp(body.bytes_mut(), checksum, frame_len_max(&route))
        {
            self.stats.mss_clamped.add(1);
        }
        match body {
            Body::Placed(_, Place { number, from, .. }) => {
                self.deliveries.add(number, from..from + len, checksum);
            }
            Body::Whole(payload, _) => {
                self.deliveries
                    .add_owned(payload, HEAD_LEN..HEAD_LEN + len, checksum);
            }
        }
        Ok(())
    }

    fn count_frame(&self, session: &Session, path: PathKind, frame: &[u8]) {
        let lane = session.stats.of(self.transmitter.worker.number);
        lane.count_received(path, frame.len());
    }

    fn write(&mut self, frame: &[u8]) -> Result<(), Reason> {
        self.port.write(frame).map_err(|_| Reason::PortWrite)?;
        self.stats.writes_to_bridge.add(1);
        self.stats.frames_to_bridge.add(1);
        self.stats.bytes_to_bridge.add(frame.len() as u64);
        Ok(())
    }

    fn handle_flood(
        &mut self,
        (session, path): (&Session, PathKind),
        ttl: u8,
        body: &[u8],
        tables: &Tables,
        now: Instant,
    ) -> Result<(), Reason> {
        let (header, frame) = FloodHeader::split(body).ok_or(Reason::BadPayload)?;
        let mac = admit(frame)?;
        let tree = tables
            .flood_tree(header.source)
            .filter(|tree| header.source != tables.me_short && tree.parent == Some(session.peer))
            .ok_or(Reason::FloodParent)?;
        let is_for_bridge = self.shared.broadcasts().accept(&header, now)?;
        self.count_frame(session, path, frame);
        // A neighbour cannot make a flood live longer than it may.
        let ttl = ttl.min(flood::TTL).saturating_sub(1);
        if ttl == 0 && !tree.children.is_empty() {
            self.stats.drop_one(Reason::FloodTtl);
        }
        let children = tree.children.iter().filter(|_| ttl > 0);
        for child in children.filter(|child| **child != session.peer) {
            if self.send_flood(*child, &header, ttl, frame, tables) {
                self.stats.floods_forwarded.add(1);
            }
        }
        if !is_for_bridge {
            return Err(Reason::Suppressed);
        }
        if tables.announced(mac) == Some(tables.me) {
            // A container of ours did not send this through the mesh: it went round.
            self.look_for_second_way(tables, now);
            return Err(Reason::SecondWay);
        }
        if let Some(origin) = tables.resolve(header.source) {
            self.learn(mac, fdb::Place::Remote(origin), tables, now);
        }
        self.write(frame)?;
        self.stats.floods_delivered.add(1);
        Ok(())
    }

    fn handle_relay(
        &mut self,
        header: &Header,
        (datagram, place): (&mut [u8], Place),
        tables: &Tables,
        now: Instant,
    ) -> Result<(), Reason> {
        let session = tables
            .session(header.receiver)
            .ok_or(Reason::UnknownSession)?;
        session.verify_relay(header, datagram)?;
        let lane = session.stats.of(self.transmitter.worker.number);
        lane.records_direct.add(1);
        let (ends, _) = RelayEnds::split(datagram).ok_or(Reason::Malformed)?;
        if ends.destination == tables.me_short {
            return self.handle_inner(session, (datagram, place), tables, now);
        }
        // A neighbour cannot make a datagram live longer than it may.
        let ttl = header.ttl.min(relay::TTL).saturating_sub(1);
        if ttl == 0 {
            return Err(Reason::RelayTtl);
        }
        let next = tables
            .next_hop(ends.destination)
            .filter(|next| *next != session.peer && *next != tables.me)
            .and_then(|next| tables.direct(next))
            .ok_or(Reason::RelayNoRoute)?;
        if let Some(limit) = &self.shared.carry_limit {
            // Whose it is the neighbour says. It is believed of itself and of those that are reached through it; else it
            // could spend others' allowance, and is charged itself.
            let is_behind = |origin: &PeerId| {
                *origin == session.peer || tables.next_hop(ends.source) == Some(session.peer)
            };
            let origin = tables.resolve(ends.source).filter(is_behind);
            let stats = origin.and_then(|origin| tables.stats_of(origin));
            let carried = &stats.unwrap_or(&session.stats).carried;
            if !carried.admits(limit, datagram.len(), now) {
                return Err(Reason::RelayLimit);
            }
        }
        let class = place.class;
        self.transmitter
            .forward_relay(next, (ttl, class), datagram)?;
        self.stats.relayed.add(1);
        Ok(())
    }

    /// The inner datagram of a relay datagram for this peer.
    fn handle_inner(
        &mut self,
        neighbour: &Session,
        (datagram, place): (&mut [u8], Place),
        tables: &Tables,
        now: Instant,
    ) -> Result<(), Reason> {
        let end = datagram.len().saturating_sub(TAG_LEN);
        let inner = datagram
            .get_mut(INNER_OFFSET..end)
            .ok_or(Reason::Malformed)?;
        let header = Header::decode(inner).map_err(|_| Reason::Malformed)?;
        if header.kind == Kind::Record && header.lane() != CONTROL_LANE {
            let from = place.from + INNER_OFFSET;
            let record = (inner, Place { from, ..place }, PathKind::Relay);
            return self.handle_record(&header, record, tables, now);
        }
        self.inbox.relayed(neighbour.peer, inner);
        Ok(())
    }
}

/// Whether a datagram says that it belongs to a session.
pub(crate) fn is_sealed(header: &Header) -> bool {
    matches!(header.kind, Kind::Record | Kind::Relay)
}
