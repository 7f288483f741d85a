//! A pool of prepared sandboxes: namespaces, mounts, cgroups and proxies are there, and a process in them waits for the name of the
//! program that it becomes. Each is used once, and another one is prepared in its place. [`serve`] gives them to clients.

mod http;
mod metrics;
mod protocol;
mod serve;
mod worker;

pub use http::Http;
pub use serve::serve;

use super::control;
use super::ledger::Ledger;
use super::policy::Policy;
use crate::error::{Context, Error, Kind, Result};
use metrics::Metrics;
use nix::sys::eventfd::{EfdFlags, EventFd};
use std::collections::{HashMap, VecDeque};
use std::path::PathBuf;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, mpsc};
use std::time::{Duration, Instant};
use worker::Task;

/// What a pool is to be.
#[derive(Debug, Clone)]
pub struct Options {
    /// What every sandbox of it may do.
    pub policy: Policy,
    /// How many are kept prepared.
    pub prepared: usize,
    /// How many may run at once.
    pub running: usize,
    /// How many requests may wait for one.
    pub waiting: usize,
    /// How many requests of one caller may run and wait at once.
    pub per_caller: usize,
    /// How many requests of one caller are taken in a minute; `None` is as many as come.
    pub per_minute: Option<usize>,
    /// How many bytes of each output the report keeps.
    pub keep_output: usize,
    /// The state directory: there it is written down what the sandboxes have on the host, for who comes after a server that was
    /// killed. `None` is nowhere.
    pub state: Option<PathBuf>,
}

#[derive(Default)]
struct Caller {
    at_once: usize,
    /// When the requests of the last minute came.
    minute: VecDeque<Instant>,
}

#[derive(Default)]
struct State {
    ready: VecDeque<mpsc::Sender<Task>>,
    preparing: usize,
    running: usize,
    /// Requests that wait for a sandbox.
    queued: usize,
    /// Threads, each of which attends to one sandbox after the other.
    threads: usize,
    stopping: bool,
    /// Why the last one could not be prepared.
    failure: Option<Error>,
    /// By user ID.
    callers: HashMap<u32, Caller>,
}

/// A pool.
pub struct Pool {
    options: Options,
    state: Mutex<State>,
    changed: Condvar,
    /// Readable when all that runs is to be ended.
    end: EventFd,
    /// Readable when nothing is left.
    done: EventFd,
    metrics: Metrics,
    ledger: Option<Ledger>,
}

const MINUTE: Duration = Duration::from_secs(60);

fn busy(what: String) -> Error {
    Error::new(Kind::Status, format!("busy: {what}")).hint("try again later")
}

impl Pool {
    /// Prepares the first sandboxes, and returns when one waits.
    ///
    /// # Errors
    /// What is wrong with the policy, or what keeps sandboxes from being made here.
    pub fn start(options: Options) -> Result<Arc<Pool>> {
        if options.policy.process.terminal {
            return Err(Error::invalid("a sandbox of a pool has no terminal: its input and output are the client's"));
        }
        if options.policy.id.is_some() {
            return Err(Error::invalid("the sandboxes of a pool are many: leave the ID out"));
        }
        if options.prepared == 0 || options.running < options.prepared {
            return Err(Error::invalid(
                "a pool takes at least one prepared sandbox, and may run as many as are prepared",
            ));
        }
        let event = || EventFd::from_value_and_flags(0, EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK);
        let (end, done) = event().and_then(|end| Ok((end, event()?))).during(|| "make an eventfd".into())?;
        let metrics = Metrics::default();
        let ledger = options.state.as_deref().and_then(control::ledger);
        let (state, changed) = (Mutex::default(), Condvar::new());
        let pool = Arc::new(Pool { options, state, changed, end, done, metrics, ledger });
        let mut state = pool.lock();
        for _ in 0..pool.options.prepared {
            pool.prepare(&mut state);
        }
        state = pool.wait_while(state, |state| state.ready.is_empty() && state.preparing > 0);
        match state.failure.clone().filter(|_| state.ready.is_empty()) {
            Some(error) => {
                drop(state);
                pool.stop();
                pool.wait();
                Err(error)
            }
            None => {
                drop(state);
                Ok(pool)
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wait_while<'l>(
        &self,
        state: MutexGuard<'l, State>,
        until: impl FnMut(&mut State) -> bool,
    ) -> MutexGuard<'l, State> {
        self.changed.wait_while(state, until).unwrap_or_else(PoisonError::into_inner)
    }

    /// Starts a thread that prepares a sandbox.
    fn prepare(self: &Arc<Pool>, state: &mut State) {
        state.preparing += 1;
        state.threads += 1;
        let pool = self.clone();
        let started = std::thread::Builder::new().name("brig-pool".into()).spawn(move || worker::attend(&pool));
        if let Err(error) = started {
            state.preparing -= 1;
            state.threads -= 1;
            state.failure = Some(Error::no_thread("start a thread", &error));
            self.changed.notify_all();
        }
    }

    /// Counts a request of a caller in, unless there are too many.
    fn admit(&self, caller: u32) -> Result<Place<'_>> {
        let mut state = self.lock();
        let of = state.callers.entry(caller).or_default();
        if of.at_once >= self.options.per_caller {
            let most = self.options.per_caller;
            return Err(busy(format!("{most} requests of user {caller} run or wait, more are not taken at once")));
        }
        if let Some(most) = self.options.per_minute {
            let now = Instant::now();
            while of.minute.front().is_some_and(|at| now.duration_since(*at) >= MINUTE) {
                of.minute.pop_front();
            }
            if of.minute.len() >= most {
                return Err(busy(format!("{most} requests a minute are taken of user {caller}")));
            }
            of.minute.push_back(now);
        }
        of.at_once += 1;
        Ok(Place { pool: self, caller })
    }

    /// Takes a sandbox that waits, or waits for one.
    fn take(self: &Arc<Pool>) -> Result<mpsc::Sender<Task>> {
        let mut state = self.lock();
        if state.ready.is_empty() {
            if state.queued >= self.options.waiting {
                return Err(busy(format!("{} requests wait for a sandbox", state.queued)));
            }
            state.queued += 1;
            if state.preparing < state.queued && state.running + state.preparing < self.options.running {
                self.prepare(&mut state);
            }
            let some = |s: &State| s.preparing + s.running > 0;
            state = self.wait_while(state, |s| s.ready.is_empty() && some(s) && !s.stopping);
            state.queued -= 1;
        }
        if state.stopping {
            return Err(Error::new(Kind::Gone, "the server stops"));
        }
        let Some(ready) = state.ready.pop_front() else {
            return Err(state.failure.clone().unwrap_or_else(|| busy("no sandbox could be prepared".into())));
        };
        state.running += 1;
        // Before somebody has to wait; the thread that runs this one prepares the next only when it is done.
        if state.ready.is_empty() && state.preparing == 0 && state.running < self.options.running {
            self.prepare(&mut state);
        }
        Ok(ready)
    }

    /// Takes no more requests and gives up the sandboxes that wait; those that run may end by themselves.
    fn stop(&self) {
        let mut state = self.lock();
        state.stopping = true;
        state.ready.clear();
        self.changed.notify_all();
    }

    /// Ends what still runs.
    fn end(&self) {
        let _ = self.end.write(1);
    }

    /// Waits until nothing is left of the pool.
    fn wait(&self) {
        drop(self.wait_while(self.lock(), |state| state.threads > 0));
        if let Some(ledger) = &self.ledger {
            ledger.close();
        }
    }

    /// What it has done so far, for Prometheus.
    fn numbers(&self) -> String {
        let state = self.lock();
        let now = (state.ready.len(), state.running, state.queued);
        drop(state);
        self.metrics.text(now)
    }
}

/// A request that is counted.
struct Place<'p> {
    pool: &'p Pool,
    caller: u32,
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        let mut state = self.pool.lock();
        if let Some(caller) = state.callers.get_mut(&self.caller) {
            caller.at_once -= 1;
            if caller.at_once == 0 && caller.minute.is_empty() {
                state.callers.remove(&self.caller);
            }
        }
    }
}
