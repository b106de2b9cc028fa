//! JSON for who speaks no gRPC: `POST /v3/...` becomes the call of the same service, as at etcd's gateway.
//!
//! Numbers of 64 bits are strings, bytes are base64, fields that have their default are left out, unknown ones are ignored. A stream
//! is answered as lines `{"result": ...}`, and takes JSON values one after the other. Invariant: who calls is who the headers say; the
//! certificate of the connection names nobody, as etcd has it.

use std::convert::Infallible;
use std::sync::LazyLock;

use bytes::{Buf as _, BufMut as _, Bytes, BytesMut};
use futures::{StreamExt as _, stream};
use http::header::{ALLOW, AUTHORIZATION, CONTENT_TYPE};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Full, Limited, StreamBody};
use hyper::body::{Frame, Incoming};
use prost::Message as _;
use prost_reflect::{
    DescriptorPool, DeserializeOptions, DynamicMessage, MessageDescriptor, MethodDescriptor, SerializeOptions,
};
use serde::de::IgnoredAny;
use tokio_util::sync::CancellationToken;
use tonic::body::Body;
use tonic::{Code, Status};

use crate::listener::EtcdServer;

/// What is behind `/v3/`, and the method of the API.
const ROUTES: [(&str, &str); 44] = [
    ("auth/authenticate", "Auth/Authenticate"),
    ("auth/disable", "Auth/AuthDisable"),
    ("auth/enable", "Auth/AuthEnable"),
    ("auth/role/add", "Auth/RoleAdd"),
    ("auth/role/delete", "Auth/RoleDelete"),
    ("auth/role/get", "Auth/RoleGet"),
    ("auth/role/grant", "Auth/RoleGrantPermission"),
    ("auth/role/list", "Auth/RoleList"),
    ("auth/role/revoke", "Auth/RoleRevokePermission"),
    ("auth/status", "Auth/AuthStatus"),
    ("auth/user/add", "Auth/UserAdd"),
    ("auth/user/changepw", "Auth/UserChangePassword"),
    ("auth/user/delete", "Auth/UserDelete"),
    ("auth/user/get", "Auth/UserGet"),
    ("auth/user/grant", "Auth/UserGrantRole"),
    ("auth/user/list", "Auth/UserList"),
    ("auth/user/revoke", "Auth/UserRevokeRole"),
    ("cluster/member/add", "Cluster/MemberAdd"),
    ("cluster/member/list", "Cluster/MemberList"),
    ("cluster/member/promote", "Cluster/MemberPromote"),
    ("cluster/member/remove", "Cluster/MemberRemove"),
    ("cluster/member/update", "Cluster/MemberUpdate"),
    ("kv/compaction", "KV/Compact"),
    ("kv/deleterange", "KV/DeleteRange"),
    ("kv/lease/leases", "Lease/LeaseLeases"),
    ("kv/lease/revoke", "Lease/LeaseRevoke"),
    ("kv/lease/timetolive", "Lease/LeaseTimeToLive"),
    ("kv/put", "KV/Put"),
    ("kv/range", "KV/Range"),
    ("kv/txn", "KV/Txn"),
    ("lease/grant", "Lease/LeaseGrant"),
    ("lease/keepalive", "Lease/LeaseKeepAlive"),
    ("lease/leases", "Lease/LeaseLeases"),
    ("lease/revoke", "Lease/LeaseRevoke"),
    ("lease/timetolive", "Lease/LeaseTimeToLive"),
    ("maintenance/alarm", "Maintenance/Alarm"),
    ("maintenance/defragment", "Maintenance/Defragment"),
    ("maintenance/downgrade", "Maintenance/Downgrade"),
    ("maintenance/hash", "Maintenance/Hash"),
    ("maintenance/hashkv", "Maintenance/HashKV"),
    ("maintenance/snapshot", "Maintenance/Snapshot"),
    ("maintenance/status", "Maintenance/Status"),
    ("maintenance/transfer-leadership", "Maintenance/MoveLeader"),
    ("watch", "Watch/Watch"),
];
/// Headers with this prefix are metadata of the call.
const METADATA: &str = "grpc-metadata-";
/// What the messages are made of; `None` cannot be, the bytes come from the build.
static MESSAGES: LazyLock<Option<DescriptorPool>> =
    LazyLock::new(|| DescriptorPool::decode(&include_bytes!(concat!(env!("OUT_DIR"), "/descriptors.bin"))[..]).ok());

/// What a path under `/v3/` (`/v3beta/` of old) names; `None`: it is not for the gateway.
pub(crate) fn route(path: &str) -> Option<&str> {
    path.strip_prefix("/v3/").or_else(|| path.strip_prefix("/v3beta/"))
}

/// Answers a request whose path is for the gateway. `bytes_max`: of a message.
pub(crate) async fn answer(server: EtcdServer, request: Request<Incoming>, bytes_max: usize) -> Response<Body> {
    let mut response = if request.method() == Method::OPTIONS {
        Response::new(Body::default())
    } else {
        match find_method(request.uri().path()) {
            None => refuse(&Status::not_found("Not Found")),
            Some(_) if request.method() != Method::POST => refuse(&Status::unimplemented("Method Not Allowed")),
            Some(method) => call(server, method, request, bytes_max).await,
        }
    };
    // Browsers of all origins are let in, as etcd does unless it is told otherwise.
    let headers = response.headers_mut();
    let mut say = |name, value| headers.insert(HeaderName::from_static(name), HeaderValue::from_static(value));
    say("access-control-allow-headers", "accept, content-type, authorization");
    say("access-control-allow-methods", "POST, GET, OPTIONS, PUT, DELETE");
    say("access-control-allow-origin", "*");
    response
}

fn find_method(path: &str) -> Option<MethodDescriptor> {
    let wanted = route(path)?;
    let (_, method) = ROUTES.iter().find(|(route, _)| *route == wanted)?;
    let (service, name) = method.split_once('/')?;
    let service = MESSAGES.as_ref()?.get_service_by_name(&format!("etcdserverpb.{service}"))?;
    service.methods().find(|method| method.name() == name)
}

async fn call(
    mut server: EtcdServer,
    method: MethodDescriptor,
    request: Request<Incoming>,
    bytes_max: usize,
) -> Response<Body> {
    let (head, body) = request.into_parts();
    let gone = CancellationToken::new();
    let guard = gone.clone().drop_guard();
    // In JSON it takes more.
    let body = match messages(&method, body, bytes_max.saturating_mul(2), gone).await {
        Ok(body) => body,
        Err(status) => return refuse(&status),
    };
    let mut request = Request::new(body);
    *request.method_mut() = Method::POST;
    let path = format!("/{}/{}", method.parent_service().full_name(), method.name());
    let Ok(uri) = path.parse() else { return refuse(&Status::internal("a method without a path")) };
    *request.uri_mut() = uri;
    *request.headers_mut() = metadata(&head.headers);
    let response = server.answer_grpc(request, true, None).await;
    if let Some(status) = Status::from_header_map(response.headers()).filter(|status| status.code() != Code::Ok) {
        return refuse(&status);
    }
    let mut answers = Answers { body: response.into_body(), buffer: BytesMut::new(), message: method.output() };
    // Whether a stream is refused shows with its first answer.
    let first = answers.next().await;
    if !method.is_server_streaming() {
        return match first {
            Some(Ok(json)) => reply(StatusCode::OK, Body::new(Full::new(json.into()))),
            Some(Err(status)) => refuse(&status),
            None => refuse(&Status::internal("no answer")),
        };
    }
    let code = first.as_ref().and_then(|first| first.as_ref().err()).map_or(Code::Ok, Status::code);
    let rest = stream::unfold((answers, guard), |(mut answers, guard)| async move {
        Some((answers.next().await?, (answers, guard)))
    });
    let lines = stream::iter(first).chain(rest).map(|answer| Ok::<_, Infallible>(Frame::data(line(answer))));
    reply(status_code(code), Body::new(StreamBody::new(lines)))
}

/// What the client sends, as the body of the call. A stream stays open until `gone` where the answer outlives the questions.
async fn messages(
    method: &MethodDescriptor,
    body: Incoming,
    json_max: usize,
    gone: CancellationToken,
) -> Result<Body, Status> {
    if method.is_client_streaming() {
        let values = Values { body, buffer: BytesMut::new(), message: method.input(), json_max };
        // Who has sent all that it wants to watch is told of it until it goes.
        return Ok(Body::new(StreamBody::new(values.into_frames((method.name() == "Watch").then_some(gone)))));
    }
    let json = Limited::new(body, json_max).collect().await;
    let json = json.map_err(|error| Status::resource_exhausted(error.to_string()))?;
    Ok(Body::new(Full::new(encode(&method.input(), &json.to_bytes())?)))
}

/// Headers of the call: whom the caller says to be, and what it names metadata.
fn metadata(headers: &HeaderMap) -> HeaderMap {
    let mut metadata = HeaderMap::new();
    metadata.insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    metadata.insert(HeaderName::from_static("te"), HeaderValue::from_static("trailers"));
    metadata.insert(HeaderName::from_static("grpcgateway-accept"), HeaderValue::from_static("*/*"));
    for (name, value) in headers {
        if *name == AUTHORIZATION {
            metadata.insert(AUTHORIZATION, value.clone());
        } else if let Some(name) = name.as_str().strip_prefix(METADATA)
            && let Ok(name) = HeaderName::try_from(name)
        {
            metadata.entry(name).or_insert_with(|| value.clone());
        }
    }
    metadata
}

/// The first JSON value of `json` as a message in gRPC's frame. Nothing at all is a message without fields.
fn encode(message: &MessageDescriptor, json: &[u8]) -> Result<Bytes, Status> {
    let message = if json.trim_ascii().is_empty() {
        DynamicMessage::new(message.clone())
    } else {
        let options = DeserializeOptions::new().deny_unknown_fields(false);
        let mut json = serde_json::Deserializer::from_slice(json);
        DynamicMessage::deserialize_with_options(message.clone(), &mut json, &options)
            .map_err(|error| Status::invalid_argument(format!("proto: {error}")))?
    };
    let mut frame = BytesMut::new();
    frame.put_u8(0);
    frame.put_u32(u32::try_from(message.encoded_len()).unwrap_or(u32::MAX));
    message.encode(&mut frame).map_err(|error| Status::invalid_argument(error.to_string()))?;
    Ok(frame.freeze())
}

fn decode(message: &MessageDescriptor, bytes: Bytes) -> Result<Vec<u8>, Status> {
    let internal = |error: &dyn std::error::Error| Status::internal(error.to_string());
    let message = DynamicMessage::decode(message.clone(), bytes).map_err(|error| internal(&error))?;
    let options = SerializeOptions::new().use_proto_field_name(true).skip_default_fields(true);
    let mut json = Vec::new();
    let mut writer = serde_json::Serializer::new(&mut json);
    message.serialize_with_options(&mut writer, &options).map_err(|error| internal(&error))?;
    Ok(json)
}

/// JSON values that a client sends one after the other.
struct Values {
    body: Incoming,
    buffer: BytesMut,
    message: MessageDescriptor,
    json_max: usize,
}

impl Values {
    /// The next one as a message in its frame.
    async fn next(&mut self) -> Option<Result<Bytes, Status>> {
        loop {
            let mut values = serde_json::Deserializer::from_slice(&self.buffer).into_iter::<IgnoredAny>();
            match values.next() {
                Some(Ok(_)) => {
                    let json = self.buffer.split_to(values.byte_offset());
                    return Some(encode(&self.message, &json));
                }
                Some(Err(error)) if !error.is_eof() => {
                    return Some(Err(Status::invalid_argument(error.to_string())));
                }
                _ if self.buffer.len() > self.json_max => {
                    return Some(Err(Status::resource_exhausted("the message is too large")));
                }
                _ => {}
            }
            match self.body.frame().await? {
                Ok(frame) => self.buffer.extend(frame.into_data().ok()),
                Err(error) => return Some(Err(Status::unavailable(error.to_string()))),
            }
        }
    }

    /// Ends after the last value, or when `stay` does.
    fn into_frames(
        self,
        stay: Option<CancellationToken>,
    ) -> impl futures::Stream<Item = Result<Frame<Bytes>, Status>> + Send {
        stream::unfold((self, stay), |(mut values, stay)| async move {
            let Some(value) = values.next().await else {
                if let Some(stay) = stay {
                    stay.cancelled().await;
                }
                return None;
            };
            Some((value.map(Frame::data), (values, stay)))
        })
    }
}

/// The messages of an answer, as JSON.
struct Answers {
    body: Body,
    buffer: BytesMut,
    message: MessageDescriptor,
}

impl Answers {
    async fn next(&mut self) -> Option<Result<Vec<u8>, Status>> {
        loop {
            if let Some(head) = self.buffer.get(..5) {
                let length = (&head[1..]).get_u32() as usize;
                if self.buffer.len() >= 5 + length {
                    self.buffer.advance(5);
                    return Some(decode(&self.message, self.buffer.split_to(length).freeze()));
                }
            }
            match self.body.frame().await? {
                Err(status) => return Some(Err(status)),
                Ok(frame) => match frame.into_data() {
                    Ok(data) => self.buffer.extend_from_slice(&data),
                    Err(frame) => {
                        let status = Status::from_header_map(frame.trailers_ref()?)?;
                        return (status.code() != Code::Ok).then_some(Err(status));
                    }
                },
            }
        }
    }
}

fn line(answer: Result<Vec<u8>, Status>) -> Bytes {
    let (kind, json) = match answer {
        Ok(json) => ("result", json),
        Err(status) => ("error", error_json(&status)),
    };
    [format!("{{\"{kind}\":").as_bytes(), &json, b"}\n"].concat().into()
}

fn error_json(status: &Status) -> Vec<u8> {
    serde_json::json!({ "code": status.code() as i32, "message": status.message() }).to_string().into_bytes()
}

fn refuse(status: &Status) -> Response<Body> {
    let mut response = reply(status_code(status.code()), Body::new(Full::new(error_json(status).into())));
    if status.code() == Code::Unimplemented {
        response.headers_mut().insert(ALLOW, HeaderValue::from_static("POST"));
    }
    response
}

fn reply(code: StatusCode, body: Body) -> Response<Body> {
    let mut response = Response::new(body);
    *response.status_mut() = code;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    if code == StatusCode::OK {
        let name = HeaderName::from_static("grpc-metadata-content-type");
        headers.insert(name, HeaderValue::from_static("application/grpc"));
    }
    response
}

/// As gateways of gRPC have it.
fn status_code(code: Code) -> StatusCode {
    match code {
        Code::Ok => StatusCode::OK,
        Code::Cancelled => StatusCode::from_u16(499).unwrap_or(StatusCode::REQUEST_TIMEOUT),
        Code::InvalidArgument | Code::FailedPrecondition | Code::OutOfRange => StatusCode::BAD_REQUEST,
        Code::DeadlineExceeded => StatusCode::GATEWAY_TIMEOUT,
        Code::NotFound => StatusCode::NOT_FOUND,
        Code::AlreadyExists | Code::Aborted => StatusCode::CONFLICT,
        Code::PermissionDenied => StatusCode::FORBIDDEN,
        Code::Unauthenticated => StatusCode::UNAUTHORIZED,
        Code::ResourceExhausted => StatusCode::TOO_MANY_REQUESTS,
        Code::Unimplemented => StatusCode::NOT_IMPLEMENTED,
        Code::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
        Code::Unknown | Code::Internal | Code::DataLoss => StatusCode::INTERNAL_SERVER_ERROR,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_route_leads_to_a_method() {
        for (route, method) in ROUTES {
            let found = find_method(&format!("/v3/{route}")).unwrap_or_else(|| panic!("{route}"));
            assert_eq!(format!("etcdserverpb.{}", method.replace('/', ".")), found.full_name());
            assert!(find_method(&format!("/v3beta/{route}")).is_some());
        }
        assert!(
            find_method("/v3/").is_none()
                && find_method("/v3/kv/put/").is_none()
                && find_method("/v3/nosuch").is_none()
        );
    }

    #[test]
    fn json_becomes_a_message_and_back() {
        let put = find_method("/v3/kv/put").unwrap().input();
        let back = |json: &str| {
            let frame = encode(&put, json.as_bytes())?;
            assert_eq!(frame.len(), 5 + (&frame[1..5]).get_u32() as usize);
            decode(&put, frame.slice(5..)).map(|json| String::from_utf8(json).unwrap())
        };
        let check = |json, expected: &str| assert_eq!(back(json).unwrap(), expected, "{json}");
        check(
            r#"{"key":"YQ==","prevKv":true,"lease":7,"nosuch":[]} rest"#,
            r#"{"key":"YQ==","lease":"7","prev_kv":true}"#,
        );
        check(r#"{"key":"YQ","value":"_-8"}"#, r#"{"key":"YQ==","value":"/+8="}"#);
        check("", "{}");
        for bad in
            [r#"{"key":"%%"}"#, r#"{"key":3}"#, "nonsense", "[]", "null", r#"{"lease":12.5}"#, r#"{"lease":"x"}"#, "{"]
        {
            assert_eq!(back(bad).unwrap_err().code(), Code::InvalidArgument, "{bad}");
        }
    }
}
