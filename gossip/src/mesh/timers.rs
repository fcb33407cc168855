//! What is due when, and what follows from every input.

use rmesh_wire::Instant;

use super::Mesh;

impl Mesh {
    /// Brings everything derived up to date; after every input.
    pub(super) fn settle(&mut self, now: Instant) {
        // Routes follow links, paths follow routes, links follow paths: few rounds reach the end,
        // and whatever is left is picked up by the timer that is set below.
        self.refresh_fast(now);
        for _ in 0..3 {
            self.news.members |= self.dirty.links || self.dirty.routes;
            if core::mem::replace(&mut self.dirty.links, false) {
                self.refresh_links(now);
            }
            if core::mem::replace(&mut self.dirty.routes, false) {
                self.refresh_routes(now);
            }
            if core::mem::replace(&mut self.dirty.overlay, false) {
                self.follow_overlay(now);
            }
            if !self.dirty.links && !self.dirty.routes {
                break;
            }
        }
        self.next_timeout = self.next_deadline(now);
    }

    pub(super) fn run_timers(&mut self, now: Instant) {
        self.half_opens.expire(now);
        self.expire_sessions(now);
        self.resend_finishes(now);
        self.watch_tcp(now);
        self.watch_paths(now);
        self.watch_fast(now);
        self.dial(now);
        self.watch_twin(now);
        self.run_publisher(now);
        self.flush(now);
        self.fetch_announced(now);
        self.dirty.routes |= self.routes_due.is_some_and(|due| due <= now);
        self.dirty.overlay |= self.overlay_due.is_some_and(|due| due <= now);
        if self.macs.deadline().is_some_and(|due| due <= now) {
            self.refresh_macs(now);
            self.dirty.forwarding = true;
        }
    }

    fn next_deadline(&self, now: Instant) -> (Instant, &'static str) {
        let deadlines = [
            (self.half_opens.deadline(), "a handshake times out"),
            (self.sessions_deadline(), "a session ends"),
            (self.finish_deadline(), "a third message is repeated"),
            (self.paths_deadline(), "a path is probed"),
            (self.tcp_deadline(now), "TCP is tried or left"),
            (self.fast_deadline(), "a heartbeat is due"),
            (self.dial_deadline(now), "a peer is dialled"),
            (self.dial_check, "a peer may have to be dialled"),
            (self.publisher_deadline(), "the own record is published"),
            (self.flush_deadline(), "records are spread"),
            (
                self.announced.deadline(),
                "an announced record has not come",
            ),
            (self.routes_due, "the routes follow changed records"),
            (self.overlay_due, "control links follow who is there"),
            (self.twin_deadline(), "a twin is looked after"),
            (self.macs.deadline(), "a frozen MAC may move again"),
            (self.store.deadline(self.me), "a record expires"),
        ];
        let due = deadlines
            .into_iter()
            .filter_map(|(due, why)| Some((due?, why)));
        let (due, why) = due
            .min()
            .unwrap_or((now + crate::limits::RECORD_REFRESH, "idle"));
        (due.max(now), why)
    }
}
