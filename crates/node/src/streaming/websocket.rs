//! The WebSocket side of the streaming protocols: numbered channels in one connection.
//!
//! In: a WebSocket after its handshake. Out: one bounded queue a readable channel, a writer for all of them.
//!
//! A message is the channel's number and data: one byte and raw bytes (binary messages), or a digit and base64 (text messages) for
//! the `base64.` protocols. In v5 the message 255, N half-closes channel N.
//!
//! Invariant: reading never waits for writing: a process that echoes may fill both directions.

use std::time::Duration;

use base64::prelude::{BASE64_STANDARD, Engine};
use bytes::Bytes;
use futures::stream::{SplitSink, SplitStream};
use futures::{SinkExt, StreamExt};
use http::header::{CONNECTION, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_PROTOCOL, UPGRADE};
use http::{HeaderMap, HeaderValue, Response, StatusCode};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, DuplexStream};
use tokio::sync::mpsc;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, Role, WebSocketConfig, frame::coding::CloseCode};
use tokio_util::sync::CancellationToken;

use super::spdy::Closed;

/// One message; clients send up to 32 KiB.
const MESSAGE_BYTES_MAX: usize = 4 << 20;
const QUEUE: usize = 16;
const CLOSE_SIGNAL: u8 = 255;
/// After our goodbye, how long the client may take for its own.
const LINGER: Duration = Duration::from_secs(5);
const TUNNEL_PIPE_BYTES: usize = 64 * 1024;

/// How a message carries its channel and data.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Codec {
    Binary,
    Base64,
}

/// Whether the request asks for a WebSocket.
pub fn is_requested(headers: &HeaderMap) -> bool {
    headers.get(UPGRADE).is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(b"websocket"))
}

/// The subprotocols that the client offers, in its order.
pub fn offered_protocols(headers: &HeaderMap) -> Vec<&str> {
    let values = headers.get_all(SEC_WEBSOCKET_PROTOCOL).iter().filter_map(|value| value.to_str().ok());
    values.flat_map(|list| list.split(',')).map(str::trim).filter(|name| !name.is_empty()).collect()
}

/// The answer that accepts the upgrade with `protocol` (none for an empty one). `None`: the request has no key.
pub fn accept<B: Default>(headers: &HeaderMap, protocol: &str) -> Option<Response<B>> {
    let key = headers.get(SEC_WEBSOCKET_KEY)?;
    let mut response = Response::new(B::default());
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    let answer = response.headers_mut();
    answer.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
    answer.insert(UPGRADE, HeaderValue::from_static("websocket"));
    answer.insert(SEC_WEBSOCKET_ACCEPT, HeaderValue::from_str(&derive_accept_key(key.as_bytes())).ok()?);
    if !protocol.is_empty() {
        answer.insert(SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_str(protocol).ok()?);
    }
    Some(response)
}

/// The channels of one connection.
pub struct Channels {
    /// By channel number; `None` for channels that the client does not write.
    pub inputs: Vec<Option<mpsc::Receiver<Bytes>>>,
    pub output: ChannelWriter,
    /// Ends with the connection.
    pub ended: CancellationToken,
}

/// Writes to one channel; made for others by [`ChannelWriter::channel`].
#[derive(Clone)]
pub struct ChannelWriter {
    channel: u8,
    queue: mpsc::Sender<Outgoing>,
}

enum Outgoing {
    Data(u8, Bytes),
    /// Says goodbye; the sender is told when it is on the wire.
    Close,
}

impl ChannelWriter {
    pub fn channel(&self, channel: u8) -> Self {
        Self { channel, queue: self.queue.clone() }
    }

    pub async fn write(&self, data: Bytes) -> Result<(), Closed> {
        self.queue.send(Outgoing::Data(self.channel, data)).await.map_err(|_gone| Closed)
    }

    /// Closes the whole connection after what is queued.
    pub async fn close(&self) -> Result<(), Closed> {
        self.queue.send(Outgoing::Close).await.map_err(|_gone| Closed)
    }
}

/// Starts the two tasks of a connection with channels `0..readable.len()`; `close_signal` is v5's.
pub async fn start<T>(transport: T, codec: Codec, close_signal: bool, readable: &[bool]) -> Channels
where
    T: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let (sink, stream) = open(transport).await.split();
    let ended = CancellationToken::new();
    let (senders, inputs): (Vec<_>, Vec<_>) = readable
        .iter()
        .map(|readable| {
            let (sender, receiver) = mpsc::channel(QUEUE);
            if *readable { (Some(sender), Some(receiver)) } else { (None, None) }
        })
        .unzip();
    let (queue, outgoing) = mpsc::channel(QUEUE);
    let reader = run_reader(stream, senders, codec, close_signal);
    let token = ended.clone();
    tokio::spawn(async move {
        tokio::select! {
            () = token.cancelled() => {}
            () = reader => {}
        }
        token.cancel();
    });
    tokio::spawn(run_writer(sink, outgoing, codec, ended.clone()));
    Channels { inputs, output: ChannelWriter { channel: 0, queue }, ended }
}

async fn open<T: AsyncRead + AsyncWrite + Unpin>(transport: T) -> WebSocketStream<T> {
    let config =
        WebSocketConfig::default().max_message_size(Some(MESSAGE_BYTES_MAX)).max_frame_size(Some(MESSAGE_BYTES_MAX));
    WebSocketStream::from_raw_socket(transport, Role::Server, Some(config)).await
}

async fn run_reader<T: AsyncRead + AsyncWrite + Unpin>(
    mut stream: SplitStream<WebSocketStream<T>>,
    mut channels: Vec<Option<mpsc::Sender<Bytes>>>,
    codec: Codec,
    close_signal: bool,
) {
    while let Some(Ok(message)) = stream.next().await {
        let data = match message {
            Message::Binary(data) => data,
            Message::Text(text) => Bytes::from(text),
            Message::Close(_) => return,
            _ => continue,
        };
        if close_signal && data.first() == Some(&CLOSE_SIGNAL) {
            // Anything but one known channel is a broken client.
            let [_, channel] = data[..] else { return };
            let Some(channel) = channels.get_mut(usize::from(channel)) else { return };
            *channel = None;
            continue;
        }
        let Some((channel, data)) = decode(&data, codec) else { continue };
        if let Some(Some(sender)) = channels.get(usize::from(channel)) {
            // A consumer that has gone wants no more; others may.
            let _gone = sender.send(data).await.is_err();
        }
    }
}

fn decode(message: &Bytes, codec: Codec) -> Option<(u8, Bytes)> {
    let first = *message.first()?;
    match codec {
        Codec::Binary => Some((first, message.slice(1..))),
        Codec::Base64 => {
            let data = BASE64_STANDARD.decode(message.get(1..)?).ok()?;
            Some((first.checked_sub(b'0')?, data.into()))
        }
    }
}

fn encode(channel: u8, data: &[u8], codec: Codec) -> Message {
    match codec {
        Codec::Binary => {
            let mut out = Vec::with_capacity(data.len() + 1);
            out.push(channel);
            out.extend_from_slice(data);
            Message::Binary(out.into())
        }
        Codec::Base64 => {
            let digit = char::from(b'0'.saturating_add(channel));
            Message::Text(format!("{digit}{}", BASE64_STANDARD.encode(data)).into())
        }
    }
}

async fn run_writer<T: AsyncRead + AsyncWrite + Unpin>(
    mut sink: SplitSink<WebSocketStream<T>, Message>,
    mut outgoing: mpsc::Receiver<Outgoing>,
    codec: Codec,
    ended: CancellationToken,
) {
    loop {
        let next = tokio::select! {
            () = ended.cancelled() => break,
            next = outgoing.recv() => next,
        };
        match next {
            Some(Outgoing::Data(channel, data)) => {
                if sink.send(encode(channel, &data, codec)).await.is_err() {
                    break;
                }
            }
            Some(Outgoing::Close) | None => {
                let closed = async { (sink.send(goodbye()).await, ended.cancelled().await) };
                // A client that does not answer gets no more time.
                let _late = tokio::time::timeout(LINGER, closed).await.is_err();
                break;
            }
        }
    }
    ended.cancel();
}

fn goodbye() -> Message {
    Message::Close(Some(CloseFrame { code: CloseCode::Normal, reason: "".into() }))
}

/// A byte stream inside a WebSocket: every binary message is a piece of it. For `SPDY/3.1+...` subprotocols.
pub async fn tunnel<T>(transport: T) -> DuplexStream
where
    T: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let (mut sink, mut stream) = open(transport).await.split();
    let (near, far) = tokio::io::duplex(TUNNEL_PIPE_BYTES);
    let (mut from_server, mut to_server) = tokio::io::split(far);
    tokio::spawn(async move {
        while let Some(Ok(message)) = stream.next().await {
            match message {
                Message::Binary(data) if to_server.write_all(&data).await.is_err() => break,
                Message::Binary(_) | Message::Ping(_) | Message::Pong(_) => {}
                _ => break,
            }
        }
        // The server's side may have ended first.
        let _gone = to_server.shutdown().await.is_err();
    });
    tokio::spawn(async move {
        let mut buffer = vec![0; 32 * 1024];
        loop {
            match from_server.read(&mut buffer).await {
                Ok(length) if length > 0 => {
                    let data = Bytes::copy_from_slice(buffer.get(..length).unwrap_or_default());
                    if sink.send(Message::Binary(data)).await.is_err() {
                        return;
                    }
                }
                _ => break,
            }
        }
        // The client may have gone first.
        let _gone = sink.send(goodbye()).await.is_err() || sink.close().await.is_err();
    });
    near
}

#[cfg(test)]
mod tests;
