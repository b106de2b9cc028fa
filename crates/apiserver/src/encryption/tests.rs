//! Round trips, rotation, tampering and bad key files.

use proptest::prelude::*;

use super::*;

const KEY: &[u8] = b"/registry/secrets/ns/a";

fn keys(list: &[(&str, u8)]) -> AesGcm {
    AesGcm::parse(Path::new("keys"), &file(list)).unwrap()
}

fn file(list: &[(&str, u8)]) -> String {
    let entries: Vec<String> = list
        .iter()
        .map(|(name, byte)| format!("      - name: {name}\n        secret: {}\n", BASE64_STANDARD.encode([*byte; 32])))
        .collect();
    format!(
        "apiVersion: apiserver.config.k8s.io/v1\nkind: EncryptionConfiguration\nresources:\n- resources: [secrets]\n  providers:\n  - aesgcm:\n      keys:\n{}  - identity: {{}}\n",
        entries.concat()
    )
}

#[test]
fn stored_form_is_upstreams() {
    let sealed = keys(&[("key1", 1)]).seal(KEY, b"plain").unwrap();
    assert!(sealed.starts_with(b"k8s:enc:aesgcm:v1:key1:"));
    assert_eq!(sealed.len(), b"k8s:enc:aesgcm:v1:key1:".len() + 12 + 5 + 16);
    assert!(!sealed.windows(5).any(|window| window == b"plain"));
}

#[test]
fn keys_rotate() {
    let old = keys(&[("key1", 1)]).seal(KEY, b"plain").unwrap();
    let both = keys(&[("key2", 2), ("key1", 1)]);
    assert_eq!(both.open(KEY, old.clone()).unwrap(), "plain");
    assert!(both.seal(KEY, b"plain").unwrap().starts_with(b"k8s:enc:aesgcm:v1:key2:"));
    let error = keys(&[("key2", 2)]).open(KEY, old).unwrap_err();
    assert_eq!(
        error.to_string(),
        "transform value of /registry/secrets/ns/a: no key of this server opens it; was a key removed too early?"
    );
}

#[test]
fn plain_values_pass() {
    assert_eq!(keys(&[("a", 1)]).open(KEY, Bytes::from_static(b"k8s\0rest")).unwrap(), "k8s\0rest");
}

#[test]
fn a_key_file_is_made_once_and_a_damaged_one_is_an_error() {
    let path = std::env::temp_dir().join(format!("holdfast-enc-{}", base::id::uid(&mut OsRng)));
    let sealed = AesGcm::open(&path).unwrap().seal(KEY, b"plain").unwrap();
    assert_eq!(AesGcm::open(&path).unwrap().open(KEY, sealed).unwrap(), "plain");
    let check = |content: &str, expect: &str| {
        std::fs::write(&path, content).unwrap();
        let message = AesGcm::open(&path).err().unwrap().to_string().replace(&*path.to_string_lossy(), "FILE");
        assert!(message.starts_with(expect), "{message}");
    };
    check("", "FILE is no EncryptionConfiguration");
    check("{", "FILE is no EncryptionConfiguration");
    check(&file(&[]).replace("keys:", "keys: []"), "FILE holds no aesgcm key");
    check(&file(&[("a:b", 1)]).replace("name: a:b", "name: \"a:b\""), "FILE: key \"a:b\": the name must not");
    check(&file(&[("a", 1)]).replace("AQEBAQ", "AQ"), "FILE: key \"a\": the secret");
    std::fs::remove_file(&path).unwrap();
}

#[test]
fn a_given_file_is_followed_or_refused() {
    let with = |text: &str| AesGcm::parse(Path::new("FILE"), text);
    let identity_first = file(&[("key1", 1)]).replace("providers:\n", "providers:\n  - identity: {}\n");
    let keys = with(&identity_first).unwrap();
    assert_eq!(keys.seal(KEY, b"plain").unwrap(), "plain");
    let sealed = self::keys(&[("key1", 1)]).seal(KEY, b"plain").unwrap();
    assert_eq!(keys.open(KEY, sealed).unwrap(), "plain");
    let more = file(&[("key1", 1)]).replace("[secrets]", "[secrets, configmaps]");
    let message = with(&more).err().unwrap().to_string();
    assert!(
        message.ends_with("it names configmaps, but only secrets are encrypted here; take configmaps out"),
        "{message}"
    );
    assert!(with(&file(&[("key1", 1)]).replace("aesgcm", "aescbc")).is_err());
    let missing = AtRest::GivenKeys(std::env::temp_dir().join("holdfast-no-such-file")).open();
    assert!(missing.err().unwrap().to_string().ends_with("holdfast-no-such-file does not exist"));
    assert!(AtRest::Plain.open().unwrap().is_none());
}

proptest! {
    #[test]
    fn whatever_is_sealed_opens_only_in_its_place(plain in proptest::collection::vec(any::<u8>(), 0..200), flip in any::<usize>()) {
        let keys = keys(&[("k", 7)]);
        let sealed = keys.seal(KEY, &plain).unwrap();
        prop_assert_eq!(&keys.open(KEY, sealed.clone()).unwrap()[..], &plain[..]);
        prop_assert!(keys.open(b"/registry/secrets/ns/b", sealed.clone()).is_err());
        let mut damaged = sealed.to_vec();
        let at = b"k8s:enc:aesgcm:v1:k:".len() + flip % (damaged.len() - b"k8s:enc:aesgcm:v1:k:".len());
        damaged[at] ^= 1;
        prop_assert!(keys.open(KEY, damaged.into()).is_err());
        prop_assert!(keys.open(KEY, sealed.slice(..b"k8s:enc:aesgcm:v1:k:".len() + flip % 12)).is_err());
    }
}
