//! The processes of a container, as the host sees them.

use super::pause::needs_cgroup;
use super::store::Store;
use crate::error::{Context, Error, Kind, Result};
use crate::sys::process;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// Every process in the container's cgroup and those below it, in order, by its ID in the caller's PID namespace. None when
/// the container has ended.
///
/// # Errors
/// [`Kind::NotFound`]; a container without a cgroup: nothing else holds together what `exec` has put into it.
pub fn pids(store: &Store, id: &str) -> Result<Vec<i32>> {
    let saved = store.peek(id)?;
    needs_cgroup(&saved, "listed")?;
    saved.cgroup.pids()
}

/// The lines of the host's ps(1) for these processes, below its heading.
///
/// # Errors
/// There is no ps, it fails, or the heading has no column PID.
pub fn table(pids: &[i32], options: &[String]) -> Result<String> {
    let path = std::env::var_os("PATH").unwrap_or_else(|| "/usr/bin:/bin".into());
    let ps = find(std::env::split_paths(&path)).ok_or_else(|| {
        Error::new(Kind::ProgramNotFound, "ps: executable file not found in $PATH")
            .hint("install it (Debian: procps), or use --format json")
    })?;
    let default = ["-ef".to_owned()];
    let options = if options.is_empty() { &default } else { options };
    let shown = || format!("{} {}", ps.display(), options.join(" "));
    let out = process::output(Command::new(&ps).args(options).stdin(Stdio::null()));
    let out = out.during(|| format!("run {}", shown()))?;
    let text = String::from_utf8_lossy(&out.stdout);
    if !out.status.success() {
        let said = format!("{text}{}", String::from_utf8_lossy(&out.stderr));
        return Err(Error::new(Kind::Other, format!("{}: {}: {}", shown(), out.status, said.trim())));
    }
    filter(&text, pids).map_err(|error| error.context(shown()))
}

/// Only from absolute directories: what the caller's own holds is not the host's ps.
fn find(dirs: impl Iterator<Item = PathBuf>) -> Option<PathBuf> {
    dirs.filter(|dir| dir.is_absolute()).map(|dir| dir.join("ps")).find(|path: &PathBuf| Path::is_file(path))
}

/// The heading, and the lines whose number in the column PID is one of these.
fn filter(text: &str, pids: &[i32]) -> Result<String> {
    let mut lines = text.lines();
    let heading = lines.next().unwrap_or_default();
    let Some(column) = heading.split_whitespace().position(|title| title == "PID") else {
        return Err(Error::invalid(format!("its output has no column PID: {heading:?}")).hint("add -o pid"));
    };
    let mut kept = format!("{heading}\n");
    for line in lines.filter(|line| !line.trim().is_empty()) {
        let Some(pid) = line.split_whitespace().nth(column).and_then(|field| field.parse().ok()) else {
            let what = format!("the column PID of this line has no number: {line:?}");
            return Err(Error::invalid(what).hint("put the column PID before those that have blanks in them"));
        };
        if pids.binary_search(&pid).is_ok() {
            kept.push_str(line);
            kept.push('\n');
        }
    }
    Ok(kept)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_chosen_by_the_pid_column() {
        let text = "UID   PID  PPID CMD\nroot    1     0 init\nroot   12     1 sleep 34\nroot   34    12 sh\n";
        assert_eq!(filter(text, &[12]).unwrap(), "UID   PID  PPID CMD\nroot   12     1 sleep 34\n");
        assert_eq!(filter(text, &[]).unwrap(), "UID   PID  PPID CMD\n");
    }

    #[test]
    fn output_without_pids_is_refused() {
        for text in ["", "CMD\ninit\n", "PPID\n1\n"] {
            assert!(filter(text, &[1]).unwrap_err().to_string().contains("PID"), "{text:?}");
        }
        let error = filter("STARTED PID\nSat Nov 21 12\n", &[12]).unwrap_err().to_string();
        assert!(error.contains("no number"), "{error}");
    }

    #[test]
    fn ps_comes_from_absolute_directories() {
        assert_eq!(find(["".into(), "bin".into(), ".".into()].into_iter()), None);
    }
}
