//! The node's DNS server: UDP and TCP sockets around netplan's zone, and upstream servers for all other names.
//!
//! ```text
//! query -> [`DnsHandler`] -> netplan::dns::answer(view) -> zone records
//!                 |                 |-- Alias: CNAME, then the target's own answer
//!                 +-- NotOurs -> [`upstream`] -> the host's resolvers
//! ```
//!
//! Invariant: every query gets an answer: what cannot be answered is SERVFAIL, never silence. Answers over UDP fit the
//! client's buffer or are truncated. Not here: which records there are (see `netplan::dns`).

mod upstream;

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use hickory_proto::op::{Edns, Header, HeaderCounts, MessageType, Metadata, OpCode, ResponseCode};
use hickory_proto::rr::rdata::{A, AAAA, CNAME, NS, PTR, SOA, SRV, TXT};
use hickory_proto::rr::{DNSClass, Name, RData, Record, RecordType};
use hickory_server::Server;
use hickory_server::net::runtime::Time;
use hickory_server::server::{Request, RequestHandler, ResponseHandler, ResponseInfo};
use hickory_server::zone_handler::MessageResponseBuilder;
use netplan::View;
use netplan::dns::{self, Answer, Data, QuestionKind, TTL, Zone};
use tokio::net::{TcpListener, UdpSocket};

pub use upstream::Upstream;

/// A TCP connection without a query for this long is closed.
const TCP_IDLE: Duration = Duration::from_secs(10);
/// Answers waiting to be written on one TCP connection.
const TCP_ANSWERS_MAX: usize = 64;
/// The UDP size we offer and keep to: what passes any path unfragmented (DNS flag day 2020).
const UDP_PAYLOAD_MAX: u16 = 1232;
/// Aliases followed inside the zone before we give up.
const ALIASES_MAX: usize = 8;

/// Answers queries from the view and from upstream servers.
pub struct DnsHandler {
    view: Arc<RwLock<View>>,
    zone: Zone,
    upstream: Upstream,
    /// Moves the start of answers with several addresses on, so that clients spread over them.
    rotation: AtomicUsize,
}

/// A server bound to its sockets.
pub struct DnsServer {
    server: Server<DnsHandler>,
}

impl DnsServer {
    /// Binds UDP and TCP at `address` and starts to answer. The zone's own server address is `address`.
    pub async fn bind(
        address: SocketAddr,
        domain: &str,
        view: Arc<RwLock<View>>,
        upstream: Upstream,
    ) -> io::Result<Self> {
        let zone = Zone { domain: domain.to_ascii_lowercase(), server: address.ip() };
        let handler = DnsHandler { view, zone, upstream, rotation: AtomicUsize::new(0) };
        let mut server = Server::new(handler);
        server.register_socket(UdpSocket::bind(address).await?);
        server.register_listener(TcpListener::bind(address).await?, TCP_IDLE, TCP_ANSWERS_MAX);
        Ok(Self { server })
    }

    /// Serves until a socket fails; dropping the future (or the server) ends it.
    pub async fn serve(mut self) -> io::Result<()> {
        self.server.block_until_done().await.map_err(io::Error::other)
    }
}

/// A response's parts before it is sent.
struct Reply {
    code: ResponseCode,
    authoritative: bool,
    truncated: bool,
    answers: Vec<Record>,
    authorities: Vec<Record>,
    additionals: Vec<Record>,
}

impl Reply {
    fn empty(code: ResponseCode) -> Self {
        Self {
            code,
            authoritative: false,
            truncated: false,
            answers: Vec::new(),
            authorities: Vec::new(),
            additionals: Vec::new(),
        }
    }
}

#[async_trait::async_trait]
impl RequestHandler for DnsHandler {
    async fn handle_request<R: ResponseHandler, T: Time>(&self, request: &Request, mut sink: R) -> ResponseInfo {
        let reply = self.reply(request).await;
        let mut metadata = Metadata::response_from_request(&request.metadata);
        metadata.response_code = reply.code;
        metadata.authoritative = reply.authoritative;
        metadata.truncation = reply.truncated;
        metadata.recursion_available = true;
        let mut edns = Edns::new();
        edns.set_max_payload(request.max_payload().min(UDP_PAYLOAD_MAX)).set_version(0);
        let mut builder = MessageResponseBuilder::from_message_request(request);
        if request.edns.is_some() {
            builder.edns(&edns);
        }
        let response = builder.build(metadata, &reply.answers, &reply.authorities, [], &reply.additionals);
        match sink.send_response(response).await {
            Ok(info) => info,
            Err(error) => {
                tracing::debug!(%error, "the DNS answer could not be sent");
                let mut failed = Metadata::new(request.metadata.id, MessageType::Response, OpCode::Query);
                failed.response_code = ResponseCode::ServFail;
                ResponseInfo::from(Header { metadata: failed, counts: HeaderCounts::default() })
            }
        }
    }
}

impl DnsHandler {
    async fn reply(&self, request: &Request) -> Reply {
        if request.metadata.op_code != OpCode::Query {
            return Reply::empty(ResponseCode::NotImp);
        }
        if request.version() > 0 {
            return Reply::empty(ResponseCode::BADVERS);
        }
        let Ok(info) = request.request_info() else { return Reply::empty(ResponseCode::FormErr) };
        let query = info.query.original();
        if query.query_class() != DNSClass::IN {
            return Reply::empty(ResponseCode::Refused);
        }
        let name = query.name().to_ascii();
        match self.ask(name.trim_end_matches('.'), query.query_type()) {
            Answer::Found { answers, additional } => self.found(&answers, &additional),
            Answer::Alias(target) => self.alias(query.name(), target, query.query_type()).await,
            Answer::NoData => self.negative(ResponseCode::NoError),
            Answer::NoSuchName => self.negative(ResponseCode::NXDomain),
            Answer::NotOurs => self.upstream.forward(request.as_slice(), info.protocol).await.map_or_else(
                || Reply::empty(ResponseCode::ServFail),
                |message| Reply {
                    code: message.metadata.response_code,
                    authoritative: message.metadata.authoritative,
                    truncated: message.metadata.truncation,
                    answers: message.answers,
                    authorities: message.authorities,
                    additionals: message.additionals,
                },
            ),
        }
    }

    fn ask(&self, name: &str, kind: RecordType) -> Answer {
        let view = self.view.read().unwrap_or_else(PoisonError::into_inner);
        dns::answer(name, question_kind(kind), &view, &self.zone)
    }

    fn found(&self, answers: &[dns::Record], additional: &[dns::Record]) -> Reply {
        let mut answers = self.records(answers);
        let first = self.rotation.fetch_add(1, Ordering::Relaxed) % answers.len().max(1);
        answers.rotate_left(first);
        let additionals = self.records(additional);
        Reply { authoritative: true, answers, additionals, ..Reply::empty(ResponseCode::NoError) }
    }

    fn negative(&self, code: ResponseCode) -> Reply {
        let soa = dns::Record { name: self.zone.domain.clone(), data: Data::Soa };
        Reply { authoritative: true, authorities: self.records(&[soa]), ..Reply::empty(code) }
    }

    /// An ExternalName: the CNAME, and for address questions what its target answers.
    async fn alias(&self, owner: &Name, target: String, kind: RecordType) -> Reply {
        let mut reply = Reply { authoritative: true, ..Reply::empty(ResponseCode::NoError) };
        let (mut owner, mut target) = (owner.clone(), target);
        for _ in 0..ALIASES_MAX {
            let Some(name) = parse_name(&target) else { return Reply::empty(ResponseCode::ServFail) };
            reply.answers.push(Record::from_rdata(owner, TTL, RData::CNAME(CNAME(name.clone()))));
            if !matches!(kind, RecordType::A | RecordType::AAAA) {
                return reply;
            }
            match self.ask(&target, kind) {
                Answer::Alias(next) => (owner, target) = (name, next),
                Answer::Found { answers, .. } => {
                    reply.answers.extend(self.records(&answers));
                    return reply;
                }
                Answer::NotOurs => {
                    // Without its target's address the alias alone is still true.
                    if let Some(message) = self.upstream.query(name, kind).await {
                        reply.answers.extend(message.answers);
                    }
                    return reply;
                }
                Answer::NoData | Answer::NoSuchName => return reply,
            }
        }
        Reply::empty(ResponseCode::ServFail)
    }

    /// Records that cannot be named on the wire (labels too long) are left out.
    fn records(&self, records: &[dns::Record]) -> Vec<Record> {
        let build = |record: &dns::Record| {
            let data = match &record.data {
                Data::A(address) => RData::A(A(*address)),
                Data::Aaaa(address) => RData::AAAA(AAAA(*address)),
                Data::Srv { weight, port, target } => RData::SRV(SRV::new(0, *weight, *port, parse_name(target)?)),
                Data::Ptr(name) => RData::PTR(PTR(parse_name(name)?)),
                Data::Txt(text) => RData::TXT(TXT::new(vec![text.clone()])),
                Data::Ns(name) => RData::NS(NS(parse_name(name)?)),
                Data::Soa => RData::SOA(self.soa()?),
            };
            Some(Record::from_rdata(parse_name(&record.name)?, TTL, data))
        };
        records.iter().filter_map(build).collect()
    }

    /// There are no zone transfers, so the serial never has to grow.
    fn soa(&self) -> Option<SOA> {
        let domain = &self.zone.domain;
        let server = parse_name(&format!("ns.dns.{domain}"))?;
        Some(SOA::new(server, parse_name(&format!("hostmaster.{domain}"))?, 1, 7200, 1800, 86_400, TTL))
    }
}

fn parse_name(text: &str) -> Option<Name> {
    let mut name = Name::from_ascii(text).ok()?;
    name.set_fqdn(true);
    Some(name)
}

fn question_kind(kind: RecordType) -> QuestionKind {
    match kind {
        RecordType::A => QuestionKind::A,
        RecordType::AAAA => QuestionKind::Aaaa,
        RecordType::SRV => QuestionKind::Srv,
        RecordType::PTR => QuestionKind::Ptr,
        RecordType::TXT => QuestionKind::Txt,
        RecordType::SOA => QuestionKind::Soa,
        RecordType::NS => QuestionKind::Ns,
        RecordType::CNAME => QuestionKind::Cname,
        RecordType::ANY => QuestionKind::Any,
        _ => QuestionKind::Other,
    }
}

/// Addresses that must not be asked as upstream servers, since they would ask us.
pub(crate) fn is_loop(server: IpAddr, own: IpAddr) -> bool {
    server == own || server.is_unspecified()
}
