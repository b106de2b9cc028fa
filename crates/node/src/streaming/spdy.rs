//! SPDY/3.1 as the streaming protocols of Kubernetes use it: many byte streams over one upgraded connection.
//!
//! In: a transport after its HTTP upgrade. Out: a [`Connection`]: streams that the peer opens, and (as client) opening them.
//!
//! ```text
//!   transport -> reader task -> one bounded queue a stream -> Stream.input
//!   transport <- writer task <- one bounded queue          <- Stream.output
//! ```
//!
//! Invariants: each direction of a stream ends by itself (half-close); a reset or the transport's end ends both. Header
//! blocks are compressed over the connection's whole life, so only the writer task writes. There is no flow control by
//! windows, as in every implementation that Kubernetes uses: a slow stream holds back the connection.
//!
//! Reading order: this file, [`frames`], [`headers`].

pub mod frames;
pub mod headers;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, BufReader, WriteHalf};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use frames::{Frame, FrameReader};
use headers::{HeaderCompressor, Headers};

/// Chunks waiting for one stream's consumer; a chunk is at most 64 KiB.
const INPUT_QUEUE: usize = 16;
/// Frames waiting for the transport.
const OUTPUT_QUEUE: usize = 64;
/// Streams open at once; one more is refused.
const STREAMS_MAX: usize = 1024;
/// After our end, how long the peer may take for its own. Without it, what is still on the way here would make the kernel
/// reset the connection and with it our last bytes.
const LINGER: Duration = Duration::from_secs(5);
/// Streams accepted but not yet taken.
const ACCEPT_QUEUE: usize = 64;

const RST_PROTOCOL_ERROR: u32 = 1;
const RST_REFUSED: u32 = 3;
const RST_CANCEL: u32 = 5;

/// Who opened the connection; the client's streams have odd numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    Client,
    Server,
}

/// One stream. Dropping the halves does not close it; [`Output::finish`] and [`Output::reset`] do.
pub struct Stream {
    pub id: u32,
    pub headers: Headers,
    /// Ends with `None` after the peer's end, a reset, or the connection's end.
    pub input: mpsc::Receiver<Bytes>,
    pub output: Output,
}

/// The sending half of a stream; clones write to the same stream.
#[derive(Clone)]
pub struct Output {
    id: u32,
    commands: mpsc::Sender<Command>,
}

/// The connection is gone.
#[derive(Debug, thiserror::Error)]
#[error("the connection is closed")]
pub struct Closed;

impl Output {
    /// Queues `data`; waits while the connection is busy.
    pub async fn write(&self, data: Bytes) -> Result<(), Closed> {
        self.send(Command::Data { id: self.id, data, fin: false }).await
    }

    /// Half-closes the stream: the peer reads its end.
    pub async fn finish(&self) -> Result<(), Closed> {
        self.send(Command::Data { id: self.id, data: Bytes::new(), fin: true }).await
    }

    /// Ends both directions at once.
    pub async fn reset(&self) -> Result<(), Closed> {
        self.send(Command::Reset { id: self.id, status: RST_CANCEL }).await
    }

    async fn send(&self, command: Command) -> Result<(), Closed> {
        self.commands.send(command).await.map_err(|_gone| Closed)
    }
}

/// An open connection. [`Connection::close`], or dropping it, ends the transport.
pub struct Connection {
    shared: Arc<Shared>,
    commands: mpsc::Sender<Command>,
    accepted: mpsc::Receiver<Stream>,
    next_id: u32,
}

impl Connection {
    /// Starts the two tasks of the connection.
    pub fn start<T>(transport: T, role: Role) -> Self
    where
        T: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        let (read, write) = tokio::io::split(transport);
        let (commands, queue) = mpsc::channel(OUTPUT_QUEUE);
        let (accept, accepted) = mpsc::channel(ACCEPT_QUEUE);
        let shared = Arc::new(Shared { streams: Mutex::new(HashMap::new()), ended: CancellationToken::new() });
        let reader = ReaderTask {
            frames: FrameReader::new(BufReader::new(read)),
            shared: Arc::clone(&shared),
            commands: commands.clone(),
            accept,
            role,
            last_id: 0,
        };
        tokio::spawn(reader.run());
        tokio::spawn(run_writer(write, queue, Arc::clone(&shared)));
        Self { shared, commands, accepted, next_id: 1 }
    }

    /// The next stream that the peer opens; `None` once the connection has ended.
    pub async fn accept(&mut self) -> Option<Stream> {
        self.accepted.recv().await
    }

    /// Opens a stream (as client). Data may follow at once: the peer answers in order.
    pub async fn open(&mut self, headers: Headers) -> Result<Stream, Closed> {
        let id = self.next_id;
        self.next_id += 2;
        let (input, received) = mpsc::channel(INPUT_QUEUE);
        self.shared.lock().insert(id, Open { input: Some(input), sending: true });
        let output = Output { id, commands: self.commands.clone() };
        output.send(Command::Open { id, headers: headers.clone() }).await?;
        Ok(Stream { id, headers, input: received, output })
    }

    /// Ends when the transport does.
    pub fn ended(&self) -> CancellationToken {
        self.shared.ended.clone()
    }

    /// Writes what is queued, then ends the transport.
    pub async fn close(&self) {
        // A connection that is gone already is closed.
        if self.commands.send(Command::Close).await.is_ok() {
            self.shared.ended.cancelled().await;
        }
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.shared.ended.cancel();
    }
}

struct Shared {
    streams: Mutex<HashMap<u32, Open>>,
    ended: CancellationToken,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, HashMap<u32, Open>> {
        self.streams.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A stream that is open in at least one direction.
struct Open {
    /// `None` after the peer's end.
    input: Option<mpsc::Sender<Bytes>>,
    /// False after our end.
    sending: bool,
}

enum Command {
    Open { id: u32, headers: Headers },
    Reply { id: u32 },
    Data { id: u32, data: Bytes, fin: bool },
    Reset { id: u32, status: u32 },
    Pong { id: u32 },
    Close,
}

struct ReaderTask<R> {
    frames: FrameReader<R>,
    shared: Arc<Shared>,
    commands: mpsc::Sender<Command>,
    accept: mpsc::Sender<Stream>,
    role: Role,
    last_id: u32,
}

impl<R: AsyncRead + Unpin> ReaderTask<R> {
    async fn run(mut self) {
        let ended = self.shared.ended.clone();
        tokio::select! {
            () = ended.cancelled() => {}
            () = self.read_all() => {}
        }
        ended.cancel();
        self.shared.lock().clear();
    }

    async fn read_all(&mut self) {
        loop {
            let outcome = match self.frames.next().await {
                Ok(Some(frame)) => self.handle(frame).await,
                Ok(None) => return,
                Err(error) => {
                    tracing::debug!(error = &error as &dyn std::error::Error, "SPDY connection ends");
                    return;
                }
            };
            if outcome.is_err() {
                return;
            }
        }
    }

    async fn handle(&mut self, frame: Frame) -> Result<(), Closed> {
        match frame {
            Frame::SynStream { id, headers, fin } => self.accept_stream(id, headers, fin).await,
            Frame::SynReply { id, fin } => {
                if fin {
                    self.end_input(id);
                }
                Ok(())
            }
            Frame::Data { id, data, fin } => {
                let input = self.shared.lock().get(&id).and_then(|open| open.input.clone());
                if let Some(input) = input
                    && !data.is_empty()
                {
                    // A consumer that has gone wants no more; the stream ends by its own rules.
                    let _gone = input.send(data).await.is_err();
                }
                if fin {
                    self.end_input(id);
                }
                Ok(())
            }
            Frame::Reset { id } => {
                self.shared.lock().remove(&id);
                Ok(())
            }
            // An answer to a ping of ours has our parity; we send none.
            Frame::Ping { id } if (id % 2 == 1) == (self.role == Role::Server) => self.send(Command::Pong { id }).await,
            Frame::Ping { .. } | Frame::Other => Ok(()),
        }
    }

    async fn accept_stream(&mut self, id: u32, headers: Headers, fin: bool) -> Result<(), Closed> {
        let of_peer = (id % 2 == 1) == (self.role == Role::Server);
        if !of_peer || id <= self.last_id {
            return self.send(Command::Reset { id, status: RST_PROTOCOL_ERROR }).await;
        }
        self.last_id = id;
        if self.shared.lock().len() >= STREAMS_MAX {
            return self.send(Command::Reset { id, status: RST_REFUSED }).await;
        }
        let (input, received) = mpsc::channel(INPUT_QUEUE);
        self.shared.lock().insert(id, Open { input: (!fin).then_some(input), sending: true });
        // Before anyone can write to it: peers drop data that comes ahead of the reply.
        self.send(Command::Reply { id }).await?;
        let output = Output { id, commands: self.commands.clone() };
        self.accept.send(Stream { id, headers, input: received, output }).await.map_err(|_gone| Closed)
    }

    fn end_input(&self, id: u32) {
        let mut streams = self.shared.lock();
        if let Some(open) = streams.get_mut(&id) {
            open.input = None;
            if !open.sending {
                streams.remove(&id);
            }
        }
    }

    async fn send(&mut self, command: Command) -> Result<(), Closed> {
        self.commands.send(command).await.map_err(|_gone| Closed)
    }
}

async fn run_writer<T: AsyncWrite>(
    mut transport: WriteHalf<T>,
    mut queue: mpsc::Receiver<Command>,
    shared: Arc<Shared>,
) {
    let mut compressor = HeaderCompressor::new();
    loop {
        let command = tokio::select! {
            () = shared.ended.cancelled() => break,
            command = queue.recv() => command,
        };
        let Some(command) = command else { break };
        let Some(frame) = encode(command, &mut compressor, &shared) else {
            let closed = async { (transport.shutdown().await, shared.ended.cancelled().await) };
            // A peer that does not end gets no more time.
            let _late = tokio::time::timeout(LINGER, closed).await.is_err();
            break;
        };
        let written = async {
            for part in frame {
                transport.write_all(&part).await?;
            }
            transport.flush().await
        };
        let written = tokio::select! {
            () = shared.ended.cancelled() => break,
            written = written => written,
        };
        if written.is_err() {
            break;
        }
    }
    shared.ended.cancel();
    // The peer may be gone already; there is no one to tell.
    let _gone = transport.shutdown().await.is_err();
}

/// The bytes of a command; `None` ends the connection. Data for a stream that is closed is dropped.
fn encode(command: Command, compressor: &mut HeaderCompressor, shared: &Shared) -> Option<Vec<Bytes>> {
    match command {
        Command::Open { id, headers } => {
            let block = compressor.compress(&headers).ok()?;
            Some(vec![frames::syn_stream(id, block.len()), block])
        }
        Command::Reply { id } => {
            let block = compressor.compress(&Headers::default()).ok()?;
            Some(vec![frames::syn_reply(id, block.len()), block])
        }
        Command::Data { id, data, fin } => {
            let mut streams = shared.lock();
            let open = streams.get_mut(&id).filter(|open| open.sending);
            let Some(open) = open else { return Some(Vec::new()) };
            if fin {
                open.sending = false;
                if open.input.is_none() {
                    streams.remove(&id);
                }
            }
            Some(vec![frames::data(id, data.len(), fin), data])
        }
        Command::Reset { id, status } => {
            shared.lock().remove(&id);
            Some(vec![frames::rst_stream(id, status)])
        }
        Command::Pong { id } => Some(vec![frames::ping(id)]),
        Command::Close => None,
    }
}

#[cfg(test)]
mod tests;
