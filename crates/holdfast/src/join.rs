//! `holdfast server --join URL --token TOKEN`: fetches what all servers share, before this server starts.
//!
//! A token ([`crate::token`]) names the hash of the cluster's CA. The CA that the server shows must have this hash before the secret
//! is sent, and the connection that carries it is checked against that CA. Idempotent: the note of the place comes last, and
//! with it the server has joined.

use std::path::Path;

use apiserver::encryption::AtRest;
use apiserver::join::{JOIN_PATH, MEMBERS_PATH, REMOVE_PATH, derive_ca_hash};
use apiserver::pki::files;
use client::{Credentials, RemoteSpec};
use peers::ClusterView;
use serde_json::Value;

use crate::CommandResult;
use crate::cli::{MemberCommand, PlaceArgs};
use crate::membership::{self, ENCRYPTION_FILE};
use crate::server::ServerSettings;

/// The place of this server in a cluster that it joined.
pub const PLACE_FILE: &str = "joined.json";

#[derive(Debug, thiserror::Error)]
pub enum JoinError {
    #[error("the token is none of `holdfast token`; it looks like K10...::server:...")]
    Token,
    #[error("{url} is not a server such as https://10.0.0.1:6443")]
    Url { url: String },
    #[error("{url} cannot be asked to join")]
    Ask {
        url: String,
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    #[error("{url} refuses: {reason}")]
    Refused { url: String, reason: String },
    #[error("{url} belongs to another cluster than the token: the hash of its CA is another; nothing was sent to it")]
    OtherCluster { url: String },
    #[error("the answer of {url} is not understood")]
    Answer { url: String },
    #[error(
        "{dir} holds a cluster already: to go on with it, start without --join; to leave it for good, take this server out there if it still runs (`holdfast member remove`), move {dir} away, and join then"
    )]
    NotEmpty { dir: String },
    #[error(
        "the cluster's Secrets are encrypted with the keys of a file: copy it from another server and give it with --encryption-provider-config"
    )]
    GivenKeys,
    #[error("the cluster has its keys for Secrets and sends them along; join without --encryption-provider-config")]
    OwnKeys,
    #[error("the cluster has {flag} {theirs}, this server was told {ours}; give it the same")]
    Network { flag: &'static str, theirs: String, ours: String },
    #[error("what the cluster's servers share cannot be written")]
    Write(#[from] apiserver::pki::PkiError),
}

/// Joins, unless this server has done so before. What the cluster is and what this server was told must fit before a place is asked
/// for: a place that nobody takes would be in everybody's way.
pub async fn join(settings: &ServerSettings, url: &str, token: &str) -> Result<(), JoinError> {
    if settings.data_dir.join(PLACE_FILE).exists() {
        tracing::info!("this server has joined its cluster already");
        return Ok(());
    }
    if settings.data_dir.join(crate::replacement::STORE).exists() {
        return Err(JoinError::NotEmpty { dir: settings.data_dir.display().to_string() });
    }
    let door = Door::open(url, token).await?;
    let shared = door.ask(http::Request::get(JOIN_PATH)).await?;
    let files = shared_files(settings, &shared)?.ok_or_else(|| door.not_understood())?;
    let (name, address, port) = (&settings.hostname, settings.advertise, settings.peer_port);
    let path = format!("{JOIN_PATH}?name={name}&address={address}&port={port}");
    let place = door.ask(http::Request::post(path)).await?;
    let view = place["view"].as_str().filter(|view| peers::inquiry::parse_view(view.as_bytes()).is_some());
    let view = view.ok_or_else(|| door.not_understood())?;
    files::create_directory(&settings.data_dir.join("pki"))?;
    for (name, text) in files {
        files::write_private(&settings.data_dir.join(name), text.as_bytes())?;
    }
    files::write_private(&settings.data_dir.join(PLACE_FILE), view.as_bytes())?;
    Ok(())
}

/// By name below the data directory; `None`: something is missing. Refuses a cluster that is not the one this server is told of.
fn shared_files<'a>(
    settings: &ServerSettings,
    shared: &'a Value,
) -> Result<Option<Vec<(&'static str, &'a str)>>, JoinError> {
    for (flag, key, ours) in [
        ("--cluster-cidr", "clusterCIDR", settings.cluster_cidr_text()),
        ("--service-cidr", "serviceCIDR", settings.service_cidr_text()),
    ] {
        let Some(theirs) = shared[key].as_str() else { return Ok(None) };
        if theirs != ours {
            return Err(JoinError::Network { flag, theirs: theirs.to_owned(), ours });
        }
    }
    let sends_keys = shared["files"][ENCRYPTION_FILE].is_string();
    match (&settings.datastore.at_rest, sends_keys) {
        (AtRest::GivenKeys(_), true) => return Err(JoinError::OwnKeys),
        (AtRest::OwnKeys(_) | AtRest::Plain, false) => return Err(JoinError::GivenKeys),
        _ => {}
    }
    let names = membership::shared_files(sends_keys);
    Ok(names.map(|name| Some((name, shared["files"][name].as_str()?))).collect())
}

/// The place that this server has joined at; its own id is the view's.
pub fn read_place(data_dir: &Path) -> Option<ClusterView> {
    peers::inquiry::parse_view(&std::fs::read(data_dir.join(PLACE_FILE)).ok()?)
}

/// `holdfast member ...`.
pub fn run_member(place: &PlaceArgs, command: &MemberCommand) -> CommandResult {
    let done: CommandResult = crate::block_on(async {
        let client = crate::status::connect(place).await?;
        let request = match command {
            MemberCommand::List => http::Request::get(MEMBERS_PATH),
            MemberCommand::Remove { id } => http::Request::post(format!("{REMOVE_PATH}?id={id}")),
        };
        let answer: Value = serde_json::from_str(&client.request_text(request.body(Vec::new())?).await?)?;
        for member in answer.as_array().into_iter().flatten() {
            let text = |key: &str| member[key].as_str().unwrap_or_default().to_owned();
            let role = match (member["isLeader"] == true, member["isLearner"] == true) {
                (true, _) => "leader",
                (_, true) => "learner",
                _ => "voter",
            };
            let url = member["peerURLs"][0].as_str().unwrap_or_default();
            println!("{}  {}  {role}  {url}", text("id"), text("name"));
        }
        Ok(())
    })?;
    done.map_err(crate::status::explain)
}

/// A server of the cluster that was found to be the token's.
struct Door<'a> {
    url: &'a str,
    client: kube::Client,
}

impl<'a> Door<'a> {
    async fn open(url: &'a str, token: &str) -> Result<Self, JoinError> {
        let (hash, secret) = crate::token::parse(token).ok_or(JoinError::Token)?;
        let failed = |source: Box<dyn std::error::Error + Send + Sync>| JoinError::Ask { url: url.to_owned(), source };
        let mut config = kube::Config::new(url.parse().map_err(|_| JoinError::Url { url: url.to_owned() })?);
        // Nothing is believed of this connection but what has the token's hash.
        config.accept_invalid_certs = true;
        let unchecked = kube::Client::try_from(config).map_err(|error| failed(error.into()))?;
        let request = http::Request::get("/cacerts").body(Vec::new()).map_err(|error| failed(error.into()))?;
        let ca_pem = unchecked.request_text(request).await.map_err(|error| failed(error.into()))?;
        if derive_ca_hash(&ca_pem) != hash {
            return Err(JoinError::OtherCluster { url: url.to_owned() });
        }
        let spec = RemoteSpec {
            server: url.to_owned(),
            ca_pem,
            credentials: Credentials::Token(secret.to_owned()),
            tls_server_name: Some("kubernetes".to_owned()),
        };
        let client = client::remote(&spec).await.map_err(|error| failed(error.into()))?;
        Ok(Self { url, client })
    }

    async fn ask(&self, request: http::request::Builder) -> Result<Value, JoinError> {
        let url = || self.url.to_owned();
        let request = request.body(Vec::new()).map_err(|error| JoinError::Ask { url: url(), source: error.into() })?;
        let answer = self.client.request_text(request).await.map_err(|error| match error {
            kube::Error::Api(status) => JoinError::Refused { url: url(), reason: status.message },
            other => JoinError::Ask { url: url(), source: other.into() },
        })?;
        serde_json::from_str(&answer).map_err(|_| self.not_understood())
    }

    fn not_understood(&self) -> JoinError {
        JoinError::Answer { url: self.url.to_owned() }
    }
}
