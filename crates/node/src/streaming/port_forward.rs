//! portForward: a client's connections carried to ports of a pod.
//!
//! In: an upgrade request for a pod. Out: one TCP connection inside the pod's network for each pair of streams.
//!
//! Served: SPDY/3.1 `portforward.k8s.io`, the same inside a WebSocket (`SPDY/3.1+portforward.k8s.io`, kubectl's choice), and
//! WebSocket `v4.channel.k8s.io` and its base64 form, where the ports are in the query and channels 2n and 2n+1 are the data
//! and the error of port n.
//!
//! A pair of SPDY streams has the same `requestID`; a client without it opens the error stream right before the data
//! stream. Half-closes go through in both directions.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;

use bytes::Bytes;
use http::{Request, Response};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use super::session::{Output, require_spdy_upgrade, spdy_protocols, spdy_response};
use super::spdy::{Connection, Role, Stream};
use super::{Refusal, Target, pod_network, query_values, text_body, websocket};
use crate::access::{PodAccess, ResponseBody};

const PROTOCOL: &str = "portforward.k8s.io";
const TUNNEL_PROTOCOL: &str = "SPDY/3.1+portforward.k8s.io";
const READ_BYTES: usize = 32 * 1024;
/// Streams whose other half has not come; a client that leaves more is cut off.
const HALF_PAIRS_MAX: usize = 256;
/// Ports of one WebSocket: two channels each, numbered in one byte.
const PORTS_MAX: usize = 100;

/// Answers the upgrade; the connections then run by themselves.
pub async fn serve(
    mut request: Request<Incoming>,
    target: &Target,
    access: Arc<dyn PodAccess>,
) -> Result<Response<ResponseBody>, Refusal> {
    let namespace = access.network_namespace(&target.namespace, &target.pod).await?;
    let pod =
        Arc::new(Pod { name: format!("{}_{}", target.pod, target.namespace), uid: target.uid.clone(), namespace });
    if !websocket::is_requested(request.headers()) {
        require_spdy_upgrade(request.headers())?;
        let offered = spdy_protocols(request.headers());
        if !offered.is_empty() && !offered.contains(&PROTOCOL) {
            let message = format!(
                "unable to upgrade: unable to negotiate protocol: client supports {offered:?}, server accepts [{PROTOCOL:?}]"
            );
            return Err(Refusal { code: http::StatusCode::FORBIDDEN, message });
        }
        let upgrade = hyper::upgrade::on(&mut request);
        tokio::spawn(async move {
            if let Ok(upgraded) = upgrade.await {
                run_spdy(Connection::start(TokioIo::new(upgraded), Role::Server), pod).await;
            }
        });
        return Ok(spdy_response(PROTOCOL));
    }
    serve_websocket(request, pod)
}

fn serve_websocket(mut request: Request<Incoming>, pod: Arc<Pod>) -> Result<Response<ResponseBody>, Refusal> {
    let known = [TUNNEL_PROTOCOL, "v4.channel.k8s.io", "v4.base64.channel.k8s.io"];
    let offered = websocket::offered_protocols(request.headers());
    let chosen = match offered.as_slice() {
        [] => "",
        offered => *known.iter().find(|known| offered.contains(known)).ok_or_else(|| {
            let message = format!("requested protocol(s) are not supported: {offered:?}; supports {known:?}");
            Refusal::bad_request(message)
        })?,
    };
    let ports = if chosen == TUNNEL_PROTOCOL { Vec::new() } else { parse_ports(request.uri().query())? };
    let response = websocket::accept::<Bytes>(request.headers(), chosen)
        .ok_or_else(|| Refusal::bad_request("the WebSocket handshake has no key"))?;
    let upgrade = hyper::upgrade::on(&mut request);
    tokio::spawn(async move {
        let Ok(upgraded) = upgrade.await else { return };
        let transport = TokioIo::new(upgraded);
        if chosen == TUNNEL_PROTOCOL {
            run_spdy(Connection::start(websocket::tunnel(transport).await, Role::Server), pod).await;
            return;
        }
        let codec = if chosen.contains("base64") { websocket::Codec::Base64 } else { websocket::Codec::Binary };
        let readable: Vec<bool> = ports.iter().flat_map(|_port| [true, false]).collect();
        run_channels(websocket::start(transport, codec, false, &readable).await, &ports, &pod).await;
    });
    Ok(response.map(text_body))
}

fn parse_ports(query: Option<&str>) -> Result<Vec<u16>, Refusal> {
    let values = query_values(query, "port");
    if values.is_empty() {
        return Err(Refusal::bad_request("query parameter \"port\" is required"));
    }
    let mut ports = Vec::new();
    for text in values.iter().flat_map(|list| list.split(',')) {
        match text.parse::<u16>() {
            Ok(0) => return Err(Refusal::bad_request(format!("port {text:?} must be > 0"))),
            Ok(port) => ports.push(port),
            Err(error) => return Err(Refusal::bad_request(format!("unable to parse {text:?} as a port: {error}"))),
        }
    }
    if ports.len() > PORTS_MAX {
        return Err(Refusal::bad_request(format!("more than {PORTS_MAX} ports")));
    }
    Ok(ports)
}

struct Pod {
    name: String,
    uid: Option<String>,
    namespace: Option<PathBuf>,
}

impl Pod {
    fn failure(&self, port: u16, error: &dyn std::error::Error) -> String {
        let uid = self.uid.as_deref().unwrap_or_default();
        format!("error forwarding port {port} to pod {}, uid {uid}: {error}", self.name)
    }
}

async fn run_channels(channels: websocket::Channels, ports: &[u16], pod: &Arc<Pod>) {
    let mut forwards = JoinSet::new();
    let mut inputs = channels.inputs.into_iter();
    for (number, port) in (0_u8..).step_by(2).zip(ports.iter().copied()) {
        // The data channel; the error channel is only written.
        let (data, _none) = (inputs.next().flatten(), inputs.next());
        let (output, error) = (channels.output.channel(number), channels.output.channel(number + 1));
        let Some(data) = data else { continue };
        let pod = Arc::clone(pod);
        forwards.spawn(async move {
            // Both channels begin with the port, little end first.
            let greeting = Bytes::copy_from_slice(&port.to_le_bytes());
            let greeted = output.write(greeting.clone()).await.is_ok() && error.write(greeting).await.is_ok();
            if greeted {
                forward(&pod, port, data, &Output::Channel(output), &Output::Channel(error)).await;
            }
        });
    }
    tokio::select! {
        () = channels.ended.cancelled() => {}
        () = async { while forwards.join_next().await.is_some() {} } => {
            // The client may have gone in the same moment.
            let _gone = channels.output.close().await.is_err();
            channels.ended.cancelled().await;
        }
    }
}

async fn run_spdy(mut connection: Connection, pod: Arc<Pod>) {
    let mut waiting: HashMap<String, Stream> = HashMap::new();
    let mut forwards = JoinSet::new();
    while let Some(stream) = connection.accept().await {
        while forwards.try_join_next().is_some() {}
        let Some(request_id) = request_id(&stream) else {
            // Without type or with a bad port it can carry nothing.
            let _gone = stream.output.reset().await.is_err();
            continue;
        };
        let Some(other) = waiting.remove(&request_id) else {
            waiting.insert(request_id, stream);
            if waiting.len() > HALF_PAIRS_MAX {
                return;
            }
            continue;
        };
        let is_data = |stream: &Stream| stream.headers.get("streamType") == Some("data");
        let (data, error) = match (is_data(&stream), is_data(&other)) {
            (true, false) => (stream, other),
            (false, true) => (other, stream),
            _ => {
                let _gone = stream.output.reset().await.is_err() || other.output.reset().await.is_err();
                continue;
            }
        };
        let pod = Arc::clone(&pod);
        forwards.spawn(async move {
            let port = data.headers.get("port").and_then(|port| port.parse().ok()).unwrap_or_default();
            let (output, errors) = (Output::Spdy(data.output.clone()), Output::Spdy(error.output.clone()));
            if !forward(&pod, port, data.input, &output, &errors).await {
                let _gone = data.output.reset().await.is_err() || error.output.reset().await.is_err();
            }
        });
    }
}

/// What ties a data stream to its error stream. `None` for a stream that is neither, or has no port.
fn request_id(stream: &Stream) -> Option<String> {
    let kind = stream.headers.get("streamType").filter(|kind| matches!(*kind, "data" | "error"))?;
    stream.headers.get("port")?.parse::<u16>().ok().filter(|port| *port > 0)?;
    Some(match stream.headers.get("requestID") {
        Some(id) => id.to_owned(),
        None if kind == "error" => format!("stream-{}", stream.id),
        None => format!("stream-{}", stream.id.saturating_sub(2)),
    })
}

/// One connection from dial to end. False when it failed; the failure has been told.
async fn forward(pod: &Pod, port: u16, input: mpsc::Receiver<Bytes>, output: &Output, error: &Output) -> bool {
    let failure = match pod_network::dial(pod.namespace.as_deref(), port).await {
        Ok(socket) => carry(socket, input, output).await.err().map(|error| pod.failure(port, &error)),
        Err(error) => Some(pod.failure(port, &error)),
    };
    if let Some(text) = &failure {
        tracing::debug!(error = text, "port-forward ended");
        // A client that has gone needs no reason.
        let _gone = error.write(Bytes::from(text.clone())).await.is_err();
    }
    let _gone = output.finish().await.is_err() || error.finish().await.is_err();
    failure.is_none()
}

/// Copies both directions until both have ended, or the pod's side has.
async fn carry(socket: TcpStream, input: mpsc::Receiver<Bytes>, output: &Output) -> std::io::Result<()> {
    socket.set_nodelay(true)?;
    let (read, write) = socket.into_split();
    let mut towards = JoinSet::new();
    towards.spawn(copy_in(input, write));
    copy_out(read, output).await
}

async fn copy_in(mut input: mpsc::Receiver<Bytes>, mut write: OwnedWriteHalf) {
    while let Some(data) = input.recv().await {
        if write.write_all(&data).await.is_err() {
            return;
        }
    }
    // The pod may have closed first.
    let _gone = write.shutdown().await.is_err();
}

async fn copy_out(mut read: OwnedReadHalf, output: &Output) -> std::io::Result<()> {
    let mut buffer = vec![0; READ_BYTES];
    loop {
        let length = read.read(&mut buffer).await?;
        let data = Bytes::copy_from_slice(buffer.get(..length).unwrap_or_default());
        if data.is_empty() || output.write(data).await.is_err() {
            return Ok(());
        }
    }
}

#[cfg(test)]
mod tests;
