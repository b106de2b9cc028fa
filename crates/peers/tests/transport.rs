//! The network over real sockets: who is refused, what is dropped, what comes back.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::io::Read;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use peers::tls::Material;
use peers::{FigureSource, Inbox, Network, PeerTls, ask_figures, ask_members};
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use store::MemberInfo;
use store::peer::Transport as _;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Handle;
use tokio::sync::mpsc;
use tokio::time::timeout;

const PATIENCE: Duration = Duration::from_secs(20);

#[derive(Debug, PartialEq)]
enum Heard {
    Frame(u64, Bytes),
    Unreachable(u64),
    Ended(u64),
}

struct Recorder(mpsc::UnboundedSender<Heard>);

impl Inbox for Recorder {
    fn receive(&self, from: u64, frame: Bytes) {
        self.0.send(Heard::Frame(from, frame)).ok();
    }

    fn receive_snapshot(
        &self,
        _from: u64,
        _header: Bytes,
        _body: &mut dyn Read,
    ) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
        Err("none is expected".into())
    }

    fn snapshot_sent(&self, _to: u64, _ok: bool) {}

    fn peer_unreachable(&self, id: u64) {
        self.0.send(Heard::Unreachable(id)).ok();
    }

    fn peer_ended(&self, id: u64) {
        self.0.send(Heard::Ended(id)).ok();
    }
}

/// One member with its network; the inbox lives as long as it.
struct Member {
    id: u64,
    network: Arc<Network>,
    heard: mpsc::UnboundedReceiver<Heard>,
    _inbox: Arc<dyn Inbox>,
}

impl Member {
    fn new(cluster: u64, id: u64, tls: Option<PeerTls>) -> Self {
        let (sender, heard) = mpsc::unbounded_channel();
        let inbox: Arc<dyn Inbox> = Arc::new(Recorder(sender));
        let network = Network::new(Handle::current(), tls);
        network.start(cluster, id, Arc::downgrade(&inbox));
        Self { id, network, heard, _inbox: inbox }
    }

    async fn listen(&self, address: &str, secure: bool) -> SocketAddr {
        let listener = TcpListener::bind(address).await.unwrap();
        let address = listener.local_addr().unwrap();
        self.network.serve(listener, secure);
        address
    }

    fn knows(&self, others: &[(u64, String)]) {
        let own = (self.id, String::new());
        let all = others.iter().chain([&own]);
        let members =
            all.map(|(id, url)| MemberInfo { id: *id, peer_urls: vec![url.clone()], ..MemberInfo::default() });
        self.network.members_changed(&members.collect::<Vec<_>>());
    }

    async fn frame(&mut self) -> (u64, Bytes) {
        loop {
            match timeout(PATIENCE, self.heard.recv()).await.unwrap().unwrap() {
                Heard::Frame(from, frame) => return (from, frame),
                Heard::Unreachable(_) | Heard::Ended(_) => {}
            }
        }
    }

    /// Waits until the connection to `id` has failed, and says why.
    async fn problem(&mut self, id: u64) -> String {
        loop {
            match timeout(PATIENCE, self.heard.recv()).await.unwrap().unwrap() {
                Heard::Unreachable(found) if found == id => break,
                _ => {}
            }
        }
        self.network.figures().into_iter().find(|peer| peer.id == id).unwrap().problem.unwrap_or_default()
    }

    /// Sends until it arrives: what was sent before the connection stood may be lost.
    async fn sends_to(&self, other: &mut Self, text: &'static str) -> (u64, Bytes) {
        loop {
            self.network.send(other.id, Bytes::from_static(text.as_bytes()));
            if let Ok(arrived) = timeout(Duration::from_millis(100), other.frame()).await {
                return arrived;
            }
        }
    }
}

struct Authority {
    certificate_pem: String,
    issuer: Issuer<'static, KeyPair>,
}

impl Authority {
    fn new() -> Self {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let certificate_pem = params.self_signed(&key).unwrap().pem();
        Self { certificate_pem, issuer: Issuer::new(params, key) }
    }

    fn tls(&self) -> Option<PeerTls> {
        self.tls_trusting(self)
    }

    /// A certificate of this authority, and trust in the other.
    fn tls_trusting(&self, other: &Self) -> Option<PeerTls> {
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new(["member.test".to_owned()]).unwrap();
        let chain = params.signed_by(&key, &self.issuer).unwrap().pem();
        let (key_pem, authority_pem) = (key.serialize_pem(), other.certificate_pem.as_str());
        let material = Material { chain_pem: &chain, key_pem: &key_pem, authority_pem };
        Some(PeerTls::mutual(&material, Some("member.test")).unwrap())
    }
}

struct Healthy;

impl FigureSource for Healthy {
    fn render(&self) -> Pin<Box<dyn Future<Output = String> + Send + '_>> {
        Box::pin(std::future::ready("healthy".to_owned()))
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn frames_of_all_sizes_go_both_ways_over_mutual_tls() {
    let authority = Authority::new();
    let (mut a, mut b) = (Member::new(7, 1, authority.tls()), Member::new(7, 2, authority.tls()));
    let (at_a, at_b) = (a.listen("127.0.0.1:0", true).await, b.listen("127.0.0.1:0", true).await);
    a.knows(&[(2, format!("https://{at_b}"))]);
    b.knows(&[(1, format!("https://{at_a}"))]);
    assert_eq!(a.sends_to(&mut b, "to b").await, (1, Bytes::from_static(b"to b")));
    assert_eq!(b.sends_to(&mut a, "to a").await, (2, Bytes::from_static(b"to a")));
    let large = Bytes::from(vec![9; peers::FRAME_BYTES_MAX]);
    loop {
        a.network.send(2, large.clone());
        if let Ok((_, frame)) = timeout(Duration::from_secs(5), b.frame()).await
            && frame.len() > 100
        {
            assert!(frame == large);
            break;
        }
    }
    assert_eq!(a.network.figures()[0].problem, None);
    let view = ask_members(&[format!("https://{at_b}")], authority.tls().as_ref()).await.unwrap();
    assert_eq!((view.cluster_id, view.member_id, view.members.len()), (7, 2, 2));
    let asked = async || ask_figures(&[format!("https://{at_b}")], authority.tls().as_ref()).await.unwrap();
    assert_eq!(asked().await, "", "it tells nothing yet");
    let source: Arc<dyn FigureSource> = Arc::new(Healthy);
    b.network.tell_figures(Arc::downgrade(&source));
    assert_eq!(asked().await, "healthy");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn strangers_are_refused_and_told_why() {
    let authority = Authority::new();
    let member = Member::new(7, 2, authority.tls());
    let url = format!("https://{}", member.listen("127.0.0.1:0", true).await);
    let check = async |cluster, id, tls, looked_for, expect: &str| {
        let mut stranger = Member::new(cluster, id, tls);
        stranger.knows(&[(looked_for, url.clone())]);
        let problem = stranger.problem(looked_for).await;
        assert!(problem.contains(expect), "{problem}");
    };
    // The stranger trusts this cluster, but the cluster does not trust the stranger; then the other way round.
    check(7, 1, Authority::new().tls_trusting(&authority), 2, "received fatal alert").await;
    check(7, 1, Authority::new().tls(), 2, "invalid peer certificate").await;
    check(7, 1, None, 2, "no certificate").await;
    check(8, 1, authority.tls(), 2, "cluster 8, but this member belongs to cluster 7").await;
    check(7, 1, authority.tls(), 3, "member 3 is looked for at this URL, but 2 listens here").await;
    let mut twin = Member::new(7, 2, authority.tls());
    // A twin does not dial itself: it believes the other one to be member 3.
    twin.knows(&[(3, url.clone())]);
    let problem = twin.problem(3).await;
    assert!(problem.contains("member id 2 is used twice"), "{problem}");
    let foreign = Authority::new().tls();
    assert!(ask_members(std::slice::from_ref(&url), foreign.as_ref()).await.is_err());
    assert!(ask_figures(std::slice::from_ref(&url), foreign.as_ref()).await.is_err());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_second_process_with_a_known_id_is_refused_while_the_first_is_heard() {
    let mut member = Member::new(7, 2, None);
    let url = format!("http://{}", member.listen("127.0.0.1:0", false).await);
    let first = Member::new(7, 1, None);
    first.knows(&[(2, url.clone())]);
    first.sends_to(&mut member, "first").await;
    let mut second = Member::new(7, 1, None);
    second.knows(&[(2, url.clone())]);
    let problem = second.problem(2).await;
    assert!(problem.contains("member id 1 is used twice: by another process, at 127.0.0.1"), "{problem}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_removed_member_learns_that_it_was() {
    let member = Member::new(7, 2, None);
    let url = format!("http://{}", member.listen("127.0.0.1:0", false).await);
    member.knows(&[(1, "http://127.0.0.1:1".to_owned())]);
    member.knows(&[]);
    let removed = Member::new(7, 1, None);
    removed.knows(&[(2, url)]);
    let reason = timeout(PATIENCE, removed.network.expelled()).await.unwrap();
    assert_eq!(reason, "member 1 has been removed from the cluster");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_member_that_comes_back_is_connected_again() {
    let sender = Member::new(7, 1, None);
    let mut first = Member::new(7, 2, None);
    let address = first.listen("127.0.0.1:0", false).await;
    sender.knows(&[(2, format!("http://{address}"))]);
    sender.sends_to(&mut first, "before").await;
    first.network.stop();
    drop(first);
    let mut second = Member::new(7, 2, None);
    let listener = loop {
        // The port is free once the old listener's task has ended.
        match TcpListener::bind(address).await {
            Ok(listener) => break listener,
            Err(_) => tokio::task::yield_now().await,
        }
    };
    second.network.serve(listener, false);
    let (from, frame) = sender.sends_to(&mut second, "after").await;
    assert_eq!((from, frame), (1, Bytes::from_static(b"after")));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_peer_that_takes_nothing_costs_no_more_than_the_bound() {
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let member = Member::new(7, 1, None);
    member.knows(&[(2, format!("http://{}", silent.local_addr().unwrap()))]);
    // It connects (the kernel does that) and never hears a word; everything waits, up to the bound.
    for _ in 0..6000 {
        member.network.send(2, Bytes::from_static(b"x"));
    }
    assert!(member.network.figures()[0].dropped >= 6000 - 4096);
}

/// Reads the hello of a dialer and welcomes it; returns its purpose's code.
async fn welcome(listener: &TcpListener) -> (u8, TcpStream) {
    let (mut stream, _) = listener.accept().await.unwrap();
    let mut hello = [0; 43];
    stream.read_exact(&mut hello).await.unwrap();
    stream.write_all(&[0, 0, 0]).await.unwrap();
    (hello[10], stream)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_process_has_ended_when_its_connection_breaks_and_nobody_listens_any_more() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut member = Member::new(7, 1, None);
    // Nobody listens at the address of member 3, and nobody ever did: that says nothing about a process.
    let never = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    member.knows(&[(2, format!("http://{}", listener.local_addr().unwrap())), (3, format!("http://{never}"))]);
    // Broken connections alone say nothing either.
    for _ in 0..2 {
        drop((welcome(&listener).await, welcome(&listener).await));
    }
    let connections = (welcome(&listener).await, welcome(&listener).await);
    while let Ok(heard) = member.heard.try_recv() {
        assert!(matches!(heard, Heard::Unreachable(_)), "{heard:?}");
    }
    drop((listener, connections));
    let ended = timeout(PATIENCE, async { while member.heard.recv().await.unwrap() != Heard::Ended(2) {} });
    ended.await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_heartbeat_is_not_behind_a_large_frame() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let member = Member::new(7, 1, None);
    member.knows(&[(2, format!("http://{}", listener.local_addr().unwrap()))]);
    let (one, two) = (welcome(&listener).await, welcome(&listener).await);
    let (urgent, bulk) = if one.0 == 0 { (one.1, two.1) } else { (two.1, one.1) };
    // Nobody reads the bulk lane: its frame stays in the way of all that follow it there.
    member.network.send(2, Bytes::from(vec![1; 12 << 20]));
    member.network.send(2, Bytes::from_static(b"heartbeat"));
    let mut urgent = urgent;
    let frame = timeout(PATIENCE, async {
        loop {
            let length = urgent.read_u32().await.unwrap() as usize;
            let mut frame = vec![0; length];
            urgent.read_exact(&mut frame).await.unwrap();
            if length > 0 {
                break frame;
            }
        }
    });
    assert_eq!(frame.await.unwrap(), b"heartbeat");
    drop(bulk);
}

fn self_made() -> PeerTls {
    let made = rcgen::generate_simple_self_signed(["member".to_owned()]).unwrap();
    PeerTls::unchecked(&made.cert.pem(), &made.signing_key.serialize_pem()).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn addresses_of_version_6_work_too() {
    let Ok(listener) = TcpListener::bind("[::1]:0").await else { return };
    let mut to = Member::new(7, 2, Some(self_made()));
    let url = format!("https://{}", listener.local_addr().unwrap());
    to.network.serve(listener, true);
    let from = Member::new(7, 1, Some(self_made()));
    from.knows(&[(2, url)]);
    assert_eq!(from.sends_to(&mut to, "six").await.0, 1);
}
