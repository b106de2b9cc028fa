//! `holdfast token`: makes, lists and deletes the tokens that let another server join.
//!
//! Printed as `K10HASH::server:ID.SECRET`: the hash of the cluster's CA, so that a joiner knows the cluster before it shows the
//! secret. What a token is: [`apiserver::join::tokens`].

use std::collections::BTreeMap;
use std::time::Duration;

use apiserver::join::derive_ca_hash;
use apiserver::join::tokens::{
    DESCRIPTION_KEY, EXPIRATION_KEY, ID_KEY, JoinToken, NAMESPACE, SECRET_KEY, SECRET_TYPE, USAGE_KEY, object_name,
};
use base::{Clock as _, OsRng, SystemClock};
use k8s_openapi::api::core::v1::Secret;
use k8s_openapi::jiff::Timestamp;
use kube::Api;
use kube::api::{DeleteParams, ListParams, ObjectMeta, PostParams};
use kube::config::Kubeconfig;

use crate::CommandResult;
use crate::cli::{PlaceArgs, TokenCommand};

/// In front of the hash in a printed token, and between hash and secret.
const HASH_MARK: &str = "K10";
const ROLE_MARK: &str = "::server:";

/// `holdfast token ...`.
pub fn run(place: &PlaceArgs, command: &TokenCommand) -> CommandResult {
    let instead = "another server needs no token but the same --datastore and a copy of the directory pki";
    crate::datastore::refuse_outside(place, instead)?;
    let done = crate::block_on(async {
        let secrets: Api<Secret> = Api::namespaced(crate::status::connect(place).await?, NAMESPACE);
        match command {
            TokenCommand::Create { ttl, description } => create(place, &secrets, *ttl, description).await,
            TokenCommand::List => list(&secrets).await,
            TokenCommand::Delete { id } => delete(&secrets, id).await,
        }
    })?;
    done.map_err(crate::status::explain)
}

/// The CA's hash and the secret part of a printed token.
pub fn parse(token: &str) -> Option<(&str, &str)> {
    let (hash, secret) = token.strip_prefix(HASH_MARK)?.split_once(ROLE_MARK)?;
    (hash.len() == 64 && JoinToken::parse(secret).is_some()).then_some((hash, secret))
}

async fn create(place: &PlaceArgs, secrets: &Api<Secret>, ttl: Duration, description: &str) -> CommandResult {
    remove_expired(secrets).await?;
    let token = JoinToken::generate(&mut OsRng);
    let end = (!ttl.is_zero()).then(|| SystemClock::new().now() + ttl);
    secrets.create(&PostParams::default(), &secret_of(&token, end, description)).await?;
    let path = place.data_dir.join("pki/ca.crt");
    let ca = std::fs::read_to_string(&path).map_err(|error| format!("{}: {error}", path.display()))?;
    let kubeconfig = Kubeconfig::read_from(crate::up::admin_kubeconfig(&place.data_dir))?;
    let server = kubeconfig.clusters.first().and_then(|named| named.cluster.as_ref()?.server.clone());
    let server = server.ok_or("the administrator's kubeconfig names no server")?;
    println!("holdfast server --join {server} --token {HASH_MARK}{}{ROLE_MARK}{token}", derive_ca_hash(&ca));
    match end {
        Some(end) => eprintln!("the token ends at {}", in_seconds(end)),
        None => eprintln!("the token never ends; `holdfast token delete {}` ends it", token.id),
    }
    Ok(())
}

fn secret_of(token: &JoinToken, end: Option<Timestamp>, description: &str) -> Secret {
    let mut data = BTreeMap::from([
        (ID_KEY.to_owned(), token.id.clone()),
        (SECRET_KEY.to_owned(), token.secret.clone()),
        (USAGE_KEY.to_owned(), "true".to_owned()),
        (DESCRIPTION_KEY.to_owned(), description.to_owned()),
    ]);
    data.extend(end.map(|end| (EXPIRATION_KEY.to_owned(), in_seconds(end))));
    Secret {
        metadata: ObjectMeta { name: Some(token.object_name()), ..ObjectMeta::default() },
        type_: Some(SECRET_TYPE.to_owned()),
        string_data: Some(data),
        ..Secret::default()
    }
}

/// As kubeadm writes it: RFC 3339, whole seconds.
fn in_seconds(time: Timestamp) -> String {
    time.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

async fn list(secrets: &Api<Secret>) -> CommandResult {
    let now = SystemClock::new().now();
    for secret in find_tokens(secrets).await? {
        let text = |key: &str| {
            let value = secret.data.as_ref().and_then(|data| data.get(key));
            value.map(|value| String::from_utf8_lossy(&value.0).into_owned()).unwrap_or_default()
        };
        let state = match expiration(&secret) {
            Some(end) if end <= now => "expired",
            _ => "valid",
        };
        let end = Some(text(EXPIRATION_KEY)).filter(|end| !end.is_empty()).unwrap_or_else(|| "never".to_owned());
        println!("{}  {state}  ends {end}  {}", text(ID_KEY), text(DESCRIPTION_KEY));
    }
    Ok(())
}

/// `token`: its id, or all of it.
async fn delete(secrets: &Api<Secret>, token: &str) -> CommandResult {
    let id = parse(token).map_or(token, |(_, secret)| secret).split('.').next().unwrap_or_default();
    match secrets.delete(&object_name(id), &DeleteParams::default()).await {
        Err(kube::Error::Api(status)) if status.code == 404 => {
            Err(format!("there is no token {id:?}; `holdfast token list` shows those that are there").into())
        }
        deleted => {
            deleted?;
            println!("token {id} deleted");
            Ok(())
        }
    }
}

/// They open nothing any more.
async fn remove_expired(secrets: &Api<Secret>) -> Result<(), kube::Error> {
    let now = SystemClock::new().now();
    for secret in find_tokens(secrets).await? {
        if expiration(&secret).is_some_and(|end| end <= now) {
            let name = secret.metadata.name.unwrap_or_default();
            match secrets.delete(&name, &DeleteParams::default()).await {
                // Somebody else has done it.
                Err(kube::Error::Api(status)) if status.code == 404 => {}
                deleted => drop(deleted?),
            }
        }
    }
    Ok(())
}

async fn find_tokens(secrets: &Api<Secret>) -> Result<Vec<Secret>, kube::Error> {
    let found = secrets.list(&ListParams::default().fields(&format!("type={SECRET_TYPE}"))).await?;
    let is_ours = |secret: &Secret| secret.data.as_ref().is_some_and(|data| data.contains_key(USAGE_KEY));
    Ok(found.items.into_iter().filter(is_ours).collect())
}

fn expiration(secret: &Secret) -> Option<Timestamp> {
    std::str::from_utf8(&secret.data.as_ref()?.get(EXPIRATION_KEY)?.0).ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn printed_tokens() {
        let (hash, secret) = ("a".repeat(64), "abcdef.0123456789abcdef");
        assert_eq!(parse(&format!("K10{hash}::server:{secret}")), Some((hash.as_str(), secret)));
        for bad in ["", "K10abc::server:s", &format!("K10{hash}::server:x"), &format!("{hash}::server:{secret}")] {
            assert_eq!(parse(bad), None, "{bad}");
        }
    }

    #[test]
    fn a_secret_is_in_the_form_that_the_gate_reads() {
        let token = JoinToken::parse("abcdef.0123456789abcdef").unwrap();
        let end: Timestamp = "2026-11-28T12:00:00.7Z".parse().unwrap();
        let secret = secret_of(&token, Some(end), "for m2");
        assert_eq!(secret.metadata.name.as_deref(), Some("bootstrap-token-abcdef"));
        assert_eq!(secret.string_data.unwrap()[EXPIRATION_KEY], "2026-11-28T12:00:00Z");
        assert_eq!(secret_of(&token, None, "").string_data.unwrap().get(EXPIRATION_KEY), None);
    }
}
