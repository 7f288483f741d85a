//! System calls taken away from the runtime under test, as on an older kernel or under the filter of an older engine: a
//! list of names of groups, with commas between, answers ENOSYS; or EPERM, if `:EPERM` is at the end. The container inherits
//! the filter.

/// Calls by group: what a kernel or a filter has or lacks as one.
const GROUPS: &[(&str, &[i64])] = &[
    ("openat2", &[libc::SYS_openat2]),
    (
        "mountapi",
        &[
            libc::SYS_open_tree,
            libc::SYS_move_mount,
            libc::SYS_fsopen,
            libc::SYS_fsconfig,
            libc::SYS_fsmount,
            libc::SYS_fspick,
            libc::SYS_mount_setattr,
        ],
    ),
    ("open_tree", &[libc::SYS_open_tree]),
    ("fsopen", &[libc::SYS_fsopen]),
    ("mount_setattr", &[libc::SYS_mount_setattr]),
    ("clone3", &[libc::SYS_clone3]),
    ("pidfd", &[libc::SYS_pidfd_open, libc::SYS_pidfd_send_signal, libc::SYS_pidfd_getfd, P_PIDFD]),
    ("close_range", &[libc::SYS_close_range]),
];

/// Every call that an engine's filter of 2019 did not know.
pub const ALL: &str = "openat2,mountapi,clone3,pidfd,close_range";

/// Stands for waitid(2) with `P_PIDFD`.
const P_PIDFD: i64 = -1;

fn expand(names: &str) -> &str {
    if names == "all" { ALL } else { names }
}

fn members(name: &str) -> Option<&'static [i64]> {
    GROUPS.iter().find(|(group, _)| *group == name).map(|(_, members)| *members)
}

/// Whether a filter takes a group's calls away.
pub fn takes(filter: &str, group: &str) -> bool {
    let names = filter.split(':').next().unwrap_or_default();
    let taken: Vec<i64> = expand(names).split(',').filter_map(members).flatten().copied().collect();
    members(group).is_some_and(|members| members.iter().any(|call| taken.contains(call)))
}

/// Whether the kernel itself lacks a call of a group, asked with arguments that no call takes.
pub fn missing(group: &str) -> bool {
    members(group).unwrap_or_default().iter().any(|call| {
        // SAFETY: -1 is no fd, no number and no address that any of these could do anything with.
        *call != P_PIDFD
            && unsafe { libc::syscall(*call, -1, -1, -1, -1, -1, -1) } < 0
            && std::io::Error::last_os_error().raw_os_error() == Some(libc::ENOSYS)
    })
}

/// The filter as a program to be loaded.
///
/// # Panics
/// When a word is no group's.
pub fn compile(wanted: &str) -> Vec<libc::sock_filter> {
    use libc::{BPF_ABS, BPF_JEQ, BPF_JMP, BPF_K, BPF_LD, BPF_RET, BPF_W};
    let (names, errno) = match wanted.split_once(':') {
        Some((names, "EPERM")) => (names, libc::EPERM),
        Some((_, other)) => panic!("a filter that answers {other:?} is not here"),
        None => (wanted, libc::ENOSYS),
    };
    let op = |code: u32, k: u32, jf: u8| libc::sock_filter { code: code as u16, jt: 0, jf, k };
    let refuse = op(BPF_RET | BPF_K, libc::SECCOMP_RET_ERRNO | errno as u32, 0);
    let mut program = Vec::new();
    for name in expand(names).split(',') {
        let known = || GROUPS.iter().map(|(group, _)| *group).collect::<Vec<_>>();
        for call in members(name).unwrap_or_else(|| panic!("{name:?} is no group of calls; there are {:?}", known())) {
            // seccomp_data: the number at 0, the first argument at 16, its low half first on the machines that run this.
            program.push(op(BPF_LD | BPF_W | BPF_ABS, 0, 0));
            if *call == P_PIDFD {
                program.push(op(BPF_JMP | BPF_JEQ | BPF_K, libc::SYS_waitid as u32, 3));
                program.push(op(BPF_LD | BPF_W | BPF_ABS, 16, 0));
                program.push(op(BPF_JMP | BPF_JEQ | BPF_K, libc::P_PIDFD, 1));
            } else {
                program.push(op(BPF_JMP | BPF_JEQ | BPF_K, *call as u32, 1));
            }
            program.push(refuse);
        }
    }
    program.push(op(BPF_RET | BPF_K, libc::SECCOMP_RET_ALLOW, 0));
    program
}

/// Loads it for the calling thread and what it starts; for a child before exec. Without no_new_privs, which the runtime
/// under test would pass on: it takes root, as the suite does.
pub fn load(program: &[libc::sock_filter]) -> std::io::Result<()> {
    let fprog = libc::sock_fprog { len: program.len() as u16, filter: program.as_ptr().cast_mut() };
    // SAFETY: fprog points at as many instructions as it says; the kernel only reads them.
    super::checked(unsafe { libc::syscall(libc::SYS_seccomp, libc::SECCOMP_SET_MODE_FILTER, 0, &raw const fprog) })?;
    Ok(())
}
