//! fsGroup: files of a volume belong to the pod's group. Input: a directory, the group. Output: changed owners and modes.
//!
//! Invariant: symlinks are changed themselves, never followed.

use std::path::Path;

use k8s_openapi::api::core::v1::Pod;
use podlife::spec::pod_spec;
use rustix::fs::{AtFlags, CWD, FileType, Gid, Mode, chmod, chownat, statat};

/// Group bits added: to files that may be written, to those that may not, and to directories.
const READ_WRITE: u32 = 0o660;
const READ_ONLY: u32 = 0o440;
const DIRECTORY: u32 = 0o2110;

pub fn fs_group(pod: &Pod) -> Option<u32> {
    pod_spec(pod).security_context.as_ref().and_then(|context| context.fs_group).and_then(|g| u32::try_from(g).ok())
}

/// The mode of a file of a content volume under fsGroup.
pub fn group_mode(mode: u32, group: Option<u32>) -> u32 {
    if group.is_some() { mode | READ_ONLY } else { mode }
}

/// The volume's own directory, whose files are written one by one elsewhere.
pub fn apply_group_to_root(path: &Path, group: u32) -> std::io::Result<()> {
    chownat(CWD, path, None, Some(Gid::from_raw(group)), AtFlags::SYMLINK_NOFOLLOW)?;
    let stat = statat(CWD, path, AtFlags::SYMLINK_NOFOLLOW)?;
    Ok(chmod(path, Mode::from_raw_mode((stat.st_mode & 0o7777) | READ_ONLY | DIRECTORY))?)
}

/// Changes the tree at `path`, itself included.
pub fn apply_group(path: &Path, group: u32, read_only: bool) -> std::io::Result<()> {
    let stat = statat(CWD, path, AtFlags::SYMLINK_NOFOLLOW)?;
    let kind = FileType::from_raw_mode(stat.st_mode);
    chownat(CWD, path, None, Some(Gid::from_raw(group)), AtFlags::SYMLINK_NOFOLLOW)?;
    if kind == FileType::Symlink {
        return Ok(());
    }
    let base = if read_only { READ_ONLY } else { READ_WRITE };
    let bits = if kind == FileType::Directory { base | DIRECTORY } else { base };
    chmod(path, Mode::from_raw_mode((stat.st_mode & 0o7777) | bits))?;
    if kind == FileType::Directory {
        for entry in std::fs::read_dir(path)? {
            apply_group(&entry?.path(), group, read_only)?;
        }
    }
    Ok(())
}
