//! Peer URLs: `http://HOST:PORT` or `https://HOST:PORT`, IPv6 addresses in brackets. Text in, parts out. Pure.

use std::fmt;

use crate::PeerError;

/// Where a member listens for the others.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct PeerUrl {
    pub secure: bool,
    /// A name or an address, without brackets.
    pub host: String,
    pub port: u16,
}

impl PeerUrl {
    /// Errors: another scheme, no port, a path.
    pub fn parse(text: &str) -> Result<Self, PeerError> {
        let bad = || PeerError::Url { url: text.to_owned() };
        let (scheme, rest) = text.split_once("://").ok_or_else(bad)?;
        let secure = match scheme {
            "http" => false,
            "https" => true,
            _ => return Err(bad()),
        };
        let authority = rest.strip_suffix('/').unwrap_or(rest);
        let (host, port) = authority.rsplit_once(':').ok_or_else(bad)?;
        let port = port.parse().map_err(|_| bad())?;
        let bracketed = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
        let host = bracketed.unwrap_or(host);
        let is_odd = host.contains(['/', '[', ']', '@']) || (bracketed.is_none() && host.contains(':'));
        if host.is_empty() || is_odd {
            return Err(bad());
        }
        Ok(Self { secure, host: host.to_owned(), port })
    }
}

impl fmt::Display for PeerUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = if self.secure { "https" } else { "http" };
        let (open, close) = if self.host.contains(':') { ("[", "]") } else { ("", "") };
        write!(f, "{scheme}://{open}{}{close}:{}", self.host, self.port)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls() {
        let check = |text: &str, expect: Option<(bool, &str, u16)>| {
            let parsed = PeerUrl::parse(text).ok();
            assert_eq!(parsed.as_ref().map(|url| (url.secure, url.host.as_str(), url.port)), expect, "{text}");
        };
        check("http://127.0.0.1:2380", Some((false, "127.0.0.1", 2380)));
        check("https://m1.example:2380/", Some((true, "m1.example", 2380)));
        check("http://[::1]:12380", Some((false, "::1", 12380)));
        for bad in
            ["127.0.0.1:2380", "http://a", "ftp://a:1", "http://::1:1", "http://a:1/b", "http://:1", "http://a:x"]
        {
            check(bad, None);
        }
        assert_eq!(PeerUrl::parse("http://[::1]:1").unwrap().to_string(), "http://[::1]:1");
    }
}
