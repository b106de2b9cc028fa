//! Compact JSON web signatures (RFC 7515, algorithms of RFC 7518 and 8037): claims as bytes and a key -> token text, and back.
//!
//! Invariant: a key accepts its own algorithm alone; nothing in a token chooses it. What header and claims mean, and when, is for
//! the caller.

use aws_lc_rs::encoding::{AsDer as _, PublicKeyX509Der};
use aws_lc_rs::error::{KeyRejected, Unspecified};
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{self as sign, EcdsaKeyPair, Ed25519KeyPair, KeyPair as _, UnparsedPublicKey};
use aws_lc_rs::{hmac, rsa};
use base64::prelude::{BASE64_URL_SAFE_NO_PAD, Engine as _};
use rustls::pki_types::PrivateKeyDer;
use serde_json::Value;

/// How tokens are signed.
#[derive(Debug, Clone, Copy)]
pub struct Algorithm {
    name: &'static str,
    scheme: Scheme,
}

#[derive(Debug, Clone, Copy)]
enum Scheme {
    Hmac(hmac::Algorithm),
    Rsa(&'static dyn sign::RsaEncoding, &'static dyn sign::VerificationAlgorithm),
    Ecdsa(&'static sign::EcdsaSigningAlgorithm, &'static dyn sign::VerificationAlgorithm),
    Ed25519,
}

const ALGORITHMS: [Algorithm; 13] = [
    Algorithm::RS256,
    Algorithm::new("RS384", Scheme::Rsa(&sign::RSA_PKCS1_SHA384, &sign::RSA_PKCS1_2048_8192_SHA384)),
    Algorithm::new("RS512", Scheme::Rsa(&sign::RSA_PKCS1_SHA512, &sign::RSA_PKCS1_2048_8192_SHA512)),
    Algorithm::new("PS256", Scheme::Rsa(&sign::RSA_PSS_SHA256, &sign::RSA_PSS_2048_8192_SHA256)),
    Algorithm::new("PS384", Scheme::Rsa(&sign::RSA_PSS_SHA384, &sign::RSA_PSS_2048_8192_SHA384)),
    Algorithm::new("PS512", Scheme::Rsa(&sign::RSA_PSS_SHA512, &sign::RSA_PSS_2048_8192_SHA512)),
    Algorithm::ES256,
    Algorithm::new("ES384", Scheme::Ecdsa(&sign::ECDSA_P384_SHA384_FIXED_SIGNING, &sign::ECDSA_P384_SHA384_FIXED)),
    Algorithm::new("ES512", Scheme::Ecdsa(&sign::ECDSA_P521_SHA512_FIXED_SIGNING, &sign::ECDSA_P521_SHA512_FIXED)),
    Algorithm::new("HS256", Scheme::Hmac(hmac::HMAC_SHA256)),
    Algorithm::new("HS384", Scheme::Hmac(hmac::HMAC_SHA384)),
    Algorithm::new("HS512", Scheme::Hmac(hmac::HMAC_SHA512)),
    Algorithm::new("EdDSA", Scheme::Ed25519),
];

impl Algorithm {
    /// RSA with PKCS#1 padding and SHA-256.
    pub const RS256: Self = Self::new("RS256", Scheme::Rsa(&sign::RSA_PKCS1_SHA256, &sign::RSA_PKCS1_2048_8192_SHA256));
    /// ECDSA on P-256 with SHA-256.
    pub const ES256: Self =
        Self::new("ES256", Scheme::Ecdsa(&sign::ECDSA_P256_SHA256_FIXED_SIGNING, &sign::ECDSA_P256_SHA256_FIXED));

    const fn new(name: &'static str, scheme: Scheme) -> Self {
        Self { name, scheme }
    }

    /// By its name in tokens, such as `ES256`. `none` is none.
    pub fn named(name: &str) -> Option<Self> {
        ALGORITHMS.into_iter().find(|algorithm| algorithm.name == name)
    }

    pub fn name(&self) -> &'static str {
        self.name
    }

    /// The algorithm signs and verifies with one secret.
    pub fn is_of_secrets(&self) -> bool {
        matches!(self.scheme, Scheme::Hmac(_))
    }
}

enum Pair {
    Secret(Box<hmac::Key>),
    Rsa(rsa::KeyPair, &'static dyn sign::RsaEncoding),
    Ecdsa(EcdsaKeyPair),
    Ed25519(Ed25519KeyPair),
}

/// Makes tokens.
pub struct SigningKey {
    algorithm: Algorithm,
    pair: Pair,
}

impl SigningKey {
    /// `der`: PKCS#8, of RSA also PKCS#1, of ECDSA also SEC 1. A secret's algorithm takes no such key.
    pub fn from_der(algorithm: Algorithm, der: &PrivateKeyDer<'_>) -> Result<Self, KeyRejected> {
        let bytes = der.secret_der();
        let pair = match (algorithm.scheme, der) {
            (Scheme::Hmac(of), _) => Pair::Secret(Box::new(hmac::Key::new(of, bytes))),
            (Scheme::Rsa(encoding, _), PrivateKeyDer::Pkcs1(_)) => Pair::Rsa(rsa::KeyPair::from_der(bytes)?, encoding),
            (Scheme::Rsa(encoding, _), _) => Pair::Rsa(rsa::KeyPair::from_pkcs8(bytes)?, encoding),
            (Scheme::Ecdsa(curve, _), PrivateKeyDer::Sec1(_)) => {
                Pair::Ecdsa(EcdsaKeyPair::from_private_key_der(curve, bytes)?)
            }
            (Scheme::Ecdsa(curve, _), _) => Pair::Ecdsa(EcdsaKeyPair::from_pkcs8(curve, bytes)?),
            (Scheme::Ed25519, _) => Pair::Ed25519(Ed25519KeyPair::from_pkcs8_maybe_unchecked(bytes)?),
        };
        Ok(Self { algorithm, pair })
    }

    pub fn algorithm(&self) -> Algorithm {
        self.algorithm
    }

    /// What verifies its tokens.
    pub fn verifying(&self) -> VerifyingKey {
        let key = match &self.pair {
            Pair::Secret(key) => return VerifyingKey { algorithm: self.algorithm, key: Public::Secret(key.clone()) },
            Pair::Rsa(pair, _) => pair.public_key().as_ref(),
            Pair::Ecdsa(pair) => pair.public_key().as_ref(),
            Pair::Ed25519(pair) => pair.public_key().as_ref(),
        };
        VerifyingKey::of_public(self.algorithm, key.to_vec())
    }

    /// SubjectPublicKeyInfo, DER. A secret has none.
    pub fn public_der(&self) -> Result<Vec<u8>, Unspecified> {
        let der: PublicKeyX509Der<'_> = match &self.pair {
            Pair::Secret(_) => return Err(Unspecified),
            Pair::Rsa(pair, _) => pair.public_key().as_der()?,
            Pair::Ecdsa(pair) => pair.public_key().as_der()?,
            Pair::Ed25519(pair) => pair.public_key().as_der()?,
        };
        Ok(der.as_ref().to_vec())
    }

    /// The token of `claims`; `header` should say `alg`.
    pub fn sign(&self, header: &Value, claims: &[u8]) -> Result<String, Unspecified> {
        let encode = |bytes: &[u8]| BASE64_URL_SAFE_NO_PAD.encode(bytes);
        let signed = format!("{}.{}", encode(header.to_string().as_bytes()), encode(claims));
        let signature = self.signature(signed.as_bytes())?;
        Ok(format!("{signed}.{}", encode(&signature)))
    }

    fn signature(&self, message: &[u8]) -> Result<Vec<u8>, Unspecified> {
        let random = SystemRandom::new();
        match &self.pair {
            Pair::Secret(key) => Ok(hmac::sign(key, message).as_ref().to_vec()),
            Pair::Rsa(pair, encoding) => {
                let mut signature = vec![0; pair.public_modulus_len()];
                pair.sign(*encoding, &random, message, &mut signature).map(|()| signature)
            }
            Pair::Ecdsa(pair) => pair.sign(&random, message).map(|signature| signature.as_ref().to_vec()),
            Pair::Ed25519(pair) => Ok(pair.sign(message).as_ref().to_vec()),
        }
    }
}

#[derive(Clone)]
enum Public {
    Secret(Box<hmac::Key>),
    Key(Vec<u8>),
}

/// Checks tokens.
#[derive(Clone)]
pub struct VerifyingKey {
    algorithm: Algorithm,
    key: Public,
}

impl VerifyingKey {
    /// `key`: SubjectPublicKeyInfo in DER, or the bare key. With a secret's algorithm it is the secret.
    pub fn of_public(algorithm: Algorithm, key: Vec<u8>) -> Self {
        let key = match algorithm.scheme {
            Scheme::Hmac(of) => Public::Secret(Box::new(hmac::Key::new(of, &key))),
            _ => Public::Key(key),
        };
        Self { algorithm, key }
    }

    /// Whether this key, by its algorithm, signed the token.
    pub fn has_signed(&self, token: &Token<'_>) -> bool {
        let message = token.signed.as_bytes();
        token.header["alg"] == self.algorithm.name
            && match (&self.key, self.algorithm.scheme) {
                (Public::Secret(key), _) => hmac::verify(key, message, &token.signature).is_ok(),
                (Public::Key(key), Scheme::Rsa(_, by) | Scheme::Ecdsa(_, by)) => is_signed(by, key, message, token),
                (Public::Key(key), Scheme::Ed25519) => is_signed(&sign::ED25519, key, message, token),
                (Public::Key(_), Scheme::Hmac(_)) => false,
            }
    }
}

fn is_signed(by: &'static dyn sign::VerificationAlgorithm, key: &[u8], message: &[u8], token: &Token<'_>) -> bool {
    UnparsedPublicKey::new(by, key).verify(message, &token.signature).is_ok()
}

/// A token's parts. Nothing of it is to be believed before [`VerifyingKey::has_signed`].
#[derive(Debug)]
pub struct Token<'a> {
    pub header: Value,
    pub claims: Vec<u8>,
    signed: &'a str,
    signature: Vec<u8>,
}

impl<'a> Token<'a> {
    /// `None`: not a token.
    pub fn parse(text: &'a str) -> Option<Self> {
        let (signed, signature) = text.rsplit_once('.')?;
        let (header, claims) = signed.split_once('.')?;
        let decode = |text: &str| BASE64_URL_SAFE_NO_PAD.decode(text).ok();
        let header = serde_json::from_slice(&decode(header)?).ok()?;
        Some(Self { header, claims: decode(claims)?, signed, signature: decode(signature)? })
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_token_does_not_choose_its_algorithm() {
        let key = |name: &str| {
            let algorithm = Algorithm::named(name).unwrap();
            SigningKey::from_der(algorithm, &PrivateKeyDer::Pkcs8(b"secret".as_slice().into())).unwrap()
        };
        let check = |alg: &str, by: &str, expect: bool| {
            let text = key("HS256").sign(&json!({"alg": alg}), b"{}").unwrap();
            let token = Token::parse(&text).unwrap();
            assert_eq!(key(by).verifying().has_signed(&token), expect, "{alg} {by}");
        };
        check("HS256", "HS256", true);
        check("HS384", "HS256", false);
        check("HS384", "HS384", false);
        check("none", "HS256", false);
        assert!(Algorithm::named("none").is_none());
    }

    #[test]
    fn rubbish_is_no_token() {
        for rubbish in ["", "a", "a.b", "..", "a.b.c", "e30.?.e30"] {
            assert!(Token::parse(rubbish).is_none(), "{rubbish}");
        }
    }
}
