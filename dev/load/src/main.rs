//! `load`: load on a Kubernetes API server from outside, the same way for any implementation; prints what it measured.
//!
//! In: a kubeconfig and one piece of work ([`command`]). Out: one line per figure on standard output (see [`figures`]), the first
//! failure's cause on standard error. Bounded in count, in clients and in time. It works in a namespace of its own and leaves
//! its objects there for the next piece of work; `load clean` removes them. It judges nothing: a slow server is no error.

mod command;
mod connection;
mod drive;
mod figures;
mod kubeconfig;
mod objects;
mod start;
mod watch;

use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use base::{Clock as _, SystemClock};
use clap::Parser as _;
use command::{Load, Work};
use connection::Pool;
use drive::{Bounds, Outcome};
use tokio::time::Instant;

/// What every piece of work needs: the server, a name that no earlier run used, and when to stop.
#[derive(Clone)]
pub struct Run {
    pub pool: Arc<Pool>,
    pub name: String,
    pub deadline: Instant,
}

impl Run {
    pub fn bounds(&self, n: u32, clients: u32) -> Bounds {
        Bounds { n: n as usize, clients: clients as usize, deadline: self.deadline }
    }
}

#[tokio::main]
async fn main() -> ExitCode {
    match run(Load::parse()).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("load: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn run(load: Load) -> Result<(), Box<dyn std::error::Error>> {
    let target = kubeconfig::read(&load.kubeconfig)?;
    let pool = Arc::new(Pool::connect(&target, load.connections as usize).await?);
    let name = format!("l{}", SystemClock::new().now().as_millisecond());
    let run = Run { pool, name, deadline: Instant::now() + Duration::from_secs(load.seconds) };
    if let Work::Clean = load.work {
        return Ok(objects::remove_namespace(&run).await?);
    }
    objects::ensure_namespace(&run).await?;
    match load.work {
        Work::Create { n, clients, bytes } => {
            print(&format!("create clients={clients}"), &objects::create_config_maps(&run, n, clients, bytes).await)
        }
        Work::Pods { n, clients } => {
            print(&format!("pods clients={clients}"), &objects::create_idle_pods(&run, n, clients).await)
        }
        Work::Get { n, clients } => {
            print(&format!("get clients={clients}"), &objects::get_one(&run, n, clients).await?)
        }
        Work::List { n, clients, path, protobuf } => {
            let (outcome, bytes) = objects::list(&run, n, clients, &path, protobuf).await?;
            let form = if protobuf { "protobuf" } else { "json" };
            print(&format!("list path={path} form={form} bytes={bytes} clients={clients}"), &outcome)
        }
        Work::Watch { n, clients, watchers, bytes } => {
            let fan_out = watch::fan_out(&run, n, clients, watchers, bytes).await?;
            print(&format!("watch watchers={watchers} clients={clients}"), &fan_out.writes)?;
            println!("deliveries: {}", fan_out.deliveries);
            Ok(())
        }
        Work::Start { n, clients, image } => {
            let (ready, gone) = start::run_pods(&run, n, clients, &image).await;
            print(&format!("start clients={clients}"), &ready)?;
            print(&format!("gone clients={clients}"), &gone)
        }
        Work::Clean => Ok(()),
    }
}

/// One figure's line. That nothing succeeded is an error, so that no caller takes it for a figure.
fn print(what: &str, outcome: &Outcome) -> Result<(), Box<dyn std::error::Error>> {
    println!("{what}: {}", outcome.summary());
    if let Some(failure) = &outcome.first_failure {
        eprintln!("load: {what}: the first of {} failures: {failure}", outcome.failed);
    }
    if outcome.not_begun > 0 {
        eprintln!("load: {what}: time was up with {} not begun", outcome.not_begun);
    }
    if outcome.latencies.is_empty() { Err(format!("{what}: nothing succeeded").into()) } else { Ok(()) }
}
