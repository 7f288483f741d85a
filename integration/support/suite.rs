//! The suite as a whole: what is prepared once, how a test's end becomes a result, and what is said at the end.

use super::{Test, os, plain, runtime};
use libtest_mimic::{Arguments, Completion, Failed, Trial};
use std::any::Any;
use std::cell::RefCell;
use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::{Mutex, OnceLock};
use std::time::{Duration, Instant};

/// One test: the file it stands in, its name, and its body.
#[derive(Clone, Copy)]
pub struct Case {
    pub file: &'static str,
    pub name: &'static str,
    pub run: fn(&Test),
}

impl Case {
    /// Its name with that of its file.
    pub fn path(&self) -> String {
        format!("{}::{}", self.file.split_once("::").map_or(self.file, |(_, file)| file), self.name)
    }
}

/// What a test does, where it is made while the suite starts.
pub type Body = Box<dyn Fn(&Test) + Send + Sync>;

/// Carries a skip's reason up to the harness.
struct Skip(String);

static SKIPPED: Mutex<Vec<(String, String)>> = Mutex::new(Vec::new());
static TOOK: Mutex<Vec<(Duration, String)>> = Mutex::new(Vec::new());
/// Of a suite whose tests are all shorter than this nobody wants to know the longest.
const SLOW: Duration = Duration::from_secs(20);
static SCRATCH: OnceLock<PathBuf> = OnceLock::new();

thread_local! {
    static LAST_PANIC: RefCell<String> = const { RefCell::new(String::new()) };
}

/// Ends the test at hand as skipped. It is printed and counted; a reason is a fact about this machine or this runtime.
pub fn skip(reason: impl Into<String>) -> ! {
    resume_unwind(Box::new(Skip(reason.into())))
}

/// The directory under which every test has one of its own. It lies where any user may walk (so that a container's
/// mapped root can), and is gone at the end.
pub fn scratch() -> &'static Path {
    SCRATCH.get_or_init(|| {
        let dir = std::env::temp_dir().join(format!("{SCRATCH_NAME}{}", std::process::id()));
        fs::create_dir_all(&dir).expect("a scratch directory");
        fs::copy("/proc/self/exe", dir.join("payload")).expect("the payload");
        dir
    })
}

/// Runs all of it.
pub fn run(cases: &[Case], dynamic: Vec<(String, Body)>) -> ExitCode {
    let args = Arguments::from_args();
    let mut trials: Vec<Trial> = cases.iter().map(|case| trial(case.path(), case.run)).collect();
    trials.extend(dynamic.into_iter().map(|(name, body)| trial(name, body)));
    if !args.list {
        prepare();
    }
    let conclusion = libtest_mimic::run(&args, trials);
    if !args.list {
        let _ = fs::remove_dir_all(scratch());
        report();
    }
    conclusion.exit_code()
}

fn trial(name: String, body: impl Fn(&Test) + Send + Sync + 'static) -> Trial {
    Trial::ignorable_test(name.clone(), move || outcome(&name, &body))
}

const SCRATCH_NAME: &str = "brig-integration-";

/// Removes the scratch directories of suites that were killed.
fn sweep() {
    for entry in fs::read_dir(std::env::temp_dir()).into_iter().flatten().flatten() {
        let owner =
            entry.file_name().to_string_lossy().strip_prefix(SCRATCH_NAME).and_then(|pid| pid.parse::<u32>().ok());
        if owner.is_some_and(|pid| !Path::new(&format!("/proc/{pid}")).exists()) {
            let _ = fs::remove_dir_all(entry.path());
        }
    }
}

/// Mounts made here stay here, orphaned containers come back here, and a panic's words are kept for the report.
fn prepare() {
    sweep();
    os::become_subreaper();
    if os::is_root() {
        os::own_mount_namespace();
    }
    std::panic::set_hook(Box::new(|info| {
        LAST_PANIC.with_borrow_mut(|last| *last = info.to_string());
    }));
    println!("runtime: {}", runtime::under_test().describe());
}

fn outcome(name: &str, body: &dyn Fn(&Test)) -> Result<Completion, Failed> {
    let begun = Instant::now();
    let result = result(name, body);
    TOOK.lock().expect("no test panics here").push((begun.elapsed(), name.to_string()));
    if let Err(e) = &result {
        // The harness tells it at the very end, which a suite that is ended before does not reach.
        eprintln!("{name} failed: {}", e.message().unwrap_or_default());
    }
    result
}

fn result(name: &str, body: &dyn Fn(&Test)) -> Result<Completion, Failed> {
    let test = Test::new(name);
    let result = catch_unwind(AssertUnwindSafe(|| {
        plain::skip_what_is_roots(name);
        body(&test);
    }));
    let left = catch_unwind(AssertUnwindSafe(|| test.finish())).unwrap_or_else(|e| vec![words(&*e)]);
    match result {
        Err(e) if e.is::<Skip>() => match e.downcast::<Skip>() {
            Ok(skip) => Ok(skipped(name, skip.0)),
            Err(e) => resume_unwind(e),
        },
        Err(e) => Err(Failed::from(if left.is_empty() {
            words(&*e)
        } else {
            format!("{}\nand left: {}", words(&*e), left.join("; "))
        })),
        Ok(()) if !left.is_empty() => Err(Failed::from(format!("left behind: {}", left.join("; ")))),
        Ok(()) => Ok(Completion::Completed),
    }
}

fn words(_: &(dyn Any + Send)) -> String {
    LAST_PANIC.with_borrow(Clone::clone)
}

fn skipped(name: &str, reason: String) -> Completion {
    SKIPPED.lock().expect("no test panics here").push((name.to_string(), reason.clone()));
    Completion::ignored_with(reason)
}

/// Says again at the end what was skipped, where nobody can miss it, and what took longest.
fn report() {
    let mut took = TOOK.lock().expect("no test panics here");
    took.sort_unstable_by(|a, b| b.cmp(a));
    if let Some((longest, _)) = took.first()
        && *longest > SLOW
    {
        let longest = took.iter().take(5).map(|(time, name)| format!("{name} {} s", time.as_secs()));
        println!("slowest: {}", longest.collect::<Vec<_>>().join(", "));
    }
    let skipped = SKIPPED.lock().expect("no test panics here");
    if !skipped.is_empty() {
        println!("skipped {}:", skipped.len());
        for (name, reason) in skipped.iter() {
            println!("    SKIP {name}: {reason}");
        }
    }
}
