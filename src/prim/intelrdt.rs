//! `linux.intelRdt`: cache and memory-bandwidth classes through the resctrl filesystem (runtime-spec 1.3; the kernel's
//! Documentation/filesystems/resctrl.rst).

mod stats;
mod update;

pub use stats::Stats;
pub use update::Before;

use crate::error::{Context, Error, Kind, Problem, Result};
use crate::spec::IntelRdt;
use serde::{Deserialize, Serialize};
use std::fs;
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};

const AT: &str = "/linux/intelRdt";

/// What `linux.intelRdt` asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wanted {
    class: Class,
    /// The lines to write, in order.
    lines: Vec<Line>,
    /// The name of the monitoring group to make.
    monitor: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Class {
    /// The default class: the root of the filesystem.
    Root,
    /// A class that others may share; it is never removed.
    Named(String),
    /// A class of the container's own, by its ID.
    Own(String),
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Line {
    pointer: String,
    text: String,
    /// `l3CacheSchema` and `memBwSchema` must be what a class has that exists already; `schemata` is written to it.
    compared: bool,
}

/// Where a container is, and what is to be removed with it. Saved with the container's state.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// The directory of its class.
    class: PathBuf,
    /// Whether the class goes with the container.
    own: bool,
    /// The directory of its monitoring group.
    monitor: Option<PathBuf>,
}

/// Checks `linux.intelRdt` for the container of this ID. The old `enableCMT` and `enableMBM` count as `enableMonitoring`,
/// which replaced them: no hardware tells them apart.
///
/// # Errors
/// Every problem.
pub fn compile(rdt: &IntelRdt, id: &str) -> Result<Wanted, Vec<Problem>> {
    let mut problems = Vec::new();
    let class = match rdt.clos_id.as_deref() {
        None | Some("") => Class::Own(id.to_owned()),
        Some("/") => Class::Root,
        Some(name) => {
            if name.contains(['/', '\n', '\0']) || [".", "..", "info", "mon_data", "mon_groups"].contains(&name) {
                let what = "must be the name of a directory in the resctrl filesystem, or / for the default class";
                problems.push(Problem::new(format!("{AT}/closID"), what));
            }
            Class::Named(name.to_owned())
        }
    };
    let mut lines = Vec::new();
    let mut add = |field: &str, text: &str, compared: bool| {
        let pointer = format!("{AT}/{field}");
        if text.is_empty() || text.contains('\0') || !text.contains(':') {
            problems.push(Problem::new(&pointer, "must be a line such as L3:0=7f0;1=1f"));
        }
        lines.push(Line { pointer, text: text.to_owned(), compared });
    };
    let bandwidth = rdt.mem_bw_schema.as_deref().filter(|schema| !schema.is_empty());
    for line in rdt.l3_cache_schema.iter().flat_map(|schema| schema.lines()) {
        // Configurations from before memBwSchema carry its line here; beside it the spec has that line left out.
        if !(bandwidth.is_some() && line.trim_start().starts_with("MB:")) {
            add("l3CacheSchema", line, true);
        }
    }
    if let Some(schema) = bandwidth {
        add("memBwSchema", schema, true);
    }
    for (index, line) in rdt.schemata.iter().enumerate() {
        add(&format!("schemata/{index}"), line, false);
    }
    if bandwidth.is_some_and(|schema| !schema.starts_with("MB:") || schema.contains('\n')) {
        problems.push(Problem::new(format!("{AT}/memBwSchema"), "must be one line that starts with MB:"));
    }
    for (index, line) in rdt.schemata.iter().enumerate().filter(|(_, line)| line.contains('\n')) {
        let what = format!("must be one line; {line:?} is several");
        problems.push(Problem::new(format!("{AT}/schemata/{index}"), what));
    }
    let monitoring = rdt.enable_monitoring || rdt.enable_cmt || rdt.enable_mbm;
    let wanted = Wanted { class, lines, monitor: monitoring.then(|| id.to_owned()) };
    if problems.is_empty() { Ok(wanted) } else { Err(problems) }
}

/// Finds the resctrl filesystem among the mounts of the calling process.
///
/// # Errors
/// None is mounted.
pub fn find_root() -> Result<PathBuf> {
    let mounts = fs::read_to_string("/proc/self/mountinfo").during(|| format!("{AT}: read /proc/self/mountinfo"))?;
    root_in(&mounts).ok_or_else(|| {
        Error::new(Kind::Other, format!("{AT}: no resctrl filesystem is mounted"))
            .hint("on hardware that has it: mount -t resctrl resctrl /sys/fs/resctrl")
    })
}

/// The mount point of the first resctrl in proc_pid_mountinfo(5).
fn root_in(mounts: &str) -> Option<PathBuf> {
    mounts.lines().find_map(|line| {
        let (before, after) = line.split_once(" - ")?;
        (after.split(' ').next() == Some("resctrl"))
            .then(|| PathBuf::from(before.split(' ').nth(4).unwrap_or_default()))
    })
}

/// Makes what is wanted below a resctrl filesystem's root and moves a process there. For the parent, before the child
/// has children: they inherit it.
///
/// # Errors
/// As the spec has it: an existing class whose schemas differ, a missing one without schemas, no monitoring group left.
/// Then nothing is left behind.
pub fn apply(wanted: &Wanted, root: &Path, pid: i32) -> Result<Record> {
    let (class, own) = match &wanted.class {
        Class::Root => (root.to_owned(), false),
        Class::Named(name) => (root.join(name), false),
        Class::Own(id) => (root.join(id), true),
    };
    let made = make_class(wanted, &class, root)?;
    let mut record = Record { class, own, monitor: None };
    let fill = |record: &mut Record| -> Result<()> {
        for line in &wanted.lines {
            if made || !line.compared {
                write_line(&record.class, line, root)?;
            }
        }
        if let Some(name) = &wanted.monitor {
            let group = record.class.join("mon_groups").join(name);
            fs::create_dir(&group)
                .during(|| format!("{AT}/enableMonitoring: make {}", group.display()))
                .map_err(|error| with_status(error, root))?;
            record.monitor = Some(group);
        }
        record.join(pid)
    };
    fill(&mut record).inspect_err(|_| {
        // Even a class that would stay, had it worked.
        let _ = Record { own: made, ..record.clone() }.remove();
    })?;
    Ok(record)
}

/// Makes the class or finds it as it must be; tells whether it was made.
fn make_class(wanted: &Wanted, class: &Path, root: &Path) -> Result<bool> {
    let at = || format!("{AT}/closID: {}", class.display());
    match &wanted.class {
        Class::Own(_) => fs::create_dir(class)
            .during(|| format!("{AT}: make class {}", class.display()))
            .map_err(|error| match error.kind() {
                Kind::Os(crate::sys::Errno::EEXIST) => error.hint("rmdir it if nothing uses it, or name it as closID"),
                _ => with_status(error, root),
            })
            .map(|()| true),
        Class::Named(_) if !class.is_dir() => {
            if wanted.lines.is_empty() {
                let error = Error::new(Kind::Other, format!("{} does not exist", at()));
                return Err(error.hint("make it beforehand, or give the schemata that it is to be made with"));
            }
            match fs::create_dir(class) {
                Ok(()) => Ok(true),
                // Somebody else was faster: then it is one that exists.
                Err(error) if error.kind() == ErrorKind::AlreadyExists => compare(wanted, class, root).map(|()| false),
                other => other.during(|| format!("{}: make it", at())).map_err(|e| with_status(e, root)).map(|()| true),
            }
        }
        Class::Named(_) | Class::Root => compare(wanted, class, root).map(|()| false),
    }
}

/// Checks that an existing class has the schemas that are to be compared.
fn compare(wanted: &Wanted, class: &Path, root: &Path) -> Result<()> {
    if !wanted.lines.iter().any(|line| line.compared) {
        return Ok(());
    }
    let file = class.join("schemata");
    let current = fs::read_to_string(&file).during(|| format!("{AT}/closID: read {}", file.display()))?;
    for line in wanted.lines.iter().filter(|line| line.compared) {
        if !holds(&current, &line.text, bandwidth_step(root)) {
            let has = current.lines().map(str::trim).collect::<Vec<_>>().join(", ");
            let what = format!("{}: {:?} is not what class {} has: {has}", line.pointer, line.text, class.display());
            return Err(Error::invalid(what).hint("a class that exists is shared and keeps its schemas"));
        }
    }
    Ok(())
}

/// How bandwidth is rounded: to multiples of this many percent, upwards.
fn bandwidth_step(root: &Path) -> u64 {
    let text = fs::read_to_string(root.join("info/MB/bandwidth_gran")).unwrap_or_default();
    text.trim().parse().unwrap_or(1).max(1)
}

/// Whether each domain that a schema line names has its value in a schemata file. The kernel pads and orders differently,
/// writes masks without leading zeroes, and rounds bandwidth to multiples of `step` percent, upwards.
fn holds(current: &str, line: &str, step: u64) -> bool {
    let Some((resource, domains)) = parse_line(line) else { return false };
    let Some((_, has)) = current.lines().filter_map(parse_line).find(|(name, _)| *name == resource) else {
        return false;
    };
    let rounded = |value: u64| if resource == "MB" { value.next_multiple_of(step) } else { value };
    domains.iter().all(|&(id, value)| has.contains(&(id, value)) || has.contains(&(id, rounded(value))))
}

/// A schema's resource, and the value of each domain; masks are hexadecimal, bandwidth is decimal.
fn parse_line(line: &str) -> Option<(&str, Vec<(u64, u64)>)> {
    let (resource, domains) = line.trim().split_once(':')?;
    let radix = if resource == "MB" { 10 } else { 16 };
    let domains = domains.split(';').map(|domain| {
        let (id, value) = domain.split_once('=')?;
        Some((id.trim().parse().ok()?, u64::from_str_radix(value.trim().trim_start_matches("0x"), radix).ok()?))
    });
    Some((resource, domains.collect::<Option<_>>()?))
}

/// Lines are written one by one: the kernel refuses two of one resource in a single write.
fn write_line(class: &Path, line: &Line, root: &Path) -> Result<()> {
    write_to(&class.join("schemata"), &line.text)
        .during(|| format!("{}: write {:?} to {}", line.pointer, line.text, class.join("schemata").display()))
        .map_err(|error| with_status(error, root))
}

fn write_to(file: &Path, text: &str) -> std::io::Result<()> {
    // One write(2), which is one command here. The kernel makes these files together with the directory.
    fs::OpenOptions::new().append(true).create(true).open(file)?.write_all(format!("{text}\n").as_bytes())
}

/// Adds what the kernel has to say about its last refusal.
fn with_status(error: Error, root: &Path) -> Error {
    let status = fs::read_to_string(root.join("info/last_cmd_status")).unwrap_or_default();
    match status.trim() {
        "" | "ok" => error,
        status => error.hint(format!("the kernel says: {status}")),
    }
}

impl Record {
    /// Moves another process of the container there, for `exec`.
    ///
    /// # Errors
    /// As write(2).
    pub fn join(&self, pid: i32) -> Result<()> {
        // The class first: a monitoring group takes only members of its class.
        for group in std::iter::once(&self.class).chain(&self.monitor) {
            let tasks = group.join("tasks");
            write_to(&tasks, &pid.to_string()).during(|| format!("{AT}: write {pid} to {}", tasks.display()))?;
        }
        Ok(())
    }

    /// Removes what goes with the container: its monitoring group, and the class if it is the container's own. Safe to
    /// repeat.
    ///
    /// # Errors
    /// As rmdir(2), except when it is gone already.
    pub fn remove(&self) -> Result<()> {
        for group in self.monitor.iter().chain(self.own.then_some(&self.class)) {
            match fs::remove_dir(group) {
                Err(error) if error.kind() == ErrorKind::NotFound => {}
                other => other.during(|| format!("{AT}: remove {}", group.display()))?,
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicU32, Ordering};

    /// A directory that looks like a resctrl filesystem with one class, `gold`.
    struct Tree(PathBuf);

    impl Tree {
        fn new() -> Tree {
            static COUNT: AtomicU32 = AtomicU32::new(0);
            let name = format!("brig-resctrl-{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
            let root = std::env::temp_dir().join(name);
            for dir in ["info/MB", "mon_groups", "gold/mon_groups"] {
                fs::create_dir_all(root.join(dir)).unwrap();
            }
            for (file, text) in [
                ("schemata", "    MB:0=100;1=100\n    L3:0=7ff;1=7ff\n"),
                ("gold/schemata", "    MB:0= 30;1=100\n    L3:0=7f0;1=1f\n"),
                ("info/MB/bandwidth_gran", "10\n"),
                ("info/last_cmd_status", "ok\n"),
            ] {
                fs::write(root.join(file), text).unwrap();
            }
            Tree(root)
        }

        fn read(&self, file: &str) -> String {
            fs::read_to_string(self.0.join(file)).unwrap_or_default()
        }

        fn apply(&self, rdt: IntelRdt) -> Result<Record> {
            apply(&compile(&rdt, "web").unwrap(), &self.0, 42)
        }

        /// As the kernel does: the files of a group go with its directory.
        fn empty(&self, dir: &str) {
            for entry in fs::read_dir(self.0.join(dir)).unwrap().flatten() {
                if entry.path().is_file() {
                    fs::remove_file(entry.path()).unwrap();
                }
            }
        }
    }

    impl Drop for Tree {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    fn rdt(clos_id: Option<&str>, l3: Option<&str>, mb: Option<&str>, schemata: &[&str]) -> IntelRdt {
        IntelRdt {
            clos_id: clos_id.map(Into::into),
            l3_cache_schema: l3.map(Into::into),
            mem_bw_schema: mb.map(Into::into),
            schemata: schemata.iter().map(|line| (*line).into()).collect(),
            ..IntelRdt::default()
        }
    }

    #[test]
    fn a_class_of_its_own_is_made_filled_in_order_joined_and_removed() {
        let tree = Tree::new();
        let record = tree.apply(rdt(None, Some("L3:0=f0;1=f"), Some("MB:0=20;1=70"), &["L3:0=1f", "L2:0=f"])).unwrap();
        assert_eq!(tree.read("web/schemata"), "L3:0=f0;1=f\nMB:0=20;1=70\nL3:0=1f\nL2:0=f\n");
        assert_eq!(tree.read("web/tasks"), "42\n");
        let record: Record = serde_json::from_str(&serde_json::to_string(&record).unwrap()).unwrap();
        record.join(43).unwrap();
        assert_eq!(tree.read("web/tasks"), "42\n43\n");
        tree.empty("web");
        record.remove().unwrap();
        assert!(!tree.0.join("web").exists());
        record.remove().unwrap();
    }

    #[test]
    fn without_schemas_nothing_is_written_to_schemata() {
        let tree = Tree::new();
        tree.apply(rdt(None, None, None, &[])).unwrap();
        assert_eq!((tree.read("web/schemata"), tree.read("web/tasks")), (String::new(), "42\n".into()));
        let again = tree.apply(rdt(None, None, None, &[])).unwrap_err().to_string();
        assert!(again.contains("file exists") && again.contains("closID"), "{again}");
        assert!(tree.0.join("web").exists(), "a class that was not made here is not removed");
    }

    #[test]
    fn an_existing_class_is_compared_joined_and_kept() {
        let tree = Tree::new();
        let before = tree.read("gold/schemata");
        // 25 percent is rounded to 30; masks are compared as numbers; not every domain need be named.
        let record = tree.apply(rdt(Some("gold"), Some("L3:0=07F0"), Some("MB:0=25;1=100"), &[])).unwrap();
        assert_eq!((tree.read("gold/schemata"), tree.read("gold/tasks")), (before.clone(), "42\n".into()));
        record.remove().unwrap();
        assert!(tree.0.join("gold").exists());
        for wrong in ["L3:0=7ff", "L3:2=7f0", "L2:0=f", "L3:0"] {
            let error = tree.apply(rdt(Some("gold"), Some(wrong), None, &[])).unwrap_err().to_string();
            assert!(error.starts_with("/linux/intelRdt/l3CacheSchema: "), "{error}");
            assert!(error.contains("MB:0= 30;1=100, L3:0=7f0;1=1f"), "{error}");
        }
        tree.apply(rdt(Some("gold"), None, None, &["L3:0=1"])).unwrap();
        assert_eq!(tree.read("gold/schemata"), before + "L3:0=1\n", "schemata is written");
    }

    #[test]
    fn a_named_class_is_made_only_with_schemas() {
        let tree = Tree::new();
        let error = tree.apply(rdt(Some("new"), None, None, &[])).unwrap_err().to_string();
        assert!(error.starts_with("/linux/intelRdt/closID: ") && error.contains("does not exist"), "{error}");
        let record = tree.apply(rdt(Some("new"), None, Some("MB:0=20"), &[])).unwrap();
        assert_eq!(tree.read("new/schemata"), "MB:0=20\n");
        record.remove().unwrap();
        assert!(tree.0.join("new").exists(), "a class that has a name stays");
    }

    #[test]
    fn the_default_class_is_the_root() {
        let tree = Tree::new();
        let record = tree.apply(rdt(Some("/"), None, None, &[])).unwrap();
        assert_eq!(tree.read("tasks"), "42\n");
        record.remove().unwrap();
        assert!(tree.0.exists());
    }

    #[test]
    fn monitoring_makes_a_group_below_the_class() {
        let tree = Tree::new();
        for old_field in [false, true] {
            let mut wanted = rdt(Some("gold"), None, None, &[]);
            (wanted.enable_monitoring, wanted.enable_cmt) = (!old_field, old_field);
            let record = tree.apply(wanted.clone()).unwrap();
            assert_eq!(tree.read("gold/mon_groups/web/tasks"), "42\n");
            let taken = tree.apply(wanted).unwrap_err().to_string();
            assert!(taken.starts_with("/linux/intelRdt/enableMonitoring: make "), "{taken}");
            tree.empty("gold/mon_groups/web");
            record.remove().unwrap();
            assert!(!tree.0.join("gold/mon_groups/web").exists());
        }
    }

    #[test]
    fn a_failure_leaves_nothing_and_passes_the_kernels_words_on() {
        let tree = Tree::new();
        fs::write(tree.0.join("info/last_cmd_status"), "Unknown or unsupported resource name 'L9'\n").unwrap();
        // A plain directory has no mon_groups: making the group fails where the kernel's would not.
        let wanted = IntelRdt { enable_monitoring: true, ..rdt(None, None, None, &[]) };
        let error = tree.apply(wanted).unwrap_err().to_string();
        assert!(error.contains("no such file") && error.contains("the kernel says: Unknown"), "{error}");
        assert!(!tree.0.join("web").exists());
        let wanted = IntelRdt { enable_monitoring: true, ..rdt(Some("new"), None, Some("MB:0=20"), &[]) };
        assert!(tree.apply(wanted).is_err());
    }

    #[test]
    fn compile_finds_every_problem() {
        let wrong = rdt(Some("a/b"), Some("L3"), Some("L3:0=1"), &["L3:0=1\nMB:0=10", ""]);
        let problems = compile(&wrong, "web").unwrap_err();
        let mut pointers: Vec<_> = problems.iter().map(|problem| problem.pointer.as_str()).collect();
        pointers.sort_unstable();
        assert_eq!(
            pointers,
            ["closID", "l3CacheSchema", "memBwSchema", "schemata/0", "schemata/1"].map(|f| format!("{AT}/{f}"))
        );
        let old = rdt(None, Some("L3:0=1\nMB:0=10\nL3CODE:0=3"), Some("MB:0=20"), &[]);
        let texts: Vec<_> = compile(&old, "web").unwrap().lines.into_iter().map(|line| line.text).collect();
        assert_eq!(texts, ["L3:0=1", "L3CODE:0=3", "MB:0=20"]);
    }

    #[test]
    fn the_root_is_found_among_the_mounts() {
        let mounts = "22 1 0:20 / /proc rw - proc proc rw\n40 22 0:35 / /sys/fs/resctrl rw,nosuid shared:9 - resctrl resctrl rw\n";
        assert_eq!(root_in(mounts), Some("/sys/fs/resctrl".into()));
        assert_eq!(root_in("22 1 0:20 / /resctrl rw - proc resctrl rw\n"), None);
    }
}
