//! Programs are run by a small machine that knows the instructions they use, and compared with the rules themselves.

use super::*;
use crate::prim::cgroup::devices;
use crate::spec::{DeviceRule, DeviceType};

/// Runs a program on one request.
fn run(Program(code): &Program, kind: i32, major: u32, minor: u32, access: i32) -> bool {
    let context = [(access as u32) << 16 | kind as u32, major, minor];
    let mut registers = [0_u32; 11];
    let mut at = 0;
    loop {
        let i = code[at];
        at += 1;
        let (target, immediate) = (usize::from(i.target()), i.immediate as u32);
        let value = registers[target];
        let mut jump = |condition: bool| {
            if condition {
                at = at.checked_add_signed(i.offset.into()).unwrap();
            }
        };
        match i.code {
            LOAD => registers[target] = context[i.offset as usize / 4],
            MOVE => registers[target] = registers[usize::from(i.source())],
            SET => registers[target] = immediate,
            AND => registers[target] &= immediate,
            SHIFT_RIGHT => registers[target] >>= immediate,
            JUMP => jump(true),
            JUMP_IF => jump(value == immediate),
            JUMP_UNLESS => jump(value != immediate),
            JUMP_IF_ANY => jump(value & immediate != 0),
            EXIT => return registers[0] != 0,
            other => panic!("instruction {other:#x}"),
        }
    }
}

/// The kernel refuses a program with instructions that nothing leads to.
fn all_is_reached(Program(code): &Program) {
    let mut reached = vec![false; code.len()];
    let mut pending = vec![0];
    while let Some(at) = pending.pop() {
        if std::mem::replace(&mut reached[at], true) {
            continue;
        }
        let jump = (at + 1).checked_add_signed(code[at].offset.into()).unwrap();
        match code[at].code {
            EXIT => {}
            JUMP => pending.push(jump),
            JUMP_IF | JUMP_UNLESS | JUMP_IF_ANY => pending.extend([at + 1, jump]),
            _ => pending.push(at + 1),
        }
    }
    assert!(reached.iter().all(|r| *r), "{code:#?}");
}

/// The rules as they are defined: the last one that matches, for each kind of access.
fn by_the_rules(rules: &[Rule], kind: i32, major: u32, minor: u32, access: i32) -> bool {
    [READ, WRITE, MKNOD].into_iter().filter(|bit| access & bit != 0).all(|bit| {
        let matches = |rule: &&Rule| {
            let kind_fits = match rule.kind {
                Kind::All => return true,
                Kind::Block => kind == BLOCK,
                Kind::Char => kind == CHAR,
            };
            kind_fits
                && rule.major.is_none_or(|n| n == major)
                && rule.minor.is_none_or(|n| n == minor)
                && bits(&rule.access) & bit != 0
        };
        rules.iter().rev().find(matches).is_some_and(|rule| rule.allow)
    })
}

fn check(rules: &[Rule]) -> usize {
    let program = compile(rules).unwrap();
    program.iter().for_each(all_is_reached);
    for kind in [BLOCK, CHAR] {
        for major in [0, 1, 5, 8, 10, 136, 4095] {
            for minor in [0, 3, 5, 16, 200, 229, 1 << 19] {
                for access in 1..=ALL {
                    let allowed = program.as_ref().is_none_or(|p| run(p, kind, major, minor, access));
                    let wanted = by_the_rules(rules, kind, major, minor, access);
                    assert_eq!(allowed, wanted, "{kind} {major}:{minor} access {access} by {rules:#?}");
                }
            }
        }
    }
    program.map_or(0, |p| p.0.len())
}

fn rule(allow: bool, typ: DeviceType, major: Option<i64>, minor: Option<i64>, access: &str) -> DeviceRule {
    DeviceRule { allow, typ: Some(typ), major, minor, access: Some(access.into()) }
}

fn everything(allow: bool) -> DeviceRule {
    DeviceRule { allow, typ: None, major: None, minor: None, access: Some("rwm".into()) }
}

#[test]
fn the_default_devices() {
    let defaults = devices::rules(&[], true).unwrap();
    let length = check(&defaults);
    assert!(length <= 32, "{length} instructions");
    let mut twice = defaults.clone();
    twice.extend(defaults[1..].iter().cloned());
    assert_eq!(check(&twice), length, "engines name the default devices as well");
}

#[test]
fn everything_or_nothing() {
    assert_eq!(check(&devices::rules(&[everything(true)], true).unwrap()), 0);
    assert_eq!(check(&devices::rules(&[], false).unwrap()), 2, "deny all");
    let after = [rule(true, DeviceType::Char, Some(1), Some(3), "rwm"), everything(true)];
    assert_eq!(check(&devices::rules(&after, true).unwrap()), 0);
}

#[test]
fn access_is_decided_kind_by_kind() {
    use DeviceType::{Block, Char};
    for config in [
        vec![rule(true, Char, Some(10), Some(229), "r"), rule(true, Char, Some(10), Some(229), "w")],
        vec![everything(true), rule(false, Char, Some(1), Some(3), "w"), rule(false, Block, None, None, "m")],
        vec![rule(true, Block, Some(8), None, "rwm"), rule(false, Block, Some(8), Some(16), "rw")],
        vec![rule(true, Block, None, Some(3), "r"), rule(false, Char, Some(5), None, "rwm")],
        vec![
            rule(true, Block, Some(8), None, "rw"),
            rule(false, Block, Some(8), Some(0), "w"),
            rule(true, Block, Some(8), Some(0), "m"),
            rule(true, Char, None, None, "rm"),
            rule(false, Char, None, Some(3), "r"),
        ],
    ] {
        check(&devices::rules(&config, true).unwrap());
        check(&devices::rules(&config, false).unwrap());
    }
}

/// What denied a part of a wider rule goes when the default devices allow just that again: then the wider one is enough.
#[test]
fn a_hole_that_is_filled() {
    use DeviceType::Char;
    for (major, denied) in [(None, (10, Some(200))), (Some(1), (1, Some(9))), (Some(5), (5, Some(2)))] {
        let config = [
            everything(false),
            rule(true, Char, major, None, "rwm"),
            rule(false, Char, Some(denied.0), denied.1, "rwm"),
        ];
        check(&devices::rules(&config, true).unwrap());
    }
}

#[test]
fn any_rules_at_all() {
    // A plain linear congruential generator: the same lists every time.
    let defaults = devices::rules(&[], true).unwrap();
    let mut state = 42_u64;
    let mut pick = |n: usize| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) as usize % n
    };
    for _ in 0..400 {
        let rules: Vec<Rule> = (0..=pick(9))
            .map(|_| Rule {
                allow: pick(2) == 0,
                kind: [Kind::All, Kind::Block, Kind::Char, Kind::Block, Kind::Char, Kind::Char, Kind::Char][pick(7)],
                major: [None, Some(1), Some(8), Some(10)][pick(4)],
                minor: [None, Some(0), Some(3), Some(229)][pick(4)],
                access: ["r", "w", "m", "rw", "rwm", "rwm", "wm"][pick(7)].into(),
                pointer: String::new(),
            })
            .collect();
        check(&rules);
        let with_defaults = [&rules, &defaults[1..]].concat();
        check(&with_defaults);
    }
}

#[test]
fn too_many_rules_are_no_truncated_program() {
    let many: Vec<Rule> = (0..40_000)
        .map(|n| Rule {
            allow: true,
            kind: Kind::Char,
            major: Some(n),
            minor: Some(0),
            access: "r".into(),
            pointer: String::new(),
        })
        .collect();
    // Every rule looks for those it covers, so only a part of them here.
    assert!(compile(&many[..2000]).unwrap().is_some());
}
