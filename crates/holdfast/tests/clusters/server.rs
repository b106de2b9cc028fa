//! A `holdfast server` of a test, and a cluster of them.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Duration;

use k8s_openapi::api::core::v1::ConfigMap;
use kube::api::ListParams;
use kube::config::{KubeConfigOptions, Kubeconfig};

use crate::load::{Writer, Written};
use crate::process::{Place, Running, eventually, free_port, holdfast, output_of, refusal_of};

/// What is acknowledged before and after a server is harmed, by each of the others.
const WRITES: usize = 40;

pub struct Server {
    pub address: IpAddr,
    directory: PathBuf,
    port: String,
    peer_port: String,
    etcd_port: String,
    /// What runs it on its machine: words in front of the command.
    machine: Vec<String>,
}

impl Server {
    /// On this machine, with ports of its own.
    pub fn here(place: &Place, name: &str, address: &str) -> Self {
        let [port, peer_port, etcd_port] = [(); 3].map(|()| free_port().to_string());
        Self { port, peer_port, etcd_port, ..Self::on(place, name, address.parse().unwrap(), Vec::new()) }
    }

    /// On a machine of its own, with the default ports.
    pub fn on(place: &Place, name: &str, address: IpAddr, machine: Vec<String>) -> Self {
        let directory = place.0.join(name);
        std::fs::create_dir_all(&directory).unwrap();
        let [port, peer_port, etcd_port] = ["6443", "2380", "2379"].map(str::to_owned);
        Self { address, directory, port, peer_port, etcd_port, machine }
    }

    /// The command that runs it, with these words more.
    fn command_to_start(&self, more: &[&str]) -> Command {
        let binary = env!("CARGO_BIN_EXE_holdfast").to_owned();
        let mut words = self.machine.iter().chain([&binary]);
        let mut command = Command::new(words.next().unwrap());
        command.args(words).args(["server", "--advertise-address", &self.address.to_string()]);
        command.args(["--port", &self.port, "--peer-port", &self.peer_port, "--etcd-port", &self.etcd_port]);
        command.args(more).stdin(Stdio::null());
        command.arg("--data-dir").arg(self.data()).arg("--run-dir").arg(self.directory.join("run"));
        command
    }

    /// Starts it and waits until it is ready. `join`: the flags to join with.
    pub fn start(&self, join: &[&str]) -> Running {
        let log = self.directory.join("log");
        Running::start(self.command_to_start(join), &log).until_ready(&log)
    }

    /// What it says when it is started and can't run.
    pub fn refusal(&self, join: &[&str]) -> String {
        refusal_of(self.command_to_start(join))
    }

    pub fn log(&self) -> String {
        std::fs::read_to_string(self.directory.join("log")).unwrap()
    }

    pub fn data(&self) -> PathBuf {
        self.directory.join("data")
    }

    /// Where etcd's clients reach its store.
    pub fn etcd_url(&self) -> String {
        format!("etcds://{}:{}", self.address, self.etcd_port)
    }

    pub async fn client(&self) -> kube::Client {
        kube::Client::try_from(self.client_config().await).unwrap()
    }

    /// A client that does not repeat what was refused for the time being.
    pub async fn client_that_asks_once(&self) -> kube::Client {
        let mut config = self.client_config().await;
        config.default_retry = false;
        kube::Client::try_from(config).unwrap()
    }

    async fn client_config(&self) -> kube::Config {
        let kubeconfig = Kubeconfig::read_from(self.data().join("admin.kubeconfig")).unwrap();
        kube::Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await.unwrap()
    }

    pub async fn maps(&self) -> kube::Api<ConfigMap> {
        kube::Api::default_namespaced(self.client().await)
    }

    pub async fn writer(&self, prefix: &str) -> Writer {
        Writer::start(self.maps().await, prefix.to_owned())
    }

    /// `holdfast ARGS` with this server's data; what it prints.
    pub fn command(&self, args: &[&str]) -> String {
        let mut command = holdfast(&args[..1]);
        command.arg("--data-dir").arg(self.data()).args(&args[1..]);
        output_of(command)
    }

    /// `holdfast store ARGS` on this server's data; what it prints.
    pub fn store(&self, args: &[&str]) -> String {
        output_of(self.store_command(args))
    }

    /// What `holdfast store ARGS` says when it can't.
    pub fn store_refusal(&self, args: &[&str]) -> String {
        refusal_of(self.store_command(args))
    }

    fn store_command(&self, args: &[&str]) -> Command {
        let mut command = holdfast(&["store"]);
        command.args(args).arg("--data-dir").arg(self.data()).arg("--run-dir").arg(self.directory.join("run"));
        command
    }

    /// What `holdfast doctor` prints beside this server.
    pub fn doctor(&self) -> String {
        let mut command = holdfast(&["doctor"]);
        command.arg("--data-dir").arg(self.data()).arg("--run-dir").arg(self.directory.join("run"));
        String::from_utf8(command.output().unwrap().stdout).unwrap()
    }

    /// The flags to join with, from a new token.
    pub fn token(&self) -> Vec<String> {
        self.command(&["token"]).split_whitespace().skip(2).map(str::to_owned).collect()
    }

    fn is_at(&self, url: &str) -> bool {
        url.ends_with(&std::net::SocketAddr::new(self.address, self.peer_port.parse().unwrap()).to_string())
    }
}

/// Servers, and those of them that run.
pub struct Cluster {
    pub servers: Vec<Server>,
    pub running: Vec<Option<Running>>,
    /// Everything that was acknowledged.
    names: BTreeSet<String>,
    rounds: usize,
}

impl Cluster {
    /// The first of `servers` founds it, the others join it.
    pub fn start(servers: Vec<Server>) -> Self {
        let mut cluster = Self { servers: Vec::new(), running: Vec::new(), names: BTreeSet::new(), rounds: 0 };
        servers.into_iter().for_each(|server| cluster.add(server));
        cluster
    }

    /// One more server joins by the token of a running one.
    pub fn add(&mut self, server: Server) {
        let join = match self.up().next() {
            Some(at) => self.servers[at].token(),
            None => Vec::new(),
        };
        self.running.push(Some(server.start(&join.iter().map(String::as_str).collect::<Vec<_>>())));
        self.servers.push(server);
    }

    /// Positions of those that run.
    pub fn up(&self) -> impl Iterator<Item = usize> + '_ {
        (0..self.servers.len()).filter(|at| self.running[*at].is_some())
    }

    /// Lines of `holdfast member list`.
    pub fn members(&self) -> Vec<String> {
        let at = self.up().next().unwrap();
        self.servers[at].command(&["member", "list"]).lines().map(str::to_owned).collect()
    }

    /// The id of a server.
    pub fn id(&self, at: usize) -> String {
        let members = self.members();
        let own = members.iter().find(|line| self.servers[at].is_at(line)).unwrap();
        own.split_whitespace().next().unwrap().to_owned()
    }

    /// The position of the leader, once all that run are voters and nobody else is a member.
    pub async fn leader(&self) -> usize {
        let leader = async || {
            let members = self.members();
            let is_whole =
                members.len() == self.up().count() && !members.iter().any(|line| line.contains("  learner  "));
            let leads = members.iter().find(|line| line.contains("  leader  ")).filter(|_| is_whole)?;
            self.servers.iter().position(|server| server.is_at(leads))
        };
        eventually("all are voters, and one leads", leader).await
    }

    /// Takes a server out.
    pub fn remove(&self, at: usize) -> usize {
        let id = self.id(at);
        let by = self.up().find(|other| *other != at).unwrap();
        self.servers[by].command(&["member", "remove", &id]).lines().count()
    }

    /// The others take writes while something happens to the server at `victim`: the longest time that a write or a read took.
    pub async fn pause_while(&mut self, victim: usize, harm: impl FnOnce(Running)) -> Duration {
        let others: Vec<usize> = self.up().filter(|at| *at != victim).collect();
        let mut writers = Vec::new();
        for at in others {
            let prefix = format!("round-{}-server-{at}", self.rounds);
            writers.push(self.servers[at].writer(&prefix).await);
        }
        self.rounds += 1;
        for writer in &mut writers {
            writer.more(WRITES).await;
        }
        writers.iter().for_each(Writer::measure);
        let victim = self.running[victim].take().unwrap();
        harm(victim);
        let mut longest = Duration::ZERO;
        for mut writer in writers {
            writer.more(WRITES).await;
            longest = longest.max(self.keep(writer.end().await));
        }
        longest
    }

    /// Notes what was acknowledged; how long its slowest write or read took.
    pub fn keep(&mut self, written: Written) -> Duration {
        self.names.extend(written.names);
        written.longest
    }

    /// What the servers' logs say of leadership and connections, for whoever must find out what took so long.
    pub fn describe(&self) -> String {
        let words = ["leader", "handing", "stopping", "connect", "lease="];
        let told = |server: &Server| {
            let log = server.log();
            let lines: Vec<&str> = log.lines().filter(|line| words.iter().any(|word| line.contains(word))).collect();
            format!("{}\n{}\n", server.directory.display(), lines[lines.len().saturating_sub(15)..].join("\n"))
        };
        self.servers.iter().map(told).collect()
    }

    /// Every server that runs shows everything that was acknowledged. Returns how much that is.
    pub async fn check_nothing_is_lost(&self) -> usize {
        for at in self.up() {
            let found = self.servers[at].maps().await.list(&ListParams::default()).await.unwrap();
            let found: BTreeSet<String> = found.items.into_iter().filter_map(|map| map.metadata.name).collect();
            let lost: Vec<_> = self.names.difference(&found).collect();
            assert!(lost.is_empty(), "server {at} has lost {lost:?}");
        }
        self.names.len()
    }
}
