//! Virtual hosts, and the containers beside them.

use std::{
    fs::{self, File},
    ops::Deref,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::Arc,
};

use crate::{
    LabError, Namespace, Process,
    error::Attempt,
    folder::{LabFolder, check_name},
    netns,
    process::{Processes, Spawner},
};

/// Longest host name: `eth-<host>` must fit an interface name of 15 bytes.
const MAX_HOST_NAME: usize = 11;
/// Longest container name.
const MAX_CONTAINER_NAME: usize = 32;

/// What a lab and its hosts share.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) folder: LabFolder,
    pub(crate) processes: Processes,
}

impl Shared {
    /// Makes a namespace that the next lab finds if this one is killed.
    fn namespace(&self, name: &str) -> Result<Arc<Namespace>, LabError> {
        // Checked before it is written down: what is written down is removed with this lab.
        if netns::path_of(name).exists() {
            return Err(LabError::Taken {
                name: name.to_owned(),
            });
        }
        self.folder.record_namespace(name)?;
        Ok(Arc::new(Namespace::create(name)?))
    }
}

/// A virtual host: a network namespace `rmesh-<lab>-<host>` with folders of its own.
#[derive(Debug, Clone)]
pub struct Host(Arc<HostParts>);

#[derive(Debug)]
struct HostParts {
    name: String,
    namespace: Arc<Namespace>,
    spawner: Spawner,
    shared: Arc<Shared>,
}

/// Variables of this process's environment that a program on a virtual host sees.
const ENVIRONMENT_KEPT: [&str; 5] = ["PATH", "HOME", "TMPDIR", "RUST_BACKTRACE", "RUST_LOG"];

impl Host {
    pub(crate) fn create(shared: &Arc<Shared>, name: &str) -> Result<Host, LabError> {
        check_name("host", name, MAX_HOST_NAME)?;
        let namespace = shared.namespace(&format!("rmesh-{}-{name}", shared.folder.name()))?;
        let spawner = Spawner::start(&namespace)?;
        let parts = HostParts {
            name: name.to_owned(),
            namespace,
            spawner,
            shared: Arc::clone(shared),
        };
        let host = Host(Arc::new(parts));
        for folder in [host.run_dir(), host.state_dir()] {
            fs::create_dir_all(&folder).attempt(|| format!("make {}", folder.display()))?;
        }
        Ok(host)
    }

    /// The name given to [`Lab::host`](crate::Lab::host).
    pub fn short_name(&self) -> &str {
        &self.0.name
    }

    /// Makes a container: a bare namespace `rmesh-<lab>-<host>-<container>` with `lo` up and nothing
    /// that ties it to the host.
    ///
    /// # Errors
    /// If the name does not fit or the kernel refuses.
    pub fn container(&self, name: &str) -> Result<Container, LabError> {
        check_name("container", name, MAX_CONTAINER_NAME)?;
        self.0
            .shared
            .namespace(&format!("{}-{name}", self.name()))
            .map(Container)
    }

    /// Starts a program inside the host; what it prints is appended to `log`. It dies with this
    /// process, however that ends. A host has its own environment: of this process's, only what
    /// finds and debugs programs is passed on.
    ///
    /// # Errors
    /// If the log cannot be opened or the program not be started.
    pub fn spawn(
        &self,
        program: &Path,
        args: &[&str],
        env: &[(&str, &str)],
        log: &Path,
    ) -> Result<Process, LabError> {
        let opening = || format!("open {}", log.display());
        let output = File::options()
            .create(true)
            .append(true)
            .open(log)
            .attempt(opening)?;
        let mut command = Command::new(program);
        let kept = ENVIRONMENT_KEPT.iter();
        let kept = kept.filter_map(|name| Some((*name, std::env::var_os(name)?)));
        command
            .args(args)
            .env_clear()
            .envs(kept)
            .envs(env.iter().copied())
            .stdin(Stdio::null());
        command
            .stdout(output.try_clone().attempt(opening)?)
            .stderr(output);
        self.0.spawner.spawn(command, &self.0.shared.processes)
    }

    /// A folder for sockets and the like, made already.
    pub fn run_dir(&self) -> PathBuf {
        self.folder().join("run")
    }

    /// A folder for durable state, made already.
    pub fn state_dir(&self) -> PathBuf {
        self.folder().join("state")
    }

    fn folder(&self) -> PathBuf {
        self.0.shared.folder.path().join(&self.0.name)
    }
}

impl Deref for Host {
    type Target = Namespace;

    fn deref(&self) -> &Namespace {
        &self.0.namespace
    }
}

/// A container: a bare network namespace.
#[derive(Debug, Clone)]
pub struct Container(Arc<Namespace>);

impl Deref for Container {
    type Target = Namespace;

    fn deref(&self) -> &Namespace {
        &self.0
    }
}
