use super::*;
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::PathBuf;

/// A layer made by hand: `upper` and `lower` in a directory of the test's own.
struct Layer(PathBuf);

impl Layer {
    /// With these files in the lower directory.
    fn new(name: &str, lower: &[(&str, &str)]) -> Layer {
        let dir = std::env::temp_dir().join(format!("brig-diff-{}-{name}", std::process::id()));
        let _ = fs::remove_dir_all(&dir);
        fs::create_dir_all(dir.join("upper")).unwrap();
        fs::create_dir_all(dir.join("lower")).unwrap();
        let layer = Layer(dir);
        lower.iter().for_each(|(path, text)| layer.write(&format!("lower/{path}"), text));
        layer
    }

    fn at(&self, path: &str) -> PathBuf {
        self.0.join(path)
    }

    fn write(&self, path: &str, text: &str) {
        fs::create_dir_all(self.at(path).parent().unwrap()).unwrap();
        fs::write(self.at(path), text).unwrap();
    }

    /// Marks a file as overlayfs does with `userxattr`; false, said aloud, where the filesystem has no such attributes.
    /// Marks are made by hand in the writing that takes no privilege; a real overlay of root's makes the other.
    fn marks(&self) -> Marks {
        if self.at("merged").exists() { Marks::Trusted } else { Marks::User }
    }

    fn mark(&self, path: &str, which: &str) -> bool {
        let done = xattr::set(self.at(path), format!("user.overlay.{which}"), b"y");
        done.inspect_err(|e| eprintln!("skipped: no user.* attributes on {}: {e}", self.0.display())).is_ok()
    }

    /// Makes a whiteout as a privileged overlay does, or as one with `userxattr` does; false where neither is possible.
    fn whiteout(&self, path: &str) -> bool {
        let device = nix::sys::stat::mknod(&self.at(path), SFlag::S_IFCHR, Mode::empty(), 0);
        if device.is_ok() {
            return true;
        }
        self.write(path, "");
        self.mark(path, "whiteout")
    }

    fn roots(&self) -> [File; 2] {
        ["upper", "lower"].map(|name| File::open(self.at(name)).unwrap())
    }

    fn told(&self) -> Vec<String> {
        let [upper, lower] = self.roots();
        let all = changes(upper.as_fd(), lower.as_fd(), self.marks(), "/work/", LISTED).unwrap();
        assert!(!all.truncated);
        lines(&all.list)
    }

    fn commit(&self) -> Result<Vec<Change>> {
        let [upper, lower] = self.roots();
        commit(upper.as_fd(), lower.as_fd(), self.marks(), "/work")
    }

    fn read(&self, path: &str) -> String {
        fs::read_to_string(self.at(path)).unwrap()
    }

    fn mode(&self, path: &str, mode: u32) {
        fs::set_permissions(self.at(path), fs::Permissions::from_mode(mode)).unwrap();
    }
}

impl Drop for Layer {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn lines(list: &[Change]) -> Vec<String> {
    let mark = |kind| match kind {
        ChangeKind::Added => '+',
        ChangeKind::Modified => '~',
        ChangeKind::Deleted => '-',
    };
    list.iter().map(|c| format!("{}{} {}", mark(c.kind), c.path, c.size)).collect()
}

#[test]
fn each_kind_of_change_is_told_and_a_mere_copy_is_not() {
    let layer = Layer::new("kinds", &[("same", "a"), ("text", "a"), ("mode", "a"), ("dir/kept", "a"), ("link", "a")]);
    for (path, text) in [("same", "a"), ("text", "b"), ("mode", "a"), ("dir/new", "four"), ("deep/er/file", "x")] {
        layer.write(&format!("upper/{path}"), text);
    }
    layer.mode("upper/mode", 0o600);
    symlink("same", layer.at("upper/link")).unwrap();
    nix::unistd::mkfifo(&layer.at("upper/fifo"), Mode::S_IRWXU).unwrap();
    drop(std::os::unix::net::UnixListener::bind(layer.at("upper/socket")).unwrap());
    let expected = [
        "+/work/deep 0",
        "+/work/deep/er 0",
        "+/work/deep/er/file 1",
        "+/work/dir/new 4",
        "+/work/fifo 0",
        "~/work/link 0",
        "~/work/mode 1",
        "+/work/socket 0",
        "~/work/text 1",
    ];
    assert_eq!(layer.told(), expected);
}

#[test]
fn marks_of_both_writings_are_deletions() {
    let layer = Layer::new(
        "marks",
        &[("gone", "a"), ("tree/a", "a"), ("full/old", "a"), ("full/both", "a"), ("full/sub/x", "a")],
    );
    layer.write("upper/full/both", "b");
    layer.write("upper/full/sub/y", "b");
    layer.write("upper/tree", "");
    if !(layer.whiteout("upper/gone") && layer.mark("upper/tree", "whiteout") && layer.mark("upper/full", "opaque")) {
        return;
    }
    assert!(layer.whiteout("upper/never-was"));
    // What is below an opaque directory hides the lower one as well, whether it is marked or not.
    let expected = [
        "~/work/full/both 1",
        "-/work/full/old 0",
        "-/work/full/sub/x 0",
        "+/work/full/sub/y 1",
        "-/work/gone 0",
        "-/work/tree 0",
    ];
    assert_eq!(layer.told(), expected);
    layer.commit().unwrap();
    assert_eq!(layer.read("lower/full/both") + &layer.read("lower/full/sub/y"), "bb");
    for path in ["gone", "tree", "full/old", "full/sub/x"] {
        assert!(!layer.at("lower").join(path).exists(), "{path}");
    }
    assert_eq!(fs::read_dir(layer.at("lower")).unwrap().count(), 1, "nothing temporary is left");
    assert_eq!(layer.told(), [""; 0]);
}

#[test]
fn a_commit_keeps_what_may_be_kept() {
    let layer = Layer::new("commit", &[("text", "old"), ("dir/a", "a")]);
    layer.write("upper/text", "new");
    layer.write("upper/ro/inside", "x");
    layer.write("upper/setuid", "x");
    layer.mode("upper/setuid", 0o6755);
    layer.mode("upper/text", 0o640);
    layer.mode("upper/ro", 0o555);
    symlink("/etc/passwd", layer.at("upper/link")).unwrap();
    nix::unistd::mkfifo(&layer.at("upper/fifo"), Mode::S_IRUSR).unwrap();
    let old = std::time::UNIX_EPOCH + std::time::Duration::from_secs(1_000_000_000);
    File::open(layer.at("upper/text")).unwrap().set_modified(old).unwrap();
    let attributes = xattr::set(layer.at("upper/text"), "user.note", b"kept").is_ok();
    if attributes {
        assert!(layer.mark("upper/text", "origin"));
    }
    assert_eq!(layer.commit().unwrap().len(), 6);
    let text = fs::metadata(layer.at("lower/text")).unwrap();
    assert_eq!((text.mode() & 0o7777, text.mtime(), layer.read("lower/text")), (0o640, 1_000_000_000, "new".into()));
    let mode = |path: &str| fs::symlink_metadata(layer.at(path)).unwrap().mode();
    assert_eq!((mode("lower/setuid") & 0o7777, mode("lower/ro") & 0o7777), (0o755, 0o555));
    assert_eq!(mode("lower/fifo") & libc::S_IFMT, libc::S_IFIFO);
    assert_eq!(fs::read_link(layer.at("lower/link")).unwrap(), PathBuf::from("/etc/passwd"));
    assert_eq!((layer.read("lower/ro/inside"), layer.read("lower/dir/a")), ("x".into(), "a".into()));
    if attributes {
        let of = |name: &str| xattr::get(layer.at("lower/text"), name).unwrap();
        assert_eq!((of("user.note").as_deref(), of("user.overlay.origin")), (Some(&b"kept"[..]), None));
    } else {
        eprintln!("skipped: no user.* attributes on {}", layer.0.display());
    }
    layer.mode("lower/ro", 0o755);
    layer.mode("upper/ro", 0o755);
}

#[test]
fn what_changed_outside_meanwhile_is_not_overwritten() {
    let refused = |name: &str, lower: &[(&str, &str)], upper: &[(&str, &str)], words: &str| {
        let layer = Layer::new(name, &[]);
        layer.write("upper/aaa", "never committed");
        upper.iter().for_each(|(path, text)| layer.write(&format!("upper/{path}"), text));
        lower.iter().for_each(|(path, text)| layer.write(&format!("lower/{path}"), text));
        let error = layer.commit().unwrap_err();
        assert!(error.to_string().contains(words) && error.remedy().is_some(), "{error}");
        assert!(!layer.at("lower/aaa").exists());
        layer
    };
    let layer = refused("dir", &[("x/precious", "a")], &[("x", "b")], "a directory outside");
    assert_eq!(layer.read("lower/x/precious"), "a");
    refused("file", &[("x", "a")], &[("x/y", "b")], "it became a file meanwhile");
}

#[test]
fn a_file_edited_after_the_program_edited_it_is_kept() {
    let layer = Layer::new("late", &[("x", "mine")]);
    let [_, lower] = layer.roots();
    let upper = stat(lower.as_fd(), c"x").unwrap().unwrap();
    for (later, kind, refused) in
        [(0, ChangeKind::Modified, false), (1, ChangeKind::Modified, true), (1, ChangeKind::Deleted, true)]
    {
        let mut lower = upper;
        lower.st_ctime += later;
        let item = Item { path: c"x".into(), kind, upper, lower: Some(lower), opaque: false };
        assert_eq!(commit::refuse(&item).is_err(), refused, "{kind:?} {later}");
    }
}

/// In an overlay of root's a program may set `user.` attributes as it likes.
#[test]
fn marks_that_a_program_set_mean_nothing() {
    let layer = Layer::new("forged", &[("full/old", "a"), ("file", "a")]);
    layer.write("upper/full/new", "b");
    layer.write("upper/file", "");
    if !(layer.mark("upper/full", "opaque") && layer.mark("upper/file", "whiteout")) {
        return;
    }
    fs::create_dir(layer.at("merged")).unwrap();
    assert_eq!(layer.told(), ["~/work/file 0", "+/work/full/new 1"]);
}

#[test]
fn a_committed_layer_is_what_the_overlay_showed() {
    let layer =
        Layer::new("overlay", &[("gone", "a"), ("text", "a"), ("touched", "a"), ("tree/a/b", "a"), ("swap/x", "a")]);
    layer.write("lower/was-file", "a");
    layer.write("lower/moved/y", "a");
    // The process' own mount namespace ends with it; status 77 is for a host that mounts no overlay here.
    let script = "mkdir work merged && mount -t tmpfs none work && mkdir work/upper work/work \
        && mount -t overlay none -o lowerdir=lower,upperdir=work/upper,workdir=work/work,redirect_dir=off,metacopy=off merged \
        || exit 77
        cd merged && rm gone && echo b > text && touch touched && rm -r tree && mkdir -p swap/new tree/c && echo n > tree/c/n \
        && rm was-file && mkdir was-file && echo d > was-file/d && mv moved other && ln -s text link && chmod 700 swap \
        && rm swap/x && mkfifo swap/fifo && cd .. && (cd merged && find . -printf '%p %y %m %l\\n' | sort) > shown \
        && rmdir upper && cp -a work/upper upper";
    let run = std::process::Command::new("unshare").args(["-m", "sh", "-c", script]).current_dir(&layer.0).output();
    let run = run.expect("unshare(1) of util-linux");
    if !run.status.success() {
        let why = String::from_utf8_lossy(&run.stderr);
        assert!(run.status.code() == Some(77) || !nix::unistd::geteuid().is_root(), "{why}");
        eprintln!("skipped: no overlay can be mounted: {why}");
        return;
    }
    let expected = [
        "-/work/gone 0",
        "+/work/link 0",
        "-/work/moved 0",
        "+/work/other 0",
        "+/work/other/y 1",
        "~/work/swap 0",
        "+/work/swap/fifo 0",
        "+/work/swap/new 0",
        "-/work/swap/x 0",
        "~/work/text 2",
        "-/work/tree/a 0",
        "+/work/tree/c 0",
        "+/work/tree/c/n 2",
        "~/work/was-file 0",
        "+/work/was-file/d 2",
    ];
    assert_eq!(layer.told(), expected);
    layer.commit().unwrap();
    let find = "cd lower && find . -printf '%p %y %m %l\n' | sort";
    let now = std::process::Command::new("sh").args(["-c", find]).current_dir(&layer.0).output().unwrap();
    assert_eq!(String::from_utf8_lossy(&now.stdout), layer.read("shown"));
    assert_eq!(layer.told(), [""; 0]);
}

#[test]
fn symlinks_lead_nowhere() {
    let layer = Layer::new("links", &[]);
    layer.write("outside/file", "mine");
    symlink(layer.at("outside"), layer.at("lower/dir")).unwrap();
    symlink(layer.at("outside/file"), layer.at("lower/name")).unwrap();
    layer.write("upper/name", "new");
    layer.commit().unwrap();
    assert_eq!((layer.read("lower/name"), layer.read("outside/file")), ("new".into(), "mine".into()));
    assert!(!fs::symlink_metadata(layer.at("lower/name")).unwrap().is_symlink());
    layer.write("upper/dir/file", "new");
    assert!(layer.commit().is_err());
    assert_eq!(layer.read("outside/file"), "mine");
}

#[test]
fn a_long_list_is_cut_and_says_so() {
    let layer = Layer::new("many", &[]);
    (0..12).for_each(|n| layer.write(&format!("upper/{n:02}"), ""));
    let [upper, lower] = layer.roots();
    for (limit, listed) in [(11, (11, true)), (12, (12, false))] {
        let all = changes(upper.as_fd(), lower.as_fd(), Marks::User, "/", limit).unwrap();
        assert_eq!((all.list.len(), all.truncated), listed);
        assert_eq!(all.list[0].path, "/00");
    }
}

#[test]
fn a_layer_with_files_elsewhere_is_refused() {
    let layer = Layer::new("redirect", &[("old/a", "a")]);
    layer.write("upper/new/b", "b");
    if !layer.mark("upper/new", "redirect") {
        return;
    }
    let [upper, lower] = layer.roots();
    let error = changes(upper.as_fd(), lower.as_fd(), Marks::User, "/", LISTED).unwrap_err();
    assert_eq!(error.remedy(), Some("mount the overlay with redirect_dir=off"));
}
