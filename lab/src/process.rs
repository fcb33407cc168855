//! Programs that run inside a host: started, paused, ended, and gone with the lab.

use std::{
    io,
    process::{Child, Command, ExitStatus},
    sync::{Arc, Mutex, mpsc},
    thread,
    time::{Duration, Instant},
};

use rustix::process::{Pid, Signal, kill_process};

use crate::{
    LabError, Namespace,
    error::{Attempt, lock},
    sys,
};

/// How often a running program is looked at.
const POLL: Duration = Duration::from_millis(5);

/// A program inside a host. It is killed when the lab is dropped or when this process dies, not when
/// the handle is dropped.
#[derive(Debug)]
pub struct Process {
    pid: u32,
    name: String,
    child: Arc<Mutex<Child>>,
}

impl Process {
    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// Kills it (SIGKILL) and waits until it is gone. Not an error if it has ended already.
    ///
    /// # Errors
    /// If the kernel refuses.
    pub fn kill(&self) -> Result<(), LabError> {
        end(&self.child).attempt(|| format!("kill {}", self.name))
    }

    /// Asks it to end (SIGTERM) without waiting. Not an error if it has ended already.
    ///
    /// # Errors
    /// If the kernel refuses.
    pub fn terminate(&self) -> Result<(), LabError> {
        self.signal(Signal::TERM)
    }

    /// Stops it in its tracks (SIGSTOP): sockets stay open and nothing answers.
    ///
    /// # Errors
    /// If the kernel refuses.
    pub fn pause(&self) -> Result<(), LabError> {
        self.signal(Signal::STOP)
    }

    /// Undoes [`Process::pause`].
    ///
    /// # Errors
    /// If the kernel refuses.
    pub fn resume(&self) -> Result<(), LabError> {
        self.signal(Signal::CONT)
    }

    /// Waits until it ends, at most `timeout`; `None` if it still runs then.
    pub fn wait(&self, timeout: Duration) -> Option<ExitStatus> {
        let deadline = Instant::now() + timeout;
        loop {
            if let Ok(Some(status)) = lock(&self.child).try_wait() {
                return Some(status);
            }
            if Instant::now() >= deadline {
                return None;
            }
            thread::sleep(POLL);
        }
    }

    /// Whether it has not ended yet; true while it is paused.
    pub fn is_running(&self) -> bool {
        matches!(lock(&self.child).try_wait(), Ok(None))
    }

    fn signal(&self, signal: Signal) -> Result<(), LabError> {
        let mut child = lock(&self.child);
        // While the lock is held and the child is not reaped, its id cannot belong to anybody else.
        if !matches!(child.try_wait(), Ok(None)) {
            return Ok(());
        }
        kill_process(Pid::from_child(&child), signal)
            .attempt(|| format!("send {signal:?} to {} ({})", self.name, self.pid))
    }
}

/// Kills and reaps.
fn end(child: &Mutex<Child>) -> io::Result<()> {
    let mut child = lock(child);
    child.kill()?;
    child.wait().map(drop)
}

/// All programs a lab has started, so that it can end them.
#[derive(Debug, Default)]
pub(crate) struct Processes(Mutex<Vec<Arc<Mutex<Child>>>>);

impl Processes {
    fn add(&self, child: &Arc<Mutex<Child>>) {
        let mut all = lock(&self.0);
        // Those that have ended need no ending; this also bounds the list by what runs.
        all.retain(|child| matches!(lock(child).try_wait(), Ok(None)));
        all.push(Arc::clone(child));
    }

    /// Kills and reaps every one.
    pub(crate) fn end_all(&self) {
        for child in lock(&self.0).drain(..) {
            // An error means that it has ended and was reaped.
            let _ = end(&child);
        }
    }
}

type Request = (Command, mpsc::Sender<io::Result<Child>>);

/// A thread inside a namespace that starts programs there. The kernel ends a child when the *thread*
/// that forked it ends, so this thread lives as long as its host.
#[derive(Debug)]
pub(crate) struct Spawner(Mutex<mpsc::Sender<Request>>);

impl Spawner {
    /// Starts the thread.
    pub(crate) fn start(namespace: &Arc<Namespace>) -> Result<Spawner, LabError> {
        let (sender, requests) = mpsc::channel::<Request>();
        let (entered, ready) = mpsc::channel();
        let inside = Arc::clone(namespace);
        let serve = move || {
            let _ = entered.send(inside.adopt_thread());
            for (mut command, answer) in requests {
                // Nobody waits for the answer any more only if the caller panicked.
                let _ = answer.send(command.spawn());
            }
        };
        let what = || format!("start the thread of {}", namespace.name());
        thread::Builder::new()
            .name("lab-spawner".into())
            .spawn(serve)
            .attempt(what)?;
        ready
            .recv()
            .map_err(io::Error::other)
            .and_then(|entered| entered)
            .attempt(what)?;
        Ok(Spawner(Mutex::new(sender)))
    }

    /// Starts a program, and remembers it among `all`.
    pub(crate) fn spawn(&self, mut command: Command, all: &Processes) -> Result<Process, LabError> {
        let name = command.get_program().to_string_lossy().into_owned();
        sys::die_with_parent(&mut command);
        let (answer, started) = mpsc::channel();
        let sent = lock(&self.0)
            .send((command, answer))
            .map_err(io::Error::other);
        let child = sent
            .and_then(|()| started.recv().map_err(io::Error::other)?)
            .attempt(|| format!("start {name}"))?;
        let (pid, child) = (child.id(), Arc::new(Mutex::new(child)));
        all.add(&child);
        Ok(Process { pid, name, child })
    }
}
