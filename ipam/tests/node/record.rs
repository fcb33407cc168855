//! What was sent, to be delivered once more.

use rmesh_ipam::describe;

use crate::world::World;

/// One message.
#[derive(Clone)]
pub(crate) struct Sent {
    from: usize,
    to: usize,
    bytes: Vec<u8>,
    words: String,
}

impl World {
    /// Keeps a message, if messages are kept.
    pub(crate) fn record(&mut self, from: usize, to: usize, bytes: &[u8]) {
        if let Some(recorded) = &mut self.recorded {
            recorded.push(Sent {
                from,
                to,
                bytes: bytes.to_vec(),
                words: describe(bytes),
            });
        }
    }

    /// Whether a host sent a message that says so.
    pub(crate) fn has_sent(&self, at: usize, what: &str) -> bool {
        let mut sent = self.recorded.iter().flatten();
        sent.any(|sent| sent.from == at && sent.words.contains(what))
    }

    /// Every message between two hosts that says one of these arrives once more, at once and in
    /// order. Returns how many.
    pub(crate) fn replay(&mut self, from: usize, to: usize, what: &[&str]) -> usize {
        let (now, peer) = (self.clock(to), self.hosts[from].me);
        let sent = self.recorded.iter().flatten();
        let sent = sent.filter(|sent| (sent.from, sent.to) == (from, to));
        let sent = sent.filter(|sent| what.iter().any(|what| sent.words.contains(what)));
        let sent: Vec<Sent> = sent.cloned().collect();
        for message in &sent {
            if let Some(node) = &mut self.hosts[to].node {
                node.handle_message(peer, &message.bytes, now);
            }
            self.drain(to);
        }
        sent.len()
    }
}
