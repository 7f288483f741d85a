//! Who is measured: the floor program, brig, and the runtimes beside it.

use crate::lab::Lab;
use crate::meter::Step;
use anyhow::{Context, Result, ensure};
use std::env;
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
    let floor = Peer {
        name: "floor".into(),
        path: lab.build_floor()?,
        version: "hack/bench/floor.c".into(),
        floor: true,
        differences: Vec::new(),
    };
    let mut peers = vec![floor];
    for (name, variable, remedy) in [
        ("brig", "BRIG", "build it (cargo build --release)"),
        ("crun", "CRUN", "install it"),
        ("runc", "RUNC", "install it"),
    ] {
        let given = env::var_os(variable).map(PathBuf::from);
        let path = given.clone().or_else(|| if name == "brig" { beside() } else { in_path(name) });
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
    peers.push(Peer {
        name: name.to_owned(),
        path: path.to_string_lossy().into_owned(),
        version,
        floor: false,
        differences: Vec::new(),
    });
    Ok(())
}

/// The brig that cargo put beside this example.
fn beside() -> Option<PathBuf> {
    let own = env::current_exe().ok()?;
    Some(own.parent()?.parent()?.join("brig"))
}

fn in_path(name: &str) -> Option<PathBuf> {
    env::split_paths(&env::var_os("PATH")?).map(|dir| dir.join(name)).find(|path| path.is_file())
}
