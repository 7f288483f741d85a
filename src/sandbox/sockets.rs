//! Unix sockets of the host by their paths. A filter can't tell one path from another, and the rights that brig gives by Landlock
//! are none to sockets: where only some may be used, the others are covered.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::FileTypeExt;
use std::path::PathBuf;

/// Every path at which a process of this network namespace has a unix socket now (proc_net(5), `/proc/net/unix`), but these.
/// Sockets that are bound later, or in another network namespace, are not among them.
pub(super) fn others(allowed: &[PathBuf]) -> Vec<PathBuf> {
    let table = fs::read_to_string("/proc/self/net/unix").unwrap_or_default();
    let allowed: Vec<_> = allowed.iter().filter_map(|path| fs::canonicalize(path).ok()).collect();
    let found: BTreeSet<_> = paths(&table).filter_map(|path| fs::canonicalize(path).ok()).collect();
    let socket = |path: &PathBuf| fs::symlink_metadata(path).is_ok_and(|found| found.file_type().is_socket());
    found.into_iter().filter(|path| !allowed.contains(path) && socket(path)).collect()
}

/// The absolute paths of a table: the columns before have no slash, and an abstract name begins with `@`.
fn paths(table: &str) -> impl Iterator<Item = &str> {
    table.lines().filter_map(|line| line.find(" /").filter(|at| !line[..*at].contains('@')).map(|at| &line[at + 1..]))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::net::{UnixDatagram, UnixListener};

    #[test]
    fn all_but_those_that_are_allowed() {
        let dir = std::env::temp_dir().join(format!("brig-sockets-{}", std::process::id()));
        fs::create_dir_all(&dir).unwrap();
        let at = |name: &str| fs::canonicalize(&dir).unwrap().join(name);
        let _bound = (
            UnixListener::bind(at("a b")).unwrap(),
            UnixDatagram::bind(at("c")).unwrap(),
            UnixListener::bind(at("d")).unwrap(),
            UnixListener::bind(at("gone")).unwrap(),
        );
        fs::remove_file(at("gone")).unwrap();
        fs::write(at("gone"), "no socket any more").unwrap();
        let found = others(&[dir.join("../").join(dir.file_name().unwrap()).join("d")]);
        let own: Vec<_> = found.into_iter().filter(|path| path.starts_with(at(""))).collect();
        assert_eq!(own, [at("a b"), at("c")]);
        fs::remove_dir_all(dir).unwrap();
    }

    #[test]
    fn abstract_and_relative_names_are_no_paths() {
        let head = "0000000000000000: 00000002 00000000 00010000 0001 01";
        let table = format!("Num Path\n{head} 1 /a/b\n{head} 22222 @/c /d\n{head} 3 e/f\n{head} 4\n");
        assert_eq!(paths(&table).collect::<Vec<_>>(), ["/a/b"]);
    }
}
