//! What `launch` settles before a daemon runs: identity, secret, remembered peers.

use std::path::Path;

use rmesh_gossip::crypto::{Key, secret};
use zeroize::Zeroizing;

use super::launch::say;
use crate::args::{Global, LaunchArgs};
use crate::daemon::TARGETS_MAX;
use crate::failure::{Failure, FailureKind};
use crate::peer_address::PeerAddress;
use crate::state::{
    File, Lock, LockError, RUN_LOCK, STATE_LOCK, StateDir, StateError, check_owner, lock_todo,
    make_folder, read_secret,
};

const WHAT: &str = "cannot launch";

/// What there is to say about it.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Prepared {
    /// A new mesh was founded.
    pub(crate) founded: bool,
    /// A daemon has run here, but its identity is gone: this is a new peer.
    pub(crate) renewed: bool,
    /// The secret was given as a passphrase.
    pub(crate) passphrase: bool,
}

/// Settles the state in the folders; refuses while a daemon uses them.
pub(super) fn prepare(global: &Global, args: &LaunchArgs) -> Result<Prepared, Failure> {
    make_folder(&global.run_dir)
        .map_err(|cause| Failure::failed(WHAT, format!("{}: {cause}", global.run_dir.display())))?;
    let state = StateDir::open(&global.state_dir).map_err(cannot)?;
    for folder in [&global.run_dir, &global.state_dir] {
        check_owner(folder).map_err(|error| {
            let todo = error.todo();
            Failure::failed(WHAT, error).todo(todo)
        })?;
    }
    let _run = lock(&global.run_dir, RUN_LOCK)?;
    let _state = lock(&global.state_dir, STATE_LOCK)?;
    state.recover().map_err(cannot)?;
    let given = given_secret(args)?;
    settle(&state, given, args)
}

fn cannot(error: StateError) -> Failure {
    let todo = error.todo();
    Failure::failed(WHAT, error).todo(todo)
}

fn lock(folder: &Path, name: &str) -> Result<Lock, Failure> {
    Lock::take(folder, name).map_err(|error| match error {
        LockError::Held { pid, .. } => {
            let why = format!("rmesh is running already (pid {pid}, {})", folder.display());
            Failure::new(FailureKind::Conflict, WHAT, why).todo(
                "to add peers: rmesh connect PEER…; to start it anew: rmesh stop, then launch; for \
                 a second mesh use another --run-dir, --state-dir, --bridge and --port",
            )
        }
        LockError::Refused { ref cause, .. } => {
            let todo = lock_todo(folder, cause);
            Failure::failed(WHAT, error).todo(todo)
        }
    })
}

fn given_secret(args: &LaunchArgs) -> Result<Option<Zeroizing<String>>, Failure> {
    match (&args.secret, &args.secret_file) {
        (Some(word), _) => Ok(Some(word.text())),
        (None, Some(path)) => read_secret(path).map(Some),
        (None, None) => Ok(None),
    }
}

/// Writes what is missing; changes nothing if it refuses.
///
/// The order is what a power cut leaves in a sound state: who knows of peers joins them and founds
/// nothing, and the identity, which makes a member, comes last.
pub(crate) fn settle(
    state: &StateDir,
    given: Option<Zeroizing<String>>,
    args: &LaunchArgs,
) -> Result<Prepared, Failure> {
    let kept = state.secret().map_err(cannot)?;
    let identity = state.identity().map_err(cannot)?;
    let has_run = state.has(File::Boot).map_err(cannot)?;
    let (peers, new_peers) = join_peers(state, args)?;
    let mut prepared = Prepared {
        founded: !has_run && peers.is_empty(),
        renewed: has_run && identity.is_none(),
        passphrase: false,
    };
    let key = match (given, &kept) {
        (Some(text), _) => {
            let parsed = secret::parse(&text);
            let parsed =
                parsed.map_err(|e| Failure::new(FailureKind::Usage, "cannot use the secret", e))?;
            prepared.passphrase = parsed.is_passphrase();
            parsed.into_key()
        }
        (None, Some(kept)) => kept.clone(),
        (None, None) if !peers.is_empty() => return Err(no_secret()),
        (None, None) if has_run || identity.is_some() => return Err(lost_secret(state)),
        (None, None) => random_key()?,
    };
    if kept.as_ref().is_some_and(|kept| *kept != key) {
        return Err(other_secret(state));
    }
    if new_peers {
        state.save(File::Peers, &peers).map_err(cannot)?;
    }
    if kept.is_none() {
        state.save_key(File::Secret, &key).map_err(cannot)?;
    }
    if identity.is_none() {
        state
            .save_key(File::Identity, &random_key()?)
            .map_err(cannot)?;
    }
    Ok(prepared)
}

/// How to get the secret of a mesh.
const FETCH_SECRET: &str = "on a member, `rmesh secret` prints it; copy it into a file of mode 0600 \
                            here and add --secret-file FILE";

fn no_secret() -> Failure {
    let why = "a mesh with peers is joined with its secret, and none was given";
    Failure::failed(WHAT, why).todo(FETCH_SECRET)
}

fn lost_secret(state: &StateDir) -> Failure {
    let why = format!(
        "this host has been in a mesh, but its secret, {}, is missing; a new mesh is not founded \
         where state exists",
        state.path("secret").display()
    );
    Failure::failed(WHAT, why).todo(FETCH_SECRET)
}

fn other_secret(state: &StateDir) -> Failure {
    let folder = state.path("");
    let folder = folder.display();
    let why = format!("this host belongs to a mesh with another secret (state in {folder})");
    let todo = "leave out the secret to go on in that mesh; to leave it for good: rmesh reset \
                --force, then launch again";
    Failure::new(FailureKind::Conflict, WHAT, why).todo(todo)
}

/// The list to be remembered, and whether it is another than before.
fn join_peers(state: &StateDir, args: &LaunchArgs) -> Result<(Vec<PeerAddress>, bool), Failure> {
    let mut peers = match state.peers() {
        Ok(peers) => peers,
        Err(error @ StateError::MovedAside { .. }) => {
            say(args.foreground, &format!("{error}; name the peers again"));
            Vec::new()
        }
        Err(error) => return Err(cannot(error)),
    };
    let before = peers.len();
    for peer in &args.peers {
        if !peers.contains(peer) {
            peers.push(peer.clone());
        }
    }
    if peers.len() > TARGETS_MAX {
        let why = format!("at most {TARGETS_MAX} peers are remembered");
        let todo = "name a few: the others are found through them";
        return Err(Failure::new(FailureKind::Usage, WHAT, why).todo(todo));
    }
    let changed = peers.len() > before;
    Ok((peers, changed))
}

fn random_key() -> Result<Key, Failure> {
    let mut filled = Ok(());
    let key = Key::made_by(|key| filled = getrandom::fill(key));
    filled
        .map(|()| key)
        .map_err(|cause| Failure::failed(WHAT, cause))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::args::{Verb, parse};

    fn launch(folder: &Path, line: &str) -> Result<Prepared, Failure> {
        let line = format!(
            "rmesh launch {line} --run-dir {0}/run --state-dir {0}/state",
            folder.display()
        );
        let arguments = parse(line.split_whitespace()).unwrap();
        let Verb::Launch(args) = &arguments.verb else {
            panic!()
        };
        prepare(&arguments.global, args)
    }

    fn state(folder: &Path) -> StateDir {
        StateDir::open(&folder.join("state")).unwrap()
    }

    #[test]
    fn alone_it_founds_once() {
        let folder = tempfile::tempdir().unwrap();
        assert!(launch(folder.path(), "").unwrap().founded);
        let state = state(folder.path());
        let (secret, identity) = (state.secret().unwrap(), state.identity().unwrap());
        assert!(secret.is_some() && identity.is_some());
        // Until a daemon has run, it is the same founding, perhaps after a power cut.
        assert!(launch(folder.path(), "").unwrap().founded);
        state.save(File::Boot, &1u64).unwrap();
        assert!(!launch(folder.path(), "").unwrap().founded);
        assert!(state.secret().unwrap() == secret && state.identity().unwrap() == identity);
    }

    #[test]
    fn with_peers_and_no_secret_it_refuses_and_changes_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let failure = launch(folder.path(), "host1").unwrap_err();
        assert!(failure.todo.contains("rmesh secret"), "{failure}");
        let state = state(folder.path());
        assert!(state.secret().unwrap().is_none() && state.identity().unwrap().is_none());
        assert!(state.peers().unwrap().is_empty());
    }

    #[test]
    fn peers_are_added_to_those_remembered() {
        let folder = tempfile::tempdir().unwrap();
        let first = "host1 --secret passphrase-of-the-tests";
        let prepared = launch(folder.path(), first).unwrap();
        assert_eq!((prepared.founded, prepared.passphrase), (false, true));
        launch(folder.path(), "host2 host1").unwrap();
        let peers = state(folder.path()).peers().unwrap();
        let peers: Vec<String> = peers.iter().map(ToString::to_string).collect();
        assert_eq!(peers, ["host1:6783", "host2:6783"]);
    }

    #[test]
    fn another_secret_is_refused_where_state_exists() {
        let folder = tempfile::tempdir().unwrap();
        launch(folder.path(), "").unwrap();
        let kept = state(folder.path()).secret().unwrap();
        let text = secret::format(kept.as_ref().unwrap());
        launch(folder.path(), &format!("--secret {}", *text)).unwrap();
        let other = secret::format(&Key::new([9; 32]));
        let failure = launch(folder.path(), &format!("--secret {}", *other)).unwrap_err();
        assert_eq!(failure.kind, FailureKind::Conflict);
        assert!(!failure.to_string().contains(other.as_str()), "{failure}");
        assert!(state(folder.path()).secret().unwrap() == kept);
    }

    #[test]
    fn a_lost_secret_founds_no_second_mesh() {
        let folder = tempfile::tempdir().unwrap();
        launch(folder.path(), "").unwrap();
        std::fs::remove_file(folder.path().join("state/secret")).unwrap();
        let failure = launch(folder.path(), "").unwrap_err();
        assert!(failure.why.contains("missing"), "{failure}");
    }

    #[test]
    fn a_lost_identity_is_said() {
        let folder = tempfile::tempdir().unwrap();
        launch(folder.path(), "").unwrap();
        let state = state(folder.path());
        state.save(File::Boot, &1u64).unwrap();
        assert!(!launch(folder.path(), "").unwrap().renewed);
        std::fs::remove_file(folder.path().join("state/identity")).unwrap();
        assert!(launch(folder.path(), "").unwrap().renewed);
    }

    #[test]
    fn a_running_daemon_is_named_with_its_pid() {
        let folder = tempfile::tempdir().unwrap();
        launch(folder.path(), "").unwrap();
        let _held = Lock::take(&folder.path().join("run"), RUN_LOCK).unwrap();
        let failure = launch(folder.path(), "host9").unwrap_err();
        let pid = format!("pid {}", std::process::id());
        assert!(failure.why.contains(&pid), "{failure}");
        assert!(failure.todo.contains("rmesh connect"), "{failure}");
    }
}
