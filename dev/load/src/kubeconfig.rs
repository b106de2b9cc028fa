//! A kubeconfig to the one [`Target`] of its current context: address, authority, credentials.
//!
//! It takes certificates inline or as files, and a token inline or as a file. It runs no credential plug-in and skips no verification:
//! what needs either is refused by name.

use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;

/// A server and who to be there; certificates and key in PEM.
#[derive(Debug, PartialEq)]
pub struct Target {
    /// Name or address, without brackets.
    pub host: String,
    pub port: u16,
    pub authority: Vec<u8>,
    pub certificate: Option<ClientCertificate>,
    pub token: Option<String>,
}

/// In PEM.
#[derive(Debug, PartialEq)]
pub struct ClientCertificate {
    pub chain: Vec<u8>,
    pub key: Vec<u8>,
}

#[derive(Debug, thiserror::Error)]
pub enum KubeconfigError {
    #[error("cannot read {path}: {source}")]
    Read {
        path: String,
        #[source]
        source: std::io::Error,
    },
    #[error("the kubeconfig is no kubeconfig: {0}")]
    Parse(String),
    #[error("the kubeconfig names {what} {name:?} but has none of that name")]
    Missing { what: &'static str, name: String },
    #[error("the kubeconfig's server {0:?} is no https address")]
    Server(String),
    #[error("the kubeconfig has no {0}")]
    Without(&'static str),
    #[error("{0} in a kubeconfig is not supported here; use a client certificate or a token")]
    Unsupported(&'static str),
    #[error("{field} is not base64: {source}")]
    Base64 {
        field: &'static str,
        #[source]
        source: base64::DecodeError,
    },
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Config {
    #[serde(default)]
    current_context: String,
    #[serde(default)]
    clusters: Vec<NamedCluster>,
    #[serde(default)]
    users: Vec<NamedUser>,
    #[serde(default)]
    contexts: Vec<NamedContext>,
}

#[derive(Deserialize)]
struct NamedCluster {
    name: String,
    cluster: Cluster,
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Cluster {
    server: String,
    certificate_authority: Option<String>,
    certificate_authority_data: Option<String>,
    #[serde(default)]
    insecure_skip_tls_verify: bool,
}

#[derive(Deserialize)]
struct NamedUser {
    name: String,
    user: User,
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct User {
    client_certificate: Option<String>,
    client_certificate_data: Option<String>,
    client_key: Option<String>,
    client_key_data: Option<String>,
    token: Option<String>,
    #[serde(rename = "tokenFile")]
    token_file: Option<String>,
    exec: Option<serde_json::Value>,
}

#[derive(Deserialize)]
struct NamedContext {
    name: String,
    context: Context,
}

#[derive(Deserialize)]
struct Context {
    cluster: String,
    user: String,
}

/// Reads a kubeconfig and the files it names, those relative to its own folder.
pub fn read(path: &Path) -> Result<Target, KubeconfigError> {
    let folder = path.parent().unwrap_or(Path::new("."));
    let read = |file: &str| {
        let file = folder.join(file);
        std::fs::read(&file)
            .map_err(|source| KubeconfigError::Read { path: file.to_string_lossy().into_owned(), source })
    };
    let text = std::fs::read_to_string(path)
        .map_err(|source| KubeconfigError::Read { path: path.to_string_lossy().into_owned(), source })?;
    parse_kubeconfig(&text, &read)
}

/// Reads a file that the kubeconfig names.
type ReadFile<'a> = &'a dyn Fn(&str) -> Result<Vec<u8>, KubeconfigError>;

fn parse_kubeconfig(text: &str, read: ReadFile<'_>) -> Result<Target, KubeconfigError> {
    let config: Config = serde_saphyr::from_str(text).map_err(|e| KubeconfigError::Parse(e.to_string()))?;
    let missing = |what, name: &str| KubeconfigError::Missing { what, name: name.to_owned() };
    let current = &config.current_context;
    let context = &config
        .contexts
        .iter()
        .find(|c| c.name == *current)
        .ok_or_else(|| missing("the current context", current))?
        .context;
    let cluster = &config
        .clusters
        .iter()
        .find(|c| c.name == context.cluster)
        .ok_or_else(|| missing("the cluster", &context.cluster))?
        .cluster;
    let user =
        &config.users.iter().find(|u| u.name == context.user).ok_or_else(|| missing("the user", &context.user))?.user;
    if cluster.insecure_skip_tls_verify {
        return Err(KubeconfigError::Unsupported("insecure-skip-tls-verify"));
    }
    if user.exec.is_some() {
        return Err(KubeconfigError::Unsupported("exec"));
    }
    let (host, port) = parse_server(&cluster.server)?;
    let authority = inline_or_file(
        "certificate-authority-data",
        &cluster.certificate_authority_data,
        &cluster.certificate_authority,
        read,
    )?
    .ok_or(KubeconfigError::Without("certificate-authority"))?;
    Ok(Target { host, port, authority, certificate: certificate_of(user, read)?, token: token_of(user, read)? })
}

fn certificate_of(user: &User, read: ReadFile<'_>) -> Result<Option<ClientCertificate>, KubeconfigError> {
    let chain =
        inline_or_file("client-certificate-data", &user.client_certificate_data, &user.client_certificate, read)?;
    let key = inline_or_file("client-key-data", &user.client_key_data, &user.client_key, read)?;
    match (chain, key) {
        (Some(chain), Some(key)) => Ok(Some(ClientCertificate { chain, key })),
        (Some(_), None) => Err(KubeconfigError::Without("client-key for its client-certificate")),
        (None, _) => Ok(None),
    }
}

fn token_of(user: &User, read: ReadFile<'_>) -> Result<Option<String>, KubeconfigError> {
    if let Some(token) = &user.token {
        return Ok(Some(token.clone()));
    }
    let Some(file) = &user.token_file else { return Ok(None) };
    Ok(Some(String::from_utf8_lossy(&read(file)?).trim().to_owned()))
}

/// What stands inline wins, as in kubectl.
fn inline_or_file(
    field: &'static str,
    inline: &Option<String>,
    file: &Option<String>,
    read: ReadFile<'_>,
) -> Result<Option<Vec<u8>>, KubeconfigError> {
    match (inline, file) {
        (Some(text), _) => {
            STANDARD.decode(text.trim()).map(Some).map_err(|source| KubeconfigError::Base64 { field, source })
        }
        (None, Some(file)) => read(file).map(Some),
        (None, None) => Ok(None),
    }
}

fn parse_server(server: &str) -> Result<(String, u16), KubeconfigError> {
    let refusal = || KubeconfigError::Server(server.to_owned());
    let uri: hyper::Uri = server.parse().map_err(|_| refusal())?;
    let host = uri.host().filter(|_| uri.scheme_str() == Some("https")).ok_or_else(refusal)?;
    Ok((host.trim_matches(['[', ']']).to_owned(), uri.port_u16().unwrap_or(443)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Target, KubeconfigError> {
        parse_kubeconfig(text, &|file| Ok(format!("file {file}").into_bytes()))
    }

    fn config(cluster: &str, user: &str) -> String {
        format!(
            "{{current-context: c, contexts: [{{name: c, context: {{cluster: k, user: u}}}}], \
             clusters: [{{name: other, cluster: {{server: 'https://no'}}}}, {{name: k, cluster: {{{cluster}}}}}], users: [{{name: u, user: {{{user}}}}}]}}"
        )
    }

    #[test]
    fn inline_certificates() {
        let text = config(
            "server: 'https://10.0.0.1:6443', certificate-authority-data: Y2E=",
            "client-certificate-data: Y3J0, client-key-data: a2V5",
        );
        let want = Target {
            host: "10.0.0.1".into(),
            port: 6443,
            authority: b"ca".to_vec(),
            certificate: Some(ClientCertificate { chain: b"crt".to_vec(), key: b"key".to_vec() }),
            token: None,
        };
        assert_eq!(parse(&text).unwrap(), want);
    }

    #[test]
    fn files_and_a_token() {
        let text = config("server: 'https://[::1]', certificate-authority: ca.crt", "tokenFile: t");
        let want = Target {
            host: "::1".into(),
            port: 443,
            authority: b"file ca.crt".to_vec(),
            certificate: None,
            token: Some("file t".into()),
        };
        assert_eq!(parse(&text).unwrap(), want);
    }

    #[test]
    fn what_cannot_be_used_is_named() {
        let cluster = "server: 'https://a', certificate-authority-data: Y2E=";
        for (text, names) in [
            ("[]".to_owned(), "no kubeconfig"),
            ("{current-context: x}".to_owned(), "current context \"x\""),
            (config("server: 'http://a', certificate-authority-data: Y2E=", ""), "no https"),
            (config("server: 'https://a'", ""), "certificate-authority"),
            (config("server: 'https://a', insecure-skip-tls-verify: true", ""), "insecure-skip-tls-verify"),
            (config("server: 'https://a', certificate-authority-data: '%'", ""), "not base64"),
            (config(cluster, "exec: {command: x}"), "exec"),
            (config(cluster, "client-certificate-data: Y3J0"), "client-key"),
        ] {
            let refusal = parse(&text).unwrap_err().to_string();
            assert!(refusal.contains(names), "{text}: {refusal}");
        }
    }
}
