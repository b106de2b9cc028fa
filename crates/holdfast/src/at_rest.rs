//! Whether this server's keys open what is sealed in its store; asked at each start, before new keys are made.
//!
//! Not here: a snapshot's content ([`crate::replacement::check_sealed`]).

use apiserver::chain::Transformer as _;
use apiserver::encryption::{AesGcm, AtRest, EncryptionError};
use bytes::Bytes;
use store::{Kv, RangeRequest, key_after, prefix_end};

/// What every stored value begins with that is encrypted, by whatever provider.
const SEALED: &[u8] = b"k8s:enc:";
/// Nothing else is ever sealed.
const SECRETS: &[u8] = b"/registry/secrets/";
/// Bounds what is read at once.
const PAGE_KEYS: usize = 500;

#[derive(Debug, thiserror::Error)]
pub enum SealedError {
    #[error(
        "Secrets in the store are encrypted with {provider:?}, which {keys} does not open; {remedy}; nothing was changed"
    )]
    Closed { provider: String, keys: String, remedy: &'static str },
    #[error("the encryption keys cannot be used")]
    Keys(#[from] EncryptionError),
    #[error("the store does not answer")]
    Store(#[from] store::KvError),
}

/// Refuses keys that leave a Secret closed. Reads what this member has; one that has just joined has its cluster's keys.
pub async fn check_opens(kv: &dyn Kv, at_rest: &AtRest) -> Result<(), SealedError> {
    let keys = at_rest.present()?;
    let mut from = Bytes::from_static(SECRETS);
    loop {
        let request = RangeRequest {
            key: from,
            end: prefix_end(SECRETS),
            limit: PAGE_KEYS,
            serializable: true,
            ..RangeRequest::default()
        };
        let page = kv.range(request).await?;
        if let Some(closed) = page.kvs.iter().find(|kv| is_closed(keys.as_ref(), &kv.key, &kv.value)) {
            return Err(refusal(provider_of(&closed.value), at_rest));
        }
        let Some(last) = page.kvs.last().filter(|_| page.more) else { return Ok(()) };
        from = key_after(&last.key);
    }
}

/// Whether a stored value is encrypted and none of the keys opens it.
pub fn is_closed(keys: Option<&AesGcm>, key: &[u8], value: &Bytes) -> bool {
    value.starts_with(SEALED) && keys.is_none_or(|keys| keys.open(key, value.clone()).is_err())
}

/// `aesgcm:v1:key1` of `k8s:enc:aesgcm:v1:key1:...`.
pub fn provider_of(value: &[u8]) -> String {
    let fields: Vec<_> = value[SEALED.len()..].splitn(4, |byte| *byte == b':').take(3).collect();
    String::from_utf8_lossy(&fields.join(&b':')).into_owned()
}

fn refusal(provider: String, at_rest: &AtRest) -> SealedError {
    let (keys, remedy) = match at_rest {
        AtRest::OwnKeys(path) => (
            path.display().to_string(),
            "put that file back from a backup or out of FILE.keys of `holdfast store snapshot --with-keys`, or give --encryption-provider-config as before",
        ),
        AtRest::GivenKeys(path) => {
            (path.display().to_string(), "give the file of before, or keep its keys in this one behind the new ones")
        }
        AtRest::Plain => ("a server without keys".to_owned(), "give --encryption-provider-config as before"),
    };
    SealedError::Closed { provider, keys, remedy }
}
