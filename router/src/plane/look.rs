//! Whether a worker looks for more before it sleeps.
//!
//! To be woken takes longer than most answers do on their way, and costs who wakes it time as well. So a worker that
//! had something to do looks for a while whether there is more, if there was soon the last time. It remembers that apart for
//! what came by the port and by the sockets: to a question an answer comes soon, and after an answer nothing for long.

use std::time::Duration;

/// No longer wait is one to look for its end.
const SHORT: Duration = Duration::from_micros(125);
/// It looks at least so long, if at all, and half as long again as it waited the last time.
const LEAST: Duration = Duration::from_micros(50);

/// Where something came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Source {
    /// Frames of the own bridge.
    Port,
    /// Datagrams of others.
    Sockets,
}

/// How long it was until something came, after something had come from either.
#[derive(Debug)]
pub(crate) struct Look {
    last: Source,
    after_port: Duration,
    after_sockets: Duration,
}

impl Default for Look {
    fn default() -> Self {
        Look {
            last: Source::Port,
            after_port: Duration::MAX,
            after_sockets: Duration::MAX,
        }
    }
}

impl Look {
    /// For how long to look now; zero to sleep at once.
    pub(crate) fn time(&self) -> Duration {
        let waited = match self.last {
            Source::Port => self.after_port,
            Source::Sockets => self.after_sockets,
        };
        match waited <= SHORT {
            true => (waited + waited / 2).clamp(LEAST, SHORT),
            false => Duration::ZERO,
        }
    }

    /// Something came from there after it was waited for so long.
    pub(crate) fn came(&mut self, from: Source, waited: Duration) {
        match self.last {
            Source::Port => self.after_port = waited,
            Source::Sockets => self.after_sockets = waited,
        }
        self.last = from;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn us(us: u64) -> Duration {
        Duration::from_micros(us)
    }

    #[test]
    fn who_asks_now_and_then_looks_for_the_answer_and_sleeps_after_it() {
        let mut look = Look::default();
        assert_eq!(look.time(), Duration::ZERO);
        for _ in 0..3 {
            look.came(Source::Port, us(2_000));
            look.came(Source::Sockets, us(80));
        }
        assert_eq!(
            look.time(),
            Duration::ZERO,
            "nothing came soon after answers"
        );
        look.came(Source::Port, us(2_000));
        assert_eq!(look.time(), us(120));
    }

    #[test]
    fn a_stream_is_looked_for_and_its_end_costs_one_look() {
        let mut look = Look::default();
        for _ in 0..3 {
            look.came(Source::Sockets, us(3));
        }
        assert_eq!(look.time(), LEAST);
        look.came(Source::Sockets, us(500));
        assert_eq!(look.time(), Duration::ZERO);
        look.came(Source::Sockets, us(124));
        assert_eq!(look.time(), SHORT);
    }
}
