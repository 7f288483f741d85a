//! podman under systemd on cgroup v2: pods, and a pod made of a Kubernetes file.

use super::machine;
use super::place::{self, Manager, User};
use super::podman::{IMAGE, Podman, Setup};
use crate::support::{Test, cases};
use std::fs;

cases![pod_systemd, pod_rootless_systemd, play_kube];

fn under_systemd<'t>(t: &'t Test, user: Option<&User>) -> Podman<'t> {
    place::needs_systemd_v2();
    machine::program("catatonit");
    Podman::on(t, Setup { manager: Manager::Systemd, user, lines: "" })
}

/// Namespaces are shared, each container has a scope in the pod's slice, the pod's limit is in the slice, and the end of
/// the pod is the end of all of it.
fn pod(t: &Test, user: Option<&User>) {
    let p = under_systemd(t, user);
    let share = ["--share", "ipc,uts,pid,net", "--network", "none", "--memory", "100m"];
    let create = [["pod", "create", "--name", "pod", "--cgroup-parent", &p.parent].as_slice(), &share].concat();
    p.call(&create).ok();
    p.call(&["run", "--detach", "--pod", "pod", "--name", "web", IMAGE, "sleep", "1000"]).ok();
    let look = "hostname; for n in net ipc uts pid; do readlink /proc/self/ns/$n; done; ps";
    let web = p.exec("web", look);
    let other = p.call(&["run", "--rm", "--pod", "pod", IMAGE, "sh", "-c", look]).ok().stdout;
    assert_eq!(web.lines().take(5).collect::<Vec<_>>(), other.lines().take(5).collect::<Vec<_>>());
    assert!(web.starts_with("pod\n") && other.contains("sleep 1000"), "{other}");

    let cgroup = place::cgroup_of(p.pid("web"));
    let slice = cgroup.split("/libpod-").next().expect("a path");
    assert!(slice.contains(&p.parent) && slice.ends_with(".slice"), "{cgroup}");
    let limit = fs::read_to_string(format!("/sys/fs/cgroup{}/memory.max", pod_slice(&cgroup)));
    assert_eq!(limit.unwrap_or_default().trim(), "104857600", "the pod's limit, in {cgroup}");

    let stats = p.call(&["pod", "stats", "--no-stream", "--format", "{{.Name}} {{.PIDS}}", "pod"]).ok().stdout;
    assert!(stats.lines().any(|line| line == "web 1"), "{stats}");
    p.call(&["pod", "pause", "pod"]).ok();
    assert_eq!(p.inspect("web", "State.Status"), "paused");
    p.call(&["pod", "unpause", "pod"]).ok();
    p.call(&["pod", "stop", "--time", "0", "pod"]).ok();
    assert_eq!(p.inspect("web", "State.Status"), "exited");
    p.call(&["pod", "rm", "pod"]).ok();
    place::cgroup_goes(format!("/sys/fs/cgroup{slice}").as_ref());
}

/// The slice that holds a container's scope.
fn pod_slice(cgroup: &str) -> &str {
    cgroup.split("/libpod-").next().unwrap_or(cgroup)
}

fn pod_systemd(t: &Test) {
    pod(t, None);
}

fn pod_rootless_systemd(t: &Test) {
    pod(t, Some(&place::user()));
}

const KUBE: &str = r#"apiVersion: v1
kind: Pod
metadata:
  name: kube
spec:
  hostNetwork: true
  containers:
  - name: web
    image: localhost/tools:latest
    imagePullPolicy: Never
    command: ["/bin/sh", "-c", "echo $GREETING > /data/file; sleep 1000"]
    env:
    - name: PATH
      value: /bin
    - name: GREETING
      value: hello
    resources:
      limits:
        memory: 64Mi
        cpu: 500m
    securityContext:
      readOnlyRootFilesystem: true
      capabilities:
        drop: ["ALL"]
    volumeMounts:
    - name: data
      mountPath: /data
  volumes:
  - name: data
    persistentVolumeClaim:
      claimName: kept
"#;

/// There is no flag for the parent cgroup, so this one is podman's own, machine.slice.
fn play_kube(t: &Test) {
    let p = under_systemd(t, None);
    let file = p.home().join("pod.yaml");
    fs::write(&file, KUBE).unwrap();
    let file = file.display().to_string();
    p.call(&["play", "kube", &file]).ok();
    let script = "until [ -s /data/file ]; do sleep 0.1; done; cat /data/file /sys/fs/cgroup/memory.max /sys/fs/cgroup/cpu.max; \
        grep CapBnd /proc/self/status; touch /new 2>&1 || true";
    let out = p.exec("kube-web", script);
    assert_eq!(out, "hello\n67108864\n50000 100000\nCapBnd:\t0000000000000000\ntouch: /new: Read-only file system\n");
    let id = p.inspect("kube-web", "Id");
    p.call(&["play", "kube", "--down", &file]).ok();
    let units = place::systemctl(t, None, &["list-units", "--all", "--plain", "--no-legend"]).ok().stdout;
    assert!(!units.contains(&id), "{units}");
    p.call(&["volume", "rm", "kept"]).ok();
}
