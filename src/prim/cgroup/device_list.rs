//! What the v1 devices controller makes of device rules: a default, and a list of exceptions from it. Known here so that a
//! running container gets new rules without a moment in which it has none, and so that a rule which v1 can't follow is
//! refused instead of ignored.

use super::devices::{Kind, Rule};
use crate::error::Problem;
use std::collections::BTreeMap;

/// The devices of an exception: kind, major and minor number.
type Devices = (Kind, Option<u32>, Option<u32>);

/// The state of a v1 devices cgroup.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct DeviceList {
    allowed: bool,
    /// The kinds of access excepted, a subset of `rwm`.
    exceptions: BTreeMap<Devices, String>,
}

impl DeviceList {
    /// What rules come to.
    ///
    /// # Errors
    /// A rule that would take something back from a wider one: v1 ignores it.
    pub fn new(rules: &[Rule]) -> Result<DeviceList, Problem> {
        let mut list = DeviceList::default();
        for rule in rules {
            if rule.kind == Kind::All {
                list = DeviceList { allowed: rule.allow, exceptions: BTreeMap::new() };
                continue;
            }
            let devices = (rule.kind, rule.major, rule.minor);
            let access = list.exceptions.entry(devices).or_default();
            if rule.allow != list.allowed {
                *access = united(access, &rule.access);
                continue;
            }
            *access = without(access, &rule.access);
            if access.is_empty() {
                list.exceptions.remove(&devices);
            }
            if let Some((wider, _)) = list.exceptions.iter().find(|(other, access)| {
                **other != devices && includes(other, &devices) && without(&rule.access, access) != rule.access
            }) {
                let wider = show(*wider, "");
                let what = format!(
                    "cgroup v1 can't make an exception from the wider rule for {wider}; name the devices that are to \
                     be {} one by one",
                    if rule.allow { "denied" } else { "allowed" }
                );
                return Err(Problem::new(rule.pointer.clone(), what));
            }
        }
        Ok(list)
    }

    /// Reads devices.list. What a list that allows by default denies, the kernel does not tell.
    pub fn parse(text: &str) -> DeviceList {
        let mut list = DeviceList::default();
        for line in text.lines() {
            let mut fields = line.split([' ', ':']);
            let kind = match fields.next() {
                Some("b") => Kind::Block,
                Some("c") => Kind::Char,
                Some("a") => return DeviceList { allowed: true, exceptions: BTreeMap::new() },
                _ => continue,
            };
            let mut number = || fields.next().and_then(|field| field.parse().ok());
            let devices = (kind, number(), number());
            list.exceptions.insert(devices, fields.next().unwrap_or_default().to_owned());
        }
        list
    }

    /// Whether every device is allowed that is no exception.
    pub fn allows_all(&self) -> bool {
        self.allowed
    }

    /// The writes, as (file, value), that lead from this state to another one. Whatever is allowed in both stays allowed all
    /// the time, unless the default changes, or is to allow.
    pub fn lead_to(&self, wanted: &DeviceList) -> Vec<(&'static str, String)> {
        let file = |allow| if allow { "devices.allow" } else { "devices.deny" };
        let mut writes = Vec::new();
        let afresh = self.allowed || wanted.allowed;
        if afresh {
            writes.push((file(wanted.allowed), "a".to_owned()));
        }
        let nothing = BTreeMap::new();
        let before = if afresh { &nothing } else { &self.exceptions };
        let mut differences = |from: &BTreeMap<Devices, String>, to: &BTreeMap<Devices, String>, allow: bool| {
            for (devices, access) in from {
                let rest = without(access, to.get(devices).map_or("", String::as_str));
                if !rest.is_empty() {
                    writes.push((file(allow), show(*devices, &rest)));
                }
            }
        };
        differences(&wanted.exceptions, before, !wanted.allowed);
        differences(before, &wanted.exceptions, wanted.allowed);
        writes
    }
}

fn united(a: &str, b: &str) -> String {
    "rwm".chars().filter(|c| a.contains(*c) || b.contains(*c)).collect()
}

fn without(a: &str, b: &str) -> String {
    a.chars().filter(|c| !b.contains(*c)).collect()
}

fn includes(wider: &Devices, devices: &Devices) -> bool {
    let number = |wider: Option<u32>, number: Option<u32>| wider.is_none() || wider == number;
    wider.0 == devices.0 && number(wider.1, devices.1) && number(wider.2, devices.2)
}

fn show((kind, major, minor): Devices, access: &str) -> String {
    let rule = Rule { allow: true, kind, major, minor, access: access.to_owned(), pointer: String::new() };
    rule.to_string().trim_end().to_owned()
}

#[cfg(test)]
mod tests {
    use super::super::devices;
    use super::*;
    use crate::spec::DeviceRule;

    fn list(json: &str) -> Result<DeviceList, Problem> {
        let rules: Vec<DeviceRule> = serde_json::from_str(json).unwrap();
        DeviceList::new(&devices::rules(&rules, false).unwrap())
    }

    #[test]
    fn only_what_differs_is_written() {
        let now = DeviceList::parse("c 1:3 rwm\nc 10:229 rwm\nb 8:* r\nc *:* m\n");
        let wanted = list(
            r#"[{"allow": true, "type": "c", "major": 1, "minor": 3, "access": "rwm"},
                {"allow": true, "type": "c", "access": "m"},
                {"allow": true, "type": "c", "major": 10, "minor": 229, "access": "r"},
                {"allow": true, "type": "c", "major": 10, "minor": 200, "access": "rw"}]"#,
        );
        let writes = now.lead_to(&wanted.unwrap());
        let wanted = [("devices.allow", "c 10:200 rw"), ("devices.deny", "b 8:* r"), ("devices.deny", "c 10:229 wm")];
        assert_eq!(writes, wanted.map(|(file, value)| (file, value.to_owned())));
        assert_eq!(now.lead_to(&now), []);
    }

    #[test]
    fn a_change_of_the_default_starts_anew() {
        let all = DeviceList::parse("a *:* rwm\n");
        let some = list(r#"[{"allow": true, "type": "b", "major": 8, "access": "r"}]"#).unwrap();
        assert_eq!(all.lead_to(&some), [("devices.deny", "a".into()), ("devices.allow", "b 8:* r".into())]);
        assert_eq!(some.lead_to(&all), [("devices.allow", "a".into())]);
        let but = list(r#"[{"allow": true}, {"allow": false, "type": "c", "major": 1, "minor": 3, "access": "w"}]"#);
        assert_eq!(some.lead_to(&but.unwrap()), [("devices.allow", "a".into()), ("devices.deny", "c 1:3 w".into())]);
    }

    #[test]
    fn what_v1_would_ignore_is_refused() {
        let wide = r#"{"allow": true, "type": "b", "major": 8, "access": "rw"}"#;
        let hole = r#"{"allow": false, "type": "b", "major": 8, "minor": 0, "access": "w"}"#;
        let problem = list(&format!("[{wide}, {hole}]")).unwrap_err();
        assert_eq!(problem.pointer, "/linux/resources/devices/1");
        assert!(problem.what.contains("b 8:*"), "{problem}");
        assert!(list(&format!("[{hole}, {wide}]")).is_ok(), "nothing is taken back");
        let other = r#"{"allow": false, "type": "b", "major": 8, "minor": 0, "access": "m"}"#;
        assert!(list(&format!("[{wide}, {other}]")).is_ok(), "nor here");
        let same = r#"{"allow": false, "type": "b", "major": 8, "access": "w"}"#;
        assert_eq!(list(&format!("[{wide}, {same}]")).unwrap().exceptions.len(), 1);
    }
}
