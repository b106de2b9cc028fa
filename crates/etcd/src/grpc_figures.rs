//! What gRPC clients ask and are told, counted for `/metrics`: calls by method and code, messages, bytes, versions of clients.
//!
//! Bodies pass through as they are; a call costs a search among some fifty names, a message two additions. The names of the
//! figures are those of etcd and of the gRPC middleware that it uses; dashboards see in them how many streams are open.

use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http::{HeaderMap, Request, Response};
use hyper::body::{Body as HttpBody, Frame, SizeHint};
use tonic::Code;
use tonic::body::Body;

use crate::member::count;

/// One method of the API.
pub(crate) struct Rpc {
    /// As in a request: `/SERVICE/METHOD`.
    pub(crate) path: &'static str,
    pub(crate) kind: &'static str,
}

const UNARY: &str = "unary";
const SERVER_STREAM: &str = "server_stream";
const BIDI_STREAM: &str = "bidi_stream";

/// All methods of `proto/`, in the order of their paths.
const METHODS: [Rpc; 43] = [
    Rpc { path: "/etcdserverpb.Auth/AuthDisable", kind: UNARY },
    Rpc { path: "/etcdserverpb.Auth/AuthEnable", kind: UNARY },
    Rpc { path: "/etcdserverpb.Auth/AuthStatus", kind: UNARY },
    Rpc { path: "/etcdserverpb.Auth/Authenticate", kind: UNARY },
    Rpc { path: "/etcdserverpb.Auth/RoleAdd", kind: UNARY },
    Rpc { path: "/etcdserverpb.Auth/RoleDelete", kind: UNARY },
    Rpc { path: "/etcdserverpb.Auth/RoleGet", kind: UNARY },
    Rpc { path: "/etcdserverpb.Auth/RoleGrantPermission", kind: UNARY },
    Rpc { path: "/etcdserverpb.Auth/RoleList", kind: UNARY },
    Rpc { path: "/etcdserverpb.Auth/RoleRevokePermission", kind: UNARY },
    Rpc { path: "/etcdserverpb.Auth/UserAdd", kind: UNARY },
    Rpc { path: "/etcdserverpb.Auth/UserChangePassword", kind: UNARY },
    Rpc { path: "/etcdserverpb.Auth/UserDelete", kind: UNARY },
    Rpc { path: "/etcdserverpb.Auth/UserGet", kind: UNARY },
    Rpc { path: "/etcdserverpb.Auth/UserGrantRole", kind: UNARY },
    Rpc { path: "/etcdserverpb.Auth/UserList", kind: UNARY },
    Rpc { path: "/etcdserverpb.Auth/UserRevokeRole", kind: UNARY },
    Rpc { path: "/etcdserverpb.Cluster/MemberAdd", kind: UNARY },
    Rpc { path: "/etcdserverpb.Cluster/MemberList", kind: UNARY },
    Rpc { path: "/etcdserverpb.Cluster/MemberPromote", kind: UNARY },
    Rpc { path: "/etcdserverpb.Cluster/MemberRemove", kind: UNARY },
    Rpc { path: "/etcdserverpb.Cluster/MemberUpdate", kind: UNARY },
    Rpc { path: "/etcdserverpb.KV/Compact", kind: UNARY },
    Rpc { path: "/etcdserverpb.KV/DeleteRange", kind: UNARY },
    Rpc { path: "/etcdserverpb.KV/Put", kind: UNARY },
    Rpc { path: "/etcdserverpb.KV/Range", kind: UNARY },
    Rpc { path: "/etcdserverpb.KV/RangeStream", kind: SERVER_STREAM },
    Rpc { path: "/etcdserverpb.KV/Txn", kind: UNARY },
    Rpc { path: "/etcdserverpb.Lease/LeaseGrant", kind: UNARY },
    Rpc { path: "/etcdserverpb.Lease/LeaseKeepAlive", kind: BIDI_STREAM },
    Rpc { path: "/etcdserverpb.Lease/LeaseLeases", kind: UNARY },
    Rpc { path: "/etcdserverpb.Lease/LeaseRevoke", kind: UNARY },
    Rpc { path: "/etcdserverpb.Lease/LeaseTimeToLive", kind: UNARY },
    Rpc { path: "/etcdserverpb.Maintenance/Alarm", kind: UNARY },
    Rpc { path: "/etcdserverpb.Maintenance/Defragment", kind: UNARY },
    Rpc { path: "/etcdserverpb.Maintenance/Downgrade", kind: UNARY },
    Rpc { path: "/etcdserverpb.Maintenance/Hash", kind: UNARY },
    Rpc { path: "/etcdserverpb.Maintenance/HashKV", kind: UNARY },
    Rpc { path: "/etcdserverpb.Maintenance/MoveLeader", kind: UNARY },
    Rpc { path: "/etcdserverpb.Maintenance/Snapshot", kind: SERVER_STREAM },
    Rpc { path: "/etcdserverpb.Maintenance/Status", kind: UNARY },
    Rpc { path: "/etcdserverpb.Watch/Watch", kind: BIDI_STREAM },
    Rpc { path: "/grpc.health.v1.Health/Check", kind: UNARY },
];

/// gRPC's codes by number, as they are written in labels.
pub(crate) const CODES: [&str; 17] = [
    "OK",
    "Canceled",
    "Unknown",
    "InvalidArgument",
    "DeadlineExceeded",
    "NotFound",
    "AlreadyExists",
    "PermissionDenied",
    "ResourceExhausted",
    "FailedPrecondition",
    "Aborted",
    "OutOfRange",
    "Unimplemented",
    "Internal",
    "Unavailable",
    "DataLoss",
    "Unauthenticated",
];
/// In this field clients say which etcd they are made for.
const CLIENT_VERSION: &str = "client-api-version";
/// Versions of clients that are told apart; others count as unknown.
const VERSIONS_MAX: usize = 16;
/// A message stands behind so many bytes: a flag and its length.
const HEAD_BYTES: u8 = 5;

/// All counters.
#[derive(Debug)]
pub(crate) struct GrpcFigures {
    /// In the order of [`METHODS`].
    methods: [MethodFigures; METHODS.len()],
    pub(crate) received_bytes: AtomicU64,
    pub(crate) sent_bytes: AtomicU64,
    clients: RwLock<Vec<Arc<ClientFigures>>>,
}

#[derive(Debug, Default)]
pub(crate) struct MethodFigures {
    pub(crate) started: AtomicU64,
    pub(crate) received: AtomicU64,
    pub(crate) sent: AtomicU64,
    /// By code.
    pub(crate) handled: [AtomicU64; CODES.len()],
}

/// Calls of clients of one version.
#[derive(Debug, Default)]
pub(crate) struct ClientFigures {
    pub(crate) version: String,
    pub(crate) unary: AtomicU64,
    pub(crate) stream: AtomicU64,
}

impl Default for GrpcFigures {
    fn default() -> Self {
        Self {
            methods: std::array::from_fn(|_| MethodFigures::default()),
            received_bytes: AtomicU64::new(0),
            sent_bytes: AtomicU64::new(0),
            clients: RwLock::default(),
        }
    }
}

impl GrpcFigures {
    pub(crate) fn methods(&self) -> impl Iterator<Item = (&'static Rpc, &MethodFigures)> {
        METHODS.iter().zip(&self.methods)
    }

    pub(crate) fn clients(&self) -> Vec<Arc<ClientFigures>> {
        self.clients.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Counts a call that begins; `None`: there is no such method.
    pub(crate) fn begin(self: &Arc<Self>, path: &str, headers: &HeaderMap) -> Option<Call> {
        let method = METHODS.binary_search_by(|rpc| rpc.path.cmp(path)).ok()?;
        count(&self.methods[method].started);
        let version = headers.get(CLIENT_VERSION).and_then(|version| version.to_str().ok()).unwrap_or("unknown");
        let client = self.client(version);
        count(if METHODS[method].kind == UNARY { &client.unary } else { &client.stream });
        Some(Call { figures: Arc::clone(self), method })
    }

    fn client(&self, version: &str) -> Arc<ClientFigures> {
        let find = |clients: &[Arc<ClientFigures>], version: &str| {
            clients.iter().find(|client| client.version == version).map(Arc::clone)
        };
        if let Some(known) = find(&self.clients.read().unwrap_or_else(PoisonError::into_inner), version) {
            return known;
        }
        let mut clients = self.clients.write().unwrap_or_else(PoisonError::into_inner);
        // The last place is for those that are not told apart.
        let version = if clients.len() + 1 < VERSIONS_MAX { version } else { "unknown" };
        find(&clients, version).unwrap_or_else(|| {
            let new = Arc::new(ClientFigures { version: version.to_owned(), ..ClientFigures::default() });
            clients.push(Arc::clone(&new));
            new
        })
    }
}

/// A call that is being counted.
#[derive(Clone)]
pub(crate) struct Call {
    figures: Arc<GrpcFigures>,
    method: usize,
}

impl Call {
    fn figures(&self) -> &MethodFigures {
        &self.figures.methods[self.method]
    }

    fn received(&self, messages: Messages) {
        self.figures().received.fetch_add(messages.count, Ordering::Relaxed);
        self.figures.received_bytes.fetch_add(messages.bytes, Ordering::Relaxed);
    }

    fn sent(&self, messages: Messages) {
        self.figures().sent.fetch_add(messages.count, Ordering::Relaxed);
        self.figures.sent_bytes.fetch_add(messages.bytes, Ordering::Relaxed);
    }

    fn ended(&self, code: Code) {
        if let Some(handled) = self.figures().handled.get(code as usize) {
            count(handled);
        }
    }
}

/// The body of a request, whose messages are counted.
pub(crate) struct CountedRequest<B> {
    body: B,
    call: Option<Call>,
    heads: Heads,
}

/// The request, whose messages are counted.
pub(crate) fn count_request<B>(request: Request<B>, call: Option<Call>) -> Request<CountedRequest<B>> {
    request.map(|body| CountedRequest { body, call, heads: Heads::default() })
}

impl<B: HttpBody<Data = Bytes> + Unpin> HttpBody for CountedRequest<B> {
    type Data = Bytes;
    type Error = B::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Self::Data>, Self::Error>>> {
        let polled = ready!(Pin::new(&mut self.body).poll_frame(cx));
        if let Some(Ok(frame)) = &polled
            && let Some(data) = frame.data_ref()
        {
            let messages = self.heads.take(data);
            if let Some(call) = &self.call {
                call.received(messages);
            }
        }
        Poll::Ready(polled)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// The response, whose messages are counted, and whose end.
pub(crate) fn count_response(response: Response<Body>, call: Option<Call>) -> Response<Body> {
    let Some(call) = call else { return response };
    if let Some(code) = code_in(response.headers()) {
        // A refusal: there is no body.
        call.ended(code);
        return response;
    }
    response.map(|body| Body::new(CountedResponse { body, call: Some(call), heads: Heads::default() }))
}

struct CountedResponse {
    body: Body,
    /// Until it has ended.
    call: Option<Call>,
    heads: Heads,
}

impl HttpBody for CountedResponse {
    type Data = Bytes;
    type Error = tonic::Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Self::Data>, Self::Error>>> {
        let polled = ready!(Pin::new(&mut self.body).poll_frame(cx));
        let code = match &polled {
            Some(Ok(frame)) => {
                if let Some(data) = frame.data_ref() {
                    let messages = self.heads.take(data);
                    if let Some(call) = &self.call {
                        call.sent(messages);
                    }
                }
                frame.trailers_ref().and_then(code_in)
            }
            Some(Err(error)) => Some(error.code()),
            None => Some(Code::Unknown),
        };
        if let Some((code, call)) = code.and_then(|code| Some((code, self.call.take()?))) {
            call.ended(code);
        }
        Poll::Ready(polled)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl Drop for CountedResponse {
    /// The client has gone before the end.
    fn drop(&mut self) {
        if let Some(call) = self.call.take() {
            call.ended(Code::Cancelled);
        }
    }
}

fn code_in(headers: &HeaderMap) -> Option<Code> {
    headers.get("grpc-status").map(|code| Code::from_bytes(code.as_bytes()))
}

/// Messages that began in a piece of a body, and the bytes that they have or will have.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Messages {
    count: u64,
    bytes: u64,
}

/// How far a body is within a message or the bytes before it.
#[derive(Debug, Default)]
struct Heads {
    seen: u8,
    length: u32,
    /// Of the message, so much is still to come.
    rest: usize,
}

impl Heads {
    fn take(&mut self, mut data: &[u8]) -> Messages {
        let mut messages = Messages::default();
        while let Some((first, behind)) = data.split_first() {
            if self.rest > 0 {
                let skipped = self.rest.min(data.len());
                self.rest -= skipped;
                data = &data[skipped..];
                continue;
            }
            if self.seen > 0 {
                self.length = self.length << 8 | u32::from(*first);
            }
            self.seen += 1;
            data = behind;
            if self.seen == HEAD_BYTES {
                messages.count += 1;
                messages.bytes += u64::from(self.length);
                *self = Self { rest: self.length as usize, ..Self::default() };
            }
        }
        messages
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PROTOS: [&str; 5] = [
        include_str!("../proto/auth.proto"),
        include_str!("../proto/health.proto"),
        include_str!("../proto/kv.proto"),
        include_str!("../proto/lease.proto"),
        include_str!("../proto/rpc.proto"),
    ];

    #[test]
    fn messages_are_counted_however_they_are_cut() {
        let body: Vec<u8> = [&[0, 0, 0, 0, 3, 1, 2, 3][..], &[0, 0, 0, 0, 0], &[1, 0, 0, 1, 0], &[7; 256]].concat();
        for size in 1..=body.len() {
            let mut heads = Heads::default();
            let (count, bytes) = body.chunks(size).fold((0, 0), |(count, bytes), piece| {
                let found = heads.take(piece);
                (count + found.count, bytes + found.bytes)
            });
            assert_eq!((count, bytes, heads.rest), (3, 259, 0), "in pieces of {size}");
        }
    }

    #[test]
    fn methods_are_found_and_clients_are_bounded() {
        assert!(METHODS.is_sorted_by_key(|rpc| rpc.path));
        let mut declared = 0;
        for proto in PROTOS {
            for line in proto.lines().filter_map(|line| line.trim().strip_prefix("rpc ")) {
                let (name, rest) = line.split_once('(').unwrap();
                let (takes, gives) = rest.split_once("returns").unwrap();
                let kind =
                    match (takes.starts_with("stream "), gives.trim_start_matches([' ', '(']).starts_with("stream ")) {
                        (false, false) => UNARY,
                        (false, true) => SERVER_STREAM,
                        _ => BIDI_STREAM,
                    };
                let known = |rpc: &&Rpc| rpc.path.ends_with(&format!("/{}", name.trim())) && rpc.kind == kind;
                assert!(METHODS.iter().any(|rpc| known(&rpc)), "{line}");
                declared += 1;
            }
        }
        assert_eq!(declared, METHODS.len());
        let figures = Arc::new(GrpcFigures::default());
        let call = |path: &str, version: &str| {
            let headers = [(http::HeaderName::from_static(CLIENT_VERSION), version.parse().unwrap())];
            figures.begin(path, &headers.into_iter().collect())
        };
        assert!(call("/etcdserverpb.KV/Nope", "3.7").is_none());
        for version in 0..2 * VERSIONS_MAX {
            call("/etcdserverpb.Watch/Watch", &version.to_string()).unwrap().ended(Code::Cancelled);
        }
        let clients = figures.clients();
        assert_eq!(clients.len(), VERSIONS_MAX);
        let streams = clients.iter().map(|client| client.stream.load(Ordering::Relaxed)).sum::<u64>();
        assert_eq!(streams, 2 * VERSIONS_MAX as u64);
        let (rpc, watch) = figures.methods().find(|(rpc, _)| rpc.path.ends_with("Watch/Watch")).unwrap();
        assert_eq!((rpc.kind, watch.handled[1].load(Ordering::Relaxed)), ("bidi_stream", 2 * VERSIONS_MAX as u64));
    }
}
