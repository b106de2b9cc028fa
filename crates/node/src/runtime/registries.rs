//! Image mirrors in k3s' format. Input: the text of registries.yaml. Output: containerd's `hosts.toml` per registry.
//!
//! Invariant: every registry named under `mirrors` or `configs` gets one file; a wildcard `*` becomes `_default`.
//! Credentials go into a header of the host entry, since containerd's config_path mode reads none elsewhere.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use base64::Engine as _;
use serde::Deserialize;

#[derive(Debug, thiserror::Error)]
pub enum RegistriesError {
    #[error("not valid YAML of the k3s registries format")]
    Parse(#[from] serde_saphyr::Error),
}

#[derive(Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(default, rename_all = "snake_case")]
pub struct Registries {
    pub mirrors: BTreeMap<String, Mirror>,
    pub configs: BTreeMap<String, RegistryConfig>,
}

#[derive(Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(default)]
pub struct Mirror {
    /// Tried in order, before the registry itself.
    #[serde(alias = "endpoints")]
    pub endpoint: Vec<String>,
    /// Regular expression -> replacement, on the repository's name.
    pub rewrite: BTreeMap<String, String>,
}

#[derive(Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(default)]
pub struct RegistryConfig {
    pub auth: Option<Auth>,
    pub tls: Option<Tls>,
}

#[derive(Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(default)]
pub struct Auth {
    pub username: String,
    pub password: String,
    /// base64 of `user:password`.
    pub auth: String,
    pub identity_token: String,
}

#[derive(Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(default)]
pub struct Tls {
    pub ca_file: String,
    pub cert_file: String,
    pub key_file: String,
    pub insecure_skip_verify: bool,
}

/// An empty text is an empty file.
pub fn parse_registries(text: &str) -> Result<Registries, RegistriesError> {
    if text.trim().is_empty() {
        return Ok(Registries::default());
    }
    Ok(serde_saphyr::from_str::<Registries>(text)?)
}

/// (directory name under config_path, text of hosts.toml).
pub fn derive_hosts_files(registries: &Registries) -> Vec<(String, String)> {
    let names = registries.mirrors.keys().chain(registries.configs.keys());
    let names = names.collect::<std::collections::BTreeSet<_>>();
    names.into_iter().map(|name| (directory_of(name), derive_hosts_toml(registries, name))).collect()
}

fn directory_of(registry: &str) -> String {
    if registry == "*" { "_default".to_owned() } else { registry.replace('/', "_") }
}

fn quote(text: &str) -> String {
    serde_json::Value::String(text.to_owned()).to_string()
}

fn derive_hosts_toml(registries: &Registries, registry: &str) -> String {
    let mut out = String::new();
    let server = server_url(registry);
    if let Some(server) = &server {
        line(&mut out, &format!("server = {}", quote(server)));
    }
    let empty = Mirror::default();
    let mirror = registries.mirrors.get(registry).unwrap_or(&empty);
    for endpoint in &mirror.endpoint {
        write_host(&mut out, endpoint, &mirror.rewrite, config_for(registries, endpoint));
    }
    // The registry itself, last, with its own credentials.
    if let (Some(server), Some(config)) = (server, registries.configs.get(registry)) {
        write_host(&mut out, &server, &BTreeMap::new(), Some(config));
    }
    out
}

fn server_url(registry: &str) -> Option<String> {
    match registry {
        "*" => None,
        "docker.io" => Some("https://registry-1.docker.io".to_owned()),
        name => Some(format!("https://{name}")),
    }
}

fn config_for<'a>(registries: &'a Registries, endpoint: &str) -> Option<&'a RegistryConfig> {
    let host = endpoint.split_once("://").map_or(endpoint, |(_, rest)| rest);
    let host = host.split('/').next().unwrap_or(host);
    registries.configs.get(host).or_else(|| registries.configs.get(endpoint))
}

fn write_host(out: &mut String, url: &str, rewrite: &BTreeMap<String, String>, config: Option<&RegistryConfig>) {
    let table = format!("host.{}", quote(url));
    line(out, "");
    line(out, &format!("[{table}]"));
    line(out, "  capabilities = [\"pull\", \"resolve\"]");
    if let Some(tls) = config.and_then(|c| c.tls.as_ref()) {
        write_tls(out, tls);
    }
    if let Some(value) = config.and_then(|c| c.auth.as_ref()).and_then(authorization) {
        line(out, &format!("  [{table}.header]\n    Authorization = {}", quote(&value)));
    }
    if !rewrite.is_empty() {
        line(out, &format!("  [{table}.rewrite]"));
        for (pattern, replacement) in rewrite {
            line(out, &format!("    {} = {}", quote(pattern), quote(replacement)));
        }
    }
}

fn write_tls(out: &mut String, tls: &Tls) {
    if tls.insecure_skip_verify {
        line(out, "  skip_verify = true");
    }
    if !tls.ca_file.is_empty() {
        line(out, &format!("  ca = [{}]", quote(&tls.ca_file)));
    }
    if !tls.cert_file.is_empty() {
        line(out, &format!("  client = [[{}, {}]]", quote(&tls.cert_file), quote(&tls.key_file)));
    }
}

fn authorization(auth: &Auth) -> Option<String> {
    if !auth.auth.is_empty() {
        return Some(format!("Basic {}", auth.auth));
    }
    if !auth.username.is_empty() {
        let pair = format!("{}:{}", auth.username, auth.password);
        return Some(format!("Basic {}", base64::engine::general_purpose::STANDARD.encode(pair)));
    }
    (!auth.identity_token.is_empty()).then(|| format!("Bearer {}", auth.identity_token))
}

fn line(out: &mut String, text: &str) {
    // Writing to a String cannot fail.
    if writeln!(out, "{text}").is_err() {
        out.push('\n');
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(yaml: &str, expect: &[(&str, &str)]) {
        let registries = parse_registries(yaml).unwrap();
        let files = derive_hosts_files(&registries);
        let got = files.iter().map(|(a, b)| (a.as_str(), b.as_str())).collect::<Vec<_>>();
        assert_eq!(got, expect);
    }

    #[test]
    fn mirrors_rewrites_and_credentials() {
        check(
            "mirrors:\n  docker.io:\n    endpoint: [\"https://m.example:5000\"]\n    rewrite:\n      \"^library/(.*)\": \"hub/$1\"\nconfigs:\n  \"m.example:5000\":\n    auth: {username: u, password: p}\n    tls: {insecure_skip_verify: true}\n",
            &[
                (
                    "docker.io",
                    "server = \"https://registry-1.docker.io\"\n\n[host.\"https://m.example:5000\"]\n  capabilities = [\"pull\", \"resolve\"]\n  skip_verify = true\n  [host.\"https://m.example:5000\".header]\n    Authorization = \"Basic dTpw\"\n  [host.\"https://m.example:5000\".rewrite]\n    \"^library/(.*)\" = \"hub/$1\"\n",
                ),
                (
                    "m.example:5000",
                    "server = \"https://m.example:5000\"\n\n[host.\"https://m.example:5000\"]\n  capabilities = [\"pull\", \"resolve\"]\n  skip_verify = true\n  [host.\"https://m.example:5000\".header]\n    Authorization = \"Basic dTpw\"\n",
                ),
            ],
        );
        check(
            "mirrors:\n  \"*\":\n    endpoint: [\"http://all:5000\"]\n",
            &[("_default", "\n[host.\"http://all:5000\"]\n  capabilities = [\"pull\", \"resolve\"]\n")],
        );
        check("", &[]);
    }

    #[test]
    fn broken_yaml_is_an_error() {
        assert!(parse_registries("mirrors: [1, 2").is_err());
    }
}
