//! Directories of an old and a new store -> the one that is in place, also after a crash between; content and keys -> whether a restore may go on.

use apiserver::chain::Transformer as _;
use bytes::Bytes;
use store::KeyValue;

use super::*;

struct Place(PathBuf);

impl Place {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("holdfast-replacement-{}-{name}", std::process::id()));
        std::fs::create_dir_all(&path).unwrap();
        Self(path)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        std::fs::remove_dir_all(&self.0).ok();
    }
}

fn content(key: &str, value: impl Into<Bytes>) -> Content {
    let kv = KeyValue { key: Bytes::copy_from_slice(key.as_bytes()), value: value.into(), ..KeyValue::default() };
    let keys = vec![Arc::new(KeyValue { mod_revision: 5, version: 1, ..kv })];
    Content { revision: 5, keys, ..Content::default() }
}

#[test]
fn the_old_store_is_kept_and_an_interrupted_adoption_goes_on() {
    let place = Place::new("adopt");
    let dir = &place.0;
    assert_eq!(adopt(dir, 1).unwrap(), None);
    prepare(dir, content("a", "old")).unwrap();
    assert_eq!(adopt(dir, 2).unwrap(), None, "there was no old one");
    std::fs::write(dir.join(PLACE_FILE), "joined").unwrap();
    // An attempt that was interrupted while it filled leaves what the next one removes.
    std::fs::create_dir_all(dir.join(FILLING)).unwrap();
    prepare(dir, content("a", "new")).unwrap();
    // Crash between the steps: the note has gone already.
    rename(&dir.join(PLACE_FILE), &dir.join("joined.json.elsewhere")).unwrap();
    assert_eq!(adopt(dir, 3).unwrap(), Some(dir.join("store.before-restore-3")));
    assert!(!is_prepared(dir) && dir.join(STORE).exists());
    assert_eq!(adopt(dir, 4).unwrap(), None, "once is enough");
}

#[test]
fn the_revision_never_goes_back() {
    let place = Place::new("revision");
    assert_eq!(present_revision(&place.0).unwrap(), 0);
    let mut last = 0;
    for time in 1..4 {
        let next = ahead_of(content("a", "x"), present_revision(&place.0).unwrap());
        assert!(next.revision >= last + REVISION_BUMP, "the same snapshot, again");
        last = next.revision;
        prepare(&place.0, next).unwrap();
        adopt(&place.0, time).unwrap();
        assert_eq!(present_revision(&place.0).unwrap(), last);
    }
}

#[test]
fn what_cannot_be_opened_is_refused_by_name() {
    let place = Place::new("sealed");
    let plain = content("/registry/secrets/a/b", "k8s\0plain");
    check_sealed(&plain, &place.0, (None, None)).unwrap();
    let foreign = content("/registry/secrets/a/b", "k8s:enc:aescbc:v1:key7:xxxx");
    let text = check_sealed(&foreign, &place.0, (None, None)).unwrap_err().to_string();
    assert!(text.starts_with("1 values are encrypted with \"aescbc:v1:key7\""), "{text}");

    let keys = AesGcm::open(&place.0.join(ENCRYPTION_FILE)).unwrap();
    let own = keys.seal(b"/registry/secrets/a/b", b"k8s\0secret").unwrap();
    check_sealed(&content("/registry/secrets/a/b", own.clone()), &place.0, (None, None)).unwrap();
    // The same name of a key is not the same key.
    let other = Place::new("other");
    AesGcm::open(&other.0.join(ENCRYPTION_FILE)).unwrap();
    let own = content("/registry/secrets/a/b", own);
    assert!(check_sealed(&own, &other.0, (None, None)).is_err());
    // A file of the user's own, as --encryption-provider-config names it.
    check_sealed(&own, &other.0, (Some(&place.0.join(ENCRYPTION_FILE)), None)).unwrap();
    let text = check_sealed(&foreign, &other.0, (Some(&place.0.join(ENCRYPTION_FILE)), None)).unwrap_err().to_string();
    assert!(text.contains(&format!("nothing in {} opens", place.0.join(ENCRYPTION_FILE).display())), "{text}");
}

#[test]
fn keys_are_those_of_the_cluster_with_or_without_the_ones_for_secrets() {
    let (from, to) = (Place::new("keys-from"), Place::new("keys-to"));
    std::fs::create_dir(from.0.join("pki")).unwrap();
    for name in shared_files(false) {
        std::fs::write(from.0.join(name), name).unwrap();
    }
    let file = from.0.join("saved.keys");
    let saved = |with_encryption: bool| {
        let keys = SharedKeys::collect(&from.0).unwrap();
        assert_eq!(keys.has_encryption(), with_encryption);
        std::fs::write(&file, keys.render()).unwrap();
        SharedKeys::read(&file).unwrap()
    };
    let without = saved(false);
    without.install(&to.0).unwrap();
    assert!(to.0.join("pki/sa.key").exists() && !to.0.join(ENCRYPTION_FILE).exists());
    std::fs::write(from.0.join(ENCRYPTION_FILE), "keys").unwrap();
    let with = saved(true);
    with.check(&to.0).unwrap();
    with.install(&to.0).unwrap();
    assert_eq!(std::fs::read_to_string(to.0.join(ENCRYPTION_FILE)).unwrap(), "keys");
    std::fs::write(to.0.join("pki/ca.key"), "another").unwrap();
    assert!(matches!(with.check(&to.0), Err(ReplacementError::OtherKeys { .. })));
    std::fs::remove_file(from.0.join("pki/sa.key")).unwrap();
    assert!(matches!(SharedKeys::collect(&from.0), Err(ReplacementError::File { .. })));
}
