//! Join tokens: Secrets in the form of kubeadm's bootstrap tokens, with a usage of their own. Text and objects in, decisions
//! out. Pure.
//!
//! A token is `ID.SECRET`; it lies in `kube-system/bootstrap-token-ID`, encrypted at rest like every Secret, so every server
//! knows it and it ends with its Secret or at its `expiration`.
//! Invariant: the secret is compared in constant time, and before anything else is told about the token.

use std::fmt;

use aws_lc_rs::constant_time::verify_slices_are_equal;
use base::Rng;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use jiff::Timestamp;
use serde_json::Value;

pub const NAMESPACE: &str = "kube-system";
pub const SECRET_TYPE: &str = "bootstrap.kubernetes.io/token";
/// Keys of the Secret's data.
pub const ID_KEY: &str = "token-id";
pub const SECRET_KEY: &str = "token-secret";
pub const EXPIRATION_KEY: &str = "expiration";
pub const DESCRIPTION_KEY: &str = "description";
/// `true` in the data of a token that lets a server join.
pub const USAGE_KEY: &str = "usage-holdfast-server";

const ID_CHARS: usize = 6;
const SECRET_CHARS: usize = 16;
const ALPHABET: &[u8; 36] = b"0123456789abcdefghijklmnopqrstuvwxyz";

/// `ID.SECRET`.
#[derive(Clone, PartialEq, Eq)]
pub struct JoinToken {
    pub id: String,
    pub secret: String,
}

/// Why a token opens nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// There is no such token, or its secret is another.
    Unknown,
    Expired,
}

impl JoinToken {
    pub fn generate(rng: &mut dyn Rng) -> Self {
        let mut text = |chars: usize| {
            (0..chars).map(|_| char::from(ALPHABET[rng.below(ALPHABET.len() as u64) as usize])).collect::<String>()
        };
        Self { id: text(ID_CHARS), secret: text(SECRET_CHARS) }
    }

    /// `None`: no text of this form.
    pub fn parse(text: &str) -> Option<Self> {
        let (id, secret) = text.split_once('.')?;
        let fits = |part: &str, chars: usize| part.len() == chars && part.bytes().all(|byte| ALPHABET.contains(&byte));
        let is_token = fits(id, ID_CHARS) && fits(secret, SECRET_CHARS);
        is_token.then(|| Self { id: id.to_owned(), secret: secret.to_owned() })
    }

    /// Of the Secret that holds it.
    pub fn object_name(&self) -> String {
        object_name(&self.id)
    }

    /// Whether it opens the way, as `stored` (the Secret of its name) says.
    pub fn check(&self, stored: Option<&Value>, now: Timestamp) -> Result<(), Refusal> {
        let data = |key: &str| STANDARD.decode(stored?["data"][key].as_str()?).ok();
        let is_right = stored.is_some_and(|stored| stored["type"] == SECRET_TYPE)
            && data(USAGE_KEY).as_deref() == Some(b"true")
            && data(ID_KEY).as_deref() == Some(self.id.as_bytes())
            && data(SECRET_KEY).is_some_and(|secret| verify_slices_are_equal(&secret, self.secret.as_bytes()).is_ok());
        if !is_right {
            return Err(Refusal::Unknown);
        }
        // An end that can't be read has come.
        match data(EXPIRATION_KEY).map(|text| String::from_utf8_lossy(&text).parse::<Timestamp>()) {
            None => Ok(()),
            Some(Ok(end)) if now < end => Ok(()),
            Some(_) => Err(Refusal::Expired),
        }
    }
}

impl fmt::Display for JoinToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.id, self.secret)
    }
}

/// Of the Secret that holds the token of this id.
pub fn object_name(id: &str) -> String {
    format!("bootstrap-token-{id}")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn stored(secret: &str, expiration: Option<&str>) -> Value {
        let encode = |text: &str| STANDARD.encode(text);
        let mut data = json!({
            ID_KEY: encode("abcdef"), SECRET_KEY: encode(secret), USAGE_KEY: encode("true"),
        });
        if let Some(end) = expiration {
            data[EXPIRATION_KEY] = encode(end).into();
        }
        json!({"type": SECRET_TYPE, "data": data})
    }

    #[test]
    fn a_token_opens_the_way_until_it_ends() {
        let token = JoinToken::parse("abcdef.0123456789abcdef").unwrap();
        let now: Timestamp = "2026-11-28T12:00:00Z".parse().unwrap();
        let check = |stored: Option<Value>, expect| assert_eq!(token.check(stored.as_ref(), now), expect);
        let right = "0123456789abcdef";
        check(Some(stored(right, None)), Ok(()));
        check(Some(stored(right, Some("2026-11-28T12:00:01Z"))), Ok(()));
        check(Some(stored(right, Some("2026-11-28T12:00:00Z"))), Err(Refusal::Expired));
        check(Some(stored(right, Some("tomorrow"))), Err(Refusal::Expired));
        check(None, Err(Refusal::Unknown));
        // Whoever does not know the secret learns nothing of the end.
        check(Some(stored("0123456789abcdeg", Some("2026-11-28T12:00:00Z"))), Err(Refusal::Unknown));
        let mut other_usage = stored(right, None);
        other_usage["data"][USAGE_KEY] = STANDARD.encode("false").into();
        check(Some(other_usage), Err(Refusal::Unknown));
        let mut other_type = stored(right, None);
        other_type["type"] = "Opaque".into();
        check(Some(other_type), Err(Refusal::Unknown));
    }

    #[test]
    fn texts_of_tokens() {
        let token = JoinToken::generate(&mut base::SeededRng::new(1));
        assert_eq!(JoinToken::parse(&token.to_string()).map(|token| token.to_string()), Some(token.to_string()));
        for bad in
            ["", "abcdef", "abcdef.", "abcdef.0123456789abcdeF", "abcde.0123456789abcdef", "../../.0123456789abcdef"]
        {
            assert!(JoinToken::parse(bad).is_none(), "{bad}");
        }
    }
}
