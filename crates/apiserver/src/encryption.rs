//! Encryption at rest with AES-GCM, in upstream's stored form.
//!
//! In: a key file in upstream's format (EncryptionConfiguration), made on first start; plain values. Out: stored values
//! `k8s:enc:aesgcm:v1:KEYNAME:` + 12 random bytes + cipher text + 16 bytes tag, bound to their store key.
//!
//! Invariants: the first key of the file writes, every key reads, so keys rotate by adding a new one in front. A value
//! copied under another store key does not open. Values without the prefix are plain and are served as they are.
//!
//! Not here: rewriting what older keys wrote (any update of the object does it). A random nonce allows about 2^32 writes
//! with one key; rotate long before.

use std::path::{Path, PathBuf};

use aws_lc_rs::aead::{AES_128_GCM, AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use base::{OsRng, Rng};
use base64::prelude::{BASE64_STANDARD, Engine};
use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::chain::{TransformError, Transformer};
use crate::pki::{PkiError, files};

const ANY_PREFIX: &[u8] = b"k8s:enc:";
const PREFIX: &str = "k8s:enc:aesgcm:v1:";
const NONCE_BYTES: usize = 12;
const TAG_BYTES: usize = 16;
const NEW_KEY_BYTES: usize = 32;

/// Why the key file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum EncryptionError {
    #[error("cannot read or write the encryption keys")]
    File(#[source] PkiError),
    #[error("{} is no EncryptionConfiguration: {detail}", path.display())]
    Format { path: PathBuf, detail: String },
    #[error("{}: key {name:?}: {detail}", path.display())]
    Key { path: PathBuf, name: String, detail: &'static str },
    #[error("{} does not exist", path.display())]
    Missing { path: PathBuf },
    #[error("{} holds no aesgcm key", path.display())]
    NoKeys { path: PathBuf },
    #[error("cannot render the encryption keys: {0}")]
    Render(String),
}

/// What seals Secrets in the store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AtRest {
    /// The keys of this file, which is made at the first start.
    OwnKeys(PathBuf),
    /// The keys of a file that a person keeps: other API servers that read the same store have it too.
    GivenKeys(PathBuf),
    /// Nothing: others read the store who have no key of ours.
    Plain,
}

impl AtRest {
    /// The keys, if there are any. Errors: see [`AesGcm::open`] and [`AesGcm::read`].
    pub fn open(&self) -> Result<Option<AesGcm>, EncryptionError> {
        match self {
            Self::OwnKeys(path) => AesGcm::open(path).map(Some),
            Self::GivenKeys(path) => AesGcm::read(path).map(Some),
            Self::Plain => Ok(None),
        }
    }

    /// The keys that are there already; writes nothing. Errors: see [`AesGcm::read`].
    pub fn present(&self) -> Result<Option<AesGcm>, EncryptionError> {
        match self {
            Self::OwnKeys(path) => AesGcm::find(path),
            Self::GivenKeys(path) => AesGcm::read(path).map(Some),
            Self::Plain => Ok(None),
        }
    }
}

/// The keys, first one writing.
pub struct AesGcm {
    keys: Vec<NamedKey>,
    /// The file names `identity` before any key: new values are not sealed.
    writes_plain: bool,
}

struct NamedKey {
    /// [`PREFIX`] with the key's name and the closing colon.
    prefix: Vec<u8>,
    key: LessSafeKey,
}

impl AesGcm {
    /// Reads `path`, or makes it with one new 256-bit key, mode 0600.
    ///
    /// Errors: anything but a well-formed file with at least one key; never a fresh key in place of a damaged file, which
    /// would make the stored secrets unreadable for good.
    pub fn open(path: &Path) -> Result<Self, EncryptionError> {
        if let Some(keys) = Self::find(path)? {
            return Ok(keys);
        }
        let text = render_new()?;
        files::write_private(path, text.as_bytes()).map_err(EncryptionError::File)?;
        Self::parse(path, &text)
    }

    /// Reads `path`, if it is there.
    pub fn find(path: &Path) -> Result<Option<Self>, EncryptionError> {
        let text = files::read_optional(path).map_err(EncryptionError::File)?;
        text.map(|text| Self::parse(path, &text)).transpose()
    }

    /// Reads `path`, which must be there. Its first provider writes; it must speak of Secrets alone, because nothing else is
    /// ever sealed.
    pub fn read(path: &Path) -> Result<Self, EncryptionError> {
        Self::find(path)?.ok_or_else(|| EncryptionError::Missing { path: path.to_owned() })
    }

    /// Reads what `path` holds.
    pub fn parse(path: &Path, text: &str) -> Result<Self, EncryptionError> {
        let format = |detail: String| EncryptionError::Format { path: path.to_owned(), detail };
        let configuration: Configuration =
            serde_saphyr::from_str(text).map_err(|error| format(one_line(&error.to_string())))?;
        if let Some(other) = configuration.resources.iter().flat_map(|r| &r.resources).find(|name| *name != "secrets") {
            return Err(format(format!("it names {other}, but only secrets are encrypted here; take {other} out")));
        }
        let providers: Vec<Provider> =
            configuration.resources.into_iter().flat_map(|resource| resource.providers).collect();
        let writes_plain = providers.first().is_some_and(|provider| provider.identity.is_some());
        let mut keys = Vec::new();
        for entry in providers.into_iter().filter_map(|provider| provider.aesgcm).flat_map(|provider| provider.keys) {
            let bad = |detail| EncryptionError::Key { path: path.to_owned(), name: entry.name.clone(), detail };
            if entry.name.is_empty() || entry.name.contains(':') {
                return Err(bad("the name must not be empty or contain a colon"));
            }
            let secret =
                BASE64_STANDARD.decode(entry.secret.trim()).map_err(|_invalid| bad("the secret is not base64"))?;
            let algorithm = match secret.len() {
                16 => &AES_128_GCM,
                32 => &AES_256_GCM,
                _ => return Err(bad("the secret must be 16 or 32 bytes")),
            };
            let key = UnboundKey::new(algorithm, &secret).map_err(|_opaque| bad("the secret is refused"))?;
            let prefix = format!("{PREFIX}{}:", entry.name).into_bytes();
            keys.push(NamedKey { prefix, key: LessSafeKey::new(key) });
        }
        if keys.is_empty() {
            return Err(EncryptionError::NoKeys { path: path.to_owned() });
        }
        Ok(Self { keys, writes_plain })
    }
}

impl Transformer for AesGcm {
    fn seal(&self, key: &[u8], plain: &[u8]) -> Result<Bytes, TransformError> {
        if self.writes_plain {
            return Ok(Bytes::copy_from_slice(plain));
        }
        let problem = |message: &str| transform_error(key, message);
        let writer = self.keys.first().ok_or_else(|| problem("no key to write with"))?;
        let mut nonce = [0; NONCE_BYTES];
        OsRng.fill(&mut nonce);
        let mut sealed = Vec::with_capacity(writer.prefix.len() + NONCE_BYTES + plain.len() + TAG_BYTES);
        sealed.extend_from_slice(&writer.prefix);
        sealed.extend_from_slice(&nonce);
        let body = sealed.len();
        sealed.extend_from_slice(plain);
        let tag = sealed
            .get_mut(body..)
            .and_then(|text| {
                let nonce = Nonce::assume_unique_for_key(nonce);
                writer.key.seal_in_place_separate_tag(nonce, Aad::from(key), text).ok()
            })
            .ok_or_else(|| problem("cannot encrypt"))?;
        sealed.extend_from_slice(tag.as_ref());
        Ok(sealed.into())
    }

    fn open(&self, key: &[u8], stored: Bytes) -> Result<Bytes, TransformError> {
        if !stored.starts_with(ANY_PREFIX) {
            return Ok(stored);
        }
        let problem = |message: &str| transform_error(key, message);
        let reader = self.keys.iter().find(|known| stored.starts_with(&known.prefix));
        let reader = reader.ok_or_else(|| problem("no key of this server opens it; was a key removed too early?"))?;
        let sealed = stored.get(reader.prefix.len()..).unwrap_or_default();
        let (nonce, sealed) = sealed.split_first_chunk::<NONCE_BYTES>().ok_or_else(|| problem("it is cut off"))?;
        let mut text = sealed.to_vec();
        let nonce = Nonce::assume_unique_for_key(*nonce);
        let length = reader
            .key
            .open_in_place(nonce, Aad::from(key), &mut text)
            .map_err(|_opaque| problem("it is damaged, or was moved from another key"))?
            .len();
        text.truncate(length);
        Ok(text.into())
    }
}

/// The parser shows the lines around a fault below it.
fn one_line(detail: &str) -> String {
    let first = detail.lines().next().unwrap_or_default();
    format!("{first}; the providers are aesgcm and identity")
}

fn transform_error(key: &[u8], message: &str) -> TransformError {
    TransformError { key: String::from_utf8_lossy(key).into_owned(), message: message.to_owned() }
}

fn render_new() -> Result<String, EncryptionError> {
    let mut secret = [0; NEW_KEY_BYTES];
    OsRng.fill(&mut secret);
    let key = KeyEntry { name: "key1".to_owned(), secret: BASE64_STANDARD.encode(secret) };
    let configuration = Configuration {
        api_version: "apiserver.config.k8s.io/v1".to_owned(),
        kind: "EncryptionConfiguration".to_owned(),
        resources: vec![Resource {
            resources: vec!["secrets".to_owned()],
            providers: vec![
                Provider { aesgcm: Some(KeyList { keys: vec![key] }), identity: None },
                Provider { aesgcm: None, identity: Some(Identity {}) },
            ],
        }],
    };
    // JSON is YAML, and needs no second writer.
    serde_json::to_string_pretty(&configuration).map_err(|error| EncryptionError::Render(error.to_string()))
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Configuration {
    api_version: String,
    kind: String,
    resources: Vec<Resource>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Resource {
    resources: Vec<String>,
    providers: Vec<Provider>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Provider {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    aesgcm: Option<KeyList>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    identity: Option<Identity>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Identity {}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct KeyList {
    keys: Vec<KeyEntry>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct KeyEntry {
    name: String,
    secret: String,
}

#[cfg(test)]
mod tests;
