//! The user's kubeconfig: merges a context `holdfast` in, and takes it out again, leaving everything else as it was.
//!
//! Input and output are YAML texts; the entries of other clusters are kept as they are, comments are not.

use std::path::{Path, PathBuf};

use serde_json::{Value, json};

/// The name of our cluster, user and context.
const NAME: &str = "holdfast";
const SECTIONS: [&str; 3] = ["clusters", "users", "contexts"];

#[derive(Debug, thiserror::Error)]
pub enum KubeconfigError {
    #[error("cannot read or write {path}")]
    File {
        path: String,
        #[source]
        source: std::io::Error,
    },
    #[error("{path} is no kubeconfig: {detail}; mend it or set KUBECONFIG to another file")]
    Malformed { path: String, detail: String },
}

/// `$KUBECONFIG`'s first file, else `~/.kube/config`.
pub fn user_path(kubeconfig: Option<String>, home: Option<String>) -> Option<PathBuf> {
    let named = kubeconfig.and_then(|list| list.split(':').find(|p| !p.is_empty()).map(PathBuf::from));
    named.or_else(|| Some(Path::new(&home?).join(".kube/config")))
}

/// Writes `ours` (a kubeconfig with one entry in each section) into the file as context `holdfast` and makes it current.
pub fn merge_into(path: &Path, ours: &str) -> Result<(), KubeconfigError> {
    let current = read(path)?;
    let merged = merge(parse(path, &current)?, parse(path, ours)?);
    write(path, &render(path, &merged)?)
}

/// Removes what [`merge_into`] wrote; a missing file is fine.
pub fn remove_from(path: &Path) -> Result<(), KubeconfigError> {
    let current = read(path)?;
    if current.is_empty() {
        return Ok(());
    }
    let mut config = parse(path, &current)?;
    remove_ours(&mut config);
    write(path, &render(path, &config)?)
}

fn merge(mut config: Value, ours: Value) -> Value {
    if !config.is_object() {
        config = json!({"apiVersion": "v1", "kind": "Config"});
    }
    remove_ours(&mut config);
    for section in SECTIONS {
        let Some(mut entry) = ours[section].get(0).cloned() else { continue };
        entry["name"] = json!(NAME);
        if section == "contexts" {
            entry["context"]["cluster"] = json!(NAME);
            entry["context"]["user"] = json!(NAME);
        }
        match config[section].as_array_mut() {
            Some(list) => list.push(entry),
            None => config[section] = json!([entry]),
        }
    }
    config["current-context"] = json!(NAME);
    config
}

fn remove_ours(config: &mut Value) {
    for section in SECTIONS {
        if let Some(list) = config[section].as_array_mut() {
            list.retain(|entry| entry["name"] != NAME);
        }
    }
    if config["current-context"] == NAME {
        let next = config["contexts"].get(0).map_or(json!(""), |c| c["name"].clone());
        config["current-context"] = next;
    }
}

fn read(path: &Path) -> Result<String, KubeconfigError> {
    match std::fs::read_to_string(path) {
        Ok(text) => Ok(text),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(String::new()),
        Err(source) => Err(KubeconfigError::File { path: path.display().to_string(), source }),
    }
}

fn write(path: &Path, text: &str) -> Result<(), KubeconfigError> {
    let error = |source| KubeconfigError::File { path: path.display().to_string(), source };
    if let Some(dir) = path.parent() {
        std::fs::create_dir_all(dir).map_err(error)?;
    }
    let temporary = path.with_extension("holdfast-new");
    std::fs::write(&temporary, text).map_err(error)?;
    std::fs::set_permissions(&temporary, std::os::unix::fs::PermissionsExt::from_mode(0o600)).map_err(error)?;
    std::fs::rename(&temporary, path).map_err(error)
}

fn parse(path: &Path, text: &str) -> Result<Value, KubeconfigError> {
    if text.trim().is_empty() {
        return Ok(Value::Null);
    }
    serde_saphyr::from_str(text)
        .map_err(|e| KubeconfigError::Malformed { path: path.display().to_string(), detail: e.to_string() })
}

fn render(path: &Path, config: &Value) -> Result<String, KubeconfigError> {
    serde_saphyr::to_string(config)
        .map_err(|e| KubeconfigError::Malformed { path: path.display().to_string(), detail: e.to_string() })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ours() -> Value {
        json!({
            "clusters": [{"name": "x", "cluster": {"server": "https://here"}}],
            "users": [{"name": "x", "user": {}}],
            "contexts": [{"name": "x", "context": {"cluster": "x", "user": "x"}}],
        })
    }

    #[test]
    fn others_stay_and_ours_is_current() {
        let theirs = json!({"clusters": [{"name": "a"}], "contexts": [{"name": "a"}], "users": [{"name": "a"}], "current-context": "a"});
        let merged = merge(theirs.clone(), ours());
        assert_eq!(merged["current-context"], "holdfast");
        assert_eq!(merged["clusters"].as_array().unwrap().len(), 2);
        assert_eq!(merge(merged.clone(), ours()), merged, "twice is once");
        let mut back = merged;
        remove_ours(&mut back);
        assert_eq!(back, theirs);
    }

    #[test]
    fn an_absent_file_becomes_a_whole_kubeconfig() {
        let merged = merge(Value::Null, ours());
        assert_eq!(merged["kind"], "Config");
        assert_eq!(merged["contexts"][0]["context"]["cluster"], "holdfast");
    }

    #[test]
    fn path_follows_the_variable_then_home() {
        assert_eq!(user_path(Some("/a:/b".into()), None), Some("/a".into()));
        assert_eq!(user_path(None, Some("/h".into())), Some("/h/.kube/config".into()));
    }
}
