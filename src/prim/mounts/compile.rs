//! From an entry of `mounts` to a [`Mount`]: sorts the options, opens the source.

use super::options::{self, Options};
use super::{CopyUp, Mount, What, is_directory};
use crate::error::{Context, Error, Problem, Result, describe};
use crate::spec;
use crate::sys::mount::{FSCONFIG_VALUE_MAX, Tree};
use crate::sys::path::{self, Follow};
use crate::sys::{Errno, files};
use nix::fcntl::OFlag;
use std::cell::OnceCell;
use std::ffi::CString;
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path};

/// What a mount's compilation depends on besides its entry.
#[derive(Debug, Clone, Copy)]
pub struct Facts<'a> {
    /// The bundle, which relative sources are relative to.
    pub bundle: &'a Path,
    /// The propagation that every copy of the host's tree starts with; `None` where it stays a peer of the host's.
    pub base_propagation: Option<u64>,
    /// Whether the v2 tree is mounted anew: with a cgroup namespace of the container's it starts at its cgroup, else it is
    /// the host's whole tree, as runc and crun show it. In a user namespace that has no cgroup namespace the kernel
    /// refuses such a mount, and the container is shown its own cgroup.
    pub new_cgroup2: bool,
    /// Whether the host's cgroup tree is v2 alone.
    pub cgroup2: bool,
    /// Host directories of the container's cgroups: name of the v1 hierarchy (empty for v2) and path.
    pub cgroups: &'a [(String, String)],
    /// The SELinux label for new filesystems.
    pub label: Option<&'a str>,
    /// Whether sources are copied now; else it is left to the child.
    pub copy: bool,
}

/// Compiles the entry at `pointer`.
///
/// # Errors
/// A source that does not exist, options that contradict each other.
pub fn compile(entry: &spec::Mount, pointer: &str, facts: &Facts) -> Result<Mount> {
    let parsed = options::parse(&entry.options);
    // On / a copy or an overlay takes the place of root.path.
    let target = relative(&entry.destination).unwrap_or_default();
    let typ = entry.typ.as_deref().unwrap_or("");
    let shown = entry.options.join(",");
    let lower = entry.options.iter().find_map(|o| o.strip_prefix("lowerdir="));
    let from = source_of(entry).filter(|_| typ != "overlay").or(lower.map(Path::new));
    let target_follow = match parsed.no_symlinks && from == Some(&*entry.destination) {
        true => Follow::NoSymlinks,
        false => Follow::InRoot,
    };
    let plain = |what| Mount {
        target: target.clone(),
        what,
        attributes: parsed.attributes,
        recursive: parsed.recursive,
        propagation: parsed.propagation.clone(),
        shown: shown.clone(),
        target_follow,
        source_resolved: parsed.no_symlinks,
        attached: OnceCell::new(),
    };
    if parsed.remount {
        let other = parsed.data.first().map(String::as_str).or(parsed.superblock.first().copied());
        if let Some(option) = other.or((parsed.classic != 0).then_some("silent")) {
            let what = format!(
                "`{option}` can't be changed by a remount, which changes ro, nosuid and their like; set it on the first mount"
            );
            return Err(problem(pointer, "/options", &what));
        }
        return Ok(plain(What::Remount));
    }
    if parsed.bind.is_some() || typ == "bind" {
        return bind(entry, pointer, facts, &parsed, plain);
    }
    if typ == "overlay" && super::layer::is_wanted(&entry.options) {
        let lower = lower.ok_or_else(|| problem(pointer, "/options", "an overlay on the layer needs lowerdir"))?;
        let lower = c_string(pointer, &facts.bundle.join(lower).to_string_lossy())?;
        return Ok(plain(What::Layered { lower }));
    }
    if typ == "tmpfs" && super::layer::is_wanted(&entry.options) {
        let mode = parsed.data.iter().find_map(|option| option.strip_prefix("mode="));
        let mode = mode.map_or(Ok(0o1777), |mode| u32::from_str_radix(mode, 8));
        let mode = mode.ok().filter(|mode| *mode <= 0o1777);
        let mode = mode.ok_or_else(|| problem(pointer, "/options", "mode= takes an octal number up to 1777"))?;
        return match parsed.data.iter().find(|option| !option.starts_with("mode=") && *option != super::layer::OPTION) {
            Some(option) => {
                Err(problem(pointer, "/options", &format!("`{option}` can't be had for a part of the layer")))
            }
            None => Ok(plain(What::OnLayer { mode })),
        };
    }
    match typ {
        "" | "none" => Err(problem(pointer, "/type", "missing; a type of filesystem, or the option bind, is needed")),
        "cgroup" if !facts.cgroup2 => {
            let pair = |(name, path): &(String, String)| Ok((c_string(pointer, name)?, c_string(pointer, path)?));
            let hierarchies: Vec<_> =
                facts.cgroups.iter().filter(|(name, _)| !name.is_empty()).map(pair).collect::<Result<_>>()?;
            let links = links(&hierarchies);
            // The controllers' own data (`name=systemd`, `cpu`) has nothing to choose here: all hierarchies are shown.
            Ok(plain(What::Cgroups { hierarchies, links }))
        }
        "cgroup" | "cgroup2" => match facts.cgroups.iter().find(|(name, _)| name.is_empty()) {
            Some((_, path)) if !facts.new_cgroup2 => Ok(plain(What::Cgroup2(c_string(pointer, path)?))),
            _ => new(c"cgroup2".into(), entry, pointer, facts, &parsed, plain),
        },
        _ => new(c_string(pointer, typ)?, entry, pointer, facts, &parsed, plain),
    }
}

/// The source, if there is one; engines write `""` for none.
fn source_of(entry: &spec::Mount) -> Option<&Path> {
    entry.source.as_deref().filter(|source| !source.as_os_str().is_empty())
}

fn bind(
    entry: &spec::Mount,
    pointer: &str,
    facts: &Facts,
    parsed: &Options,
    plain: impl Fn(What) -> Mount,
) -> Result<Mount> {
    if let Some(option) = parsed.data.first() {
        return Err(problem(pointer, "/options", &format!("`{option}` is no option of a bind mount")));
    }
    let source = source_of(entry)
        .ok_or_else(|| problem(pointer, "/source", "missing; a bind mount needs a file or directory of the host"))?;
    let from = CString::new(facts.bundle.join(source).into_os_string().into_encoded_bytes())
        .map_err(|_| problem(pointer, "/source", "holds a NUL byte"))?;
    let context = || format!("{pointer}/source: open {}", from.to_string_lossy());
    // `rbind` is the engines' usual word; without it only the one mount is taken.
    let recursive = parsed.bind == Some(true);
    let tree = match facts.copy {
        now if parsed.no_symlinks => Tree::of_resolved(&from, recursive, now).during(context)?,
        true => Tree::take(None, &from, recursive).during(context)?,
        false => Tree::later(from.clone(), recursive),
    };
    let directory = match &tree {
        Tree::Made(made) => is_directory(made.as_fd()),
        Tree::Later(_, way, _) if way.resolved => {
            path::open_resolved(&from, OFlag::empty()).and_then(|seen| is_directory(seen.as_fd()))
        }
        Tree::Later(..) => files::open(None, &from, OFlag::O_PATH).and_then(|seen| is_directory(seen.as_fd())),
    };
    let directory = directory.during(context)?;
    let mut made = plain(What::Bind { tree, directory, source: from });
    if let Some(base) = facts.base_propagation {
        made.propagation.insert(0, (base, true));
    }
    Ok(made)
}

fn new(
    fstype: CString,
    entry: &spec::Mount,
    pointer: &str,
    facts: &Facts,
    parsed: &Options,
    plain: impl Fn(What) -> Mount,
) -> Result<Mount> {
    let name = fstype.to_string_lossy().into_owned();
    if parsed.copy_up && name != "tmpfs" {
        return Err(problem(pointer, "/options", "tmpcopyup is for tmpfs alone"));
    }
    if parsed.idmap.is_some() || !entry.uid_mappings.is_empty() || !entry.gid_mappings.is_empty() {
        return Err(problem(pointer, "/uidMappings", "ID-mapped mounts are bind mounts; add the option bind"));
    }
    let source = source_of(entry).unwrap_or(Path::new(&name));
    // Filesystems whose files the policy labels itself: a mount option would be refused, or mean all mounts of the superblock.
    let label = facts.label.filter(|_| !matches!(name.as_str(), "proc" | "sysfs" | "cgroup2" | "mqueue"));
    let mut data = parsed.data.clone();
    data.extend(label.map(|label| format!("context={label}")));
    let too_long = |o: &String| o.split_once('=').is_some_and(|(_, v)| v.len() > FSCONFIG_VALUE_MAX);
    // fsopen passes the read-only flag to the superblock, which proc, sysfs and cgroup2 share with other mounts, and which
    // a tmpfs could not be filled with.
    let own_superblock = !matches!(name.as_str(), "proc" | "sysfs" | "cgroup2" | "tmpfs" | "mqueue" | "devpts");
    let read_only = (parsed.attributes.set | parsed.recursive.set) & libc::MOUNT_ATTR_RDONLY != 0;
    if parsed.classic != 0 || data.iter().any(too_long) || source.as_os_str().len() > FSCONFIG_VALUE_MAX {
        if parsed.copy_up {
            return Err(problem(
                pointer,
                "/options",
                "tmpcopyup does not go with silent, iversion or over-long options",
            ));
        }
        // Here commas part options, which a context may hold, too; quotes keep it whole, and only mount(2) takes them off.
        if let (Some(label), Some(last)) = (label, data.last_mut()) {
            *last = format!("context=\"{label}\"");
        }
        let flags = parsed.classic | classic_flags(parsed, read_only && own_superblock);
        let what = What::Classic {
            fstype,
            source: c_string(pointer, &source.to_string_lossy())?,
            flags,
            data: c_string(pointer, &data.join(","))?,
        };
        return Ok(plain(what));
    }
    let mut options = vec![(CString::from(c"source"), Some(c_string(pointer, &source.to_string_lossy())?))];
    for option in &data {
        let (key, value) = option.split_once('=').map_or((option.as_str(), None), |(k, v)| (k, Some(v)));
        options.push((c_string(pointer, key)?, value.map(|v| c_string(pointer, v)).transpose()?));
    }
    let flags = parsed.superblock.iter().copied().chain((read_only && own_superblock).then_some("ro"));
    for flag in flags {
        options.push((c_string(pointer, flag)?, None));
    }
    let told = |key: &str| data.iter().any(|o| o.starts_with(key));
    let copy_up = match parsed.copy_up {
        true if told("mode=") || told("uid=") || told("gid=") => CopyUp::Contents,
        true => CopyUp::All,
        false if name == "tmpfs" && !told("mode=") => CopyUp::Mode,
        false => CopyUp::No,
    };
    Ok(plain(What::New { fstype, options, copy_up }))
}

/// Superblock flags in the words of mount(2).
fn classic_flags(parsed: &Options, read_only: bool) -> u64 {
    let flag = |name: &&str| match *name {
        "sync" => libc::MS_SYNCHRONOUS,
        "dirsync" => libc::MS_DIRSYNC,
        "mand" => libc::MS_MANDLOCK,
        "lazytime" => libc::MS_LAZYTIME,
        _ => 0,
    };
    parsed.superblock.iter().map(flag).fold(0, |all, f| all | f) | if read_only { libc::MS_RDONLY } else { 0 }
}

/// Controllers that share a hierarchy (`cpu,cpuacct`) are also found by their own names.
fn links(hierarchies: &[(CString, CString)]) -> Vec<(CString, CString)> {
    let mut links = Vec::new();
    for (name, _) in hierarchies {
        let text = name.to_string_lossy();
        if text.contains(',') {
            links.extend(text.split(',').filter_map(|part| Some((CString::new(part).ok()?, name.clone()))));
        }
    }
    links
}

/// A destination as a path below the root: no leading slash, no `.`, `..` taken lexically. `None` for the root itself.
pub(crate) fn relative(path: &Path) -> Option<CString> {
    let mut parts: Vec<&[u8]> = Vec::new();
    for component in path.components() {
        match component {
            Component::Normal(name) => parts.push(name.as_bytes()),
            Component::ParentDir => drop(parts.pop()),
            _ => {}
        }
    }
    if parts.is_empty() { None } else { CString::new(parts.join(&b'/')).ok() }
}

fn problem(pointer: &str, field: &str, what: &str) -> Error {
    Error::problems("config.json", &[Problem::new(format!("{pointer}{field}"), what)])
}

fn c_string(pointer: &str, text: &str) -> Result<CString> {
    CString::new(text).map_err(|_| problem(pointer, "", &describe(Errno::EINVAL)))
}

/// The base propagation of `rootfsPropagation`: what a copy of the host's tree is given first. A new tree is a peer of the
/// host's; only `shared` keeps it so.
pub fn base_propagation(word: &str) -> Option<u64> {
    match word {
        "shared" | "rshared" => None,
        "private" | "rprivate" | "unbindable" | "runbindable" => Some(libc::MS_PRIVATE),
        _ => Some(libc::MS_SLAVE),
    }
}
