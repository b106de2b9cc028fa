//! hostPath volumes: checks, and makes what `DirectoryOrCreate` and `FileOrCreate` ask for.

use std::os::unix::fs::FileTypeExt as _;
use std::path::Path;

use k8s_openapi::api::core::v1::HostPathVolumeSource;
use rustix::fs::Mode;

/// The error is upstream's text.
pub(super) fn apply(source: &HostPathVolumeSource) -> Result<(), String> {
    let path = Path::new(&source.path);
    let kind = source.type_.as_deref().unwrap_or_default();
    let metadata = std::fs::metadata(path).ok();
    let file_type = metadata.as_ref().map(std::fs::Metadata::file_type);
    let is = |check: fn(&std::fs::FileType) -> bool, what: &str| match &file_type {
        Some(file_type) if check(file_type) => Ok(()),
        _ => Err(format!("hostPath type check failed: {} is not a {what}", source.path)),
    };
    match kind {
        "" => Ok(()),
        "DirectoryOrCreate" if file_type.is_none() => create_directory(path).map_err(|error| error.to_string()),
        "Directory" | "DirectoryOrCreate" => is(std::fs::FileType::is_dir, "directory"),
        "FileOrCreate" if file_type.is_none() => create_file(path).map_err(|error| error.to_string()),
        "File" | "FileOrCreate" => is(std::fs::FileType::is_file, "file"),
        "Socket" => is(|t| t.is_socket(), "socket"),
        "CharDevice" => is(|t| t.is_char_device(), "character device"),
        "BlockDevice" => is(|t| t.is_block_device(), "block device"),
        other => Err(format!("hostPath type {other} is unknown")),
    }
}

fn create_directory(path: &Path) -> std::io::Result<()> {
    std::fs::create_dir_all(path)?;
    Ok(rustix::fs::chmod(path, Mode::from_raw_mode(0o755))?)
}

fn create_file(path: &Path) -> std::io::Result<()> {
    std::fs::OpenOptions::new().create(true).append(true).open(path)?;
    Ok(rustix::fs::chmod(path, Mode::from_raw_mode(0o644))?)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(path: &str, kind: &str, fine: bool) {
        let source = HostPathVolumeSource { path: path.to_owned(), type_: Some(kind.to_owned()) };
        assert_eq!(apply(&source).is_ok(), fine, "{path} {kind}");
    }

    #[test]
    fn kinds_are_checked() {
        check("/proc", "Directory", true);
        check("/proc/self/stat", "Directory", false);
        check("/proc/self/stat", "File", true);
        check("/dev/null", "CharDevice", true);
        check("/nonexistent", "", true);
        check("/nonexistent", "Directory", false);
    }
}
