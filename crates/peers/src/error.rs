//! What can go wrong between two members, each with what a person can do about it.

use std::net::SocketAddr;

/// Why a connection to another member, or from one, does not come about or has ended.
#[derive(Debug, thiserror::Error)]
pub enum PeerError {
    #[error("{url} is no peer URL; expected http://HOST:PORT or https://HOST:PORT")]
    Url { url: String },
    #[error("{url} needs TLS, for which this member has no certificate")]
    NoTls { url: String },
    #[error("the host of {url} is not found")]
    Resolve {
        url: String,
        #[source]
        source: std::io::Error,
    },
    #[error("{url} does not answer")]
    Connect {
        url: String,
        #[source]
        source: std::io::Error,
    },
    #[error("TLS with {with} failed")]
    Tls {
        with: String,
        #[source]
        source: std::io::Error,
    },
    #[error("{by} refuses this member: {reason}")]
    Refused { by: String, reason: String, removed: bool },
    #[error("refused {from}: {reason}")]
    Refuses { from: SocketAddr, reason: String },
    #[error("{with} speaks another protocol")]
    Foreign { with: String },
    #[error("nothing was heard from {with} for too long")]
    Silent { with: String },
    #[error("a frame of {bytes} bytes is larger than the bound")]
    FrameTooLarge { bytes: usize },
    #[error("the connection has ended")]
    Io(#[from] std::io::Error),
    #[error("the certificates of this member cannot be used: {detail}")]
    Certificate { detail: String },
    #[error("the answer of {with} is not understood")]
    Answer { with: String },
}

impl PeerError {
    /// Nobody listens at the address: a machine that is there has said so.
    pub(crate) fn is_refused_connection(&self) -> bool {
        matches!(self, Self::Connect { source, .. } if source.kind() == std::io::ErrorKind::ConnectionRefused)
    }

    /// The error with its cause, in one line.
    pub(crate) fn with_cause(&self) -> String {
        match std::error::Error::source(self) {
            Some(source) => format!("{self}: {source}"),
            None => self.to_string(),
        }
    }
}
