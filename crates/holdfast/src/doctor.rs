//! `holdfast doctor`: what ails the cluster, why, and what to do next, for someone who has just been woken.
//!
//! ```text
//! this machine (process, port, log) ┐
//! every server's own figures        ├─> Seen ──[findings]──> lines on the screen, exit code 0 (healthy) or 1
//! nodes, Pods, Leases               ┘          └─[servers]──> a line each
//! ```
//!
//! Invariant: whatever does not answer is a finding itself, within a bounded time; nothing here changes anything.

mod figures;
mod findings;
mod servers;
#[cfg(test)]
mod tests;

use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::time::Duration;

use base::{Clock as _, SystemClock, with_causes};
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{Node, Pod};
use kube::api::ListParams;
use kube::{Api, Client};
use peers::PeerTls;
use serde_json::Value;

pub use figures::{Figures, OwnFigures};
use findings::{Finding, Here, Seen, Server, diagnose};

use crate::cli::PlaceArgs;
use crate::{CommandResult, block_on, instance, membership, status};

/// For each question to each server.
const ANSWER_WITHIN: Duration = Duration::from_secs(3);
const CONNECT_WITHIN: Duration = Duration::from_secs(1);
/// Of the end of the log, this much is searched for the last error.
const LOG_TAIL_BYTES: usize = 256 << 10;

/// Prints the servers and the findings; fails if there is one.
pub fn run(place: &PlaceArgs) -> CommandResult {
    let seen = block_on(look(place))?;
    for line in servers::describe(&seen) {
        println!("{line}");
    }
    let findings = diagnose(&seen);
    for Finding { what, why, next } in &findings {
        println!("{what}\n  why:  {why}\n  next: {next}");
    }
    match findings.len() {
        0 => {
            println!("healthy: nothing ails");
            Ok(())
        }
        count => Err(format!("{count} finding{}", if count == 1 { "" } else { "s" }).into()),
    }
}

async fn look(place: &PlaceArgs) -> Seen {
    let mut seen = Seen { here: look_here(place), now: SystemClock::new().now(), ..Seen::default() };
    let config = match status::admin_config(place).await {
        Ok(config) => config,
        Err(error) => {
            seen.here.api_error = Some(with_causes(&error));
            return seen;
        }
    };
    seen.here.port = config.cluster_url.port_u16();
    let api = Client::try_from(config).map_err(|error| with_causes(&error));
    let members = match &api {
        Ok(client) => ask(client, apiserver::join::MEMBERS_PATH).await,
        Err(error) => Err(error.clone()),
    };
    let (client, members) = match (api, members) {
        (Ok(client), Ok(members)) => (client, members),
        (_, Err(error)) | (Err(error), _) => {
            seen.here.api_error = Some(error);
            seen.here.port_is_open = seen.here.port.is_some_and(is_open);
            return seen;
        }
    };
    let tls = membership::read_peer_tls(&place.data_dir).map_err(|error| error.to_string());
    let servers = members.as_array().into_iter().flatten().map(|member| ask_server(tls.as_ref(), member));
    seen.servers = futures::future::join_all(servers).await;
    seen.nodes = list::<Node>(&client, &mut seen.unanswered).await;
    seen.pods = list::<Pod>(&client, &mut seen.unanswered).await;
    seen.leases = list::<Lease>(&client, &mut seen.unanswered).await;
    seen
}

/// What this machine says without any API.
fn look_here(place: &PlaceArgs) -> Here {
    Here {
        pid: instance::running_pid(&place.run_dir),
        data_dir: place.data_dir.display().to_string(),
        has_data: place.data_dir.join(crate::replacement::STORE).exists(),
        last_error: last_error(&place.data_dir.join("log/holdfast.log")),
        certificates: figures::certificates(&place.data_dir),
        ..Here::default()
    }
}

fn is_open(port: u16) -> bool {
    TcpStream::connect_timeout(&SocketAddr::from(([127, 0, 0, 1], port)), CONNECT_WITHIN).is_ok()
}

/// The last line of the log that says ERROR; only a server that `holdfast up` started has a log file.
fn last_error(log: &Path) -> Option<String> {
    let text = std::fs::read(log).ok()?;
    let tail = String::from_utf8_lossy(&text[text.len().saturating_sub(LOG_TAIL_BYTES)..]).into_owned();
    tail.lines().rev().find(|line| line.contains(" ERROR ") || line.starts_with("holdfast: ")).map(str::to_owned)
}

/// What a request comes to, within [`ANSWER_WITHIN`].
async fn answer<T>(request: impl Future<Output = kube::Result<T>>) -> Result<T, String> {
    tokio::time::timeout(ANSWER_WITHIN, request).await.map_err(|_| late())?.map_err(|error| with_causes(&error))
}

fn late() -> String {
    format!("no answer within {} s", ANSWER_WITHIN.as_secs())
}

async fn ask(client: &Client, path: &str) -> Result<Value, String> {
    let request = http::Request::get(path).body(Vec::new()).map_err(|error| error.to_string())?;
    answer(client.request(request)).await
}

/// A member's own figures, from itself.
async fn ask_server(tls: Result<&PeerTls, &String>, member: &Value) -> Server {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let (id, name, url) = (text(&member["id"]), text(&member["name"]), text(&member["peerURLs"][0]));
    let is_learner = member["isLearner"] == true;
    let clock = SystemClock::new();
    let figures = async {
        let tls = tls.map_err(Clone::clone)?;
        let asked = peers::ask_figures(std::slice::from_ref(&url), Some(tls));
        let answered = tokio::time::timeout(ANSWER_WITHIN, asked).await.map_err(|_| late())?;
        let answered = answered.map_err(|error| with_causes(&error))?;
        Figures::parse(&answered).ok_or_else(|| "its answer is not understood; it may be of another version".to_owned())
    };
    let asked_at = clock.now();
    let figures = figures.await;
    // The answer was made somewhere between asking and now.
    let halfway = asked_at + clock.now().duration_since(asked_at) / 2;
    Server { id, name, url, is_learner, halfway, figures }
}

async fn list<K>(client: &Client, unanswered: &mut Vec<String>) -> Vec<K>
where
    K: kube::Resource<DynamicType = ()> + Clone + std::fmt::Debug + serde::de::DeserializeOwned,
{
    let api = Api::<K>::all(client.clone());
    match answer(api.list(&ListParams::default())).await {
        Ok(list) => list.items,
        Err(why) => {
            unanswered.push(format!("{}: {why}", K::plural(&())));
            Vec::new()
        }
    }
}
