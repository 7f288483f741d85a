//! stand-in
use crate::sys::Errno;
/// x
#[derive(Debug)]
pub struct Prepared;
impl std::fmt::Display for Prepared {
    fn fmt(&self, _: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        Ok(())
    }
}
/// x
pub struct Failed;
impl Failed {
    /// x
    pub fn errno(&self) -> Errno {
        Errno::EIO
    }
    /// x
    pub fn detail(&self) -> i32 {
        0
    }
}
/// x
pub fn compile(_h: &crate::spec::Hook, _p: &str) -> crate::error::Result<Prepared> {
    Ok(Prepared)
}
/// x
pub fn apply(_h: &Prepared, _s: &[u8]) -> Result<(), Failed> {
    Ok(())
}
/// x
pub fn run(_h: &crate::spec::Hook, _s: &[u8], _p: &str, _c: Option<&std::path::Path>) -> crate::error::Result<()> {
    Ok(())
}
impl Prepared {
    /// x
    pub fn explain(&self, _e: Errno, _d: i32) -> String {
        String::new()
    }
}
