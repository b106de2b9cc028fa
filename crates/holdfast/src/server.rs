//! The control plane of one process: store, API server, controllers, scheduler, wired and started in this order.
//!
//! ```text
//!   disk -> store -> ApiServer (pki, security) -> listener
//!                        ^ in-process clients, one identity a component
//!                 controllers, scheduler (own runtime)
//! ```
//!
//! Invariant: components get a client and nothing else; each speaks as its own user, and RBAC decides what it may do.

use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use apiserver::encryption::AtRest;
use apiserver::join::{ClusterHandler, JoinGate, JoinGateParts};
use apiserver::pki::{Pki, PkiConfig, PkiError, ServerTls};
use apiserver::security::Security;
use apiserver::streams::dial::{DialError, DirectConnector};
use apiserver::{ApiServer, ApiServerConfig, Identity};
use base::{Clock, OsRng, Rng};
use client::{EventRecorder, Informers, LeaderSpec, LeadershipLost, run_as_leader};
use controllers::nodes::cidr::CidrRange;
use peers::{FigureSource, Inbox, Network};
use store::Kv as _;
use tokio::net::TcpListener;
use tokio::runtime::Handle;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::datastore::{Datastore, DatastoreError, DatastoreSettings, Outside};
use crate::doctor::OwnFigures;
use crate::membership::{self, Membership, NoMembers};
use crate::store_routes::StoreRoutes;
use crate::supervise::run_supervised;
use crate::{at_rest, datastore, etcd_port, join, network, replacement, scheduling};

/// Every node gets a /24 of the Pod network, as elsewhere.
const NODE_PREFIX: u8 = 24;
/// A Lease is given up within two seconds or not at all.
const COMPONENTS_END: Duration = Duration::from_secs(3);

/// Everything the control plane is told.
#[derive(Debug, Clone)]
pub struct ServerSettings {
    pub data_dir: PathBuf,
    /// Where others reach this server.
    pub advertise: IpAddr,
    pub port: u16,
    /// For the other servers of the cluster.
    pub peer_port: u16,
    /// For etcd's clients; 0 = none.
    pub etcd_port: u16,
    pub cluster_cidr: (Ipv4Addr, u8),
    pub service_cidr: (Ipv4Addr, u8),
    pub hostname: String,
    pub datastore: DatastoreSettings,
}

impl ServerSettings {
    pub fn cluster_cidr_text(&self) -> String {
        format!("{}/{}", self.cluster_cidr.0, self.cluster_cidr.1)
    }

    pub fn service_cidr_text(&self) -> String {
        format!("{}/{}", self.service_cidr.0, self.service_cidr.1)
    }
}

#[derive(Debug, thiserror::Error)]
pub enum ServerError {
    #[error("cannot use {path}")]
    Directory {
        path: String,
        #[source]
        source: std::io::Error,
    },
    #[error(
        "the network {network}/{prefix} has no room for a /{NODE_PREFIX} a node; choose a larger one with --cluster-cidr"
    )]
    PodNetwork { network: Ipv4Addr, prefix: u8 },
    #[error("the restored store cannot be put in place")]
    Replacement(#[from] replacement::ReplacementError),
    #[error("the store does not open")]
    Store(#[from] store::OpenError),
    #[error("the etcd API does not start")]
    Etcd(#[from] etcd::member::StartError),
    #[error("the store does not answer")]
    Kv(#[from] store::KvError),
    #[error(
        "{path} is missing, with which this cluster's service-account tokens were signed; put it back from a backup, another server, or FILE.keys of `holdfast store snapshot --with-keys`; to give up all tokens, make a new one: openssl genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256 -out {path}"
    )]
    NoTokenKey { path: String },
    #[error(transparent)]
    Datastore(#[from] etcd::remote::ConnectError),
    #[error(transparent)]
    Forgotten(#[from] DatastoreError),
    #[error("the encryption keys cannot be used")]
    Keys(#[from] apiserver::encryption::EncryptionError),
    #[error("the certificates cannot be used")]
    Pki(#[from] apiserver::pki::PkiError),
    #[error("the way to the kubelets cannot be set up")]
    Connector(#[from] DialError),
    #[error("the security side does not start")]
    Security(#[from] apiserver::security::SecurityError),
    #[error("port {port} cannot be used: {source}; see what holds it with `ss -ltnp`, or choose another with {flag}")]
    Listen { port: u16, flag: &'static str, source: std::io::Error },
    #[error("{reason}")]
    Lost { reason: Arc<str> },
    #[error("the way to the other servers cannot be set up")]
    Members(#[source] Box<dyn std::error::Error + Send + Sync>),
    #[error(transparent)]
    Sealed(#[from] at_rest::SealedError),
    #[error("the API server does not start")]
    Start(#[from] apiserver::upkeep::StartError),
    #[error("the cluster's DNS Service cannot be written")]
    Dns(#[from] kube::Error),
    #[error("the default roles cannot be written")]
    Defaults(#[from] apiserver::rbac::defaults::ApplyError),
}

/// A running control plane.
pub struct ControlPlane {
    pub server: ApiServer,
    pub pki: Arc<Pki>,
    datastore: Datastore,
    pod_range: CidrRange,
    /// Of this server among all that ask for a Lease; the same after a restart, which then need not wait for its own end.
    identity: String,
    components: TaskTracker,
    /// Cancelled when the process must end and start anew, on another store.
    restart: CancellationToken,
}

/// The ports of a server, held before anything on disk is touched or anybody is asked for anything.
pub struct Listeners {
    api: TcpListener,
    pod_range: CidrRange,
    store: StoreListeners,
}

enum StoreListeners {
    Own(OwnListeners),
    /// It listens by itself.
    Outside(Outside),
}

impl Listeners {
    /// Refuses a data directory of another cluster as well, and networks and keys that cannot be used.
    pub async fn bind(settings: &ServerSettings) -> Result<Self, ServerError> {
        let (network, prefix) = settings.cluster_cidr;
        let pod_range = CidrRange::parse(&format!("{network}/{prefix}"), NODE_PREFIX)
            .ok_or(ServerError::PodNetwork { network, prefix })?;
        datastore::refuse_forgotten(&settings.data_dir, settings.datastore.outside.as_ref())?;
        refuse_lost_token_key(&settings.data_dir)?;
        settings.datastore.at_rest.present()?;
        let api = listen(settings, settings.port, "--port").await?;
        let store = match &settings.datastore.outside {
            Some(outside) => StoreListeners::Outside(outside.clone()),
            None => StoreListeners::Own(OwnListeners::bind(settings).await?),
        };
        Ok(Self { api, pod_range, store })
    }
}

/// Starts store and API server on the current runtime; returns once requests are answered.
/// `peers`: where the network to other servers runs, so that heartbeats are not behind requests.
pub async fn start(
    settings: &ServerSettings,
    listeners: Listeners,
    clock: Arc<dyn Clock>,
    peers: &Handle,
) -> Result<ControlPlane, ServerError> {
    let (pki, opened) = match listeners.store {
        StoreListeners::Own(own) => {
            let pki = Arc::new(open_pki(settings, clock.clone())?);
            let opened = open_own(settings, &pki, clock.clone(), (peers, own)).await?;
            (pki, opened)
        }
        StoreListeners::Outside(outside) => open_outside(settings, &outside, clock.clone()).await?,
    };
    let datastore = opened.datastore.clone();
    let foundation = Foundation { pki, opened, pod_range: listeners.pod_range, listener: listeners.api };
    tokio::select! {
        // First: whatever fails because of it says less.
        biased;
        reason = datastore.lost() => Err(ServerError::Lost { reason }),
        started = serve(settings, clock, foundation) => started,
    }
}

/// What an API server stands on.
struct Foundation {
    pki: Arc<Pki>,
    opened: Opened,
    pod_range: CidrRange,
    listener: TcpListener,
}

async fn serve(
    settings: &ServerSettings,
    clock: Arc<dyn Clock>,
    Foundation { pki, opened, pod_range, listener }: Foundation,
) -> Result<ControlPlane, ServerError> {
    at_rest::check_opens(&*opened.datastore.kv(), &settings.datastore.at_rest).await?;
    let restart = CancellationToken::new();
    let (server, security) = build_server(settings, &pki, (&opened, restart.clone()), clock)?;
    server.start().await?;
    security.write_defaults(&client_of(&server, "system:apiserver", &["system:masters"])).await?;
    netd::ensure_dns_service(
        client_of(&server, "system:apiserver", &["system:masters"]),
        network::nth_address(settings.service_cidr, 10),
    )
    .await?;
    let tls = pki.server_tls()?;
    spawn_listener(&server, listener, &pki, tls);
    keep_admin_kubeconfig(settings, &pki)?;
    let Opened { datastore, identity, .. } = opened;
    Ok(ControlPlane { server, pki, datastore, pod_range, identity, components: TaskTracker::new(), restart })
}

/// `flag` chooses another port.
async fn listen(settings: &ServerSettings, port: u16, flag: &'static str) -> Result<TcpListener, ServerError> {
    let listener = TcpListener::bind((network::any_address(settings.advertise), port)).await;
    listener.map_err(|source| ServerError::Listen { port, flag, source })
}

impl ControlPlane {
    /// Runs controllers and scheduler on `runtime` until `stop`, each only while it holds its Lease: of all servers of a
    /// cluster, one works.
    pub fn spawn_components(&self, runtime: &Handle, clock: &Arc<dyn Clock>, stop: &CancellationToken) {
        // A client starts its worker on the runtime that it is made in.
        let _inside = runtime.enter();
        let settings = controllers::registry::Settings {
            root_ca_pem: self.pki.cluster_ca().certificate_pem().to_owned(),
            pod_range: self.pod_range,
        };
        let manager = client_of(&self.server, "system:kube-controller-manager", &["system:masters"]);
        let on = (runtime, clock, stop);
        self.spawn_component(("controllers", "kube-controller-manager"), manager, on, move |client, clock| {
            run_controllers(client, settings.clone(), clock)
        });
        let scheduler = client_of(&self.server, "system:kube-scheduler", &[]);
        self.spawn_component(("scheduler", "kube-scheduler"), scheduler, on, run_scheduler);
        self.components.close();
    }

    /// Runs a component (its name and its Lease) while this server holds the Lease, and anew when it has failed.
    fn spawn_component<W, E>(
        &self,
        (name, lease): (&'static str, &str),
        client: kube::Client,
        (runtime, clock, stop): (&Handle, &Arc<dyn Clock>, &CancellationToken),
        work: impl Fn(kube::Client, Arc<dyn Clock>) -> W + Send + Sync + 'static,
    ) where
        W: Future<Output = Result<(), E>> + Send + 'static,
        E: std::error::Error + Send + 'static,
    {
        let spec = LeaderSpec::new(lease, &self.identity);
        let (clock, stop) = (clock.clone(), stop.clone());
        let component = async move {
            run_supervised(name, &*clock, stop.clone(), || {
                let work = work(client.clone(), clock.clone());
                lead(client.clone(), spec.clone(), clock.clone(), stop.clone(), work)
            })
            .await;
        };
        self.components.spawn_on(component, runtime);
    }

    /// Waits, at most [`COMPONENTS_END`], until the components have ended after their `stop` and have given up their Leases.
    pub async fn components_ended(&self) {
        if tokio::time::timeout(COMPONENTS_END, self.components.wait()).await.is_err() {
            tracing::info!("controllers or scheduler have not ended in time; leaving them");
        }
    }

    /// Resolves with the reason when this server can't be one of its cluster any more: the process must end.
    pub async fn lost(&self) -> Arc<str> {
        self.datastore.lost().await
    }

    /// Resolves when an administrator has put another store in place: the process must end in order and start anew.
    pub async fn restart_asked(&self) {
        self.restart.cancelled().await;
    }

    pub fn is_restart_asked(&self) -> bool {
        self.restart.is_cancelled()
    }

    /// Before [`Self::stop`]: this server takes itself out of the endpoints, at most for [`COMPONENTS_END`].
    pub async fn leave(&self) {
        if tokio::time::timeout(COMPONENTS_END, self.server.leave()).await.is_err() {
            tracing::info!("the endpoints still name this server");
        }
    }

    /// Ends watches, then closes the store; every acknowledged write is on disk already.
    pub fn stop(&self) {
        self.server.stop();
        self.datastore.close();
    }
}

/// A client of the API server in this process that speaks as `user`.
pub fn client_of(server: &ApiServer, user: &str, groups: &[&str]) -> kube::Client {
    let groups = groups.iter().copied().chain(["system:authenticated"]).map(str::to_owned).collect();
    let identity = Identity { user: user.to_owned(), groups, ..Identity::default() };
    client::in_process(As { server: server.clone(), identity })
}

/// The API server as one caller sees it: every request carries the caller's identity.
#[derive(Clone)]
struct As {
    server: ApiServer,
    identity: Identity,
}

impl tower::Service<http::Request<kube::client::Body>> for As {
    type Response = <ApiServer as tower::Service<http::Request<kube::client::Body>>>::Response;
    type Error = <ApiServer as tower::Service<http::Request<kube::client::Body>>>::Error;
    type Future = <ApiServer as tower::Service<http::Request<kube::client::Body>>>::Future;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        tower::Service::<http::Request<kube::client::Body>>::poll_ready(&mut self.server, cx)
    }

    fn call(&mut self, mut request: http::Request<kube::client::Body>) -> Self::Future {
        request.extensions_mut().insert(self.identity.clone());
        self.server.call(request)
    }
}

/// The store, open, and who this server is.
struct Opened {
    datastore: Datastore,
    members: Arc<dyn ClusterHandler>,
    /// With a store of our own.
    own: Option<Arc<Membership>>,
    identity: String,
}

/// Where a store of our own is reached.
struct OwnListeners {
    /// By the other servers.
    peers: TcpListener,
    /// By etcd's clients.
    etcd: Option<TcpListener>,
}

impl OwnListeners {
    async fn bind(settings: &ServerSettings) -> Result<Self, ServerError> {
        let peers = listen(settings, settings.peer_port, "--peer-port").await?;
        let etcd = match settings.etcd_port {
            0 => None,
            port => Some(listen(settings, port, "--etcd-port").await?),
        };
        Ok(Self { peers, etcd })
    }
}

/// An etcd that answers; only then the certificates, which a first start makes.
async fn open_outside(
    settings: &ServerSettings,
    outside: &Outside,
    clock: Arc<dyn Clock>,
) -> Result<(Arc<Pki>, Opened), ServerError> {
    let store = outside.connect(&settings.datastore.at_rest).await?;
    let pki = Arc::new(open_pki(settings, clock)?);
    datastore::write_note(&settings.data_dir, outside)
        .map_err(|source| ServerError::Directory { path: settings.data_dir.display().to_string(), source })?;
    let opened = Opened {
        datastore: Datastore::Outside(Arc::new(store)),
        members: Arc::new(NoMembers { datastore: outside.addresses.to_string() }),
        own: None,
        identity: format!("{}_{}_{}", settings.hostname, settings.advertise, settings.port),
    };
    Ok((pki, opened))
}

/// The store in the data directory, and its network.
async fn open_own(
    settings: &ServerSettings,
    pki: &Arc<Pki>,
    clock: Arc<dyn Clock>,
    (peers, listeners): (&Handle, OwnListeners),
) -> Result<Opened, ServerError> {
    let tls = membership::peer_tls(pki).map_err(ServerError::Members)?;
    let network = Network::new(peers.clone(), Some(tls));
    if let Some(kept) = replacement::adopt(&settings.data_dir, clock.now().as_second())? {
        tracing::info!("the store is a restored one; the one before is kept in {}", kept.display());
    }
    let directory = settings.data_dir.join(replacement::STORE);
    if let Some(reason) = datastore::removal(&directory) {
        return Err(ServerError::Lost { reason });
    }
    let store = Arc::new(open_store(settings, &directory, clock.clone(), &network)?);
    network.serve(listeners.peers, true);
    let own = join_network(settings, &store, &network).await?;
    if let Some(listener) = listeners.etcd {
        etcd_port::serve(settings, pki, store.clone(), clock, listener).await?;
    }
    let identity = format!("{}_{:016x}", settings.hostname, store.status().await?.member_id);
    let renewed = Arc::downgrade(&network);
    tokio::spawn(pki.clone().keep_renewed("this member", move |pki| {
        if let Some(network) = renewed.upgrade() {
            network.replace_tls(membership::peer_tls(pki).map_err(ServerError::Members)?);
        }
        Ok::<_, ServerError>(())
    }));
    let datastore = Datastore::Embedded { store, network, directory };
    Ok(Opened { datastore, members: own.clone(), own: Some(own), identity })
}

/// A server that has joined waits, while its store is empty, for what the others send.
fn open_store(
    settings: &ServerSettings,
    directory: &Path,
    clock: Arc<dyn Clock>,
    network: &Arc<Network>,
) -> Result<store::Store, ServerError> {
    let disk = store::RealDisk::new(directory)
        .map_err(|source| ServerError::Directory { path: directory.display().to_string(), source })?;
    // The API server compacts, by its own clock.
    let mut config = store::Config { compaction_interval: Duration::ZERO, ..store::Config::default() };
    if let Some(place) = join::read_place(&settings.data_dir) {
        network.introduce(&place.members);
        (config.cluster_id, config.member_id) = (Some(place.cluster_id), Some(place.member_id));
        config.joining = true;
    }
    Ok(store::Store::open(config, Arc::new(disk), clock, network.clone())?)
}

/// Begins to talk to the other servers.
async fn join_network(
    settings: &ServerSettings,
    store: &Arc<store::Store>,
    network: &Arc<Network>,
) -> Result<Arc<Membership>, ServerError> {
    let status = store.status().await?;
    let inbox: Arc<dyn Inbox> = store.clone();
    network.start(status.cluster_id, status.member_id, Arc::downgrade(&inbox));
    let url = network::server_url(settings.advertise, settings.peer_port);
    // Without an etcd API, where the API server is.
    let client_port = if settings.etcd_port == 0 { settings.port } else { settings.etcd_port };
    let client_url = network::server_url(settings.advertise, client_port);
    let entry = membership::run_own_entry(store.clone(), status.member_id, settings.hostname.clone(), url, client_url);
    tokio::spawn(entry);
    Ok(Arc::new(Membership {
        store: store.clone(),
        cluster_id: status.cluster_id,
        member_id: status.member_id,
        data_dir: settings.data_dir.clone(),
        own_keys: matches!(settings.datastore.at_rest, AtRest::OwnKeys(_)),
        cluster_cidr: settings.cluster_cidr_text(),
        service_cidr: settings.service_cidr_text(),
    }))
}

/// A key made anew would end all tokens that are about. A first start has made its key before anything else of a cluster is there.
fn refuse_lost_token_key(data_dir: &Path) -> Result<(), ServerError> {
    let path = data_dir.join("pki/sa.key");
    if datastore::holds_cluster(data_dir) && data_dir.join("pki/ca.crt").exists() && !path.exists() {
        return Err(ServerError::NoTokenKey { path: path.display().to_string() });
    }
    Ok(())
}

fn open_pki(settings: &ServerSettings, clock: Arc<dyn Clock>) -> Result<Pki, ServerError> {
    let config = PkiConfig {
        directory: settings.data_dir.join("pki"),
        names: vec![settings.hostname.clone()],
        addresses: vec![settings.advertise, IpAddr::V4(network::nth_address(settings.service_cidr, 1))],
    };
    Ok(Pki::open(config, clock)?)
}

fn build_server(
    settings: &ServerSettings,
    pki: &Arc<Pki>,
    (opened, restart): (&Opened, CancellationToken),
    clock: Arc<dyn Clock>,
) -> Result<(ApiServer, Security), ServerError> {
    let security = Security::open(pki, &settings.data_dir, &settings.datastore.at_rest, clock.clone())?;
    let mut config = ApiServerConfig {
        service_cidr: settings.service_cidr,
        // Endpoints on the loopback address would lead every Pod to itself.
        advertise: (!settings.advertise.is_loopback()).then_some((settings.advertise, settings.port)),
        ..ApiServerConfig::default()
    };
    security.configure(&mut config);
    if let (Datastore::Embedded { store, network, .. }, Some(own)) = (&opened.datastore, &opened.own) {
        let (store, network, data_dir) = (store.clone(), network.clone(), settings.data_dir.clone());
        config.paths.push(Arc::new(StoreRoutes::new(own.clone(), network.clone(), data_dir.clone(), restart)));
        let figures = Arc::new(OwnFigures { store, network: network.clone(), data_dir, clock: clock.clone() });
        let told: Arc<dyn FigureSource> = figures.clone();
        network.tell_figures(Arc::downgrade(&told));
        config.metrics.push(figures);
    }
    let gate = JoinGate::new(JoinGateParts {
        ca_pem: pki.cluster_ca().certificate_pem().to_owned(),
        reader: security.reader(),
        clock: clock.clone(),
        next: config.authenticator.clone(),
        handler: opened.members.clone(),
    });
    config.authenticator = gate.clone();
    config.paths.push(gate);
    config.connector = Some(connector(pki)?);
    let server = ApiServer::new(config, opened.datastore.kv(), clock, Box::new(OsRng));
    security.attach(server.reader());
    Ok((server, security))
}

/// The way to kubelets, Pods and Services.
fn connector(pki: &Arc<Pki>) -> Result<Arc<DirectConnector>, ServerError> {
    let connector = Arc::new(DirectConnector::new(pki.cluster_ca().certificate_pem(), &pki.kubelet_client()?)?);
    let renewed = connector.clone();
    let renew = move |pki: &Pki| Ok::<_, ServerError>(renewed.replace(&pki.kubelet_client()?)?);
    tokio::spawn(pki.clone().keep_renewed("the kubelets' client", renew));
    Ok(connector)
}

fn spawn_listener(server: &ApiServer, listener: TcpListener, pki: &Arc<Pki>, tls: Arc<ServerTls>) {
    let (serving, renewed) = (server.clone(), tls.clone());
    tokio::spawn(async move { serving.serve(listener, tls).await });
    tokio::spawn(pki.clone().keep_renewed("the API server", move |pki| renewed.replace(&pki.api_serving()?)));
}

/// Writes the administrator's kubeconfig, now and whenever its certificate is renewed. One that is there serves until then: a full
/// disk must not keep the server from starting, which is what makes room again.
fn keep_admin_kubeconfig(settings: &ServerSettings, pki: &Arc<Pki>) -> Result<(), PkiError> {
    let path = crate::up::admin_kubeconfig(&settings.data_dir);
    let url = network::server_url(settings.advertise, settings.port);
    let is_there = path.exists();
    let write = move |pki: &Pki| apiserver::pki::files::write_private(&path, pki.admin_kubeconfig(&url)?.as_bytes());
    match write(pki) {
        Err(problem) if is_there => {
            tracing::error!(
                error = &problem as &dyn std::error::Error,
                "the administrator's kubeconfig stays as it was"
            );
        }
        written => written?,
    }
    tokio::spawn(pki.clone().keep_renewed("the administrator", write));
    Ok(())
}

/// Why a component ended that should not.
#[derive(Debug, thiserror::Error)]
enum ComponentError<E: std::error::Error + 'static> {
    #[error(transparent)]
    Lost(#[from] LeadershipLost),
    #[error(transparent)]
    Ended(E),
}

/// Runs `work` while this server holds the Lease.
async fn lead<E: std::error::Error + 'static>(
    client: kube::Client,
    spec: LeaderSpec,
    clock: Arc<dyn Clock>,
    stop: CancellationToken,
    work: impl Future<Output = Result<(), E>>,
) -> Result<(), ComponentError<E>> {
    match run_as_leader(client, spec, clock, stop.cancelled(), work).await? {
        Some(ended) => ended.map_err(ComponentError::Ended),
        None => Ok(()),
    }
}

async fn run_controllers(
    client: kube::Client,
    settings: controllers::registry::Settings,
    clock: Arc<dyn Clock>,
) -> Result<(), client::runner::Stopped> {
    let mut runner = client::Runner::new(Informers::new(client), clock, OsRng.next_u64());
    controllers::registry::register_all(&mut runner, &settings);
    runner.run().await
}

async fn run_scheduler(client: kube::Client, clock: Arc<dyn Clock>) -> Result<(), std::convert::Infallible> {
    let recorder = EventRecorder::spawn(client.clone(), "default-scheduler", "", clock.clone());
    scheduling::run(Informers::new(client), recorder, clock).await
}
