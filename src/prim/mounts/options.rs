//! The options of one entry of `mounts`, sorted by what they are: attributes of the mount (for itself or for all below
//! it), flags of the filesystem, propagation, brig's own doings, and data for the filesystem.

use crate::sys::mount::Attributes;

/// What the options of a mount ask for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Options {
    /// `bind` (false) or `rbind` (true).
    pub bind: Option<bool>,
    /// `remount`: change the mount that is there.
    pub remount: bool,
    /// Attributes of the mount itself.
    pub attributes: Attributes,
    /// Attributes of the mount and all below it (`rro` and the like).
    pub recursive: Attributes,
    /// Propagation types in order, each for the mount (false) or for all below it, too (true).
    pub propagation: Vec<(u64, bool)>,
    /// Flags of the superblock, by their names in fsconfig(2).
    pub superblock: Vec<&'static str>,
    /// Flags that only mount(2) can carry (`MS_I_VERSION`, `MS_SILENT`).
    pub classic: u64,
    /// `idmap` (false) or `ridmap` (true).
    pub idmap: Option<bool>,
    /// `tmpcopyup`: a tmpfs starts with what the directory below it holds.
    pub copy_up: bool,
    /// [`NOFOLLOW`].
    pub no_symlinks: bool,
    /// The rest, for the filesystem, in order.
    pub data: Vec<String>,
}

/// The option of brig's own for sources that were resolved before: a symlink on the way to the source of a bind mount or the
/// lower directory of an overlay, or to a destination that is the same path, is an error (`ELOOP`), as somebody has put it
/// there since.
pub const NOFOLLOW: &str = "x-brig.nofollow";

#[derive(Clone, Copy)]
enum Means {
    Nothing,
    Bind(bool),
    Remount,
    Set(u64),
    Clear(u64),
    /// One of the access-time modes, which exclude each other.
    Atime(u64),
    Propagation(u64, bool),
    Superblock(&'static str),
    Classic(u64),
    Idmap(bool),
    CopyUp,
}

use Means::{Atime, Bind, Classic, Clear, CopyUp, Idmap, Nothing, Propagation, Remount, Set, Superblock};
use libc::{
    MOUNT_ATTR__ATIME as ATIME, MOUNT_ATTR_NOATIME as NOATIME, MOUNT_ATTR_NODEV as NODEV,
    MOUNT_ATTR_NODIRATIME as NODIRATIME, MOUNT_ATTR_NOEXEC as NOEXEC, MOUNT_ATTR_NOSUID as NOSUID,
    MOUNT_ATTR_NOSYMFOLLOW as NOSYMFOLLOW, MOUNT_ATTR_RDONLY as RDONLY, MOUNT_ATTR_RELATIME as RELATIME,
    MOUNT_ATTR_STRICTATIME as STRICTATIME, MS_I_VERSION, MS_PRIVATE, MS_SHARED, MS_SILENT, MS_SLAVE, MS_UNBINDABLE,
};

/// Every option that is not data (runtime-spec 1.3, config.md, "Linux mount options"), sorted by name.
const TABLE: &[(&str, Means)] = &[
    ("async", Superblock("async")),
    ("atime", Clear(NOATIME)),
    ("bind", Bind(false)),
    ("defaults", Nothing),
    ("dev", Clear(NODEV)),
    ("diratime", Clear(NODIRATIME)),
    ("dirsync", Superblock("dirsync")),
    ("exec", Clear(NOEXEC)),
    ("idmap", Idmap(false)),
    ("iversion", Classic(MS_I_VERSION)),
    ("lazytime", Superblock("lazytime")),
    ("loud", Nothing),
    ("mand", Superblock("mand")),
    ("noatime", Atime(NOATIME)),
    ("nodev", Set(NODEV)),
    ("nodiratime", Set(NODIRATIME)),
    ("noexec", Set(NOEXEC)),
    ("noiversion", Nothing),
    ("nolazytime", Superblock("nolazytime")),
    ("nomand", Superblock("nomand")),
    ("norelatime", Atime(STRICTATIME)),
    ("nostrictatime", Atime(RELATIME)),
    ("nosuid", Set(NOSUID)),
    ("nosymfollow", Set(NOSYMFOLLOW)),
    ("private", Propagation(MS_PRIVATE, false)),
    ("ratime", Clear(NOATIME)),
    ("rbind", Bind(true)),
    ("rdev", Clear(NODEV)),
    ("rdiratime", Clear(NODIRATIME)),
    ("relatime", Atime(RELATIME)),
    ("remount", Remount),
    ("rexec", Clear(NOEXEC)),
    ("ridmap", Idmap(true)),
    ("rnoatime", Atime(NOATIME)),
    ("rnodev", Set(NODEV)),
    ("rnodiratime", Set(NODIRATIME)),
    ("rnoexec", Set(NOEXEC)),
    ("rnorelatime", Atime(STRICTATIME)),
    ("rnostrictatime", Atime(RELATIME)),
    ("rnosuid", Set(NOSUID)),
    ("rnosymfollow", Set(NOSYMFOLLOW)),
    ("ro", Set(RDONLY)),
    ("rprivate", Propagation(MS_PRIVATE, true)),
    ("rrelatime", Atime(RELATIME)),
    ("rro", Set(RDONLY)),
    ("rrw", Clear(RDONLY)),
    ("rshared", Propagation(MS_SHARED, true)),
    ("rslave", Propagation(MS_SLAVE, true)),
    ("rstrictatime", Atime(STRICTATIME)),
    ("rsuid", Clear(NOSUID)),
    ("rsymfollow", Clear(NOSYMFOLLOW)),
    ("runbindable", Propagation(MS_UNBINDABLE, true)),
    ("rw", Clear(RDONLY)),
    ("shared", Propagation(MS_SHARED, false)),
    ("silent", Classic(MS_SILENT)),
    ("slave", Propagation(MS_SLAVE, false)),
    ("strictatime", Atime(STRICTATIME)),
    ("suid", Clear(NOSUID)),
    ("symfollow", Clear(NOSYMFOLLOW)),
    ("sync", Superblock("sync")),
    ("tmpcopyup", CopyUp),
    ("unbindable", Propagation(MS_UNBINDABLE, false)),
];

/// The names of all options that are not data, for the features document.
pub fn names() -> impl Iterator<Item = &'static str> {
    TABLE.iter().map(|(name, _)| *name)
}

/// Whether an attribute's name is one for the mount and all below it: `rro`, but not `ro`, `remount` or `relatime`.
fn is_recursive(name: &str) -> bool {
    name.starts_with('r') && !matches!(name, "ro" | "rw" | "relatime")
}

/// Sorts a mount's options; a later one overrides an earlier one.
pub fn parse(options: &[String]) -> Options {
    let mut parsed = Options::default();
    for option in options {
        if option == NOFOLLOW {
            parsed.no_symlinks = true;
            continue;
        }
        let Ok(found) = TABLE.binary_search_by_key(&option.as_str(), |(name, _)| name) else {
            // Engines write mount data both as single options and comma-joined.
            parsed.data.extend(option.split(',').filter(|o| !o.is_empty()).map(str::to_owned));
            continue;
        };
        let attributes = if is_recursive(option) { &mut parsed.recursive } else { &mut parsed.attributes };
        match TABLE[found].1 {
            Nothing => {}
            Bind(recursive) => parsed.bind = Some(recursive || parsed.bind == Some(true)),
            Remount => parsed.remount = true,
            Set(bit) => {
                attributes.set |= bit;
                attributes.clear &= !bit;
            }
            // The access-time modes are a number, not bits: they are set only after the old one is cleared.
            Clear(NOATIME) => {
                attributes.set = attributes.set & !ATIME | RELATIME;
                attributes.clear |= ATIME;
            }
            Clear(bit) => {
                attributes.set &= !bit;
                attributes.clear |= bit;
            }
            Atime(mode) => {
                attributes.set = attributes.set & !ATIME | mode;
                attributes.clear |= ATIME;
            }
            Propagation(kind, recursive) => parsed.propagation.push((kind, recursive)),
            Superblock(name) => parsed.superblock.push(name),
            Classic(flag) => parsed.classic |= flag,
            Idmap(recursive) => parsed.idmap = Some(recursive),
            CopyUp => parsed.copy_up = true,
        }
    }
    parsed
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(words: &[&str]) -> Options {
        parse(&words.iter().map(ToString::to_string).collect::<Vec<_>>())
    }

    #[test]
    fn the_table_is_sorted() {
        assert!(TABLE.is_sorted_by_key(|(name, _)| name));
    }

    #[test]
    fn later_options_win_and_recursive_ones_stand_apart() {
        let parsed = options(&["ro", "nosuid", "rw", "rro", "rnoexec"]);
        assert_eq!(parsed.attributes, Attributes { set: NOSUID, clear: RDONLY, propagation: 0 });
        assert_eq!(parsed.recursive, Attributes { set: RDONLY | NOEXEC, clear: 0, propagation: 0 });
    }

    #[test]
    fn access_times_exclude_each_other() {
        let parsed = options(&["noatime", "strictatime"]);
        assert_eq!(parsed.attributes, Attributes { set: STRICTATIME, clear: ATIME, propagation: 0 });
        assert_eq!(options(&["relatime"]).attributes, Attributes { set: 0, clear: ATIME, propagation: 0 });
        assert_eq!(options(&["rrelatime"]).recursive, Attributes { set: 0, clear: ATIME, propagation: 0 });
        assert_eq!(options(&["relatime"]).recursive, Attributes::default());
    }

    #[test]
    fn the_rest_is_data_in_order() {
        let parsed =
            options(&["mode=755", "rbind", "bind", "size=65536k,uid=1", "private", "rslave", "tmpcopyup", "ridmap"]);
        assert_eq!(parsed.data, ["mode=755", "size=65536k", "uid=1"]);
        assert_eq!(parsed.bind, Some(true));
        assert_eq!(parsed.propagation, [(MS_PRIVATE, false), (MS_SLAVE, true)]);
        assert!(parsed.copy_up && !parsed.no_symlinks);
        assert_eq!(options(&[NOFOLLOW]), Options { no_symlinks: true, ..Options::default() });
        assert_eq!(parsed.idmap, Some(true));
    }
}
