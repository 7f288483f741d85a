//! The container's limits as unit properties, so that systemd knows them and a `systemctl daemon-reload` does not undo them.
//!
//! They are read off the writes into control files: what systemd has a property for is set both ways, the rest (hugetlb,
//! burst, limits of single disks) through the control files alone. systemd keeps some values only roughly (a CPU quota in
//! whole percents), so the files are written last.

use super::super::Version;
use super::super::devices::{Kind, Rule, allow_all};
use super::super::write::Write;
use super::super::{Group, limits};
use super::gvariant;
use super::wire::Value;
use crate::error::Problem;
use std::collections::BTreeMap;

/// A unit property.
#[derive(Debug, Clone, PartialEq)]
pub struct Property {
    /// Its name.
    pub name: String,
    /// Its value.
    pub value: Value,
    /// The JSON pointer of what asked for it.
    pub pointer: String,
    /// Whether the container does without it where systemd is too old for it: a control file says the same.
    pub optional: bool,
}

impl Property {
    /// One that has to be set.
    pub fn new(name: &str, value: Value, pointer: &str) -> Property {
        Property { name: name.to_owned(), value, pointer: pointer.to_owned(), optional: false }
    }

    /// As the `(sv)` of a call.
    pub fn pair(&self) -> Value {
        Value::Struct(vec![Value::str(&self.name), Value::Variant(Box::new(self.value.clone()))])
    }
}

/// Adds a property; a later one of a name takes the place of an earlier one.
pub fn put(list: &mut Vec<Property>, property: Property) {
    list.retain(|p| p.name != property.name);
    list.push(property);
}

/// The properties that say what the writes say. `current` reads a file of the group that has the write, for the half of a
/// CPU quota that stays.
pub fn from_writes(
    groups: &[Group],
    writes: &[Write],
    current: &dyn Fn(&Write, &str) -> Option<String>,
) -> Vec<Property> {
    let mut list = Vec::new();
    let idle = writes.iter().any(|w| w.file == "cpu.idle" && w.value.trim() == "1");
    for write in writes {
        let v2 = groups[write.group].version == Version::V2;
        let mut add = |name: &str, value: Option<Value>| {
            if let Some(value) = value {
                let pointer = write.pointer.to_string();
                put(&mut list, Property { name: name.to_owned(), value, pointer, optional: true });
            }
        };
        let value = write.value.trim();
        match (write.file.as_ref(), v2) {
            ("memory.max", true) => add("MemoryMax", size(value)),
            ("memory.high", true) => add("MemoryHigh", size(value)),
            ("memory.low", true) => add("MemoryLow", size(value)),
            ("memory.min", true) => add("MemoryMin", size(value)),
            ("memory.swap.max", true) => add("MemorySwapMax", size(value)),
            ("memory.oom.group", true) => {
                add("OOMPolicy", Some(Value::str(if value == "1" { "kill" } else { "continue" })));
            }
            ("memory.limit_in_bytes", false) => add("MemoryLimit", size(value)),
            // An idle cgroup has no weight (systemd 252 and later).
            ("cpu.idle", true) if idle => add("CPUWeight", Some(Value::U64(0))),
            ("cpu.weight", true) if !idle => add("CPUWeight", number(value)),
            ("cpu.shares", false) => add("CPUShares", number(value).map(|v| clamp(v, 2, 262_144))),
            ("cpu.max", true) => {
                let mut words = value.split_whitespace();
                let quota = words.next().unwrap_or("max");
                let period = words.next().map(ToOwned::to_owned);
                let period = period.or_else(|| current(write, "cpu.max")?.split_whitespace().nth(1).map(Into::into));
                quota_of(quota, period, &mut add);
            }
            ("cpu.cfs_quota_us", false) => {
                let period = writes.iter().find(|w| w.file == "cpu.cfs_period_us").map(|w| w.value.clone());
                quota_of(value, period.or_else(|| current(write, "cpu.cfs_period_us")), &mut add);
            }
            ("cpu.cfs_period_us", false) if !writes.iter().any(|w| w.file == "cpu.cfs_quota_us") => {
                let quota = current(write, "cpu.cfs_quota_us").unwrap_or_default();
                quota_of(quota.trim(), Some(value.to_owned()), &mut add);
            }
            ("cpuset.cpus", _) => add("AllowedCPUs", bits(value)),
            ("cpuset.mems", _) => add("AllowedMemoryNodes", bits(value)),
            // systemd takes no 0; the file has it.
            ("pids.max", _) => add("TasksMax", size(value).map(|v| clamp(v, 1, u64::MAX))),
            ("io.weight", true) => add("IOWeight", number(value.trim_start_matches("default "))),
            ("io.bfq.weight", true) => add("IOWeight", number(value.trim_start_matches("default ")).map(from_bfq)),
            ("blkio.weight", false) => add("BlockIOWeight", number(value)),
            _ => {}
        }
    }
    list
}

/// A size or a count, where both generations have words for "no limit".
fn size(text: &str) -> Option<Value> {
    match text {
        "max" | "-1" => Some(Value::U64(u64::MAX)),
        text => number(text),
    }
}

fn number(text: &str) -> Option<Value> {
    text.parse().ok().map(Value::U64)
}

fn clamp(value: Value, low: u64, high: u64) -> Value {
    match value {
        Value::U64(n) => Value::U64(n.clamp(low, high)),
        other => other,
    }
}

/// The weight that systemd turns into this one of BFQ (1 to 1000): it maps 100 to 10000 onto 100 to 1000.
fn from_bfq(value: Value) -> Value {
    match value {
        Value::U64(weight @ 101..) => Value::U64((100 + (weight - 100) * 11).min(10_000)),
        other => other,
    }
}

/// A quota in microseconds a period as one in microseconds a second. A unit file keeps it in whole percents, so it is rounded
/// up, or a daemon-reload would lower it.
fn quota_of(quota: &str, period: Option<String>, add: &mut dyn FnMut(&str, Option<Value>)) {
    const PERCENT: u64 = 10_000;
    let period: u64 = period.and_then(|p| p.trim().parse().ok()).filter(|p| *p > 0).unwrap_or(100_000);
    add("CPUQuotaPeriodUSec", Some(Value::U64(period)));
    let second = match quota.parse::<u64>() {
        Ok(quota) => {
            let exact = u128::from(quota) * 1_000_000 / u128::from(period);
            u64::try_from(exact).unwrap_or(u64::MAX / 2).div_ceil(PERCENT).saturating_mul(PERCENT).max(PERCENT)
        }
        Err(_) => u64::MAX,
    };
    add("CPUQuotaPerSecUSec", Some(Value::U64(second)));
}

/// The highest CPU or memory node that is believed; the kernel has 8192 at the most.
const NODES: usize = 1 << 16;

/// A list such as `0-3,7` as a mask, lowest byte first; `None` for what the kernel is going to refuse.
fn bits(list: &str) -> Option<Value> {
    let mut mask = Vec::new();
    for part in list.split(',').map(str::trim).filter(|part| !part.is_empty()) {
        let (from, to) = part.split_once('-').unwrap_or((part, part));
        let (from, to): (usize, usize) = (from.trim().parse().ok()?, to.trim().parse().ok()?);
        if from > to || to >= NODES {
            return None;
        }
        for n in from..=to {
            if mask.len() <= n / 8 {
                mask.resize(n / 8 + 1, 0_u8);
            }
            mask[n / 8] |= 1 << (n % 8);
        }
    }
    (!mask.is_empty()).then(|| Value::Array("y".into(), mask.into_iter().map(Value::Byte).collect()))
}

/// The device rules as a list of what is allowed. `None` when everything is, or when systemd has no words for the rules: then
/// the container's own rules stand alone. `devices` is the text of /proc/devices, by which systemd knows a whole driver.
pub fn from_devices(rules: &[Rule], devices: &str) -> Option<Vec<Property>> {
    if allow_all(rules) {
        return None;
    }
    let start = rules.iter().rposition(|rule| rule.kind == Kind::All)?;
    if rules[start].allow || rules[start + 1..].iter().any(|rule| !rule.allow) {
        return None;
    }
    let mut list: Vec<(String, String)> = Vec::new();
    for rule in &rules[start + 1..] {
        let (word, blocks) = if rule.kind == Kind::Block { ("block", true) } else { ("char", false) };
        let name = match (rule.major, rule.minor) {
            (Some(major), Some(minor)) => format!("/dev/{word}/{major}:{minor}"),
            (Some(major), None) => format!("{word}-{}", driver(devices, blocks, major)?),
            (None, None) => format!("{word}-*"),
            (None, Some(_)) => return None,
        };
        match list.iter_mut().find(|(known, _)| *known == name) {
            Some((_, access)) => rule.access.chars().for_each(|c| {
                if !access.contains(c) {
                    access.push(c)
                }
            }),
            None => list.push((name, rule.access.clone())),
        }
    }
    let pair = |(name, access): (String, String)| Value::Struct(vec![Value::Str(name), Value::Str(access)]);
    let list = Value::Array("(ss)".into(), list.into_iter().map(pair).collect());
    let pointer = "/linux/resources/devices";
    Some(vec![
        Property::new("DevicePolicy", Value::str("strict"), pointer),
        Property::new("DeviceAllow", list, pointer),
    ])
}

/// The name of a driver in /proc/devices. Several can share a number: the first is enough.
fn driver(devices: &str, blocks: bool, major: u32) -> Option<&str> {
    let section = if blocks { "Block devices:" } else { "Character devices:" };
    let lines = devices.lines().skip_while(|line| *line != section).skip(1).take_while(|line| !line.is_empty());
    lines
        .filter_map(|line| line.trim().split_once(' '))
        .find(|(n, _)| n.parse() == Ok(major))
        .map(|(_, name)| name.trim())
}

const PREFIX: &str = "org.systemd.property.";

/// The properties that `org.systemd.property.*` annotations ask for.
///
/// # Errors
/// Names that are none, and values that GVariant's text format has not.
pub fn from_annotations(annotations: &BTreeMap<String, String>) -> Result<Vec<Property>, Vec<Problem>> {
    let (mut list, mut problems) = (Vec::new(), Vec::new());
    for (key, text) in annotations.range(PREFIX.to_owned()..) {
        let Some(name) = key.strip_prefix(PREFIX) else { break };
        let pointer = format!("/annotations/{}", limits::escape(key));
        if name.len() < 3 || !name.bytes().all(|b| b.is_ascii_alphabetic()) {
            problems.push(Problem::new(pointer, format!("{name:?} is no property's name; these are letters alone")));
            continue;
        }
        if ["PIDs", "PIDFDs", "Slice"].contains(&name) {
            let what = format!("{name} is brig's to set; the slice is the first part of linux.cgroupsPath");
            problems.push(Problem::new(pointer, what));
            continue;
        }
        match gvariant::parse(text).and_then(|value| in_microseconds(name, value)) {
            Ok((name, value)) => put(&mut list, Property { name, value, pointer, optional: false }),
            Err(what) => {
                let what = format!("{what}; values are in GVariant's text format, such as 'text', true or uint64 5");
                problems.push(Problem::new(pointer, what));
            }
        }
    }
    if problems.is_empty() { Ok(list) } else { Err(problems) }
}

/// What unit files call `TimeoutStopSec` is `TimeoutStopUSec` on D-Bus, in microseconds.
fn in_microseconds(name: &str, value: Value) -> Result<(String, Value), String> {
    let Some(stem) = name.strip_suffix("Sec").filter(|stem| !stem.ends_with('U')) else {
        return Ok((name.to_owned(), value));
    };
    let micros = match value {
        Value::Byte(n) => u64::from(n).checked_mul(1_000_000),
        Value::U16(n) => u64::from(n).checked_mul(1_000_000),
        Value::U32(n) => u64::from(n).checked_mul(1_000_000),
        Value::U64(n) => n.checked_mul(1_000_000),
        Value::I16(n) => u64::try_from(n).ok().and_then(|n| n.checked_mul(1_000_000)),
        Value::I32(n) => u64::try_from(n).ok().and_then(|n| n.checked_mul(1_000_000)),
        Value::I64(n) => u64::try_from(n).ok().and_then(|n| n.checked_mul(1_000_000)),
        Value::F64(n) if (0.0..1e12).contains(&n) => Some((n * 1e6) as u64),
        _ => None,
    };
    let micros = micros.ok_or("is no number of seconds")?;
    Ok((format!("{stem}USec"), Value::U64(micros)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::prim::cgroup::devices;
    use crate::spec::{DeviceRule, DeviceType};

    fn group(version: Version) -> Group {
        Group { version, controllers: Vec::new(), mount: "/m".into(), path: "/m/a".into() }
    }

    fn shown(version: Version, writes: &[(&'static str, &str)]) -> Vec<String> {
        let write = |(file, value): &(&'static str, &str)| Write { group: 0, ..Write::new(*file, value, "/p") };
        let writes: Vec<Write> = writes.iter().map(write).collect();
        let current = |_: &Write, file: &str| match file {
            "cpu.max" => Some("20000 50000".to_owned()),
            "cpu.cfs_quota_us" => Some("20000\n".to_owned()),
            "cpu.cfs_period_us" => Some("50000\n".to_owned()),
            _ => None,
        };
        let list = from_writes(&[group(version)], &writes, &current);
        list.iter().map(|p| format!("{}={}", p.name, p.value)).collect()
    }

    #[test]
    fn v2_limits() {
        let v2 = |writes: &[(&'static str, &str)]| shown(Version::V2, writes);
        assert_eq!(
            v2(&[("memory.max", "67108864"), ("memory.low", "max"), ("memory.swap.max", "0")]),
            ["MemoryMax=67108864", "MemoryLow=infinity", "MemorySwapMax=0"]
        );
        assert_eq!(v2(&[("pids.max", "5")]), ["TasksMax=5"]);
        assert_eq!(v2(&[("pids.max", "0")]), ["TasksMax=1"]);
        assert_eq!(v2(&[("pids.max", "7"), ("pids.max", "max")]), ["TasksMax=infinity"], "the last one counts");
        assert_eq!(v2(&[("cpu.weight", "59"), ("cpu.idle", "0")]), ["CPUWeight=59"]);
        assert_eq!(v2(&[("cpu.weight", "59"), ("cpu.idle", "1")]), ["CPUWeight=0"]);
        assert_eq!(v2(&[("memory.oom.group", "1")]), ["OOMPolicy=kill"]);
        assert_eq!(
            v2(&[("cpuset.cpus", "0-1,9"), ("cpuset.mems", "0")]),
            ["AllowedCPUs=0302", "AllowedMemoryNodes=01"]
        );
        assert_eq!(v2(&[("io.bfq.weight", "500")]), ["IOWeight=4500"]);
        assert_eq!(v2(&[("io.bfq.weight", "50")]), ["IOWeight=50"]);
        assert_eq!(v2(&[("io.weight", "default 700")]), ["IOWeight=700"]);
        let files_alone =
            [("hugetlb.2MB.max", "1"), ("io.max", "8:0 rbps=1"), ("io.bfq.weight", "8:0 5"), ("cpuset.cpus", "3-1")];
        assert_eq!(v2(&files_alone), [""; 0]);
    }

    #[test]
    fn quotas() {
        for (value, period, second) in [
            ("50000 100000", "100000", "500000"),
            // 33.3 % become 34.
            ("33333 100000", "100000", "340000"),
            ("max 50000", "50000", "infinity"),
            // One number alone leaves the period as it is.
            ("10000", "50000", "200000"),
            ("1000 1000000", "1000000", "10000"),
        ] {
            let wanted = [format!("CPUQuotaPeriodUSec={period}"), format!("CPUQuotaPerSecUSec={second}")];
            assert_eq!(shown(Version::V2, &[("cpu.max", value)]), wanted, "{value}");
        }
        let v1 = |writes: &[(&'static str, &str)]| shown(Version::V1, writes);
        assert_eq!(v1(&[("cpu.cfs_quota_us", "-1")]), ["CPUQuotaPeriodUSec=50000", "CPUQuotaPerSecUSec=infinity"]);
        assert_eq!(v1(&[("cpu.cfs_period_us", "40000")]), ["CPUQuotaPeriodUSec=40000", "CPUQuotaPerSecUSec=500000"]);
        assert_eq!(
            v1(&[("cpu.cfs_period_us", "40000"), ("cpu.cfs_quota_us", "4000")]),
            ["CPUQuotaPeriodUSec=40000", "CPUQuotaPerSecUSec=100000"]
        );
    }

    #[test]
    fn v1_limits() {
        let writes =
            [("memory.limit_in_bytes", "-1"), ("cpu.shares", "1"), ("blkio.weight", "100"), ("memory.max", "1")];
        assert_eq!(shown(Version::V1, &writes), ["MemoryLimit=infinity", "CPUShares=2", "BlockIOWeight=100"]);
    }

    const DEVICES: &str = "Character devices:\n  1 mem\n136 pts\n\nBlock devices:\n  1 ramdisk\n  8 sd\n";

    fn allowed(config: &[DeviceRule]) -> Option<String> {
        let rules = devices::rules(config, true).unwrap();
        from_devices(&rules, DEVICES).map(|list| list[1].value.to_string())
    }

    fn rule(allow: bool, typ: DeviceType, major: Option<i64>, minor: Option<i64>) -> DeviceRule {
        DeviceRule { allow, typ: Some(typ), major, minor, access: Some("r".into()) }
    }

    #[test]
    fn device_lists() {
        let defaults = "char-* m, block-* m, /dev/char/1:3 rwm, /dev/char/1:5 rwm, /dev/char/1:7 rwm, /dev/char/1:8 rwm, \
                        /dev/char/1:9 rwm, /dev/char/5:0 rwm, /dev/char/5:2 rwm, /dev/char/10:200 rwm, char-pts rwm";
        assert_eq!(allowed(&[]).unwrap(), defaults);
        let list = allowed(&[
            rule(true, DeviceType::Block, Some(8), None),
            rule(true, DeviceType::Char, Some(1), Some(3)),
            rule(true, DeviceType::Block, Some(8), Some(1)),
        ]);
        assert!(list.unwrap().starts_with("block-sd r, /dev/char/1:3 rwm, /dev/block/8:1 r, char-* m"));
        let all = DeviceRule { allow: true, typ: None, major: None, minor: None, access: Some("rwm".into()) };
        assert_eq!(allowed(std::slice::from_ref(&all)), None, "everything is allowed");
        assert_eq!(allowed(&[all, rule(false, DeviceType::Char, Some(1), Some(3))]), None, "systemd can't deny");
        assert_eq!(allowed(&[rule(true, DeviceType::Char, Some(99), None)]), None, "a driver that is not there");
        assert_eq!(allowed(&[rule(true, DeviceType::Char, None, Some(3))]), None);
    }

    #[test]
    fn annotations() {
        let read = |pairs: &[(&str, &str)]| {
            let map = pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
            from_annotations(&map)
        };
        let shown = |pairs: &[(&str, &str)]| {
            read(pairs)
                .unwrap()
                .iter()
                .map(|p| format!("{}={}:{}", p.name, p.value.signature(), p.value))
                .collect::<Vec<_>>()
        };
        assert_eq!(
            shown(&[
                ("a.b", "no value"),
                ("org.systemd.property.CollectMode", "'inactive-or-failed'"),
                ("org.systemd.property.TimeoutStopSec", "1.5"),
                ("org.systemd.property.TimeoutStartUSec", "uint64 7"),
                ("org.systemd.property.BindsTo", "['a.service']"),
                ("org.systemd.propertyX", "no value"),
            ]),
            [
                "BindsTo=as:a.service",
                "CollectMode=s:inactive-or-failed",
                "TimeoutStartUSec=t:7",
                "TimeoutStopUSec=t:1500000"
            ]
        );
        for (name, value, words) in [
            ("a/b", "1", "letters alone"),
            ("", "1", "letters alone"),
            ("Kill-Mode", "'a'", "letters alone"),
            ("KillMode", "mixed", "GVariant"),
            ("TimeoutStopSec", "-1", "no number of seconds"),
            ("Slice", "'a.slice'", "cgroupsPath"),
        ] {
            let problems = read(&[(&format!("org.systemd.property.{name}"), value)]).unwrap_err();
            assert!(problems[0].pointer.starts_with("/annotations/org.systemd.property."), "{name}");
            assert!(problems[0].what.contains(words), "{name}: {}", problems[0].what);
        }
    }
}
