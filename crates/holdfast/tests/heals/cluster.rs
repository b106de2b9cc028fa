//! The cluster under test: `holdfast up`, kubectl with its administrator's kubeconfig, `holdfast down`.

use std::io::Write;
use std::path::Path;
use std::process::{Command, Output, Stdio};

const KUBECONFIG: &str = "/var/lib/holdfast/admin.kubeconfig";
const LOG: &str = "/var/lib/holdfast/log/holdfast.log";
/// A machine that builds and tests may be fuller than a node should be; the scenarios need little.
const EVICTION_HARD: &str = "memory.available<100Mi,nodefs.available<128Mi";
/// Of the log's end, when a scenario failed.
const LOG_LINES: &str = "200";

pub struct Cluster;

impl Cluster {
    pub fn up() -> Self {
        assert!(
            !Path::new("/run/holdfast/holdfast.lock").exists(),
            "a cluster runs on this machine; stop it with `holdfast down` first"
        );
        let cluster = Self;
        match std::panic::catch_unwind(|| cluster.start()) {
            Ok(said) => println!("{said}"),
            Err(panic) => {
                // It may have begun.
                cluster.down();
                std::panic::resume_unwind(panic);
            }
        }
        cluster
    }

    /// `holdfast up`, also of a cluster that was killed; returns what it printed.
    pub fn start(&self) -> String {
        self.holdfast(&["up", "--no-kubeconfig", "--eviction-hard", EVICTION_HARD])
    }

    pub fn down(&self) {
        self.holdfast(&["down"]);
    }

    /// Runs the binary under test; panics with its output if it fails.
    pub fn holdfast(&self, args: &[&str]) -> String {
        checked(
            "holdfast",
            &Command::new("timeout").arg("120").arg(env!("CARGO_BIN_EXE_holdfast")).args(args).output().unwrap(),
        )
    }

    /// Runs kubectl; panics with its output if it fails.
    pub fn kubectl(&self, args: &[&str]) -> String {
        checked(&format!("kubectl {args:?}"), &kubectl(args).output().unwrap())
    }

    pub fn apply(&self, manifest: &str) {
        let mut child = kubectl(&["apply", "-f", "-"]).stdin(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap();
        child.stdin.take().unwrap().write_all(manifest.as_bytes()).unwrap();
        assert!(child.wait().unwrap().success(), "kubectl apply");
    }

    /// Waits for `condition` (`condition=Ready`, `delete`, `jsonpath=...=...`) of `object`.
    pub fn wait(&self, object: &str, condition: &str, seconds: u32) {
        let (condition, limit) = (format!("--for={condition}"), format!("--timeout={seconds}s"));
        let args: Vec<&str> =
            ["wait"].into_iter().chain(object.split(' ')).chain([condition.as_str(), limit.as_str()]).collect();
        self.kubectl(&args);
    }

    /// One field of one object or list.
    pub fn field(&self, object: &str, jsonpath: &str) -> String {
        self.kubectl(&["get", object, "-o", &format!("jsonpath={jsonpath}")])
    }

    /// What a human would look at: the cluster's state, the nodes' conditions and taints, the end of the log.
    pub fn describe_failure(&self) {
        let looks = [
            &["get", "pods", "-A", "-o", "wide"][..],
            &["get", "events", "-A"],
            &["get", "nodes"],
            &["describe", "nodes"],
        ];
        for args in looks {
            print_output(&format!("kubectl {args:?}"), &mut kubectl(args));
        }
        print_output(LOG, Command::new("tail").args(["-n", LOG_LINES, LOG]));
    }
}

fn print_output(what: &str, command: &mut Command) {
    let out = command.output().unwrap();
    println!("--- {what}\n{}{}", String::from_utf8_lossy(&out.stdout), String::from_utf8_lossy(&out.stderr));
}

fn kubectl(args: &[&str]) -> Command {
    let mut command = Command::new("timeout");
    command.args(["180", "kubectl", "--kubeconfig", KUBECONFIG]).args(args);
    command
}

fn checked(what: &str, out: &Output) -> String {
    let text = String::from_utf8_lossy(&out.stdout).into_owned();
    assert!(out.status.success(), "{what}: {}\n{text}{}", out.status, String::from_utf8_lossy(&out.stderr));
    text
}
