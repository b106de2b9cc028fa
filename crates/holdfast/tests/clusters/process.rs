//! Processes of this test: each in the foreground, killed at its end, and by a watchdog if the test hangs.

use std::fs::File;
use std::io::{BufRead as _, BufReader};
use std::net::TcpListener;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc::{Sender, channel};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};

/// No process of a test lives longer.
const LIFE: Duration = Duration::from_secs(400);
/// For whatever a cluster has to come to by itself. Far more than it needs: what is tested is whether, not when.
pub const PATIENCE: Duration = Duration::from_secs(120);
/// Of each process of a failed test.
const LOG_LINES: usize = 60;
/// Below those that the kernel gives to outgoing connections and that Services may have on nodes.
const PORTS: Range<u16> = 20_000..30_000;
/// An attempt that hangs is given up, and made anew.
const ATTEMPT: Duration = Duration::from_secs(10);

/// One test at a time: fifteen servers on one machine would measure each other.
static TURN: Mutex<()> = Mutex::new(());

/// A directory of its own, gone at the end; and the test's turn.
pub struct Place(pub PathBuf, #[expect(dead_code, reason = "held, not read")] MutexGuard<'static, ()>);

impl Place {
    pub fn new(name: &str) -> Self {
        let turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
        let path = std::env::temp_dir().join(format!("holdfast-clusters-{}-{name}", std::process::id()));
        std::fs::create_dir_all(&path).unwrap();
        Self(path, turn)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if std::thread::panicking() {
            print_logs(&self.0);
        }
        std::fs::remove_dir_all(&self.0).ok();
    }
}

/// What the processes of a failed test said at last.
fn print_logs(directory: &Path) {
    let entries = std::fs::read_dir(directory).into_iter().flatten().filter_map(Result::ok);
    for file in entries.map(|entry| entry.path()).filter(|path| path.extension().is_some_and(|kind| kind == "log")) {
        let log = std::fs::read_to_string(&file).unwrap_or_default();
        let lines: Vec<&str> = log.lines().collect();
        println!("--- {}\n{}", file.display(), lines[lines.len().saturating_sub(LOG_LINES)..].join("\n"));
    }
}

/// `holdfast ARGS`.
pub fn holdfast(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_holdfast"));
    command.args(args).stdin(Stdio::null());
    command
}

/// A running process; killed, as by a power cut, when it is dropped.
pub struct Running {
    child: Child,
    _alive: Sender<()>,
}

impl Running {
    /// Its log goes to the end of `log`.
    pub fn start(mut command: Command, log: &Path) -> Self {
        let log = File::options().create(true).append(true).open(log).unwrap();
        let child = command.stdout(Stdio::piped()).stderr(log).spawn().unwrap();
        let (alive, ended) = channel();
        let pid = Pid::from_child(&child);
        std::thread::spawn(move || {
            // The end of the sender is the end of the process.
            if ended.recv_timeout(LIFE) == Err(std::sync::mpsc::RecvTimeoutError::Timeout) {
                kill_process(pid, Signal::KILL).ok();
            }
        });
        Self { child, _alive: alive }
    }

    /// Waits for the line `ready`.
    pub fn until_ready(mut self, log: &Path) -> Self {
        let lines = BufReader::new(self.child.stdout.take().unwrap()).lines();
        let ready = lines.map_while(Result::ok).any(|line| line == "ready");
        assert!(ready, "the server ended: {}", std::fs::read_to_string(log).unwrap());
        self
    }

    /// Asks it to end in order, and waits until it has, with success.
    pub fn terminate(self) {
        assert!(self.end_by_term().success(), "it ended with an error");
    }

    /// Asks it to end in order, and waits until it has.
    pub fn end_by_term(mut self) -> ExitStatus {
        kill_process(Pid::from_child(&self.child), Signal::TERM).unwrap();
        self.child.wait().unwrap()
    }

    /// Waits until it ends by itself; whether that was a success.
    pub fn wait(&mut self) -> bool {
        self.child.wait().unwrap().success()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().unwrap();
    }
}

/// What a command that must succeed prints.
pub fn output_of(mut command: Command) -> String {
    let Output { status, stdout, stderr } = command.output().unwrap();
    assert!(status.success(), "{}", String::from_utf8_lossy(&stderr));
    String::from_utf8(stdout).unwrap()
}

/// What a command that must fail says.
pub fn refusal_of(mut command: Command) -> String {
    let Output { status, stdout, stderr } = command.output().unwrap();
    assert!(!status.success(), "it succeeded: {}", String::from_utf8_lossy(&stdout));
    String::from_utf8(stderr).unwrap()
}

/// A port that nobody listens on, another one at each call. No outgoing connection is given it while its server is away.
pub fn free_port() -> u16 {
    static CALLS: AtomicU32 = AtomicU32::new(0);
    let start = std::process::id().wrapping_mul(101);
    let next = || start.wrapping_add(CALLS.fetch_add(1, Ordering::Relaxed)) % u32::from(PORTS.end - PORTS.start);
    let ports = PORTS.map(|_| PORTS.start + u16::try_from(next()).unwrap());
    ports.into_iter().find(|port| TcpListener::bind(("0.0.0.0", *port)).is_ok()).expect("every port is used")
}

/// Tries until `attempt` gives something, at most for [`PATIENCE`].
pub async fn eventually<T>(what: &str, mut attempt: impl AsyncFnMut() -> Option<T>) -> T {
    let mut pause = tokio::time::interval(Duration::from_millis(50));
    let found = tokio::time::timeout(PATIENCE, async {
        loop {
            pause.tick().await;
            if let Ok(Some(found)) = tokio::time::timeout(ATTEMPT, attempt()).await {
                return found;
            }
        }
    });
    found.await.unwrap_or_else(|_| panic!("{what}: not within {PATIENCE:?}"))
}
