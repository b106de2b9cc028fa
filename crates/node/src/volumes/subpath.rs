//! subPath mounts: one file or directory of a volume, reached without leaving the volume.
//!
//! Input: the volume's directory, a relative path. Output: a bind mount of exactly the inode that was checked, at
//! `<pod dir>/volume-subpaths/<volume>/<container>/<index>`. Invariant: no symlink, `..` or race inside the volume can
//! lead outside: the kernel resolves beneath the volume, and the mount goes through the opened file.

use std::os::fd::{AsRawFd as _, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{FileType, Mode, OFlags, ResolveFlags, fstat, mkdirat, openat2};
use rustix::mount::{UnmountFlags, mount_bind_recursive, unmount};

/// Opens beneath; refuses every way out.
fn open_beneath(root: &OwnedFd, path: &Path) -> rustix::io::Result<OwnedFd> {
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS;
    openat2(root, path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty(), resolve)
}

/// Binds `sub_path` of `volume` onto `target` and returns `target`. Missing directories are made in the volume.
pub fn bind_subpath(volume: &Path, sub_path: &str, target: &Path) -> std::io::Result<PathBuf> {
    let root = rustix::fs::open(volume, OFlags::PATH | OFlags::CLOEXEC, Mode::empty())?;
    let source = match open_beneath(&root, Path::new(sub_path)) {
        Err(rustix::io::Errno::NOENT) => make_directories(&root, Path::new(sub_path))?,
        other => other?,
    };
    let is_directory = FileType::from_raw_mode(fstat(&source)?.st_mode) == FileType::Directory;
    if target.symlink_metadata().is_ok() {
        release(target)?;
    }
    if let Some(parent) = target.parent() {
        std::fs::create_dir_all(parent)?;
    }
    if is_directory {
        std::fs::create_dir_all(target)?;
    } else {
        std::fs::File::create(target)?;
    }
    mount_bind_recursive(format!("/proc/self/fd/{}", source.as_raw_fd()), target)?;
    Ok(target.to_path_buf())
}

/// An earlier instance of the container left its mount here.
fn release(target: &Path) -> std::io::Result<()> {
    match unmount(target, UnmountFlags::DETACH | UnmountFlags::NOFOLLOW) {
        // Not a mount point.
        Ok(()) | Err(rustix::io::Errno::INVAL) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// As the volume's own mode, so that a group set by fsGroup may write there too.
fn make_directories(root: &OwnedFd, path: &Path) -> std::io::Result<OwnedFd> {
    let mode = Mode::from_raw_mode(fstat(root)?.st_mode & 0o7777);
    let mut done = PathBuf::new();
    for part in path.components() {
        let parent = if done.as_os_str().is_empty() { None } else { Some(open_beneath(root, &done)?) };
        let made = mkdirat(parent.as_ref().unwrap_or(root), part.as_os_str(), mode);
        done.push(part);
        match made {
            // The umask has cut the mode; the descriptor, not the name, is what was just made beneath the volume.
            Ok(()) => {
                let fresh = open_beneath(root, &done)?;
                rustix::fs::chmod(format!("/proc/self/fd/{}", fresh.as_raw_fd()), mode)?;
            }
            Err(rustix::io::Errno::EXIST) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(open_beneath(root, &done)?)
}
