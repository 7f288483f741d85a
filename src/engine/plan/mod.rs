//! The plan: everything that is to be done, in order, with every path, number and string that it takes. Compiled once from a
//! validated config; parent and child hold the same plan, so that a failure crosses as a step's number.

mod compile;
mod program;
mod step;
pub mod validate;

pub(crate) use compile::flag_names;
pub use compile::{ExecInputs, Inputs, LiveInputs, Options, add_mounts, remove_mounts};
pub use compile::{create, exec, late_steps, root_path};
pub use program::{HookState, Program, home_of};
pub use step::{Op, Place, Step, Sync};

use crate::prim::landlock::Ruleset;
use crate::prim::namespaces::{Joined, Maps};
use crate::sys::Letter;
use std::fmt;
use std::os::fd::OwnedFd;
use std::rc::Rc;

/// A compiled plan.
#[derive(Debug)]
pub struct Plan {
    /// Namespaces that clone3 itself creates, as `CLONE_NEW*` bits.
    pub clone_flags: u64,
    /// A PID namespace that the child is to be born into.
    pub pid_namespace: Option<Joined>,
    /// The steps of a process in between, where namespaces have to be joined or set up before the container's own can be
    /// created; with the bits of what it then creates.
    pub stage: Option<(Vec<Step>, u64)>,
    /// The maps of a new user namespace.
    pub maps: Option<Maps>,
    /// ID-mapped mounts: the step that makes each.
    pub idmaps: Vec<IdMap>,
    /// What the parent does for a child whose user namespace could not: steps at the time of the maps.
    pub by_parent: Vec<Step>,
    /// The fd of a lock that the child must not hold.
    pub lock: Option<i32>,
    /// Steps up to the gate.
    pub setup: Vec<Step>,
    /// Steps after `start`.
    pub late: Vec<Step>,
    /// The program.
    pub exec: Program,
    /// The state that hooks in the container read.
    pub hook_state: HookState,
    /// Whether the program is a child of the container's first process.
    pub has_init: bool,
    /// What was left out, and why; for the log.
    pub warnings: Vec<String>,
}

/// What a sandbox adds to the plan of a container.
#[derive(Debug, Default)]
pub struct Extras {
    /// The program gets an init, which tells this pipe how it ended (see [`crate::sys::init`]).
    pub init: Option<OwnedFd>,
    /// All ends with the thread that launches.
    pub die_with_parent: bool,
    /// Ports of the loopback interface whose listening sockets the parent gets.
    pub listen: Vec<u16>,
    /// Landlock rules.
    pub landlock: Option<Ruleset>,
    /// Calls that the filter denies with EPERM notify the parent, which is to answer.
    pub record: bool,
    /// Symlinks that may not be replaced.
    pub links: Vec<std::path::PathBuf>,
    /// The parent is told when a masked path is opened (see [`crate::prim::cover`]).
    pub watch: bool,
    /// The parent gets the writable layer.
    pub keep_layer: bool,
    /// Files for the standard streams.
    pub streams: [Option<OwnedFd>; 3],
    /// There are no namespaces: the program stays where the caller is.
    pub confined: bool,
    /// The program is named here, and only while the child waits at [`Sync::Ready`], its init made and Landlock in force.
    pub letter: Option<Rc<Letter>>,
    /// The filter allows what is done from then on (read, write, execve, exit_group): it is loaded before, too.
    pub filter_first: bool,
}

/// An ID-mapped mount.
#[derive(Debug)]
pub struct IdMap {
    /// The step that attaches it.
    pub step: usize,
    /// Whether the mounts below it are mapped, too.
    pub recursive: bool,
    /// Its own maps; those of the container's user namespace without.
    pub maps: Option<Maps>,
    /// The user namespace that the container joins, if its maps are meant.
    pub namespace: Option<OwnedFd>,
}

impl Plan {
    /// What was passed over as the spec wants it, for who looks for a fault: system calls that no architecture knows.
    pub fn notes(&self) -> Vec<String> {
        let mut notes = Vec::new();
        for step in self.setup.iter().chain(&self.late) {
            if let Op::Seccomp { filter, .. } = &step.op {
                notes.push(format!("seccomp filter flags: {}", filter.flags));
                let unknown = filter.unknown.iter();
                notes.extend(unknown.map(|name| format!("/linux/seccomp: unknown system call {name} is left out")));
            }
        }
        notes
    }
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let line = |f: &mut fmt::Formatter<'_>, number: String, step: &Step| {
            let phrase = step.op.to_string();
            match step.at.as_str() {
                "" => writeln!(f, "{number:>5}  {phrase}"),
                at => writeln!(f, "{number:>5}  {phrase}  [{at}]"),
            }
        };
        if let Some((steps, _)) = &self.stage {
            writeln!(f, "stage:")?;
            for (number, step) in steps.iter().enumerate() {
                line(f, format!("s{number}"), step)?;
            }
        }
        writeln!(f, "create:")?;
        for (number, step) in self.setup.iter().enumerate() {
            line(f, number.to_string(), step)?;
        }
        writeln!(f, "start:")?;
        for (number, step) in self.late.iter().enumerate() {
            line(f, (self.setup.len() + number).to_string(), step)?;
        }
        Ok(())
    }
}
