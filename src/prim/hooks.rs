//! Hooks: programs of the engine's that run at points of the container's life (runtime-spec, "POSIX-platform Hooks").
//!
//! prestart, createRuntime, poststart and poststop hooks run in the runtime's namespaces: [`run`]. createContainer and
//! startContainer hooks run in the container's, in its init between clone and exec: [`compile`] before the clone,
//! [`apply`] after it, [`explain`] in the parent. All take the same path through [`crate::sys::hook`].

use crate::error::{Error, Kind, Problem, Result};
use crate::spec::Hook;
use crate::sys::hook::{Broken, Program, Site, Tail};
use crate::sys::process::Ended;
use crate::sys::{CArray, Errno, hook};
use std::ffi::CString;
use std::fmt;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::time::Duration;

/// A hook with everything that running it takes.
#[derive(Debug)]
pub struct Prepared {
    pointer: String,
    path: CString,
    argv: CArray,
    envp: CArray,
    cwd: Option<CString>,
    limit: Option<Duration>,
}

/// Why a hook failed, as the two numbers that cross from child to parent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Failed {
    errno: Errno,
    detail: i32,
}

/// Kinds of failure, in the upper half of [`Failed::detail`]; the lower half is the site, status or signal.
const BROKEN: i32 = 1 << 16;
const TIMED_OUT: i32 = 2 << 16;
const EXITED: i32 = 3 << 16;
const SIGNALED: i32 = 4 << 16;
const VALUE: i32 = 0xffff;

impl Failed {
    /// The errno: of the call that failed, `ETIMEDOUT`, or `ECANCELED` for a hook that ended with a failure.
    pub fn errno(self) -> Errno {
        self.errno
    }

    /// Everything else, for [`explain`].
    pub fn detail(self) -> i32 {
        self.detail
    }
}

impl fmt::Display for Prepared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "hook {}", self.path.to_string_lossy())
    }
}

/// Prepares a hook. `pointer` is its place, such as `/hooks/createRuntime/0`; `cwd` is where it runs (runc: the bundle).
/// Without `args` its argv is its path alone; its environment is `env` and nothing else.
///
/// # Errors
/// A path that is not absolute, a time-out that is not positive, a NUL byte.
pub fn compile(hook: &Hook, pointer: &str, cwd: Option<&Path>) -> Result<Prepared, Problem> {
    let c_string = |field: String, bytes: &[u8]| {
        CString::new(bytes).map_err(|_| Problem::new(format!("{pointer}{field}"), "must not contain a NUL byte"))
    };
    let list = |field: &str, strings: &[String]| -> Result<Vec<CString>, Problem> {
        strings.iter().enumerate().map(|(i, s)| c_string(format!("/{field}/{i}"), s.as_bytes())).collect()
    };
    if !hook.path.is_absolute() {
        return Err(Problem::new(format!("{pointer}/path"), "must be an absolute path"));
    }
    let limit = match hook.timeout {
        None => None,
        Some(seconds @ 1..) => Some(Duration::from_secs(seconds.unsigned_abs())),
        Some(_) => return Err(Problem::new(format!("{pointer}/timeout"), "must be a number of seconds above 0")),
    };
    let path = c_string("/path".into(), hook.path.as_os_str().as_bytes())?;
    let mut argv = list("args", &hook.args)?;
    if argv.is_empty() {
        argv.push(path.clone());
    }
    let envp = CArray::new(list("env", &hook.env)?);
    let cwd = cwd.map(|cwd| c_string(String::new(), cwd.as_os_str().as_bytes())).transpose()?;
    Ok(Prepared { pointer: pointer.to_owned(), path, argv: CArray::new(argv), envp, cwd, limit })
}

/// Runs a hook to its end with the container's state (JSON) on its standard input. Safe between clone and exec.
///
/// # Errors
/// It could not be run, took longer than its time-out, or did not exit with status 0.
pub fn apply(prepared: &Prepared, state: &[u8]) -> Result<(), Failed> {
    apply_and_keep(prepared, state, &mut Tail::new())
}

/// As [`apply`], and keeps the last of what the hook says on its standard output and error.
///
/// # Errors
/// As [`apply`].
pub fn apply_and_keep(prepared: &Prepared, state: &[u8], said: &mut Tail) -> Result<(), Failed> {
    let Prepared { path, argv, envp, cwd, limit, .. } = prepared;
    let program = Program { path, argv, envp, cwd: cwd.as_deref() };
    let (errno, detail) = match hook::run(&program, state, *limit, said) {
        Ok(Ended::Exited(0)) => return Ok(()),
        Ok(Ended::Exited(status)) => (Errno::ECANCELED, EXITED | status),
        Ok(Ended::Signaled(signal)) => (Errno::ECANCELED, SIGNALED | signal),
        Err(Broken::TimedOut) => (Errno::ETIMEDOUT, TIMED_OUT),
        Err(Broken::Call(site, errno)) => (errno, BROKEN | site as i32),
    };
    Err(Failed { errno, detail })
}

/// Runs a hook in the runtime's namespaces, see [`compile`] and [`apply`].
///
/// # Errors
/// Where the hook stands, its path, what happened, and the last of what it said.
pub fn run(hook: &Hook, state: &[u8], pointer: &str, cwd: Option<&Path>) -> Result<()> {
    let prepared = compile(hook, pointer, cwd).map_err(|problem| Error::invalid(problem.to_string()))?;
    let mut said = Tail::new();
    apply_and_keep(&prepared, state, &mut said).map_err(|failed| {
        let (older, newer) = said.pieces();
        explain(&prepared, failed.errno, failed.detail, &[older, newer].concat())
    })
}

/// Puts a failure in words: the numbers are [`Failed`]'s, `said` is what was kept of the hook's output, if anything.
pub fn explain(prepared: &Prepared, errno: Errno, detail: i32, said: &[u8]) -> Error {
    let value = detail & VALUE;
    let what = format!("{} {}", prepared.pointer, prepared.path.to_string_lossy());
    let said = String::from_utf8_lossy(said);
    let said = match said.trim() {
        "" => String::new(),
        text => format!(": {text}"),
    };
    match detail & !VALUE {
        EXITED => Error::new(Kind::Other, format!("{what}: exit status {value}{said}")),
        SIGNALED => {
            let name = nix::sys::signal::Signal::try_from(value).ok();
            let name = name.map_or_else(|| value.to_string(), |signal| format!("{value} ({signal})"));
            Error::new(Kind::Other, format!("{what}: killed by signal {name}{said}"))
        }
        TIMED_OUT => {
            let limit = prepared.limit.unwrap_or_default().as_secs();
            Error::new(Kind::Other, format!("{what}: timed out after {limit} s and was killed{said}"))
                .hint(format!("{}/timeout is the limit in seconds", prepared.pointer))
        }
        _ => broken(&what, Site::from_number(value as u8), errno, prepared),
    }
}

fn broken(what: &str, site: Option<Site>, errno: Errno, prepared: &Prepared) -> Error {
    let doing = match site {
        Some(Site::Input) => "make its standard input",
        Some(Site::Pipe) => "make a pipe",
        Some(Site::Fork) => "fork",
        Some(Site::Streams) => "arrange its standard streams",
        Some(Site::Chdir) => "change to its working directory",
        Some(Site::Exec) | None => "execute it",
        Some(Site::Wait) => "wait for it",
    };
    let error = Error::os(format!("{what}: {doing}"), errno);
    match (site, errno) {
        (Some(Site::Exec), Errno::ENOENT) => error.hint(format!(
            "{}/path is looked up in the {}; for a script, its interpreter must be there, too",
            prepared.pointer,
            if prepared.pointer.contains("/startContainer/") { "container" } else { "runtime's mount namespace" }
        )),
        (Some(Site::Exec), Errno::EACCES) => error.hint("it must be a regular file with the execute permission"),
        (Some(Site::Exec), Errno::ENOEXEC) => error.hint("a script must start with #! and its interpreter"),
        (Some(Site::Wait), Errno::ECHILD) => error.hint("the calling program must not ignore SIGCHLD"),
        _ => error,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::PathBuf;
    use std::time::Instant;

    const STATE: &[u8] = br#"{"ociVersion":"1.3.0","id":"web","status":"creating","bundle":"/b"}"#;

    fn shell(script: &str) -> Hook {
        let args = ["sh", "-c", script].map(String::from).to_vec();
        Hook { path: "/bin/sh".into(), args, env: vec!["PATH=/usr/bin:/bin".into()], timeout: None }
    }

    fn failure(hook: &Hook) -> String {
        run(hook, STATE, "/hooks/createRuntime/0", None).unwrap_err().to_string()
    }

    /// A fresh directory that goes away with the value.
    struct Dir(PathBuf);

    impl Dir {
        fn new(name: &str) -> Dir {
            let dir = std::env::temp_dir().join(format!("brig-hooks-{name}-{}", std::process::id()));
            std::fs::create_dir_all(&dir).unwrap();
            Dir(dir)
        }
    }

    impl Drop for Dir {
        fn drop(&mut self) {
            let _ = std::fs::remove_dir_all(&self.0);
        }
    }

    #[test]
    fn state_comes_on_standard_input_and_can_be_opened_again() {
        let dir = Dir::new("state");
        run(&shell("cat > one; cat /dev/stdin > two"), STATE, "/h", Some(&dir.0)).unwrap();
        assert_eq!(std::fs::read(dir.0.join("one")).unwrap(), STATE);
        assert_eq!(std::fs::read(dir.0.join("two")).unwrap(), STATE);
    }

    #[test]
    fn a_state_of_any_size_is_read_or_left() {
        let large = vec![b'x'; 3 << 20];
        run(&shell("test $(wc -c) = 3145728"), &large, "/h", None).unwrap();
        run(&shell("exit 0"), &large, "/h", None).unwrap();
        run(&shell("exec <&-; exit 0"), &large, "/h", None).unwrap();
    }

    #[test]
    fn the_environment_argv_and_directory_are_the_configured_ones() {
        let dir = Dir::new("env");
        let mut hook = shell("echo \"$0 $1 $A $HOME\" > out; pwd > cwd");
        hook.args = ["zero", "-c", &hook.args[2], "first", "second"].map(String::from).to_vec();
        hook.env = vec!["A=b c".into(), "PATH=/usr/bin:/bin".into()];
        run(&hook, STATE, "/h", Some(&dir.0)).unwrap();
        assert_eq!(std::fs::read_to_string(dir.0.join("out")).unwrap(), "first second b c \n");
        assert_eq!(std::fs::read_to_string(dir.0.join("cwd")).unwrap().trim(), dir.0.to_str().unwrap());
        let bare = Hook { path: "/usr/bin/env".into(), ..Hook::default() };
        run(&bare, STATE, "/h", None).unwrap();
        let mut said = Tail::new();
        apply_and_keep(&compile(&bare, "/h", None).unwrap(), STATE, &mut said).unwrap();
        assert_eq!(said.pieces().0, b"", "an absent env is an empty one");
    }

    #[test]
    fn only_the_standard_streams_are_open() {
        // An fd that is not close-on-exec, as a careless caller leaves it.
        let leaked = nix::fcntl::open("/dev/null", nix::fcntl::OFlag::O_RDONLY, nix::sys::stat::Mode::empty()).unwrap();
        let hook = shell("exec ls /proc/self/fd");
        let mut said = Tail::new();
        apply_and_keep(&compile(&hook, "/h", None).unwrap(), STATE, &mut said).unwrap();
        drop(leaked);
        // The last one is the directory that ls lists.
        assert_eq!(String::from_utf8_lossy(said.pieces().0), "0\n1\n2\n3\n");
    }

    #[test]
    fn signals_are_as_for_a_fresh_program() {
        // Rust's own start-up ignores SIGPIPE; and a caller blocks signals.
        let mask = crate::sys::process::block_signals();
        let hook = shell("grep -E '^Sig(Blk|Ign)' /proc/$$/status | cut -f2 | tr '\\n' ' '");
        let mut said = Tail::new();
        let result = apply_and_keep(&compile(&hook, "/h", None).unwrap(), STATE, &mut said);
        crate::sys::process::restore_signals(&mask);
        result.unwrap();
        let said = String::from_utf8_lossy(said.pieces().0).into_owned();
        let sets: Vec<u64> = said.split_whitespace().map(|set| u64::from_str_radix(set, 16).unwrap()).collect();
        // 32 and 33 are the C library's own; it lets nobody change them.
        let ours = !(0b11 << 31);
        assert_eq!([sets[0] & ours, sets[1] & ours], [0, 0], "{said}");
    }

    #[test]
    fn a_hook_dies_with_its_caller() {
        use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
        use std::os::fd::AsFd;
        let dir = Dir::new("orphan");
        nix::unistd::mkfifo(&dir.0.join("pid"), nix::sys::stat::Mode::S_IRWXU).unwrap();
        let prepared = compile(&shell("echo $$ > pid; exec sleep 1000"), "/h", Some(&dir.0)).unwrap();
        let Some(caller) = crate::sys::process::clone3(0, None).unwrap() else {
            let _ = apply(&prepared, STATE);
            crate::sys::process::exit_now(0)
        };
        let pid: i32 = std::fs::read_to_string(dir.0.join("pid")).unwrap().trim().parse().unwrap();
        let hook = crate::sys::process::pidfd_open(pid).unwrap();
        crate::sys::process::pidfd_send_signal(caller.pidfd.as_fd(), libc::SIGKILL).unwrap();
        caller.wait().unwrap();
        let mut fds = [PollFd::new(hook.as_fd(), PollFlags::POLLIN)];
        assert_eq!(poll(&mut fds, PollTimeout::from(10_000_u16)).unwrap(), 1, "the hook survived its caller");
    }

    #[test]
    fn failures_say_where_what_and_why() {
        assert_eq!(
            failure(&shell("echo out; echo no luck >&2; exit 3")),
            "/hooks/createRuntime/0 /bin/sh: exit status 3: out\nno luck"
        );
        assert_eq!(failure(&shell("kill -9 $$")), "/hooks/createRuntime/0 /bin/sh: killed by signal 9 (SIGKILL)");
        let absent = failure(&Hook { path: "/no/such".into(), ..Hook::default() });
        assert!(absent.starts_with("/hooks/createRuntime/0 /no/such: execute it: no such file"), "{absent}");
        let denied = failure(&Hook { path: "/etc/passwd".into(), ..Hook::default() });
        assert!(denied.contains("execute it: permission denied"), "{denied}");
        let nowhere = run(&shell("exit 0"), STATE, "/h", Some(Path::new("/no/such"))).unwrap_err().to_string();
        assert!(nowhere.contains("change to its working directory: no such file"), "{nowhere}");
    }

    #[test]
    fn output_is_kept_up_to_its_last_4_kib() {
        let text = failure(&shell("head -c 1000000 /dev/zero | tr '\\0' a; echo END; exit 1"));
        assert!(text.len() < 4300 && text.ends_with("aaEND"), "{} bytes", text.len());
    }

    #[test]
    fn a_time_out_kills_the_process_group() {
        let dir = Dir::new("timeout");
        let mut hook = shell("sleep 1000 & echo $! > pid; wait");
        hook.timeout = Some(1);
        let before = Instant::now();
        let error = run(&hook, STATE, "/h", Some(&dir.0)).unwrap_err().to_string();
        assert!(error.starts_with("/h /bin/sh: timed out after 1 s"), "{error}");
        assert!(before.elapsed() >= Duration::from_secs(1) && before.elapsed() < Duration::from_secs(20));
        let pid: i32 = std::fs::read_to_string(dir.0.join("pid")).unwrap().trim().parse().unwrap();
        // The orphan is killed with the group; until its reaper has it, it is a zombie.
        if let Ok(orphan) = crate::sys::process::pidfd_open(pid) {
            use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
            use std::os::fd::AsFd;
            let mut fds = [PollFd::new(orphan.as_fd(), PollFlags::POLLIN)];
            assert_eq!(poll(&mut fds, PollTimeout::from(10_000_u16)).unwrap(), 1, "sleep survived its hook");
        }
    }

    #[test]
    fn a_time_out_ends_a_hook_that_floods_its_output() {
        let mut hook = shell("exec yes");
        hook.timeout = Some(1);
        assert!(failure(&hook).contains("timed out"));
    }

    #[test]
    fn what_a_hook_leaves_running_is_not_waited_for() {
        let before = Instant::now();
        run(&shell("sleep 5 & exit 0"), STATE, "/h", None).unwrap();
        assert!(before.elapsed() < Duration::from_secs(4));
    }

    #[test]
    fn threads_run_hooks_side_by_side() {
        let threads: Vec<_> =
            (0..8).map(|n| std::thread::spawn(move || run(&shell(&format!("exit {n}")), STATE, "/h", None))).collect();
        for (n, thread) in threads.into_iter().enumerate() {
            let result = thread.join().unwrap().map_err(|e| e.to_string());
            let want = if n == 0 { Ok(()) } else { Err(format!("/h /bin/sh: exit status {n}")) };
            assert_eq!(result, want);
        }
    }

    #[test]
    fn compile_finds_what_cannot_run() {
        let relative = Hook { path: "bin/x".into(), ..Hook::default() };
        assert_eq!(compile(&relative, "/hooks/poststop/2", None).unwrap_err().pointer, "/hooks/poststop/2/path");
        let instant = Hook { timeout: Some(0), ..shell("") };
        assert_eq!(compile(&instant, "/h", None).unwrap_err().pointer, "/h/timeout");
        let nul = Hook { env: vec!["A=1".into(), "B=\0".into()], ..shell("") };
        assert_eq!(compile(&nul, "/h", None).unwrap_err().pointer, "/h/env/1");
        assert_eq!(compile(&shell(""), "/h", None).unwrap().to_string(), "hook /bin/sh");
    }
}
