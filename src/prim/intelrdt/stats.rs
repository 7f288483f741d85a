//! What resctrl tells of a container's class: its schemas, what the hardware allows, and what was monitored. The shape is that
//! of `intel_rdt` in the statistics that runc prints, which callers parse.

use super::Record;
use serde::Serialize;
use std::fs;
use std::path::Path;

/// The statistics; what the hardware does not have is left out.
#[derive(Debug, Default, PartialEq, Eq, Serialize)]
pub struct Stats {
    #[serde(skip_serializing_if = "Option::is_none")]
    l3_cache_info: Option<CacheInfo>,
    #[serde(skip_serializing_if = "String::is_empty")]
    l3_cache_schema_root: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    l3_cache_schema: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    mem_bw_info: Option<BandwidthInfo>,
    #[serde(skip_serializing_if = "String::is_empty")]
    mem_bw_schema_root: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    mem_bw_schema: String,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    mbm_stats: Vec<Bandwidth>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    cmt_stats: Vec<Occupancy>,
}

#[derive(Debug, PartialEq, Eq, Serialize)]
struct CacheInfo {
    cbm_mask: String,
    min_cbm_bits: u64,
    num_closids: u64,
}

#[derive(Debug, PartialEq, Eq, Serialize)]
struct BandwidthInfo {
    bandwidth_gran: u64,
    delay_linear: u64,
    min_bandwidth: u64,
    num_closids: u64,
}

#[derive(Debug, PartialEq, Eq, Serialize)]
struct Bandwidth {
    mbm_total_bytes: u64,
    mbm_local_bytes: u64,
}

#[derive(Debug, PartialEq, Eq, Serialize)]
struct Occupancy {
    llc_occupancy: u64,
}

impl Record {
    /// Reads the statistics of the container's class and monitoring group, below a resctrl filesystem's root. What can't be
    /// read counts as absent.
    pub fn stats(&self, root: &Path) -> Stats {
        let text = |path: &Path| fs::read_to_string(path).map(|text| text.trim().to_owned()).unwrap_or_default();
        let number = |path: &Path| text(path).parse().unwrap_or_default();
        let schema = |dir: &Path, resource: &str| {
            let schemata = text(&dir.join("schemata"));
            let line = schemata.lines().map(str::trim).find(|line| line.starts_with(resource));
            line.unwrap_or_default().to_owned()
        };
        let mut stats = Stats::default();
        let (cache, bandwidth) = (root.join("info/L3"), root.join("info/MB"));
        if cache.is_dir() {
            stats.l3_cache_info = Some(CacheInfo {
                cbm_mask: text(&cache.join("cbm_mask")),
                min_cbm_bits: number(&cache.join("min_cbm_bits")),
                num_closids: number(&cache.join("num_closids")),
            });
            (stats.l3_cache_schema_root, stats.l3_cache_schema) = (schema(root, "L3:"), schema(&self.class, "L3:"));
        }
        if bandwidth.is_dir() {
            stats.mem_bw_info = Some(BandwidthInfo {
                bandwidth_gran: number(&bandwidth.join("bandwidth_gran")),
                delay_linear: number(&bandwidth.join("delay_linear")),
                min_bandwidth: number(&bandwidth.join("min_bandwidth")),
                num_closids: number(&bandwidth.join("num_closids")),
            });
            (stats.mem_bw_schema_root, stats.mem_bw_schema) = (schema(root, "MB:"), schema(&self.class, "MB:"));
        }
        let group = self.monitor.as_ref().unwrap_or(&self.class);
        let mut nodes: Vec<_> =
            fs::read_dir(group.join("mon_data")).into_iter().flatten().flatten().map(|e| e.path()).collect();
        nodes.sort();
        for node in nodes {
            if node.join("mbm_total_bytes").exists() {
                stats.mbm_stats.push(Bandwidth {
                    mbm_total_bytes: number(&node.join("mbm_total_bytes")),
                    mbm_local_bytes: number(&node.join("mbm_local_bytes")),
                });
            }
            if node.join("llc_occupancy").exists() {
                stats.cmt_stats.push(Occupancy { llc_occupancy: number(&node.join("llc_occupancy")) });
            }
        }
        stats
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_files_say() {
        let root = std::env::temp_dir().join(format!("brig-resctrl-stats-{}", std::process::id()));
        for (file, text) in [
            ("schemata", "    MB:0=100\n    L3:0=7ff\n"),
            ("web/schemata", "    MB:0= 20\n    L3:0=00f\n"),
            ("info/L3/cbm_mask", "7ff\n"),
            ("info/L3/min_cbm_bits", "1\n"),
            ("info/L3/num_closids", "16\n"),
            ("web/mon_data/mon_L3_00/mbm_total_bytes", "100\n"),
            ("web/mon_data/mon_L3_00/mbm_local_bytes", "40\n"),
            ("web/mon_data/mon_L3_00/llc_occupancy", "5\n"),
        ] {
            fs::create_dir_all(root.join(file).parent().unwrap()).unwrap();
            fs::write(root.join(file), text).unwrap();
        }
        let stats = Record { class: root.join("web"), own: true, monitor: None }.stats(&root);
        fs::remove_dir_all(&root).unwrap();
        assert_eq!(
            serde_json::to_value(&stats).unwrap(),
            serde_json::json!({
                "l3_cache_info": {"cbm_mask": "7ff", "min_cbm_bits": 1, "num_closids": 16},
                "l3_cache_schema_root": "L3:0=7ff",
                "l3_cache_schema": "L3:0=00f",
                "mbm_stats": [{"mbm_total_bytes": 100, "mbm_local_bytes": 40}],
                "cmt_stats": [{"llc_occupancy": 5}],
            })
        );
    }
}
