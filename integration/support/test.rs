//! One test's own place: an ID, directories, the calls it makes, and the proof that it leaves nothing.

use super::{Bundle, Call, Container, Out, Value, host, suite};
use crate::payload::filter;
use std::cell::{Cell, RefCell};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

static COUNT: AtomicU32 = AtomicU32::new(0);

/// What a test is given. Its ID is part of the name of everything that it makes.
pub struct Test {
    id: String,
    dir: PathBuf,
    numbers: Cell<u32>,
    ids: RefCell<Vec<String>>,
    filter: RefCell<Option<String>>,
}

impl Test {
    pub fn new(name: &str) -> Test {
        let short = name.rsplit("::").next().unwrap_or(name).replace(|c: char| !c.is_ascii_alphanumeric(), "-");
        let short: String = short.chars().take(40).collect();
        let id = format!("it{}-{}-{short}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        let dir = suite::scratch().join(&id);
        fs::create_dir(&dir).expect("a directory for the test");
        let filter = std::env::var("BRIG_TEST_FILTER").ok().filter(|calls| !calls.is_empty());
        Test { id, dir, numbers: Cell::new(0), ids: RefCell::default(), filter: RefCell::new(filter) }
    }

    /// System calls that the runtime is to do without, as `payload filter` takes them: from `BRIG_TEST_FILTER`, or set by
    /// the test.
    pub fn filter(&self) -> Option<String> {
        self.filter.borrow().clone()
    }

    pub fn set_filter(&self, calls: &str) {
        *self.filter.borrow_mut() = Some(calls.into());
    }

    /// Whether the runtime has to do without a call of this group.
    pub fn is_taken(&self, group: &str) -> bool {
        self.filter().is_some_and(|calls| filter::takes(&calls, group))
    }

    /// Skips the test where the runtime can start no thread: the C library does without clone3 where that is ENOSYS alone.
    pub fn needs_threads(&self) {
        if self.is_taken("clone3") && self.filter().is_some_and(|calls| calls.ends_with(":EPERM")) {
            suite::skip("the filter answers clone3 with EPERM, and then the C library makes no threads");
        }
    }

    /// How many filters there are around the runtime.
    pub fn filters_around(&self) -> i64 {
        let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
        let own = status.lines().find_map(|line| line.strip_prefix("Seccomp_filters:")?.trim().parse::<i64>().ok());
        own.unwrap_or(0) + i64::from(self.filter().is_some())
    }

    /// Skips the test where there is no way without this group of calls, be it the kernel or a filter that lacks it.
    pub fn needs_call(&self, group: &str) {
        if self.is_taken(group) {
            suite::skip(format!("the filter takes {group} away, and there is no way without it"));
        }
        if filter::missing(group) {
            suite::skip(format!("this kernel has no {group}, and there is no way without it"));
        }
    }

    pub fn id(&self) -> &str {
        &self.id
    }

    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// The runtime's state directory, for this test alone.
    pub fn root(&self) -> PathBuf {
        self.dir.join("state")
    }

    pub fn next_number(&self) -> u32 {
        self.numbers.replace(self.numbers.get() + 1)
    }

    /// A container ID that is deleted at the end, whatever happens.
    pub fn new_id(&self) -> String {
        let id = format!("{}-c{}", self.id, self.next_number());
        self.ids.borrow_mut().push(id.clone());
        id
    }

    /// A bundle of its own.
    pub fn bundle(&self) -> Bundle {
        Bundle::new(self)
    }

    /// A call of the runtime.
    pub fn call(&self, args: &[&str]) -> Call<'_> {
        Call::new(self, &[], args)
    }

    /// `run`, in the foreground, to the container's end.
    pub fn run(&self, bundle: &Bundle) -> Out {
        self.run_with(bundle, &[])
    }

    /// `run` with more flags.
    pub fn run_with(&self, bundle: &Bundle, flags: &[&str]) -> Out {
        bundle.write();
        let id = self.new_id();
        self.call(&["run", "--bundle", bundle.path()]).args(flags).args(&[&id]).out()
    }

    /// What the container sees: runs the payload with these verbs, and gives its JSON object.
    #[track_caller]
    pub fn see(&self, bundle: &mut Bundle, verbs: &[&str]) -> Value {
        bundle.payload(verbs);
        self.run(bundle).ok().json()
    }

    /// `create`, which has to succeed.
    #[track_caller]
    pub fn create(&self, bundle: &Bundle) -> Container<'_> {
        self.create_with(bundle, &[], |call| call)
    }

    /// `create` with more flags and with a say in how it is called.
    #[track_caller]
    pub fn create_with<'t>(
        &'t self,
        bundle: &Bundle,
        flags: &[&str],
        adjust: impl FnOnce(Call<'t>) -> Call<'t>,
    ) -> Container<'t> {
        Container::create(self, bundle, flags, adjust)
    }

    /// `create`, which has to fail; nothing may be left of the container, not even before `delete`.
    #[track_caller]
    pub fn create_fails(&self, bundle: &Bundle, words: &[&str]) -> Out {
        bundle.write();
        let id = self.new_id();
        let before = self.left();
        let out = self.call(&["create", "--bundle", bundle.path(), &id]).out().fails(words);
        let mut left = self.left();
        left.retain(|l| !before.contains(l));
        assert!(left.is_empty(), "a failed create left {}\nstderr: {}", left.join("; "), out.stderr);
        assert!(out.stderr.lines().count() < 20, "a failure in many words: {}", out.stderr);
        out
    }

    /// What is left of this test's containers: state, processes, cgroups, mounts.
    pub fn left(&self) -> Vec<String> {
        let mut left: Vec<String> = self
            .ids
            .borrow()
            .iter()
            .map(|id| self.root().join(id))
            .filter(|dir| dir.exists())
            .map(|dir| format!("state {}", dir.display()))
            .collect();
        left.extend(
            host::processes_marked(&format!("BRIG_TEST={}", self.id))
                .iter()
                .map(|(pid, what)| format!("process {pid} ({what})")),
        );
        left.extend(host::cgroups_named(&self.id).iter().map(|dir| format!("cgroup {}", dir.display())));
        left
    }

    /// Deletes what the test made, says what could not be deleted or was left, and removes that by force.
    pub fn finish(&self) -> Vec<String> {
        let mut wrong = Vec::new();
        for id in self.ids.borrow().iter().filter(|id| self.root().join(id).exists()) {
            let out = self.call(&["delete", "--force", id]).out();
            if out.code != 0 {
                wrong.push(format!("delete --force ended with {}: {}", out.code, out.stderr.trim()));
            }
        }
        wrong.extend(self.left());
        wrong.extend(host::mounts_under(&self.dir).into_iter().map(|target| format!("mount {target}")));
        if !wrong.is_empty() {
            host::clear(&self.id, &self.dir);
        }
        let _ = fs::remove_dir_all(&self.dir);
        wrong
    }
}
