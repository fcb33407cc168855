//! From a datagram to what its payload asks for.

use rmesh_wire::datagram::{Header, Kind};
use rmesh_wire::payload::{CONTROL_LANE, Head, PayloadKind};
use rmesh_wire::{Instant, PeerId};

use super::{Mesh, Origin};

impl Mesh {
    pub(super) fn on_datagram(&mut self, origin: Origin, datagram: &[u8], now: Instant) {
        let Ok(header) = Header::decode(datagram) else {
            self.counters.datagrams_ignored += 1;
            return;
        };
        // One that gives way only listens whether its twin still answers.
        if self.gives_way() && !matches!(header.kind, Kind::HandshakeResponse | Kind::Cookie) {
            self.counters.datagrams_ignored += 1;
            return;
        }
        if let Origin::Fast { is_intact, .. } = origin {
            return self.on_fast(&header, datagram, is_intact, now);
        }
        match header.kind {
            Kind::HandshakeInit => self.on_init(origin, &header, datagram, now),
            Kind::HandshakeResponse => self.on_response(origin, &header, datagram, now),
            Kind::HandshakeFinish => self.on_finish(origin, &header, datagram, now),
            Kind::Record if header.lane() == CONTROL_LANE => {
                self.on_record(origin, &header, datagram, now);
            }
            Kind::Cookie => self.on_cookie(origin, &header, datagram, now),
            // Relay datagrams never nest.
            Kind::Relay if header.lane() == CONTROL_LANE && origin.address().is_some() => {
                self.on_relay(&header, datagram, now);
            }
            Kind::Record | Kind::Relay => self.counters.datagrams_ignored += 1,
        }
    }

    pub(super) fn on_record(
        &mut self,
        origin: Origin,
        header: &Header,
        datagram: &[u8],
        now: Instant,
    ) {
        let Some(session) = self.sessions.get_mut(&header.receiver) else {
            self.counters.datagrams_ignored += 1;
            return;
        };
        let payload = match session.open_record(header, datagram) {
            Ok(payload) => payload,
            Err(refusal) => return self.count_refusal(refusal),
        };
        let peer = session.agreement.peer;
        // A worker could not say for whom it was relayed; the session does.
        let origin = match origin {
            Origin::Relayed {
                neighbour,
                source: None,
            } => Origin::Relayed {
                neighbour,
                source: Some(peer.short_id()),
            },
            Origin::Relayed { .. } | Origin::Direct(_) | Origin::Fast { .. } => origin,
        };
        let split = Head::split(&payload);
        let is_of_port = |(head, _): &(Head, &[u8])| head.kind == PayloadKind::PortProbe;
        let Some((head, body)) = split.filter(is_of_port) else {
            session.heard_from = Some(origin);
            self.confirm(header.receiver, now);
            return self.on_payload(header.receiver, peer, (origin, split), now);
        };
        // It may have left from a port where nobody listens.
        self.on_port_probe(peer, origin, (head, body), now);
    }

    fn on_payload(
        &mut self,
        index: u32,
        peer: PeerId,
        (origin, payload): (Origin, Option<(Head, &[u8])>),
        now: Instant,
    ) {
        match payload {
            Some((head, body)) if head.kind == PayloadKind::Probe => {
                self.on_probe(index, origin, head, body, now);
            }
            Some((head, body)) if head.kind == PayloadKind::Control => {
                self.on_control(peer, body, now);
            }
            Some((head, body)) if head.kind == PayloadKind::Fragment => {
                self.on_fragment(index, (head.aux, body), now);
            }
            Some((head, _)) if head.kind == PayloadKind::Keep => self.on_keep(peer, origin, now),
            Some(_) | None => self.counters.datagrams_ignored += 1,
        }
    }
}
