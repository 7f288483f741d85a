//! buildah: builds an image with the runtime under test, over the storage of a podman of the test's own.

use super::machine;
use super::podman::{IMAGE, Podman};
use crate::support::{Test, cases, runtime};
use std::fs;

cases![build, run];

fn build(t: &Test) {
    let buildah = machine::program("buildah");
    let p = Podman::new(t);
    let file = t.dir().join("Containerfile");
    let steps = "RUN echo made > /made && id -u >> /made\nRUN mkdir /work\nWORKDIR /work\nRUN pwd >> /made";
    fs::write(&file, format!("FROM {IMAGE}\n{steps}\nCMD [\"cat\", \"/made\"]\n")).unwrap();
    let runtime = runtime::under_test().path.display().to_string();
    let parent = format!("{}-build", p.parent);
    let flags = ["--isolation", "oci", "--runtime", &runtime, "--network", "none", "--cgroup-parent", &parent];
    let (file, context) = (file.display().to_string(), t.dir().display().to_string());
    let rest = ["--tag", "localhost/made:latest", "--file", &file, &context];
    p.storage_tool(&buildah, &[["bud"].as_slice(), &flags, &rest].concat()).ok();
    let made = p.call(&["run", "--rm", "--cgroup-parent", &p.parent, "localhost/made:latest"]).ok();
    assert_eq!(made.stdout, "made\n0\n/work\n");
}

fn run(t: &Test) {
    let buildah = machine::program("buildah");
    let p = Podman::new(t);
    let runtime = runtime::under_test().path.display().to_string();
    let parent = format!("{}-build", p.parent);
    let from = p.storage_tool(&buildah, &["from", "--cgroup-parent", &parent, IMAGE]).ok().stdout;
    let run = |command: &[&str]| {
        let flags = ["run", "--isolation", "oci", "--runtime", &runtime, "--network", "none", from.trim()];
        p.storage_tool(&buildah, &[&flags, command].concat()).out()
    };
    assert_eq!(run(&["echo", "hello"]).ok().stdout, "hello\n");
    run(&["sh", "-c", "exit 4"]).code(4);
    let missing = run(&["no-such-program"]);
    assert_ne!(missing.code, 0);
    assert!(missing.stderr.contains("no-such-program"), "{}", missing.stderr);
    p.storage_tool(&buildah, &["rm", from.trim()]).ok();
}
