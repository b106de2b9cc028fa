//! Two more servers of the cluster under test, and kubectl at work at each of them.

use std::io::Write;
use std::process::{Command, Stdio};
use std::sync::mpsc::{self, Receiver};
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
        let (directory, [port, peer_port, etcd_port]) = (place.0.join(name), [(); 3].map(|()| free_port().to_string()));
        std::fs::create_dir_all(&directory).unwrap();
        let mut command = holdfast(&["server", "--advertise-address", "127.0.0.1"]);
        command.args(["--port", &port, "--peer-port", &peer_port, "--etcd-port", &etcd_port]);
        command.args(printed.split_whitespace().skip(2));
        command.arg("--data-dir").arg(directory.join("data")).arg("--run-dir").arg(directory.join("run"));
        let log = directory.join("log");
        let running = Running::start(command, &log).until_ready(&log);
        Self { _running: running, kubeconfig: directory.join("data/admin.kubeconfig").to_string_lossy().into_owned() }
    }
}

/// `kubectl apply` and `kubectl get` at one server, again and again.
pub struct Kubectl {
    /// What each round took.
    rounds: Receiver<Duration>,
    task: JoinHandle<()>,
}

impl Kubectl {
    pub fn start(server: &Joined, name: &'static str) -> Self {
        let (sender, rounds) = mpsc::channel();
        let kubeconfig = server.kubeconfig.clone();
        let task = std::thread::spawn(move || {
            for turn in 0..ROUNDS_MAX {
                if sender.send(apply_and_get(&kubeconfig, name, turn)).is_err() {
                    return;
                }
            }
        });
        Self { rounds, task }
    }

    /// What the rounds took that have ended since the last time, and so many more. Each of them must succeed.
    pub fn rounds(&self, more: usize) -> Vec<Duration> {
        let next = (0..more).map(|_| self.rounds.recv().expect("kubectl has failed"));
        self.rounds.try_iter().collect::<Vec<_>>().into_iter().chain(next).collect()
    }

    /// Ends it after the round that is under way.
    pub fn end(self) {
        drop(self.rounds);
        self.task.join().unwrap();
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
    let map = serde_json::json!({
        "apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": {"turn": turn.to_string()},
    });
    apply.stdin.take().unwrap().write_all(map.to_string().as_bytes()).unwrap();
    assert!(apply.wait().unwrap().success(), "kubectl apply");
    let get = kubectl().args(["get", "configmap", name, "-o", "jsonpath={.data.turn}"]).output().unwrap();
    assert_eq!(String::from_utf8_lossy(&get.stdout), turn.to_string(), "{}", String::from_utf8_lossy(&get.stderr));
    clock.monotonic()
}
