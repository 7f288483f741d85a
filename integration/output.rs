//! What the runtime prints, to readers of every kind.

use crate::support::{Call, Test, cases, json};

cases![a_reader_that_has_seen_enough];

/// `brig plan | head` is no failure of brig's.
fn a_reader_that_has_seen_enough(t: &Test) {
    t.only_brig("plan is brig's own");
    let mut b = t.bundle();
    // Long enough to fill a pipe that nobody empties.
    let masked: Vec<_> = (0..5000).map(|n| format!("/proc/masked-{n}")).collect();
    b.set("/linux/maskedPaths", json!(masked)).write();
    let shell = ["/bin/sh", "-c", r#""$0" "$@" | head -n 1; exit 0"#];
    let out = Call::through(t, &shell, &[], &["plan", b.path()]).out();
    assert_eq!((out.stdout.trim(), out.stderr.as_str()), ("cgroups:", ""));
}
