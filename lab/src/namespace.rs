//! A named network namespace: entering it, running programs in it, asking what is in it.

use std::{
    fs::File,
    io::{self, Read, Seek, SeekFrom},
    os::fd::{AsFd, BorrowedFd},
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Output, Stdio},
    thread,
    time::{Duration, Instant},
};

use ipnet::IpNet;
use rustix::{
    fs::{MemfdFlags, memfd_create},
    thread::{LinkNameSpaceType, move_into_link_name_space},
};

use crate::{LabError, error::Attempt, netlink, netns, sys};

/// How long [`Namespace::command`] lets a program run.
const COMMAND_LIMIT: Duration = Duration::from_secs(60);
/// How often a running program is looked at.
const POLL: Duration = Duration::from_millis(5);
/// Most output of a program that is kept, in bytes: enough for any report, bounded for a runaway.
const MAX_OUTPUT_BYTES: u64 = 16 << 20;

/// A network namespace with a name under `/run/netns`.
#[derive(Debug)]
pub struct Namespace {
    name: String,
    path: PathBuf,
    file: File,
}

impl Namespace {
    /// Makes the namespace, with `lo` up.
    pub(crate) fn create(name: &str) -> Result<Namespace, LabError> {
        let path = netns::create(name).attempt(|| format!("make network namespace {name}"))?;
        let file = File::open(&path).attempt(|| format!("open {}", path.display()))?;
        Ok(Namespace {
            name: name.to_owned(),
            path,
            file,
        })
    }

    /// Its name under `/run/netns`.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// `/run/netns/NAME`.
    pub fn path(&self) -> &Path {
        &self.path
    }

    pub(crate) fn fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }

    /// Moves the calling thread into the namespace for good: for threads that serve nothing else.
    pub(crate) fn adopt_thread(&self) -> io::Result<()> {
        Ok(move_into_link_name_space(
            self.fd(),
            Some(LinkNameSpaceType::Network),
        )?)
    }

    /// Runs `f` on a thread inside the namespace and waits for it. Sockets opened by `f` stay in the
    /// namespace wherever they are used later. A panic of `f` goes on in the caller.
    ///
    /// # Panics
    /// If the thread may not enter, which means that the process lost its privileges.
    pub fn enter<T: Send>(&self, f: impl FnOnce() -> T + Send) -> T {
        let inside = || {
            if let Err(error) = self.adopt_thread() {
                panic!("cannot enter network namespace {}: {error}", self.name);
            }
            f()
        };
        let result = thread::scope(|scope| scope.spawn(inside).join());
        result.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    }

    /// Runs a program inside the namespace until it ends, at most for a minute.
    ///
    /// # Errors
    /// If it cannot be started, or did not end in time. A failed exit is not an error.
    pub fn command(&self, program: &Path, args: &[&str]) -> Result<Output, LabError> {
        self.command_with(program, args, &[], COMMAND_LIMIT)
    }

    /// Like [`Namespace::command`], with more environment variables and a time limit of its own.
    ///
    /// # Errors
    /// As [`Namespace::command`].
    pub fn command_with(
        &self,
        program: &Path,
        args: &[&str],
        env: &[(&str, &str)],
        limit: Duration,
    ) -> Result<Output, LabError> {
        let what = || {
            format!(
                "run {} {} in {}",
                program.display(),
                args.join(" "),
                self.name
            )
        };
        // Files in memory and not pipes: a daemon that the program leaves behind may keep them open.
        let mut stdout = memory_file().attempt(what)?;
        let mut stderr = memory_file().attempt(what)?;
        let mut command = Command::new(program);
        command
            .args(args)
            .envs(env.iter().copied())
            .stdin(Stdio::null());
        command.stdout(stdout.try_clone().attempt(what)?);
        command.stderr(stderr.try_clone().attempt(what)?);
        sys::die_with_parent(&mut command);

        // The thread that starts it also waits for it, because the program dies with that thread.
        let status = self
            .enter(|| wait_within(command.spawn()?, limit))
            .attempt(what)?;
        let (stdout, stderr) = (
            contents(&mut stdout).attempt(what)?,
            contents(&mut stderr).attempt(what)?,
        );
        match status {
            Some(status) => Ok(Output {
                status,
                stdout,
                stderr,
            }),
            None => Err(LabError::TimedOut {
                what: what(),
                limit,
                output: String::from_utf8_lossy(&[stdout, stderr].concat()).into_owned(),
            }),
        }
    }

    /// Names of all interfaces, `lo` included.
    ///
    /// # Errors
    /// If the kernel does not answer.
    pub fn interface_names(&self) -> Result<Vec<String>, LabError> {
        self.enter(netlink::interface_names)
            .attempt(|| format!("list the interfaces of {}", self.name))
    }

    /// The Ethernet address of an interface.
    ///
    /// # Errors
    /// If there is no such interface or it has none.
    pub fn mac(&self, interface: &str) -> Result<[u8; 6], LabError> {
        self.enter(|| netlink::mac(interface))
            .attempt(|| format!("read the MAC address of {interface} in {}", self.name))
    }

    /// Addresses of an interface with their prefix lengths, link-local ones included.
    ///
    /// # Errors
    /// If there is no such interface.
    pub fn addresses(&self, interface: &str) -> Result<Vec<IpNet>, LabError> {
        self.enter(|| netlink::addresses(interface))
            .attempt(|| format!("read the addresses of {interface} in {}", self.name))
    }
}

fn memory_file() -> io::Result<File> {
    Ok(File::from(memfd_create("output", MemfdFlags::CLOEXEC)?))
}

fn contents(file: &mut File) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    file.seek(SeekFrom::Start(0))?;
    file.take(MAX_OUTPUT_BYTES).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// `None` if it had to be killed.
fn wait_within(mut child: Child, limit: Duration) -> io::Result<Option<ExitStatus>> {
    let deadline = Instant::now() + limit;
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(Some(status));
        }
        if Instant::now() >= deadline {
            child.kill()?;
            child.wait()?;
            return Ok(None);
        }
        thread::sleep(POLL);
    }
}
