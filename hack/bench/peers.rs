//! Who is measured: the floor program, brig, and the runtimes beside it.

use crate::lab::Lab;
use crate::meter::Step;
use anyhow::{Context, Result, ensure};
use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// One program in the race.
pub struct Peer {
    /// The column's head; unique.
    pub name: String,
    /// Its binary.
    pub path: String,
    /// What it says for --version, first line.
    pub version: String,
    /// True for the floor program, which only runs.
    pub floor: bool,
    /// In what its containers are not those that were asked for.
    pub differences: Vec<String>,
}

impl Peer {
    /// A command of a runtime, with a state directory of its own.
    pub fn command(&self, lab: &Lab, words: &[&str]) -> Step {
        let root = lab.word(&format!("state/{}", self.name));
        Step::run(&[&[self.path.as_str(), "--root", &root], words].concat())
    }
}

/// The floor, $BRIG (or the release build), crun and runc ($CRUN, $RUNC or the PATH's), and the paths of $BENCH_PEERS. Tells
/// on stderr who is missing.
pub fn find(lab: &Lab) -> Result<Vec<Peer>> {
    let path = beside("examples/bench-floor")?;
    lab.build_floor(&path)?;
    let mut peers = vec![Peer {
        name: "floor".into(),
        path: installed(&path)?,
        version: "hack/bench/floor.c".into(),
        floor: true,
        differences: Vec::new(),
    }];
    for (name, variable, remedy) in [
        ("brig", "BRIG", "build it (cargo build --release)"),
        ("crun", "CRUN", "install it"),
        ("runc", "RUNC", "install it"),
    ] {
        let given = env::var_os(variable).map(PathBuf::from);
        let path = given.clone().or_else(|| if name == "brig" { beside("brig").ok() } else { in_path(name) });
        if let Err(err) = path.context("not found").and_then(|path| add(&mut peers, name, &path)) {
            ensure!(given.is_none(), "{variable}: {err:#}");
            eprintln!("bench: SKIPPED {name}: {err:#}; {remedy} or set {variable}");
        }
    }
    for path in env::var("BENCH_PEERS").unwrap_or_default().split(',').filter(|path| !path.is_empty()) {
        let path = Path::new(path);
        let name = path.file_name().map_or("peer".into(), |name| name.to_string_lossy().into_owned());
        let same = peers.iter().filter(|peer| peer.name.split('#').next() == Some(&name)).count();
        let name = if same == 0 { name } else { format!("{name}#{}", same + 1) };
        add(&mut peers, &name, path).context("BENCH_PEERS")?;
    }
    ensure!(peers.len() > 1, "nothing to measure");
    Ok(peers)
}

fn add(peers: &mut Vec<Peer>, name: &str, path: &Path) -> Result<()> {
    let path = path.canonicalize().with_context(|| path.display().to_string())?;
    let output = Command::new(&path).arg("--version").output().with_context(|| path.display().to_string())?;
    let text = String::from_utf8_lossy(&output.stdout);
    let version = text.lines().next().filter(|_| output.status.success());
    let version = version.with_context(|| format!("{} --version says nothing", path.display()))?.to_owned();
    let built = path.starts_with(beside("")?);
    let path = if built { installed(&path)? } else { path.to_string_lossy().into_owned() };
    peers.push(Peer { name: name.to_owned(), path, version, floor: false, differences: Vec::new() });
    Ok(())
}

/// A copy of a binary as an installer writes it. What the linker has just written lies in the page cache in small pieces,
/// which cost each start a fifth more page-fault time than the same file in whole folios.
fn installed(path: &Path) -> Result<String> {
    let copy = path.with_extension("installed");
    let _ = fs::remove_file(&copy); // one that runs could not be written to
    fs::copy(path, &copy).with_context(|| format!("copy {}", path.display()))?;
    Ok(copy.to_string_lossy().into_owned())
}

/// A file in the directory of cargo's profile, where brig is.
fn beside(name: &str) -> Result<PathBuf> {
    let own = env::current_exe()?;
    let profile = own.parent().and_then(Path::parent).context("the benchmark runs from nowhere")?;
    Ok(profile.join(name))
}

fn in_path(name: &str) -> Option<PathBuf> {
    env::split_paths(&env::var_os("PATH")?).map(|dir| dir.join(name)).find(|path| path.is_file())
}
