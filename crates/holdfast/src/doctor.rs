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
use findings::{Finding, Here, LogError, OutsideEtcd, Seen, Server, diagnose};

use crate::cli::PlaceArgs;
use crate::replacement::STORE;
use crate::{CommandResult, block_on, datastore, instance, membership, status};

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
    let api = Client::try_from(config).map_err(|error| status::message_of(&error));
    let told = match &api {
        Ok(client) => ask_store(client, datastore::read_note(&place.data_dir)).await,
        Err(error) => Err(error.clone()),
    };
    let (client, members) = match (api, told) {
        (Ok(client), Ok((members, datastore))) => {
            seen.datastore = datastore;
            (client, members)
        }
        (_, Err(error)) | (Err(error), _) => {
            seen.here.api_error = Some(error);
            seen.here.port_is_open = seen.here.port.is_some_and(is_open);
            return seen;
        }
    };
    let tls = membership::read_peer_tls(&place.data_dir).map_err(|error| error.to_string());
    let servers = members.iter().map(|member| ask_server(tls.as_ref(), member));
    seen.servers = futures::future::join_all(servers).await;
    servers::refuse_strangers(&mut seen.servers);
    let (nodes, pods, leases) = futures::join!(list::<Node>(&client), list::<Pod>(&client), list::<Lease>(&client));
    seen.nodes = answered(nodes, &mut seen.unanswered);
    seen.pods = answered(pods, &mut seen.unanswered);
    seen.leases = answered(leases, &mut seen.unanswered);
    seen
}

/// The members, or the etcd that holds the state instead of them.
async fn ask_store(client: &Client, datastore: Option<String>) -> Result<(Vec<Value>, Option<OutsideEtcd>), String> {
    let Some(address) = datastore else {
        let members = ask(client, apiserver::join::MEMBERS_PATH).await?;
        return Ok((members.as_array().cloned().unwrap_or_default(), None));
    };
    // This one needs no datastore.
    ask(client, "/version").await?;
    let checks = answer(client.request_text(get("/readyz?verbose")?)).await;
    let problem = match checks {
        // Without verdict: whoever waits for the datastore is late.
        Err(error) if error == late() => Some(format!("the API server cannot say whether it is ready: {error}")),
        Ok(checks) | Err(checks) => checks.lines().find(|line| line.starts_with("[-]etcd")).map(str::to_owned),
    };
    Ok((Vec::new(), Some(OutsideEtcd { address, problem })))
}

/// What this machine says without any API.
fn look_here(place: &PlaceArgs) -> Here {
    Here {
        pid: instance::running_pid(&place.run_dir),
        data_dir: place.data_dir.display().to_string(),
        has_data: datastore::holds_cluster(&place.data_dir),
        free_bytes: rustix::fs::statvfs(&place.data_dir).ok().map(|fs| fs.f_bavail.saturating_mul(fs.f_frsize)),
        removed: datastore::removal(&place.data_dir.join(STORE)).map(|reason| reason.to_string()),
        last_error: last_error(&place.data_dir.join("log/holdfast.log")),
        certificates: figures::certificates(&place.data_dir),
        ..Here::default()
    }
}

fn is_open(port: u16) -> bool {
    TcpStream::connect_timeout(&SocketAddr::from(([127, 0, 0, 1], port)), CONNECT_WITHIN).is_ok()
}

/// The log's last line that says ERROR, or with which a process ended; only a server that `holdfast up` started has a log file.
fn last_error(log: &Path) -> Option<LogError> {
    let text = std::fs::read(log).ok()?;
    let tail = String::from_utf8_lossy(&text[text.len().saturating_sub(LOG_TAIL_BYTES)..]).into_owned();
    let is_ending = |line: &str| line.starts_with("holdfast: ");
    let line = tail.lines().rev().find(|line| line.contains(" ERROR ") || is_ending(line))?;
    Some(LogError { line: line.to_owned(), is_end: tail.lines().next_back().is_some_and(is_ending) })
}

/// What a request comes to, within [`ANSWER_WITHIN`].
async fn answer<T>(request: impl Future<Output = kube::Result<T>>) -> Result<T, String> {
    tokio::time::timeout(ANSWER_WITHIN, request).await.map_err(|_| late())?.map_err(|error| status::message_of(&error))
}

fn late() -> String {
    format!("no answer within {} s", ANSWER_WITHIN.as_secs())
}

async fn ask(client: &Client, path: &str) -> Result<Value, String> {
    answer(client.request(get(path)?)).await
}

fn get(path: &str) -> Result<http::Request<Vec<u8>>, String> {
    http::Request::get(path).body(Vec::new()).map_err(|error| error.to_string())
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
        let answered = tokio::time::timeout(ANSWER_WITHIN, asked).await.map_err(|_| format!("{url}: {}", late()))?;
        let answered = answered.map_err(|error| match error {
            // The one that does not name the address.
            peers::PeerError::Io(_) => format!("{url}: {}", with_causes(&error)),
            error => with_causes(&error),
        })?;
        let unknown = || format!("the answer of {url} is not understood; it may be of another version");
        Figures::parse(&answered).ok_or_else(unknown)
    };
    let asked_at = clock.now();
    let figures = figures.await;
    // The answer was made somewhere between asking and now.
    let halfway = asked_at + clock.now().duration_since(asked_at) / 2;
    Server { id, name, url, is_learner, halfway, figures }
}

/// All of a kind; or the kind, and why there is no list of it.
async fn list<K>(client: &Client) -> Result<Vec<K>, (String, String)>
where
    K: kube::Resource<DynamicType = ()> + Clone + std::fmt::Debug + serde::de::DeserializeOwned,
{
    let api = Api::<K>::all(client.clone());
    let list = answer(api.list(&ListParams::default())).await;
    list.map(|list| list.items).map_err(|why| (K::plural(&()).into_owned(), why))
}

fn answered<K>(list: Result<Vec<K>, (String, String)>, unanswered: &mut Vec<(String, String)>) -> Vec<K> {
    list.unwrap_or_else(|failure| {
        unanswered.push(failure);
        Vec::new()
    })
}
