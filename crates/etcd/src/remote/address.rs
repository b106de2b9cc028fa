//! Where an outside etcd is: the text that a user writes in, the list of its servers out. Pure.

use std::fmt;

/// etcd's own port for clients.
const DEFAULT_PORT: u16 = 2379;

/// The servers of one etcd cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Addresses {
    /// They speak TLS.
    pub secure: bool,
    /// As written, at least one.
    pub servers: Vec<Address>,
}

/// One server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Address {
    /// A name or an address, an IPv6 address without brackets.
    pub host: String,
    pub port: u16,
}

/// Why the text names no etcd.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AddressError {
    #[error(
        "{given} is no etcd; give etcd://HOST:PORT[,HOST:PORT...], or etcds:// for TLS (other databases are not spoken)"
    )]
    Scheme { given: String },
    #[error("{server:?} in {given} is no HOST:PORT")]
    Server { given: String, server: String },
    #[error("{given} names servers with TLS and without; an etcd cluster is all etcds:// or all etcd://")]
    Mixed { given: String },
}

impl Addresses {
    /// Parses `SCHEME://HOST[:PORT][,[SCHEME://]HOST[:PORT]]...`. Schemes: `etcd` and `http` without TLS, `etcds` and `https`
    /// with it.
    pub fn parse(text: &str) -> Result<Self, AddressError> {
        let given = || text.to_owned();
        let mut secure = None;
        let mut servers = Vec::new();
        for part in text.split(',').map(str::trim) {
            let server = match part.split_once("://") {
                Some((scheme, server)) => {
                    let said = is_secure(scheme).ok_or_else(|| AddressError::Scheme { given: given() })?;
                    if *secure.get_or_insert(said) != said {
                        return Err(AddressError::Mixed { given: given() });
                    }
                    server
                }
                None if secure.is_none() => return Err(AddressError::Scheme { given: given() }),
                None => part,
            };
            let server = server.trim_end_matches('/');
            let bad = || AddressError::Server { given: given(), server: server.to_owned() };
            servers.push(parse_server(server).ok_or_else(bad)?);
        }
        let secure = secure.ok_or_else(|| AddressError::Scheme { given: given() })?;
        Ok(Self { secure, servers })
    }
}

impl fmt::Display for Addresses {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.secure { "etcds://" } else { "etcd://" })?;
        for (nth, server) in self.servers.iter().enumerate() {
            write!(f, "{}{server}", if nth == 0 { "" } else { "," })?;
        }
        Ok(())
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}

fn is_secure(scheme: &str) -> Option<bool> {
    match scheme {
        "etcd" | "http" => Some(false),
        "etcds" | "https" => Some(true),
        _ => None,
    }
}

fn parse_server(text: &str) -> Option<Address> {
    let (host, port) = match text.strip_prefix('[') {
        Some(rest) => {
            let (host, port) = rest.split_once(']')?;
            host.parse::<std::net::Ipv6Addr>().ok()?;
            (host, port.strip_prefix(':').or(port.is_empty().then_some(""))?)
        }
        None => text.split_once(':').unwrap_or((text, "")),
    };
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_' | ':');
    if host.is_empty() || !host.chars().all(plain) {
        return None;
    }
    let port = if port.is_empty() { DEFAULT_PORT } else { port.parse().ok()? };
    Some(Address { host: host.to_owned(), port })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, expect: &str) {
        let shown = Addresses::parse(text).map_or_else(|error| error.to_string(), |parsed| parsed.to_string());
        assert_eq!(shown, expect, "{text}");
    }

    #[test]
    fn lists_of_servers() {
        check("etcd://a:1", "etcd://a:1");
        check("http://10.0.0.1:2379/", "etcd://10.0.0.1:2379");
        check("etcds://a,b:1,[fd00::1]:3,[::1]", "etcds://a:2379,b:1,[fd00::1]:3,[::1]:2379");
        check("https://a:1,https://b:2", "etcds://a:1,b:2");
    }

    #[test]
    fn what_is_none() {
        let scheme = |text: &str| {
            format!(
                "{text} is no etcd; give etcd://HOST:PORT[,HOST:PORT...], or etcds:// for TLS (other databases are not spoken)"
            )
        };
        for text in ["", "a:1", "mysql://root@tcp(a:1)/", "postgres://u:p@h/db", "sqlite://f"] {
            check(text, &scheme(text));
        }
        check(
            "etcd://a,https://b",
            "etcd://a,https://b names servers with TLS and without; an etcd cluster is all etcds:// or all etcd://",
        );
        for (text, server) in [
            ("etcd://", ""),
            ("etcd://a:x", "a:x"),
            ("etcd://a:1,", ""),
            ("etcd://a:99999", "a:99999"),
            ("etcd://u:p@h:1", "u:p@h:1"),
            ("etcd://[::1]x", "[::1]x"),
            ("etcd://a/b", "a/b"),
        ] {
            check(text, &format!("{server:?} in {text} is no HOST:PORT"));
        }
    }
}
