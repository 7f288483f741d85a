//! The floor program's seccomp filter: podman's profile as libseccomp lays it out when nothing else is asked for, a linear
//! list of comparisons.

use anyhow::{Context, Result, bail};
use libseccomp::{ScmpAction, ScmpArch, ScmpArgCompare, ScmpCompareOp, ScmpFilterContext, ScmpSyscall};
use serde_json::Value;
use std::fs::File;

/// Writes the array of `struct sock_filter` for config.json's linux.seccomp to `file`.
pub fn compile(seccomp: &Value, file: &File) -> Result<()> {
    let default = action(&seccomp["defaultAction"], &seccomp["defaultErrnoRet"])?;
    let mut filter = ScmpFilterContext::new(default)?;
    for arch in list(&seccomp["architectures"]) {
        let arch = arch.as_str().context("an architecture that is no string")?.parse()?;
        if arch != ScmpArch::native() {
            filter.add_arch(arch)?;
        }
    }
    for group in list(&seccomp["syscalls"]) {
        let action = action(&group["action"], &group["errnoRet"])?;
        if action == default {
            continue;
        }
        let conditions = list(&group["args"]).iter().map(condition).collect::<Result<Vec<_>>>()?;
        for name in list(&group["names"]) {
            // a name that this libseccomp does not know is of a kernel that is not here either
            if let Ok(call) = ScmpSyscall::from_name(name.as_str().context("a name that is no string")?) {
                filter.add_rule_conditional(action, call, &conditions)?;
            }
        }
    }
    Ok(filter.export_bpf(file)?)
}

fn list(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

fn action(name: &Value, errno: &Value) -> Result<ScmpAction> {
    match name.as_str() {
        Some("SCMP_ACT_ALLOW") => Ok(ScmpAction::Allow),
        Some("SCMP_ACT_ERRNO") => Ok(ScmpAction::Errno(errno.as_i64().unwrap_or(libc::EPERM.into()) as i32)),
        _ => bail!("the fixture has a seccomp action that the floor's filter lacks: {name}"),
    }
}

fn condition(arg: &Value) -> Result<ScmpArgCompare> {
    let number = |key: &str| arg[key].as_u64().with_context(|| format!("{arg} lacks {key}"));
    let op = match arg["op"].as_str() {
        Some("SCMP_CMP_EQ") => ScmpCompareOp::Equal,
        Some("SCMP_CMP_NE") => ScmpCompareOp::NotEqual,
        _ => bail!("the fixture has a comparison that the floor's filter lacks: {arg}"),
    };
    Ok(ScmpArgCompare::new(number("index")? as u32, op, number("value")?))
}
