//! Applies nftables transactions by the `nft` command: text in, all or nothing in the kernel.
//!
//! Invariant: one call is one transaction. A call takes at most [`TIMEOUT`] (asynchronous form).
//! Not here: what the rules are (see `netplan::ruleset`, `cni::hostport`).

use std::io::{self, Write};
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use tokio::io::AsyncWriteExt;

/// Longest a transaction may take: loading 45,000 services from nothing takes seconds, everything else milliseconds.
const TIMEOUT: Duration = Duration::from_secs(60);
/// How much of nft's complaint is kept.
const MESSAGE_BYTES_MAX: usize = 2000;

#[derive(Debug, thiserror::Error)]
pub enum NftError {
    #[error("could not run nft (is the package nftables installed?)")]
    Start(#[source] io::Error),
    #[error("nft refused the transaction: {0}")]
    Refused(String),
    #[error("nft did not finish in time")]
    TimedOut,
}

/// Applies `transaction`, blocking the calling thread.
pub fn apply_blocking(transaction: &str) -> Result<(), NftError> {
    let run = || {
        let mut child = command().spawn()?;
        let written = child.stdin.take().map_or(Ok(()), |mut stdin| stdin.write_all(transaction.as_bytes()));
        Ok((written, child.wait_with_output()?))
    };
    outcome(run().map_err(NftError::Start)?)
}

/// Applies `transaction`; the command is killed when it takes too long or the future is dropped.
pub async fn apply(transaction: &str) -> Result<(), NftError> {
    let run = async {
        let mut child = tokio::process::Command::from(command()).kill_on_drop(true).spawn()?;
        let written = match child.stdin.take() {
            Some(mut stdin) => stdin.write_all(transaction.as_bytes()).await,
            None => Ok(()),
        };
        Ok((written, child.wait_with_output().await?))
    };
    match tokio::time::timeout(TIMEOUT, run).await {
        Ok(output) => outcome(output.map_err(NftError::Start)?),
        Err(_) => Err(NftError::TimedOut),
    }
}

fn command() -> Command {
    command_with(&["-f", "-"])
}

fn command_with(arguments: &[&str]) -> Command {
    let mut command = Command::new("nft");
    command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped());
    // The plugin inherits a runtime's environment, which may lack the system directories.
    command.env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin:/usr/local/sbin:/usr/local/bin");
    command
}

/// nft's own complaint tells more than the broken pipe that its early exit causes.
fn outcome((written, output): (io::Result<()>, Output)) -> Result<(), NftError> {
    if output.status.success() {
        return written.map_err(NftError::Start);
    }
    let message: String = String::from_utf8_lossy(&output.stderr).chars().take(MESSAGE_BYTES_MAX).collect();
    Err(NftError::Refused(message))
}

/// Whether our table of this name, family `ip`, is in the kernel. A question that could not be asked counts as yes.
pub async fn table_exists(name: &str) -> bool {
    let mut ask = tokio::process::Command::from(command_with(&["list", "chain", "ip", name, "prerouting"]));
    match tokio::time::timeout(TIMEOUT, ask.kill_on_drop(true).output()).await {
        Ok(Ok(output)) => output.status.success(),
        _ => true,
    }
}
