//! Floor 2: one OCI concept each. A module has a `compile` half, pure given the host's facts, and, where the child
//! acts, an `apply` half that is safe between clone and exec (no allocation, no locks, no panics).

pub mod attributes;
pub mod capabilities;
pub mod cgroup;
pub mod cover;
pub mod hooks;
pub mod intelrdt;
pub mod landlock;
pub mod lsm;
pub mod mounts;
pub mod namespaces;
pub mod netdev;
pub mod own_binary;
pub mod rootfs;
pub mod seccomp;
pub mod terminal;
