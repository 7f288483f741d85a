//! A container that was created, held until the test is done with it.

use super::{Bundle, Call, Out, Test, Value, os};
use std::cell::RefCell;
use std::fs;
use std::io::Read;
use std::os::fd::OwnedFd;

/// A container with its init process's standard output in a pipe.
pub struct Container<'t> {
    test: &'t Test,
    pub id: String,
    pub pid: i32,
    init: OwnedFd,
    output: RefCell<Lines>,
}

impl<'t> Container<'t> {
    #[track_caller]
    pub(super) fn create(
        test: &'t Test,
        bundle: &Bundle,
        flags: &[&str],
        adjust: impl FnOnce(Call<'t>) -> Call<'t>,
    ) -> Container<'t> {
        Container::make(test, bundle, "create", flags, adjust)
    }

    /// `create`, or `run --detach`.
    #[track_caller]
    pub fn make(
        test: &'t Test,
        bundle: &Bundle,
        command: &str,
        flags: &[&str],
        adjust: impl FnOnce(Call<'t>) -> Call<'t>,
    ) -> Container<'t> {
        bundle.write();
        let id = test.new_id();
        let pid_file = test.dir().join(format!("{id}.pid"));
        let (read, write) = nix::unistd::pipe2(nix::fcntl::OFlag::O_CLOEXEC).expect("a pipe");
        let pid_path = pid_file.display().to_string();
        let call = test
            .call(&[command, "--bundle", bundle.path(), "--pid-file", &pid_path])
            .args(flags)
            .args(&[&id])
            .stdout(write);
        let running = adjust(call).spawn();
        running.wait().ok();
        let text = fs::read_to_string(&pid_file).expect("a pid file");
        let pid = text.parse().unwrap_or_else(|_| panic!("the pid file holds {text:?}"));
        let init = os::pidfd(pid).expect("a pidfd of the container's init");
        Container { test, id, pid, init, output: RefCell::new(Lines::new(read)) }
    }

    /// A call on this container: a command and its flags, before the ID.
    pub fn call(&self, words: &[&str]) -> Call<'t> {
        self.test.call(words).args(&[&self.id])
    }

    #[track_caller]
    pub fn start(&self) {
        self.call(&["start"]).ok();
    }

    /// What `state` prints.
    #[track_caller]
    pub fn state(&self) -> Value {
        self.call(&["state"]).ok().json()
    }

    #[track_caller]
    pub fn status(&self) -> String {
        self.state()["status"].as_str().expect("a status").to_string()
    }

    #[track_caller]
    pub fn kill(&self, signal: &str) {
        self.call(&["kill"]).args(&[signal]).ok();
    }

    #[track_caller]
    pub fn delete(&self) {
        self.call(&["delete"]).ok();
    }

    /// `exec FLAGS ID ARGS`.
    pub fn exec(&self, flags: &[&str], args: &[&str]) -> Out {
        self.exec_call(flags, args).out()
    }

    pub fn exec_call(&self, flags: &[&str], args: &[&str]) -> Call<'t> {
        self.test.call(&["exec"]).args(flags).args(&[&self.id]).args(args)
    }

    /// What a process sees that joins the container: `exec FLAGS ID payload VERBS`.
    #[track_caller]
    pub fn see(&self, flags: &[&str], verbs: &[&str]) -> Value {
        self.exec(flags, &[&["/bin/payload"], verbs].concat()).ok().json()
    }

    /// Whether init has ended, without waiting.
    pub fn ended(&self) -> bool {
        os::readable(&self.init, std::time::Duration::ZERO)
    }

    /// Waits until init has ended, but leaves it unreaped, as a monitor does that is slow.
    #[track_caller]
    pub fn wait_unreaped(&self) {
        assert!(os::readable(&self.init, os::PATIENCE), "the container's init does not end");
    }

    /// Waits for init's end: its exit status, or 128 and the signal.
    #[track_caller]
    pub fn wait(&self) -> i32 {
        self.wait_unreaped();
        os::reap(self.pid).expect("init is this process's child")
    }

    /// The test that it belongs to.
    pub fn test(&self) -> &'t Test {
        self.test
    }

    /// Whether there is more output within this time.
    pub fn says_within(&self, limit: std::time::Duration) -> bool {
        self.output.borrow().readable(limit)
    }

    /// The next line of its output, as JSON.
    #[track_caller]
    pub fn line(&self) -> Value {
        let line = self.output.borrow_mut().next().expect("a line of output");
        serde_json::from_str(&line).unwrap_or_else(|e| panic!("not JSON ({e}): {line}"))
    }
}

impl Drop for Container<'_> {
    /// Deletes it; what goes wrong here is told by the test's own check at the end.
    fn drop(&mut self) {
        if self.test.root().join(&self.id).exists() {
            let _ = self.test.call(&["delete", "--force", &self.id]).out();
        }
        if self.ended() {
            let _ = os::reap(self.pid);
        }
    }
}

/// Lines from a descriptor, each waited for with patience.
pub struct Lines {
    file: fs::File,
    kept: Vec<u8>,
}

impl Lines {
    pub fn new(fd: OwnedFd) -> Lines {
        Lines { file: fd.into(), kept: Vec::new() }
    }

    /// Whether there is more within this time.
    pub fn readable(&self, limit: std::time::Duration) -> bool {
        !self.kept.is_empty() || os::readable(&self.file, limit)
    }

    /// The next line without its end; None at the end of the output.
    #[track_caller]
    pub fn next(&mut self) -> Option<String> {
        loop {
            if let Some(at) = self.kept.iter().position(|b| *b == b'\n') {
                let line: Vec<u8> = self.kept.drain(..=at).collect();
                return Some(String::from_utf8_lossy(&line).trim_end().to_string());
            }
            assert!(
                os::readable(&self.file, os::PATIENCE),
                "no more output, and no end of it, after {:?}",
                String::from_utf8_lossy(&self.kept)
            );
            let mut buffer = [0; 4096];
            match self.file.read(&mut buffer) {
                Ok(n) if n > 0 => self.kept.extend_from_slice(&buffer[..n]),
                _ if self.kept.is_empty() => return None,
                _ => self.kept.push(b'\n'),
            }
        }
    }
}
