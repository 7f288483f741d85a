//! Control files written by hand in a plain directory, in the kernel's formats.

use super::*;
use crate::prim::cgroup::Group;
use std::fs;
use std::path::PathBuf;

struct Made(PathBuf);

impl Made {
    fn new(files: &[(&str, &str)]) -> Made {
        static NEXT: std::sync::atomic::AtomicU32 = std::sync::atomic::AtomicU32::new(0);
        let number = NEXT.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let dir = std::env::temp_dir().join(format!("brig-stats-{}-{number}", std::process::id()));
        fs::create_dir(&dir).unwrap();
        for (name, text) in files {
            fs::write(dir.join(name), text).unwrap();
        }
        Made(dir)
    }

    fn stats(&self, version: Version, controllers: &str) -> Stats {
        let group = Group {
            version,
            controllers: controllers.split(' ').map(Into::into).collect(),
            mount: std::env::temp_dir().display().to_string(),
            path: self.0.display().to_string(),
        };
        Record { groups: vec![group], ..Record::default() }.stats().unwrap()
    }
}

impl Drop for Made {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn entry(op: &str, value: u64) -> BlkioEntry {
    BlkioEntry { major: 8, minor: 16, op: op.into(), value }
}

#[test]
fn everything_of_v2() {
    let made = Made::new(&[
        (
            "cpu.stat",
            "usage_usec 30\nuser_usec 20\nsystem_usec 10\nnr_periods 9\nnr_throttled 4\nthrottled_usec 7\nnr_bursts 2\nburst_usec 1\n",
        ),
        ("cpu.pressure", "some avg10=0.50 avg60=0.10 avg300=0.00 total=11\n"),
        ("cpuset.cpus.effective", "0-1,3\n"),
        ("cpuset.mems.effective", "0\n"),
        ("memory.stat", "anon 5\nfile 6\n"),
        ("memory.events", "low 0\nmax 3\noom 1\noom_kill 1\n"),
        ("memory.current", "100\n"),
        ("memory.max", "1000\n"),
        ("memory.peak", "200\n"),
        ("memory.swap.current", "10\n"),
        ("memory.swap.max", "max\n"),
        ("pids.current", "3\n"),
        ("pids.max", "max\n"),
        ("io.stat", "8:16 rbytes=1 wbytes=2 rios=3 wios=4 dbytes=5 dios=6 cost.usage=7\n"),
        ("rdma.current", "mlx5_0 hca_handle=1 hca_object=2\n"),
        ("rdma.max", "mlx5_0 hca_handle=max hca_object=20\n"),
        ("misc.current", "sev 1\n"),
        ("misc.events", "sev.max 2\n"),
    ]);
    let stats = made.stats(Version::V2, "cpuset cpu io memory hugetlb pids rdma misc");
    assert_eq!((stats.cpu.total, stats.cpu.user, stats.cpu.kernel), (30_000, 20_000, 10_000));
    assert_eq!(stats.cpu.throttling, Throttling { periods: 9, throttled_periods: 4, throttled_time: 7000 });
    assert_eq!(stats.cpu.burst, Burst { periods: 2, time: 1000 });
    assert_eq!(stats.cpu.psi.unwrap().some.total, 11);
    assert_eq!((stats.memory.psi, stats.blkio.psi), (None, None));
    assert_eq!((stats.cpuset.cpus, stats.cpuset.mems), (vec![0, 1, 3], vec![0]));
    assert_eq!(stats.memory.usage, MemoryEntry { limit: 1000, usage: 100, max: 200, failcnt: 0 });
    assert_eq!(stats.memory.swap, MemoryEntry { limit: u64::MAX, usage: 110, max: 0, failcnt: 0 });
    assert_eq!((stats.memory.cache, stats.memory.raw["anon"], stats.memory.events["oom_kill"]), (6, 5, 1));
    assert_eq!(stats.pids, PidsStats { current: 3, limit: 0 });
    assert_eq!(stats.blkio.io_service_bytes_recursive, [entry("Read", 1), entry("Write", 2), entry("Discard", 5)]);
    assert_eq!(stats.blkio.io_serviced_recursive, [entry("Read", 3), entry("Write", 4), entry("Discard", 6)]);
    let rdma = RdmaStats { hca_handles: 1, hca_objects: 2, hca_handles_limit: None, hca_objects_limit: Some(20) };
    assert_eq!(stats.rdma["mlx5_0"], rdma);
    assert_eq!(stats.misc["sev"], MiscStats { usage: 1, events: 2 });
}

#[test]
fn everything_of_v1() {
    let made = Made::new(&[
        ("cpu.stat", "nr_periods 9\nnr_throttled 4\nthrottled_time 7\nnr_bursts 2\nburst_time 1\n"),
        ("cpuacct.usage", "30\n"),
        ("cpuacct.stat", "user 2\nsystem 1\n"),
        ("cpuacct.usage_percpu", "10 20 \n"),
        ("cpuacct.usage_all", "cpu user system\n0 4 6\n1 5 15\n"),
        ("cpuset.cpus", "0-1\n"),
        ("cpuset.mems", "0\n"),
        ("cpuset.mem_hardwall", "1\n"),
        ("cpuset.sched_relax_domain_level", "-1\n"),
        ("memory.stat", "cache 6\nrss 5\n"),
        ("memory.usage_in_bytes", "100\n"),
        ("memory.limit_in_bytes", "9223372036854771712\n"),
        ("memory.max_usage_in_bytes", "200\n"),
        ("memory.failcnt", "3\n"),
        ("pids.current", "3\n"),
        ("pids.max", "20\n"),
        ("blkio.bfq.io_service_bytes_recursive", "Total 0\n"),
        ("blkio.throttle.io_service_bytes_recursive", "8:16 Read 1\n8:16 Total 3\nTotal 3\n"),
        ("blkio.throttle.io_serviced_recursive", "8:16 Read 2\nTotal 2\n"),
    ]);
    let stats = made.stats(Version::V1, "cpu cpuacct cpuset memory pids blkio freezer");
    assert_eq!((stats.cpu.total, stats.cpu.user, stats.cpu.kernel), (30, 20_000_000, 10_000_000));
    assert_eq!(stats.cpu.percpu, [10, 20]);
    assert_eq!((stats.cpu.percpu_user, stats.cpu.percpu_kernel), (vec![4, 5], vec![6, 15]));
    assert_eq!(stats.cpu.throttling, Throttling { periods: 9, throttled_periods: 4, throttled_time: 7 });
    assert_eq!(stats.cpu.burst, Burst { periods: 2, time: 1 });
    assert_eq!((stats.cpuset.cpus, stats.cpuset.mem_hardwall), (vec![0, 1], 1));
    assert_eq!(stats.cpuset.sched_relax_domain_level, -1);
    let usage = MemoryEntry { limit: 9_223_372_036_854_771_712, usage: 100, max: 200, failcnt: 3 };
    assert_eq!((stats.memory.usage, stats.memory.swap), (usage, MemoryEntry::default()));
    assert_eq!(stats.memory.cache, 6);
    assert_eq!(stats.pids, PidsStats { current: 3, limit: 20 });
    assert_eq!(stats.blkio.io_service_bytes_recursive, [entry("Read", 1), entry("Total", 3)]);
    assert_eq!(stats.blkio.io_serviced_recursive, [entry("Read", 2)]);
}

#[test]
fn a_cgroup_that_is_gone_is_no_idle_one() {
    let group =
        Group { version: Version::V2, controllers: vec!["cpu".into()], mount: "/".into(), path: "/no/such".into() };
    let record = Record { groups: vec![group], ..Record::default() };
    assert_eq!(record.stats().unwrap_err().kind(), Kind::Gone);
    assert_eq!(Record::default().stats().unwrap_err().kind(), Kind::Status);
}
