//! Compact JSON web tokens signed with ECDSA P-256 (ES256, RFC 7515 and 7518).
//!
//! In: claims as bytes and a key. Out: token text; or, from text, the verified claims.
//!
//! Invariant: only `alg: ES256` with our own key id is ever accepted; nothing in the token chooses the algorithm. Time and
//! meaning of the claims are for the caller.

use aws_lc_rs::digest::{SHA256, digest};
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED, ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair, UnparsedPublicKey,
};
use base64::prelude::{BASE64_URL_SAFE_NO_PAD, Engine};
use rustls::pki_types::PrivatePkcs8KeyDer;
use rustls::pki_types::pem::PemObject;
use serde_json::{Value, json};

/// SubjectPublicKeyInfo of a P-256 key up to the 65 bytes of the point (RFC 5480).
const P256_SPKI_PREFIX: [u8; 26] = [
    0x30, 0x59, 0x30, 0x13, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 0x08, 0x2a, 0x86, 0x48, 0xce,
    0x3d, 0x03, 0x01, 0x07, 0x03, 0x42, 0x00,
];
/// An uncompressed point: 0x04, x, y.
const POINT_BYTES: usize = 65;

/// Why a key or token is no good.
#[derive(Debug, thiserror::Error)]
pub enum JwtError {
    #[error("the service-account key is no PKCS#8 PEM: {0}")]
    KeyPem(rustls::pki_types::pem::Error),
    #[error("the service-account key is no ECDSA P-256 key: {0}")]
    Key(aws_lc_rs::error::KeyRejected),
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
    pair: EcdsaKeyPair,
    point: Vec<u8>,
    key_id: String,
}

impl SigningKey {
    pub fn from_pkcs8_pem(pem: &str) -> Result<Self, JwtError> {
        let der = PrivatePkcs8KeyDer::from_pem_slice(pem.as_bytes()).map_err(JwtError::KeyPem)?;
        let pair = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, der.secret_pkcs8_der())
            .map_err(JwtError::Key)?;
        let point = pair.public_key().as_ref().to_vec();
        let spki = [P256_SPKI_PREFIX.as_slice(), &point].concat();
        let key_id = BASE64_URL_SAFE_NO_PAD.encode(digest(&SHA256, &spki));
        Ok(Self { pair, point, key_id })
    }

    /// Upstream's rule: base64url of the SHA-256 of the public key's DER form.
    pub fn key_id(&self) -> &str {
        &self.key_id
    }

    pub fn sign(&self, claims: &[u8]) -> Result<String, JwtError> {
        let header = json!({"alg": "ES256", "kid": self.key_id}).to_string();
        let signed = format!("{}.{}", BASE64_URL_SAFE_NO_PAD.encode(header), BASE64_URL_SAFE_NO_PAD.encode(claims));
        let signature = self.pair.sign(&SystemRandom::new(), signed.as_bytes()).map_err(|_opaque| JwtError::Sign)?;
        Ok(format!("{signed}.{}", BASE64_URL_SAFE_NO_PAD.encode(signature)))
    }

    /// The claims of a token that this key signed.
    pub fn verify(&self, token: &str) -> Result<Vec<u8>, JwtError> {
        let (signed, signature) = token.rsplit_once('.').ok_or(JwtError::Malformed)?;
        let (header, claims) = signed.split_once('.').ok_or(JwtError::Malformed)?;
        let decode = |text: &str| BASE64_URL_SAFE_NO_PAD.decode(text).map_err(|_invalid| JwtError::Malformed);
        let header: Value = serde_json::from_slice(&decode(header)?).map_err(|_invalid| JwtError::Malformed)?;
        if header["alg"] != "ES256" || header["kid"] != self.key_id.as_str() {
            return Err(JwtError::ForeignKey);
        }
        UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, &self.point)
            .verify(signed.as_bytes(), &decode(signature)?)
            .map_err(|_opaque| JwtError::Signature)?;
        decode(claims)
    }

    /// The public key as a JSON web key.
    pub fn jwk(&self) -> Value {
        let middle = 1 + (POINT_BYTES - 1) / 2;
        let part =
            |range: std::ops::Range<usize>| BASE64_URL_SAFE_NO_PAD.encode(self.point.get(range).unwrap_or_default());
        json!({
            "use": "sig", "kty": "EC", "alg": "ES256", "crv": "P-256", "kid": self.key_id,
            "x": part(1..middle), "y": part(middle..POINT_BYTES),
        })
    }
}
