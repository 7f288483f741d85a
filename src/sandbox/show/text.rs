//! The report in words, for a terminal.

use super::{denied, ending, escape, place, size, time};
use crate::sandbox::report::{Change, ChangeKind, Outcome, Report};
use std::fmt::{Display, Write};

/// How many of a kind are listed.
const LISTED: usize = 20;

/// The report in lines of plain text. Without `verbose` there are only those a user must know: why the program ended, which
/// limits it ran into and what was denied; the text is empty for a program that just exited. `color` adds terminal colours
/// (ECMA-48, SGR). Control characters in names and paths are escaped.
pub fn text(report: &Report, verbose: bool, color: bool) -> String {
    let mut page = Page { out: String::new(), color };
    let mut denied = denied(report);
    if !verbose {
        // glibc asks for a name service daemon in every `ls -l` and `id`, and goes on without one.
        denied.retain(|d| d.what != "system call socket(AF_UNIX)");
    }
    // Time on the CPU is meant to run out now and then: it only slows down.
    let hits: Vec<_> =
        report.limits.iter().filter(|l| l.hit == Some(true) && !matches!(l.name, "cpu" | "cpu_quota")).collect();
    let plain = matches!(report.outcome, Outcome::Exited { .. });
    if !verbose && plain && denied.is_empty() && hits.is_empty() {
        return page.out;
    }
    let good = report.outcome == Outcome::Exited { code: 0 };
    page.line(if good { Ink::Good } else { Ink::Bad }, ending(report));
    if verbose {
        figures(report, &mut page);
    } else {
        for limit in hits {
            page.line(Ink::Bad, format_args!("limit reached: {} {} ({})", limit.name, limit.value, limit.by));
        }
        // So ends a program that does not get its memory, and there is no other sign of it.
        let crashed =
            matches!(report.outcome, Outcome::Signaled { signal: libc::SIGSEGV | libc::SIGABRT | libc::SIGBUS });
        for limit in report.limits.iter().filter(|l| crashed && l.by == "RLIMIT_DATA") {
            page.line(
                Ink::Bad,
                format_args!("limit that may have been reached: {} {} ({})", limit.name, limit.value, limit.by),
            );
        }
    }
    page.some(&denied, |page, d| {
        let times = if d.count > 1 { format!(" ({} times)", d.count) } else { String::new() };
        let hint = if d.hint.is_empty() { String::new() } else { format!(": {}", d.hint) };
        page.line(Ink::Bad, format_args!("denied: {}{}{times}{hint}", d.what, d.by));
    });
    if verbose {
        details(report, &mut page);
    }
    page.out
}

/// What was used and what held it.
fn figures(report: &Report, page: &mut Page) {
    let (user, system) = (report.cpu_user_us, report.cpu_system_us);
    let cpu = user.saturating_add(system);
    let average = report.memory_average.map_or(String::new(), |bytes| format!(", {} on average", size(bytes)));
    page.line(Ink::Plain, format_args!("  command    {}", super::command(report)));
    page.line(
        Ink::Plain,
        format_args!(
            "  time       {}, CPU {} ({} user, {} system)",
            time(report.wall_us),
            time(cpu),
            time(user),
            time(system)
        ),
    );
    page.line(Ink::Plain, format_args!("  memory     {} at most{average}", size(report.memory_peak)));
    page.line(Ink::Plain, format_args!("  processes  {} at most", report.pids_peak));
    page.line(
        Ink::Plain,
        format_args!("  storage    {} read, {} written", size(report.io_read), size(report.io_written)),
    );
    let width = |of: fn(&crate::sandbox::report::LimitUsed) -> usize| report.limits.iter().map(of).max().unwrap_or(0);
    let (name, value) = (width(|l| l.name.chars().count()), width(|l| l.value.chars().count()));
    for limit in &report.limits {
        let (ink, mark) = match limit.hit {
            Some(true) => (Ink::Bad, "  <- reached"),
            Some(false) => (Ink::Plain, ""),
            None => (Ink::Plain, "  (reached or not: unknown)"),
        };
        page.line(ink, format_args!("  limit      {:name$}  {:value$}  {}{mark}", limit.name, limit.value, limit.by));
    }
}

/// What was changed, one a line and all of it: `--diff`.
pub fn changes(report: &Report) -> String {
    let mut page = Page { out: String::new(), color: false };
    report.changes.iter().for_each(|change| one_change(&mut page, change));
    page.out
}

fn one_change(page: &mut Page, change: &Change) {
    let (ink, mark) = match change.kind {
        ChangeKind::Added => (Ink::Good, '+'),
        ChangeKind::Modified => (Ink::Plain, '~'),
        ChangeKind::Deleted => (Ink::Bad, '-'),
    };
    let size = if change.size > 0 { format!(" ({})", size(change.size)) } else { String::new() };
    page.line(ink, format_args!("{mark} {}{size}", change.path));
}

/// What it did.
fn details(report: &Report, page: &mut Page) {
    let allowed: Vec<_> = report.connections.iter().filter(|c| c.allowed).collect();
    page.some(&allowed, |page, c| {
        let (place, sent, received) = (place(&c.host, c.port), size(c.sent), size(c.received));
        page.line(Ink::Plain, format_args!("connected: {place} by {}, {sent} sent, {received} received", c.via));
    });
    page.some(&report.changes, one_change);
    page.some(&report.findings, |page, f| {
        page.line(
            Ink::Plain,
            format_args!("{}:{}:{}: {}: {} ({}): {}", f.file, f.line, f.column, f.severity, f.why, f.rule, f.code),
        );
    });
    for note in &report.notes {
        page.line(Ink::Plain, format_args!("note: {note}"));
    }
}

/// What a line is about.
#[derive(Clone, Copy)]
enum Ink {
    Plain,
    Good,
    Bad,
}

/// The lines so far.
struct Page {
    out: String,
    color: bool,
}

impl Page {
    fn line(&mut self, ink: Ink, what: impl Display) {
        let what = escape(&what.to_string());
        let code = match ink {
            Ink::Good if self.color => 32,
            Ink::Bad if self.color => 31,
            _ => 0,
        };
        let _ = match code {
            0 => writeln!(self.out, "{what}"),
            code => writeln!(self.out, "\x1b[{code}m{what}\x1b[0m"),
        };
    }

    /// The first so many of a list, and how many more there are.
    fn some<T>(&mut self, list: &[T], mut each: impl FnMut(&mut Page, &T)) {
        list.iter().take(LISTED).for_each(|item| each(self, item));
        if list.len() > LISTED {
            self.line(Ink::Plain, format_args!("  and {} more", list.len() - LISTED));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sandbox::report::LimitUsed;
    use crate::sandbox::show::samples::{busy, connection, quiet, violation};

    fn first(report: &Report) -> String {
        text(report, true, false).lines().next().unwrap().to_owned()
    }

    #[test]
    fn nothing_is_said_of_a_plain_exit() {
        let mut report = quiet();
        assert_eq!(text(&report, false, false), "");
        report.outcome = Outcome::Exited { code: 3 };
        assert_eq!(text(&report, false, false), "");
        assert!(text(&report, true, false).starts_with("exited with status 3\n"));
        report.limits[0].hit = Some(true);
        assert_eq!(
            text(&report, false, false),
            "exited with status 3\nlimit reached: memory 2G (cgroup v2 memory.max)\n"
        );
    }

    #[test]
    fn each_ending_is_a_sentence() {
        let mut report = busy();
        let table = [
            (Outcome::TimedOut, "ended by its time-out of 30 s"),
            (Outcome::OutOfMemory, "killed: it needed more than its 64M of memory"),
            (Outcome::Exited { code: 3 }, "exited with status 3"),
            (Outcome::Signaled { signal: 11 }, "ended by signal 11 (SIGSEGV)"),
            (Outcome::Signaled { signal: 31 }, "ended by signal 31 (SIGSYS): it made a system call that is denied"),
            (Outcome::Killed { signal: 15 }, "ended from outside by signal 15 (SIGTERM)"),
            (Outcome::Signaled { signal: 40 }, "ended by signal 40"),
            (Outcome::CpuTime, "ended: it used up its CPU time"),
        ];
        for (outcome, words) in table {
            report.outcome = outcome;
            assert_eq!(first(&report), words);
        }
    }

    #[test]
    fn what_was_denied_is_grouped_with_what_allows_it() {
        let report = Report { changes: vec![], ..busy() };
        let expected = "\
killed: it needed more than its 64M of memory
limit reached: memory 64M (cgroup v2 memory.max)
denied: connect to evil.example:443 (no rule allows it) (2 times): allow with --allow-domain evil.example
denied: connect to telemetry.example:443 (denied by telemetry.example): allow by leaving out the --deny-domain that names it
denied: system call ptrace by python3 (3 times): allow with --allow-syscall ptrace or --profile unrestricted
denied: system call socket by curl: allow with --allow-syscall socket or --profile network
denied: file /home/ada/.ssh/id_ed25519 by cat: allow with --allow-read /home/ada/.ssh/id_ed25519 or --allow-write \
/home/ada/.ssh/id_ed25519
";
        assert_eq!(text(&report, false, false), expected);
    }

    #[test]
    fn a_limit_that_nobody_tells_of() {
        let mut report = Report { outcome: Outcome::Signaled { signal: libc::SIGSEGV }, ..quiet() };
        let limit = |by: &str| LimitUsed { name: "memory", value: "1M".into(), by: by.into(), hit: None };
        report.limits = vec![limit("RLIMIT_DATA"), limit("cgroup v2 memory.max")];
        let last = "limit that may have been reached: memory 1M (RLIMIT_DATA)\n";
        assert_eq!(text(&report, false, false), format!("ended by signal 11 (SIGSEGV)\n{last}"));
        assert!(text(&report, true, false).contains("RLIMIT_DATA  (reached or not: unknown)\n"));
        report.outcome = Outcome::Exited { code: 1 };
        assert_eq!(text(&report, false, false), "");
    }

    #[test]
    fn everything_is_said_when_asked() {
        let said = text(&busy(), true, false);
        for part in [
            "  time       4.73 s, CPU 4.91 s (4.1 s user, 812 ms system)\n",
            "  memory     64M at most, 29M on average\n",
            "  limit      memory      64M    cgroup v2 memory.max  <- reached\n",
            "connected: pypi.org:443 by https, 1.7K sent, 470.8K received\n",
            "+ /home/ada/project/target/debug/deps/module_00.o (1000 B)\n",
            "- /home/ada/project/target/debug/deps/module_02.o\n",
            "  and 6 more\n",
            "train.py:41:9: high: it runs whatever text it is given (python-eval): eval(config[\"lr\"])\n",
            "note: Landlock",
            "  command    python3 train.py --epochs '10 or so'\n",
        ] {
            assert!(said.contains(part), "{part:?} in:\n{said}");
        }
        assert!(said.is_ascii() && !said.contains("module_20"));
    }

    #[test]
    fn hostile_names_reach_neither_terminal_nor_shell() {
        let mut report = quiet();
        report.violations = vec![violation(1, "syscall", "ptrace", "a\x1b[2J\n\u{202e}b", 1)];
        report.connections = vec![connection(1, "x;rm -rf '~'", 443, false, "no rule allows it")];
        let said = text(&report, false, true);
        let visible = said.replace("\x1b[31m", "").replace("\x1b[32m", "").replace("\x1b[0m", "");
        assert!(visible.chars().all(|c| c == '\n' || !super::super::is_unsafe(c)), "{visible:?}");
        assert!(visible.contains(r"by a\u{1b}[2J\n\u{202e}b: allow"), "{visible}");
        assert!(visible.contains(r"--allow-domain 'x;rm -rf '\''~'\'''"), "{visible}");
        assert!(!text(&report, false, false).contains('\x1b'));
    }
}
