//! buildah: builds an image and runs commands in one with the runtime under test, over the storage of a podman of the
//! test's own, under each cgroup manager, in each cgroup mode, as root and as an ordinary user.

use super::machine;
use super::place::{self, Manager};
use super::podman::{IMAGE, Podman, Setup};
use crate::support::{Test, cases};
use std::fs;

cases![rootful_cgroupfs_v1, rootful_cgroupfs_v2, rootful_systemd_v2, rootless_v2];

fn build_and_run(t: &Test, setup: Setup) {
    let buildah = machine::program("buildah");
    let p = Podman::on(t, setup);
    let manager = setup.manager.name();
    let runtime = machine::runtime_for_all().display().to_string();
    let tool = |args: &[&str]| p.storage_tool(&buildah, &[&["--cgroup-manager", manager], args].concat());

    let file = p.home().join("Containerfile");
    let steps = "RUN echo made > /made && id -u >> /made\nRUN mkdir /work\nWORKDIR /work\nRUN pwd >> /made";
    fs::write(&file, format!("FROM {IMAGE}\n{steps}\nCMD [\"cat\", \"/made\"]\n")).unwrap();
    // buildah hands a parent on as the cgroup's path, as it is: systemd would want slice:prefix:name, and a user would
    // have to be in a cgroup of its own already. The name tells these cgroups from podman's.
    let parent = format!("{}-build", p.parent);
    let parent = match (setup.manager, setup.user) {
        (Manager::Cgroupfs, None) => ["--cgroup-parent", &parent].to_vec(),
        _ => Vec::new(),
    };
    let flags = ["--isolation", "oci", "--runtime", &runtime, "--network", "none"];
    let (file, context) = (file.display().to_string(), p.home().join("tmp").display().to_string());
    let rest = ["--tag", "localhost/made:latest", "--file", &file, &context];
    tool(&[["bud"].as_slice(), &flags, &parent, &rest].concat()).ok();
    let made = p.call(&["run", "--rm", "--cgroup-parent", &p.parent, "localhost/made:latest"]).ok();
    assert_eq!(made.stdout, "made\n0\n/work\n");

    let from = tool(&[["from"].as_slice(), &parent, &[IMAGE]].concat()).ok().stdout;
    let run = |command: &[&str]| {
        let flags = ["run", "--isolation", "oci", "--runtime", &runtime, "--network", "none", from.trim()];
        tool(&[&flags, command].concat()).out()
    };
    assert_eq!(run(&["sh", "-c", "echo hello; exit 4"]).code(4).stdout, "hello\n");
    let missing = run(&["no-such-program"]);
    assert_ne!(missing.code, 0);
    assert!(missing.stderr.contains("no-such-program"), "{}", missing.stderr);
    tool(&["rm", from.trim()]).ok();
}

fn rootful_cgroupfs_v1(t: &Test) {
    place::needs_v1();
    build_and_run(t, Setup { manager: Manager::Cgroupfs, user: None, lines: "" });
}

fn rootful_cgroupfs_v2(t: &Test) {
    place::needs_v2();
    build_and_run(t, Setup { manager: Manager::Cgroupfs, user: None, lines: "" });
}

fn rootful_systemd_v2(t: &Test) {
    place::needs_systemd_v2();
    build_and_run(t, Setup { manager: Manager::Systemd, user: None, lines: "" });
}

fn rootless_v2(t: &Test) {
    place::needs_systemd_v2();
    let user = place::user();
    build_and_run(t, Setup { manager: Manager::Cgroupfs, user: Some(&user), lines: "" });
}
