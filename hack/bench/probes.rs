//! What is measured: each probe is a few steps for the meter and the rows of the table that it fills.

use crate::lab::{BUNDLES, Bundle, Lab};
use crate::meter::{Meter, Step, Taken};
use crate::peers::Peer;
use anyhow::{Context, Result, bail, ensure};
use std::fs;

/// What is done to a container.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Work {
    /// `run` of /bin/true.
    Run,
    /// `create`, `start`, the container's end, `delete`.
    Lifecycle,
    /// `exec` of /bin/true in a running container.
    Exec,
    /// `state` of a running container.
    State,
    /// `--version`.
    Version,
}

/// One piece of work on one bundle, after `idle` milliseconds of nothing.
#[derive(Clone, Copy)]
pub struct Probe {
    /// What is done.
    pub work: Work,
    /// On which bundle; without meaning for `Version`.
    pub bundle: Bundle,
    /// How long the machine idles before, in milliseconds.
    pub idle: u64,
}

/// A row of the table.
pub struct Row {
    /// For machines: "podman/run".
    pub key: String,
    /// For people.
    pub title: String,
}

/// One measurement of one row.
#[derive(Clone, Copy, Default)]
pub struct Sample {
    /// Wall-clock time in nanoseconds.
    pub ns: u64,
    /// The largest resident set of any one process, in KiB.
    pub peak_kib: i64,
    /// Minor page faults of the command and all that it waited for.
    pub faults: i64,
}

/// All back-to-back probes, in the order of the table.
pub fn all() -> Vec<Probe> {
    let each = |work| BUNDLES.map(|bundle| Probe { work, bundle, idle: 0 });
    let mut probes: Vec<Probe> = [Work::Run, Work::Lifecycle, Work::Exec].into_iter().flat_map(each).collect();
    // podman asks for the state of its own containers
    probes.extend([Work::State, Work::Version].map(|work| Probe { work, bundle: Bundle::Podman, idle: 0 }));
    probes
}

/// The probes that let the machine fall idle before each start, as it is when a user starts a container.
pub fn spaced() -> Vec<Probe> {
    BUNDLES.map(|bundle| Probe { work: Work::Run, bundle, idle: 250 }).to_vec()
}

impl Probe {
    /// The rows that `samples` gives values for, in the same order.
    pub fn rows(&self) -> Vec<Row> {
        let bundle = self.bundle.name();
        let of = match self.bundle {
            Bundle::Minimal => "minimal",
            Bundle::Podman => "as podman makes it",
        };
        let row = |key: &str| match self.work {
            Work::State | Work::Version => Row { key: key.to_owned(), title: format!("`{key}`") },
            _ if self.idle > 0 => Row {
                key: format!("{bundle}/{key}/idle"),
                title: format!("`{key}`, {of}, {} ms idle before", self.idle),
            },
            _ => Row { key: format!("{bundle}/{key}"), title: format!("`{key}`, {of}") },
        };
        match self.work {
            Work::Run => vec![row("run")],
            Work::Lifecycle => ["create", "start", "delete", "create + start + delete"].map(row).into(),
            Work::Exec => vec![row("exec")],
            Work::State => vec![row("state")],
            Work::Version => vec![row("--version")],
        }
    }

    /// Whether this program can do it: the floor only runs.
    pub fn suits(&self, peer: &Peer) -> bool {
        !peer.floor || self.work == Work::Run
    }

    /// What the meter has to do for one measurement.
    pub fn steps(&self, peer: &Peer, lab: &Lab) -> Vec<Step> {
        let bundle = lab.word(&format!("bundles/{}", use_of(peer, self.bundle, "true")));
        let alive = use_of(peer, self.bundle, "alive");
        let command = |words: &[&str]| peer.command(lab, words);
        let mut steps = Vec::new();
        if self.idle > 0 {
            steps.push(Step::Idle(self.idle));
        }
        match self.work {
            Work::Run if peer.floor => steps.push(floor(peer, lab, self.bundle, &["/bin/true"])),
            Work::Run => steps.push(command(&["run", "--bundle", &bundle, "once"])),
            Work::Lifecycle => {
                let pid_file = lab.word("pid");
                steps.extend([
                    command(&["create", "--bundle", &bundle, "--pid-file", &pid_file, "cycle"]),
                    command(&["start", "cycle"]),
                    Step::Reap(pid_file),
                    command(&["delete", "cycle"]),
                ]);
            }
            Work::Exec => steps.push(command(&["exec", &alive, "/bin/true"])),
            Work::State => steps.push(command(&["state", &alive])),
            Work::Version => steps.push(Step::Run(vec![peer.path.clone(), "--version".to_owned()])),
        }
        steps
    }

    /// The values for `rows` from what the meter took for `steps`.
    pub fn samples(&self, taken: &[Taken]) -> Vec<Sample> {
        let one = |taken: &Taken| Sample {
            ns: taken.end - taken.begin,
            peak_kib: taken.usage.peak_kib,
            faults: taken.usage.faults,
        };
        match (self.work, taken) {
            (Work::Lifecycle, [create, start, container, delete]) => {
                let all = [create, start, container, delete].map(one);
                let together = Sample {
                    ns: delete.end - create.begin,
                    peak_kib: all.iter().map(|sample| sample.peak_kib).max().unwrap_or_default(),
                    faults: all.iter().map(|sample| sample.faults).sum(),
                };
                vec![all[0], all[1], all[3], together]
            }
            _ => taken.last().map(one).into_iter().collect(),
        }
    }
}

/// The bundles' and containers' names: who, what, and for which use.
fn use_of(peer: &Peer, bundle: Bundle, purpose: &str) -> String {
    format!("{}-{}-{purpose}", peer.name.replace(['#', ' '], "-"), bundle.name())
}

fn floor(peer: &Peer, lab: &Lab, bundle: Bundle, args: &[&str]) -> Step {
    let (root, cgroup, files, filter) =
        (lab.word("rootfs"), lab.cgroup("floor"), lab.word("files"), lab.word("filter"));
    let mut words = vec![peer.path.as_str(), bundle.name(), &root, &cgroup];
    if bundle == Bundle::Podman {
        words.extend([files.as_str(), &filter]);
    }
    words.extend(args);
    Step::run(&words)
}

/// Has steps done and sees to it that each program ended with `status`; says what failed, with the end of its stderr.
pub fn perform(meter: &mut Meter, lab: &Lab, steps: &[Step], status: i32) -> Result<Vec<Taken>> {
    let taken = meter.perform(steps)?;
    for (step, took) in steps.iter().zip(&taken) {
        if took.usage.status != status {
            let said = fs::read_to_string(lab.path("stderr")).unwrap_or_default();
            let said: Vec<&str> = said.lines().rev().take(5).collect();
            let said: Vec<&str> = said.into_iter().rev().collect();
            bail!("status {}, not {status}, of: {step}\n{}", took.usage.status, said.join("\n"));
        }
    }
    Ok(taken)
}

/// What a container says of itself, for [`prepare`]: who leaves work out is no peer.
const PROOF: &str = "exec >/proof; hostname; \
    grep -E '^(Cap(Eff|Prm|Bnd)|NoNewPrivs|Seccomp|Uid):' /proc/self/status; \
    echo open files: $(ulimit -n), processes: $(ulimit -u); \
    echo ping groups: $(cat /proc/sys/net/ipv4/ping_group_range); \
    for m in $(cut -d ' ' -f 5 /proc/1/mountinfo | sort); do echo mount $m; done; \
    cd /sys/fs/cgroup; for f in */memory.limit_in_bytes */cpu.cfs_quota_us */pids.max memory.max cpu.max pids.max; do \
    test -f $f && echo $f: $(cat $f); done; exit 7";

/// Writes this program's bundles, and starts the containers that `exec` and `state` need. Proves that what it runs is run
/// and that its exit status comes back; returns what its containers told of themselves, by `run` and by `exec`, for each
/// bundle.
pub fn prepare(meter: &mut Meter, lab: &Lab, peer: &Peer) -> Result<Vec<String>> {
    const ARGS: [&str; 3] = ["/bin/sh", "-c", PROOF];
    fs::create_dir_all(lab.path("state").join(&peer.name))?;
    let take_proof = |what| {
        let path = lab.path("rootfs/proof");
        let text = fs::read_to_string(&path)
            .with_context(|| format!("its {what} did not run: {} is not there", path.display()))?;
        fs::remove_file(path).map(|()| text).context("remove the proof")
    };
    let mut proofs = Vec::new();
    for bundle in BUNDLES {
        let name = |purpose| use_of(peer, bundle, purpose);
        lab.bundle(bundle, &name("true"), &["/bin/true"])?;
        let live = lab.bundle(bundle, &name("alive"), &["/bin/sleep", "100000"])?;
        let proof = lab.bundle(bundle, &name("proof"), &ARGS)?;
        let run = match peer.floor {
            true => floor(peer, lab, bundle, &ARGS),
            false => peer.command(lab, &["run", "--bundle", &proof, "proof"]),
        };
        perform(meter, lab, &[run], 7)?;
        proofs.push(take_proof("run")?);
        if peer.floor {
            continue;
        }
        let alive = name("alive");
        let start = [peer.command(lab, &["create", "--bundle", &live, &alive]), peer.command(lab, &["start", &alive])];
        perform(meter, lab, &start, 0)?;
        perform(meter, lab, &[peer.command(lab, &["exec", &alive, ARGS[0], ARGS[1], ARGS[2]])], 7)?;
        proofs.push(take_proof("exec")?);
    }
    Ok(proofs)
}

/// Where the proofs of a peer differ from those of the floor, in words; empty when they tell the same.
pub fn compare(floor: &[String], proofs: &[String]) -> Vec<String> {
    let whats = BUNDLES.map(|bundle| [(bundle, "run", 0), (bundle, "exec", 1)]);
    let mut differences = Vec::new();
    for (bundle, what, offset) in whats.into_iter().flatten() {
        let number = bundle as usize;
        let Some(proof) = proofs.get(2 * number + offset) else { continue };
        let missing = floor[number].lines().filter(|line| !proof.lines().any(|other| other == *line));
        let more = proof.lines().filter(|line| !floor[number].lines().any(|other| other == *line));
        let words = |line: &str| line.split_whitespace().collect::<Vec<_>>().join(" ");
        let missing = missing.map(|line| format!("not `{}`", words(line)));
        let lines: Vec<String> = missing.chain(more.map(|line| format!("but `{}`", words(line)))).collect();
        if !lines.is_empty() {
            differences.push(format!("{what}, {}: {}", bundle.name(), lines.join(", ")));
        }
    }
    differences
}

/// Deletes the containers of `prepare` and any that a failure left.
pub fn clean_up(meter: &mut Meter, lab: &Lab, peer: &Peer) -> Result<()> {
    if peer.floor {
        return Ok(());
    }
    let alive = BUNDLES.map(|bundle| use_of(peer, bundle, "alive"));
    for id in alive.iter().map(String::as_str).chain(["once", "cycle", "proof"]) {
        // those that do not exist are refused, which is well
        meter.perform(&[peer.command(lab, &["delete", "--force", id])])?;
    }
    ensure!(
        fs::read_dir(lab.path("state").join(&peer.name))?.next().is_none(),
        "{} delete --force leaves state behind",
        peer.name
    );
    Ok(())
}
