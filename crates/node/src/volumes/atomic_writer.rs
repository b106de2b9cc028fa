//! Writes a set of files so that readers see all old or all new ones; upstream's layout, which programs watch:
//! `<name> -> ..data/<name>`, `..data -> ..<time>`, and the files in `..<time>`.
//!
//! Input: target directory, files. Output: whether anything changed. Invariant: `..data` is switched by one rename;
//! equal content is not written again.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use jiff::Timestamp;
use podlife::payload::Files;
use rustix::fs::{Gid, Mode, Uid, chmod, chown};

use super::ownership::{apply_group, group_mode};

const DATA: &str = "..data";
const DATA_NEW: &str = "..data_tmp";

pub fn write_files(target: &Path, files: &Files, group: Option<u32>, now: Timestamp) -> std::io::Result<bool> {
    let old = std::fs::read_link(target.join(DATA)).ok();
    if let Some(old) = &old
        && is_equal(&target.join(old), files, group)
    {
        return Ok(false);
    }
    let fresh = format!("..{}.{:09}", now.strftime("%Y_%m_%d_%H_%M_%S"), now.subsec_nanosecond());
    let fresh_path = target.join(&fresh);
    std::fs::create_dir(&fresh_path)?;
    chmod(&fresh_path, Mode::from_raw_mode(0o755))?;
    for (path, file) in files {
        let path = fresh_path.join(path);
        if let Some(parent) = path.parent() {
            create_directories(&fresh_path, parent)?;
        }
        std::fs::write(&path, &file.bytes)?;
        // chmod, since the mode of open passes through the umask.
        chmod(&path, Mode::from_raw_mode(file.mode))?;
        if let Some(owner) = file.owner {
            chown(&path, Some(Uid::from_raw(owner)), None::<Gid>)?;
        }
    }
    if let Some(group) = group {
        apply_group(&fresh_path, group, true)?;
    }
    remove_if_there(&target.join(DATA_NEW))?;
    std::os::unix::fs::symlink(&fresh, target.join(DATA_NEW))?;
    std::fs::rename(target.join(DATA_NEW), target.join(DATA))?;
    link_visible(target, files)?;
    if let Some(old) = old {
        remove_if_there(&target.join(old))?;
    }
    Ok(true)
}

fn create_directories(root: &Path, directory: &Path) -> std::io::Result<()> {
    std::fs::create_dir_all(directory)?;
    for path in directory.ancestors().take_while(|path| *path != root) {
        chmod(path, Mode::from_raw_mode(0o755))?;
    }
    Ok(())
}

/// First segments of all paths: what is seen in the volume.
fn visible(files: &Files) -> BTreeSet<&str> {
    files.keys().filter_map(|path| path.split('/').next()).collect()
}

fn link_visible(target: &Path, files: &Files) -> std::io::Result<()> {
    let names = visible(files);
    for name in &names {
        let link = target.join(name);
        if std::fs::symlink_metadata(&link).is_err() {
            std::os::unix::fs::symlink(Path::new(DATA).join(name), &link)?;
        }
    }
    for entry in std::fs::read_dir(target)? {
        let entry = entry?;
        let name = entry.file_name();
        let stale = entry.file_type()?.is_symlink()
            && name != OsStr::new(DATA)
            && !name.to_str().is_some_and(|name| names.contains(name));
        if stale {
            remove_if_there(&entry.path())?;
        }
    }
    Ok(())
}

fn remove_if_there(path: &Path) -> std::io::Result<()> {
    let outcome = match std::fs::symlink_metadata(path) {
        Ok(metadata) if metadata.is_dir() => std::fs::remove_dir_all(path),
        Ok(_) => std::fs::remove_file(path),
        Err(error) => Err(error),
    };
    match outcome {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

fn is_equal(directory: &Path, files: &Files, group: Option<u32>) -> bool {
    let same = files.iter().all(|(path, file)| {
        let path = directory.join(path);
        let mode = std::fs::metadata(&path).map(|metadata| metadata.permissions().mode() & 0o777);
        mode.is_ok_and(|mode| mode == group_mode(file.mode, group))
            && std::fs::read(&path).is_ok_and(|bytes| bytes == file.bytes)
    });
    same && count_files(directory) == files.len()
}

fn count_files(directory: &Path) -> usize {
    let Ok(entries) = std::fs::read_dir(directory) else { return 0 };
    entries
        .flatten()
        .map(|entry| match entry.file_type() {
            Ok(kind) if kind.is_dir() => count_files(&entry.path()),
            _ => 1,
        })
        .sum()
}

#[cfg(test)]
mod tests {
    use super::*;
    use podlife::payload::File;

    fn files(pairs: &[(&str, &str)]) -> Files {
        let file = |text: &str| File { bytes: text.as_bytes().to_vec(), mode: 0o640, owner: None };
        pairs.iter().map(|(path, text)| ((*path).to_owned(), file(text))).collect()
    }

    #[test]
    fn replaces_all_at_once_and_only_when_needed() {
        let target = std::env::temp_dir().join(format!("holdfast-atomic-{}", std::process::id()));
        std::fs::create_dir_all(&target).unwrap();
        let at = |second| Timestamp::from_second(second).unwrap();
        let read = |path: &str| std::fs::read_to_string(target.join(path)).ok();
        assert!(write_files(&target, &files(&[("a", "1"), ("d/b", "2")]), None, at(1)).unwrap());
        assert_eq!((read("a").as_deref(), read("d/b").as_deref()), (Some("1"), Some("2")));
        assert!(!write_files(&target, &files(&[("a", "1"), ("d/b", "2")]), None, at(2)).unwrap());
        assert!(write_files(&target, &files(&[("a", "3")]), None, at(3)).unwrap());
        assert_eq!((read("a").as_deref(), read("d/b")), (Some("3"), None));
        let left = std::fs::read_dir(&target).unwrap().count();
        assert_eq!(left, 3, "a, ..data and one dated directory");
        std::fs::remove_dir_all(&target).unwrap();
    }
}
