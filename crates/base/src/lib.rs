//! Words that every other crate shares: time, randomness and identifiers as parameters, the machine's name, errors in one line.
//!
//! Invariant: nothing here knows Kubernetes. The only reads of the machine's clock and entropy in the whole workspace
//! are [`SystemClock`] and [`OsRng`]; everyone else takes a `&dyn Clock` or `&mut dyn Rng`.
//!
//! Reading order: [`clock`], [`rng`], [`id`], [`platform`], [`error`].

pub mod clock;
pub mod error;
pub mod id;
pub mod platform;
pub mod rng;

pub use clock::{Clock, ManualClock, SystemClock};
pub use error::with_causes;
pub use platform::go_architecture;
pub use rng::{OsRng, Rng, SeededRng};
