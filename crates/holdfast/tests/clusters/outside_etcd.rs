//! An etcd of three members behind TLS and access control: what holds the state of a server of ours in `outside`.
//!
//! The members are `holdfast etcd`, or the program that [`PROGRAM`] names.

use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;

use apiserver::pki::{CertificateSpec, Pki, PkiConfig};
use base::SystemClock;
use bytes::Bytes;
use etcd::proto::authpb::Permission;
use etcd::proto::authpb::permission::Type;
use etcd::proto::etcdserverpb as pb;
use etcd::proto::etcdserverpb::auth_client::AuthClient;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tonic::transport::{Channel, Endpoint};

use crate::process::{Place, Running, eventually, free_port, holdfast};

/// Names the etcd to test with.
const PROGRAM: &str = "HOLDFAST_TEST_ETCD";
/// A user whose role is just enough, and one without any.
pub const USER: &str = "kubernetes";
pub const STRANGER: &str = "stranger";

struct Member {
    name: &'static str,
    /// For clients, behind TLS.
    port: u16,
    /// For what the test itself asks.
    plain: u16,
    peer: String,
}

pub struct Etcd {
    members: [Member; 3],
    running: [Option<Running>; 3],
    directory: PathBuf,
    pki: Pki,
}

impl Etcd {
    /// Starts all three, makes the users and turns access control on.
    pub async fn start(place: &Place) -> Self {
        let directory = place.0.join("etcd");
        std::fs::create_dir_all(&directory).unwrap();
        let config = PkiConfig { directory: directory.join("pki"), names: Vec::new(), addresses: Vec::new() };
        let pki = Pki::open(config, Arc::new(SystemClock::new())).unwrap();
        let members = ["m1", "m2", "m3"].map(|name| {
            let peer = format!("http://127.0.0.1:{}", free_port());
            Member { name, port: free_port(), plain: free_port(), peer }
        });
        let mut etcd = Self { members, running: [const { None }; 3], directory, pki };
        etcd.certificate("server", &CertificateSpec::serving("etcd", None, &[], &["127.0.0.1".parse().unwrap()]));
        (0..3).for_each(|at| etcd.run(at));
        etcd.make_users(etcd.leader().await).await;
        etcd
    }

    /// Writes a certificate of etcd's authority and its key; the paths of both.
    fn certificate(&self, name: &str, spec: &CertificateSpec) -> [String; 2] {
        let issued = self.pki.issue(spec).unwrap();
        [("crt", issued.certificate_pem), ("key", issued.key_pem)].map(|(end, pem)| {
            let path = self.directory.join(format!("{name}.{end}"));
            std::fs::write(&path, pem).unwrap();
            path.display().to_string()
        })
    }

    pub fn run(&mut self, at: usize) {
        let member = &self.members[at];
        let mut command = match std::env::var_os(PROGRAM) {
            Some(program) => Command::new(program),
            None => holdfast(&["etcd"]),
        };
        let (secure, plain) =
            (format!("https://127.0.0.1:{}", member.port), format!("http://127.0.0.1:{}", member.plain));
        let cluster = self.members.each_ref().map(|member| format!("{}={}", member.name, member.peer)).join(",");
        let file = |name: &str| self.directory.join(name).display().to_string();
        let (listen, authority) = (format!("{secure},{plain}"), file("pki/ca.crt"));
        for (flag, value) in [
            ("--name", member.name),
            ("--data-dir", &file(member.name)),
            ("--listen-client-urls", &listen),
            ("--advertise-client-urls", &secure),
            ("--listen-peer-urls", &member.peer),
            ("--initial-advertise-peer-urls", &member.peer),
            ("--initial-cluster", &cluster),
            ("--cert-file", &file("server.crt")),
            ("--key-file", &file("server.key")),
            ("--trusted-ca-file", &authority),
        ] {
            command.args([flag, value]);
        }
        command.arg("--client-cert-auth");
        self.running[at] = Some(Running::start(command, &self.directory.join(format!("{}.log", member.name))));
    }

    /// As by a power cut.
    pub fn kill(&mut self, at: usize) {
        self.running[at] = None;
    }

    /// The flags of a server whose state is here.
    pub fn flags(&self, user: &str) -> Vec<String> {
        let [chain, key] = self.certificate(user, &CertificateSpec::client(user, None));
        let mut flags = self.flags_without_certificate();
        flags.extend(["--datastore-certfile".to_owned(), chain, "--datastore-keyfile".to_owned(), key]);
        flags
    }

    pub fn flags_without_certificate(&self) -> Vec<String> {
        let servers = self.members.each_ref().map(|member| format!("127.0.0.1:{}", member.port)).join(",");
        let authority = self.directory.join("pki/ca.crt").display().to_string();
        ["--datastore", &format!("etcds://{servers}"), "--datastore-cafile", &authority].map(str::to_owned).into()
    }

    /// The member that leads, once all that run agree.
    pub async fn leader(&self) -> usize {
        let running = || (0..3).filter(|at| self.running[*at].is_some());
        eventually("one member leads, and the others know", async || {
            let mut leader = None;
            for at in running() {
                let page = self.metrics(at).await?;
                if !page.contains("\netcd_server_has_leader 1\n") {
                    return None;
                }
                if page.contains("\netcd_server_is_leader 1\n") {
                    leader = Some(at);
                }
            }
            leader
        })
        .await
    }

    async fn metrics(&self, at: usize) -> Option<String> {
        let mut stream = TcpStream::connect(("127.0.0.1", self.members[at].plain)).await.ok()?;
        stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").await.ok()?;
        let mut page = String::new();
        stream.read_to_string(&mut page).await.ok()?;
        Some(page)
    }

    async fn make_users(&self, at: usize) {
        let url = format!("http://127.0.0.1:{}", self.members[at].plain);
        let channel = Endpoint::from_shared(url).unwrap().connect().await.unwrap();
        let mut auth = AuthClient::new(channel);
        for user in ["root", USER, STRANGER] {
            add_user(&mut auth, user).await;
        }
        let role = || USER.to_owned();
        auth.role_add(pb::AuthRoleAddRequest { name: role() }).await.unwrap();
        for (key, range_end) in [("/registry/", "/registry0"), ("compact_rev_key", "")] {
            let (key, range_end) = (Bytes::from_static(key.as_bytes()), Bytes::from_static(range_end.as_bytes()));
            let perm = Some(Permission { perm_type: Type::Readwrite.into(), key, range_end });
            auth.role_grant_permission(pb::AuthRoleGrantPermissionRequest { name: role(), perm }).await.unwrap();
        }
        for (user, role) in [("root", "root"), (USER, USER)] {
            let grant = pb::AuthUserGrantRoleRequest { user: user.to_owned(), role: role.to_owned() };
            auth.user_grant_role(grant).await.unwrap();
        }
        auth.auth_enable(pb::AuthEnableRequest {}).await.unwrap();
    }
}

/// Without a password: its certificate says who it is.
async fn add_user(auth: &mut AuthClient<Channel>, name: &str) {
    let options = Some(etcd::proto::authpb::UserAddOptions { no_password: true });
    let user = pb::AuthUserAddRequest { name: name.to_owned(), options, ..Default::default() };
    auth.user_add(user).await.unwrap();
}
