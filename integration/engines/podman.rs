//! A podman of a test's own, with the runtime under test as its runtime.

use super::machine;
use crate::support::{Call, Out, Test, runtime, suite};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

/// The image that every container is made of.
pub const IMAGE: &str = "localhost/tools:latest";

/// The flags that say where the images are, which buildah has, too.
const STORAGE_FLAGS: [&str; 3] = ["--root", "--runroot", "--storage-driver"];

static COUNT: AtomicU32 = AtomicU32::new(0);

/// podman with storage, state, locks and cgroups of its own; when it is dropped, all of it is removed, and the test
/// fails if the runtime left anything.
pub struct Podman<'t> {
    test: &'t Test,
    program: String,
    globals: Vec<String>,
    environment: Vec<(&'static str, String)>,
    home: PathBuf,
    runroot: PathBuf,
    /// The parent cgroup of every container.
    pub parent: String,
}

impl<'t> Podman<'t> {
    /// Sets it up, and imports the image. The runtime keeps its state where it does when nobody says otherwise: podman
    /// does not pass `--runtime-flag` on to the clean-up that conmon calls.
    pub fn new(test: &'t Test) -> Podman<'t> {
        Podman::with(test, "")
    }

    /// As `new`, with these lines more in the section `[engine]` of containers.conf.
    pub fn with(test: &'t Test, lines: &str) -> Podman<'t> {
        let program = machine::program("podman");
        let home = test.dir().join("podman");
        fs::create_dir_all(home.join("tmp")).expect("podman's directories");
        // podman refuses a longer one than 50 characters, because of the sockets in it.
        let runroot = suite::scratch().join(format!("r{}", COUNT.fetch_add(1, Ordering::Relaxed)));
        let environment = configure(&home, &runroot, lines);
        let at = |name: &str| home.join(name).display().to_string();
        let runtime = runtime::under_test().path.display().to_string();
        let globals = [
            ["--root", &at("root")],
            ["--runroot", &runroot.display().to_string()],
            ["--tmpdir", &at("state")],
            ["--network-config-dir", &at("networks")],
            ["--storage-driver", machine::driver(&home, "overlay", "vfs")],
            ["--cgroup-manager", "cgroupfs"],
            ["--events-backend", "file"],
            ["--runtime", &runtime],
        ];
        let globals = globals.concat().iter().map(ToString::to_string).collect();
        let parent = format!("/{}", test.id());
        let podman = Podman { test, program, globals, environment, home, runroot, parent };
        let image = machine::image(test).display().to_string();
        podman.call(&["import", "--quiet", &image, IMAGE]).ok();
        podman
    }

    /// A call of podman.
    pub fn call(&self, args: &[&str]) -> Call<'t> {
        self.under(&[], args)
    }

    /// A call of podman by another program, which gets podman's command line after its own arguments.
    pub fn under(&self, program: &[&str], args: &[&str]) -> Call<'t> {
        let globals = self.globals.iter().map(String::as_str);
        let words = program.iter().copied().chain([self.program.as_str()]).chain(globals).chain(args.iter().copied());
        self.configured(&words.collect::<Vec<_>>())
    }

    /// A call of another tool that works on the same storage, with the same configuration.
    pub fn storage_tool(&self, program: &str, args: &[&str]) -> Call<'t> {
        let globals: Vec<&str> = self.globals.iter().map(String::as_str).collect();
        let storage = globals.chunks(2).filter(|pair| STORAGE_FLAGS.contains(&pair[0])).flatten().copied();
        self.configured(&[program].into_iter().chain(storage).chain(args.iter().copied()).collect::<Vec<_>>())
    }

    fn configured(&self, words: &[&str]) -> Call<'t> {
        let call = Call::of(self.test, words);
        self.environment.iter().fold(call, |call, (key, value)| call.env(key, value))
    }

    /// The arguments of a `run` with these flags and this command.
    pub fn run_args<'a>(&'a self, flags: &[&'a str], command: &[&'a str]) -> Vec<&'a str> {
        [&["run", "--cgroup-parent", &self.parent], flags, &[IMAGE], command].concat()
    }

    /// `podman run --rm`, to the container's end.
    pub fn run(&self, flags: &[&str], command: &[&str]) -> Out {
        self.call(&self.run_args(&[&["--rm"], flags].concat(), command)).out()
    }

    /// `podman run --rm` of a shell script that has to succeed: what it prints.
    #[track_caller]
    pub fn shell(&self, flags: &[&str], script: &str) -> String {
        self.run(flags, &["sh", "-c", script]).ok().stdout
    }

    /// `podman run --detach`: the container's full ID.
    #[track_caller]
    pub fn start(&self, name: &str, flags: &[&str], command: &[&str]) -> String {
        let flags = [&["--detach", "--name", name], flags].concat();
        self.call(&self.run_args(&flags, command)).ok().stdout.trim().to_string()
    }

    /// `podman exec` of a shell script that has to succeed: what it prints.
    #[track_caller]
    pub fn exec(&self, name: &str, script: &str) -> String {
        self.call(&["exec", name, "sh", "-c", script]).ok().stdout
    }

    /// A field of what podman says of a container.
    #[track_caller]
    pub fn inspect(&self, name: &str, field: &str) -> String {
        let format = format!("{{{{.{field}}}}}");
        self.call(&["inspect", "--format", &format, name]).ok().stdout.trim().to_string()
    }

    /// The pid of a container's init, as the host sees it.
    #[track_caller]
    pub fn pid(&self, name: &str) -> i32 {
        self.inspect(name, "State.Pid").parse().expect("a pid")
    }

    /// Waits for a container's end: its exit status.
    #[track_caller]
    pub fn wait(&self, name: &str) -> i32 {
        self.call(&["wait", name]).ok().stdout.trim().parse().expect("an exit status")
    }
}

/// Writes the configuration that keeps the host's own out. `lock_type`: podman's usual locks are one shared memory
/// segment for the whole machine. `default_ulimits`: the usual ones need CAP_SYS_RESOURCE.
fn configure(home: &Path, runroot: &Path, lines: &str) -> Vec<(&'static str, String)> {
    let at = |name: &str| home.join(name).display().to_string();
    let containers = "[containers]\n\
        default_ulimits = [\"nofile=1024:1024\", \"nproc=1000:1000\"]\n\
        log_driver = \"k8s-file\"\n\
        netns = \"none\"\n\
        [engine]\n\
        cgroup_manager = \"cgroupfs\"\n\
        events_logger = \"file\"\n\
        lock_type = \"file\"\n";
    let storage = format!(
        "[storage]\ndriver = \"{}\"\ngraphroot = \"{}\"\nrunroot = \"{}\"\n",
        machine::driver(home, "overlay", "vfs"),
        at("root"),
        runroot.display()
    );
    fs::write(home.join("containers.conf"), format!("{containers}{lines}\n")).expect("containers.conf");
    fs::write(home.join("storage.conf"), storage).expect("storage.conf");
    vec![
        ("CONTAINERS_CONF", at("containers.conf")),
        ("CONTAINERS_STORAGE_CONF", at("storage.conf")),
        ("HOME", home.display().to_string()),
        ("TMPDIR", at("tmp")),
    ]
}

impl Drop for Podman<'_> {
    fn drop(&mut self) {
        let mut left = Vec::new();
        for what in [["pod", "rm"].as_slice(), &["rm"]] {
            let out = self.call(&[what, &["--all", "--force", "--time", "0"]].concat()).out();
            if out.code != 0 {
                left.push(format!("podman {} ended with {}: {}", what.join(" "), out.code, out.stderr.trim()));
            }
        }
        left.extend(machine::processes_left(self.test.id()));
        machine::end_processes(self.test.id());
        machine::reap_monitors();
        left.extend(machine::cgroups_left(self.test.id(), |name| name.starts_with("libpod-") && name.len() > 64));
        left.extend([&self.home, &self.runroot].into_iter().flat_map(|dir| machine::mounts_left(dir)));
        left.extend(machine::states_left(self.test));
        machine::remove_cgroups(self.test.id());
        machine::remove_mounts(&self.home);
        machine::remove_mounts(&self.runroot);
        let _ = fs::remove_dir_all(&self.runroot);
        if !std::thread::panicking() {
            assert!(left.is_empty(), "left behind: {}", left.join("; "));
        }
    }
}
