//! stand-in
use crate::error::Problem;
use crate::spec;
/// x
#[derive(Debug, Clone)]
pub struct Filter {
    /// x
    pub program: Vec<libc::sock_filter>,
    /// x
    pub flags: libc::c_ulong,
    /// x
    pub notifies: bool,
    /// x
    pub unknown: Vec<String>,
}
/// x
pub fn compile(_s: &spec::Seccomp) -> Result<Option<Filter>, Vec<Problem>> {
    Ok(None)
}
/// x
pub fn library_version() -> String {
    String::new()
}
