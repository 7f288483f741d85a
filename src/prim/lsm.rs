//! Linux security modules: which of them this host has enabled. Labels are written through a procfs of the container's own
//! (`attr/apparmor/exec`, `attr/exec`, proc_pid_attr(5)) as steps of the plan.

use crate::error::Problem;

/// Whether AppArmor is enabled (`/sys/module/apparmor/parameters/enabled`).
pub fn apparmor() -> bool {
    std::fs::read("/sys/module/apparmor/parameters/enabled").is_ok_and(|text| text.first() == Some(&b'Y'))
}

/// Whether SELinux is enabled and has a policy: without one every process has the context `kernel`, and any is taken.
pub fn selinux() -> bool {
    std::path::Path::new("/sys/fs/selinux/enforce").exists()
        && std::fs::read("/proc/self/attr/current").is_ok_and(|context| context.contains(&b':'))
}

/// What a label asks for that this host does not have: a label that nobody enforces must not be taken for a confinement.
///
/// # Errors
/// With the pointer given.
pub fn check(label: &str, pointer: &str, module: &str, enabled: bool) -> Result<(), Problem> {
    if enabled {
        return Ok(());
    }
    Err(Problem::new(
        pointer,
        format!("{label:?} asks for {module}, which is not enabled on this host; leave it out, or enable {module}"),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_label_without_its_module_is_a_problem() {
        assert!(check("web_t", "/process/selinuxLabel", "SELinux", true).is_ok());
        let problem = check("web_t", "/process/selinuxLabel", "SELinux", false).unwrap_err();
        assert_eq!(problem.pointer, "/process/selinuxLabel");
    }
}
