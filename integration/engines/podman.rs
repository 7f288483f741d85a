//! A podman of a test's own, with the runtime under test as its runtime.

use super::machine;
use super::place::{self, Manager, User};
use crate::support::{Call, Out, Test, suite};
use std::cell::Cell;
use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt, chown, symlink};
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};

/// The image that every container is made of.
pub const IMAGE: &str = "localhost/tools:latest";

/// The flags that say where the images are, which buildah has, too.
const STORAGE_FLAGS: [&str; 4] = ["--root", "--runroot", "--storage-driver", "--storage-opt"];

static COUNT: AtomicU32 = AtomicU32::new(0);

/// What differs from one podman to another.
#[derive(Clone, Copy)]
pub struct Setup<'s> {
    /// Who makes the cgroups.
    pub manager: Manager,
    /// Whose it is; root's if it is nobody's.
    pub user: Option<&'s User>,
    /// Lines more in the section `[engine]` of containers.conf.
    pub lines: &'s str,
}

/// podman with storage, state, locks and cgroups of its own; when it is dropped, all of it is removed, and the test
/// fails if the runtime left anything.
pub struct Podman<'t> {
    test: &'t Test,
    user: Option<User>,
    manager: Manager,
    demotion: Vec<String>,
    program: String,
    globals: Vec<String>,
    environment: Vec<(&'static str, String)>,
    home: PathBuf,
    runroot: PathBuf,
    pods: Cell<bool>,
    /// The parent cgroup of every container, or its slice.
    pub parent: String,
}

impl<'t> Podman<'t> {
    /// Root's, with cgroups made by itself. The runtime keeps its state where it does when nobody says otherwise:
    /// podman does not pass `--runtime-flag` on to the clean-up that conmon calls.
    pub fn new(test: &'t Test) -> Podman<'t> {
        Podman::with(test, "")
    }

    /// As `new`, with these lines more in the section `[engine]` of containers.conf.
    pub fn with(test: &'t Test, lines: &str) -> Podman<'t> {
        Podman::on(test, Setup { manager: Manager::Cgroupfs, user: None, lines })
    }

    /// Root's or a user's, under systemd on cgroup v2; the test is skipped on other hosts.
    pub fn under_systemd(test: &'t Test, user: Option<&User>) -> Podman<'t> {
        place::needs_systemd_v2();
        Podman::on(test, Setup { manager: Manager::Systemd, user, lines: "" })
    }

    /// Root's or a user's, under either manager.
    pub fn on(test: &'t Test, setup: Setup) -> Podman<'t> {
        let program = machine::program("podman");
        let demotion = setup.user.map(place::demotion).unwrap_or_default();
        let home = test.dir().join("podman");
        fs::create_dir_all(home.join("tmp")).expect("podman's directories");
        // podman refuses a longer one than 50 characters, because of the sockets in it.
        let runroot = suite::scratch().join(format!("r{}", COUNT.fetch_add(1, Ordering::Relaxed)));
        fs::create_dir(&runroot).expect("podman's run-time directory");
        let environment = configure(&home, &runroot, &setup);
        if let Some(user) = setup.user {
            own(user, &[&home, &home.join("tmp"), &runroot]);
        }
        let at = |name: &str| home.join(name).display().to_string();
        let driver = machine::driver(&home, "overlay", "vfs");
        let runtime = machine::runtime_for_all().display().to_string();
        let store = store(test, setup.user).display();
        let globals = [
            ["--root", &at("root")],
            ["--runroot", &runroot.join("c").display().to_string()],
            ["--tmpdir", &runroot.join("t").display().to_string()],
            ["--network-config-dir", &at("networks")],
            ["--storage-driver", driver],
            ["--storage-opt", &format!("{driver}.imagestore={store}")],
            ["--cgroup-manager", setup.manager.name()],
            ["--events-backend", "file"],
            ["--runtime", &runtime],
        ];
        let globals = globals.concat().iter().map(ToString::to_string).collect();
        let parent = match (setup.manager, setup.user) {
            (Manager::Systemd, _) => place::slice(test),
            (Manager::Cgroupfs, None) => format!("/{}", test.id()),
            (Manager::Cgroupfs, Some(User { uid, .. })) => {
                format!("/user.slice/user-{uid}.slice/user@{uid}.service/{}", test.id())
            }
        };
        let (user, pods) = (setup.user.cloned(), Cell::new(false));
        let manager = setup.manager;
        Podman { test, user, manager, demotion, program, globals, environment, home, runroot, pods, parent }
    }

    /// A call of podman.
    pub fn call(&self, args: &[&str]) -> Call<'t> {
        self.pods.set(self.pods.get() || args.iter().any(|arg| ["pod", "kube"].contains(arg)));
        self.under(&[], args)
    }

    /// A call of podman by another program, which gets podman's command line after its own arguments.
    pub fn under(&self, program: &[&str], args: &[&str]) -> Call<'t> {
        let words =
            program.iter().copied().chain([self.program.as_str()]).chain(self.globals()).chain(args.iter().copied());
        self.configured(&words.collect::<Vec<_>>())
    }

    /// A call of another tool that works on the same storage, with the same configuration.
    pub fn storage_tool(&self, program: &str, args: &[&str]) -> Call<'t> {
        let globals: Vec<&str> = self.globals().collect();
        let storage = globals.chunks(2).filter(|pair| STORAGE_FLAGS.contains(&pair[0])).flatten().copied();
        self.configured(&[program].into_iter().chain(storage).chain(args.iter().copied()).collect::<Vec<_>>())
    }

    /// The flags of every call.
    pub fn globals(&self) -> impl Iterator<Item = &str> {
        self.globals.iter().map(String::as_str)
    }

    fn configured(&self, words: &[&str]) -> Call<'t> {
        let words: Vec<&str> = self.demotion.iter().map(String::as_str).chain(words.iter().copied()).collect();
        let call = Call::of(self.test, &words).patient().cwd(&self.home);
        self.environment.iter().fold(call, |call, (key, value)| call.env(key, value))
    }

    /// The environment that podman needs, to be given to a unit.
    pub fn environment(&self) -> &[(&'static str, String)] {
        &self.environment
    }

    /// podman's own directory, which is its user's.
    pub fn home(&self) -> &Path {
        &self.home
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
fn configure(home: &Path, runroot: &Path, setup: &Setup) -> Vec<(&'static str, String)> {
    let at = |name: &str| home.join(name).display().to_string();
    let (manager, lines) = (setup.manager.name(), setup.lines);
    let containers = format!(
        "[containers]\n\
        default_ulimits = [\"nofile=1024:1024\", \"nproc=1000:1000\"]\n\
        log_driver = \"k8s-file\"\n\
        netns = \"none\"\n\
        [engine]\n\
        cgroup_manager = \"{manager}\"\n\
        events_logger = \"file\"\n\
        lock_type = \"file\"\n\
        {lines}\n"
    );
    let driver = machine::driver(home, "overlay", "vfs");
    let (graphroot, runroot_of) = (at("root"), runroot.join("c").display().to_string());
    let storage =
        format!("[storage]\ndriver = \"{driver}\"\ngraphroot = \"{graphroot}\"\nrunroot = \"{runroot_of}\"\n");
    fs::write(home.join("containers.conf"), containers).expect("containers.conf");
    fs::write(home.join("storage.conf"), storage).expect("storage.conf");
    let mut environment = vec![
        ("CONTAINERS_CONF", at("containers.conf")),
        ("CONTAINERS_STORAGE_CONF", at("storage.conf")),
        ("HOME", home.display().to_string()),
        ("TMPDIR", at("tmp")),
    ];
    if let Some(user) = setup.user {
        // A directory of the test's own: the process that keeps the user namespace open is found by a file in it.
        for name in ["bus", "systemd"] {
            symlink(user.runtime_dir().join(name), runroot.join(name)).expect("a link to the user's systemd");
        }
        environment.push(("XDG_RUNTIME_DIR", runroot.display().to_string()));
        environment.push(("DBUS_SESSION_BUS_ADDRESS", user.bus()));
    }
    environment
}

/// Makes these directories a user's own.
fn own(user: &User, dirs: &[&Path]) {
    for dir in dirs {
        chown(dir, Some(user.uid), Some(user.gid)).expect("a user's directory");
        fs::set_permissions(dir, Permissions::from_mode(0o700)).expect("a user's directory");
    }
}

/// Images that every podman of this user's can read; importing one takes longer than most tests. The user has to have
/// written them: in its user namespace, root's files are nobody's.
fn store(test: &Test, user: Option<&User>) -> &'static Path {
    static STORES: [OnceLock<PathBuf>; 2] = [OnceLock::new(), OnceLock::new()];
    STORES[usize::from(user.is_some())].get_or_init(|| {
        let home = suite::scratch().join(user.map_or("images", |user| user.name.as_str()));
        for dir in ["run", "tmp"] {
            fs::create_dir_all(home.join(dir)).expect("the images' directory");
        }
        let setup = Setup { manager: Manager::Cgroupfs, user: None, lines: "" };
        let mut environment = configure(&home, &home.join("run"), &setup);
        environment.push(("XDG_RUNTIME_DIR", home.join("run").display().to_string()));
        let demotion = user.map(place::demotion).unwrap_or_default();
        if let Some(user) = user {
            own(user, &[&home, &home.join("run"), &home.join("tmp")]);
        }
        let (program, image) = (machine::program("podman"), machine::image(test).display().to_string());
        let (root, runroot) = (home.join("root").display().to_string(), home.join("run/c").display().to_string());
        let driver = machine::driver(&home, "overlay", "vfs");
        let engine = [&program, "--root", &root, "--runroot", &runroot, "--storage-driver", driver];
        let call = |args: &[&str]| {
            let words = demotion.iter().map(String::as_str).chain(engine).chain(args.iter().copied());
            let words: Vec<&str> = words.collect();
            let call = Call::of(test, &words).patient().cwd(&home);
            environment.iter().fold(call, |call, (key, value)| call.env(key, value)).ok()
        };
        call(&["import", "--quiet", &image, IMAGE]);
        if user.is_some() {
            call(&["system", "migrate"]);
        }
        machine::remove_mounts(&home);
        home.join("root")
    })
}

impl Podman<'_> {
    /// What `podman rm` is to be called for. A store without containers says so in a file.
    fn removals(&self) -> Vec<&'static [&'static str]> {
        let driver = machine::driver(&self.home, "overlay", "vfs");
        let containers = self.home.join(format!("root/{driver}-containers/containers.json"));
        let none = fs::read_to_string(containers).is_ok_and(|text| text.trim() == "[]");
        let mut removals: Vec<&[&str]> = Vec::new();
        if self.pods.get() {
            removals.push(&["pod", "rm", "--all", "--force", "--time", "0"]);
        }
        if !none {
            removals.push(&["rm", "--all", "--force", "--time", "0"]);
        }
        if self.user.is_some() {
            // This ends the process that keeps the user namespace open.
            removals.push(&["system", "migrate"]);
        }
        removals
    }

    /// The cgroups and units that a container was in, and the runtime's state.
    fn runtime_left(&self) -> Vec<String> {
        let container = |name: &str| name.starts_with("libpod-") && name.len() > 64;
        let mut left = match self.manager {
            Manager::Cgroupfs => machine::cgroups_left(self.test.id(), container),
            Manager::Systemd => place::scopes_in(self.test, self.user.as_ref(), &self.parent),
        };
        left.extend(match self.user {
            None => machine::states_left(self.test),
            Some(_) => {
                ["brig", "crun", "runc"].iter().flat_map(|name| machine::entries(&self.runroot.join(name))).collect()
            }
        });
        left
    }
}

impl Drop for Podman<'_> {
    fn drop(&mut self) {
        let mut left = Vec::new();
        for what in self.removals() {
            let out = self.call(what).out();
            if out.code != 0 {
                left.push(format!("podman {} ended with {}: {}", what.join(" "), out.code, out.stderr.trim()));
            }
        }
        machine::end_pauses(self.test.id());
        left.extend(machine::processes_left(self.test.id()));
        machine::end_processes(self.test.id());
        machine::reap_monitors();
        left.extend(self.runtime_left());
        left.extend([&self.home, &self.runroot].into_iter().flat_map(|dir| machine::mounts_left(dir)));
        match self.manager {
            Manager::Cgroupfs => machine::remove_cgroups(self.test.id()),
            Manager::Systemd => place::stop_slice(self.test, self.user.as_ref(), &self.parent),
        }
        machine::remove_mounts(&self.home);
        machine::remove_mounts(&self.runroot);
        let _ = fs::remove_dir_all(&self.runroot);
        if !std::thread::panicking() {
            assert!(left.is_empty(), "left behind: {}", left.join("; "));
        }
    }
}
