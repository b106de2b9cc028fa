//! Tokens as signed JSON (`--auth-token jwt,...`, [`tls::jws`]), with etcd's claims `username`, `revision` and `exp`.
//!
//! Invariant: the configured algorithm alone is accepted. A member with the public key alone checks tokens and makes none. A token is of the rules of its revision: once they change, its user must ask for another.

use std::sync::Arc;
use std::time::Duration;

use aws_lc_rs::error::KeyRejected;
use base::{Clock, SystemClock};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, SubjectPublicKeyInfoDer};
use serde_json::{Value, json};
use tls::jws::{Algorithm, SigningKey, Token, VerifyingKey};
use x509_parser::prelude::{FromDer as _, X509Certificate};

/// etcd's default.
const TIME_TO_LIVE: Duration = Duration::from_secs(300);

/// What `--auth-token jwt,...` says, its files read.
#[derive(Debug, Clone, Default)]
pub struct JwtSettings {
    /// Name of the algorithm: RS256, PS384, ES512, HS256, EdDSA and the like.
    pub method: String,
    /// PEM; of HS256 and the like the secret itself.
    pub private_key: Option<Vec<u8>>,
    /// PEM, of the key (`PUBLIC KEY`) or of a certificate. Only this: tokens are checked and not made.
    pub public_key: Option<Vec<u8>>,
    /// `None`: five minutes.
    pub time_to_live: Option<Duration>,
}

impl JwtSettings {
    /// That tokens can be made or checked with it.
    pub fn check(&self) -> Result<(), JwtSettingsError> {
        JwtTokens::new(self, Arc::new(SystemClock::new())).map(|_| ())
    }
}

/// Why no tokens can be made or checked.
#[derive(Debug, thiserror::Error)]
pub enum JwtSettingsError {
    #[error(
        "sign-method {0:?} is none of RS256, RS384, RS512, PS256, PS384, PS512, ES256, ES384, ES512, HS256, HS384, HS512, EdDSA"
    )]
    Method(String),
    #[error("the method {0} needs a priv-key, or a pub-key to check tokens alone")]
    NoKey(String),
    #[error("the {which} is no PEM of a key")]
    Pem {
        which: &'static str,
        #[source]
        source: rustls::pki_types::pem::Error,
    },
    #[error("the priv-key is no key for the method {method}: {source}")]
    Private { method: String, source: KeyRejected },
    #[error("the pub-key is not the one of the priv-key")]
    Mismatch,
}

/// Makes and checks tokens.
pub(crate) struct JwtTokens {
    clock: Arc<dyn Clock>,
    algorithm: Algorithm,
    signing: Option<SigningKey>,
    verifying: VerifyingKey,
    time_to_live: Duration,
}

/// The claims of a valid token.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Claims {
    pub(crate) user: String,
    pub(crate) revision: u64,
}

impl JwtTokens {
    pub(crate) fn new(settings: &JwtSettings, clock: Arc<dyn Clock>) -> Result<Self, JwtSettingsError> {
        let name = &settings.method;
        let algorithm = Algorithm::named(name).ok_or_else(|| JwtSettingsError::Method(name.clone()))?;
        let time_to_live = settings.time_to_live.unwrap_or(TIME_TO_LIVE);
        let private = settings.private_key.as_deref().filter(|key| !key.is_empty());
        let signing = private.map(|key| parse_private(algorithm, key)).transpose()?;
        let public = settings.public_key.as_deref().filter(|_| !algorithm.is_of_secrets());
        let given = public.map(parse_public).transpose()?.map(|key| VerifyingKey::of_public(algorithm, key));
        let own = signing.as_ref().map(SigningKey::verifying);
        let verifying = given.or(own).ok_or_else(|| JwtSettingsError::NoKey(name.clone()))?;
        let tokens = Self { clock, algorithm, signing, verifying, time_to_live };
        // Keys of one pair understand each other.
        let probe = tokens.assign("", 0);
        let is_foreign = |probe: Token<'_>| !tokens.verifying.has_signed(&probe);
        if probe.as_deref().and_then(Token::parse).is_some_and(is_foreign) {
            return Err(JwtSettingsError::Mismatch);
        }
        Ok(tokens)
    }

    /// A token for a user; `None`: this member has no key for making them.
    pub(crate) fn assign(&self, user: &str, revision: u64) -> Option<String> {
        let signing = self.signing.as_ref()?;
        let expires = self.now_seconds() + self.time_to_live.as_secs() as i64;
        let header = json!({"alg": self.algorithm.name(), "typ": "JWT"});
        let claims = json!({"username": user, "revision": revision, "exp": expires}).to_string();
        let signed = signing.sign(&header, claims.as_bytes());
        signed.inspect_err(|error| tracing::error!(%error, "a token was not signed")).ok()
    }

    /// The claims of a token, if it is valid.
    pub(crate) fn verify(&self, token: &str) -> Option<Claims> {
        let token = Token::parse(token).filter(|token| self.verifying.has_signed(token))?;
        let claims: Value = serde_json::from_slice(&token.claims).ok()?;
        let now = self.now_seconds() as f64;
        let time = |name: &str| claims.get(name).map(|time| time.as_f64().unwrap_or(f64::NAN));
        let is_now = time("exp").is_none_or(|end| now < end) && time("nbf").is_none_or(|start| now >= start);
        let (user, revision) = (claims["username"].as_str()?.to_owned(), claims["revision"].as_f64()? as u64);
        is_now.then_some(Claims { user, revision })
    }

    fn now_seconds(&self) -> i64 {
        self.clock.now().as_second()
    }
}

/// `key`: PEM, or the secret itself.
fn parse_private(algorithm: Algorithm, key: &[u8]) -> Result<SigningKey, JwtSettingsError> {
    let der = if algorithm.is_of_secrets() {
        PrivateKeyDer::Pkcs8(key.into())
    } else {
        PrivateKeyDer::from_pem_slice(key).map_err(|source| JwtSettingsError::Pem { which: "priv-key", source })?
    };
    let rejected = |source| JwtSettingsError::Private { method: algorithm.name().to_owned(), source };
    SigningKey::from_der(algorithm, &der).map_err(rejected)
}

/// A public key, or the one in a certificate.
fn parse_public(pem: &[u8]) -> Result<Vec<u8>, JwtSettingsError> {
    let in_certificate = || {
        let certificate = CertificateDer::from_pem_slice(pem).ok()?;
        let (_, certificate) = X509Certificate::from_der(&certificate).ok()?;
        Some(certificate.public_key().raw.to_vec())
    };
    match SubjectPublicKeyInfoDer::from_pem_slice(pem) {
        Ok(key) => Ok(key.as_ref().to_vec()),
        Err(source) => in_certificate().ok_or(JwtSettingsError::Pem { which: "pub-key", source }),
    }
}

#[cfg(test)]
mod tests {
    use aws_lc_rs::encoding::{AsDer as _, Pkcs8V1Der, PublicKeyX509Der};
    use aws_lc_rs::rsa;
    use aws_lc_rs::signature::{self as sign, EcdsaKeyPair, Ed25519KeyPair, KeyPair as _};
    use base::ManualClock;
    use base64::prelude::{BASE64_STANDARD, Engine as _};
    use jiff::Timestamp;

    use super::*;

    fn pem(label: &str, der: &[u8]) -> Option<Vec<u8>> {
        let text = BASE64_STANDARD.encode(der);
        Some(format!("-----BEGIN {label}-----\n{text}\n-----END {label}-----\n").into_bytes())
    }

    /// Private and public key, PEM.
    fn pairs(method: &str) -> (Option<Vec<u8>>, Option<Vec<u8>>) {
        let ecdsa = |algorithm| {
            let pair = EcdsaKeyPair::generate(algorithm).unwrap();
            let public: PublicKeyX509Der<'_> = pair.public_key().as_der().unwrap();
            (pem("PRIVATE KEY", pair.to_pkcs8v1().unwrap().as_ref()), pem("PUBLIC KEY", public.as_ref()))
        };
        match method {
            "HS512" => (Some(b"a secret".to_vec()), None),
            "ES256" => ecdsa(&sign::ECDSA_P256_SHA256_FIXED_SIGNING),
            "ES384" => ecdsa(&sign::ECDSA_P384_SHA384_FIXED_SIGNING),
            "ES512" => ecdsa(&sign::ECDSA_P521_SHA512_FIXED_SIGNING),
            "RS256" | "PS384" => {
                let pair = rsa::KeyPair::generate(rsa::KeySize::Rsa2048).unwrap();
                let private: Pkcs8V1Der<'_> = pair.as_der().unwrap();
                let public: PublicKeyX509Der<'_> = pair.public_key().as_der().unwrap();
                (pem("PRIVATE KEY", private.as_ref()), pem("PUBLIC KEY", public.as_ref()))
            }
            _ => {
                let pair = Ed25519KeyPair::generate().unwrap();
                let public: PublicKeyX509Der<'_> = pair.public_key().as_der().unwrap();
                (pem("PRIVATE KEY", pair.to_pkcs8v1().unwrap().as_ref()), pem("PUBLIC KEY", public.as_ref()))
            }
        }
    }

    fn clock() -> Arc<ManualClock> {
        Arc::new(ManualClock::new(Timestamp::UNIX_EPOCH + Duration::from_secs(1_000_000)))
    }

    #[test]
    fn tokens_of_every_method_are_made_and_checked() {
        for method in ["RS256", "PS384", "ES256", "ES384", "ES512", "HS512", "EdDSA"] {
            let clock = clock();
            let (private_key, public_key) = pairs(method);
            let both = JwtSettings { method: method.to_owned(), private_key, public_key, time_to_live: None };
            let tokens = JwtTokens::new(&both, clock.clone()).unwrap();
            let token = tokens.assign("ann", 7).unwrap();
            let claims = Some(Claims { user: "ann".to_owned(), revision: 7 });
            assert_eq!(tokens.verify(&token), claims, "{method}");
            if both.public_key.is_some() {
                let alone = JwtSettings { private_key: None, ..both.clone() };
                let checker = JwtTokens::new(&alone, clock.clone()).unwrap();
                assert_eq!((checker.verify(&token), checker.assign("ann", 7)), (claims, None), "{method}");
                let (_, other) = pairs(method);
                let mixed = JwtSettings { public_key: other, ..both };
                assert!(matches!(JwtTokens::new(&mixed, clock.clone()), Err(JwtSettingsError::Mismatch)), "{method}");
            }
            let (signed, _) = token.rsplit_once('.').unwrap();
            assert_eq!(tokens.verify(&format!("{signed}.AAAA")), None, "{method}");
            clock.advance(TIME_TO_LIVE);
            assert_eq!(tokens.verify(&token), None, "{method}");
        }
    }

    #[test]
    fn a_token_does_not_choose_its_method() {
        let secret = |method: &str| {
            let settings =
                JwtSettings { method: method.to_owned(), private_key: Some(b"s".to_vec()), ..JwtSettings::default() };
            JwtTokens::new(&settings, clock()).unwrap()
        };
        let token = secret("HS256").assign("ann", 1).unwrap();
        assert_eq!(secret("HS384").verify(&token), None);
        for rubbish in ["", "a", "a.b", "..", "a.b.c", "e30.e30."] {
            assert_eq!(secret("HS256").verify(rubbish), None, "{rubbish}");
        }
    }

    #[test]
    fn what_can_make_no_tokens_is_refused() {
        let refused = |method: &str, private_key: Option<Vec<u8>>| {
            let settings = JwtSettings { method: method.to_owned(), private_key, ..JwtSettings::default() };
            JwtTokens::new(&settings, clock()).err().unwrap().to_string()
        };
        assert!(refused("none", None).starts_with("sign-method \"none\" is none of RS256"));
        assert_eq!(refused("RS256", None), "the method RS256 needs a priv-key, or a pub-key to check tokens alone");
        assert_eq!(refused("ES256", Some(b"rubbish".to_vec())), "the priv-key is no PEM of a key");
        assert!(refused("RS256", pairs("ES256").0).starts_with("the priv-key is no key for the method RS256"));
    }
}
