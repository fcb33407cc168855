//! The scenes that are searched: those of every test run, and larger ones on demand (`rmesh-model`).

use super::scene::{Scene, Wish};
use super::world::{REBORN, Set};

/// The scenes of every test run.
pub fn all() -> Vec<Scene> {
    vec![
        grants(),
        succession(),
        two_addresses(),
        grown(),
        replaced(),
        two_leaders(),
        two_changes(),
        rolled_back(),
        returning(),
        witness_rolled_back(),
        witness_installed_anew(),
        witness_and_leaders(),
        reformed(),
    ]
}

/// Scenes of many millions of states, for `rmesh-model`.
pub fn large() -> Vec<Scene> {
    vec![
        Scene {
            name: "replaced, two takers",
            takers: vec![1, 2],
            listeners: Set(0b0010),
            ..replaced()
        },
        Scene {
            name: "replaced, two leaders",
            wishes: vec![wish(0, 0b1110), wish(0, 0b1110)],
            listeners: Set(0b0010),
            ..replaced()
        },
        Scene {
            name: "reformed, two takers",
            takers: vec![1, 1],
            ..reformed()
        },
    ]
}

fn wish(after: u8, witnesses: u8) -> Wish {
    Wish {
        after,
        witnesses: Set(witnesses),
        fresh: false,
    }
}

fn fresh_wish(after: u8, witnesses: u8) -> Wish {
    Wish {
        fresh: true,
        ..wish(after, witnesses)
    }
}

/// Three peers grant one address to each other, and containers come and go.
pub fn grants() -> Scene {
    Scene {
        name: "grants",
        grantees: Set(0b0111),
        grants: 3,
        containers: true,
        ..Scene::default()
    }
}

/// The owner is switched off in the middle of a grant, and two others take its space at once.
pub fn succession() -> Scene {
    Scene {
        name: "succession",
        takers: vec![1, 2],
        stops: true,
        containers: true,
        ..Scene::default()
    }
}

/// As before with two addresses: granted together or apart, taken in parts, to a peer that is no witness.
pub fn two_addresses() -> Scene {
    Scene {
        name: "two addresses",
        addresses: 2,
        pairs: true,
        grantees: Set(0b1000),
        listeners: Set(0b1000),
        takers: vec![1, 2],
        stops: true,
        ..Scene::default()
    }
}

/// The sole witness becomes one of three; then it is switched off and succeeded.
pub fn grown() -> Scene {
    Scene {
        name: "grown from one witness to three",
        witnesses: Set(0b0001),
        grants: 2,
        takers: vec![2],
        wishes: vec![wish(0, 0b0111)],
        stops: true,
        ..Scene::default()
    }
}

/// The owner, a witness too, is switched off; its place is given to another while it is succeeded.
pub fn replaced() -> Scene {
    Scene {
        name: "replaced",
        takers: vec![2],
        wishes: vec![wish(0, 0b1110)],
        stops: true,
        ..Scene::default()
    }
}

/// Two leaders want different witnesses; either may die at any point.
pub fn two_leaders() -> Scene {
    Scene {
        name: "two leaders",
        grants: 0,
        wishes: vec![wish(0, 0b1110), wish(0, 0b1101)],
        ..Scene::default()
    }
}

/// One witness becomes three, and one of the three is replaced.
pub fn two_changes() -> Scene {
    Scene {
        name: "two changes",
        witnesses: Set(0b0001),
        takers: vec![2],
        wishes: vec![wish(0, 0b0111), wish(1, 0b1110)],
        listeners: Set(0b0010),
        stops: true,
        ..Scene::default()
    }
}

/// The owner, a witness too, boots with an older disk and finds out.
pub fn rolled_back() -> Scene {
    Scene {
        name: "rolled back",
        grantees: Set(0b0111),
        grants: 2,
        takers: vec![0, REBORN],
        rolls_back: Some(0),
        ..Scene::default()
    }
}

/// The owner comes back, its disk intact, while it is being removed.
pub fn returning() -> Scene {
    Scene {
        name: "returning while removed",
        takers: vec![1, 0, 1],
        stops: true,
        returns: true,
        ..Scene::default()
    }
}

/// A witness boots with an older disk that lacks what it acknowledged; then the owner is succeeded.
pub fn witness_rolled_back() -> Scene {
    Scene {
        name: "witness rolled back",
        grantees: Set(0b1000),
        takers: vec![1],
        stops: true,
        rolls_back: Some(2),
        ..Scene::default()
    }
}

/// As before, and the witness is installed anew.
pub fn witness_installed_anew() -> Scene {
    Scene {
        name: "witness installed anew",
        listeners: Set(0b1000),
        wishes: vec![fresh_wish(0, 0b0111)],
        ..witness_rolled_back()
    }
}

/// A witness boots with an older disk while two leaders want different witnesses.
pub fn witness_and_leaders() -> Scene {
    Scene {
        name: "witness rolled back under two leaders",
        grants: 0,
        wishes: vec![fresh_wish(0, 0b0111), fresh_wish(0, 0b1110)],
        rolls_back: Some(2),
        ..Scene::default()
    }
}

/// A forced reform by whoever answers; what those own that answered stays safe.
pub fn reformed() -> Scene {
    Scene {
        name: "reformed by force",
        grants: 2,
        grantees: Set(0b1010),
        takers: vec![1],
        stops: true,
        reformer: Some(1),
        ..Scene::default()
    }
}
