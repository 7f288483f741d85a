//! `brig update`.

use super::Context;
use crate::engine::update::{self, Change};
use crate::error::{Context as _, Problem, Result};
use crate::spec::{IntelRdt, Resources, parse_resources};
use std::io::Read;
use std::path::{Path, PathBuf};

/// Change the limits of a container that runs
///
/// What is not named stays as it is. A flag wins over the same value in --resources. Nothing is changed if anything is wrong:
/// every problem is told at once, and if the kernel refuses a limit, those before it are put back.
#[derive(Debug, clap::Args)]
pub struct Update {
    /// File with the changes, an object like linux.resources in config.json; - is the standard input
    #[arg(short, long, value_name = "FILE")]
    resources: Option<PathBuf>,
    /// Weight for block I/O, 10 to 1000
    #[arg(long, value_name = "WEIGHT", allow_negative_numbers = true)]
    blkio_weight: Option<String>,
    /// Length of a period in which --cpu-quota holds, in microseconds
    #[arg(long, value_name = "MICROSECONDS", allow_negative_numbers = true)]
    cpu_period: Option<String>,
    /// CPU time in a period, in microseconds; -1 for no limit
    #[arg(long, value_name = "MICROSECONDS", allow_negative_numbers = true)]
    cpu_quota: Option<String>,
    /// Unused CPU time that may be saved up for later periods, in microseconds
    #[arg(long, value_name = "MICROSECONDS", allow_negative_numbers = true)]
    cpu_burst: Option<String>,
    /// Weight for CPU time, 2 to 262144, where 1024 is usual
    #[arg(long, value_name = "SHARES", allow_negative_numbers = true)]
    cpu_share: Option<String>,
    /// Length of a period in which --cpu-rt-runtime holds, in microseconds (cgroup v1)
    #[arg(long, value_name = "MICROSECONDS", allow_negative_numbers = true)]
    cpu_rt_period: Option<String>,
    /// Real-time CPU time in a period, in microseconds (cgroup v1)
    #[arg(long, value_name = "MICROSECONDS", allow_negative_numbers = true)]
    cpu_rt_runtime: Option<String>,
    /// 1 to run only when nothing else wants to, 0 for the usual
    #[arg(long, value_name = "0|1", allow_negative_numbers = true)]
    cpu_idle: Option<String>,
    /// CPUs that may be used, such as 0-3,7
    #[arg(long, value_name = "LIST")]
    cpuset_cpus: Option<String>,
    /// Memory nodes that may be used, such as 0,1
    #[arg(long, value_name = "LIST")]
    cpuset_mems: Option<String>,
    /// Accepted for callers of runc, with a warning: kernel memory counts as memory
    #[arg(long, value_name = "BYTES", hide = true, allow_negative_numbers = true)]
    kernel_memory: Option<String>,
    /// Accepted for callers of runc, with a warning: kernel memory counts as memory
    #[arg(long, value_name = "BYTES", hide = true, allow_negative_numbers = true)]
    kernel_memory_tcp: Option<String>,
    /// Memory in bytes, or with a unit (512M, 1.5GiB: powers of 1024); -1 for no limit, which frees swap, too
    #[arg(long, value_name = "BYTES", allow_negative_numbers = true)]
    memory: Option<String>,
    /// Memory that is left to the container when the host runs short, as --memory
    #[arg(long, value_name = "BYTES", allow_negative_numbers = true)]
    memory_reservation: Option<String>,
    /// Memory and swap together, as --memory; -1 for no limit
    #[arg(long, value_name = "BYTES", allow_negative_numbers = true)]
    memory_swap: Option<String>,
    /// Number of processes and threads; -1 for no limit
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
    pids_limit: Option<String>,
    /// Intel RDT: L3 cache schema, such as L3:0=7f0;1=1f
    #[arg(long, value_name = "SCHEMA")]
    l3_cache_schema: Option<String>,
    /// Intel RDT: memory bandwidth schema, such as MB:0=20;1=70
    #[arg(long, value_name = "SCHEMA")]
    mem_bw_schema: Option<String>,
    /// The container
    pub id: String,
}

impl Update {
    pub(super) fn run(self, context: &Context) -> Result<()> {
        for (flag, value) in [("kernel-memory", &self.kernel_memory), ("kernel-memory-tcp", &self.kernel_memory_tcp)] {
            if value.is_some() {
                context.warn(&[format!(
                    "--{flag} is ignored: kernel memory counts as memory, so it has no limit of its own"
                )]);
            }
        }
        let warnings = update::update(&context.store, &self.id, self.change()?)?;
        context.warn(&warnings);
        Ok(())
    }

    fn change(&self) -> Result<Change> {
        let mut change = Change { document: "the update".into(), ..Change::default() };
        if let Some(path) = &self.resources {
            let (name, raw) = read(path)?;
            let loaded = parse_resources(raw, &name)?;
            (change.document, change.resources, change.problems) = (name, loaded.value, loaded.problems);
        }
        self.limits(&mut change);
        if self.l3_cache_schema.is_some() || self.mem_bw_schema.is_some() {
            change.flags.insert("/linux/intelRdt/l3CacheSchema", "--l3-cache-schema");
            change.flags.insert("/linux/intelRdt/memBwSchema", "--mem-bw-schema");
            let (l3_cache_schema, mem_bw_schema) = (self.l3_cache_schema.clone(), self.mem_bw_schema.clone());
            change.intel_rdt = Some(IntelRdt { l3_cache_schema, mem_bw_schema, ..IntelRdt::default() });
        }
        Ok(change)
    }

    fn limits(&self, change: &mut Change) {
        let mut flags = Flags { change };
        flags.memory("--memory", &self.memory, "/linux/resources/memory/limit", |r, v| {
            r.memory.get_or_insert_default().limit = v;
        });
        flags.memory(
            "--memory-reservation",
            &self.memory_reservation,
            "/linux/resources/memory/reservation",
            |r, v| {
                r.memory.get_or_insert_default().reservation = v;
            },
        );
        flags.memory("--memory-swap", &self.memory_swap, "/linux/resources/memory/swap", |r, v| {
            r.memory.get_or_insert_default().swap = v;
        });
        flags.number("--cpu-share", &self.cpu_share, "/linux/resources/cpu/shares", |r, v| {
            r.cpu.get_or_insert_default().shares = v;
        });
        flags.number("--cpu-period", &self.cpu_period, "/linux/resources/cpu/period", |r, v| {
            r.cpu.get_or_insert_default().period = v;
        });
        flags.number("--cpu-quota", &self.cpu_quota, "/linux/resources/cpu/quota", |r, v| {
            r.cpu.get_or_insert_default().quota = v;
        });
        flags.number("--cpu-burst", &self.cpu_burst, "/linux/resources/cpu/burst", |r, v| {
            r.cpu.get_or_insert_default().burst = v;
        });
        flags.number("--cpu-rt-period", &self.cpu_rt_period, "/linux/resources/cpu/realtimePeriod", |r, v| {
            r.cpu.get_or_insert_default().realtime_period = v;
        });
        flags.number("--cpu-rt-runtime", &self.cpu_rt_runtime, "/linux/resources/cpu/realtimeRuntime", |r, v| {
            r.cpu.get_or_insert_default().realtime_runtime = v;
        });
        flags.number("--cpu-idle", &self.cpu_idle, "/linux/resources/cpu/idle", |r, v| {
            r.cpu.get_or_insert_default().idle = v;
        });
        flags.set("--cpuset-cpus", &self.cpuset_cpus, "/linux/resources/cpu/cpus", own, |r, v| {
            r.cpu.get_or_insert_default().cpus = v;
        });
        flags.set("--cpuset-mems", &self.cpuset_mems, "/linux/resources/cpu/mems", own, |r, v| {
            r.cpu.get_or_insert_default().mems = v;
        });
        flags.number("--blkio-weight", &self.blkio_weight, "/linux/resources/blockIO/weight", |r, v| {
            r.block_io.get_or_insert_default().weight = v;
        });
        flags.number("--pids-limit", &self.pids_limit, "/linux/resources/pids/limit", |r, v| {
            r.pids.get_or_insert_default().limit = v;
        });
    }
}

/// The name for messages and the bytes of a file, or of the standard input.
fn read(path: &Path) -> Result<(String, Vec<u8>)> {
    if path.as_os_str() != "-" {
        let name = path.display().to_string();
        return Ok((name, std::fs::read(path).during(|| format!("--resources: read {}", path.display()))?));
    }
    let mut raw = Vec::new();
    std::io::stdin().read_to_end(&mut raw).during(|| "--resources: read the standard input".into())?;
    Ok(("the standard input".into(), raw))
}

/// Takes the flags over into the change, and notes what is wrong with them.
struct Flags<'a> {
    change: &'a mut Change,
}

impl Flags<'_> {
    fn number<T: std::str::FromStr<Err = std::num::ParseIntError>>(
        &mut self,
        flag: &'static str,
        text: &Option<String>,
        pointer: &'static str,
        put: impl FnOnce(&mut Resources, Option<T>),
    ) {
        let parse = |text: &str| text.parse().map_err(|e| format!("{text:?} is no number that fits: {e}"));
        self.set(flag, text, pointer, parse, put);
    }

    fn memory(
        &mut self,
        flag: &'static str,
        text: &Option<String>,
        pointer: &'static str,
        put: impl FnOnce(&mut Resources, Option<i64>),
    ) {
        self.set(flag, text, pointer, bytes, put);
    }

    fn set<T>(
        &mut self,
        flag: &'static str,
        text: &Option<String>,
        pointer: &'static str,
        parse: impl FnOnce(&str) -> Result<T, String>,
        put: impl FnOnce(&mut Resources, Option<T>),
    ) {
        // An empty one is not set, as with runc.
        let Some(text) = text.as_deref().filter(|text| !text.is_empty()) else { return };
        self.change.flags.insert(pointer, flag);
        match parse(text) {
            Ok(value) => put(&mut self.change.resources, Some(value)),
            Err(what) => self.change.problems.push(Problem::new(flag, what)),
        }
    }
}

fn own(text: &str) -> Result<String, String> {
    Ok(text.to_owned())
}

/// A size as the engines' users write it: bytes, or a number with a unit in powers of 1024 (`512M`, `1.5 GiB`, `64kb`).
fn bytes(text: &str) -> Result<i64, String> {
    let wrong =
        || format!("{text:?} is no size; write bytes, or a number with a unit such as 512M, or -1 for no limit");
    if text == "-1" {
        return Ok(-1);
    }
    let lower = text.to_ascii_lowercase();
    let (number, unit) = lower.split_at(lower.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(lower.len()));
    let unit = unit.strip_prefix(' ').unwrap_or(unit);
    let unit = unit.strip_suffix('b').unwrap_or(unit);
    let power = match unit.strip_suffix('i').unwrap_or(unit) {
        "" if !unit.is_empty() => return Err(wrong()),
        "" => 0,
        "k" => 1,
        "m" => 2,
        "g" => 3,
        "t" => 4,
        "p" => 5,
        _ => return Err(wrong()),
    };
    let size = match number.parse::<i64>() {
        Ok(whole) => whole.checked_mul(1 << (10 * power)),
        Err(_) if number.starts_with(|c: char| c.is_ascii_digit()) && number.contains('.') => {
            let parts = number.parse::<f64>().map_err(|_| wrong())? * (1_i64 << (10 * power)) as f64;
            (parts < i64::MAX as f64).then_some(parts as i64)
        }
        Err(_) => None,
    };
    size.ok_or_else(wrong)
}

#[cfg(test)]
mod tests {
    use super::bytes;

    #[test]
    fn sizes() {
        for (text, size) in [
            ("-1", -1),
            ("0", 0),
            ("67108864", 64 << 20),
            ("64m", 64 << 20),
            ("64MB", 64 << 20),
            ("64MiB", 64 << 20),
            ("64 M", 64 << 20),
            ("1.5g", 3 << 29),
            ("10b", 10),
            ("32.k", 32 << 10),
            ("2t", 2 << 40),
            ("1P", 1 << 50),
        ] {
            assert_eq!(bytes(text), Ok(size), "{text}");
        }
        for wrong in [
            "",
            "m",
            "-2",
            "1x",
            "1mm",
            "1ib",
            "1i",
            "1  m",
            "0x10",
            ".5g",
            "1.2.3m",
            "9000p",
            "99999999999999999999",
            "1e9",
        ] {
            assert!(bytes(wrong).is_err(), "{wrong}");
        }
    }
}
