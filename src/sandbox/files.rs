//! Which files a policy hides, protects and opens: globs expanded, secrets and start-up files found.

use super::policy::{Policy, View, Workdir};
use crate::error::{Error, Problem, Result};
use std::collections::BTreeSet;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

/// Keys and passwords, hidden unless the policy opens them. `~` is the caller's home directory.
const SECRETS: &[&str] = &[
    "/etc/shadow",
    "/etc/shadow-",
    "/etc/gshadow",
    "/etc/gshadow-",
    "/etc/sudoers",
    "/etc/sudoers.d",
    "/etc/ssl/private",
    "/etc/ssh/ssh_host_*_key",
    "/etc/krb5.keytab",
    "~/.ssh",
    "~/.gnupg",
    "~/.aws",
    "~/.azure",
    "~/.config/gcloud",
    "~/.config/gh",
    "~/.kube",
    "~/.docker/config.json",
    "~/.netrc",
    "~/.git-credentials",
    "~/.pgpass",
    "~/.password-store",
    "~/.local/share/keyrings",
];

/// Files that start-up scripts and tools run or trust, by name, wherever they are.
const STARTUP: &[&str] = &[
    ".gitconfig",
    ".bashrc",
    ".bash_profile",
    ".profile",
    ".zshrc",
    ".zprofile",
    ".zshenv",
    ".zlogin",
    ".npmrc",
    ".yarnrc",
    ".yarnrc.yml",
    ".mcp.json",
    ".mcp-settings.json",
    ".vscode",
    ".idea",
];

/// Such files by a path of two names: directory and what is in it. `commondir` says where the rest of a repository is, hooks
/// and all, and `config.worktree` is read besides `config` (gitrepository-layout(5)).
const NESTED: &[(&str, &str)] = &[
    (".git", "hooks"),
    (".git", "config"),
    (".git", "commondir"),
    (".git", "config.worktree"),
    (".claude", "commands"),
];

/// Directories of a repository that hold git directories of their own, at any depth, and what is in those.
const INNER: &[(&str, &[&str])] = &[
    ("modules", &["hooks", "config", "commondir", "config.worktree"]),
    ("worktrees", &["commondir", "config.worktree"]),
];

/// How deep a submodule's name goes at most; what is below is protected as a whole.
const INNER_DEPTH: u32 = 8;

/// What a placeholder of this name holds. An empty `commondir` is an error to git; this one leads where none does.
pub(super) fn content(path: &Path) -> &'static str {
    if path.file_name().is_some_and(|name| name == "commondir") { ".\n" } else { "" }
}

/// Those of these names that are directories, and what they are in.
const DIRECTORIES: &[&str] = &[".vscode", ".idea", ".git", "hooks", ".claude", "commands"];

/// Whether a protected name is a directory's.
pub(super) fn is_directory(path: &Path) -> bool {
    path.file_name().is_some_and(|name| DIRECTORIES.iter().any(|d| name == *d))
}

/// Whether a protected name is that of a directory in which only some names are.
pub(super) fn is_outer(path: &Path) -> bool {
    path.file_name().is_some_and(|name| NESTED.iter().any(|(outer, _)| name == *outer))
}

/// Whether a path's name is one of those that are protected.
pub(super) fn is_protected_name(path: &Path) -> bool {
    let named = |name: &str| path.file_name().is_some_and(|own| own == name);
    STARTUP.iter().any(|name| named(name)) || NESTED.iter().any(|(outer, inner)| named(outer) || named(inner))
}

/// Directories that are never looked into for such files.
const SKIPPED: &[&str] = &["node_modules", "target", ".cache", "proc", "sys", "dev"];

/// How many directories are looked into at most.
const DIRECTORIES_MAX: usize = 4096;

/// A policy's files on this host.
#[derive(Debug, Default)]
pub struct Resolved {
    /// What may not be read.
    pub hidden: Vec<PathBuf>,
    /// What may not be written, within what may.
    pub protected: Vec<PathBuf>,
    /// What may be written for real.
    pub writable: Vec<PathBuf>,
    /// What `allow_read` opens.
    pub readable: Vec<PathBuf>,
    /// Protected names that are not there, directly in what may be written for real; directories before what is in them.
    pub placeholders: Vec<PathBuf>,
    /// Those of them that are directories in which only some names are protected, and are written for real.
    pub outer: Vec<PathBuf>,
    /// Symlinks that are protected or have protected names: what they lead to is in `protected`, and they are not to lead elsewhere.
    pub links: Vec<PathBuf>,
    /// Directories that are written but stay in their place, since what is in them is protected there.
    pub pinned: Vec<PathBuf>,
    /// Patterns that match nothing, and the like.
    pub notes: Vec<String>,
}

/// Looks the policy's paths and globs up.
///
/// With `commit`, what goes to the writable layer will be real in the end, and is protected like what is real at once.
///
/// # Errors
/// A pattern that is none, with its pointer; a path to be written that is not there.
pub fn resolve(policy: &Policy, cwd: &Path, commit: bool) -> Result<Resolved> {
    let files = &policy.files;
    let mut found = Resolved::default();
    let mut problems = Vec::new();
    if !matches!(files.view, View::Host) {
        return in_root(policy);
    }
    for (index, pattern) in files.allow_read.iter().enumerate() {
        let at = format!("/files/allow_read/{index}");
        found.readable.extend(expand(pattern, cwd, &at, &mut found.notes, &mut problems));
    }
    found.hidden.extend(secrets());
    let opened = |path: &Path| found.readable.iter().any(|open| path.starts_with(open));
    found.hidden.retain(|path| !opened(path));
    for (index, pattern) in files.deny_read.iter().enumerate() {
        let at = format!("/files/deny_read/{index}");
        found.hidden.extend(expand(pattern, cwd, &at, &mut found.notes, &mut problems));
    }
    for (index, pattern) in files.allow_write.iter().enumerate() {
        let at = format!("/files/allow_write/{index}");
        let matches = expand(pattern, cwd, &at, &mut Vec::new(), &mut problems);
        if matches.is_empty() && problems.is_empty() {
            problems.push(Problem::new(at, format!("{pattern} is not there; make it first")));
        }
        found.writable.extend(matches);
    }
    for (index, pattern) in files.deny_write.iter().enumerate() {
        let at = format!("/files/deny_write/{index}");
        // Nor is a link to be led elsewhere.
        found.links.extend(Some(cwd.join(pattern)).filter(|path| path.is_symlink()));
        found.protected.extend(expand(pattern, cwd, &at, &mut found.notes, &mut problems));
    }
    if !problems.is_empty() {
        return Err(Error::problems("the policy", &problems));
    }
    // What is named is not to be had anew in the same place, either.
    let tops: Vec<_> =
        found.writable.iter().cloned().chain((files.workdir == Workdir::Write).then(|| cwd.to_owned())).collect();
    let ways = found.protected.iter().flat_map(|path| {
        let top = tops.iter().filter(|top| path.starts_with(top)).min_by_key(|top| top.as_os_str().len());
        top.into_iter().flat_map(|top| way(path, top))
    });
    found.pinned = ways.collect();
    if files.protect {
        let real =
            (files.workdir == Workdir::Write || commit && files.workdir == Workdir::Overlay).then(|| cwd.to_owned());
        let later = files.overlay.iter().filter(|_| commit).filter_map(|dir| std::fs::canonicalize(dir).ok());
        for dir in found.writable.iter().cloned().chain(real).chain(later).collect::<BTreeSet<_>>() {
            protect(&dir, files.protect_depth, files.allow_git_config, &mut found);
        }
        // Over an overlay such a mount would be the real directory. There, overlayfs itself refuses to rename what is below.
        let cwd = (files.workdir == Workdir::Overlay).then(|| cwd.to_owned());
        let overlays: Vec<_> =
            files.overlay.iter().filter_map(|dir| std::fs::canonicalize(dir).ok()).chain(cwd).collect();
        let real = |path: &PathBuf| {
            let within = |dirs: &[PathBuf]| dirs.iter().any(|dir| path.starts_with(dir));
            within(&found.writable) || !within(&overlays)
        };
        found.outer = found.placeholders.iter().filter(|path| is_outer(path) && real(path)).cloned().collect();
        let pinned = std::mem::take(&mut found.pinned);
        found.pinned = pinned.into_iter().filter(real).collect();
    }
    // One mount is enough for what is below another.
    for list in [&mut found.hidden, &mut found.protected, &mut found.writable, &mut found.readable, &mut found.pinned] {
        list.sort();
        list.dedup();
    }
    Ok(found)
}

/// The secrets that are there. One look at each, and at the way there only once: this is done at every start.
fn secrets() -> Vec<PathBuf> {
    let home = std::fs::canonicalize(home()).ok();
    let mut found = Vec::new();
    for pattern in SECRETS {
        let path = match (pattern.strip_prefix("~/"), &home) {
            (Some(rest), Some(home)) => home.join(rest),
            (Some(_), None) => continue,
            (None, _) => PathBuf::from(pattern),
        };
        if pattern.contains('*') {
            found.extend(expand(pattern, Path::new("/"), "", &mut Vec::new(), &mut Vec::new()));
            continue;
        }
        // What lies behind symlinks, on the way too, is hidden where it is.
        match std::fs::symlink_metadata(&path) {
            Ok(there) if there.is_symlink() => found.extend(std::fs::canonicalize(path).ok()),
            Ok(_) => found.push(path),
            Err(_) => {}
        }
    }
    found
}

/// In a root of its own there is nothing of the host's to hide but what the policy names.
fn in_root(policy: &Policy) -> Result<Resolved> {
    let plain = |list: &[String]| list.iter().map(PathBuf::from).collect::<Vec<_>>();
    let files = &policy.files;
    let mut problems = Vec::new();
    for (name, list) in [("deny_read", &files.deny_read), ("deny_write", &files.deny_write)] {
        for (index, pattern) in list.iter().enumerate() {
            let at = format!("/files/{name}/{index}");
            if !pattern.starts_with('/') {
                problems.push(Problem::new(at, format!("{pattern} has to be an absolute path in the root")));
            } else if pattern.contains(['*', '?', '[']) {
                problems.push(Problem::new(
                    at,
                    format!("{pattern}: globs are for the host's files, not for a root of its own"),
                ));
            }
        }
    }
    if let Some(pattern) = files.allow_write.first() {
        let what = format!("{pattern} is a path of the host; put it into the root with a bind that may be written");
        problems.push(Problem::new("/files/allow_write/0", what));
    }
    if problems.is_empty() {
        let (hidden, protected) = (plain(&files.deny_read), plain(&files.deny_write));
        Ok(Resolved { hidden, protected, ..Resolved::default() })
    } else {
        Err(Error::problems("the policy", &problems))
    }
}

/// The caller's home directory.
pub(super) fn home() -> PathBuf {
    std::env::var_os("HOME").map_or_else(|| PathBuf::from("/root"), PathBuf::from)
}

/// The existing paths that a path or glob means, without symlinks.
fn expand(pattern: &str, cwd: &Path, at: &str, notes: &mut Vec<String>, problems: &mut Vec<Problem>) -> Vec<PathBuf> {
    let full = match pattern.strip_prefix('~') {
        Some("") => home(),
        Some(rest) if rest.starts_with('/') => home().join(&rest[1..]),
        _ => cwd.join(pattern),
    };
    // In the order of the cheaper question: most are plain paths.
    if !pattern.contains(['*', '?', '[']) {
        return match std::fs::canonicalize(&full) {
            Ok(path) => vec![path],
            Err(_) => {
                notes.push(format!("{at}: {pattern} is not there"));
                Vec::new()
            }
        };
    }
    let full = full.to_string_lossy().into_owned();
    match glob::glob(&full) {
        Ok(matches) => {
            let found: Vec<_> = matches.filter_map(|m| std::fs::canonicalize(m.ok()?).ok()).collect();
            if found.is_empty() {
                notes.push(format!("{at}: {pattern} matches nothing"));
            }
            found
        }
        Err(error) => {
            problems.push(Problem::new(at, format!("{pattern} is no glob: {}", error.msg)));
            Vec::new()
        }
    }
}

/// The directory that everything that a path or glob names lies in, or is.
pub(super) fn before_glob(pattern: &str) -> PathBuf {
    let full = match pattern.strip_prefix('~') {
        Some("") => home(),
        Some(rest) if rest.starts_with('/') => home().join(&rest[1..]),
        _ => PathBuf::from(pattern),
    };
    let is_plain = |part: &std::path::Component| !part.as_os_str().to_string_lossy().contains(['*', '?', '[']);
    full.components().take_while(is_plain).collect()
}

/// Finds what has to be protected in a directory that may be written for real. What can't be looked into is protected as a
/// whole: its owner, who the program may be, could open it.
fn protect(dir: &Path, depth: u32, allow_git_config: bool, found: &mut Resolved) {
    let nested = |a: &str, b: &str| !(allow_git_config && a == ".git" && b.starts_with("config"));
    let (mut queue, before) = (vec![(dir.to_owned(), 0)], found.pinned.len());
    let (top, mut seen) = (dir, 0);
    while let Some((dir, level)) = queue.pop() {
        seen += 1;
        if seen > DIRECTORIES_MAX {
            found.notes.push(format!(
                "start-up files were looked for in {DIRECTORIES_MAX} directories only; lower protect_depth, or name what to protect in deny_write"
            ));
            break;
        }
        let mut names = BTreeSet::new();
        for (path, is_dir) in entries(&dir, found) {
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            if STARTUP.contains(&name.as_str()) && path.is_symlink() {
                found.links.push(path.clone());
            }
            // A file .git says where the repository is, hooks and all.
            if STARTUP.contains(&name.as_str()) || name == ".git" && !is_dir {
                found.protected.push(path.clone());
            }
            let inner: Vec<_> =
                NESTED.iter().filter(|(a, b)| is_dir && *a == name && nested(a, b)).map(|(_, b)| *b).collect();
            // A repository that is there is used by its name, at whatever level it is.
            protect_in(&path, &inner, level == 0 || name == ".git", found);
            if is_dir && name == ".git" {
                protect_inner(&path, &nested, found);
            }
            if is_dir && level < depth && !SKIPPED.contains(&name.as_str()) {
                queue.push((path, level + 1));
            }
            names.insert(name);
        }
        if level == 0 && !found.protected.contains(&dir) && dir.is_dir() {
            let missing = STARTUP.iter().filter(|name| !names.contains(**name));
            found.placeholders.extend(missing.map(|name| dir.join(name)));
            for (outer, _) in NESTED.iter().filter(|(a, _)| !names.contains(*a)) {
                let outer = dir.join(outer);
                if !found.placeholders.contains(&outer) {
                    found.placeholders.push(outer);
                }
            }
            for (outer, inner) in NESTED.iter().filter(|(a, b)| !names.contains(*a) && nested(a, b)) {
                found.placeholders.push(dir.join(outer).join(inner));
            }
        }
    }
    // Neither is what is on the way to them to be moved, for others to be made in its place.
    let ways: Vec<_> = found.pinned[before..].iter().flat_map(|path| way(path, top)).collect();
    found.pinned.extend(ways);
}

/// The directories between one and what is below it.
fn way<'a>(path: &'a Path, top: &'a Path) -> impl Iterator<Item = PathBuf> + 'a {
    path.ancestors().skip(1).take_while(move |above| *above != top && above.starts_with(top)).map(Path::to_owned)
}

/// What is in a directory, and whether it is a directory itself; symlinks are none: what is in there is protected, or not,
/// where it is. A directory that can't be read is protected.
fn entries(dir: &Path, found: &mut Resolved) -> Vec<(PathBuf, bool)> {
    let read = || -> std::io::Result<Vec<_>> {
        std::fs::read_dir(dir)?.map(|entry| entry.and_then(|e| Ok((e.path(), e.file_type()?.is_dir())))).collect()
    };
    read().unwrap_or_else(|error| {
        if !matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) {
            found.protected.push(dir.to_owned());
        }
        Vec::new()
    })
}

/// Protects these names in a directory; those that are missing with placeholders, if so wanted.
fn protect_in(dir: &Path, names: &[&str], placeholders: bool, found: &mut Resolved) {
    if !names.is_empty() {
        found.pinned.push(dir.to_owned());
    }
    for path in names.iter().map(|name| dir.join(name)) {
        match std::fs::symlink_metadata(&path) {
            Ok(there) => {
                found.links.extend(there.is_symlink().then(|| path.clone()));
                // A link that leads nowhere is held as a link alone.
                found.protected.push(path);
            }
            Err(error) if error.kind() == ErrorKind::NotFound => {
                found.placeholders.extend(placeholders.then_some(path));
            }
            Err(_) => found.protected.push(dir.to_owned()),
        }
    }
}

/// Protects the git directories of submodules and worktrees that are in a repository's.
fn protect_inner(git: &Path, nested: &dyn Fn(&str, &str) -> bool, found: &mut Resolved) {
    for (name, protected) in INNER {
        let names: Vec<_> = protected.iter().copied().filter(|name| nested(".git", name)).collect();
        let mut queue = vec![(git.join(name), 0)];
        while let Some((dir, level)) = queue.pop() {
            let entries = entries(&dir, found);
            if entries.is_empty() {
                continue;
            }
            // Neither is a directory on the way there to be replaced.
            found.pinned.push(dir.clone());
            // Known by more than a program could take away.
            let known = |name: &&str| protected.contains(name) || ["HEAD", "objects", "refs"].contains(name);
            let is_git = entries.iter().filter_map(|(path, _)| path.file_name()?.to_str()).any(|name| known(&name));
            if is_git {
                protect_in(&dir, &names, true, found);
            }
            // In a git directory there are its own submodules, and much else.
            let below = entries.into_iter().filter(|(path, is_dir)| *is_dir && (!is_git || path.ends_with(name)));
            match level < INNER_DEPTH {
                true => queue.extend(below.map(|(path, _)| (path, level + 1))),
                false => found.protected.extend(below.map(|(path, _)| path)),
            }
        }
    }
}

/// All of a directory but some paths: itself if there are none in it, else the entries of each directory on the way to one
/// of them that are not on the way.
pub(super) fn beside(dir: &Path, kept: &[PathBuf]) -> Vec<PathBuf> {
    if kept.iter().any(|k| dir.starts_with(k)) {
        return Vec::new();
    }
    if !kept.iter().any(|k| k.starts_with(dir)) {
        return vec![dir.to_owned()];
    }
    let entries = std::fs::read_dir(dir).into_iter().flatten().flatten();
    // A symlink is what it leads to, which may be one of them.
    entries.filter(|e| !e.file_type().is_ok_and(|t| t.is_symlink())).flat_map(|e| beside(&e.path(), kept)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    fn tree(name: &str, files: &[&str]) -> PathBuf {
        let dir = std::env::temp_dir().join(format!("brig-files-{name}-{}", std::process::id()));
        for file in files {
            let path = dir.join(file);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, "").unwrap();
        }
        fs::canonicalize(dir).unwrap()
    }

    #[test]
    fn globs_paths_and_what_is_missing() {
        let dir = tree("globs", &["a.env", "sub/b.env", "c.txt"]);
        let mut policy = Policy::default();
        policy.files.deny_read = vec!["*.env".into(), "**/b.env".into(), "none*".into(), "c.txt".into()];
        let found = resolve(&policy, &dir, false).unwrap();
        for name in ["a.env", "sub/b.env", "c.txt"] {
            assert!(found.hidden.contains(&dir.join(name)), "{name}: {:?}", found.hidden);
        }
        assert!(found.notes.iter().any(|n| n.contains("none* matches nothing")), "{:?}", found.notes);
        policy.files.deny_read = vec!["a[".into()];
        assert!(resolve(&policy, &dir, false).unwrap_err().to_string().contains("/files/deny_read/0"));
        policy.files = Default::default();
        policy.files.allow_write = vec!["missing".into()];
        assert!(resolve(&policy, &dir, false).unwrap_err().to_string().contains("make it first"));
        fs::remove_dir_all(dir).unwrap();
    }

    #[test]
    fn startup_files_are_found_to_their_depth() {
        let dir =
            tree("startup", &[".bashrc", "x/.git/config", "x/.git/hooks/post-merge", "x/y/z/w/.npmrc", "x/y/z/.npmrc"]);
        let mut policy = Policy::default();
        policy.files.allow_write = vec![".".into()];
        let found = resolve(&policy, &dir, false).unwrap();
        let has = |found: &Resolved, name: &str| found.protected.contains(&dir.join(name));
        assert!(has(&found, ".bashrc") && has(&found, "x/.git/hooks") && has(&found, "x/.git/config"));
        assert!(has(&found, "x/y/z/.npmrc") && !has(&found, "x/y/z/w/.npmrc"), "{:?}", found.protected);
        assert!(found.placeholders.contains(&dir.join(".zshrc")) && !found.placeholders.contains(&dir.join(".bashrc")));
        policy.files.allow_git_config = true;
        policy.files.protect_depth = 4;
        let found = resolve(&policy, &dir, false).unwrap();
        assert!(!has(&found, "x/.git/config") && has(&found, "x/y/z/w/.npmrc"));
        fs::remove_dir_all(dir).unwrap();
    }

    #[test]
    fn everything_beside_what_is_hidden() {
        let given = beside(Path::new("/"), &[PathBuf::from("/etc/passwd")]);
        assert!(given.contains(&"/etc/group".into()) && !given.contains(&"/etc/passwd".into()));
        assert!(!given.contains(&"/etc".into()) && given.contains(&"/usr".into()));
        assert_eq!(beside(Path::new("/usr"), &["/etc".into()]), [PathBuf::from("/usr")]);
        assert_eq!(beside(Path::new("/etc/ssl"), &["/etc".into()]), Vec::<PathBuf>::new());
    }
}
