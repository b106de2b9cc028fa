//! Puts images that we carry into the runtime, without any registry.
//!
//! Input: the bytes of an OCI or docker image archive. Output: the images in containerd's `k8s.io` namespace.
//! Invariant: importing twice is importing once.

use std::process::Stdio;

use tokio::io::AsyncWriteExt as _;

use super::RuntimeError;
use super::process::{find_program, search_dirs};
use crate::config::RuntimeConfig;

/// Imports every image of the archive under the names that its index gives.
pub async fn import_images(config: &RuntimeConfig, archive: &[u8]) -> Result<(), RuntimeError> {
    let program = find_program(&search_dirs(config), "ctr")?;
    let mut child = tokio::process::Command::new(&program)
        .arg("--address")
        .arg(config.socket())
        .args(["--namespace", "k8s.io", "images", "import", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .map_err(|source| RuntimeError::Spawn { program: program.clone(), source })?;
    let stdin = child.stdin.take();
    let feed = async move {
        match stdin {
            Some(mut stdin) => {
                stdin.write_all(archive).await?;
                stdin.shutdown().await
            }
            None => Ok(()),
        }
    };
    let (fed, output) = tokio::join!(feed, child.wait_with_output());
    let output = output.map_err(|source| RuntimeError::Spawn { program: program.clone(), source })?;
    let failure = |message: String| RuntimeError::Command { program, args: "images import".to_owned(), message };
    if !output.status.success() {
        return Err(failure(String::from_utf8_lossy(&output.stderr).trim().to_owned()));
    }
    fed.map_err(|error| failure(error.to_string()))
}
