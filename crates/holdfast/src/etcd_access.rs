//! etcd's flags of access control: what tokens are, how long they last, and what a password's hash costs.

use std::time::Duration;

use clap::Args;
use etcd::{AccessSettings, JwtSettings};

use crate::cli::parse_duration;
use crate::etcd_listen::EtcdFlagsError;

/// bcrypt's bounds and etcd's default.
const COSTS: std::ops::RangeInclusive<u32> = 4..=31;
const COST: u32 = 10;

/// etcd's flags for users and their tokens.
#[derive(Debug, Clone, Args)]
pub struct AccessArgs {
    /// `simple`, or `jwt,sign-method=RS256,pub-key=FILE,priv-key=FILE,ttl=10m`.
    #[arg(long, default_value = "simple", env = "ETCD_AUTH_TOKEN")]
    auth_token: String,
    /// Seconds that a simple token lasts after its last use.
    #[arg(long, default_value_t = 300, env = "ETCD_AUTH_TOKEN_TTL")]
    auth_token_ttl: u32,
    /// Cost of bcrypt for passwords, 4 to 31.
    #[arg(long, default_value_t = COST, env = "ETCD_BCRYPT_COST")]
    bcrypt_cost: u32,
}

/// Reads the files that the flags name. `trusts_common_names`: clients are the users that their certificates name.
pub(crate) fn settings(args: &AccessArgs, trusts_common_names: bool) -> Result<AccessSettings, EtcdFlagsError> {
    if !COSTS.contains(&args.bcrypt_cost) {
        // As etcd does.
        tracing::warn!(given = args.bcrypt_cost, used = COST, "the cost of bcrypt is from 4 to 31");
    }
    Ok(AccessSettings {
        jwt: parse_token(&args.auth_token)?,
        token_time_to_live: Duration::from_secs(args.auth_token_ttl.max(1).into()),
        bcrypt_cost: if COSTS.contains(&args.bcrypt_cost) { args.bcrypt_cost } else { COST },
        trusts_common_names,
    })
}

fn parse_token(text: &str) -> Result<Option<JwtSettings>, EtcdFlagsError> {
    let bad = |reason| EtcdFlagsError::Value { flag: "--auth-token", value: text.to_owned(), reason };
    let mut parts = text.split(',');
    let mut jwt = match parts.next() {
        Some("simple") => return Ok(None),
        Some("jwt") => JwtSettings::default(),
        _ => return Err(bad("expected simple or jwt,sign-method=...")),
    };
    for part in parts {
        let (name, value) = part.split_once('=').ok_or_else(|| bad("expected NAME=VALUE after jwt"))?;
        let is_given = match name {
            "sign-method" => !std::mem::replace(&mut jwt.method, value.to_owned()).is_empty(),
            "ttl" => {
                let ttl = parse_duration(value).ok_or_else(|| bad("expected a duration such as 10m as ttl"))?;
                jwt.time_to_live.replace(ttl).is_some()
            }
            "pub-key" => jwt.public_key.replace(read(value)?).is_some(),
            "priv-key" => jwt.private_key.replace(read(value)?).is_some(),
            _ => {
                tracing::warn!(option = name, "--auth-token: jwt has no such option");
                false
            }
        };
        if is_given {
            return Err(bad("an option is given twice"));
        }
    }
    jwt.check().map_err(|error| EtcdFlagsError::Tokens(base::with_causes(&error)))?;
    Ok(Some(jwt))
}

fn read(file: &str) -> Result<Vec<u8>, EtcdFlagsError> {
    std::fs::read(file).map_err(|error| EtcdFlagsError::File { file: file.to_owned(), error: error.to_string() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_are_simple_or_signed() {
        assert!(parse_token("simple").unwrap().is_none());
        let secret = concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml");
        let jwt = parse_token(&format!("jwt,sign-method=HS256,ttl=10m,priv-key={secret}")).unwrap().unwrap();
        assert_eq!((jwt.method.as_str(), jwt.time_to_live), ("HS256", Some(Duration::from_secs(600))));
        for (text, reason) in [
            ("magic", "expected simple or jwt"),
            ("jwt,ttl", "expected NAME=VALUE"),
            ("jwt,ttl=soon", "expected a duration"),
            ("jwt,sign-method=ES256,sign-method=RS256", "given twice"),
            ("jwt,sign-method=ES256", "the method ES256 needs a priv-key"),
            ("jwt,priv-key=/nowhere/key.pem", "/nowhere/key.pem"),
        ] {
            let error = parse_token(text).unwrap_err();
            assert!(base::with_causes(&error).contains(reason), "{text}: {error}");
        }
    }
}
