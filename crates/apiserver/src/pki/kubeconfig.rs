//! Kubeconfig files with everything embedded.
//!
//! In: a server URL, a CA, a credential. Out: YAML text that kubectl and client-go read; no path in it points anywhere.

use base64::prelude::{BASE64_STANDARD, Engine};

use super::Credential;

/// One cluster, one user, one context.
pub struct Access<'a> {
    /// Name of the context and of the cluster.
    pub context: &'a str,
    pub user: &'a str,
    /// `https://host:port`.
    pub server: &'a str,
    pub ca_pem: &'a str,
    pub credential: &'a Credential,
}

/// Renders the kubeconfig. Names and the URL are written as JSON strings, which YAML takes as they are.
pub fn render(access: &Access<'_>) -> String {
    let quoted = |text: &str| serde_json::Value::from(text).to_string();
    format!(
        "apiVersion: v1\n\
         kind: Config\n\
         clusters:\n\
         - name: {context}\n  cluster:\n    server: {server}\n    certificate-authority-data: {ca}\n\
         users:\n\
         - name: {user}\n  user:\n    client-certificate-data: {certificate}\n    client-key-data: {key}\n\
         contexts:\n\
         - name: {context}\n  context:\n    cluster: {context}\n    user: {user}\n\
         current-context: {context}\n",
        context = quoted(access.context),
        user = quoted(access.user),
        server = quoted(access.server),
        ca = BASE64_STANDARD.encode(access.ca_pem),
        certificate = BASE64_STANDARD.encode(&access.credential.certificate_pem),
        key = BASE64_STANDARD.encode(&access.credential.key_pem),
    )
}
