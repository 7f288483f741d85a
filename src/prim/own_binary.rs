//! Keeps brig's own binary from being overwritten through /proc/PID/exe by the container that it sets up (CVE-2019-5736): the
//! commands that put a child of brig into a container run from a read-only view of the binary.
//!
//! Where mounts may be made, that is a detached, read-only copy of the mount that the binary is on, put in its place without
//! starting anew where the kernel can. Else the binary is copied into a sealed memfd. Where nobody but the host's root may
//! write to the binary, and brig does not run as that, there is nothing to protect.

use crate::error::{Context, Error, Result};
use crate::sys::mount::{self, Attributes};
use crate::sys::{CArray, Errno, cred, files, own_file, process};
use nix::fcntl::{FcntlArg, OFlag, SealFlag, fcntl};
use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::sys::stat::fstat;
use nix::sys::statvfs::{FsFlags, fstatvfs};
use nix::unistd::geteuid;
use std::ffi::CString;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStringExt;

/// Makes sure that the calling program, of one thread as yet, runs from a read-only view of its binary: returns when it does,
/// else starts it anew from one, with the same arguments and environment.
///
/// # Errors
/// Neither way works.
pub fn protect() -> Result<()> {
    let own = files::open(None, c"/proc/self/exe", OFlag::O_PATH).during(|| "open the own binary".into())?;
    if is_protected(&own) {
        return Ok(());
    }
    let view = match read_only_view(&own) {
        Ok(view) if moved_onto(&view).is_ok() => return Ok(()),
        Ok(view) => view,
        Err(_) => sealed_copy().during(|| "copy the own binary".into())?,
    };
    let strings = |values: Vec<std::ffi::OsString>| {
        CArray::new(values.into_iter().filter_map(|v| CString::new(v.into_vec()).ok()).collect())
    };
    let environment = std::env::vars_os().map(|(mut key, value)| {
        key.push("=");
        key.push(value);
        key
    });
    let errno =
        process::fexecve(view.as_fd(), &strings(std::env::args_os().collect()), &strings(environment.collect()));
    Err(Error::os("start the own binary from a read-only view", errno))
}

fn moved_onto(view: &OwnedFd) -> Result<(), Errno> {
    let path = CString::new(format!("/proc/self/fd/{}", view.as_raw_fd())).map_err(|_| Errno::EINVAL)?;
    own_file::run_from(files::open(None, &path, OFlag::O_RDONLY)?.as_fd())
}

/// A binary on a read-only mount, in a sealed memfd, or out of reach for whoever is not root on the host.
fn is_protected(own: &OwnedFd) -> bool {
    // The group's bits are the mask of an access control list where there is one (acl(5)). Who has capabilities may be able to
    // map root into a container.
    let powerless = || !geteuid().is_root() && cred::get_caps().is_ok_and(|caps| caps.effective == 0);
    if powerless() && fstat(own).is_ok_and(|stat| stat.st_uid == 0 && stat.st_mode & 0o022 == 0) {
        return true;
    }
    if fstatvfs(own).is_ok_and(|stat| stat.flags().contains(FsFlags::ST_RDONLY)) {
        return true;
    }
    // An O_PATH fd answers no seals; only a memfd is worth another look.
    std::fs::read_link("/proc/self/exe").is_ok_and(|path| path.as_os_str().to_string_lossy().starts_with("/memfd:brig"))
        && files::open(None, c"/proc/self/exe", OFlag::O_RDONLY).is_ok_and(|file| {
            fcntl(&file, FcntlArg::F_GET_SEALS)
                .is_ok_and(|seals| SealFlag::from_bits_truncate(seals).contains(seals_wanted()))
        })
}

fn seals_wanted() -> SealFlag {
    SealFlag::F_SEAL_SEAL | SealFlag::F_SEAL_SHRINK | SealFlag::F_SEAL_GROW | SealFlag::F_SEAL_WRITE
}

fn read_only_view(own: &OwnedFd) -> Result<OwnedFd, Errno> {
    let view = mount::clone_tree(Some(own.as_fd()), c"", false)?;
    let read_only = Attributes { set: libc::MOUNT_ATTR_RDONLY, ..Attributes::default() };
    mount::set_attributes(view.as_fd(), read_only, false, None)?;
    Ok(view)
}

fn sealed_copy() -> std::io::Result<OwnedFd> {
    let copy = memfd_create(c"brig", MFdFlags::MFD_CLOEXEC | MFdFlags::MFD_ALLOW_SEALING)?;
    let own = files::open(None, c"/proc/self/exe", OFlag::O_RDONLY)?;
    files::copy(own.as_fd(), copy.as_fd())?;
    fcntl(&copy, FcntlArg::F_ADD_SEALS(seals_wanted()))?;
    Ok(copy)
}
