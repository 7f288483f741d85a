//! stand-in
use crate::error::*;
use crate::spec;
use std::ffi::CString;
use std::os::fd::OwnedFd;
/// x
#[derive(Debug, Clone, Default, serde::Serialize, serde::Deserialize)]
pub struct Record;
/// x
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Manager {
    /// x
    #[default]
    Cgroupfs,
    /// x
    Systemd,
    /// x
    Disabled,
}
/// x
#[derive(Debug, Clone)]
pub struct Layout;
impl Layout {
    /// x
    pub fn detect() -> Result<Layout> {
        Ok(Layout)
    }
}
/// x
pub struct Request<'a> {
    /// x
    pub path: Option<&'a str>,
    /// x
    pub id: &'a str,
    /// x
    pub resources: &'a spec::Resources,
    /// x
    pub manager: Manager,
}
/// x
#[derive(Debug)]
pub struct CgroupPlan;
/// x
pub fn compile(_l: &Layout, _r: &Request) -> Result<CgroupPlan, Vec<Problem>> {
    Ok(CgroupPlan)
}
impl CgroupPlan {
    /// x
    pub fn record(&self) -> Record {
        Record
    }
    /// x
    pub fn create(&self) -> Result<()> {
        Ok(())
    }
    /// x
    pub fn join_files(&self) -> Vec<CString> {
        vec![]
    }
    /// x
    pub fn v2_dir(&self) -> Result<Option<OwnedFd>> {
        Ok(None)
    }
    /// x
    pub fn steps(&self) -> Vec<(String, String)> {
        vec![]
    }
    /// x
    pub fn mounts(&self) -> Vec<(String, String)> {
        vec![]
    }
    /// x
    pub fn warnings(&self) -> Vec<String> {
        vec![]
    }
}
impl Record {
    /// x
    pub fn is_frozen(&self) -> bool {
        false
    }
    /// x
    pub fn pids(&self) -> Result<Vec<i32>> {
        Ok(vec![])
    }
    /// x
    pub fn kill(&self, _s: i32) -> Result<()> {
        Ok(())
    }
    /// x
    pub fn thaw(&self) -> Result<()> {
        Ok(())
    }
    /// x
    pub fn remove(&self) -> Result<()> {
        Ok(())
    }
    /// x
    pub fn exists(&self) -> bool {
        false
    }
    /// x
    pub fn join_files(&self) -> Vec<CString> {
        vec![]
    }
    /// x
    pub fn v2_dir(&self) -> Result<Option<OwnedFd>> {
        Ok(None)
    }
    /// x
    pub fn sub(&self, _p: &str) -> Result<Record> {
        Ok(Record)
    }
    /// x
    pub fn oom_kills(&self) -> Option<u64> {
        None
    }
}
