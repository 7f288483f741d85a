//! What maps the IDs of a mount.

use super::super::IdMap;
use crate::error::{Context, Error, Problem, Result};
use crate::prim::{mounts, namespaces};
use std::os::fd::OwnedFd;

/// What maps the IDs of a mount, if its entry asks for it: for the step that makes it. `namespace` is the container's user
/// namespace where there is one already.
pub(super) fn id_map(
    entry: &crate::spec::Mount,
    pointer: &str,
    step: usize,
    (allowed, namespace): (bool, Option<&OwnedFd>),
) -> Result<Option<IdMap>> {
    let wish = mounts::options::parse(&entry.options).idmap;
    let own = !entry.uid_mappings.is_empty();
    if wish.is_none() && !own {
        return Ok(None);
    }
    if !allowed {
        let what = "ID-mapped mounts take CAP_SYS_ADMIN on the host, and open_tree(2): Linux 5.2, unless a filter bars it; leave idmap and mappings out";
        return Err(Error::problems("config.json", &[Problem::new(format!("{pointer}/uidMappings"), what)]));
    }
    let maps = own.then(|| namespaces::maps(&entry.uid_mappings, &entry.gid_mappings));
    let namespace = match (&maps, namespace) {
        (None, Some(fd)) => Some(fd.try_clone().during(|| "copy a namespace's fd".into())?),
        _ => None,
    };
    Ok(Some(IdMap { step, recursive: wish == Some(true), maps, namespace }))
}
