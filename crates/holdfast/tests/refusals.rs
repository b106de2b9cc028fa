//! What the binary refuses: each with one clear line that names the remedy, and nothing on disk harmed.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Output, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};

/// A server that neither refuses nor becomes ready for so long is killed, and its test fails.
const LIMIT: Duration = Duration::from_secs(120);
/// Another process may take a port between our finding it free and the server's binding it: so many are tried.
const PORTS_MAX: usize = 5;

/// A directory of its own for each test, gone at its end.
struct Place(PathBuf);

impl Place {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("holdfast-refusals-{}-{name}", std::process::id()));
        std::fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    fn data(&self) -> PathBuf {
        self.0.join("data")
    }

    /// `holdfast server` with everything below this place.
    fn server(&self, run_dir: &str, [port, peer_port, etcd_port]: Ports) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_holdfast"));
        command.args(["server", "--advertise-address", "127.0.0.1", "--port", &port.to_string()]);
        command.args(["--peer-port", &peer_port.to_string(), "--etcd-port", &etcd_port.to_string()]);
        command.arg("--data-dir").arg(self.data()).arg("--run-dir").arg(self.0.join(run_dir));
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    /// A server on a free port.
    #[track_caller]
    fn start(&self) -> Running {
        for _ in 0..PORTS_MAX {
            let ports = free_ports();
            match Running::start(self.server("run", ports), &self.0.join("stderr")) {
                Ok(running) => return running,
                Err(text) if is_about(&text, ports) => {}
                Err(text) => panic!("the server ended before it was ready: {text}"),
            }
        }
        panic!("no port stayed free");
    }

    /// The refusal of a server on a free port.
    #[track_caller]
    fn refused(&self, run_dir: &str, args: &[&str]) -> String {
        for _ in 0..PORTS_MAX {
            let ports = free_ports();
            let line = refusal(self.server(run_dir, ports).args(args));
            if !is_about(&line, ports) {
                return line;
            }
        }
        panic!("no port stayed free");
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        std::fs::remove_dir_all(&self.0).unwrap();
    }
}

/// A server that has said `ready`; killed at the end.
struct Running(Child, BufReader<ChildStdout>);

impl Running {
    /// Fails with what the server wrote to standard error, which goes to the file `stderr`.
    fn start(mut command: Command, stderr: &Path) -> Result<Self, String> {
        let mut child = command.stderr(File::create(stderr).unwrap()).spawn().unwrap();
        let _watchdog = Watchdog::new(&child);
        let mut lines = BufReader::new(child.stdout.take().unwrap());
        let mut line = String::new();
        while line.trim() != "ready" {
            line.clear();
            if lines.read_line(&mut line).unwrap() == 0 {
                child.wait().unwrap();
                return Err(std::fs::read_to_string(stderr).unwrap());
            }
        }
        Ok(Self(child, lines))
    }

    fn pid(&self) -> u32 {
        self.0.id()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
        let mut rest = String::new();
        self.1.read_to_string(&mut rest).unwrap();
    }
}

/// Kills a child at [`LIMIT`], unless dropped before: whoever waits for the child's end then sees it.
struct Watchdog(#[expect(dead_code, reason = "its end is the signal")] Sender<()>);

impl Watchdog {
    fn new(child: &Child) -> Self {
        let (alive, ended): (Sender<()>, Receiver<()>) = channel();
        let pid = Pid::from_child(child);
        std::thread::spawn(move || {
            if ended.recv_timeout(LIMIT) == Err(RecvTimeoutError::Timeout) {
                kill_process(pid, Signal::KILL).unwrap();
            }
        });
        Self(alive)
    }
}

/// Of the API server, of the other servers, of etcd's clients.
type Ports = [u16; 3];

fn free_ports() -> Ports {
    let listeners = [(); 3].map(|()| TcpListener::bind("127.0.0.1:0").unwrap());
    listeners.map(|listener| listener.local_addr().unwrap().port())
}

fn is_about(text: &str, ports: Ports) -> bool {
    ports.iter().any(|port| text.contains(&format!("port {port} cannot be used")))
}

/// The one line on standard error of a command that must fail.
#[track_caller]
fn refusal(command: &mut Command) -> String {
    let child = command.spawn().unwrap();
    let watchdog = Watchdog::new(&child);
    let Output { status, stderr, .. } = child.wait_with_output().unwrap();
    drop(watchdog);
    assert!(!status.success());
    let text = String::from_utf8_lossy(&stderr).into_owned();
    text.lines()
        .find(|line| line.starts_with("holdfast: "))
        .unwrap_or_else(|| panic!("{status}, and no such line in {text:?}"))
        .to_owned()
}

fn files_below(path: &Path) -> usize {
    std::fs::read_dir(path).map_or(0, |entries| entries.count())
}

#[test]
fn a_used_port_is_named_and_nothing_is_written() {
    let place = Place::new("port");
    let holder = TcpListener::bind("0.0.0.0:0").unwrap();
    let used = holder.local_addr().unwrap().port();
    let [a, b, _] = free_ports();
    for (ports, flag) in
        [([used, a, b], "with --port"), ([a, used, b], "with --peer-port"), ([a, b, used], "with --etcd-port")]
    {
        let line = refusal(&mut place.server("run", ports));
        assert!(is_about(&line, [used; 3]) && line.contains(flag), "{line}");
        assert_eq!(files_below(&place.data()), 0);
    }
}

#[test]
fn a_second_instance_is_told_who_runs() {
    let place = Place::new("second");
    let running = place.start();
    let line = place.refused("run", &[]);
    assert!(line.contains(&format!("runs already (pid {}", running.pid())), "{line}");
}

#[test]
fn a_second_instance_on_the_same_data_is_refused_by_the_store() {
    let place = Place::new("data");
    let running = place.start();
    let line = place.refused("other-run", &[]);
    assert!(line.contains(&running.pid().to_string()), "{line}");
}

#[test]
fn a_damaged_store_names_the_file() {
    let place = Place::new("damage");
    drop(place.start());
    let files = std::fs::read_dir(place.data().join("store")).unwrap().map(|e| e.unwrap().path());
    let log = files
        .into_iter()
        .find(|path| path.file_name().unwrap().to_string_lossy().starts_with("wal-"))
        .expect("a log segment");
    let mut bytes = std::fs::read(&log).unwrap();
    // Into a record that others follow: the very last one cannot be told from a torn write.
    let at = bytes.iter().rposition(|b| *b != 0).unwrap() / 3;
    bytes[at] ^= 0xff;
    std::fs::write(&log, bytes).unwrap();
    let line = place.refused("run", &[]);
    assert!(line.contains(&log.file_name().unwrap().to_string_lossy().into_owned()), "{line}");
}

#[test]
fn a_bad_network_is_named() {
    let place = Place::new("network");
    let line = place.refused("run", &["--service-cidr", "10.43.0.1/16"]);
    assert!(line.contains("\"10.43.0.1/16\" is no IPv4 network"), "{line}");
    let line = place.refused("run", &["--service-cidr", "10.42.8.0/24"]);
    assert!(line.contains("overlap"), "{line}");
}

#[test]
fn a_foreign_certificate_directory_is_no_reason_to_make_a_new_authority() {
    let place = Place::new("pki");
    drop(place.start());
    std::fs::write(place.data().join("pki/ca.key"), "not a key").unwrap();
    let line = place.refused("run", &[]);
    assert!(line.contains("ca.key") && line.contains("restore it from a backup"), "{line}");
}

#[test]
fn commands_for_a_server_that_is_not_there_say_so() {
    let place = Place::new("nobody");
    let check = |args: &[&str], expect: &str| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_holdfast"));
        command.args(args).arg("--data-dir").arg(place.data()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let line = refusal(&mut command);
        assert!(line.contains(expect), "{line}");
    };
    check(&["token"], "there is no server here");
    check(&["member", "list"], "there is no server here");
    drop(place.start());
    check(&["token", "list"], "the server of this machine does not answer");
    check(&["member", "remove", "1"], "the server of this machine does not answer");
}

impl Place {
    /// `holdfast store ARGS` for this place.
    fn store(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_holdfast"));
        command.arg("store").args(args).arg("--data-dir").arg(self.data()).arg("--run-dir").arg(self.0.join("run"));
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    fn file(&self, name: &str) -> String {
        self.0.join(name).display().to_string()
    }
}

/// What a command that must succeed prints.
#[track_caller]
fn printed(mut command: Command) -> String {
    let child = command.spawn().unwrap();
    let watchdog = Watchdog::new(&child);
    let Output { status, stdout, stderr } = child.wait_with_output().unwrap();
    drop(watchdog);
    assert!(status.success(), "{}", String::from_utf8_lossy(&stderr));
    String::from_utf8_lossy(&stdout).into_owned()
}

#[test]
fn what_is_no_snapshot_is_refused_before_anything_is_written() {
    let place = Place::new("import");
    let whole = std::fs::read(concat!(env!("CARGO_MANIFEST_DIR"), "/../etcd/tests/etcd-3.7.3.snapshot")).unwrap();
    let mut damaged = whole.clone();
    damaged[9_000] ^= 1;
    let check = |name: &str, content: &[u8], reason: &str| {
        std::fs::write(place.file(name), content).unwrap();
        let line = refusal(&mut place.store(&["import", &place.file(name)]));
        assert!(line.contains(reason) && line.contains(name), "{line}");
        assert!(!place.data().exists());
    };
    check("short", &whole[..whole.len() - 5000], "cut short");
    check("without-checksum", &whole[..whole.len() - 32], "cut short, or not what `etcdctl snapshot save` wrote");
    check("damaged", &damaged, "checksum does not match");
    check("other", b"0000000000000000-0000000000000000.wal", "cut short, or not what");
    let line = refusal(&mut place.store(&["import", &place.file("missing")]));
    assert!(line.contains("No such file"), "{line}");
    std::fs::create_dir(place.file("directory")).unwrap();
    let line = refusal(&mut place.store(&["import", &place.file("directory")]));
    assert!(line.contains("/directory: is a directory"), "{line}");
    let keys = place.file("other");
    std::fs::write(&keys, b"\xff\xfe").unwrap();
    std::fs::write(place.file("whole"), &whole).unwrap();
    let line = refusal(&mut place.store(&["restore", &place.file("whole"), "--keys", &keys]));
    assert!(line.contains(&format!("{keys} is no file that `holdfast store snapshot --with-keys` wrote")), "{line}");

    let said = printed(place.store(&["import", &place.file("whole")]));
    assert!(said.contains("303 keys"), "{said}");
    let line = refusal(&mut place.store(&["import", &place.file("whole")]));
    assert!(line.contains("holds a cluster already"), "{line}");
}

#[test]
fn a_running_server_goes_on_with_a_restored_state() {
    let place = Place::new("restore");
    let running = place.start();
    let saved = printed(place.store(&["snapshot", &place.file("a")]));
    assert!(saved.contains(" keys at revision "), "{saved}");
    let line = refusal(&mut place.store(&["snapshot", &place.file("a")]));
    assert!(line.contains("exists"), "{line}");
    let restored = printed(place.store(&["restore", &place.file("a")]));
    assert!(restored.contains("restored; what was there before is kept"), "{restored}");
    let revision = |said: &str| -> i64 { said.lines().next().unwrap().rsplit(' ').next().unwrap().parse().unwrap() };
    let again = printed(place.store(&["snapshot", &place.file("b")]));
    assert!(revision(&again) > revision(&saved) + 1_000_000, "{saved}{again}");
    drop(running);
}

#[test]
fn a_datastore_that_cannot_be_used_is_named_and_nothing_is_written() {
    let place = Place::new("datastore");
    let nobody = format!("127.0.0.1:{}", free_ports()[0]);
    let check = |args: &[&str], expect: &str| {
        let line = place.refused("run", args);
        assert!(line.contains(expect), "{args:?}: {line}");
        assert_eq!(files_below(&place.data()), 0);
    };
    check(&["--datastore", "postgres://u:p@h/db"], "postgres://u:p@h/db is no etcd; give etcd://HOST:PORT");
    check(&["--datastore", &format!("etcd://{nobody}")], &format!("the datastore cannot be used: {nobody}: "));
    check(&["--datastore", &format!("etcds://{nobody}")], "give --datastore-cafile");
    check(
        &["--datastore", &format!("etcds://{nobody}"), "--datastore-cafile", "/nonexistent/ca.crt"],
        "--datastore-cafile /nonexistent/ca.crt: No such file",
    );
    check(&["--datastore", &format!("etcd://{nobody}"), "--datastore-cafile", "/dev/null"], "write etcds://");
}

#[test]
fn a_server_does_not_forget_that_an_etcd_holds_its_cluster() {
    let place = Place::new("forgotten");
    std::fs::create_dir_all(place.data()).unwrap();
    let note = place.data().join("datastore");
    std::fs::write(&note, "etcd://192.0.2.1:2379").unwrap();
    let line = place.refused("run", &[]);
    assert!(line.contains("give --datastore etcd://192.0.2.1:2379;"), "{line}");
    assert!(line.contains(&format!("remove {}", note.display())), "{line}");
    assert_eq!(files_below(&place.data()), 1);
}

#[test]
fn a_port_is_checked_before_a_cluster_is_asked() {
    let place = Place::new("join-port");
    let holder = TcpListener::bind("0.0.0.0:0").unwrap();
    let used = holder.local_addr().unwrap().port();
    let cluster = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("https://{}", cluster.local_addr().unwrap());
    let token = format!("K10{}::server:secret", "0".repeat(64));
    let [a, b, _] = free_ports();
    for ports in [[used, a, b], [a, used, b], [a, b, used]] {
        let line = refusal(place.server("run", ports).args(["--join", &url, "--token", &token]));
        assert!(is_about(&line, [used; 3]), "{line}");
    }
    cluster.set_nonblocking(true).unwrap();
    assert_eq!(cluster.accept().unwrap_err().kind(), std::io::ErrorKind::WouldBlock);
}

#[test]
fn given_keys_are_checked_before_a_cluster_is_founded() {
    let place = Place::new("given-keys");
    let keys = place.file("keys.yaml");
    let check = |text: &str, expect: &str| {
        std::fs::write(&keys, text).unwrap();
        let line = place.refused("run", &["--encryption-provider-config", &keys]);
        assert!(line.contains(expect), "{line}");
        assert_eq!(files_below(&place.data()), 0);
    };
    let head = "apiVersion: apiserver.config.k8s.io/v1\nkind: EncryptionConfiguration\nresources:\n- resources: [secrets]\n  providers:\n";
    check(&format!("{head}  - secretbox: {{keys: []}}\n"), "the providers are aesgcm and identity");
    check(&format!("{head}  - identity: {{}}\n"), "holds no aesgcm key");
}

#[test]
fn a_store_of_sealed_secrets_gets_no_other_keys() {
    let place = Place::new("sealed");
    let running = place.start();
    let mut token = Command::new(env!("CARGO_BIN_EXE_holdfast"));
    token.arg("token").arg("--data-dir").arg(place.data()).arg("--run-dir").arg(place.0.join("run"));
    token.stdout(Stdio::piped()).stderr(Stdio::piped());
    // It is a Secret.
    printed(token);
    drop(running);
    let (keys, kept) = (place.data().join("encryption.yaml"), place.file("kept.yaml"));
    std::fs::rename(&keys, &kept).unwrap();
    let line = place.refused("run", &[]);
    assert!(line.contains("\"aesgcm:v1:key1\"") && line.contains("put that file back"), "{line}");
    assert!(!keys.exists());
    let other = std::fs::read_to_string(&kept).unwrap().replace("key1", "key2");
    std::fs::write(place.file("other.yaml"), other).unwrap();
    let line = place.refused("run", &["--encryption-provider-config", &place.file("other.yaml")]);
    assert!(line.contains("other.yaml does not open; give the file of before"), "{line}");
    std::fs::rename(&kept, &keys).unwrap();
    drop(place.start());
}

#[test]
fn a_lost_token_key_is_not_made_anew_and_a_kubeconfig_that_cannot_be_written_stays() {
    let place = Place::new("token-key");
    drop(place.start());
    // What a full disk does to it.
    let kubeconfig = place.data().join("admin.kubeconfig");
    let before = std::fs::read_to_string(&kubeconfig).unwrap();
    std::fs::create_dir(place.data().join("admin.kubeconfig.new")).unwrap();
    drop(place.start());
    assert_eq!(std::fs::read_to_string(&kubeconfig).unwrap(), before);
    let log = std::fs::read_to_string(place.0.join("stderr")).unwrap();
    assert!(log.contains("the administrator's kubeconfig stays as it was"), "{log}");

    let key = place.data().join("pki/sa.key");
    std::fs::rename(&key, place.file("sa.key")).unwrap();
    let line = place.refused("run", &[]);
    assert!(line.contains(&format!("{} is missing", key.display())) && line.contains("openssl genpkey"), "{line}");
    assert!(!key.exists());
}
