//! `linux.resources.devices`: the list of rules that decides, as data. On v1 the rules are written one by one; on v2 a
//! device program is made from the same list.

use crate::error::Problem;
use crate::spec::{DeviceRule, DeviceType};
use std::fmt;

/// Which devices a rule is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// Every device; the rule starts the list anew.
    All,
    /// Block devices.
    Block,
    /// Character devices.
    Char,
}

/// One rule; later ones win. An absent number stands for all.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rule {
    /// Whether access is given or taken away.
    pub allow: bool,
    /// Which devices.
    pub kind: Kind,
    /// The major number.
    pub major: Option<u32>,
    /// The minor number.
    pub minor: Option<u32>,
    /// Some of `r`, `w` and `m` (mknod).
    pub access: String,
    /// The JSON pointer of the entry that it comes from; the whole list for brig's own.
    pub pointer: String,
}

/// What every container may use, in the order in which it is appended: making any node (which gives no access to the
/// device), null, zero, full, random, urandom, tty, ptmx, tun, and the pseudoterminals.
///
/// This is runc's list. crun's has the same but for 5:1, the host's own console: a container's /dev/console is a
/// pseudoterminal, so only a container that wants the machine's would miss it, and it can ask.
const DEFAULTS: &[(Kind, Option<u32>, Option<u32>, &str)] = &[
    (Kind::Char, None, None, "m"),
    (Kind::Block, None, None, "m"),
    (Kind::Char, Some(1), Some(3), "rwm"),
    (Kind::Char, Some(1), Some(5), "rwm"),
    (Kind::Char, Some(1), Some(7), "rwm"),
    (Kind::Char, Some(1), Some(8), "rwm"),
    (Kind::Char, Some(1), Some(9), "rwm"),
    (Kind::Char, Some(5), Some(0), "rwm"),
    (Kind::Char, Some(5), Some(2), "rwm"),
    (Kind::Char, Some(10), Some(200), "rwm"),
    (Kind::Char, Some(136), None, "rwm"),
];

const LIST: &str = "/linux/resources/devices";

/// The rules in force, in order: deny everything (as runc does even when the config does not say it), then the config's,
/// then the defaults.
///
/// # Errors
/// Every rule that no kernel could apply.
pub fn rules(config: &[DeviceRule], with_defaults: bool) -> Result<Vec<Rule>, Vec<Problem>> {
    let mut problems = Vec::new();
    let mut list = Vec::with_capacity(config.len() + DEFAULTS.len() + 1);
    for (i, rule) in config.iter().enumerate() {
        match read(rule, &format!("{LIST}/{i}")) {
            Ok(rule) => list.push(rule),
            Err(problem) => problems.push(problem),
        }
    }
    if !problems.is_empty() {
        return Err(problems);
    }
    let own = |allow, kind, major, minor, access: &str| Rule {
        allow,
        kind,
        major,
        minor,
        access: access.to_owned(),
        pointer: LIST.to_owned(),
    };
    if list.first().is_none_or(|first| first.kind != Kind::All) {
        list.insert(0, own(false, Kind::All, None, None, "rwm"));
    }
    if with_defaults && !allow_all(&list) {
        list.extend(DEFAULTS.iter().map(|&(kind, major, minor, access)| own(true, kind, major, minor, access)));
    }
    Ok(list)
}

/// Whether a list takes away more than everything at its start: what it then means to deny is denied nowhere else.
pub fn denies(config: &[DeviceRule]) -> bool {
    config.iter().any(|rule| !rule.allow && !matches!(rule.typ, None | Some(DeviceType::All)))
}

/// Whether the list comes down to: everything is allowed.
pub fn allow_all(rules: &[Rule]) -> bool {
    rules.iter().rposition(|r| r.kind == Kind::All).is_some_and(|at| rules[at..].iter().all(|r| r.allow))
}

fn read(rule: &DeviceRule, pointer: &str) -> Result<Rule, Problem> {
    let kind = match rule.typ {
        None | Some(DeviceType::All) => Kind::All,
        Some(DeviceType::Block) => Kind::Block,
        Some(DeviceType::Char | DeviceType::Unbuffered) => Kind::Char,
        Some(DeviceType::Fifo) => {
            return Err(Problem::new(format!("{pointer}/type"), "a device rule is about type a, b or c, not p"));
        }
    };
    let number = |value: Option<i64>, name: &str| match value {
        // Go's runtimes write the wildcard as -1.
        None | Some(-1) => Ok(None),
        Some(n) => u32::try_from(n).map(Some).map_err(|_| {
            Problem::new(format!("{pointer}/{name}"), format!("{n} is no device number; leave it out to mean all"))
        }),
    };
    let (major, minor) = (number(rule.major, "major")?, number(rule.minor, "minor")?);
    if kind == Kind::All && (major.is_some() || minor.is_some()) {
        // The kernel would take it for every device, whatever the numbers say.
        let what = "without a type of b or c the rule is about every device, so it can't have a major or minor number";
        return Err(Problem::new(pointer, what));
    }
    let access = match rule.access.as_deref().unwrap_or_default() {
        "" if kind == Kind::All => "rwm",
        access if !access.is_empty() && access.chars().all(|c| "rwm".contains(c)) => access,
        "" => return Err(Problem::new(format!("{pointer}/access"), "is missing: one or more of r, w and m")),
        other => {
            let what = format!("{other:?} is no access: it takes one or more of r, w and m");
            return Err(Problem::new(format!("{pointer}/access"), what));
        }
    };
    Ok(Rule { allow: rule.allow, kind, major, minor, access: access.to_owned(), pointer: pointer.to_owned() })
}

/// As `devices.allow` and `devices.deny` of v1 read it.
impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = match self.kind {
            Kind::All => return f.write_str("a"),
            Kind::Block => 'b',
            Kind::Char => 'c',
        };
        let number = |n: Option<u32>| n.map_or("*".to_owned(), |n| n.to_string());
        write!(f, "{kind} {}:{} {}", number(self.major), number(self.minor), self.access)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rule(allow: bool, typ: Option<DeviceType>, major: Option<i64>, minor: Option<i64>, access: &str) -> DeviceRule {
        DeviceRule { allow, typ, major, minor, access: (!access.is_empty()).then(|| access.to_owned()) }
    }

    fn words(config: &[DeviceRule]) -> Vec<String> {
        let word = |r: &Rule| format!("{}{r}", if r.allow { '+' } else { '-' });
        rules(config, true).unwrap().iter().map(word).collect()
    }

    const DEFAULT_WORDS: [&str; 11] = [
        "+c *:* m",
        "+b *:* m",
        "+c 1:3 rwm",
        "+c 1:5 rwm",
        "+c 1:7 rwm",
        "+c 1:8 rwm",
        "+c 1:9 rwm",
        "+c 5:0 rwm",
        "+c 5:2 rwm",
        "+c 10:200 rwm",
        "+c 136:* rwm",
    ];

    #[test]
    fn without_rules_only_the_defaults_are_allowed() {
        assert_eq!(words(&[])[0], "-a");
        assert_eq!(words(&[])[1..], DEFAULT_WORDS);
        assert_eq!(words(&[rule(false, None, None, None, "rwm")]), words(&[]), "the usual first rule says the same");
        assert_eq!(rules(&[], false).unwrap().len(), 1);
    }

    #[test]
    fn order_is_kept() {
        let list = words(&[
            rule(false, Some(DeviceType::All), Some(-1), Some(-1), "rwm"),
            rule(true, Some(DeviceType::Char), Some(10), Some(229), "rw"),
            rule(true, Some(DeviceType::Block), Some(8), None, "r"),
            rule(false, Some(DeviceType::Unbuffered), None, Some(3), "w"),
        ]);
        assert_eq!(list[..4], ["-a", "+c 10:229 rw", "+b 8:* r", "-c *:3 w"]);
        assert_eq!(list[4..], DEFAULT_WORDS);
    }

    #[test]
    fn a_privileged_container_gets_everything() {
        assert_eq!(words(&[rule(true, None, None, None, "rwm")]), ["+a"]);
        let taken_back =
            words(&[rule(true, None, None, None, "rwm"), rule(false, Some(DeviceType::Char), Some(1), Some(3), "w")]);
        assert_eq!(taken_back[..2], ["+a", "-c 1:3 w"]);
        assert_eq!(taken_back.len(), 2 + DEFAULT_WORDS.len());
    }

    #[test]
    fn nonsense_is_found_with_its_place() {
        let bad = [
            (rule(true, Some(DeviceType::Fifo), None, None, "r"), "/linux/resources/devices/0/type"),
            (rule(true, Some(DeviceType::Char), Some(-2), None, "r"), "/linux/resources/devices/0/major"),
            (rule(true, Some(DeviceType::Char), None, Some(1 << 32), "r"), "/linux/resources/devices/0/minor"),
            (rule(true, Some(DeviceType::Char), None, None, "x"), "/linux/resources/devices/0/access"),
            (rule(true, Some(DeviceType::Char), None, None, ""), "/linux/resources/devices/0/access"),
            (rule(true, None, Some(10), Some(229), "rwm"), "/linux/resources/devices/0"),
        ];
        for (rule, pointer) in bad {
            let problems = rules(std::slice::from_ref(&rule), true).unwrap_err();
            assert_eq!(problems.len(), 1, "{rule:?}");
            assert_eq!(problems[0].pointer, pointer, "{rule:?}");
        }
    }
}
