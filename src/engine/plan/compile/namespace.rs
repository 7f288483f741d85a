//! The steps that join and make namespaces, and which of them are the stage's.

use super::super::{Op, Step};
use super::{List, c};
use crate::error::Result;
use crate::prim::namespaces::{self, Joined};
use crate::spec::{NamespaceType, Spec};

/// Takes out the joined namespace that a test picks.
pub(super) fn take(joined: &mut Vec<Joined>, pick: impl Fn(&Joined) -> bool) -> Option<Joined> {
    joined.iter().position(pick).map(|at| joined.remove(at))
}

pub(super) fn setns(joined: Joined) -> Op {
    Op::Setns {
        name: format!("{} at {}", joined.typ.word(), joined.path.to_string_lossy()),
        flag: namespaces::flag(joined.typ),
        fd: joined.fd,
    }
}

/// Moves what must come before the container's own process is born into the stage: the cgroup, the maps, joined namespaces
/// as far as the user namespace bars the way to them, the time offsets.
pub(super) fn split_for_stage(
    list: &mut List,
    joined: &mut Vec<Joined>,
    created: u64,
    linux: &crate::spec::Linux,
    joins_first: bool,
) -> Result<Vec<Step>> {
    let mut before = List(std::mem::take(&mut list.0));
    let user = take(joined, |j| j.typ == NamespaceType::User);
    let mut clocks = List(Vec::new());
    let time = libc::CLONE_NEWTIME as u64;
    if created & time != 0 {
        clocks.add("/linux/timeOffsets", Op::Unshare { flags: time, names: "time".into() });
        let offsets = namespaces::time_offsets(linux);
        if !offsets.is_empty() {
            clocks.add("/linux/timeOffsets", Op::TimeOffsets(c("/linux/timeOffsets", offsets)?));
        }
    }
    // The file of the offsets is root's when the process is undumpable, and root's files are out of reach from within a
    // user namespace. In one that is new nobody else is there to trace it.
    let joins_user = user.is_some() || joins_first;
    if !joins_user && let Some(undumpable) = before.0.iter().position(|step| matches!(step.op, Op::Undumpable)) {
        before.0.splice(undumpable..undumpable, std::mem::take(&mut clocks.0));
    }
    if joins_first {
        for other in joined.drain(..) {
            before.add(format!("/linux/namespaces/{}", other.index), setns(other));
        }
    }
    if let Some(user) = user {
        before.add(format!("/linux/namespaces/{}", user.index), setns(user));
    }
    before.0.append(&mut clocks.0);
    Ok(before.0)
}

pub(super) fn pointer_of(spec: &Spec, typ: NamespaceType) -> String {
    let index = spec.linux().namespaces.iter().position(|n| n.typ == Some(typ)).unwrap_or(0);
    format!("/linux/namespaces/{index}")
}

/// The names of the namespaces that a set of `CLONE_NEW*` bits stands for.
pub(crate) fn flag_names(flags: u64) -> String {
    let set = NamespaceType::ALL.iter().filter(|typ| flags & namespaces::flag(**typ) != 0);
    set.map(|typ| typ.word()).collect::<Vec<_>>().join(", ")
}
