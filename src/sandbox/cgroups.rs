//! A sandbox's cgroup: made where one can be had, by hand or by systemd; resource limits serve where not.

use super::compile::resources;
use super::policy::Policy;
use super::report::LimitUsed;
use crate::error::Result;
use crate::prim::cgroup::systemd::Session;
use crate::prim::cgroup::{self, CgroupPlan, Layout, Manager, Record, Version};
use crate::prim::namespaces;
use crate::spec::{DeviceRule, Resources, Spec};
use std::collections::BTreeMap;
use std::path::Path;

/// The controllers of cgroup v1 that a policy's limits take, and those that count for a report.
fn wanted(resources: &Resources, measure: bool) -> Vec<&'static str> {
    let mut names = Vec::new();
    names.extend((resources.memory.is_some() || measure).then_some("memory"));
    names.extend(resources.cpu.is_some().then_some("cpu"));
    names.extend(resources.pids.is_some().then_some("pids"));
    names.extend(measure.then_some("cpuacct"));
    names
}

/// A sandbox's cgroups.
#[derive(Default)]
pub struct Cgroups {
    /// What is to be made by systemd around the process, with the connection to it.
    pub scope: Option<(CgroupPlan, Session)>,
    /// What there is.
    pub record: Record,
}

/// Makes the cgroups that the policy's limits take, and with `measure` those that count.
///
/// # Errors
/// None is to be had; the error says why, and resource limits have to do.
pub fn make(spec: &Spec, id: &str, measure: bool) -> Result<Cgroups> {
    let mut layout = Layout::detect()?;
    let rootless = !nix::unistd::geteuid().is_root() || namespaces::inside_user_namespace();
    let mut resources = spec.linux().resources.clone().unwrap_or_default();
    let wanted = wanted(&resources, measure);
    if wanted.is_empty() && !layout.is_pure_v2() {
        return Ok(Cgroups::default());
    }
    layout
        .hierarchies
        .retain(|h| h.version == Version::V2 || wanted.iter().any(|w| h.controllers.iter().any(|c| c == w)));
    // No device can be made in there, and none but the usual ones is seen: a device program would be for nothing.
    resources.devices = vec![DeviceRule { allow: true, ..DeviceRule::default() }];
    let annotations = BTreeMap::new();
    let name = format!("brig-sandbox-{id}");
    let unit = format!(":brig-sandbox:{id}");
    let request = |manager, path| cgroup::Request {
        path: Some(path),
        id: &name,
        resources: &resources,
        manager,
        annotations: &annotations,
        default_devices: false,
        rootless,
        owner: None,
    };
    let problems = |found: Vec<_>| crate::error::Error::problems("the policy", &found);
    let by_hand = || {
        let plan = cgroup::compile(&layout, &request(Manager::Cgroupfs, &name)).map_err(problems)?;
        plan.check_free()?;
        plan.create()
    };
    match by_hand() {
        Ok(record) if !record.groups.is_empty() || !limited(spec) => Ok(Cgroups { scope: None, record }),
        // Under systemd a plain user's part of the tree is the user manager's to give.
        other if rootless && layout.is_pure_v2() && has_user_manager() => {
            let scope = cgroup::compile(&layout, &request(Manager::Systemd, &unit)).map_err(problems);
            match scope.and_then(|mut plan| Ok((plan.connect()?, plan))) {
                Ok((Some(session), plan)) => Ok(Cgroups { scope: Some((plan, session)), record: Record::default() }),
                Ok((None, _)) => other.map(|record| Cgroups { scope: None, record }),
                Err(error) => Err(error),
            }
        }
        other => other.map(|record| Cgroups { scope: None, record }),
    }
}

fn limited(spec: &Spec) -> bool {
    spec.linux().resources.is_some()
}

fn has_user_manager() -> bool {
    std::env::var_os("XDG_RUNTIME_DIR").is_some_and(|dir| Path::new(&dir).join("systemd/private").exists())
}

/// The limits of a policy in words, with what enforces each.
pub fn limits(policy: &Policy, record: &Record, overlays: bool) -> Vec<LimitUsed> {
    let by = |controller: &str, v1: &str, v2: &str, otherwise: &str| match record
        .groups
        .iter()
        .find(|g| g.has(controller))
        .map(|g| g.version)
    {
        Some(Version::V1) => format!("cgroup v1 {v1}"),
        Some(Version::V2) => format!("cgroup v2 {v2}"),
        None => otherwise.to_owned(),
    };
    let limits = &policy.limits;
    let mut list = Vec::new();
    let mut add = |name, value: Option<String>, by: String| {
        if let Some(value) = value {
            list.push(LimitUsed { name, value, by, hit: None });
        }
    };
    let text = |value: &dyn ToString| value.to_string();
    let memory = by("memory", "memory.limit_in_bytes", "memory.max", "RLIMIT_DATA");
    add("memory", limits.memory.map(|v| text(&v)), memory);
    let swap = by("memory", "memory.memsw.limit_in_bytes", "memory.swap.max", "nothing here");
    add("swap", limits.swap.filter(|_| limits.memory.is_some()).map(|v| text(&v)), swap);
    let cpu = || by("cpu", "cpu.cfs_quota_us", "cpu.max", "nothing here");
    add("cpu", limits.cpu.map(|v| text(&v)), cpu());
    add("cpu_quota", limits.cpu_quota.map(|(quota, period)| format!("{quota} us of {period} us")), cpu());
    add("cpu_time", limits.cpu_time.map(|v| text(&v)), "RLIMIT_CPU".into());
    add("pids", limits.pids.map(|v| text(&v)), by("pids", "pids.max", "pids.max", "RLIMIT_NPROC"));
    add("file_size", limits.file_size.map(|v| text(&v)), "RLIMIT_FSIZE".into());
    add("open_files", limits.open_files.map(|v| text(&v)), "RLIMIT_NOFILE".into());
    let disk = match (&policy.files.layer, overlays) {
        (Some(_), true) => "tmpfs size for temporary directories; the layer on disk has no limit",
        _ => "tmpfs size",
    };
    add("disk", limits.disk.map(|v| text(&v)), disk.into());
    add("timeout", limits.timeout.map(|v| text(&v)), "timer".into());
    list
}

/// Changes the limits of a sandbox that runs.
///
/// # Errors
/// What the kernel refuses: memory below what is in use; no cgroup to hold the limit.
pub fn update(record: &Record, policy: &Policy) -> Result<()> {
    use crate::error::{Error, Kind};
    if record.groups.is_empty() {
        return Err(Error::new(
            Kind::Status,
            "the sandbox has no cgroup, and resource limits can't be changed from outside",
        )
        .hint("start it where a cgroup can be had: as root, or under a systemd user session"));
    }
    let Some(wanted) = resources(policy) else { return Ok(()) };
    cgroup::update(record, &wanted).map_err(|p| Error::problems("the change", &p))?.apply()
}
