//! The figures as tables of Markdown and as JSON.

use crate::peers::Peer;
use crate::probes::{Row, Sample};
use serde_json::{Value, json};
use std::fmt::Write;
use std::fs;

/// All measurements: rows by peers.
pub struct Table {
    /// The heads of the rows.
    pub rows: Vec<Row>,
    /// `cells[row][peer]`.
    pub cells: Vec<Vec<Cell>>,
}

/// The measurements of one row by one peer; empty where it has none.
#[derive(Clone, Default)]
pub struct Cell {
    /// All that were timed.
    pub samples: Vec<Sample>,
    /// System calls, if they were counted.
    pub calls: Option<u64>,
}

/// How it was measured, for the reader.
pub struct Setting {
    /// Samples per row and peer, back to back.
    pub rounds: usize,
    /// The same for the rows with an idle time before.
    pub spaced: usize,
    /// The meter's own peak memory: nothing smaller can be seen.
    pub meter_kib: i64,
    /// Whether a hybrid machine's v2 cgroup tree was hidden.
    pub without_v2: bool,
}

impl Cell {
    fn sorted<T: Ord>(&self, value: impl Fn(&Sample) -> T) -> Vec<T> {
        let mut values: Vec<T> = self.samples.iter().map(value).collect();
        values.sort();
        values
    }

    /// The time that `percent` of the samples do not exceed, in milliseconds.
    fn time(&self, percent: usize) -> Option<f64> {
        nearest(&self.sorted(|sample| sample.ns), percent).map(|ns| ns as f64 / 1e6)
    }

    fn peak_kib(&self) -> Option<i64> {
        nearest(&self.sorted(|sample| sample.peak_kib), 50)
    }

    fn faults(&self) -> Option<i64> {
        nearest(&self.sorted(|sample| sample.faults), 50)
    }
}

/// The value at a percentile, by nearest rank.
fn nearest<T: Copy>(sorted: &[T], percent: usize) -> Option<T> {
    sorted.get((sorted.len() * percent).div_ceil(100).saturating_sub(1)).copied()
}

fn ratio(cell: &Cell, base: Option<&Cell>) -> Option<f64> {
    Some(cell.time(50)? / base?.time(50)?)
}

/// The tables to print: times and ratios, their spread, and what each command needs.
pub fn markdown(table: &Table, peers: &[Peer], setting: &Setting) -> String {
    let crun = peers.iter().position(|peer| peer.name == "crun");
    let mut text = String::new();
    let _ = writeln!(text, "{}; {} rounds ({} after idling).\n", machine(setting), setting.rounds, setting.spaced);
    for peer in peers {
        let _ = writeln!(text, "- {}: {}", peer.name, peer.version);
        for difference in &peer.differences {
            let _ = writeln!(text, "  - not the same work: {difference}");
        }
    }
    let note = if crun.is_some() { "median ms (ratio to crun)" } else { "median ms" };
    grid(&mut text, note, table, peers, |cells, cell| {
        let time = cell.time(50)?;
        Some(match ratio(cell, crun.map(|crun| &cells[crun])) {
            Some(ratio) if !std::ptr::eq(cell, &cells[crun?]) => format!("{time:.2} ({ratio:.2})"),
            _ => format!("{time:.2}"),
        })
    });
    grid(&mut text, "10th to 90th percentile, ms", table, peers, |_, cell| {
        Some(format!("{:.2} to {:.2}", cell.time(10)?, cell.time(90)?))
    });
    grid(&mut text, "peak KiB · page faults · system calls", table, peers, |_, cell| {
        let calls = cell.calls.map_or("–".to_owned(), |calls| calls.to_string());
        Some(format!("{} · {} · {calls}", cell.peak_kib()?, cell.faults()?))
    });
    let _ = writeln!(
        text,
        "\nPeak: the largest resident set of any one process (less than about {} KiB cannot be seen). Page faults: of the\n\
         command and what it waited for. System calls: of the command and every process it started, the container's too.",
        setting.meter_kib
    );
    text
}

fn grid(text: &mut String, note: &str, table: &Table, peers: &[Peer], show: impl Fn(&[Cell], &Cell) -> Option<String>) {
    let heads: Vec<&str> = peers.iter().map(|peer| peer.name.as_str()).collect();
    let _ = writeln!(text, "\n| {note} | {} |\n| --- |{}", heads.join(" | "), " ---: |".repeat(peers.len()));
    for (row, cells) in table.rows.iter().zip(&table.cells) {
        let shown: Vec<String> = cells.iter().map(|cell| show(cells, cell).unwrap_or_default()).collect();
        if shown.iter().any(|cell| !cell.is_empty()) {
            let _ = writeln!(text, "| {} | {} |", row.title, shown.join(" | "));
        }
    }
}

/// The same figures, and every sample, for programs.
pub fn json(table: &Table, peers: &[Peer], setting: &Setting) -> Value {
    let base = |name: &str| peers.iter().position(|peer| peer.name == name);
    let (crun, floor) = (base("crun"), base("floor"));
    let rows = table.rows.iter().zip(&table.cells).map(|(row, cells)| {
        let results = peers.iter().zip(cells).filter(|(_, cell)| !cell.samples.is_empty()).map(|(peer, cell)| {
            let value = json!({
                "median_ms": cell.time(50),
                "p10_ms": cell.time(10),
                "p90_ms": cell.time(90),
                "ratio_to_crun": ratio(cell, crun.map(|index| &cells[index])),
                "ratio_to_floor": ratio(cell, floor.map(|index| &cells[index])),
                "peak_kib": cell.peak_kib(),
                "page_faults": cell.faults(),
                "system_calls": cell.calls,
                "samples_ns": cell.samples.iter().map(|sample| sample.ns).collect::<Vec<_>>(),
            });
            (peer.name.clone(), value)
        });
        json!({ "key": row.key, "title": row.title, "results": results.collect::<serde_json::Map<_, _>>() })
    });
    json!({
        "machine": machine(setting),
        "rounds": setting.rounds,
        "rounds_after_idling": setting.spaced,
        "meter_peak_kib": setting.meter_kib,
        "peers": peers.iter().map(|peer| json!({ "name": peer.name, "path": peer.path, "version": peer.version, "differences": peer.differences }))
            .collect::<Vec<_>>(),
        "rows": rows.collect::<Vec<_>>(),
    })
}

fn machine(setting: &Setting) -> String {
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let cpus = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = cpus.lines().find_map(|line| line.strip_prefix("model name")).unwrap_or("unknown processor");
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    let cgroups = match fs::exists("/sys/fs/cgroup/cgroup.procs") {
        Ok(true) => "v2",
        _ if setting.without_v2 => "v1 (a hybrid, its v2 tree hidden, which crun refuses)",
        _ => "v1",
    };
    format!(
        "Linux {}, {cores} cores of {}, cgroup {cgroups}",
        kernel.trim(),
        model.trim_start_matches(['\t', ':', ' '])
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nearest_rank() {
        let hundred: Vec<u32> = (1..=100).collect();
        assert_eq!(nearest(&hundred, 10), Some(10));
        assert_eq!(nearest(&hundred, 90), Some(90));
        assert_eq!(nearest(&[1, 2, 3], 50), Some(2));
        assert_eq!(nearest(&[5], 10), Some(5));
        assert_eq!(nearest::<u32>(&[], 50), None);
    }
}
