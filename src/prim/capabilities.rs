//! `process.capabilities`: names to masks.

use crate::spec;
use crate::sys::cred::{self, CapMasks};
use crate::sys::process::prctl;
use crate::sys::{At, Call, Errno, Failure};
use caps::Capability;
use std::str::FromStr;

/// The five sets as bit masks.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Sets {
    /// Bounding.
    pub bounding: u64,
    /// Effective, permitted and inheritable.
    pub masks: CapMasks,
    /// Ambient.
    pub ambient: u64,
}

/// The bit of a capability by its name; engines write it in either case and, some, without `CAP_`.
pub fn bit(name: &str) -> Option<u64> {
    let upper = name.to_ascii_uppercase();
    let full = if upper.starts_with("CAP_") { upper } else { format!("CAP_{upper}") };
    Capability::from_str(&full).ok().map(|capability| 1 << capability.index())
}

/// All capabilities that this kernel knows, as a mask.
pub fn known() -> u64 {
    static KNOWN: std::sync::LazyLock<u64> = std::sync::LazyLock::new(|| {
        // prctl tells about each bit without a file; those that the kernel knows come first.
        let (mut known, mut unknown) = (0_u64, 64);
        while known + 1 < unknown {
            let middle = known.midpoint(unknown);
            match prctl(libc::PR_CAPBSET_READ, middle, 0) {
                Ok(_) => known = middle,
                Err(_) => unknown = middle,
            }
        }
        u64::MAX >> (63 - known)
    });
    *KNOWN
}

/// Whether the calling process has CAP_SYS_ADMIN, which mounts take.
pub fn may_mount() -> bool {
    cred::is_admin()
}

/// Whether the calling process may drop from its bounding set, and with it its groups: CAP_SETPCAP.
pub fn may_drop() -> bool {
    const SETPCAP: u64 = 1 << 8;
    cred::get_caps().is_ok_and(|caps| caps.effective & SETPCAP != 0)
}

/// Whether the calling process may give others a lower oom_score_adj than it was given: CAP_SYS_RESOURCE on the host.
pub fn may_lower_oom_score() -> bool {
    let bit = Capability::CAP_SYS_RESOURCE.index();
    cred::get_caps().is_ok_and(|caps| caps.effective >> bit & 1 == 1) && !crate::sys::inside_user_namespace()
}

/// The names of a mask's capabilities, lowest number first; bits without a name are left out.
pub fn names(mask: u64) -> Vec<String> {
    let mut named: Vec<Capability> = caps::all().into_iter().filter(|c| mask >> c.index() & 1 == 1).collect();
    named.sort_by_key(Capability::index);
    named.iter().map(ToString::to_string).collect()
}

/// Compiles the five sets, and names what this kernel or brig does not know: those are left out, as every runtime does.
pub fn compile(capabilities: &spec::Capabilities) -> (Sets, Vec<String>) {
    let mut unknown = Vec::new();
    let mut mask = |names: &[String]| {
        names.iter().fold(0, |all, name| match bit(name).filter(|bit| known() & bit != 0) {
            Some(bit) => all | bit,
            None => {
                if !unknown.contains(name) {
                    unknown.push(name.clone());
                }
                all
            }
        })
    };
    let mut sets = Sets {
        bounding: mask(&capabilities.bounding),
        masks: CapMasks {
            effective: mask(&capabilities.effective),
            permitted: mask(&capabilities.permitted),
            inheritable: mask(&capabilities.inheritable),
        },
        ambient: mask(&capabilities.ambient),
    };
    // The kernel takes no effective capability that is not permitted; what is not permitted is not to be had.
    sets.masks.effective &= sets.masks.permitted;
    (sets, unknown)
}

/// Drops from the bounding set what is not in `keep`. For the child: allocates nothing.
///
/// # Errors
/// `EPERM` without CAP_SETPCAP.
pub fn apply_bounding(keep: u64) -> Result<(), Failure> {
    for bit in 0..64 {
        if keep >> bit & 1 == 1 {
            continue;
        }
        match prctl(libc::PR_CAPBSET_DROP, bit, 0) {
            Ok(_) => {}
            // The first bit that the kernel does not know.
            Err(Errno::EINVAL) => break,
            // Without CAP_SETPCAP nothing can be dropped, which is well where nothing is there to drop.
            Err(_) if prctl(libc::PR_CAPBSET_READ, bit, 0) == Ok(0) => {}
            Err(errno) => return Err(Failure { call: Call::Prctl, errno }),
        }
    }
    Ok(())
}

/// Sets the other four sets. For the child: allocates nothing.
///
/// # Errors
/// `EPERM` when a set asks for more than the process may have.
pub fn apply(sets: &Sets) -> Result<(), Failure> {
    match cred::set_caps(sets.masks) {
        // A filter around this process may deny the call even where it changes nothing.
        Err(Errno::EPERM) if cred::get_caps().is_ok_and(|caps| caps == sets.masks) => {}
        other => other.at(Call::Capset)?,
    }
    prctl(libc::PR_CAP_AMBIENT, libc::PR_CAP_AMBIENT_CLEAR_ALL as u64, 0).at(Call::Prctl)?;
    for bit in (0..64).filter(|bit| sets.ambient >> bit & 1 == 1) {
        // An ambient capability has to be permitted and inheritable; one that is not is left out, as runc does.
        if sets.masks.permitted & sets.masks.inheritable & 1 << bit != 0 {
            prctl(libc::PR_CAP_AMBIENT, libc::PR_CAP_AMBIENT_RAISE as u64, bit).at(Call::Prctl)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_in_every_writing_and_unknown_ones_apart() {
        assert_eq!(bit("CAP_CHOWN"), Some(1));
        assert_eq!(bit("cap_kill"), Some(1 << 5));
        assert_eq!(bit("SYS_ADMIN"), Some(1 << 21));
        assert_eq!(bit("CAP_FLY"), None);
        let (sets, unknown) = compile(&spec::Capabilities {
            permitted: vec!["CAP_KILL".into()],
            effective: vec!["CAP_KILL".into(), "CAP_CHOWN".into()],
            bounding: vec!["CAP_FLY".into()],
            ambient: vec!["CAP_FLY".into()],
            ..Default::default()
        });
        assert_eq!(sets.masks, CapMasks { effective: 1 << 5, permitted: 1 << 5, inheritable: 0 });
        assert_eq!(unknown, ["CAP_FLY"]);
        assert_eq!(names(1 << 5 | 1), ["CAP_CHOWN", "CAP_KILL"]);
    }
}
