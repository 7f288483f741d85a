//! Writes what is made of the definition of the command line: `docs OUTDIR` puts man pages into OUTDIR/man and completions
//! into OUTDIR/bash, OUTDIR/zsh and OUTDIR/fish. Nothing of this is in brig itself.

use anyhow::{Context, Result};
use clap::Command;
use clap_complete::Shell;
use clap_mangen::Man;
use clap_mangen::roff::{Roff, bold, roman};
use std::fs;
use std::path::{Path, PathBuf};

fn main() -> Result<()> {
    let out: PathBuf = std::env::args_os().nth(1).context("usage: docs OUTDIR")?.into();
    let mut brig = brig::commands::definition().disable_help_subcommand(true);
    for (shell, place) in [(Shell::Bash, "bash"), (Shell::Zsh, "zsh"), (Shell::Fish, "fish")] {
        let dir = out.join(place);
        fs::create_dir_all(&dir)?;
        let made = clap_complete::generate_to(shell, &mut brig, "brig", &dir)?;
        if shell == Shell::Bash {
            // bash-completion looks for a file of the command's own name.
            fs::rename(made, dir.join("brig"))?;
        }
    }
    let dir = out.join("man");
    fs::create_dir_all(&dir)?;
    brig.build();
    pages(&brig, "brig", &dir)
}

/// The page of a command, and of those below it.
fn pages(command: &Command, name: &str, dir: &Path) -> Result<()> {
    let below: Vec<&Command> =
        command.get_subcommands().filter(|c| !c.is_hide_set() && c.get_name() != "help").collect();
    let own: &'static str = name.to_owned().leak();
    let shown = command.clone().name(own).display_name(own);
    let man = Man::new(shown.version(env!("CARGO_PKG_VERSION")))
        .manual("brig")
        .source(format!("brig {}", env!("CARGO_PKG_VERSION")));
    let mut page = Vec::new();
    man.render_title(&mut page)?;
    man.render_name_section(&mut page)?;
    man.render_synopsis_section(&mut page)?;
    man.render_description_section(&mut page)?;
    man.render_options_section(&mut page)?;
    if !below.is_empty() {
        man.render_subcommands_section(&mut page)?;
    }
    rest(name, &below).to_writer(&mut page)?;
    let path = dir.join(format!("{name}.1"));
    fs::write(&path, page).with_context(|| path.display().to_string())?;
    below.iter().try_for_each(|c| pages(c, &format!("{name}-{}", c.get_name()), dir))
}

/// What no definition holds.
fn rest(name: &str, below: &[&Command]) -> Roff {
    let mut roff = Roff::new();
    roff.control("SH", ["EXIT STATUS"]);
    for line in match name {
        "brig-run" => &["That of the program; 128 and N if signal N ended it. 0 with --detach. 1 if brig failed."][..],
        "brig-exec" => &["That of the program; 128 and N if signal N ended it. 0 with --detach. 255 if brig failed."],
        "brig-check" => &["0 if containers can run for this user, 1 if not."],
        _ => &["0 if all went well, 1 if not; then the last message on the standard error says what was wrong."],
    } {
        roff.text([roman(*line)]);
    }
    if name == "brig" {
        roff.control("SH", ["FILES"]);
        for (file, what) in [
            ("/run/brig", "State of root's containers."),
            ("$XDG_RUNTIME_DIR/brig", "State of other users' containers."),
            ("config.json", "In a bundle: what the container is to be, as the OCI runtime specification has it."),
        ] {
            roff.control("TP", []).text([bold(file)]).text([roman(what)]);
        }
    }
    roff.control("SH", ["SEE ALSO"]);
    let others = match name.rsplit_once('-') {
        _ if !below.is_empty() => below.iter().map(|c| format!("{name}-{}", c.get_name())).collect(),
        Some((parent, _)) => vec![parent.to_owned()],
        None => Vec::new(),
    };
    let mut words = Vec::new();
    for (index, other) in others.iter().enumerate() {
        words.extend([bold(other.as_str()), roman(if index + 1 == others.len() { "(1)" } else { "(1), " })]);
    }
    roff.text(words);
    roff
}
