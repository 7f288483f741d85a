//! The report as one page that stands alone: no script, nothing fetched, light or dark as the reader's system is.

use super::{chart, denied, ending, escape, place, size, time};
use crate::sandbox::report::{Captured, ChangeKind, Mode, Outcome, Report};
use std::fmt::Write;

/// How many rows a table has before it says how many more there are.
const ROWS: usize = 500;
/// How many bytes of captured output are shown of each stream.
const OUTPUT: usize = 64 << 10;

/// The report as an HTML document (HTML Living Standard) in one piece. Text from the sandbox is escaped, and a policy in the
/// page forbids scripts and everything from elsewhere (Content Security Policy Level 3) in case a reader's program edits it.
pub fn html(report: &Report) -> String {
    let command = text(&super::command(report));
    let good = report.outcome == Outcome::Exited { code: 0 };
    let mut page = format!(
        "<!DOCTYPE html>\n<html lang=en><head><meta charset=utf-8>\
         <meta http-equiv=Content-Security-Policy content=\"default-src 'none'; style-src 'unsafe-inline'\">\
         <meta name=viewport content=\"width=device-width, initial-scale=1\"><meta name=color-scheme content=\"light dark\">\
         <title>{command} - sandbox report</title><style>{STYLE}</style></head>\n<body><main>\n\
         <header><p class=kicker>Sandbox report</p><h1><code>{command}</code></h1>\
         <p class=\"outcome {}\">{}</p><p class=facts>{}</p></header>\n",
        if good { "good" } else { "bad" },
        text(&capitalised(&ending(report))),
        facts(report),
    );
    figures(&mut page, report);
    page += &format!(
        "<section><h2>Over time</h2>{}{}{}</section>\n",
        chart::memory(report),
        chart::cpu(report),
        chart::timeline(report)
    );
    tables(&mut page, report);
    for (name, output) in [("Standard output", &report.stdout), ("Standard error", &report.stderr)] {
        if let Some(output) = output {
            captured(&mut page, name, output);
        }
    }
    page + "</main></body></html>\n"
}

/// Text as HTML has it, for elements and for attributes in double quotes; control characters but line ends and tabs are
/// visible escapes.
pub(super) fn text(raw: &str) -> String {
    let mut out = String::with_capacity(raw.len());
    for c in raw.chars() {
        match c {
            '&' => out += "&amp;",
            '<' => out += "&lt;",
            '>' => out += "&gt;",
            '"' => out += "&quot;",
            '\'' => out += "&#39;",
            '\n' | '\t' => out.push(c),
            c if super::is_unsafe(c) => out += &escape(c.encode_utf8(&mut [0; 4])),
            c => out.push(c),
        }
    }
    out
}

fn capitalised(sentence: &str) -> String {
    let mut chars = sentence.chars();
    chars.next().map_or(String::new(), |first| first.to_uppercase().chain(chars).collect())
}

/// What it was, in a line below the outcome.
fn facts(report: &Report) -> String {
    let mode = match report.mode {
        Mode::Privileged => "privileged namespaces",
        Mode::UserNamespace => "a user namespace",
        Mode::Confined => "no namespaces (Landlock, seccomp, resource limits)",
    };
    let profile = match report.profile {
        Some(profile) => {
            serde_json::to_value(profile).ok().and_then(|v| v.as_str().map(str::to_owned)).unwrap_or_default()
        }
        None => "custom".into(),
    };
    // Fractions of a second say nothing to a reader.
    let started = report.started.split('.').next().unwrap_or_default().replace('T', " ");
    text(&format!("{} | started {started} UTC | {mode} | system-call profile {profile}", report.id))
        .replace(" | ", " &middot; ")
}

/// The figures that are looked for first.
fn figures(page: &mut String, report: &Report) {
    let (user, system) = (report.cpu_user_us, report.cpu_system_us);
    let of = super::limit(report, "memory").map_or(String::new(), |limit| format!("of {limit}"));
    let average = report.memory_average.map_or("not sampled".into(), size);
    let all = [
        ("Exit status", report.status.to_string(), String::new()),
        ("Wall-clock time", time(report.wall_us), String::new()),
        ("CPU time", time(user.saturating_add(system)), format!("{} user, {} system", time(user), time(system))),
        ("Memory peak", size(report.memory_peak), of),
        ("Memory average", average, String::new()),
        ("Processes", report.pids_peak.to_string(), "at most".into()),
        ("Storage read", size(report.io_read), String::new()),
        ("Storage written", size(report.io_written), String::new()),
    ];
    *page += "<section><dl class=figures>";
    for (name, value, more) in all {
        let _ = write!(page, "<div><dt>{name}</dt><dd>{}<small>{}</small></dd></div>", text(&value), text(&more));
    }
    *page += "</dl></section>\n";
}

fn tables(page: &mut String, report: &Report) {
    let denied = denied(report);
    let rows = denied.iter().map(|d| {
        let hint = d.hint.strip_prefix("allow ").map_or(String::new(), capitalised);
        [String::new(), d.what.clone() + &d.by, d.count.to_string(), hint]
    });
    table(page, "Denied", &["What", "#Times", "Allow it"], denied.len(), rows);
    let rows = report.limits.iter().map(|l| {
        let (class, hit) = match l.hit {
            Some(true) => ("bad", "reached"),
            Some(false) => ("", "kept"),
            None => ("", "unknown"),
        };
        [class.into(), l.name.into(), l.value.clone(), l.by.clone(), hit.into()]
    });
    table(page, "Limits", &["Limit", "Value", "Enforced by", "Outcome"], report.limits.len(), rows);
    let rows = report.connections.iter().map(|c| {
        let (class, verdict) = if c.allowed { ("", "allowed") } else { ("bad", "denied") };
        let reason = match c.reason.as_str() {
            "" => verdict.into(),
            reason if reason.starts_with(verdict) => reason.into(),
            reason => format!("{verdict}: {reason}"),
        };
        let place = place(&c.host, c.port);
        [class.into(), time(c.at_us), place, c.via.into(), reason, size(c.sent), size(c.received)]
    });
    let heads = ["#At", "To", "By", "Verdict", "#Sent", "#Received"];
    table(page, "Connections", &heads, report.connections.len(), rows);
    let rows = report.changes.iter().map(|c| {
        let (class, kind) = match c.kind {
            ChangeKind::Added => ("good", "+\u{a0}added"),
            ChangeKind::Modified => ("", "~\u{a0}modified"),
            ChangeKind::Deleted => ("bad", "-\u{a0}deleted"),
        };
        let size = if c.kind == ChangeKind::Deleted { String::new() } else { size(c.size) };
        [class.into(), kind.into(), c.path.clone(), size]
    });
    table(page, "Changed files", &["Change", "Path", "#Size"], report.changes.len(), rows);
    let rows = report.findings.iter().map(|f| {
        let class = if f.severity == "high" { "bad" } else { "" };
        let place = format!("{}:{}:{}", f.file, f.line, f.column);
        [class.into(), f.severity.into(), place, f.code.clone(), format!("{} ({})", f.why, f.rule)]
    });
    table(page, "Findings in the script", &["Severity", "Where", "Code", "Why"], report.findings.len(), rows);
    if !report.notes.is_empty() {
        *page += "<section><h2>Notes</h2><ul>";
        report.notes.iter().for_each(|note| *page += &format!("<li>{}</li>", text(note)));
        *page += "</ul></section>\n";
    }
}

/// A table of rows whose first cell is the row's class; a head that begins with `#` is one of numbers. An empty one is left out.
fn table<const N: usize>(
    page: &mut String,
    name: &str,
    heads: &[&str],
    count: usize,
    rows: impl Iterator<Item = [String; N]>,
) {
    if count == 0 {
        return;
    }
    let _ = write!(
        page,
        "<section><h2>{name} <small>{count}</small></h2><div class=wide><table class={}><thead><tr>",
        if N > 5 { "many" } else { "few" }
    );
    for head in heads {
        let class = if head.starts_with('#') { " class=n" } else { "" };
        let _ = write!(page, "<th scope=col{class}>{}</th>", head.trim_start_matches('#'));
    }
    *page += "</tr></thead><tbody>";
    for row in rows.take(ROWS) {
        let _ = write!(page, "<tr class=\"{}\">", text(&row[0]));
        for (head, cell) in heads.iter().zip(&row[1..]) {
            let class = if head.starts_with('#') { " class=n" } else { "" };
            let _ = write!(page, "<td{class}>{}</td>", text(cell));
        }
        *page += "</tr>";
    }
    *page += "</tbody></table></div>";
    if count > ROWS {
        let _ = write!(page, "<p class=none>And {} more.</p>", count - ROWS);
    }
    *page += "</section>\n";
}

fn captured(page: &mut String, name: &str, output: &Captured) {
    let most = output.text.len().min(OUTPUT);
    let cut = (0..=most).rfind(|at| output.text.is_char_boundary(*at)).unwrap_or(0);
    let _ = write!(page, "<section><h2>{name} <small>{}</small></h2>", size(output.bytes));
    // The parser drops one line end right after <pre>.
    let _ = write!(page, "<pre>\n{}</pre>", text(&output.text[..cut]));
    if output.truncated || cut < output.text.len() {
        let _ = write!(page, "<p class=none>Cut here: the first {} of {}.</p>", size(cut as u64), size(output.bytes));
    }
    *page += "</section>\n";
}

/// The page's style. Text and lines have a contrast of 4.5 to 1 and more on their ground (WCAG 2.2, 1.4.3).
const STYLE: &str = "
:root { color-scheme: light dark; --ground: #f6f7f9; --card: #fff; --ink: #1b1f24; --soft: #57606a; --line: #d8dee4;
  --curve: #0a63c9; --good: #176f2c; --bad: #b42318; --warn: #8f5b00; --good-ground: #e3f5e6; --bad-ground: #fdeceb }
@media (prefers-color-scheme: dark) {
  :root { --ground: #10141a; --card: #191f27; --ink: #e6e9ed; --soft: #a3adb8; --line: #343c46;
    --curve: #6cb1ff; --good: #6fd588; --bad: #ff938a; --warn: #eab54d; --good-ground: #16301d; --bad-ground: #3b1d1b } }
* { box-sizing: border-box }
body { margin: 0; background: var(--ground); color: var(--ink); font: 15px/1.5 system-ui, sans-serif }
main { max-width: 980px; margin: 0 auto; padding: 24px 16px }
header, section { margin-bottom: 20px }
section { background: var(--card); border: 1px solid var(--line); border-radius: 10px; padding: 16px 20px }
h1 { font-size: 22px; line-height: 1.3; margin: 0 0 10px; overflow-wrap: anywhere }
h2 { font-size: 16px; margin: 0 0 10px }
h2 small { color: var(--soft); font-weight: normal; margin-left: 4px }
code, pre { font-family: ui-monospace, monospace }
.kicker, .facts, .none, figcaption { color: var(--soft); margin: 0; font-size: 13px }
.facts { overflow-wrap: anywhere }
.outcome { display: inline-block; margin: 0 0 10px; padding: 5px 12px; border-radius: 8px; font-weight: 600 }
.outcome.good { background: var(--good-ground); color: var(--good) }
.outcome.bad { background: var(--bad-ground); color: var(--bad) }
.figures { display: grid; grid-template-columns: repeat(auto-fill, minmax(138px, 1fr)); gap: 14px 18px; margin: 0 }
dt { color: var(--soft); font-size: 13px }
dd { margin: 0; font-size: 20px; font-weight: 600 }
dd small { display: block; color: var(--soft); font-size: 12px; font-weight: normal }
.chart { margin: 0; padding: 0 26px 34px 58px }
.chart figcaption { margin: 0 0 8px -58px }
svg { display: block; overflow: visible }
svg text { font: 12px system-ui, sans-serif; fill: var(--soft) }
text.y, text.end { text-anchor: end }
text.x { text-anchor: middle }
text.row { fill: var(--ink) }
text.limit { fill: var(--bad) }
text.limit, text.row, text.end { paint-order: stroke; stroke: var(--card); stroke-width: 4px; stroke-linejoin: round }
.grid, .rail { stroke: var(--line) }
.rail { stroke-dasharray: 1 5; stroke-linecap: round; stroke-width: 2 }
.curve { fill: none; stroke: var(--curve); stroke-width: 2; vector-effect: non-scaling-stroke; stroke-linejoin: round;
  stroke-linecap: round }
.area { fill: var(--curve); opacity: .12 }
circle.dot { fill: var(--curve) }
line.limit { stroke: var(--bad); stroke-width: 1.5; stroke-dasharray: 6 4 }
line.end { stroke: var(--ink); stroke-width: 1.5 }
svg.good path { fill: var(--good) }
svg.bad path { fill: none; stroke: var(--bad); stroke-width: 2.5 }
svg.warn path { fill: var(--warn) }
svg.good path, svg.warn path { stroke: var(--card) }
.wide { overflow-x: auto }
table { border-collapse: collapse; width: 100%; font-size: 14px }
th { text-align: left; color: var(--soft); font-size: 13px; font-weight: 600 }
th, td { padding: 5px 14px 5px 0; border-bottom: 1px solid var(--line); vertical-align: top }
tbody tr:last-child td { border-bottom: 0 }
td { overflow-wrap: anywhere; min-width: 68px }
.n { text-align: right; white-space: nowrap; font-variant-numeric: tabular-nums }
tr.bad td:first-child, tr.bad td:last-child:not(.n) { color: var(--bad) }
tr.good td:first-child { color: var(--good) }
ul { margin: 0; padding-left: 20px }
pre { margin: 0; padding: 12px; background: var(--ground); border-radius: 6px; font-size: 13px; white-space: pre-wrap;
  overflow-wrap: anywhere; max-height: 480px; overflow-y: auto }
@media (max-width: 560px) { section { padding: 14px } th, td { padding-right: 10px } .many { min-width: 640px } }
@media print {
  :root { --ground: #fff } body { font-size: 11pt } main { max-width: none; padding: 0 }
  section { padding: 0 0 10px; border: 0 } figure, tr, dl { break-inside: avoid } h2 { break-after: avoid }
  pre { max-height: none; border: 1px solid var(--line) } .wide { overflow: visible }
  * { print-color-adjust: exact } }
";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sandbox::report::{Change, Finding, LimitUsed};
    use crate::sandbox::show::samples::{busy, connection, quiet, violation};

    const EVIL: &str = "<script>alert(1)</script>\"'&\x1b";

    #[test]
    fn nothing_from_the_sandbox_is_markup() {
        let evil = || EVIL.to_owned();
        let mut report = busy();
        report.id = evil();
        report.command = vec![evil(), evil()];
        report.started = evil();
        report.limits = vec![LimitUsed { name: EVIL, value: evil(), by: evil(), hit: Some(true) }];
        report.limits.push(LimitUsed { name: "memory", value: evil(), by: evil(), hit: Some(true) });
        report.changes = vec![Change { path: evil(), kind: ChangeKind::Added, size: 1 }];
        report.connections = [true, false].map(|allowed| connection(1, EVIL, 1, allowed, EVIL)).to_vec();
        report.connections[0].via = EVIL;
        report.violations = ["syscall", "network", "file", EVIL].map(|kind| violation(1, kind, EVIL, EVIL, 1)).to_vec();
        let finding = report.findings[0].clone();
        report.findings =
            vec![Finding { rule: EVIL, severity: EVIL, file: evil(), code: evil(), why: EVIL, ..finding }];
        report.stdout = Some(Captured { text: evil(), bytes: 1, truncated: true });
        report.stderr.clone_from(&report.stdout);
        report.notes = vec![evil()];
        let page = html(&report);
        assert!(!page.contains("<script") && !page.contains("</script") && !page.contains('\x1b'));
        // The title, the heading, and each field at least once.
        assert!(page.matches("&lt;script&gt;").count() > 20);
        assert_eq!(text(EVIL), "&lt;script&gt;alert(1)&lt;/script&gt;&quot;&#39;&amp;\\u{1b}");
    }

    #[test]
    fn the_page_stands_alone_and_says_everything() {
        let page = html(&busy());
        for part in [
            "<h1><code>python3 train.py --epochs &#39;10 or so&#39;</code></h1>",
            "Killed: it needed more than its 64M of memory",
            "brisk-heron &middot; started 2026-11-21 09:30:00 UTC &middot; privileged namespaces",
            "<h2>Denied <small>5</small></h2>",
            "With --allow-domain evil.example",
            "<h2>Changed files <small>26</small></h2>",
            "epoch 1: loss 0.71\n",
            "Cut here: the first 7 B of 88K.",
        ] {
            assert!(page.contains(part), "{part}");
        }
        for foreign in ["http:", "https:", "url(", "@import", "src=", "href="] {
            assert!(!page.contains(foreign), "{foreign}");
        }
        for tag in ["section", "table", "svg", "figure", "div", "dl", "tr", "td"] {
            let opened = page.matches(&format!("<{tag} ")).count() + page.matches(&format!("<{tag}>")).count();
            assert_eq!(opened, page.matches(&format!("</{tag}>")).count(), "{tag}");
        }
    }

    #[test]
    fn what_is_empty_is_left_out_and_what_is_long_is_cut() {
        let page = html(&quiet());
        assert!(!page.contains("<h2>Denied") && !page.contains("<pre>") && page.contains("not sampled"));
        let mut long = quiet();
        long.changes = (0..700).map(|n| Change { path: format!("/{n}"), kind: ChangeKind::Added, size: 0 }).collect();
        long.stdout = Some(Captured { text: "\u{e4}".repeat(OUTPUT), bytes: 9, truncated: false });
        let page = html(&long);
        assert!(page.contains("And 200 more.") && !page.contains("<td>/500</td>") && page.contains("Cut here"));
        assert!(page.len() < 200_000);
    }
}
