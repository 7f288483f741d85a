//! What is wrong with a profile, and what the words beside the rules do.

use super::*;
use serde_json::json;

fn read(section: serde_json::Value) -> Seccomp {
    serde_json::from_value(section).unwrap()
}

#[test]
fn problems_have_their_pointers() {
    let call = |call: serde_json::Value| json!({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [call]});
    let cond = |arg: serde_json::Value| call(json!({"names": ["read"], "action": "SCMP_ACT_TRAP", "args": [arg]}));
    let errno = |action: &str, errno: u32| call(json!({"names": ["read"], "action": action, "errnoRet": errno}));
    let notify = |name: &str, rest: serde_json::Value| {
        let mut section = call(json!({"names": [name], "action": "SCMP_ACT_NOTIFY"}));
        section.as_object_mut().unwrap().extend(rest.as_object().unwrap().clone());
        section
    };
    let contrary = json!({"defaultAction": "SCMP_ACT_ALLOW", "architectures": ["SCMP_ARCH_X86"], "syscalls": [
        {"names": ["read"], "action": "SCMP_ACT_TRAP", "args": [{"index": 0, "value": 1, "op": "SCMP_CMP_EQ"}]},
        {"names": ["read"], "action": "SCMP_ACT_LOG", "args": [{"index": 0, "value": 1, "op": "SCMP_CMP_EQ"}]},
    ]});
    for (section, pointer, words) in [
        (json!({"syscalls": [{"names": ["read"], "action": "SCMP_ACT_TRAP"}]}), "defaultAction", "is missing"),
        (json!({"defaultAction": "SCMP_ACT_NOTIFY", "listenerPath": "/l"}), "defaultAction", "as default action"),
        (json!({"defaultAction": "SCMP_ACT_ERRNO", "defaultErrnoRet": 4096}), "defaultErrnoRet", "at most 4095"),
        (json!({"defaultAction": "SCMP_ACT_KILL", "defaultErrnoRet": 1}), "defaultErrnoRet", "returns no errno"),
        (
            json!({"defaultAction": "SCMP_ACT_ALLOW", "architectures": ["SCMP_ARCH_X32", "SCMP_ARCH_S390X"]}),
            "architectures/1",
            "byte order",
        ),
        (
            json!({"defaultAction": "SCMP_ACT_ALLOW", "listenerMetadata": "x"}),
            "listenerMetadata",
            "needs a listenerPath",
        ),
        (call(json!({"action": "SCMP_ACT_TRAP"})), "syscalls/0/names", "names no call"),
        (call(json!({"names": ["read", ""], "action": "SCMP_ACT_TRAP"})), "syscalls/0/names/1", "is empty"),
        (call(json!({"names": ["read"]})), "syscalls/0/action", "is missing"),
        (errno("SCMP_ACT_ERRNO", 4096), "syscalls/0/errnoRet", "at most 4095"),
        (errno("SCMP_ACT_TRACE", 65536), "syscalls/0/errnoRet", "at most 65535"),
        (errno("SCMP_ACT_ALLOW", 1), "syscalls/0/errnoRet", "returns no errno"),
        (cond(json!({"index": 6, "op": "SCMP_CMP_EQ"})), "syscalls/0/args/0/index", "0 to 5"),
        (cond(json!({"index": 4294967295u32, "op": "SCMP_CMP_EQ"})), "syscalls/0/args/0/index", "0 to 5"),
        (cond(json!({"index": 0})), "syscalls/0/args/0/op", "is missing"),
        (notify("mkdir", json!({})), "listenerPath", "is missing"),
        (notify("mkdir", json!({"listenerPath": ""})), "listenerPath", "is missing"),
        (notify("write", json!({"listenerPath": "/l"})), "syscalls/0/names/0", "cannot be used for the write syscall"),
        (contrary, "syscalls/1", "another action than /linux/seccomp/syscalls/0"),
    ] {
        let problems = compile(&read(section.clone())).expect_err(&section.to_string());
        assert_eq!(problems.len(), 1, "{problems:?}");
        assert_eq!(problems[0].pointer, format!("/linux/seccomp/{pointer}"));
        assert!(problems[0].what.contains(words), "{problems:?}");
    }
}

#[test]
fn all_problems_are_found_at_once() {
    let section = json!({"defaultErrnoRet": 1, "listenerMetadata": "x", "syscalls": [{"args": [{"index": 9}, {}]}]});
    let pointers: Vec<_> = compile(&read(section)).unwrap_err().into_iter().map(|problem| problem.pointer).collect();
    let rest = [
        "defaultAction",
        "syscalls/0/names",
        "syscalls/0/action",
        "syscalls/0/args/0/index",
        "syscalls/0/args/1/op",
        "listenerMetadata",
    ];
    assert_eq!(pointers, rest.map(|rest| format!("/linux/seccomp/{rest}")));
}

#[test]
fn an_architecture_that_libseccomp_does_not_know_is_a_problem() {
    let unknown =
        SeccompArch::ALL.iter().find(|&&name| name != SeccompArch::Native && !architectures().contains(&name));
    let Some(&name) = unknown else {
        eprintln!("skipped: the linked libseccomp knows every architecture of the spec");
        return;
    };
    let mut profile = read(json!({"defaultAction": "SCMP_ACT_ALLOW"}));
    profile.architectures = vec![SeccompArch::Native, name];
    let problems = compile(&profile).unwrap_err();
    assert_eq!(problems[0].pointer, "/linux/seccomp/architectures/1");
    assert!(problems[0].what.starts_with(name.word()), "{problems:?}");
}

#[test]
fn an_empty_section_asks_for_no_filter() {
    assert!(compile(&Seccomp::default()).unwrap().is_none());
    assert!(compile(&read(json!({"defaultAction": "SCMP_ACT_ALLOW"}))).unwrap().is_some());
}

#[test]
fn flags_are_passed_on() {
    let flags = |flags: serde_json::Value, action: &str| {
        let call = json!({"names": ["mkdir"], "action": action});
        let filter = compile(&read(json!({
            "defaultAction": "SCMP_ACT_ALLOW", "flags": flags, "listenerPath": "/l", "syscalls": [call],
        })));
        let filter = filter.unwrap().unwrap();
        assert_eq!(filter.notifies, action == "SCMP_ACT_NOTIFY");
        filter.flags
    };
    assert_eq!(flags(json!(null), "SCMP_ACT_TRAP"), 4);
    assert_eq!(flags(json!([]), "SCMP_ACT_TRAP"), 0);
    assert_eq!(flags(json!(["SECCOMP_FILTER_FLAG_TSYNC"]), "SCMP_ACT_TRAP"), 0);
    assert_eq!(flags(json!(["SECCOMP_FILTER_FLAG_LOG", "SECCOMP_FILTER_FLAG_SPEC_ALLOW"]), "SCMP_ACT_TRAP"), 2 | 4);
    assert_eq!(flags(json!(["SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV"]), "SCMP_ACT_TRAP"), 0);
    assert_eq!(flags(json!(["SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV"]), "SCMP_ACT_NOTIFY"), 8 | 32);
    assert_eq!(flags(json!(null), "SCMP_ACT_NOTIFY"), 4 | 8);
}

#[test]
fn unknown_names_are_left_out_and_named() {
    let filter = compile(&read(json!({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [
        {"names": ["no_such_call", "read", "arm_fadvise64_64"], "action": "SCMP_ACT_TRAP"},
        {"names": ["neither_this", "no_such_call"], "action": "SCMP_ACT_ALLOW"},
    ]})));
    assert_eq!(filter.unwrap().unwrap().unknown, ["neither_this", "no_such_call"]);
}

#[test]
fn calls_newer_than_the_profile_do_not_exist() {
    let outcome = |section: serde_json::Value, nr: u32| {
        let program = compile(&read(section)).unwrap().unwrap().program;
        bpf::run(
            &program,
            &bpf::Data { nr, arch: super::super::arch::Arch::named(SeccompArch::Native).audit, args: [0; 6] },
        )
        .0
    };
    let openat2 = libc::SYS_openat2 as u32;
    let profile = |action: &str, archs: serde_json::Value| {
        json!({"defaultAction": action, "architectures": archs, "syscalls": [
            {"names": ["read"], "action": "SCMP_ACT_ALLOW"},
            {"names": ["openat2"], "action": "SCMP_ACT_ERRNO", "errnoRet": 1},
        ]})
    };
    let (eperm, enosys) = (0x5_0000 | libc::EPERM as u32, 0x5_0000 | libc::ENOSYS as u32);
    let native = json!(["SCMP_ARCH_NATIVE"]);
    assert_eq!(outcome(profile("SCMP_ACT_ERRNO", native.clone()), openat2), eperm);
    assert_eq!(outcome(profile("SCMP_ACT_ERRNO", native.clone()), openat2 + 1), enosys);
    assert_eq!(outcome(profile("SCMP_ACT_ERRNO", native.clone()), 1000), enosys);
    // -1 is what a tracer sets to skip a call.
    assert_eq!(outcome(profile("SCMP_ACT_ERRNO", native.clone()), u32::MAX), eperm);
    assert_eq!(outcome(profile("SCMP_ACT_ERRNO", json!([])), 1000), eperm);
    assert_eq!(outcome(profile("SCMP_ACT_KILL_PROCESS", native), 1000), 0x8000_0000);
}

#[test]
fn features_are_the_kernels() {
    let actions = supported_actions();
    assert!(actions.contains(&SeccompAction::Allow) && actions.contains(&SeccompAction::Kill), "{actions:?}");
    assert!(!sys::seccomp::action_available(0x1234_0000));
    let flags = supported_flags();
    assert!(flags.contains(&SeccompFlag::Tsync), "{flags:?}");
    assert!(!sys::seccomp::flags_available(1 << 30));
    assert!(architectures().contains(&super::super::arch::NATIVE));
}
