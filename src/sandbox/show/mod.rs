//! A sandbox's result for people and programs: words, a page, JSON, JSON lines.

mod chart;
pub mod html;
pub mod lines;
#[cfg(test)]
mod samples;
pub mod text;

use super::report::{Outcome, Report, Violation};
use super::units::Bytes;

/// The report as indented JSON that ends in a newline.
pub fn json(report: &Report) -> String {
    ascii_controls(&serde_json::to_string_pretty(report).expect("nothing in it has keys that are no text")) + "\n"
}

/// Whether a character must not reach a terminal as it is: it moves the cursor, or changes the order of what is read
/// (Unicode's bidirectional controls, UAX 9).
fn is_unsafe(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{61c}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}')
}

/// Text from the sandbox with such characters as escapes (`\n`, `\u{1b}`).
fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        if is_unsafe(c) { out.extend(c.escape_default()) } else { out.push(c) }
    }
    out
}

/// JSON with the control characters that JSON lets pass (DEL and U+0080 to U+009F, which terminals obey) as escapes. They
/// occur within strings only.
fn ascii_controls(json: &str) -> String {
    let mut out = String::with_capacity(json.len());
    for c in json.chars() {
        if c != '\n' && is_unsafe(c) { out += &format!("\\u{:04x}", c as u32) } else { out.push(c) }
    }
    out
}

/// A value of a limit by its name in the policy.
fn limit<'r>(report: &'r Report, name: &str) -> Option<&'r str> {
    report.limits.iter().find(|limit| limit.name == name).map(|limit| limit.value.as_str())
}

/// How it ended and why, as the rest of a sentence about the program.
fn ending(report: &Report) -> String {
    match report.outcome {
        Outcome::Exited { code } => format!("exited with status {code}"),
        Outcome::Signaled { signal: 31 } => "ended by signal 31 (SIGSYS): it made a system call that is denied".into(),
        Outcome::Signaled { signal } => format!("ended by {}", signal_name(signal)),
        Outcome::TimedOut => match limit(report, "timeout") {
            Some(value) => format!("ended by its time-out of {value}"),
            None => "ended by its time-out".into(),
        },
        Outcome::OutOfMemory => match limit(report, "memory") {
            Some(value) => format!("killed: it needed more than its {value} of memory"),
            None => "killed: it needed more memory than there was".into(),
        },
        Outcome::Killed { signal } => format!("ended from outside by {}", signal_name(signal)),
        Outcome::CpuTime => match limit(report, "cpu_time") {
            Some(value) => format!("ended: it used up its {value} of CPU time"),
            None => "ended: it used up its CPU time".into(),
        },
    }
}

/// `signal 11 (SIGSEGV)`.
fn signal_name(number: i32) -> String {
    match nix::sys::signal::Signal::try_from(number) {
        Ok(signal) => format!("signal {number} ({signal})"),
        Err(_) => format!("signal {number}"),
    }
}

/// Microseconds in a unit that leaves three or so digits: `250 us`, `12.5 ms`, `1.25 s`, `2 min 5 s`, `3 h`.
fn time(us: u64) -> String {
    let short = |value: f64, unit: &str| {
        let text = format!("{value:.2}");
        format!("{} {unit}", text.trim_end_matches('0').trim_end_matches('.'))
    };
    let both = |large: u64, unit: &str, small: u64, part: &str| match small {
        0 => format!("{large} {unit}"),
        _ => format!("{large} {unit} {small} {part}"),
    };
    match us {
        0..1_000 => format!("{us} us"),
        1_000..1_000_000 => short(us as f64 / 1e3, "ms"),
        1_000_000..60_000_000 => short(us as f64 / 1e6, "s"),
        60_000_000..3_600_000_000 => both(us / 60_000_000, "min", us / 1_000_000 % 60, "s"),
        _ => both(us / 3_600_000_000, "h", us / 60_000_000 % 60, "min"),
    }
}

/// A size in words, with the unit that a bare number of bytes lacks.
fn size(bytes: u64) -> String {
    if bytes < 1024 { format!("{bytes} B") } else { Bytes(bytes).to_string() }
}

/// Something denied, once for all the times it was: what, why, and the flag that allows it.
struct Denied {
    what: String,
    by: String,
    count: u64,
    hint: String,
}

/// Everything denied, grouped: connections first, then system calls, files and the rest, each in the order of its first time.
fn denied(report: &Report) -> Vec<Denied> {
    let mut all: Vec<Denied> = Vec::new();
    // A run can hold many of them: looked up by what makes two the same.
    let mut seen = std::collections::HashMap::new();
    let mut add = |key: String, count: u64, make: &dyn Fn() -> Denied| {
        let at = *seen.entry(key).or_insert(all.len());
        if at == all.len() {
            all.push(make());
        }
        all[at].count = all[at].count.saturating_add(count);
    };
    let mut hosts = std::collections::HashSet::new();
    for c in report.connections.iter().filter(|c| !c.allowed) {
        let place = place(&c.host, c.port);
        hosts.extend([c.host.clone(), place.clone()]);
        add(format!("network\0{place}\0{}", c.reason), 1, &|| Denied {
            what: format!("connect to {place}"),
            by: if c.reason.is_empty() { String::new() } else { format!(" ({})", c.reason) },
            count: 0,
            // A rule that denies is looked at before those that allow.
            hint: match c.reason.to_ascii_lowercase().contains("den") {
                true => "allow by leaving out the --deny-domain that names it".into(),
                false => format!("allow with --allow-domain {}", quote(&c.host)),
            },
        });
    }
    // The proxies tell of each denied connection twice: as such and as a violation.
    let others = |v: &&Violation| !(v.kind == "network" && hosts.contains(&v.what));
    let rank = |v: &Violation| ["network", "syscall", "file"].iter().position(|k| *k == v.kind).unwrap_or(3);
    let mut violations: Vec<&Violation> = report.violations.iter().filter(others).collect();
    violations.sort_by_key(|v| (rank(v), v.at_us));
    for v in violations {
        add(format!("{}\0{}\0{}", v.kind, v.what, v.program), v.count, &|| {
            let (what, hint) = violation(report, v);
            Denied {
                what,
                by: if v.program.is_empty() { String::new() } else { format!(" by {}", v.program) },
                count: 0,
                hint,
            }
        });
    }
    all
}

/// The command as a shell would take it.
fn command(report: &Report) -> String {
    report.command.iter().map(|word| quote(word)).collect::<Vec<_>>().join(" ")
}

/// Host and port, an IPv6 address in brackets.
fn place(host: &str, port: u16) -> String {
    if host.contains(':') && !host.starts_with('[') { format!("[{host}]:{port}") } else { format!("{host}:{port}") }
}

/// A violation in words, and what allows it.
fn violation(report: &Report, v: &Violation) -> (String, String) {
    use super::policy::Profile;
    match v.kind {
        // The filter tells these by what it looked at besides the name, which no flag takes.
        "syscall" if matches!(&*v.what, "socket(AF_UNIX)" | "socketpair(SOCK_DGRAM)") => (
            format!("system call {}", v.what),
            "allow with --allow-unix-socket PATH or --allow-all-unix-sockets".into(),
        ),
        "syscall" if matches!(&*v.what, "socket(AF_INET)" | "socket(AF_INET6)") => {
            (format!("system call {}", v.what), "allow with --allow-domain DOMAIN or --net host".into())
        }
        "syscall" if v.what == "listen" => {
            (format!("system call {}", v.what), "allow with --allow-local-binding".into())
        }
        "syscall" if v.what.ends_with(')') => {
            let name = v.what.split('(').next().unwrap_or_default();
            let what = format!("system call {}", v.what);
            (what, format!("allow with --allow-syscall {name} or --profile unrestricted"))
        }
        "syscall" => {
            let wider = if is_network_call(&v.what) { Profile::Network } else { Profile::Unrestricted };
            let profile = match report.profile {
                Some(profile) if profile < wider => match wider {
                    Profile::Network => " or --profile network",
                    _ => " or --profile unrestricted",
                },
                _ => "",
            };
            (format!("system call {}", v.what), format!("allow with --allow-syscall {}{profile}", quote(&v.what)))
        }
        "network" => {
            let host =
                v.what.rsplit_once(':').filter(|(host, _)| !host.contains(':')).map_or(&*v.what, |(host, _)| host);
            (format!("connect to {}", v.what), format!("allow with --allow-domain {}", quote(host)))
        }
        "file" => match v.what.split_once(' ') {
            Some(("read", path)) => (v.what.clone(), format!("allow with --allow-read {}", quote(path))),
            Some(("write", path)) => (v.what.clone(), format!("allow with --allow-write {}", quote(path))),
            _ => {
                let path = quote(&v.what);
                (format!("file {}", v.what), format!("allow with --allow-read {path} or --allow-write {path}"))
            }
        },
        other => (format!("{other} {}", v.what), String::new()),
    }
}

/// Whether a call is one of those that the network profile adds.
fn is_network_call(name: &str) -> bool {
    let stem = name.trim_end_matches('4');
    matches!(
        stem,
        "socket" | "socketpair" | "connect" | "bind" | "listen" | "accept" | "shutdown" | "setsockopt" | "getsockopt"
    ) || matches!(stem, "getsockname" | "getpeername")
        || ["send", "recv"].iter().any(|verb| stem.starts_with(verb) && !stem.starts_with("sendfile"))
}

/// A word for a shell's command line: people copy it, and its text comes from the program.
fn quote(word: &str) -> String {
    let plain = |c: char| c.is_alphanumeric() || "._-/:@%+,=".contains(c);
    match !word.is_empty() && word.chars().all(plain) {
        true => word.to_owned(),
        false => format!("'{}'", word.replace('\'', r"'\''")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_in_words() {
        let table = [
            (0, "0 us"),
            (999, "999 us"),
            (12_500, "12.5 ms"),
            (4_731_000, "4.73 s"),
            (125_000_000, "2 min 5 s"),
            (300_000_000, "5 min"),
            (10_800_000_000, "3 h"),
            (10_860_000_000, "3 h 1 min"),
        ];
        for (us, words) in table {
            assert_eq!(time(us), words);
        }
    }

    #[test]
    fn words_for_a_shell() {
        let table = [("a.example", "a.example"), ("*.a", "'*.a'"), ("", "''"), ("it's", r"'it'\''s'"), ("~", "'~'")];
        for (word, quoted) in table {
            assert_eq!(quote(word), quoted);
        }
    }

    #[test]
    fn a_wider_profile_is_named_only_where_there_is_one() {
        use crate::sandbox::policy::Profile;
        let hint = |profile, call: &str| {
            violation(&Report { profile, ..samples::quiet() }, &samples::violation(1, "syscall", call, "a", 1)).1
        };
        for (profile, call, flags) in [
            (Some(Profile::Minimal), "accept4", "allow with --allow-syscall accept4 or --profile network"),
            (Some(Profile::Network), "accept4", "allow with --allow-syscall accept4"),
            (Some(Profile::Network), "sendfile", "allow with --allow-syscall sendfile or --profile unrestricted"),
            (Some(Profile::Unrestricted), "ptrace", "allow with --allow-syscall ptrace"),
            (None, "ptrace", "allow with --allow-syscall ptrace"),
            (None, "socket(AF_UNIX)", "allow with --allow-unix-socket PATH or --allow-all-unix-sockets"),
            (None, "socketpair(SOCK_DGRAM)", "allow with --allow-unix-socket PATH or --allow-all-unix-sockets"),
            (None, "socket(AF_INET6)", "allow with --allow-domain DOMAIN or --net host"),
            (None, "socket(AF_PACKET)", "allow with --allow-syscall socket or --profile unrestricted"),
            (None, "clone(new namespaces)", "allow with --allow-syscall clone or --profile unrestricted"),
            (None, "listen", "allow with --allow-local-binding"),
        ] {
            assert_eq!(hint(profile, call), flags);
        }
    }

    #[test]
    fn an_address_keeps_apart_from_its_port() {
        assert_eq!([place("::1", 80), place("a.example", 443)], ["[::1]:80", "a.example:443"]);
        let hint = |what| violation(&samples::quiet(), &samples::violation(1, "network", what, "a", 1)).1;
        assert_eq!(hint("a.example:443"), "allow with --allow-domain a.example");
        assert_eq!(hint("fe80::1"), "allow with --allow-domain fe80::1");
    }
}
