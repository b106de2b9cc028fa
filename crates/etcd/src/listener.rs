//! Connections: TLS or plaintext, HTTP/2 or 1.1 on one port, gRPC and plain HTTP on one connection.
//!
//! Invariant: a connection that misbehaves ends alone. Bounded: connections, streams of a connection, request sizes.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use base::Clock;
use http::{Request, Response};
use hyper::body::Incoming;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use rustls::pki_types::CertificateDer;
use store::Store;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tonic::Status;
use tonic::body::Body;
use tower::Service as _;
use x509_parser::prelude::{FromDer as _, X509Certificate};

use crate::access::Caller;
use crate::auth_service::AuthService;
use crate::cluster_service::ClusterService;
use crate::gateway;
use crate::grpc_figures::{CountedRequest, count_request, count_response};
use crate::kv_service::KvService;
use crate::lease_service::LeaseService;
use crate::maintenance_service::MaintenanceService;
use crate::member::{Member, Settings, StartError, count};
use crate::plain_http;
use crate::proto::etcdserverpb::auth_server::AuthServer;
use crate::proto::etcdserverpb::cluster_server::ClusterServer;
use crate::proto::etcdserverpb::kv_server::KvServer;
use crate::proto::etcdserverpb::lease_server::LeaseServer;
use crate::proto::etcdserverpb::maintenance_server::MaintenanceServer;
use crate::proto::etcdserverpb::watch_server::WatchServer;
use crate::proto::health::health_check_response::ServingStatus;
use crate::proto::health::health_server::{Health, HealthServer};
use crate::proto::health::{HealthCheckRequest, HealthCheckResponse};
use crate::refusals::{NO_LEADER, NOT_FOR_LEARNERS, Refusal};
use crate::watch_service::WatchService;

/// A client that sends this with `true` wants no answer from a member that has lost its leader.
pub(crate) const LEADER_WANTED: &str = "hasleader";
/// What learners answer; of ranges only the serializable ones.
const FOR_LEARNERS: [&str; 3] =
    ["/etcdserverpb.KV/Range", "/etcdserverpb.Maintenance/Status", "/etcdserverpb.Maintenance/Snapshot"];
/// While access control is on; what changes users and roles is checked with the change.
const FOR_ADMINISTRATORS: [&str; 13] = [
    "/etcdserverpb.KV/Compact",
    "/etcdserverpb.Cluster/MemberAdd",
    "/etcdserverpb.Cluster/MemberRemove",
    "/etcdserverpb.Cluster/MemberUpdate",
    "/etcdserverpb.Cluster/MemberPromote",
    "/etcdserverpb.Maintenance/Defragment",
    "/etcdserverpb.Maintenance/Hash",
    "/etcdserverpb.Maintenance/HashKV",
    "/etcdserverpb.Maintenance/Snapshot",
    "/etcdserverpb.Maintenance/MoveLeader",
    "/etcdserverpb.Maintenance/Downgrade",
    "/etcdserverpb.Auth/UserList",
    "/etcdserverpb.Auth/RoleList",
];
const FOR_KNOWN_CALLERS: [&str; 3] =
    ["/etcdserverpb.Cluster/MemberList", "/etcdserverpb.Maintenance/Status", "/etcdserverpb.Maintenance/Alarm"];
const SNAPSHOTS_MAX: usize = 2;
const CONNECTIONS_MAX: usize = 10_000;
/// Every watch stream and every request under way is one.
const STREAMS_MAX: u32 = 100_000;
const WINDOW_BYTES: u32 = 1 << 20;
/// Beyond the request itself, for its envelope: etcd's figure.
const ENVELOPE_BYTES: usize = 512 << 10;
const HANDSHAKE: Duration = Duration::from_secs(10);
/// A connection whose other end has vanished is found out after these two.
const PING_EVERY: Duration = Duration::from_secs(60);
const PING_ANSWER: Duration = Duration::from_secs(20);

/// The etcd v3 API over one store. Cheap to clone.
#[derive(Clone)]
pub struct EtcdServer {
    member: Arc<Member>,
    kv: KvServer<KvService>,
    watch: WatchServer<WatchService>,
    lease: LeaseServer<LeaseService>,
    maintenance: MaintenanceServer<MaintenanceService>,
    cluster: ClusterServer<ClusterService>,
    auth: AuthServer<AuthService>,
    health: HealthServer<HealthService>,
    connections: Arc<Semaphore>,
}

impl EtcdServer {
    /// Errors: the store has stopped already; the keys for tokens are no good.
    pub async fn new(store: Arc<Store>, settings: Settings, clock: Arc<dyn Clock>) -> Result<Self, StartError> {
        let member = Arc::new(Member::new(store, settings, clock).await?);
        tokio::spawn(count_leader_changes(Arc::clone(&member)));
        let of = || Arc::clone(&member);
        let bytes_max = member.settings.request_bytes_max + ENVELOPE_BYTES;
        Ok(Self {
            kv: KvServer::new(KvService { member: of() })
                .max_decoding_message_size(bytes_max)
                .max_encoding_message_size(usize::MAX),
            watch: WatchServer::new(WatchService { member: of() }).max_encoding_message_size(usize::MAX),
            lease: LeaseServer::new(LeaseService { member: of() }),
            maintenance: MaintenanceServer::new(MaintenanceService {
                member: of(),
                snapshots: Arc::new(Semaphore::new(SNAPSHOTS_MAX)),
            }),
            cluster: ClusterServer::new(ClusterService { member: of() }),
            auth: AuthServer::new(AuthService { member: of() }),
            health: HealthServer::new(HealthService { member: of() }),
            connections: Arc::new(Semaphore::new(CONNECTIONS_MAX)),
            member,
        })
    }

    /// The identity of the cluster and of this member.
    pub fn ids(&self) -> (u64, u64) {
        (self.member.cluster_id, self.member.member_id)
    }

    /// Joins in: resolves once this member has what the cluster had agreed on when this was called, and the cluster knows
    /// this member's name and client URLs. Clients should be served from then on.
    pub async fn publish(&self) {
        self.member.publish().await;
    }

    /// Serves gRPC and plain HTTP on `listener` until `stop`. `tls`: the configuration, which should offer `h2` and
    /// `http/1.1` and decides who may connect; `None` = plaintext.
    pub async fn serve(&self, listener: TcpListener, tls: Option<Arc<rustls::ServerConfig>>, stop: CancellationToken) {
        self.accept(listener, tls, stop, true).await;
    }

    /// As [`Self::serve`], but plain HTTP alone: health, version and metrics.
    pub async fn serve_metrics(
        &self,
        listener: TcpListener,
        tls: Option<Arc<rustls::ServerConfig>>,
        stop: CancellationToken,
    ) {
        self.accept(listener, tls, stop, false).await;
    }

    async fn accept(
        &self,
        listener: TcpListener,
        tls: Option<Arc<rustls::ServerConfig>>,
        stop: CancellationToken,
        grpc: bool,
    ) {
        let acceptor = tls.map(TlsAcceptor::from);
        loop {
            let Ok(permit) = Arc::clone(&self.connections).acquire_owned().await else { return };
            let accepted = tokio::select! {
                accepted = listener.accept() => accepted,
                () = stop.cancelled() => return,
            };
            let stream = match accepted {
                Ok((stream, _)) => stream,
                Err(error) => {
                    tracing::warn!(%error, "a connection was not accepted");
                    // Out of descriptors, as a rule: give others time to close.
                    tokio::time::sleep(Duration::from_millis(50)).await;
                    continue;
                }
            };
            let (server, acceptor, stop) = (self.clone(), acceptor.clone(), stop.clone());
            tokio::spawn(async move {
                tokio::select! {
                    () = server.serve_connection(stream, acceptor, grpc) => {}
                    () = stop.cancelled() => {}
                }
                drop(permit);
            });
        }
    }

    async fn serve_connection(&self, stream: TcpStream, acceptor: Option<TlsAcceptor>, grpc: bool) {
        if let Err(error) = stream.set_nodelay(true) {
            tracing::debug!(%error, "TCP_NODELAY was not set");
        }
        match acceptor {
            None => self.serve_http(stream, grpc, None).await,
            Some(acceptor) => match tokio::time::timeout(HANDSHAKE, acceptor.accept(stream)).await {
                Ok(Ok(stream)) => {
                    let common_name = stream.get_ref().1.peer_certificates().and_then(common_name);
                    self.serve_http(stream, grpc, common_name).await;
                }
                Ok(Err(error)) => tracing::warn!(%error, "rejected connection on client endpoint"),
                Err(_) => tracing::debug!("a TLS handshake took too long"),
            },
        }
    }

    /// `common_name`: of the client's certificate, which was verified.
    async fn serve_http<S: AsyncRead + AsyncWrite + Unpin + Send + 'static>(
        &self,
        stream: S,
        grpc: bool,
        common_name: Option<Arc<str>>,
    ) {
        let mut builder = Builder::new(TokioExecutor::new());
        builder.http1().timer(TokioTimer::new()).header_read_timeout(HANDSHAKE);
        builder
            .http2()
            .timer(TokioTimer::new())
            .max_concurrent_streams(STREAMS_MAX)
            .initial_stream_window_size(WINDOW_BYTES)
            .initial_connection_window_size(4 * WINDOW_BYTES)
            .keep_alive_interval(PING_EVERY)
            .keep_alive_timeout(PING_ANSWER);
        let service = hyper::service::service_fn(|request: Request<Incoming>| {
            let (server, common_name) = (self.clone(), common_name.clone());
            async move { Ok::<_, Infallible>(server.answer(request, grpc, common_name).await) }
        });
        if let Err(error) = builder.serve_connection(TokioIo::new(stream), service).await {
            tracing::debug!(%error, "a connection has ended");
        }
    }

    async fn answer(mut self, request: Request<Incoming>, grpc: bool, common_name: Option<Arc<str>>) -> Response<Body> {
        let content_type = request.headers().get(http::header::CONTENT_TYPE);
        if !content_type.is_some_and(|kind| kind.as_bytes().starts_with(b"application/grpc")) {
            let (method, uri) = (request.method(), request.uri());
            if grpc && self.member.settings.json_gateway && gateway::route(uri.path()).is_some() {
                return self.answer_json(request, common_name).await;
            }
            return plain_http::answer(&self.member, method, uri.path(), uri.query()).await;
        }
        self.answer_grpc(request.map(Body::new), grpc, common_name).await
    }

    async fn answer_json(self, request: Request<Incoming>, common_name: Option<Arc<str>>) -> Response<Body> {
        if common_name.is_some() && self.member.access.heeds_common_names() {
            let refusal =
                "CommonName of client sending a request against gateway will be ignored and not used as expected\n";
            return plain_http::bad_request(refusal);
        }
        let bytes_max = self.member.settings.request_bytes_max + ENVELOPE_BYTES;
        gateway::answer(self, request, bytes_max).await
    }

    pub(crate) async fn answer_grpc(
        &mut self,
        request: Request<Body>,
        grpc: bool,
        common_name: Option<Arc<str>>,
    ) -> Response<Body> {
        let path = request.uri().path().to_owned();
        let call = if grpc { self.member.counters.grpc.begin(&path, request.headers()) } else { None };
        let request = count_request(request, call.clone());
        count_response(self.answer_call(&path, request, grpc, common_name).await, call)
    }

    async fn answer_call(
        &mut self,
        path: &str,
        mut request: Request<CountedRequest<Body>>,
        grpc: bool,
        common_name: Option<Arc<str>>,
    ) -> Response<Body> {
        let service = path.strip_prefix('/').and_then(|path| path.split_once('/')).map_or("", |(service, _)| service);
        if let Some(refusal) = self.member.decide_refusal(path, request.headers()) {
            return Status::from(refusal).into_http();
        }
        let caller = Caller::of(request.headers(), common_name);
        if let Err(refused) = self.member.check_access(path, &caller).await {
            return refused.into_http();
        }
        request.extensions_mut().insert(caller);
        let answered = match service {
            _ if !grpc => return unknown_service(service),
            "etcdserverpb.KV" => self.kv.call(request).await,
            "etcdserverpb.Watch" => self.watch.call(request).await,
            "etcdserverpb.Lease" => self.lease.call(request).await,
            "etcdserverpb.Maintenance" => self.maintenance.call(request).await,
            "etcdserverpb.Cluster" => self.cluster.call(request).await,
            "etcdserverpb.Auth" => self.auth.call(request).await,
            "grpc.health.v1.Health" => self.health.call(request).await,
            _ => return unknown_service(service),
        };
        match answered {
            Ok(response) => response,
            Err(never) => match never {},
        }
    }
}

fn unknown_service(service: &str) -> Response<Body> {
    Status::unimplemented(format!("unknown service {service}")).into_http()
}

/// Until the store ends.
async fn count_leader_changes(member: Arc<Member>) {
    let mut leader = member.subscribe_leader();
    let mut last = 0;
    loop {
        let now = leader.borrow_and_update().leader;
        if now != 0 && now != last {
            count(&member.counters.leader_changes);
            last = now;
        }
        if leader.changed().await.is_err() {
            return;
        }
    }
}

impl Member {
    /// What this member does not do in its state, whatever the request says.
    fn decide_refusal(&self, path: &str, headers: &http::HeaderMap) -> Option<Refusal> {
        let wants_leader = headers.get(LEADER_WANTED).is_some_and(|value| value == "true");
        if wants_leader && self.leader().leader == 0 {
            return Some(NO_LEADER);
        }
        let unfit = !FOR_LEARNERS.contains(&path) && path.starts_with("/etcdserverpb.");
        (unfit && self.is_learner()).then_some(NOT_FOR_LEARNERS)
    }
}

/// The subject's common name of the certificate that a client has shown.
fn common_name(chain: &[CertificateDer<'static>]) -> Option<Arc<str>> {
    let (_, certificate) = X509Certificate::from_der(chain.first()?).ok()?;
    certificate.subject().iter_common_name().next()?.as_str().ok().map(Arc::from)
}

impl Member {
    /// What is for administrators, or for known callers, whatever the request says. The rest is checked with the request.
    async fn check_access(&self, path: &str, caller: &Caller) -> Result<(), Status> {
        if FOR_ADMINISTRATORS.contains(&path) {
            self.rights(caller).await?.check_admin()?;
        } else if FOR_KNOWN_CALLERS.contains(&path) {
            self.rights(caller).await?.check_known()?;
        }
        Ok(())
    }
}

struct HealthService {
    member: Arc<Member>,
}

#[async_trait::async_trait]
impl Health for HealthService {
    async fn check(
        &self,
        _request: tonic::Request<HealthCheckRequest>,
    ) -> Result<tonic::Response<HealthCheckResponse>, Status> {
        let serving = self.member.status().await.is_ok_and(|status| status.stopped.is_none());
        let status = if serving { ServingStatus::Serving } else { ServingStatus::NotServing };
        Ok(tonic::Response::new(HealthCheckResponse { status: status as i32 }))
    }
}
