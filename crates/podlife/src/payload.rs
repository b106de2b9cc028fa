//! The files of configMap, secret, downwardAPI and projected volumes as values. Input: objects and items. Output:
//! relative path -> bytes and mode, or upstream's error. Does not write (see `node::volumes::atomic_writer`).
//!
//! Invariant: every path is relative and stays inside: no `..` segment, no leading slash.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{ConfigMap, KeyToPath, Secret};

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct File {
    pub bytes: Vec<u8>,
    /// Permission bits.
    pub mode: u32,
    /// User that owns it, if not root.
    pub owner: Option<u32>,
}

/// Path below the volume -> file.
pub type Files = BTreeMap<String, File>;

/// All keys of a configMap, or of `None` (an absent optional one: no files).
pub fn config_map_data(config_map: &ConfigMap) -> BTreeMap<String, Vec<u8>> {
    let text = config_map.data.iter().flatten().map(|(key, value)| (key.clone(), value.clone().into_bytes()));
    let binary = config_map.binary_data.iter().flatten().map(|(key, value)| (key.clone(), value.0.clone()));
    text.chain(binary).collect()
}

pub fn secret_data(secret: &Secret) -> BTreeMap<String, Vec<u8>> {
    secret.data.iter().flatten().map(|(key, value)| (key.clone(), value.0.clone())).collect()
}

/// Chooses and renames keys. `what` names the object in errors, such as `configmap`.
pub fn select_files(
    data: &BTreeMap<String, Vec<u8>>,
    items: Option<&[KeyToPath]>,
    default_mode: u32,
    optional: bool,
    what: &str,
) -> Result<Files, String> {
    let Some(items) = items.filter(|items| !items.is_empty()) else {
        let files = data
            .iter()
            .map(|(key, bytes)| (key.clone(), File { bytes: bytes.clone(), mode: default_mode, owner: None }));
        return Ok(files.collect());
    };
    let mut files = Files::new();
    for item in items {
        match data.get(&item.key) {
            Some(bytes) => {
                check_path(&item.path)?;
                let mode = item.mode.map_or(default_mode, mode_bits);
                files.insert(
                    item.path.clone(),
                    File { bytes: bytes.clone(), mode, owner: item.user.and_then(|user| u32::try_from(user).ok()) },
                );
            }
            None if optional => {}
            None => return Err(format!("{what} references non-existent config key: {}", item.key)),
        }
    }
    Ok(files)
}

/// The API's mode as permission bits.
pub fn mode_bits(mode: i32) -> u32 {
    u32::try_from(mode).unwrap_or(0o644) & 0o777
}

/// Refuses paths that would leave the volume.
pub fn check_path(path: &str) -> Result<(), String> {
    if path.is_empty() {
        return Err("invalid path: must not be empty".to_owned());
    }
    if path.starts_with('/') {
        return Err(format!("invalid path: must be relative path: {path}"));
    }
    if path.split('/').any(|part| part == "..") {
        return Err(format!("invalid path: must not contain '..': {path}"));
    }
    if path.starts_with("..") {
        return Err(format!("invalid path: must not start with '..': {path}"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(items: &[(&str, &str)], optional: bool, expect: Result<&[&str], &str>) {
        let data = BTreeMap::from([("a".to_owned(), b"1".to_vec()), ("b".to_owned(), b"2".to_vec())]);
        let items = items
            .iter()
            .map(|(key, path)| KeyToPath { key: (*key).to_owned(), path: (*path).to_owned(), ..KeyToPath::default() })
            .collect::<Vec<_>>();
        let got = select_files(&data, Some(&items), 0o644, optional, "configmap");
        let got = got.map(|files| files.into_keys().collect::<Vec<_>>());
        let expect = expect.map(|paths| paths.iter().map(|p| (*p).to_owned()).collect::<Vec<_>>());
        assert_eq!(got, expect.map_err(str::to_owned));
    }

    #[test]
    fn items_select_and_rename() {
        check(&[], false, Ok(&["a", "b"]));
        check(&[("a", "x/y")], false, Ok(&["x/y"]));
        check(&[("c", "x")], true, Ok(&[]));
        check(&[("c", "x")], false, Err("configmap references non-existent config key: c"));
        check(&[("a", "../x")], false, Err("invalid path: must not contain '..': ../x"));
        check(&[("a", "/x")], false, Err("invalid path: must be relative path: /x"));
    }
}
