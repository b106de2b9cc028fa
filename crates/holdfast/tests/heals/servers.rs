//! Two more servers of the cluster under test, and kubectl at work at each of them.

use std::io::Write;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use base::{Clock, SystemClock};

use crate::cluster::Cluster;
use crate::process::{Place, Running, free_port, holdfast};

/// A client that is forgotten ends by itself.
const ROUNDS_MAX: usize = 2000;

/// A server on the loopback that has joined by token.
pub struct Joined {
    _running: Running,
    kubeconfig: String,
}

impl Joined {
    pub fn start(cluster: &Cluster, place: &Place, name: &str) -> Self {
        let printed = cluster.holdfast(&["token"]);
        let (directory, [port, peer_port]) = (place.0.join(name), [(); 2].map(|()| free_port().to_string()));
        std::fs::create_dir_all(&directory).unwrap();
        let mut command = holdfast(&["server", "--advertise-address", "127.0.0.1"]);
        command.args(["--port", &port, "--peer-port", &peer_port]).args(printed.split_whitespace().skip(2));
        command.arg("--data-dir").arg(directory.join("data")).arg("--run-dir").arg(directory.join("run"));
        let log = directory.join("log");
        let running = Running::start(command, &log).until_ready(&log);
        Self { _running: running, kubeconfig: directory.join("data/admin.kubeconfig").to_string_lossy().into_owned() }
    }
}

/// `kubectl apply` and `kubectl get` at one server, again and again.
pub struct Kubectl {
    rounds: Arc<AtomicUsize>,
    stop: Arc<AtomicBool>,
    task: JoinHandle<Vec<Duration>>,
}

impl Kubectl {
    pub fn start(server: &Joined, name: &'static str) -> Self {
        let (rounds, stop) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicBool::new(false)));
        let (kubeconfig, count, end) = (server.kubeconfig.clone(), rounds.clone(), stop.clone());
        let task = std::thread::spawn(move || {
            let turns = (0..ROUNDS_MAX).take_while(|_| !end.load(Ordering::SeqCst));
            turns
                .map(|turn| {
                    let took = apply_and_get(&kubeconfig, name, turn);
                    count.fetch_add(1, Ordering::SeqCst);
                    took
                })
                .collect()
        });
        Self { rounds, stop, task }
    }

    /// Waits until so many more rounds have succeeded.
    pub fn more(&self, rounds: usize) {
        let goal = self.rounds.load(Ordering::SeqCst) + rounds;
        while self.rounds.load(Ordering::SeqCst) < goal {
            assert!(!self.task.is_finished(), "kubectl has failed");
            std::thread::yield_now();
        }
    }

    /// What each round took, shortest first.
    pub fn end(self) -> Vec<Duration> {
        self.stop.store(true, Ordering::SeqCst);
        let mut took = self.task.join().unwrap();
        took.sort();
        took
    }
}

fn apply_and_get(kubeconfig: &str, name: &str, turn: usize) -> Duration {
    let kubectl = || {
        let mut command = Command::new("timeout");
        command.args(["30", "kubectl", "--kubeconfig", kubeconfig]);
        command
    };
    let clock = SystemClock::new();
    let mut apply = kubectl().args(["apply", "-f", "-"]).stdin(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap();
    let map = format!(
        "{{apiVersion: v1, kind: ConfigMap, metadata: {{name: {name}}}, data: {{turn: {:?}}}}}",
        turn.to_string()
    );
    apply.stdin.take().unwrap().write_all(map.as_bytes()).unwrap();
    assert!(apply.wait().unwrap().success(), "kubectl apply");
    let get = kubectl().args(["get", "configmap", name, "-o", "jsonpath={.data.turn}"]).output().unwrap();
    assert_eq!(String::from_utf8_lossy(&get.stdout), turn.to_string(), "{}", String::from_utf8_lossy(&get.stderr));
    clock.monotonic()
}
