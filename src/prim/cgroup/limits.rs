//! `linux.resources` as writes: which file of which group gets which bytes, in which order. Pure.

use super::device_list::DeviceList;
use super::write::{Set, Write};
use super::{DeviceProgram, Group, Mode, Version, convert, devices, program};
use crate::error::Problem;
use crate::spec::{Cpu, HugepageLimit, Memory, Network, Rdma, Resources};
use std::collections::BTreeMap;

/// What the compilation of one `linux.resources` has come to so far.
pub(super) struct Limits<'a> {
    /// Every group that the container may get.
    pub groups: &'a [Group],
    pub mode: &'a Mode,
    pub writes: Vec<Write>,
    pub device_program: Option<DeviceProgram>,
    pub problems: Vec<Problem>,
    pub warnings: Vec<Problem>,
}

impl Limits<'_> {
    /// Everything but `devices`. A zero is what Go writes for "not set", except where the specification gives it a meaning.
    pub fn all(&mut self, resources: &Resources) {
        if let Some(memory) = &resources.memory {
            self.memory(memory);
        }
        if let Some(cpu) = &resources.cpu {
            self.cpu(cpu);
            self.cpuset(cpu);
        }
        if let Some(limit) = resources.pids.as_ref().and_then(|pids| pids.limit) {
            let value = if limit < 0 { "max".to_owned() } else { limit.to_string() };
            self.put("pids", Write::new("pids.max", value, "/linux/resources/pids/limit"));
        }
        if let Some(block_io) = &resources.block_io {
            self.block_io(block_io);
        }
        self.hugepages(&resources.hugepage_limits);
        if let Some(network) = &resources.network {
            self.network(network);
        }
        self.rdma(&resources.rdma);
        // Last, since it is the most specific: it may override what came from the fields above.
        self.unified(&resources.unified);
    }

    /// The generation of the hierarchy that has this controller, by its v1 name.
    pub fn version(&self, controller: &str) -> Option<Version> {
        self.group(controller).map(|at| self.groups[at].version)
    }

    fn group(&self, controller: &str) -> Option<usize> {
        self.groups.iter().position(|group| group.has(controller))
    }

    /// Adds a write to the group that has this controller (by its v1 name); it is a problem if there is none.
    pub fn put(&mut self, controller: &str, mut write: Write) {
        match self.group(controller) {
            Some(at) => {
                write.group = at;
                self.writes.push(write);
            }
            None => {
                let v1_only = ["net_cls", "net_prio"].contains(&controller);
                let what = match self.mode {
                    Mode::Update { .. } => format!("the container has no cgroup with the {controller} controller"),
                    Mode::Create if v1_only && self.groups.iter().all(|g| g.version == Version::V2) => {
                        format!("needs the {controller} controller, which only cgroup v1 has, and this host has v2")
                    }
                    Mode::Create => {
                        format!(
                            "needs the {controller} controller, and no cgroup hierarchy of this host has it; remove it"
                        )
                    }
                };
                self.problem(&write.pointer, what);
            }
        }
    }

    pub fn problem(&mut self, pointer: &str, what: impl Into<String>) {
        self.problems.push(Problem::new(pointer, what));
    }

    fn warn(&mut self, pointer: &str, what: &str) {
        self.warnings.push(Problem::new(pointer, what));
    }

    /// A limit in bytes where -1 is none and 0 not set.
    fn bytes(&mut self, pointer: &str, value: Option<i64>) -> Option<i64> {
        let value = value.filter(|v| *v != 0)?;
        if value < -1 {
            self.problem(pointer, format!("{value} is no size; -1 means no limit"));
            return None;
        }
        Some(value)
    }

    fn memory(&mut self, memory: &Memory) {
        let limit = self.bytes("/linux/resources/memory/limit", memory.limit);
        let swap = self.bytes("/linux/resources/memory/swap", memory.swap);
        let reservation = self.bytes("/linux/resources/memory/reservation", memory.reservation);
        for (value, pointer) in [
            (memory.kernel, "/linux/resources/memory/kernel"),
            (memory.kernel_tcp, "/linux/resources/memory/kernelTCP"),
        ] {
            if value.is_some_and(|v| v != 0) {
                self.warn(pointer, "is deprecated: kernel memory counts as memory, so it is not limited on its own");
            }
        }
        if let (Some(swap), Some(limit)) = (swap, limit)
            && swap > 0
            && limit > swap
        {
            let what = format!("is memory and swap together, so {swap} can't be below memory.limit, {limit}");
            self.problem("/linux/resources/memory/swap", what);
            return;
        }
        match self.version("memory") {
            Some(Version::V2) => self.memory_v2(memory, limit, swap, reservation),
            _ => self.memory_v1(memory, limit, swap, reservation),
        }
    }

    fn memory_v1(&mut self, memory: &Memory, limit: Option<i64>, swap: Option<i64>, reservation: Option<i64>) {
        if swap.is_some_and(|s| s > 0) && limit.is_none_or(|l| l < 0) && *self.mode == Mode::Create {
            self.problem(
                "/linux/resources/memory/swap",
                "is memory and swap together, and needs memory.limit beside it",
            );
            return;
        }
        if let Some(limit) = limit {
            let pointer = "/linux/resources/memory/limit";
            self.put("memory", Write::new("memory.limit_in_bytes", limit, pointer).of(Set::Memory));
            if limit == -1 && swap.is_none() {
                // No limit for memory means none for memory and swap: the old one would refuse it.
                let write = Write::new("memory.memsw.limit_in_bytes", -1, pointer).of(Set::Memory).if_there(true);
                self.put("memory", write);
            }
        }
        if let Some(swap) = swap {
            let write = Write::new("memory.memsw.limit_in_bytes", swap, "/linux/resources/memory/swap");
            self.put("memory", write.of(Set::Memory).if_there(swap == -1));
        }
        if let Some(bytes) = reservation {
            self.put("memory", Write::new("memory.soft_limit_in_bytes", bytes, "/linux/resources/memory/reservation"));
        }
        let pointer = "/linux/resources/memory/swappiness";
        match memory.swappiness {
            // Engines in Go write -1, for "as it is", into an unsigned number.
            Some(u64::MAX) => {}
            Some(101..) => self.problem(pointer, "takes 0 to 100"),
            Some(swappiness) => self.put("memory", Write::new("memory.swappiness", swappiness, pointer)),
            None => {}
        }
        let pointer = "/linux/resources/memory/disableOOMKiller";
        match (memory.disable_oom_killer, self.mode) {
            (Some(true), _) => self.put("memory", Write::new("memory.oom_control", 1, pointer)),
            (Some(false), Mode::Update { .. }) => self.put("memory", Write::new("memory.oom_control", 0, pointer)),
            _ => {}
        }
        if let Some(hierarchy) = memory.use_hierarchy {
            let pointer = "/linux/resources/memory/useHierarchy";
            self.put("memory", Write::new("memory.use_hierarchy", u8::from(hierarchy), pointer));
        }
        // checkBeforeUpdate needs nothing: a v1 kernel refuses a limit that it can't bring the usage under.
    }

    fn memory_v2(&mut self, memory: &Memory, limit: Option<i64>, swap: Option<i64>, reservation: Option<i64>) {
        let max = |bytes: Option<i64>| bytes.filter(|b| *b >= 0).map_or("max".to_owned(), |b| b.to_string());
        let above = (memory.check_before_update == Some(true)).then_some("memory.current");
        let pointer = "/linux/resources/memory/swap";
        match (swap, limit) {
            (Some(1..), None) => {
                self.problem(pointer, "is memory and swap together, and needs memory.limit beside it");
            }
            // Without swap accounting nothing limits swap anyway, or nothing can be done about its use.
            (Some(swap), limit) => {
                let alone = max(convert::swap_alone(swap, limit));
                let harmless = alone == "max" || alone == "0";
                self.put("memory", Write::new("memory.swap.max", alone, pointer).if_there(harmless));
            }
            (None, Some(-1)) => {
                let pointer = "/linux/resources/memory/limit";
                self.put("memory", Write::new("memory.swap.max", "max", pointer).if_there(true));
            }
            _ => {}
        }
        if limit.is_some() {
            let mut write = Write::new("memory.max", max(limit), "/linux/resources/memory/limit");
            write.above = above;
            self.put("memory", write);
        }
        if reservation.is_some() {
            let pointer = "/linux/resources/memory/reservation";
            self.put("memory", Write::new("memory.low", max(reservation), pointer));
        }
        if memory.swappiness.is_some_and(|swappiness| swappiness != u64::MAX) {
            self.problem("/linux/resources/memory/swappiness", "cgroup v2 has no swappiness per cgroup; remove it");
        }
        if memory.disable_oom_killer == Some(true) {
            let what = "cgroup v2 can't keep the OOM killer away; remove it, or protect memory by reservation";
            self.problem("/linux/resources/memory/disableOOMKiller", what);
        }
        if memory.use_hierarchy == Some(false) {
            self.problem("/linux/resources/memory/useHierarchy", "cgroup v2 is always hierarchical; remove it");
        }
    }

    fn cpu(&mut self, cpu: &Cpu) {
        match self.version("cpu") {
            Some(Version::V2) => self.cpu_v2(cpu),
            _ => self.cpu_v1(cpu),
        }
    }

    fn cpu_v1(&mut self, cpu: &Cpu) {
        let set = |v: Option<u64>| v.filter(|v| *v != 0);
        if let Some(shares) = set(cpu.shares) {
            let pointer = "/linux/resources/cpu/shares";
            if !(2..=262_144).contains(&shares) {
                self.warn(pointer, "the kernel takes 2 to 262144, so it uses the nearer of these");
            }
            self.put("cpu", Write::new("cpu.shares", shares, pointer).of(Set::Shares));
        }
        if let Some(idle) = cpu.idle {
            self.put("cpu", Write::new("cpu.idle", idle, "/linux/resources/cpu/idle").of(Set::Shares));
        }
        if let Some(period) = set(cpu.period) {
            let pointer = "/linux/resources/cpu/period";
            self.put("cpu", Write::new("cpu.cfs_period_us", period, pointer).of(Set::Bandwidth));
        }
        if let Some(quota) = cpu.quota.filter(|q| *q != 0) {
            let write = Write::new("cpu.cfs_quota_us", quota.max(-1), "/linux/resources/cpu/quota");
            self.put("cpu", write.of(Set::Bandwidth));
        }
        if let Some(burst) = cpu.burst {
            let pointer = "/linux/resources/cpu/burst";
            self.put("cpu", Write::new("cpu.cfs_burst_us", burst, pointer).of(Set::Bandwidth));
        }
        if let Some(period) = set(cpu.realtime_period) {
            let pointer = "/linux/resources/cpu/realtimePeriod";
            self.put("cpu", Write::new("cpu.rt_period_us", period, pointer).of(Set::Realtime));
        }
        if let Some(runtime) = cpu.realtime_runtime.filter(|r| *r != 0) {
            let pointer = "/linux/resources/cpu/realtimeRuntime";
            self.put("cpu", Write::new("cpu.rt_runtime_us", runtime, pointer).of(Set::Realtime));
        }
    }

    fn cpu_v2(&mut self, cpu: &Cpu) {
        if let Some(shares) = cpu.shares.filter(|s| *s != 0) {
            let weight = convert::shares_to_weight(shares);
            self.put("cpu", Write::new("cpu.weight", weight, "/linux/resources/cpu/shares").of(Set::Shares));
        }
        if let Some(idle) = cpu.idle {
            self.put("cpu", Write::new("cpu.idle", idle, "/linux/resources/cpu/idle").of(Set::Shares));
        }
        let (quota, period) = (cpu.quota.filter(|q| *q != 0), cpu.period.filter(|p| *p != 0));
        let max = |quota: i64| if quota < 0 { "max".to_owned() } else { quota.to_string() };
        let value = match (quota, period, self.mode) {
            (None, None, _) => None,
            (Some(quota), Some(period), _) => Some(format!("{} {period}", max(quota))),
            (Some(quota), None, Mode::Create) => Some(format!("{} 100000", max(quota))),
            // One number alone leaves the period as it is.
            (Some(quota), None, Mode::Update { .. }) => Some(max(quota)),
            (None, Some(period), Mode::Update { cpu_quota: Some(quota), .. }) => Some(format!("{quota} {period}")),
            (None, Some(period), _) => Some(format!("max {period}")),
        };
        if let Some(value) = value {
            let name = if quota.is_some() { "quota" } else { "period" };
            let pointer = format!("/linux/resources/cpu/{name}");
            self.put("cpu", Write::new("cpu.max", value, pointer).of(Set::Bandwidth));
        }
        if let Some(burst) = cpu.burst {
            let pointer = "/linux/resources/cpu/burst";
            self.put("cpu", Write::new("cpu.max.burst", burst, pointer).of(Set::Bandwidth));
        }
        let realtime = [
            (cpu.realtime_period.is_some_and(|p| p != 0), "/linux/resources/cpu/realtimePeriod"),
            (cpu.realtime_runtime.is_some_and(|r| r != 0), "/linux/resources/cpu/realtimeRuntime"),
        ];
        for (_, pointer) in realtime.into_iter().filter(|(wanted, _)| *wanted) {
            self.problem(pointer, "cgroup v2 has no real-time bandwidth; remove it");
        }
    }

    fn cpuset(&mut self, cpu: &Cpu) {
        // The short names are those of a hierarchy that was mounted with noprefix, as Android does.
        for (value, file, short, pointer) in [
            (&cpu.cpus, "cpuset.cpus", "cpus", "/linux/resources/cpu/cpus"),
            (&cpu.mems, "cpuset.mems", "mems", "/linux/resources/cpu/mems"),
        ] {
            if let Some(list) = value.as_deref().filter(|list| !list.is_empty()) {
                self.put("cpuset", Write::new(file, list, pointer).or(short, list));
            }
        }
    }

    fn hugepages(&mut self, limits: &[HugepageLimit]) {
        for (i, HugepageLimit { page_size, limit }) in limits.iter().enumerate() {
            let pointer = format!("/linux/resources/hugepageLimits/{i}");
            let number = page_size.trim_end_matches(|c: char| c.is_ascii_uppercase());
            let unit = &page_size[number.len()..];
            if number.is_empty() || !number.bytes().all(|b| b.is_ascii_digit()) || !["KB", "MB", "GB"].contains(&unit) {
                let what = format!("{page_size:?} is no page size; they read as 64KB, 2MB or 1GB");
                self.problem(&format!("{pointer}/pageSize"), what);
                continue;
            }
            let suffix = if self.version("hugetlb") == Some(Version::V2) { "max" } else { "limit_in_bytes" };
            self.put("hugetlb", Write::new(format!("hugetlb.{page_size}.{suffix}"), limit, pointer.clone()));
            // Reserved pages count as well (Linux 5.7): a page that is mapped but not yet touched would kill its user later.
            let reserved = Write::new(format!("hugetlb.{page_size}.rsvd.{suffix}"), limit, pointer);
            if self.group("hugetlb").is_some() {
                self.put("hugetlb", reserved.if_there(true));
            }
        }
    }

    fn network(&mut self, network: &Network) {
        if let Some(class) = network.class_id.filter(|id| *id != 0) {
            self.put("net_cls", Write::new("net_cls.classid", class, "/linux/resources/network/classID"));
        }
        for (i, priority) in network.priorities.iter().enumerate() {
            let pointer = format!("/linux/resources/network/priorities/{i}");
            if priority.name.is_empty() || priority.name.contains(char::is_whitespace) {
                self.problem(&format!("{pointer}/name"), format!("{:?} is no interface name", priority.name));
                continue;
            }
            let value = format!("{} {}", priority.name, priority.priority);
            self.put("net_prio", Write::new("net_prio.ifpriomap", value, pointer));
        }
    }

    fn rdma(&mut self, devices: &BTreeMap<String, Rdma>) {
        for (name, limit) in devices {
            let pointer = format!("/linux/resources/rdma/{}", escape(name));
            if name.is_empty() || name.contains(char::is_whitespace) {
                self.problem(&pointer, format!("{name:?} is no RDMA device's name"));
                continue;
            }
            let mut value = name.clone();
            for (key, limit) in [("hca_handle", limit.hca_handles), ("hca_object", limit.hca_objects)] {
                value += &limit.map_or(String::new(), |n| format!(" {key}={n}"));
            }
            if value.len() > name.len() {
                self.put("rdma", Write::new("rdma.max", value, pointer));
            }
        }
    }

    fn unified(&mut self, files: &BTreeMap<String, String>) {
        let v2 = self.groups.iter().position(|g| g.version == Version::V2);
        for (file, value) in files {
            let pointer = format!("/linux/resources/unified/{}", escape(file));
            let Some((controller, _)) = file.split_once('.').filter(|_| !file.contains('/') && !file.starts_with('.'))
            else {
                self.problem(&pointer, "a key is a file's name such as memory.high, without a slash");
                continue;
            };
            let Some(at) = v2 else {
                self.problem(&pointer, "unified is for cgroup v2, and this host has v1; use the fields beside it");
                continue;
            };
            if ["cgroup.procs", "cgroup.threads"].contains(&file.as_str()) {
                self.problem(&pointer, "moves processes between cgroups, which is no limit; remove it");
                continue;
            }
            if controller != "cgroup" && !self.groups[at].controllers.iter().any(|c| c == controller) {
                let what = match self.groups.iter().find(|g| g.version == Version::V1 && g.has(controller)) {
                    Some(_) => {
                        format!("{controller} is a cgroup v1 controller on this host; use the fields beside unified")
                    }
                    None => format!("no cgroup v2 hierarchy of this host has the {controller} controller"),
                };
                self.problem(&pointer, what);
                continue;
            }
            // io.max and its like take one line at a time.
            for line in value.trim_end_matches('\n').split('\n') {
                let mut write = Write::new(file.clone(), line, pointer.clone());
                write.group = at;
                self.writes.push(write);
            }
        }
    }

    /// `devices`, and what every container may use.
    pub fn devices(&mut self, resources: &Resources, with_defaults: bool) {
        let rules = match devices::rules(&resources.devices, with_defaults) {
            Ok(rules) => rules,
            Err(problems) => return self.problems.extend(problems),
        };
        if let Some(at) = self.group("devices") {
            return self.device_writes(at, &rules);
        }
        let Some(group) = self.groups.iter().position(|g| g.version == Version::V2) else {
            if !resources.devices.is_empty() && !devices::allow_all(&rules) {
                let what = "needs the v1 devices hierarchy or cgroup v2, and this host has neither mounted";
                self.problem("/linux/resources/devices", what);
            }
            return;
        };
        let program = match program::compile(&rules) {
            Ok(program) => program,
            Err(length) => {
                let what = format!("comes to a device program of {length} instructions; use fewer, wider rules");
                return self.problem("/linux/resources/devices", what);
            }
        };
        if program.is_some() || *self.mode != Mode::Create {
            let matters = devices::denies(&resources.devices);
            self.device_program = Some(DeviceProgram { group, program, matters });
        }
    }

    /// Device rules on v1.
    fn device_writes(&mut self, at: usize, rules: &[devices::Rule]) {
        let wanted = match DeviceList::new(rules) {
            Ok(list) => list,
            Err(problem) => return self.problems.push(problem),
        };
        let put = |file, value, pointer: &str| {
            let mut write = Write::new(file, value, pointer.to_owned());
            write.group = at;
            write
        };
        match self.mode {
            Mode::Update { devices: Some(now), .. } => {
                let writes = DeviceList::parse(now).lead_to(&wanted);
                self.writes
                    .extend(writes.into_iter().map(|(file, value)| put(file, value, "/linux/resources/devices")));
            }
            _ => {
                let file = |rule: &devices::Rule| if rule.allow { "devices.allow" } else { "devices.deny" };
                self.writes.extend(rules.iter().map(|rule| put(file(rule), rule.to_string(), &rule.pointer)));
            }
        }
    }
}

/// A key as a part of a JSON pointer (RFC 6901).
pub(super) fn escape(key: &str) -> String {
    key.replace('~', "~0").replace('/', "~1")
}
