//! Tokens as signed JSON (`--auth-token jwt,...`): RFC 7515 and 7518, with etcd's claims `username`, `revision` and `exp`.
//!
//! Invariant: the configured algorithm alone is accepted; nothing in a token chooses it. A member with the public key alone
//! checks tokens and makes none. A token is of the rules of its revision: once they change, its user must ask for another.

use std::sync::Arc;
use std::time::Duration;

use aws_lc_rs::error::{KeyRejected, Unspecified};
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{self as sign, EcdsaKeyPair, Ed25519KeyPair, KeyPair as _, UnparsedPublicKey};
use aws_lc_rs::{hmac, rsa};
use base::{Clock, SystemClock};
use base64::prelude::{BASE64_URL_SAFE_NO_PAD, Engine as _};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, SubjectPublicKeyInfoDer};
use serde_json::{Value, json};
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

enum Private {
    Secret,
    Rsa(rsa::KeyPair, &'static dyn sign::RsaEncoding),
    Ecdsa(EcdsaKeyPair),
    Ed25519(Ed25519KeyPair),
}

enum Public {
    Secret(Box<hmac::Key>),
    Key(&'static dyn sign::VerificationAlgorithm, Vec<u8>),
}

/// Makes and checks tokens.
pub(crate) struct JwtTokens {
    clock: Arc<dyn Clock>,
    method: String,
    private: Option<Private>,
    public: Public,
    time_to_live: Duration,
}

/// The claims of a valid token.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Claims {
    pub(crate) user: String,
    pub(crate) revision: u64,
}

/// The algorithm of a name.
enum Method {
    Hmac(hmac::Algorithm),
    Rsa(&'static dyn sign::RsaEncoding, &'static dyn sign::VerificationAlgorithm),
    Ecdsa(&'static sign::EcdsaSigningAlgorithm, &'static dyn sign::VerificationAlgorithm),
    Ed25519,
}

impl Method {
    fn parse(name: &str) -> Option<Self> {
        Some(match name {
            "HS256" => Self::Hmac(hmac::HMAC_SHA256),
            "HS384" => Self::Hmac(hmac::HMAC_SHA384),
            "HS512" => Self::Hmac(hmac::HMAC_SHA512),
            "RS256" => Self::Rsa(&sign::RSA_PKCS1_SHA256, &sign::RSA_PKCS1_2048_8192_SHA256),
            "RS384" => Self::Rsa(&sign::RSA_PKCS1_SHA384, &sign::RSA_PKCS1_2048_8192_SHA384),
            "RS512" => Self::Rsa(&sign::RSA_PKCS1_SHA512, &sign::RSA_PKCS1_2048_8192_SHA512),
            "PS256" => Self::Rsa(&sign::RSA_PSS_SHA256, &sign::RSA_PSS_2048_8192_SHA256),
            "PS384" => Self::Rsa(&sign::RSA_PSS_SHA384, &sign::RSA_PSS_2048_8192_SHA384),
            "PS512" => Self::Rsa(&sign::RSA_PSS_SHA512, &sign::RSA_PSS_2048_8192_SHA512),
            "ES256" => Self::Ecdsa(&sign::ECDSA_P256_SHA256_FIXED_SIGNING, &sign::ECDSA_P256_SHA256_FIXED),
            "ES384" => Self::Ecdsa(&sign::ECDSA_P384_SHA384_FIXED_SIGNING, &sign::ECDSA_P384_SHA384_FIXED),
            "ES512" => Self::Ecdsa(&sign::ECDSA_P521_SHA512_FIXED_SIGNING, &sign::ECDSA_P521_SHA512_FIXED),
            "EdDSA" => Self::Ed25519,
            _ => return None,
        })
    }

    /// How signatures are checked; `None` for secrets.
    fn verification(&self) -> Option<&'static dyn sign::VerificationAlgorithm> {
        match self {
            Self::Hmac(_) => None,
            Self::Rsa(_, verification) | Self::Ecdsa(_, verification) => Some(*verification),
            Self::Ed25519 => Some(&sign::ED25519),
        }
    }

    fn private(&self, der: &PrivateKeyDer<'_>) -> Result<Private, KeyRejected> {
        let bytes = der.secret_der();
        match (self, der) {
            (Self::Hmac(_), _) => Ok(Private::Secret),
            (Self::Rsa(encoding, _), PrivateKeyDer::Pkcs1(_)) => {
                rsa::KeyPair::from_der(bytes).map(|pair| Private::Rsa(pair, *encoding))
            }
            (Self::Rsa(encoding, _), _) => rsa::KeyPair::from_pkcs8(bytes).map(|pair| Private::Rsa(pair, *encoding)),
            (Self::Ecdsa(algorithm, _), PrivateKeyDer::Sec1(_)) => {
                EcdsaKeyPair::from_private_key_der(algorithm, bytes).map(Private::Ecdsa)
            }
            (Self::Ecdsa(algorithm, _), _) => EcdsaKeyPair::from_pkcs8(algorithm, bytes).map(Private::Ecdsa),
            (Self::Ed25519, _) => Ed25519KeyPair::from_pkcs8_maybe_unchecked(bytes).map(Private::Ed25519),
        }
    }
}

impl Private {
    fn public_key(&self) -> &[u8] {
        match self {
            Self::Secret => &[],
            Self::Rsa(pair, _) => pair.public_key().as_ref(),
            Self::Ecdsa(pair) => pair.public_key().as_ref(),
            Self::Ed25519(pair) => pair.public_key().as_ref(),
        }
    }
}

impl JwtTokens {
    pub(crate) fn new(settings: &JwtSettings, clock: Arc<dyn Clock>) -> Result<Self, JwtSettingsError> {
        let name = settings.method.clone();
        let method = Method::parse(&name).ok_or_else(|| JwtSettingsError::Method(name.clone()))?;
        let time_to_live = settings.time_to_live.unwrap_or(TIME_TO_LIVE);
        let no_key = || JwtSettingsError::NoKey(name.clone());
        if let Method::Hmac(algorithm) = method {
            let secret = settings.private_key.as_ref().filter(|secret| !secret.is_empty()).ok_or_else(no_key)?;
            let public = Public::Secret(Box::new(hmac::Key::new(algorithm, secret)));
            return Ok(Self { clock, method: name, private: Some(Private::Secret), public, time_to_live });
        }
        let verification = method.verification().ok_or_else(no_key)?;
        let private = settings.private_key.as_deref().map(|pem| parse_private(&method, &name, pem)).transpose()?;
        let given = settings.public_key.as_deref().map(parse_public).transpose()?;
        let own = private.as_ref().map(|private| private.public_key().to_vec());
        let public = Public::Key(verification, given.or(own).ok_or_else(no_key)?);
        let tokens = Self { clock, method: name, private, public, time_to_live };
        // Keys of one pair understand each other.
        match tokens.signature(b"") {
            Some(probe) if !tokens.is_signed(b"", &probe) => Err(JwtSettingsError::Mismatch),
            _ => Ok(tokens),
        }
    }

    /// A token for a user; `None`: this member has no key for making them.
    pub(crate) fn assign(&self, user: &str, revision: u64) -> Option<String> {
        let expires = self.now_seconds() + self.time_to_live.as_secs() as i64;
        let header = json!({"alg": self.method, "typ": "JWT"}).to_string();
        let claims = json!({"username": user, "revision": revision, "exp": expires}).to_string();
        let encode = |text: &[u8]| BASE64_URL_SAFE_NO_PAD.encode(text);
        let signed = format!("{}.{}", encode(header.as_bytes()), encode(claims.as_bytes()));
        let signature = self.signature(signed.as_bytes())?;
        Some(format!("{signed}.{}", encode(&signature)))
    }

    /// The claims of a token, if it is valid.
    pub(crate) fn verify(&self, token: &str) -> Option<Claims> {
        let (signed, signature) = token.rsplit_once('.')?;
        let (header, claims) = signed.split_once('.')?;
        let decode = |text: &str| BASE64_URL_SAFE_NO_PAD.decode(text).ok();
        let parse = |text: &str| serde_json::from_slice::<Value>(&decode(text)?).ok();
        let (header, signature) = (parse(header)?, decode(signature)?);
        if header["alg"] != self.method.as_str() || !self.is_signed(signed.as_bytes(), &signature) {
            return None;
        }
        let claims = parse(claims)?;
        let now = self.now_seconds() as f64;
        let time = |name: &str| claims.get(name).map(|time| time.as_f64().unwrap_or(f64::NAN));
        let is_now = time("exp").is_none_or(|end| now < end) && time("nbf").is_none_or(|start| now >= start);
        let (user, revision) = (claims["username"].as_str()?.to_owned(), claims["revision"].as_f64()? as u64);
        is_now.then_some(Claims { user, revision })
    }

    fn signature(&self, message: &[u8]) -> Option<Vec<u8>> {
        let random = SystemRandom::new();
        let signed = match (self.private.as_ref()?, &self.public) {
            (Private::Rsa(pair, encoding), _) => {
                let mut signature = vec![0; pair.public_modulus_len()];
                pair.sign(*encoding, &random, message, &mut signature).map(|()| signature)
            }
            (Private::Ecdsa(pair), _) => pair.sign(&random, message).map(|signature| signature.as_ref().to_vec()),
            (Private::Ed25519(pair), _) => Ok(pair.sign(message).as_ref().to_vec()),
            (Private::Secret, Public::Secret(key)) => Ok(hmac::sign(key, message).as_ref().to_vec()),
            (Private::Secret, Public::Key(..)) => Err(Unspecified),
        };
        signed.inspect_err(|error| tracing::error!(%error, "a token was not signed")).ok()
    }

    fn is_signed(&self, message: &[u8], signature: &[u8]) -> bool {
        match &self.public {
            Public::Secret(key) => hmac::verify(key, message, signature).is_ok(),
            Public::Key(algorithm, key) => UnparsedPublicKey::new(*algorithm, key).verify(message, signature).is_ok(),
        }
    }

    fn now_seconds(&self) -> i64 {
        self.clock.now().as_second()
    }
}

fn parse_private(method: &Method, name: &str, pem: &[u8]) -> Result<Private, JwtSettingsError> {
    let der =
        PrivateKeyDer::from_pem_slice(pem).map_err(|source| JwtSettingsError::Pem { which: "priv-key", source })?;
    method.private(&der).map_err(|source| JwtSettingsError::Private { method: name.to_owned(), source })
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
    use base::ManualClock;
    use base64::prelude::BASE64_STANDARD;
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
        match Method::parse(method).unwrap() {
            Method::Hmac(_) => (Some(b"a secret".to_vec()), None),
            Method::Ecdsa(algorithm, _) => ecdsa(algorithm),
            Method::Rsa(..) => {
                let pair = rsa::KeyPair::generate(rsa::KeySize::Rsa2048).unwrap();
                let private: Pkcs8V1Der<'_> = pair.as_der().unwrap();
                let public: PublicKeyX509Der<'_> = pair.public_key().as_der().unwrap();
                (pem("PRIVATE KEY", private.as_ref()), pem("PUBLIC KEY", public.as_ref()))
            }
            Method::Ed25519 => {
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
