//! stand-in
use crate::error::Result;
use crate::spec::NetDevice;
use std::os::fd::BorrowedFd;
/// x
pub fn apply(_d: &std::collections::BTreeMap<String, NetDevice>, _n: BorrowedFd) -> Result<()> {
    Ok(())
}
