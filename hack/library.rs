//! The library at work: `cargo run --example library -- COMMAND [ARG]...` runs a command in a sandbox, tells what happens in it as
//! JSON lines, and at the end what it took.

use brig::error::{Error, Result};
use brig::sandbox::{Sandbox, show};
use std::time::Duration;

fn main() -> Result<()> {
    let mut words = std::env::args().skip(1);
    let program = words.next().ok_or_else(|| Error::invalid("usage: library COMMAND [ARG]..."))?;
    let sandbox = Sandbox::new(program)
        .args(words)
        .memory("256M")
        .cpu_percent(50)
        .pids(64)
        .timeout(Duration::from_secs(60))
        .sample(Duration::from_millis(100))
        .diff();
    let mut running = sandbox.spawn()?;
    for event in &mut running {
        print!("{}", show::lines::line(&event));
    }
    let report = running.wait()?;
    print!("{}", show::text::text(&report, true, false));
    std::process::exit(report.status)
}
