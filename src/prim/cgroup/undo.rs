//! Writes into the cgroups of a container that runs: all of them, or none.

use super::Group;
use super::device_list::DeviceList;
use super::write::{self, Write, sets};
use crate::error::{Error, Result};
use std::fs;

/// Whether systemd is told of what is to be, or of what was.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    There,
    Back,
}

/// Carries out writes: after `tell` has told systemd of them, and before `then`, which is one thing more. When one fails, every
/// file that was written gets back what it held before, and systemd is told of that.
///
/// # Errors
/// The first that fails, in words, and what could not be put back.
pub fn write_all_or_none(
    groups: &[Group],
    writes: &[Write],
    tell: impl Fn(&[Write], Way) -> Result<()>,
    then: impl FnOnce() -> Result<()>,
) -> Result<()> {
    let before: Vec<Write> = writes.iter().filter_map(|write| before(groups, write)).collect();
    let devices = writes.iter().find(|write| write.file.starts_with("devices.")).map(|w| groups[w.group].path.clone());
    let rules = devices.as_ref().and_then(|path| fs::read_to_string(format!("{path}/devices.list")).ok());
    // systemd refuses all or nothing.
    tell(writes, Way::There)?;
    let Err(error) = write::write_all(groups, writes).and_then(|()| then()) else { return Ok(()) };
    let mut stuck = Vec::new();
    if let (Some(path), Some(rules)) = (devices, rules)
        && let Err(failed) = put_devices_back(&path, &rules)
    {
        stuck.push(failed);
    }
    if let Err(failed) = tell(&before, Way::Back) {
        stuck.push(failed.to_string());
    }
    for set in sets(&before) {
        // What was not reached, or refused, is as it was.
        let changed = set.iter().any(|write| self::before(groups, write).is_none_or(|now| now.value != write.value));
        if changed && let Err(failed) = write::write_all(groups, set) {
            stuck.push(failed.to_string());
        }
    }
    Err(match stuck.as_slice() {
        [] => error.context("the limits stay as they were"),
        _ => Error::new(error.kind(), format!("{error}\n  and could not be put back: {}", stuck.join("; "))),
    })
}

/// Brings the v1 device rules back to what devices.list said.
fn put_devices_back(path: &str, rules: &str) -> std::result::Result<(), String> {
    let now = fs::read_to_string(format!("{path}/devices.list")).unwrap_or_default();
    if now == rules {
        return Ok(());
    }
    let (now, wanted) = (DeviceList::parse(&now), DeviceList::parse(rules));
    for (file, value) in now.lead_to(&wanted) {
        let path = format!("{path}/{file}");
        write::put(&path, &value).map_err(|e| format!("write {value} to {path}: {}", e.desc()))?;
    }
    // What a list that allows by default denies can't be read.
    if wanted.allows_all() { Err(format!("what {path}/devices.list denied")) } else { Ok(()) }
}

/// The write that undoes another one; `None` where there is no such file, or none that can be read.
fn before(groups: &[Group], write: &Write) -> Option<Write> {
    let read = |file: &str| fs::read_to_string(format!("{}/{file}", groups[write.group].path)).ok();
    let instead = || write.instead.as_ref().and_then(|(file, value)| Some((file, value, read(file)?)));
    let (file, value, text) = read(&write.file).map(|text| (&write.file, &write.value, text)).or_else(instead)?;
    let value = value_before(file, value, &text)?;
    Some(Write { file: file.clone(), value, instead: None, above: None, ..write.clone() })
}

/// What has to be written into a file that reads like this, to undo that this value was written.
fn value_before(file: &str, value: &str, text: &str) -> Option<String> {
    if file == "memory.oom_control" {
        return text.lines().find_map(|line| line.strip_prefix("oom_kill_disable ")).map(|n| n.trim().to_owned());
    }
    // A line for each device or interface, by its first word; weights have one for "default" as well.
    let keyed = file.ends_with("_device")
        || ["io.", "rdma.", "misc.", "net_prio.ifpriomap"].iter().any(|start| file.starts_with(start));
    if !keyed {
        let mut lines = text.lines();
        return Some(lines.next().unwrap_or_default().trim().to_owned()).filter(|_| lines.next().is_none());
    }
    let key = value.split_once(' ').map_or("default", |(key, _)| key);
    let line = text.lines().find(|line| line.split(' ').next() == Some(key));
    let none = match file {
        "io.max" => "rbps=max wbps=max riops=max wiops=max",
        "io.latency" => "target=0",
        _ if file.starts_with("io.") => "default",
        _ => "0",
    };
    // A file with one weight alone, as older kernels have it.
    let alone = || (key == "default" && !text.trim().is_empty()).then(|| text.trim().to_owned());
    line.map(|line| line.trim().to_owned()).or_else(alone).or_else(|| Some(format!("{key} {none}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_undoes_a_write() {
        for (file, value, text, undo) in [
            ("pids.max", "7", "max\n", Some("max")),
            ("cpu.max", "20000 50000", "max 100000\n", Some("max 100000")),
            ("cpuset.cpus", "0", "\n", Some("")),
            ("memory.oom_control", "1", "oom_kill_disable 0\nunder_oom 0\noom_kill 3\n", Some("0")),
            ("blkio.throttle.read_bps_device", "8:0 5", "8:16 7\n8:0 9\n", Some("8:0 9")),
            ("blkio.throttle.read_bps_device", "8:0 5", "", Some("8:0 0")),
            (
                "io.max",
                "8:0 rbps=5",
                "8:0 rbps=9 wbps=max riops=max wiops=max\n",
                Some("8:0 rbps=9 wbps=max riops=max wiops=max"),
            ),
            ("io.max", "8:0 rbps=5", "", Some("8:0 rbps=max wbps=max riops=max wiops=max")),
            ("io.weight", "default 50", "default 100\n8:0 200\n", Some("default 100")),
            ("io.weight", "50", "default 100\n", Some("default 100")),
            ("io.bfq.weight", "50", "100\n", Some("100")),
            ("io.weight", "8:0 50", "default 100\n", Some("8:0 default")),
            (
                "rdma.max",
                "mlx5_1 hca_handle=3",
                "mlx5_1 hca_handle=max hca_object=max\n",
                Some("mlx5_1 hca_handle=max hca_object=max"),
            ),
            ("net_prio.ifpriomap", "lo 5", "lo 0\neth0 0\n", Some("lo 0")),
            ("memory.some_list", "1", "a 1\nb 2\n", None),
        ] {
            assert_eq!(value_before(file, value, text).as_deref(), undo, "{file}");
        }
    }
}
