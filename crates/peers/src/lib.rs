//! The network between the members of the store: frames and snapshots to and from other members, over mutual TLS.
//!
//! ```text
//! store driver -> Network::send -> queue of the lane -> lane task: dial, hello, write      (one connection a lane and peer)
//! other member -> accept: TLS, hello, judge -> read frames -> Inbox::receive (the store)
//! ```
//!
//! Two lanes to each peer: `urgent` for what is small (heartbeats, votes, answers) and `bulk` for large frames; snapshots have a
//! connection each. So nothing small waits behind anything large.
//! Invariants: sending never blocks; every queue is bounded, see `queue`; whoever is refused is told why, and the reason is in
//! both logs. A frame is opaque here. Frames may be lost and frames of different lanes may overtake each other: the store
//! repeats what matters.
//! Not here: flags and files (the binary's), what the frames mean.
//!
//! Reading order: [`network`], `queue`, `lane`, `accept`, `hello`, `dial`, `transfer`, [`inquiry`], [`tls`], [`url`].

#![forbid(unsafe_code)]

mod accept;
mod dial;
mod error;
mod hello;
mod inbound;
pub mod inquiry;
mod lane;
pub mod network;
mod queue;
pub mod tls;
mod transfer;
pub mod url;

pub use error::PeerError;
pub use inquiry::{ClusterView, FigureSource, ask_figures, ask_members};
pub use network::{Inbox, Network, PeerFigures};
pub use tls::PeerTls;
pub use url::PeerUrl;

/// Larger frames are refused on both sides.
pub const FRAME_BYTES_MAX: usize = 16 << 20;
