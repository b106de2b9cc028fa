//! The holdfast binary: command line, wiring, supervision, shutdown. Everything else lives in the crates it puts together.
//!
//! Reading order: [`cli`], [`up`], [`instance`], [`server`], [`datastore`], [`membership`], [`join`], [`token`], [`agent`], [`supervise`], [`scheduling`], [`down`], [`status`], [`doctor`], [`store_command`], [`store_routes`], [`replacement`]; [`etcd_command`], [`etcd_cluster`], [`etcd_listen`], [`etcd_self_made`], [`etcd_ignored`], [`etcd_config_file`].

mod agent;
mod at_rest;
mod cli;
mod datastore;
mod doctor;
mod down;
mod etcd_access;
mod etcd_cluster;
mod etcd_command;
mod etcd_config_file;
mod etcd_ignored;
mod etcd_listen;
mod etcd_port;
mod etcd_self_made;
mod images;
mod instance;
mod join;
mod kubeconfig;
mod membership;
mod network;
mod replacement;
mod run;
mod scheduling;
mod server;
mod status;
mod store_command;
mod store_routes;
mod supervise;
mod token;
mod up;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::ExitCode;

use cli::{Cli, Command};

type CommandResult = Result<(), Box<dyn std::error::Error>>;

fn main() -> ExitCode {
    let environment: BTreeMap<String, String> = std::env::vars().collect();
    if netd::cni::is_invocation(&environment) {
        return netd::cni::run(&environment);
    }
    match run_command(Cli::of_process().command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("holdfast: {}", base::with_causes(&*error));
            ExitCode::FAILURE
        }
    }
}

fn run_command(command: Command) -> CommandResult {
    match command {
        Command::Up(args) if !args.foreground => {
            up::run_in_background(&args, &std::env::args().skip(1).collect::<Vec<_>>())
        }
        Command::Up(args) => run::run_up(&args),
        Command::Server(args) => run::run_server(&args),
        Command::Down(args) => down::run(&args),
        Command::Kubeconfig(place) => {
            let path = up::admin_kubeconfig(&place.data_dir);
            let text = std::fs::read_to_string(&path)
                .map_err(|e| format!("{}: {e}; is the cluster up? `holdfast up` starts it", path.display()))?;
            print!("{text}");
            Ok(())
        }
        Command::Etcd(args) => etcd_command::run(&args),
        Command::Status(place) => status::run(&place),
        Command::Token { place, command } => token::run(&place, &command.unwrap_or_default()),
        Command::Doctor(place) => doctor::run(&place),
        Command::Store { place, command } => store_command::run(&place, &command),
        Command::Member { place, command } => join::run_member(&place, &command),
    }
}

/// Waits for what one command of the command line does.
fn block_on<T>(work: impl Future<Output = T>) -> std::io::Result<T> {
    Ok(tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(work))
}

/// The kubeconfig that kubectl would use.
#[expect(clippy::disallowed_methods, reason = "the binary is where the environment is read")]
fn user_kubeconfig() -> Option<PathBuf> {
    kubeconfig::user_path(std::env::var("KUBECONFIG").ok(), std::env::var("HOME").ok())
}
