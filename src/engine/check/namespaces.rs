//! Namespaces, and what keeps a user from them.

use super::{Caller, Row, State};
use crate::error::describe;
use crate::prim::namespaces;
use crate::spec::NamespaceType;
use crate::sys::probe::in_child;
use crate::sys::{Errno, SysResult};
use nix::sched::{CloneFlags, unshare};

const AREA: &str = "namespaces";

pub(super) fn rows(caller: &Caller) -> Vec<Row> {
    let user = make(NamespaceType::User, false);
    // The user namespace first: for a plain user the others depend on it.
    let mut rows = vec![row(NamespaceType::User, user, caller)];
    for typ in NamespaceType::ALL.iter().copied().filter(|typ| *typ != NamespaceType::User) {
        let made = match (caller.privileged, user) {
            (true, _) | (false, Ok(())) => make(typ, !caller.privileged),
            (false, Err(errno)) => Err(errno),
        };
        rows.push(row(typ, made, caller));
    }
    rows
}

/// Makes one in a child; `in_user` makes a user namespace for it first.
fn make(typ: NamespaceType, in_user: bool) -> SysResult<()> {
    let flag = CloneFlags::from_bits_retain(namespaces::flag(typ) as i32);
    in_child(|| {
        if in_user {
            unshare(CloneFlags::CLONE_NEWUSER)?;
        }
        unshare(flag)
    })?
}

fn row(typ: NamespaceType, made: SysResult<()>, caller: &Caller) -> Row {
    let limit = limit(typ);
    let errno = match made {
        Ok(()) => {
            return Row::new(AREA, typ.word(), State::Ok)
                .found(limit.map_or(String::new(), |n| format!("up to {n} for each user")));
        }
        Err(errno) => errno,
    };
    let row = Row::new(AREA, typ.word(), State::Missing).found(describe(errno));
    let remedy = match (errno, namespaces::denial()) {
        (Errno::ENOSPC, _) => {
            let name = format!("user.max_{}_namespaces", short(typ));
            format!("sysctl {name} is {}; raise it", limit.map_or("unknown".into(), |n| n.to_string()))
        }
        (Errno::EINVAL | Errno::ENOSYS, _) => "a kernel that is configured with it".into(),
        (_, Some(denial)) => denial,
        _ => "run brig as root, or where namespaces may be made: the container or filter that it runs in forbids it"
            .into(),
    };
    let needed = match typ {
        NamespaceType::User => !caller.privileged,
        NamespaceType::Mount => true,
        _ => false,
    };
    let cost = match typ {
        NamespaceType::User if caller.privileged => "containers with a user namespace, and containers of plain users",
        NamespaceType::User => "all containers of this user",
        NamespaceType::Time => "timeOffsets",
        _ => "containers with one",
    };
    let row = row.costs(cost).remedy(remedy);
    if needed { row.needed() } else { row }
}

/// How many a user may have (namespaces(7), /proc/sys/user).
fn limit(typ: NamespaceType) -> Option<u64> {
    let path = format!("/proc/sys/user/max_{}_namespaces", short(typ));
    std::fs::read_to_string(path).ok()?.trim().parse().ok()
}

fn short(typ: NamespaceType) -> &'static str {
    match typ {
        NamespaceType::Network => "net",
        NamespaceType::Mount => "mnt",
        other => other.word(),
    }
}
