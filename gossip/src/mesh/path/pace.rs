//! How eagerly a path is watched.

use core::time::Duration;

/// How eagerly a path is watched.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Pace {
    /// Interval of probes while it is alive.
    pub(crate) alive: Duration,
    /// Longest interval of retries while it is dead.
    pub(crate) dead: Duration,
    /// Interval of probes of a path that works and is not the one in use: it is asked at once when that
    /// one is suspected.
    spare: Duration,
    /// Whether both ends ask, each for itself.
    both: bool,
    /// Whether nothing but control messages goes by it.
    pub(crate) is_control_only: bool,
    /// After so much silence this end sends something, so that a mapping of its own translator lives.
    pub(crate) keep: Option<Duration>,
}

/// Without traffic the end with the larger id lets the other ask, and asks itself so much later.
pub(super) const YIELD: Duration = Duration::from_millis(250);

impl Pace {
    /// Peers with traffic.
    pub(crate) const BUSY: Pace = Pace {
        alive: Duration::from_secs(1),
        dead: Duration::from_secs(3),
        spare: Duration::from_secs(3),
        both: true,
        is_control_only: false,
        keep: None,
    };
    /// Peers that had traffic lately. Multiples of one time, so that a host that has nothing else to do wakes for
    /// all of them at once.
    pub(crate) const CLOSE: Pace = Pace {
        alive: Duration::from_millis(1_700),
        dead: Duration::from_secs(3),
        spare: Duration::from_millis(5_100),
        both: false,
        is_control_only: false,
        keep: None,
    };
    /// Neighbours without traffic, and peers that had some minutes ago. Who sends notices a cut within a second all
    /// the same, and who allocates asks first (`handle_demand`).
    pub(crate) const QUIET: Pace = Pace {
        alive: Duration::from_secs(4),
        dead: Duration::from_secs(4),
        spare: Duration::from_secs(12),
        both: false,
        is_control_only: false,
        keep: None,
    };
    /// Control neighbours of a large mesh without traffic.
    pub(crate) const LINK: Pace = Pace {
        alive: Duration::from_secs(8),
        dead: Duration::from_secs(8),
        spare: Duration::from_secs(8),
        both: false,
        is_control_only: true,
        keep: None,
    };
    /// Everything else.
    pub(crate) const IDLE: Pace = Pace {
        alive: Duration::from_secs(10),
        dead: Duration::from_secs(30),
        spare: Duration::from_secs(10),
        both: false,
        is_control_only: false,
        keep: None,
    };

    /// The same for a path that works and is not used.
    pub(crate) fn of_spare(self) -> Pace {
        Pace {
            alive: self.spare,
            ..self
        }
    }

    /// The same for the end that lets the other ask where one is enough.
    pub(crate) const fn yielding(self) -> Pace {
        match self.both {
            true => self,
            false => Pace {
                alive: self.alive.saturating_add(YIELD),
                ..self
            },
        }
    }

    /// Whether a question of the other end stands for an own one.
    pub(crate) fn is_shared(self) -> bool {
        !self.both
    }
}
