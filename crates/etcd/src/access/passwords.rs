//! Passwords: their bcrypt hashes, which are slow on purpose.
//!
//! Hashing runs on threads of its own, [`AT_ONCE`] at most: whoever guesses passwords takes no more of the machine than that.

use std::sync::Arc;

use tokio::sync::Semaphore;
use tonic::Status;

use crate::refusals::{AUTH_FAILED, PASSWORD_TOO_LONG};

const AT_ONCE: usize = 2;

/// Makes and checks hashes.
pub(crate) struct Passwords {
    cost: u32,
    permits: Arc<Semaphore>,
}

impl Passwords {
    pub(crate) fn new(cost: u32) -> Self {
        Self { cost, permits: Arc::new(Semaphore::new(AT_ONCE)) }
    }

    pub(crate) async fn hash(&self, password: String) -> Result<Vec<u8>, Status> {
        let cost = self.cost;
        let hashed = self.run(move || bcrypt::non_truncating_hash(password, cost)).await?;
        match hashed {
            Ok(hash) => Ok(hash.into_bytes()),
            Err(bcrypt::BcryptError::Truncation(_)) => Err(PASSWORD_TOO_LONG.into()),
            Err(error) => Err(Status::internal(format!("the password was not hashed: {error}"))),
        }
    }

    /// Whether it is the password of that hash.
    pub(crate) async fn check(&self, password: String, hash: Vec<u8>) -> Result<(), Status> {
        // A hash that is none belongs to no password.
        let hash = String::from_utf8(hash).map_err(|_| AUTH_FAILED)?;
        let matches = self.run(move || bcrypt::verify(password, &hash).unwrap_or(false)).await?;
        if matches { Ok(()) } else { Err(AUTH_FAILED.into()) }
    }

    async fn run<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> Result<T, Status> {
        let permit = Arc::clone(&self.permits).acquire_owned().await;
        let worked = tokio::task::spawn_blocking(move || {
            let result = work();
            drop(permit);
            result
        });
        worked.await.map_err(|error| Status::internal(error.to_string()))
    }
}
