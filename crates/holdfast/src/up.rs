//! `holdfast up`: the whole cluster on this machine, in the foreground or in the background.
//!
//! Foreground: progress lines on standard output (the last is [`instance::READY_LINE`]), the log on standard error.
//! Background: starts that process detached, shows its progress, merges the kubeconfig and returns once it is ready.

use std::io::Write;
use std::path::Path;

use crate::cli::UpArgs;
use crate::instance::{self, InstanceError};
use crate::{kubeconfig, user_kubeconfig};

/// Starts the cluster in the background; on one that runs already it says so and succeeds.
pub fn run_in_background(args: &UpArgs, own_args: &[String]) -> Result<(), Box<dyn std::error::Error>> {
    let place = &args.cluster.place;
    if let Some(pid) = instance::lasting_pid(&place.run_dir) {
        println!("holdfast runs already (pid {pid}); `holdfast status` shows it");
        merge_kubeconfig(args)?;
        return Ok(());
    }
    let mut background: Vec<String> = own_args.to_vec();
    background.push("--foreground".to_owned());
    let log = place.data_dir.join("log/holdfast.log");
    println!("starting holdfast, log in {}", log.display());
    match instance::start_in_background(&background, &log, &mut |line| println!("  {line}")) {
        Err(InstanceError::EndedEarly { tail, .. }) if tail.contains("holdfast runs already") => {
            println!("holdfast runs already; `holdfast status` shows it");
        }
        outcome => outcome?,
    }
    merge_kubeconfig(args)?;
    Ok(())
}

fn merge_kubeconfig(args: &UpArgs) -> Result<(), Box<dyn std::error::Error>> {
    if args.no_kubeconfig {
        return Ok(());
    }
    let Some(path) = user_kubeconfig() else { return Ok(()) };
    let ours = std::fs::read_to_string(admin_kubeconfig(&args.cluster.place.data_dir))?;
    kubeconfig::merge_into(&path, &ours)?;
    println!("kubectl: context `holdfast` in {}", path.display());
    Ok(())
}

/// Where a server leaves the administrator's kubeconfig.
pub fn admin_kubeconfig(data_dir: &Path) -> std::path::PathBuf {
    data_dir.join("admin.kubeconfig")
}

/// One line of progress for whoever started this process.
pub fn progress(line: &str) {
    let mut out = std::io::stdout();
    // The starter may have gone after the last line; progress is for it alone.
    if writeln!(out, "{line}").and_then(|()| out.flush()).is_err() {
        tracing::debug!("nobody reads the progress: {line}");
    }
}
