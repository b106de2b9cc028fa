//! Compact JSON web tokens, signed with ECDSA P-256 (ES256) or, where the key is one of kubeadm's, RSA (RS256); RFC 7515 and 7518.
//!
//! In: claims as bytes and a key. Out: token text; or, from text, the verified claims. How tokens are signed: [`tls::jws`].
//!
//! Invariant: only the algorithm of our own key with its own key id is ever accepted; nothing in the token chooses the
//! algorithm. Time and meaning of the claims are for the caller.

use aws_lc_rs::digest::{SHA256, digest};
use aws_lc_rs::error::KeyRejected;
use base64::prelude::{BASE64_URL_SAFE_NO_PAD, Engine};
use rustls::pki_types::PrivateKeyDer;
use rustls::pki_types::pem::PemObject;
use serde_json::{Value, json};
use tls::jws::{self, Algorithm, Token, VerifyingKey};
use x509_parser::prelude::FromDer;
use x509_parser::public_key::PublicKey;
use x509_parser::x509::SubjectPublicKeyInfo;

/// Why a key or token is no good.
#[derive(Debug, thiserror::Error)]
pub enum JwtError {
    #[error("the service-account key is no PEM of a private key: {0}")]
    KeyPem(rustls::pki_types::pem::Error),
    #[error("the service-account key is neither an ECDSA P-256 key nor an RSA key of 2048 bits or more: {0}")]
    Key(KeyRejected),
    #[error("the service-account key has no public form")]
    Public,
    #[error("the service-account key cannot sign")]
    Sign,
    #[error("not a token")]
    Malformed,
    #[error("token of another key or algorithm")]
    ForeignKey,
    #[error("the signature does not match")]
    Signature,
}

/// Signs and verifies with one key.
pub struct SigningKey {
    key: jws::SigningKey,
    verifying: VerifyingKey,
    /// SubjectPublicKeyInfo, DER.
    spki: Vec<u8>,
    key_id: String,
}

impl SigningKey {
    /// A PEM of PKCS#8, PKCS#1 (`openssl genrsa` of old, kubeadm) or SEC 1 (`openssl ecparam`).
    pub fn from_pem(pem: &str) -> Result<Self, JwtError> {
        let der = PrivateKeyDer::from_pem_slice(pem.as_bytes()).map_err(JwtError::KeyPem)?;
        let key = parse_key(&der).map_err(JwtError::Key)?;
        let spki = key.public_der().map_err(|_opaque| JwtError::Public)?;
        let key_id = BASE64_URL_SAFE_NO_PAD.encode(digest(&SHA256, &spki));
        Ok(Self { verifying: key.verifying(), key, spki, key_id })
    }

    /// Upstream's rule: base64url of the SHA-256 of the public key's DER form.
    pub fn key_id(&self) -> &str {
        &self.key_id
    }

    /// Its name in tokens and in the issuer's metadata.
    pub fn algorithm(&self) -> &'static str {
        self.key.algorithm().name()
    }

    pub fn sign(&self, claims: &[u8]) -> Result<String, JwtError> {
        let header = json!({"alg": self.algorithm(), "kid": self.key_id});
        self.key.sign(&header, claims).map_err(|_opaque| JwtError::Sign)
    }

    /// The claims of a token that this key signed.
    pub fn verify(&self, token: &str) -> Result<Vec<u8>, JwtError> {
        let token = Token::parse(token).ok_or(JwtError::Malformed)?;
        if token.header["alg"] != self.algorithm() || token.header["kid"] != self.key_id.as_str() {
            return Err(JwtError::ForeignKey);
        }
        if self.verifying.has_signed(&token) { Ok(token.claims) } else { Err(JwtError::Signature) }
    }

    /// The public key as a JSON web key.
    pub fn jwk(&self) -> Value {
        let mut jwk = json!({"use": "sig", "alg": self.algorithm(), "kid": self.key_id});
        let encoded = |bytes: &[u8]| Value::from(BASE64_URL_SAFE_NO_PAD.encode(bytes));
        let parsed = SubjectPublicKeyInfo::from_der(&self.spki);
        match parsed.as_ref().map(|(_, info)| info.parsed()) {
            Ok(Ok(PublicKey::RSA(key))) => {
                let bare = |number: &[u8]| encoded(number.strip_prefix(&[0]).unwrap_or(number));
                (jwk["kty"], jwk["n"], jwk["e"]) = ("RSA".into(), bare(key.modulus), bare(key.exponent));
            }
            Ok(Ok(PublicKey::EC(point))) => {
                // 0x04, x, y.
                let (x, y) = point.data().get(1..).unwrap_or_default().split_at(point.data().len() / 2);
                (jwk["kty"], jwk["crv"], jwk["x"], jwk["y"]) = ("EC".into(), "P-256".into(), encoded(x), encoded(y));
            }
            _ => {}
        }
        jwk
    }
}

fn parse_key(der: &PrivateKeyDer<'_>) -> Result<jws::SigningKey, KeyRejected> {
    let key = |algorithm| jws::SigningKey::from_der(algorithm, der);
    match der {
        PrivateKeyDer::Sec1(_) => key(Algorithm::ES256),
        PrivateKeyDer::Pkcs1(_) => key(Algorithm::RS256),
        _ => key(Algorithm::ES256).or_else(|_not_this_curve| key(Algorithm::RS256)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use aws_lc_rs::encoding::{AsDer, EcPrivateKeyRfc5915Der, Pkcs8V1Der};
    use aws_lc_rs::rsa;
    use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair};

    /// What comes before the key itself in the PKCS#8 form of an RSA key of 2048 bits.
    const PKCS8_HEAD: usize = 26;

    fn pem(label: &str, der: &[u8]) -> String {
        let text = base64::prelude::BASE64_STANDARD.encode(der);
        format!("-----BEGIN {label}-----\n{text}\n-----END {label}-----\n")
    }

    #[test]
    fn keys_of_all_forms_sign_and_verify() {
        let rsa = rsa::KeyPair::generate(rsa::KeySize::Rsa2048).unwrap();
        let pkcs8 = AsDer::<Pkcs8V1Der<'_>>::as_der(&rsa).unwrap();
        let p256 = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).unwrap();
        let sec1 = AsDer::<EcPrivateKeyRfc5915Der<'_>>::as_der(&p256.private_key()).unwrap();
        for (pem, algorithm, numbers) in [
            (pem("PRIVATE KEY", pkcs8.as_ref()), "RS256", ["n", "e"]),
            (pem("RSA PRIVATE KEY", &pkcs8.as_ref()[PKCS8_HEAD..]), "RS256", ["n", "e"]),
            (pem("EC PRIVATE KEY", sec1.as_ref()), "ES256", ["x", "y"]),
        ] {
            let key = SigningKey::from_pem(&pem).unwrap();
            let token = key.sign(b"{}").unwrap();
            assert_eq!((key.algorithm(), key.verify(&token).unwrap().as_slice()), (algorithm, b"{}".as_slice()));
            let (signed, _) = token.rsplit_once('.').unwrap();
            let signature = BASE64_URL_SAFE_NO_PAD.encode([1; 256]);
            assert!(matches!(key.verify(&format!("{signed}.{signature}")), Err(JwtError::Signature)));
            let jwk = key.jwk();
            assert!(numbers.iter().all(|name| jwk[name].as_str().is_some_and(|text| !text.is_empty())), "{jwk}");
        }
    }

    #[test]
    fn the_public_exponent_is_written_as_others_do() {
        let pair = rsa::KeyPair::generate(rsa::KeySize::Rsa2048).unwrap();
        let pkcs8 = AsDer::<Pkcs8V1Der<'_>>::as_der(&pair).unwrap();
        let jwk = SigningKey::from_pem(&pem("PRIVATE KEY", pkcs8.as_ref())).unwrap().jwk();
        assert_eq!((jwk["kty"].as_str(), jwk["e"].as_str()), (Some("RSA"), Some("AQAB")));
        assert_eq!(BASE64_URL_SAFE_NO_PAD.decode(jwk["n"].as_str().unwrap()).unwrap().len(), 256);
    }

    #[test]
    fn rubbish_is_refused() {
        assert!(matches!(SigningKey::from_pem("rubbish"), Err(JwtError::KeyPem(_))));
        assert!(matches!(SigningKey::from_pem(&pem("PRIVATE KEY", b"x")), Err(JwtError::Key(_))));
    }
}
