//! Verbs that do something, and say how it went.

use super::{Said, checked, outcome, tty};
use nix::sys::signal::{SigSet, SigmaskHow, Signal, pthread_sigmask};
use serde_json::{Value, json};
use std::ffi::CString;
use std::fs;
use std::io::{Error, Read, Write};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;
use std::process::exit;

/// Answers a verb of this kind; None if it is not one. Null is an answer that needs no telling.
pub fn act(verb: &str, arg: &str, said: &mut Said) -> Option<Value> {
    let (first, rest) = arg.split_once(':').unwrap_or((arg, ""));
    Some(match verb {
        "exit" => {
            said.flush();
            exit(arg.parse().unwrap_or(255));
        }
        "say" => {
            said.line("say", arg.into());
            Value::Null
        }
        "note" => match said.note(arg) {
            Ok(()) => Value::Null,
            Err(e) => outcome::<bool>(Err(e)),
        },
        "kill" => {
            // SAFETY: takes integers only.
            unsafe { libc::kill(if first == "parent" { libc::getppid() } else { first.parse().unwrap_or(0) }, libc::SIGKILL) };
            Value::Null
        }
        "sleep" => wait(said),
        "library" => crate::library::in_a_process_of_its_own(arg),
        "trap" => trap(said),
        "stubborn" => stubborn(said),
        "resized" => resized(said),
        "orphans" => orphans(arg.parse().unwrap_or(1), said),
        "stdin" => {
            let mut all = String::new();
            outcome(std::io::stdin().read_to_string(&mut all).map(|_| all))
        }
        "line" => {
            let mut line = String::new();
            outcome(std::io::stdin().read_line(&mut line).map(|_| line.trim_end().to_string()))
        }
        "out" => outcome(std::io::stdout().write_all(format!("{arg}\n").as_bytes()).map(|()| true)),
        "err" => outcome(std::io::stderr().write_all(format!("{arg}\n").as_bytes()).map(|()| true)),
        "read" => outcome(fs::read(arg).map(|b| String::from_utf8_lossy(&b).into_owned())),
        "readfd" => outcome(fs::read_to_string(format!("/proc/self/fd/{arg}"))),
        "write" => outcome(fs::OpenOptions::new().write(true).open(first).and_then(|mut f| f.write_all(rest.as_bytes())).map(|()| true)),
        "touch" => outcome(fs::OpenOptions::new().create(true).append(true).open(arg).map(|_| true)),
        "mkdir" => outcome(fs::create_dir(arg).map(|()| true)),
        "list" => outcome(fs::read_dir(arg).map(|d| {
            let mut names: Vec<String> = d.flatten().map(|e| e.file_name().to_string_lossy().into_owned()).collect();
            names.sort();
            names
        })),
        "stat" => outcome(fs::symlink_metadata(arg).map(|m| {
            json!({"uid": m.uid(), "gid": m.gid(), "mode": format!("{:o}", m.mode()), "size": m.size(), "rdev": m.rdev()})
        })),
        "link" => outcome(fs::read_link(arg).map(|p| p.display().to_string())),
        "chmod" => outcome(fs::set_permissions(rest, fs::Permissions::from_mode(u32::from_str_radix(first, 8).unwrap_or(0))).map(|()| true)),
        "chown" => outcome(std::os::unix::fs::chown(rest, first.parse().ok(), first.parse().ok()).map(|()| true)),
        "mknod" => mknod(arg),
        "mount" => mount(first, rest),
        "syscall" => syscall(arg),
        "hog" => hog(arg.parse().unwrap_or(0)),
        "hold" => {
            // Kept until the end of the process, and locked: no swap takes it.
            let held = vec![1_u8; arg.parse().unwrap_or(0)];
            // SAFETY: the memory is the vector's own.
            unsafe { libc::mlock(held.as_ptr().cast(), held.len()) };
            json!({"ok": std::hint::black_box(Box::leak(held.into_boxed_slice())).len()})
        }
        "burn" => burn(arg.parse().unwrap_or(0)),
        "files" => open_files(arg.parse().unwrap_or(0)),
        "threads" | "forks" => forks(arg.parse().unwrap_or(0)),
        "notify" => outcome(std::os::unix::net::UnixDatagram::unbound().and_then(|socket| {
            socket.send_to(arg.as_bytes(), std::env::var("NOTIFY_SOCKET").unwrap_or_default())
        })),
        "watch" => watch(first, rest),
        "listener" => outcome(std::net::TcpListener::bind(arg).map(|_| true)),
        _ => return None,
    })
}

/// Says "ready" and waits for any signal's default action.
fn wait(said: &mut Said) -> Value {
    said.line("ready", true.into());
    loop {
        nix::unistd::pause();
    }
}

/// Blocks every signal, says "ready", and reports each one that comes, until SIGUSR2 or SIGTERM ends it with status 0.
fn trap(said: &mut Said) -> Value {
    let all = SigSet::all();
    let _ = pthread_sigmask(SigmaskHow::SIG_SETMASK, Some(&all), None);
    said.line("ready", true.into());
    loop {
        let mut number = 0;
        // SAFETY: both pointers are valid; sigwait is used for the real-time signals that nix cannot name.
        unsafe { libc::sigwait(all.as_ref(), &raw mut number) };
        said.line("signal", json!(number));
        if number == libc::SIGUSR2 || number == libc::SIGTERM {
            exit(0);
        }
    }
}

/// Ignores what can be ignored, so that only SIGKILL ends it.
fn stubborn(said: &mut Said) -> Value {
    for signal in [Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP, Signal::SIGQUIT] {
        // SAFETY: ignoring a signal installs no handler.
        let _ = unsafe { nix::sys::signal::signal(signal, nix::sys::signal::SigHandler::SigIgn) };
    }
    wait(said)
}

/// Says the terminal's size at each SIGWINCH, until there is a line to read; the size comes with "ready", too.
fn resized(said: &mut Said) -> Value {
    let set = SigSet::from(Signal::SIGWINCH);
    let _ = pthread_sigmask(SigmaskHow::SIG_BLOCK, Some(&set), None);
    said.line("ready", json!([tty::size(0).0, tty::size(0).1]));
    let _ = set.wait();
    json!([tty::size(0).0, tty::size(0).1])
}

/// Leaves n processes that sleep and belong to nobody, and goes on.
fn orphans(n: u32, said: &mut Said) -> Value {
    said.flush();
    let mut pids = Vec::new();
    for _ in 0..n {
        let (read, write) = nix::unistd::pipe().expect("a pipe");
        // SAFETY: this program has one thread.
        match unsafe { libc::fork() } {
            0 => {
                // SAFETY: as above.
                let pid = unsafe { libc::fork() };
                if pid != 0 {
                    let _ = nix::unistd::write(&write, &pid.to_ne_bytes());
                    exit(0);
                }
                loop {
                    nix::unistd::pause();
                }
            }
            child => {
                drop(write);
                let mut bytes = [0; 4];
                let _ = fs::File::from(read).read_exact(&mut bytes);
                // SAFETY: waits for the child that was just made; no status is asked for.
                unsafe { libc::waitpid(child, std::ptr::null_mut(), 0) };
                pids.push(i32::from_ne_bytes(bytes));
            }
        }
    }
    pids.into()
}

/// `mknod=c:1:3:/path`.
fn mknod(arg: &str) -> Value {
    let parts: Vec<&str> = arg.splitn(4, ':').collect();
    let [kind, major, minor, path] = parts[..] else { return json!({"error": "mknod=KIND:MAJOR:MINOR:PATH"}) };
    let kind = match kind {
        "b" => libc::S_IFBLK,
        "p" => libc::S_IFIFO,
        _ => libc::S_IFCHR,
    };
    let path = CString::new(path).expect("no NUL in an argument");
    let device = libc::makedev(major.parse().unwrap_or(0), minor.parse().unwrap_or(0));
    // SAFETY: the path is a C string that outlives the call.
    outcome(checked(unsafe { libc::mknod(path.as_ptr(), kind | 0o600, device) }.into()).map(|_| true))
}

/// `mount=TYPE:TARGET`, and `mount=rw:TARGET` for a remount.
fn mount(typ: &str, target: &str) -> Value {
    use nix::mount::{MsFlags, mount};
    let result = match typ {
        "rw" => mount(None::<&str>, target, None::<&str>, MsFlags::MS_REMOUNT | MsFlags::MS_BIND, None::<&str>),
        _ => mount(Some(typ), target, Some(typ), MsFlags::empty(), None::<&str>),
    };
    outcome(result.map(|()| true).map_err(Error::from))
}

/// `syscall=NAME:ARG:ARG…`: calls it with these numbers (strings stay zero) and tells the errno or what it returned.
fn syscall(arg: &str) -> Value {
    let mut parts = arg.split(':');
    let name = parts.next().unwrap_or_default();
    let number = libseccomp::ScmpSyscall::from_name(name).map(i32::from).or_else(|_| name.parse());
    let Ok(number) = number else { return json!({"error": "no such system call"}) };
    let mut a = [0i64; 6];
    for (slot, text) in a.iter_mut().zip(parts) {
        *slot = text.strip_prefix("0x").map_or_else(|| text.parse(), |hex| i64::from_str_radix(hex, 16)).unwrap_or(0);
    }
    // SAFETY: the tests name calls that take integers, or expect EFAULT.
    outcome(checked(unsafe { libc::syscall(number.into(), a[0], a[1], a[2], a[3], a[4], a[5]) }))
}

/// Takes and touches this many bytes, a megabyte at a time.
fn hog(bytes: usize) -> Value {
    let mut kept = Vec::new();
    for _ in 0..bytes.div_ceil(1 << 20) {
        kept.push(std::hint::black_box(vec![1u8; 1 << 20]));
    }
    json!({"ok": kept.len()})
}

/// Uses this many milliseconds of CPU time.
fn burn(milliseconds: i64) -> Value {
    let used = || {
        // SAFETY: timespec is plain data, which clock_gettime fills in.
        let mut now: libc::timespec = unsafe { std::mem::zeroed() };
        // SAFETY: as above.
        unsafe { libc::clock_gettime(libc::CLOCK_PROCESS_CPUTIME_ID, &raw mut now) };
        now.tv_sec * 1000 + now.tv_nsec / 1_000_000
    };
    let end = used() + milliseconds;
    let mut rounds = 0_u64;
    while used() < end {
        rounds = std::hint::black_box(rounds) + 1;
    }
    json!({"ok": rounds > 0})
}

/// Opens this many files at once.
fn open_files(n: usize) -> Value {
    outcome((0..n).map(|_| fs::File::open("/proc/self/exe")).collect::<Result<Vec<_>, _>>().map(|v| v.len()))
}

/// Opens one device that is allowed and one that is not, again and again until there is a /tmp/stop; tells how often, and
/// how often either went wrong.
fn watch(allowed: &str, denied: &str) -> Value {
    let (mut times, mut wrong) = (0, 0);
    while !Path::new("/tmp/stop").exists() {
        times += 1;
        let refused = fs::File::open(denied).err().and_then(|e| e.raw_os_error());
        if fs::File::open(allowed).is_err() || refused != Some(libc::EPERM) {
            wrong += 1;
        }
    }
    json!({"times": times, "wrong": wrong})
}

/// Tries to have this many children at once; tells how many there were, and ends them.
fn forks(n: usize) -> Value {
    let mut children = Vec::new();
    let mut result = Ok(());
    for _ in 0..n {
        // SAFETY: this program has one thread; the child only waits.
        match unsafe { libc::fork() } {
            0 => loop {
                nix::unistd::pause();
            },
            -1 => {
                result = Err(Error::last_os_error());
                break;
            }
            pid => children.push(pid),
        }
    }
    for pid in &children {
        // SAFETY: these are this process's own children.
        unsafe { libc::kill(*pid, libc::SIGKILL) };
        // SAFETY: as above; no status is asked for.
        unsafe { libc::waitpid(*pid, std::ptr::null_mut(), 0) };
    }
    let mut told = outcome(result.map(|()| true));
    told["made"] = children.len().into();
    told
}
