//! Files: hidden, protected, opened.

use super::*;
use std::os::unix::fs::PermissionsExt;

pub(super) fn d_deny_read_path_and_glob(t: &Test) {
    let p = Place::new(t);
    for name in ["secret.txt", "keys/a.pem", "keys/b.pem", "dir/inner", "home/.ssh/id", "home/.netrc"] {
        p.file(name, "HIDDEN");
    }
    p.file("keys/c.txt", "seen");
    std::os::unix::fs::symlink("secret.txt", p.dir.join("link")).unwrap();
    let before = p.tree();
    let flags = ["--deny-read", "secret.txt", "--deny-read", "keys/*.pem", "--deny-read", "dir"];
    let script = "cat secret.txt link ./keys/../secret.txt /proc/self/cwd/secret.txt keys/a.pem keys/b.pem
        cat dir/inner; ls -A dir; cat home/.ssh/id home/.netrc; cat keys/c.txt; true";
    for more in [&["-w"][..], &["--ro"], &[]] {
        let out = p.sh(&[&flags, more].concat(), script).ok();
        assert_eq!(out.stdout.trim(), "seen", "{more:?}: {}", out.stderr);
        // Nor can it be had by putting it elsewhere, or be taken away.
        let out = p.sh(
            &[&flags, more].concat(),
            "mv secret.txt x; mv keys/a.pem y; ln secret.txt z; rm -rf secret.txt dir; rmdir dir; umount secret.txt
            echo new >secret.txt; echo new >keys/a.pem; touch dir/new; cat x y z secret.txt",
        );
        assert!(!out.stdout.contains("HIDDEN"), "{more:?}: {}", out.stdout);
        assert_eq!(p.tree(), before, "{more:?}: {}", out.stderr);
    }
    // Keys are opened by name; what is not there is told, and what can't be meant.
    let open = [".ssh", ".netrc"].map(|name| p.path(&format!("home/{name}")));
    let out = p.sh(&["--allow-read", &open[0], "--allow-read", &open[1]], "cat home/.ssh/id home/.netrc").ok();
    assert_eq!(out.stdout, "HIDDENHIDDEN");
    let report = p.report(&["--deny-read", "*.none"], &["syscall=getppid"]);
    assert!(report["notes"].to_string().contains("*.none matches nothing"), "{}", report["notes"]);
    p.sh(&["--deny-read", "a["], "true").code(125).fails(&["deny_read", "a["]);
}

pub(super) fn d_deny_write(t: &Test) {
    let p = Place::new(t);
    for name in ["locked", "a.lock", "b.lock", "sub/inner"] {
        p.file(name, "mine");
    }
    let before = p.tree();
    let flags = ["-w", "--deny-write", "locked", "--deny-write", "*.lock", "--deny-write", "sub"];
    for name in ["locked", "a.lock", "b.lock", "sub/inner", "sub/new", "sub"] {
        let script = format!(
            "f={name}; echo x >$f; echo x >>$f; true >$f; mv $f other; rm -rf $f; mkdir $f; chmod 777 $f; touch $f
            ln -f payload $f; ln -sfn payload $f; mkdir -p $f/deep; mv payload $f; mount -o remount,rw,bind $f; umount $f; rm -rf other"
        );
        let out = p.sh(&flags, &script).ok();
        assert_eq!(p.tree(), before, "{name}: {}", out.stderr);
        assert!(out.stderr.contains("Read-only") || out.stderr.contains("busy"), "{name}: {}", out.stderr);
    }
    // Nor is it made anew where its directory has been moved away.
    p.file("deep/er/named", "mine");
    let before = p.tree();
    let script = "perl -e 'rename(\"deep/er\", \"other\"); rename(\"deep\", \"other\")'; mkdir -p deep/er; echo x >deep/er/named; true";
    for flags in [&["-w"][..], &["--no-protect", "--allow-write", "deep"]] {
        p.sh(&[flags, &["--deny-write", "deep/er/named"]].concat(), script).ok();
        assert_eq!(p.tree(), before, "{flags:?}");
    }
    // A link that is named is neither written through nor replaced.
    std::os::unix::fs::symlink("free", p.dir.join("link")).unwrap();
    p.file("free", "mine");
    let before = p.tree();
    let script = "echo x >link; mv link other; rm -f link; ln -sfn payload link; echo x >free; true";
    let out = p.sh(&["-w", "--deny-write", "link"], script).ok();
    assert_eq!(p.tree(), before, "{}", out.stderr);
    // It is read as before, and all else is written.
    assert_eq!(p.sh(&flags, "cat locked a.lock sub/inner; echo y >free").ok().stdout, "mineminemine");
    assert_eq!(p.host("free").as_deref(), Some("y\n"));
}

pub(super) fn d_allow_write(t: &Test) {
    let p = Place::new(t);
    let out = t.dir().join("out");
    fs::create_dir(&out).unwrap();
    fs::write(t.dir().join("one"), "old").unwrap();
    let (dir, one) = (out.display().to_string(), t.dir().join("one").display().to_string());
    let before = p.tree();
    let script = format!("echo made >{dir}/a; mkdir {dir}/d; echo new >{one}; touch {one}2; echo x >here; true");
    let run = p.sh(&["--ro", "--allow-write", &dir, "--allow-write", &one], &script).ok();
    assert_eq!(fs::read_to_string(out.join("a")).unwrap(), "made\n", "{}", run.stderr);
    assert_eq!(fs::read_to_string(&one).unwrap(), "new\n");
    assert!(out.join("d").is_dir() && !t.dir().join("one2").exists());
    assert_eq!(p.tree(), before);
    // A denial within what is allowed holds; a place that is not there is refused before anything runs.
    let denied = format!("{dir}/a");
    p.sh(&["--allow-write", &dir, "--deny-write", &denied], &format!("echo x >{denied}")).fails(&[]);
    assert_eq!(fs::read_to_string(out.join("a")).unwrap(), "made\n");
    p.sh(&["--allow-write", "/nowhere/at/all"], "true").code(125).fails(&["allow_write", "make it first"]);
}

pub(super) fn d_writes_denied_by_default(t: &Test) {
    let p = Place::new(t);
    p.file("mine", "mine");
    let before = p.tree();
    let place = p.path("");
    // Opened to append, with nothing to append: harmless, should it work.
    let script = "for f in /etc/x /usr/x /var/x /opt/x /x /sys/x /proc/sys/kernel/core_pattern /proc/sysrq-trigger \
            /sys/power/state /etc/passwd /etc/hosts; do true >>$f && echo \"written: $f\"; done 2>/dev/null
        mkdir /etc/y /usr/y 2>/dev/null && echo made; rm -f /etc/hostname 2>/dev/null; test -e /etc/hostname || echo removed
        mount -t tmpfs none /mnt 2>/dev/null && echo mounted; mount -o remount,rw / 2>/dev/null && echo remounted; true";
    for flags in [&[][..], &["--ro"], &["-w"], &["--profile", "unrestricted"]] {
        let out = p.sh(flags, script).ok();
        assert_eq!(out.stdout, if Path::new("/etc/hostname").exists() { "" } else { "removed\n" }, "{flags:?}");
    }
    // The working directory is a copy: changed inside, as before outside.
    let script = format!("echo x >mine; mkdir new; rm -r home; cat mine; ls -A {place} | grep -c home; true");
    assert_eq!(p.sh(&[], &script).ok().stdout, "x\n0\n");
    assert_eq!(p.tree(), before);
    assert!(p.sh(&["--ro"], "echo x >mine").fails(&[]).stderr.contains("Read-only"));
    // What is private is nobody's afterwards.
    let name = format!("brig-{}", t.id());
    p.sh(&[], &format!("echo x >/tmp/{name}; echo x >/var/tmp/{name}; echo x >/dev/shm/{name}")).ok();
    assert!(["/tmp", "/var/tmp", "/dev/shm"].iter().all(|dir| !Path::new(dir).join(&name).exists()));
    assert_eq!(p.tree(), before);
}

/// Every name of the list: files, and directories with the file in them that is written.
const FILES: [&str; 13] = [
    ".gitconfig",
    ".bashrc",
    ".bash_profile",
    ".profile",
    ".zshrc",
    ".zprofile",
    ".zshenv",
    ".zlogin",
    ".npmrc",
    ".yarnrc",
    ".yarnrc.yml",
    ".mcp.json",
    ".mcp-settings.json",
];
const DIRECTORIES: [(&str, &str); 4] =
    [(".vscode", "tasks.json"), (".idea", "x.xml"), (".git/hooks", "pre-commit"), (".claude/commands", "x.md")];

/// Tries everything that could change what this path leads to.
fn attack(path: &str) -> String {
    let (parent, inner) = (Path::new(path).parent().unwrap().display().to_string(), Path::new(path).file_name().unwrap());
    let mut script = format!(
        "f={path}; echo evil >$f; echo evil >>$f; mv $f other; rm -rf $f; mkdir -p $f; echo evil >$f; ln -sf payload $f
        echo evil >tmpfile; mv tmpfile $f; mv -T tmpfile $f; rm -f tmpfile; ln payload $f; umount $f; chmod 777 $f;"
    );
    if !parent.is_empty() {
        let inner = inner.display();
        script += &format!("mv {parent} other; mkdir -p {parent}; echo evil >{parent}/{inner}; rm -rf {parent} other;");
    }
    script + "true"
}

/// A repository that is not at the top stays in its place, and so does what is on the way there.
pub(super) fn d_protected_files_stay_in_place(t: &Test) {
    let p = Place::new(t);
    for name in ["group/project/.git/hooks/x", "group/project/.git/config", "group/project/file", "group/gen/old"] {
        p.file(name, "mine");
    }
    let git = "group/project/.git";
    // By rename(2) itself: mv copies where that is refused.
    let moved = |from: &str, to: &str| format!("perl -e 'rename($ARGV[0], $ARGV[1])' {from} {to}; ");
    let moves: String = [git, "group/project", "group"].map(|path| moved(path, "away") + &format!("mkdir -p {path}; ")).concat();
    let attack = format!(
        "{moves} mkdir new; {} {} rmdir new; ln {git}/config away; rm -rf {git}/hooks; mkdir -p {git}/hooks;
        for name in hooks/pre-commit hooks/x config; do echo evil >{git}/$name; done; :",
        moved("new", git),
        moved("new", "group"),
    );
    let before = p.tree();
    let whole = p.path("group");
    for flags in [&["-w"][..], &["-w", "--allow-write", &whole], &["--allow-write", &whole]] {
        let out = p.sh(flags, &attack).ok();
        assert_eq!(p.tree(), before, "{flags:?}: {}", out.stderr);
    }
    // All else is moved, and what is mounted in there is not covered.
    p.sh(&["-w"], "mv group/project/file group/project/other; mkdir group/a && mv group/a group/b").ok();
    assert!(p.host("group/project/other").is_some() && p.dir.join("group/b").is_dir());
    let gen_dir = p.path("group/gen");
    p.sh(&["-w", "--overlay", &gen_dir], "echo x >group/gen/new && rm group/gen/old").ok();
    assert!(p.host("group/gen/new").is_none() && p.host("group/gen/old").is_some());
}

pub(super) fn d_protected_files(t: &Test) {
    let p = Place::new(t);
    // Those that are there.
    let mut names: Vec<String> = FILES.iter().map(ToString::to_string).collect();
    names.extend(DIRECTORIES.iter().map(|(dir, file)| format!("{dir}/{file}")));
    names.push(".git/config".into());
    for name in names.iter().map(|name| format!("there/{name}")) {
        p.file(&name, "mine");
    }
    fs::create_dir(p.dir.join("bare")).unwrap();
    let there = p.path("there");
    let before = p.tree();
    for name in names.iter().cloned().chain(DIRECTORIES.iter().map(|(dir, _)| (*dir).to_owned())) {
        let flags = ["-w", "--allow-write", &there, "--cwd", &there];
        let out = p.sh(&flags, &attack(&name)).ok();
        assert_eq!(p.tree(), before, "{name}: {}", out.stderr);
    }
    // Those that are not: they can't be made, and nothing is left of what keeps them from it.
    let bare = p.path("bare");
    fs::create_dir(p.dir.join("bare/.git")).unwrap();
    let before = p.tree();
    for name in names.iter().cloned().chain(DIRECTORIES.iter().map(|(dir, _)| (*dir).to_owned())) {
        let out = p.sh(&["-w", "--cwd", &bare], &attack(&name)).ok();
        assert_eq!(p.tree(), before, "{name}: {}", out.stderr);
    }
    fs::remove_dir(p.dir.join("bare/.git")).unwrap();
    let before = p.tree();
    for name in [".git/hooks/pre-commit", ".git/config"] {
        let out = p.sh(&["-w", "--cwd", &bare], &attack(name)).ok();
        assert_eq!(p.tree(), before, "{name}: {}", out.stderr);
    }
    // What a program makes in there besides is its own, and stays.
    p.sh(&["-w", "--cwd", &bare], &attack(".git")).ok();
    assert!(!p.dir.join("bare/.git/hooks").exists() && !p.dir.join("bare/.git/config").exists());
    let _ = fs::remove_dir_all(p.dir.join("bare/.git"));
    assert_eq!(p.tree(), before);
    // All else in such directories is written, and .git/config when it may be.
    p.sh(&["-w", "--cwd", &there], "echo x >.git/index && echo x >.claude/notes && mv .git/index .git/index2").ok();
    assert_eq!(p.host("there/.git/index2").as_deref(), Some("x\n"));
    p.sh(&["-w", "--cwd", &there], "echo x >.git/config").fails(&[]);
    let open = ["-w", "--cwd", &there, "--allow-git-config"];
    p.sh(&open, "echo x >.git/config.lock && mv .git/config.lock .git/config").ok();
    assert_eq!(p.host("there/.git/config").as_deref(), Some("x\n"));
    p.sh(&open, "echo evil >.git/hooks/pre-commit").fails(&[]);
    // A symlink with such a name leads where it led, and what it leads to is as it was.
    let links = p.path("links");
    p.file("links/dot", "mine");
    for (link, to) in [(".bashrc", "dot"), (".npmrc", "nowhere"), (".vscode", "../bare"), (".git/hooks", "../dot")] {
        fs::create_dir_all(p.dir.join("links/.git")).unwrap();
        std::os::unix::fs::symlink(to, p.dir.join("links").join(link)).unwrap();
    }
    let before = p.tree();
    for name in ["dot", ".bashrc", ".npmrc", ".vscode", ".git/hooks"] {
        let out = p.sh(&["-w", "--cwd", &links], &attack(name)).ok();
        assert_eq!(p.tree(), before, "{name}: {}", out.stderr);
    }
    assert_eq!(p.sh(&["-w", "--cwd", &links], "cat .bashrc").ok().stdout, "mine");
    // And everything when nothing is to be protected.
    p.sh(&["-w", "--cwd", &bare, "--no-protect"], "echo x >.bashrc && mkdir -p .git/hooks && echo x >.git/hooks/x").ok();
    assert_eq!(p.host("bare/.bashrc").as_deref(), Some("x\n"));
}

pub(super) fn d_protected_files_when_committed(t: &Test) {
    let p = Place::new(t);
    p.file(".bashrc", "mine");
    p.file(".git/hooks/pre-commit", "mine");
    let script = "echo evil >.bashrc; echo evil >.git/hooks/pre-commit; echo evil >.npmrc; mkdir .vscode; echo good >new";
    let out = p.sh(&["--commit"], script);
    for name in [".bashrc", ".git/hooks/pre-commit"] {
        assert_eq!(p.host(name).as_deref(), Some("mine"), "{name}: {}", out.stderr);
    }
    assert!(p.host(".npmrc").is_none() && !p.dir.join(".vscode").exists(), "{}", out.stderr);
    assert_eq!(p.host("new").as_deref(), Some("good\n"), "{}", out.stderr);
    // What is thrown away may be anything.
    p.sh(&[], "echo x >.bashrc && mkdir .vscode").ok();
    assert_eq!(p.host(".bashrc").as_deref(), Some("mine"));
}

pub(super) fn d_search_depth(t: &Test) {
    let p = Place::new(t);
    for dir in ["a", "a/b", "a/b/c", "a/b/c/d"] {
        p.file(&format!("{dir}/.bashrc"), "mine");
    }
    let script = "for d in a a/b a/b/c a/b/c/d; do echo x >$d/.bashrc; done 2>/dev/null; cat a/.bashrc a/b/.bashrc \
        a/b/c/.bashrc a/b/c/d/.bashrc";
    for (flags, changed) in [(&["--protect-depth", "4"][..], 0), (&[], 1), (&["--protect-depth", "1"], 3)] {
        let out = p.sh(&[&["-w"], flags].concat(), script).ok();
        assert_eq!(out.stdout.matches('x').count(), changed, "{flags:?}: {}", out.stdout);
    }
    assert_eq!(p.host("a/.bashrc").as_deref(), Some("mine"));
}

/// By a directory that the caller left open as a standard stream, `..` would lead out of the view.
pub(super) fn d_no_directory_as_a_stream(t: &Test) {
    let p = Place::new(t);
    let call = p.call(&["--", "./payload", "read=/proc/self/fd/0/../etc/passwd"]);
    let out = call.stdin(fs::File::open("/var").unwrap()).out().code(125);
    assert!(out.stderr.contains("standard stream 0 is a directory"), "{}", out.stderr);
}

/// What is a directory when the sandbox is planned and a symlink when its mounts are made.
pub(super) fn d_sources_exchanged_for_symlinks(t: &Test) {
    t.needs_call("mount_setattr");
    let p = Place::new(t);
    p.file("sub/.git/config", "mine");
    p.file("sub/.git/hooks/x", "mine");
    let outside = t.dir().join("outside");
    fs::create_dir_all(outside.join("hooks")).unwrap();
    fs::write(outside.join("config"), "theirs").unwrap();
    let here = p.path("");
    for (flags, swapped) in [(&["-w"][..], "sub/.git"), (&["--allow-write", "sub"], "sub"), (&["--overlay", "sub"], "sub")] {
        let script = "echo evil >sub/.git/new; echo evil >sub/new; ls -R sub; cat sub/config";
        // A user may have no cgroup for a limit, which a bundle insists on.
        let plain = ["--print-spec", "--cwd", &here, "--memory", "none", "--pids", "none"];
        let spec = p.call(&plain).args(flags).args(&["--", "/bin/sh", "-c", script]).out().ok();
        let bundle = t.dir().join(swapped.replace('/', "-") + flags[0]);
        fs::create_dir(&bundle).unwrap();
        fs::write(bundle.join("config.json"), &spec.stdout).unwrap();
        let run = |id: &str| t.call(&["run", "--bundle", &bundle.display().to_string(), id]).out();
        let (place, away) = (p.dir.join(swapped), p.dir.join("away"));
        fs::rename(&place, &away).unwrap();
        std::os::unix::fs::symlink(&outside, &place).unwrap();
        let out = run(&t.new_id());
        fs::remove_file(&place).unwrap();
        fs::rename(&away, &place).unwrap();
        assert!(!out.stdout.contains("theirs") && !outside.join("new").exists(), "{flags:?}: {}", out.stderr);
        out.fails(&[swapped, "symbolic links"]);
        run(&t.new_id()).code(1);
        let _ = fs::remove_file(p.dir.join("sub/.git/new"));
        let _ = fs::remove_file(p.dir.join("sub/new"));
    }
}

pub(super) fn d_protected_directories_of_overlays(t: &Test) {
    let p = Place::new(t);
    p.file(".git/config", "mine");
    p.file("sub/.git/config", "mine");
    let before = p.tree();
    let script = "echo evil >.git/HEAD; mkdir -p .claude; echo evil >.claude/notes; echo evil >sub/.git/HEAD; mv .git x; exit 3";
    for flags in [&["--commit"][..], &["-w", "--overlay", "sub"], &[]] {
        let script = if flags.contains(&"-w") { "echo evil >sub/.git/HEAD; exit 3" } else { script };
        let out = p.sh(flags, script).code(3);
        assert_eq!(p.tree(), before, "{flags:?}: {}", out.stderr);
    }
    p.sh(&["--commit"], "echo good >.git/HEAD && mkdir -p .claude && echo good >.claude/notes").ok();
    assert_eq!(["HEAD", "config"].map(|name| p.host(&format!(".git/{name}"))), [Some("good\n".into()), Some("mine".into())]);
    assert_eq!(p.host(".claude/notes").as_deref(), Some("good\n"));
    assert!(!p.dir.join(".git/hooks").exists() && !p.dir.join(".claude/commands").exists());
}

pub(super) fn d_protected_git_directories(t: &Test) {
    let p = Place::new(t);
    for repository in ["", "sub/", "bare/.git/modules/a/", "bare/.git/modules/b/c/"] {
        let dir = if repository.contains("modules") { repository.to_owned() } else { format!("{repository}.git/") };
        for file in ["HEAD", "config", "hooks/x"] {
            p.file(&format!("{dir}{file}"), "mine");
        }
    }
    p.file("bare/.git/HEAD", "mine");
    p.file(".git/worktrees/w/HEAD", "mine");
    p.file(".git/worktrees/w/commondir", "../..\n");
    // All else in there may be taken away.
    let tree = || p.tree().into_iter().filter(|line| !line.contains("/HEAD ")).collect::<Vec<_>>();
    let before = tree();
    let names = [".git/commondir", ".git/config.worktree", "sub/.git/commondir", "bare/.git/commondir", "bare/.git/hooks/x",
        ".git/worktrees/w/commondir", ".git/worktrees/w/config.worktree", "bare/.git/modules/a/commondir",
        "bare/.git/modules/a/config", "bare/.git/modules/a/hooks/x", "bare/.git/modules/b/c/commondir",
        "bare/.git/modules/b/c/config", "bare/.git/modules/b/c/config.worktree", "bare/.git/modules/b/c/hooks/x"];
    for name in names {
        let out = p.sh(&["-w"], &attack(name)).ok();
        assert_eq!(tree(), before, "{name}: {}", out.stderr);
    }
    for dir in [".git", ".git/worktrees", "bare/.git/modules", "bare/.git/modules/b"] {
        p.sh(&["-w"], &format!("mv {dir} other")).fails(&["busy"]);
    }
    // A repository works all the same, as long as the sandbox runs.
    if Path::new("/usr/bin/git").exists() {
        let git = "git -c safe.directory='*' -c user.name=a -c user.email=a@b";
        fs::create_dir(p.dir.join("real")).unwrap();
        p.sh(&["-w", "--no-protect"], &format!("cd real && {git} init -q")).ok();
        let script = format!("cd real && echo a >a && {git} add a && {git} commit -qm a && {git} log --format=%s && {git} rev-parse --git-common-dir");
        assert_eq!(p.sh(&["-w"], &script).ok().stdout.lines().next(), Some("a"));
        assert!(!p.dir.join("real/.git/commondir").exists() && !p.dir.join("real/.git/config.worktree").exists());
    }
}

pub(super) fn d_protected_directories_that_are_closed(t: &Test) {
    let p = Place::new(t);
    p.file(".git/hooks/x", "mine");
    p.file("sub/.bashrc", "mine");
    p.file("empty/.git/HEAD", "mine");
    for (dir, inner) in [(".git", "hooks/x"), ("sub", ".bashrc"), ("empty/.git", "hooks/x")] {
        for mode in ["000", "100", "600", "500"] {
            p.sh(&["-w"], &format!("chmod {mode} {dir}")).ok();
            let script = format!("chmod 700 {dir}; mkdir -p {dir}/hooks; echo evil >{dir}/{inner}; chmod 700 {dir}; true");
            let out = p.sh(&["-w"], &script).ok();
            fs::set_permissions(p.dir.join(dir), fs::Permissions::from_mode(0o755)).unwrap();
            let now = p.host(&format!("{dir}/{inner}"));
            assert!(now.is_none() == dir.starts_with("empty") && now.is_none_or(|text| text == "mine"), "{dir} {mode}: {}", out.stderr);
        }
    }
}

pub(super) fn d_binds_of_what_is_denied(t: &Test) {
    let p = Place::new(t);
    for name in ["data/secret", "data/open", "data/deep/keys/a", "data/locked", "home/.ssh/id", "data/.git/config"] {
        p.file(name, "HIDDEN");
    }
    fs::create_dir(p.dir.join("at")).unwrap();
    let before = p.tree();
    let (at, home) = (format!("{}:{}:rw", p.path("data"), p.path("at")), format!("{}:/mnt", p.path("home")));
    let deny = ["--deny-read", "data/secret", "--deny-read", "data/deep/keys", "--deny-write", "data/locked"];
    let script = "cat at/open at/secret at/deep/keys/a /mnt/.ssh/id; echo x >at/locked; mv at/locked y; mv at/secret x; cat x; echo -n open; true";
    let out = p.sh(&[&["-v", &at, "-v", &home], &deny[..]].concat(), script).ok();
    assert_eq!(out.stdout, "HIDDENopen", "{}", out.stderr);
    assert_eq!(p.tree(), before, "{}", out.stderr);
    // Nor is what is protected where it is, be it there or not.
    let script = "echo x >at/.git/config; echo x >at/.git/commondir; mkdir at/.git/hooks at/.git/hooks/x; mv at/.git y; echo x >at/.bashrc; true";
    let out = p.sh(&["-v", &at, "--allow-write", "data"], script).ok();
    assert_eq!(p.tree(), before, "{}", out.stderr);
    // A bind of just that: what is denied is denied.
    let only = format!("{}:/mnt", p.path("data/deep/keys"));
    assert!(!p.sh(&["-v", &only, "--deny-read", "data/deep/keys"], "cat /mnt/a; true").ok().stdout.contains("HIDDEN"));
}

pub(super) fn d_placeholders_of_sandboxes_side_by_side(t: &Test) {
    use crate::support::container::Lines;
    use std::io::Write;
    let p = Place::new(t);
    fs::create_dir(p.dir.join("made")).unwrap();
    p.file("made/.git/HEAD", "mine");
    let before = p.tree();
    let pipe = || nix::unistd::pipe2(nix::fcntl::OFlag::O_CLOEXEC).unwrap();
    let script = "echo up; read line; echo evil >.bashrc; echo evil >.git/config; mkdir .git/hooks/x; rm -rf .bashrc .git/hooks .vscode \
        && mkdir .vscode; echo evil >made/.git/commondir; echo ended";
    let start = || {
        let ((input, order), (said, output)) = (pipe(), pipe());
        let running = p.call(&["-w"]).args(&["-c", script]).stdin(input).stdout(output).spawn();
        let mut lines = Lines::new(said);
        assert_eq!(lines.next().as_deref(), Some("up"));
        (running, fs::File::from(order), lines)
    };
    for first_ends_first in [true, false] {
        let (mut one, mut two) = (start(), start());
        if !first_ends_first {
            std::mem::swap(&mut one, &mut two);
        }
        for (running, mut order, mut lines) in [one, two] {
            writeln!(order).unwrap();
            assert_eq!(lines.next().as_deref(), Some("ended"));
            running.wait();
            assert!(p.host(".bashrc").is_none_or(|text| text.is_empty()));
        }
        assert_eq!(p.tree(), before);
    }
    // What is as empty, and is the user's own, stays.
    p.file(".npmrc", "");
    fs::set_permissions(p.dir.join(".npmrc"), fs::Permissions::from_mode(0o600)).unwrap();
    let before = p.tree();
    let (one, two) = (start(), start());
    for (running, order, _) in [one, two] {
        drop(order);
        running.wait();
    }
    assert_eq!(p.tree(), before);
}
