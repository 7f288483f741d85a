//! The `stats` event as JSON, in the shape that runc prints and engines parse (its types/events.go): what is zero is left out
//! where runc leaves it out.

use crate::prim::cgroup::stats::{
    BlkioEntry, BlkioStats, CpuStats, CpusetStats, HugetlbStats, MemoryEntry, MemoryStats, Psi, PsiLine, Stats,
};
use crate::prim::intelrdt;
use crate::spec::is_default;
use serde::Serialize;
use serde::ser::{SerializeMap, Serializer};
use std::collections::BTreeMap;

/// One event, printed on a line of its own.
#[derive(Debug, Serialize)]
pub struct Event<'a> {
    #[serde(rename = "type")]
    kind: &'static str,
    id: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    data: Option<Data<'a>>,
}

impl<'a> Event<'a> {
    /// What a container uses.
    pub fn stats(id: &'a str, stats: &'a Stats, rdt: Option<intelrdt::Stats>) -> Event<'a> {
        Event { kind: "stats", id, data: Some(Data::new(stats, rdt)) }
    }

    /// A container ran out of memory.
    pub fn oom(id: &'a str) -> Event<'a> {
        Event { kind: "oom", id, data: None }
    }

    /// The event as a line.
    pub fn line(&self) -> String {
        serde_json::to_string(self).unwrap_or_default() + "\n"
    }
}

#[derive(Debug, Serialize)]
struct Data<'a> {
    cpu: Cpu<'a>,
    cpuset: Cpuset<'a>,
    memory: Memory<'a>,
    pids: Pids,
    blkio: Blkio<'a>,
    hugetlb: BTreeMap<&'a str, Hugetlb>,
    intel_rdt: intelrdt::Stats,
    /// Those of a configuration of before OCI.
    network_interfaces: Option<()>,
}

#[derive(Debug, Serialize)]
struct Cpu<'a> {
    usage: Usage<'a>,
    throttling: Throttling,
    #[serde(skip_serializing_if = "Option::is_none")]
    psi: Option<Pressure>,
}

#[derive(Debug, Serialize)]
struct Usage<'a> {
    #[serde(skip_serializing_if = "is_default")]
    total: u64,
    #[serde(skip_serializing_if = "<[u64]>::is_empty")]
    percpu: &'a [u64],
    #[serde(skip_serializing_if = "<[u64]>::is_empty")]
    percpu_kernel: &'a [u64],
    #[serde(skip_serializing_if = "<[u64]>::is_empty")]
    percpu_user: &'a [u64],
    kernel: u64,
    user: u64,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Throttling {
    #[serde(skip_serializing_if = "is_default")]
    periods: u64,
    #[serde(skip_serializing_if = "is_default")]
    throttled_periods: u64,
    #[serde(skip_serializing_if = "is_default")]
    throttled_time: u64,
}

#[derive(Debug, Serialize)]
struct Cpuset<'a> {
    #[serde(skip_serializing_if = "<[u16]>::is_empty")]
    cpus: &'a [u16],
    cpu_exclusive: u64,
    #[serde(skip_serializing_if = "<[u16]>::is_empty")]
    mems: &'a [u16],
    mem_hardwall: u64,
    mem_exclusive: u64,
    memory_migrate: u64,
    memory_spread_page: u64,
    memory_spread_slab: u64,
    memory_pressure: u64,
    sched_load_balance: u64,
    sched_relax_domain_level: i64,
}

#[derive(Debug, Serialize)]
struct Memory<'a> {
    #[serde(skip_serializing_if = "is_default")]
    cache: u64,
    usage: Entry,
    swap: Entry,
    kernel: Entry,
    #[serde(rename = "kernelTCP")]
    kernel_tcp: Entry,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    raw: &'a BTreeMap<String, u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    psi: Option<Pressure>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    event_count: &'a BTreeMap<String, u64>,
}

#[derive(Debug, Serialize)]
struct Entry {
    limit: u64,
    #[serde(skip_serializing_if = "is_default")]
    usage: u64,
    #[serde(skip_serializing_if = "is_default")]
    max: u64,
    failcnt: u64,
}

#[derive(Debug, Serialize)]
struct Pids {
    #[serde(skip_serializing_if = "is_default")]
    current: u64,
    #[serde(skip_serializing_if = "is_default")]
    limit: u64,
}

#[derive(Debug)]
struct Blkio<'a>(&'a BlkioStats);

#[derive(Debug, Serialize)]
struct Device<'a> {
    #[serde(skip_serializing_if = "is_default")]
    major: u64,
    #[serde(skip_serializing_if = "is_default")]
    minor: u64,
    #[serde(skip_serializing_if = "str::is_empty")]
    op: &'a str,
    #[serde(skip_serializing_if = "is_default")]
    value: u64,
}

#[derive(Debug, Serialize)]
struct Hugetlb {
    #[serde(skip_serializing_if = "is_default")]
    usage: u64,
    #[serde(skip_serializing_if = "is_default")]
    max: u64,
    failcnt: u64,
}

#[derive(Debug, Serialize)]
struct Pressure {
    some: PressureLine,
    full: PressureLine,
}

#[derive(Debug, Serialize)]
struct PressureLine {
    avg10: f64,
    avg60: f64,
    avg300: f64,
    total: u64,
}

impl<'a> Data<'a> {
    fn new(stats: &'a Stats, rdt: Option<intelrdt::Stats>) -> Data<'a> {
        Data {
            cpu: cpu(&stats.cpu),
            cpuset: cpuset(&stats.cpuset),
            memory: memory(&stats.memory),
            pids: Pids { current: stats.pids.current, limit: stats.pids.limit },
            blkio: Blkio(&stats.blkio),
            hugetlb: stats.hugetlb.iter().map(|(size, stats)| (size.as_str(), hugetlb(stats))).collect(),
            intel_rdt: rdt.unwrap_or_default(),
            network_interfaces: None,
        }
    }
}

fn cpu(cpu: &CpuStats) -> Cpu<'_> {
    let CpuStats { total, kernel, user, throttling, .. } = *cpu;
    Cpu {
        usage: Usage {
            total,
            percpu: &cpu.percpu,
            percpu_kernel: &cpu.percpu_kernel,
            percpu_user: &cpu.percpu_user,
            kernel,
            user,
        },
        throttling: Throttling {
            periods: throttling.periods,
            throttled_periods: throttling.throttled_periods,
            throttled_time: throttling.throttled_time,
        },
        psi: cpu.psi.as_ref().map(pressure),
    }
}

fn cpuset(cpuset: &CpusetStats) -> Cpuset<'_> {
    Cpuset {
        cpus: &cpuset.cpus,
        cpu_exclusive: cpuset.cpu_exclusive,
        mems: &cpuset.mems,
        mem_hardwall: cpuset.mem_hardwall,
        mem_exclusive: cpuset.mem_exclusive,
        memory_migrate: cpuset.memory_migrate,
        memory_spread_page: cpuset.memory_spread_page,
        memory_spread_slab: cpuset.memory_spread_slab,
        memory_pressure: cpuset.memory_pressure,
        sched_load_balance: cpuset.sched_load_balance,
        sched_relax_domain_level: cpuset.sched_relax_domain_level,
    }
}

fn memory(memory: &MemoryStats) -> Memory<'_> {
    let entry = |e: &MemoryEntry| Entry { limit: e.limit, usage: e.usage, max: e.max, failcnt: e.failcnt };
    Memory {
        cache: memory.cache,
        usage: entry(&memory.usage),
        swap: entry(&memory.swap),
        kernel: entry(&memory.kernel),
        kernel_tcp: entry(&memory.kernel_tcp),
        raw: &memory.raw,
        psi: memory.psi.as_ref().map(pressure),
        event_count: &memory.events,
    }
}

fn hugetlb(stats: &HugetlbStats) -> Hugetlb {
    let counted = stats.reserved.unwrap_or(stats.used);
    Hugetlb { usage: counted.usage, max: counted.max, failcnt: counted.failcnt }
}

fn pressure(psi: &Psi) -> Pressure {
    let line = |l: &PsiLine| PressureLine { avg10: l.avg10, avg60: l.avg60, avg300: l.avg300, total: l.total };
    Pressure { some: line(&psi.some), full: line(&psi.full) }
}

impl Serialize for Blkio<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let stats = self.0;
        let lists: [(&str, &[BlkioEntry]); 8] = [
            ("ioServiceBytesRecursive", &stats.io_service_bytes_recursive),
            ("ioServicedRecursive", &stats.io_serviced_recursive),
            ("ioQueueRecursive", &stats.io_queued_recursive),
            ("ioServiceTimeRecursive", &stats.io_service_time_recursive),
            ("ioWaitTimeRecursive", &stats.io_wait_time_recursive),
            ("ioMergedRecursive", &stats.io_merged_recursive),
            ("ioTimeRecursive", &stats.io_time_recursive),
            ("sectorsRecursive", &stats.sectors_recursive),
        ];
        let mut map = serializer.serialize_map(None)?;
        for (name, list) in lists.into_iter().filter(|(_, list)| !list.is_empty()) {
            let devices: Vec<Device> =
                list.iter().map(|e| Device { major: e.major, minor: e.minor, op: &e.op, value: e.value }).collect();
            map.serialize_entry(name, &devices)?;
        }
        if let Some(psi) = &stats.psi {
            map.serialize_entry("psi", &pressure(psi))?;
        }
        map.end()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    #[test]
    fn an_idle_container_has_what_runc_prints_of_one() {
        let line = Event::stats("web", &Stats::default(), None).line();
        let entry = json!({"limit": 0, "failcnt": 0});
        assert_eq!(
            serde_json::from_str::<Value>(&line).unwrap(),
            json!({"type": "stats", "id": "web", "data": {
                "cpu": {"usage": {"kernel": 0, "user": 0}, "throttling": {}},
                "cpuset": {
                    "cpu_exclusive": 0, "mem_hardwall": 0, "mem_exclusive": 0, "memory_migrate": 0, "memory_spread_page": 0,
                    "memory_spread_slab": 0, "memory_pressure": 0, "sched_load_balance": 0, "sched_relax_domain_level": 0,
                },
                "memory": {"usage": entry, "swap": entry, "kernel": entry, "kernelTCP": entry},
                "pids": {}, "blkio": {}, "hugetlb": {}, "intel_rdt": {}, "network_interfaces": null,
            }})
        );
        assert!(line.ends_with("}\n") && line.lines().count() == 1);
        assert_eq!(Event::oom("web").line(), "{\"type\":\"oom\",\"id\":\"web\"}\n");
    }

    #[test]
    fn what_there_is_has_runcs_names() {
        let mut stats = Stats::default();
        let line = PsiLine { avg10: 1.5, avg60: 0.0, avg300: 0.0, total: 7 };
        stats.cpu.psi = Some(Psi { some: line, full: line });
        stats.cpu.percpu = vec![1, 2];
        stats.cpu.throttling.throttled_periods = 3;
        stats.memory.usage.limit = u64::MAX;
        stats.memory.raw.insert("rss".into(), 9);
        stats.hugetlb.insert("2MB".into(), HugetlbStats::default());
        stats.blkio.io_queued_recursive = vec![BlkioEntry { major: 8, minor: 0, op: "Read".into(), value: 5 }];
        let value: Value = serde_json::from_str(&Event::stats("web", &stats, None).line()).unwrap();
        let data = &value["data"];
        let psi = json!({"avg10": 1.5, "avg60": 0.0, "avg300": 0.0, "total": 7});
        assert_eq!(data["cpu"]["psi"], json!({"some": psi, "full": psi}));
        assert_eq!(data["cpu"]["usage"]["percpu"], json!([1, 2]));
        assert_eq!(data["cpu"]["throttling"], json!({"throttledPeriods": 3}));
        assert_eq!(data["memory"]["usage"]["limit"], u64::MAX);
        assert_eq!(data["memory"]["raw"], json!({"rss": 9}));
        assert_eq!(data["hugetlb"], json!({"2MB": {"failcnt": 0}}));
        assert_eq!(data["blkio"], json!({"ioQueueRecursive": [{"major": 8, "op": "Read", "value": 5}]}));
    }
}
