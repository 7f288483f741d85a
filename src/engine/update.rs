//! Other limits for a container that runs.

use super::pause::{gone, needs_cgroup};
use super::plan::validate::validate_resources;
use super::store::{Saved, Status, Store, wrong_status};
use crate::error::{Error, Problem, Result};
use crate::prim::{cgroup, intelrdt};
use crate::spec::{IntelRdt, Resources};
use serde_json::Value;
use std::collections::BTreeMap;

/// What an update asks for.
#[derive(Debug, Default)]
pub struct Change {
    /// The limits to be changed; what is absent stays as it is.
    pub resources: Resources,
    /// The schemas to be changed.
    pub intel_rdt: Option<IntelRdt>,
    /// What messages call where this comes from.
    pub document: String,
    /// The flag for each JSON pointer (in config.json) that a flag has set; the others are the document's.
    pub flags: BTreeMap<&'static str, &'static str>,
    /// What was wrong with it already when it was read, by flag or by pointer in the document.
    pub problems: Vec<Problem>,
}

/// Changes the limits of a container, and remembers them. All that can be known to be wrong is found before anything is
/// written; a write that the kernel refuses undoes those before it. Returns warnings.
///
/// # Errors
/// [`crate::error::Kind::Gone`] for a container that has ended; every problem of the change, by flag or pointer.
pub fn update(store: &Store, id: &str, mut change: Change) -> Result<Vec<String>> {
    let entry = store.open(id)?;
    let saved = entry.load()?.ok_or_else(|| wrong_status("update", id, Status::Creating))?;
    match saved.status(entry.path()) {
        Status::Created | Status::Running | Status::Paused => {}
        Status::Stopped => return Err(gone("update", id)),
        Status::Creating => return Err(wrong_status("update", id, Status::Creating)),
    }
    unset_zeroes(&mut change.resources);
    let limited = change.resources != Resources::default();
    if limited && change.problems.is_empty() {
        needs_cgroup(&saved, "limited")?;
    }
    let in_force = match &saved.resources {
        Some(resources) => resources.clone(),
        None => entry.config()?.linux().resources.clone().unwrap_or_default(),
    };
    // Callers send the rules of the config with every change, and what else has allowed devices since, such as a plugin for
    // GPUs, must not lose them by that. runc leaves devices alone altogether.
    if change.resources.devices == in_force.devices {
        change.resources.devices.clear();
    }
    complete(&mut change, &in_force);
    let (plan, mut rdt) = compile(&saved, &change)?;
    let mut next = saved.clone();
    next.resources = Some(merge(&in_force, &change.resources)?);
    entry.stage(&next)?;
    let applied = rdt.apply(&mut next).and_then(|()| {
        // A class that was made has to be found again.
        let staged = if next.intel_rdt == saved.intel_rdt { Ok(()) } else { entry.stage(&next) };
        staged.and_then(|()| plan.apply()).inspect_err(|_| rdt.undo(&next))
    });
    if let Err(error) = applied {
        entry.unstage();
        return Err(if saved.process().is_err() { gone("update", id) } else { error });
    }
    entry.commit()?;
    Ok(plan.warnings().map(|problem| change.named(problem).to_string()).collect())
}

/// Finds everything that is wrong.
fn compile(saved: &Saved, change: &Change) -> Result<(cgroup::CgroupPlan, Rdt)> {
    let mut problems = validate_resources(&change.resources);
    let plan = cgroup::update(&saved.cgroup, &change.resources);
    let mut rdt = Rdt::default();
    if let Some(wanted) = &change.intel_rdt {
        match intelrdt::compile(wanted, &saved.id) {
            Ok(wanted) => rdt.wanted = Some((wanted, intelrdt::find_root()?)),
            Err(found) => problems.extend(found),
        }
    }
    // Both look at some of the same values, and one of them is enough to tell.
    let known = |problems: &[Problem], problem: &Problem| problems.iter().any(|p| p.pointer == problem.pointer);
    for problem in plan.as_ref().err().into_iter().flatten() {
        if !known(&problems, problem) {
            problems.push(problem.clone());
        }
    }
    let mut named = change.problems.clone();
    for problem in problems.iter().map(|problem| change.named(problem)) {
        if !known(&named, &problem) {
            named.push(problem);
        }
    }
    match plan {
        Ok(plan) if named.is_empty() => Ok((plan, rdt)),
        _ => {
            named.sort();
            Err(Error::problems(&change.document, &named))
        }
    }
}

impl Change {
    /// A problem under the name by which the caller knows its place: the flag, or a pointer in the document.
    fn named(&self, problem: &Problem) -> Problem {
        let at = &problem.pointer;
        let own = || at.strip_prefix("/linux/resources").unwrap_or(at);
        Problem::new(self.flags.get(at.as_str()).copied().unwrap_or_else(own), problem.what.clone())
    }
}

/// The intelRdt half, which can be undone until the cgroups are done, too.
#[derive(Default)]
struct Rdt {
    wanted: Option<(intelrdt::Wanted, std::path::PathBuf)>,
    before: Option<intelrdt::Before>,
}

impl Rdt {
    fn apply(&mut self, saved: &mut Saved) -> Result<()> {
        let Some((wanted, root)) = &self.wanted else { return Ok(()) };
        if let Some(record) = &saved.intel_rdt {
            self.before = Some(record.update(wanted, root)?);
            return Ok(());
        }
        let record = intelrdt::apply(wanted, root, saved.pid)?;
        // Those that are there already; what they fork from now on is where they are.
        for pid in saved.cgroup.pids()?.into_iter().filter(|pid| *pid != saved.pid) {
            // One that has ended meanwhile is no loss.
            let _ = record.join(pid);
        }
        saved.intel_rdt = Some(record);
        Ok(())
    }

    fn undo(&self, saved: &Saved) {
        let (Some((_, root)), Some(record)) = (&self.wanted, &saved.intel_rdt) else { return };
        match &self.before {
            Some(before) => record.restore(before, root),
            None => drop(record.remove()),
        }
    }
}

/// Zero is what Go writes for "not set" in these; an empty list of CPUs means the same.
fn unset_zeroes(resources: &mut Resources) {
    fn unset<T: PartialEq + Default>(values: &mut [&mut Option<T>]) {
        for value in values.iter_mut().filter(|value| value.as_ref().is_some_and(|v| *v == T::default())) {
            **value = None;
        }
    }
    if let Some(memory) = &mut resources.memory {
        unset(&mut [&mut memory.limit, &mut memory.reservation, &mut memory.swap]);
    }
    if let Some(cpu) = &mut resources.cpu {
        unset(&mut [&mut cpu.shares, &mut cpu.period, &mut cpu.realtime_period]);
        unset(&mut [&mut cpu.quota, &mut cpu.realtime_runtime]);
        unset(&mut [&mut cpu.cpus, &mut cpu.mems]);
    }
    if let Some(io) = &mut resources.block_io {
        unset(&mut [&mut io.weight, &mut io.leaf_weight]);
    }
}

/// Adds what the other half in force is, where two limits are one to the kernel: memory.swap counts memory as well, and
/// stays what it was when the limit for memory moves.
fn complete(change: &mut Change, in_force: &Resources) {
    let (Some(memory), Some(old)) = (&mut change.resources.memory, &in_force.memory) else { return };
    match (memory.limit, memory.swap) {
        (None, Some(1..)) => memory.limit = old.limit.filter(|limit| *limit > 0),
        (Some(limit @ 1..), None) => {
            memory.swap = old.swap.filter(|swap| *swap > 0);
            if let Some(swap) = memory.swap.filter(|swap| *swap < limit) {
                memory.swap = None;
                let what = format!("{limit} is above the limit for memory and swap together, {swap}, which stays");
                let named = change.named(&Problem::new("/linux/resources/memory/limit", what));
                let hint = format!("{}; give memory.swap (--memory-swap) as well, or -1 for no limit", named.what);
                change.problems.push(Problem::new(named.pointer, hint));
            }
        }
        _ => {}
    }
}

/// The limits in force with those that an update has changed.
fn merge(old: &Resources, new: &Resources) -> Result<Resources> {
    let value = |resources: &Resources| serde_json::to_value(resources);
    let merged = value(old).and_then(|mut merged| {
        put(&mut merged, value(new)?);
        // Without a limit for memory there is none for memory and swap.
        if new.memory.as_ref().is_some_and(|m| m.limit == Some(-1) && m.swap.is_none()) {
            merged["memory"]["swap"] = (-1).into();
        }
        serde_json::from_value(merged)
    });
    merged.map_err(|e| Error::new(crate::error::Kind::Other, format!("the limits can't be put together: {e}")))
}

fn put(old: &mut Value, new: Value) {
    match (old, new) {
        (Value::Object(old), Value::Object(new)) => {
            for (key, value) in new {
                let known = old.entry(&key).or_insert(Value::Null);
                match (known, value) {
                    // A list of device rules is a whole one.
                    (known, rules) if key == "devices" => *known = rules,
                    (known, value) => put(known, value),
                }
            }
        }
        (Value::Array(old), Value::Array(new)) => {
            for value in new {
                match old.iter_mut().find(|one| is_same(one, &value)) {
                    Some(one) => *one = value,
                    None => old.push(value),
                }
            }
        }
        (old, new) => *old = new,
    }
}

/// Whether two entries of a list limit the same thing.
fn is_same(one: &Value, other: &Value) -> bool {
    let keys: &[&str] = match one {
        _ if one.get("pageSize").is_some() => &["pageSize"],
        _ if one.get("name").is_some() => &["name"],
        _ => &["major", "minor"],
    };
    keys.iter().all(|key| one.get(key) == other.get(key))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn resources(value: Value) -> Resources {
        serde_json::from_value(value).unwrap()
    }

    #[test]
    fn what_is_not_changed_stays() {
        let old = resources(json!({
            "devices": [{"allow": false, "access": "rwm"}],
            "memory": {"limit": 100, "swap": 200, "swappiness": 3}, "cpu": {"cpus": "0"}, "unified": {"memory.high": "5"},
            "hugepageLimits": [{"pageSize": "2MB", "limit": 1}, {"pageSize": "1GB", "limit": 2}],
            "blockIO": {"throttleReadBpsDevice": [{"major": 8, "minor": 0, "rate": 5}, {"major": 8, "minor": 1, "rate": 6}]},
        }));
        let new = resources(json!({
            "devices": [{"allow": true, "access": "rwm"}],
            "memory": {"limit": 150}, "pids": {"limit": 7}, "unified": {"memory.low": "1"},
            "hugepageLimits": [{"pageSize": "1GB", "limit": 3}],
            "blockIO": {"throttleReadBpsDevice": [{"major": 8, "minor": 1, "rate": 7}, {"major": 9, "minor": 0, "rate": 8}]},
        }));
        let both = resources(json!({
            "devices": [{"allow": true, "access": "rwm"}],
            "memory": {"limit": 150, "swap": 200, "swappiness": 3}, "cpu": {"cpus": "0"}, "pids": {"limit": 7},
            "unified": {"memory.high": "5", "memory.low": "1"},
            "hugepageLimits": [{"pageSize": "2MB", "limit": 1}, {"pageSize": "1GB", "limit": 3}],
            "blockIO": {"throttleReadBpsDevice": [
                {"major": 8, "minor": 0, "rate": 5}, {"major": 8, "minor": 1, "rate": 7}, {"major": 9, "minor": 0, "rate": 8}]},
        }));
        assert_eq!(merge(&old, &new).unwrap(), both);
        let free = merge(&old, &resources(json!({"memory": {"limit": -1}}))).unwrap().memory.unwrap();
        assert_eq!((free.limit, free.swap, free.swappiness), (Some(-1), Some(-1), Some(3)));
    }

    #[test]
    fn zeroes_change_nothing() {
        let mut change = resources(json!({
            "memory": {"limit": 0, "swap": 0}, "cpu": {"shares": 0, "quota": 0, "cpus": "", "burst": 0}, "pids": {"limit": 0},
        }));
        unset_zeroes(&mut change);
        // A burst and a number of processes may be zero.
        assert_eq!(change, resources(json!({"memory": {}, "cpu": {"burst": 0}, "pids": {"limit": 0}})));
    }

    #[test]
    fn memory_and_swap_belong_together() {
        let done = |old: Value, new: Value| {
            let mut change = Change { resources: resources(json!({"memory": new})), ..Change::default() };
            complete(&mut change, &resources(json!({"memory": old})));
            let memory = change.resources.memory.unwrap();
            (memory.limit, memory.swap, change.problems.len())
        };
        assert_eq!(done(json!({"limit": 100, "swap": 200}), json!({"limit": 150})), (Some(150), Some(200), 0));
        assert_eq!(done(json!({"limit": 100, "swap": 200}), json!({"swap": 300})), (Some(100), Some(300), 0));
        assert_eq!(done(json!({"limit": 100, "swap": 200}), json!({"limit": -1})), (Some(-1), None, 0));
        assert_eq!(done(json!({"limit": 100, "swap": 200}), json!({"limit": 201})), (Some(201), None, 1));
        assert_eq!(done(json!({"limit": 100, "swap": -1}), json!({"limit": 150})), (Some(150), None, 0));
        assert_eq!(done(json!({}), json!({"limit": 150})), (Some(150), None, 0));
    }
}
