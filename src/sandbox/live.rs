//! A sandbox that runs: what can be asked of it and changed, and what it comes to in the end.

use super::cgroups;
use super::event::Event;
use super::net::{Event as NetEvent, Listeners, Options, Proxies, Rules, Shared, Stage};
use super::policy::{Network, Policy};
use super::profile;
use super::record::KINDS_MAX;
use super::report::{Connection, LimitUsed, Mode, Outcome, Report, Sample, Violation};
use super::supervise::{Job, micros};
use super::units::{Bytes, Percent, Span};
use super::watch::Watch;
use crate::error::{Context, Error, Kind, Result};
use crate::prim::cgroup::Record;
use crate::prim::cgroup::stats::Stats;
use crate::sys::init::{self, Ending};
use crate::sys::process::{self, Child, Ended};
use crate::sys::timer;
use nix::sys::eventfd::{EfdFlags, EventFd};
use serde::{Deserialize, Serialize};
use std::net::TcpListener;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

/// How many samples are kept: when there are twice as many, every other one goes.
const SAMPLES_MAX: usize = 4096;

/// How many connections are kept for the report.
const CONNECTIONS_MAX: usize = 10_000;

/// How many events of the proxies are heard at once.
const EVENTS_AT_ONCE: usize = 256;

/// What may be changed while a sandbox runs; what is absent stays.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Change {
    /// Memory, in bytes.
    pub memory: Option<Bytes>,
    /// Swap on top of it.
    pub swap: Option<Bytes>,
    /// Share of one CPU.
    pub cpu: Option<Percent>,
    /// Processes and threads.
    pub pids: Option<u64>,
    /// Wall-clock time, counted from the start.
    pub timeout: Option<Span>,
    /// Domains allowed from now on, in place of the list so far.
    pub allow_domains: Option<Vec<String>>,
    /// Domains denied from now on, in place of the list so far.
    pub deny_domains: Option<Vec<String>>,
}

/// A sandbox that runs.
pub struct Live {
    pub(super) mode: Mode,
    pub(super) child: Child,
    pub(super) record: Record,
    pub(super) violations: Vec<Violation>,
    /// What tells of hidden paths that are opened.
    pub(super) watch: Option<Watch>,
    /// Limits that were changed and not yet told.
    pub(super) changed: Vec<LimitUsed>,
    policy: Policy,
    program: Option<Child>,
    limits: Vec<LimitUsed>,
    started: Instant,
    timer: Option<OwnedFd>,
    /// Why it was ended, if it was from here.
    cause: Option<Outcome>,
    samples: Vec<Sample>,
    sampled: (u128, u64),
    rules: Option<Shared>,
    proxies: Option<Proxies>,
    heard: Option<(mpsc::Receiver<NetEvent>, Arc<EventFd>)>,
    connections: Vec<Connection>,
    reaped: bool,
}

/// The program's processes of those in the cgroup: one is the sandbox's own init.
fn without_init(pids: u64) -> u64 {
    pids.saturating_sub(1)
}

impl Drop for Live {
    /// Nobody looks after it any more: a failure, or a panic of who watched.
    fn drop(&mut self) {
        if !self.reaped {
            let _ = self.end();
            self.reap();
            let _ = self.record.remove();
        }
    }
}

impl Live {
    pub(super) fn new(
        policy: Policy,
        mode: Mode,
        child: Child,
        program: Option<Child>,
        record: Record,
        limits: Vec<LimitUsed>,
        started: Instant,
    ) -> Live {
        Live {
            mode,
            child,
            record,
            violations: Vec::new(),
            watch: None,
            changed: Vec::new(),
            policy,
            program,
            limits,
            started,
            timer: None,
            cause: None,
            samples: Vec::new(),
            sampled: (0, 0),
            rules: None,
            proxies: None,
            heard: None,
            connections: Vec::new(),
            reaped: false,
        }
    }

    /// Waits until all of it has ended.
    pub(super) fn reap(&mut self) -> Option<(Ended, Ending)> {
        self.reaped = true;
        self.child.wait_counted().ok().map(|(ended, usage)| (ended, init::counted(&usage)))
    }

    /// Microseconds since the start.
    pub fn at_us(&self) -> u64 {
        micros(self.started)
    }

    /// The program's process ID on the host.
    pub fn program_pid(&self) -> i32 {
        self.program.as_ref().unwrap_or(&self.child).pid
    }

    /// Sends the program a signal; SIGKILL ends all that is in the sandbox.
    ///
    /// # Errors
    /// As pidfd_send_signal(2); [`Kind::Gone`] when it has ended.
    pub fn kill(&mut self, signal: i32) -> Result<()> {
        let to = match (&self.program, signal) {
            (Some(program), other) if other != libc::SIGKILL => program,
            _ => {
                self.cause.get_or_insert(Outcome::Killed { signal });
                return self.end();
            }
        };
        process::pidfd_send_signal(to.pidfd.as_fd(), signal).during(|| format!("send signal {signal}"))
    }

    /// Ends all processes at once: with its first process the kernel ends a PID namespace.
    fn end(&self) -> Result<()> {
        let signal = if self.mode == Mode::Confined { init::end_signal() } else { libc::SIGKILL };
        match self.child.signal(signal) {
            Err(nix::errno::Errno::ESRCH) => Ok(()),
            other => other.during(|| "end the sandbox".into()),
        }
    }

    /// Changes limits and domains. All or nothing of the limits.
    ///
    /// # Errors
    /// What is wrong with the change, or what the kernel refuses.
    pub fn update(&mut self, change: &Change) -> Result<()> {
        let mut next = self.policy.clone();
        let limits = &mut next.limits;
        limits.memory = change.memory.or(limits.memory);
        limits.swap = change.swap.or(limits.swap);
        if change.cpu.is_some() {
            (limits.cpu, limits.cpu_quota) = (change.cpu, None);
        }
        limits.pids = change.pids.or(limits.pids);
        limits.timeout = change.timeout.or(limits.timeout);
        if let Some(list) = &change.allow_domains {
            next.network.allow.clone_from(list);
        }
        if let Some(list) = &change.deny_domains {
            next.network.deny.clone_from(list);
        }
        let domains = change.allow_domains.is_some() || change.deny_domains.is_some();
        if domains && self.rules.is_none() {
            return Err(Error::new(
                Kind::Status,
                "the sandbox was started without a network by domain, which can't be added",
            )
            .hint("start it with --net domains"));
        }
        super::start::check(&next)?;
        if change.memory.is_some() || change.swap.is_some() || change.cpu.is_some() || change.pids.is_some() {
            cgroups::update(&self.record, &next)?;
        }
        if let (true, Some(rules)) = (domains, &self.rules) {
            rules.replace(Rules::new(&next.network)?);
        }
        self.policy = next;
        if change.timeout.is_some() {
            self.set_timer()?;
        }
        let now = cgroups::limits(&self.policy, &self.record, true);
        for limit in now {
            match self.limits.iter_mut().find(|old| old.name == limit.name) {
                Some(old) if old.value == limit.value => {}
                Some(old) => {
                    old.value.clone_from(&limit.value);
                    self.changed.push(limit);
                }
                None => {
                    self.limits.push(limit.clone());
                    self.changed.push(limit);
                }
            }
        }
        Ok(())
    }

    /// The network as it is now.
    pub fn network(&self) -> &Network {
        &self.policy.network
    }

    pub(super) fn set_timer(&mut self) -> Result<()> {
        self.timer = None;
        if let Some(limit) = self.policy.limits.timeout {
            let left = limit.0.saturating_sub(self.started.elapsed()).max(Duration::from_nanos(1));
            self.timer = Some(timer::every(left).during(|| "/limits/timeout".into())?);
        }
        Ok(())
    }

    pub(super) fn timer(&self) -> Option<BorrowedFd<'_>> {
        self.timer.as_ref().map(AsFd::as_fd)
    }

    pub(super) fn time_is_up(&mut self) {
        self.timer = None;
        self.cause.get_or_insert(Outcome::TimedOut);
        let _ = self.end();
    }

    pub(super) fn can_sample(&self) -> bool {
        !self.record.groups.is_empty()
    }

    pub(super) fn sample(&mut self) -> Option<Sample> {
        let stats = self.record.stats().ok()?;
        let sample = Sample {
            at_us: self.at_us(),
            memory: stats.memory.usage.usage,
            cpu_us: stats.cpu.total / 1000,
            pids: without_init(stats.pids.current),
        };
        self.sampled.0 += u128::from(sample.memory);
        self.sampled.1 += 1;
        if self.samples.len() >= 2 * SAMPLES_MAX {
            let mut odd = false;
            self.samples.retain(|_| {
                odd = !odd;
                odd
            });
        }
        self.samples.push(sample);
        Some(sample)
    }

    /// Serves the proxies on the sandbox's own sockets.
    pub(super) fn serve(&mut self, listeners: Vec<(u16, TcpListener)>) -> Result<()> {
        if listeners.is_empty() {
            return Ok(());
        }
        let mut served = Listeners::default();
        for (port, listener) in listeners {
            *(if port == super::net::HTTP_PORT { &mut served.http } else { &mut served.socks }) = Some(listener);
        }
        let network = &self.policy.network;
        let options = Options::from(network);
        let rules = Shared::new(Rules::new(network)?);
        let flags = EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK;
        let wake = Arc::new(EventFd::from_value_and_flags(0, flags).during(|| "make an eventfd".into())?);
        let (sender, receiver) = mpsc::channel();
        let waker = wake.clone();
        let sink = move |event| {
            let _ = sender.send(event);
            let _ = waker.write(1);
        };
        let started = Proxies::start(served, rules.clone(), sink, options);
        self.proxies = Some(started.map_err(|error| Error::no_thread("start the proxies", &error))?);
        self.rules = Some(rules);
        self.heard = Some((receiver, wake));
        Ok(())
    }

    /// A copy of the fd that becomes readable when the proxies have something to tell.
    pub(super) fn proxy_events(&self) -> Option<Arc<EventFd>> {
        self.heard.as_ref().map(|(_, wake)| wake.clone())
    }

    /// Hears what the proxies have to tell; true if there may be more.
    pub(super) fn hear_proxy(&mut self, tell: &mut dyn FnMut(Event)) -> bool {
        let Some((receiver, wake)) = &self.heard else { return false };
        let _ = wake.read();
        let mut heard = 0;
        for event in receiver.try_iter().take(EVENTS_AT_ONCE) {
            heard += 1;
            if event.stage == Stage::Begun {
                continue;
            }
            let connection = event.connection(self.started);
            if event.stage == Stage::Denied {
                let mut violation = Violation {
                    at_us: connection.at_us,
                    kind: "network",
                    what: format!("{}:{}", connection.host, connection.port),
                    program: connection.via.to_owned(),
                    pid: 0,
                    count: 1,
                };
                let same = |v: &Violation, other: &Violation| {
                    v.kind == "network" && v.what == other.what && v.program == other.program
                };
                if self.violations.len() >= KINDS_MAX && !self.violations.iter().any(|v| same(v, &violation)) {
                    (violation.what, violation.program) = ("other connections".into(), String::new());
                }
                match self.violations.iter_mut().find(|v| same(v, &violation)) {
                    Some(known) => known.count += 1,
                    None => {
                        self.violations.push(violation.clone());
                        tell(Event::Violation(violation));
                    }
                }
            }
            tell(Event::Connection(connection.clone()));
            if self.connections.len() < CONNECTIONS_MAX {
                self.connections.push(connection);
            }
        }
        // The rest, if there is more, when others have had their turn.
        if heard == EVENTS_AT_ONCE {
            let _ = wake.write(1);
        }
        heard == EVENTS_AT_ONCE
    }

    pub(super) fn stop_proxies(&mut self, tell: &mut dyn FnMut(Event)) {
        if let Some(proxies) = self.proxies.take() {
            proxies.stop();
            while self.hear_proxy(tell) {}
        }
    }

    fn outcome(&self, ending: Option<Ending>, reaped: Option<Ended>, ooms: u64) -> Outcome {
        if let Some(cause) = self.cause {
            return cause;
        }
        let (code, signal) = match (ending, reaped) {
            (Some(ending), _) => (ending.code, ending.signal),
            (None, Some(Ended::Signaled(signal))) => (-1, signal),
            (None, Some(Ended::Exited(code))) => (code, 0),
            (None, None) => (-1, libc::SIGKILL),
        };
        match signal {
            libc::SIGKILL if ooms > 0 => Outcome::OutOfMemory,
            libc::SIGXCPU => Outcome::CpuTime,
            // At the hard limit: it took no heed of the soft one, or the caller's own leaves no room between them.
            libc::SIGKILL if self.cpu_is_used_up(ending) => Outcome::CpuTime,
            0 => Outcome::Exited { code },
            signal => Outcome::Signaled { signal },
        }
    }

    fn cpu_is_used_up(&self, ending: Option<Ending>) -> bool {
        let used = ending.map(|e| e.user_us + e.system_us).unwrap_or_default();
        // The limit counts whole ticks of whoever runs at a tick, which is more than was used.
        self.policy.limits.cpu_time.is_some_and(|limit| used as f64 >= limit.0.as_secs_f64() * 0.9e6)
    }

    /// The report of a sandbox that has ended; its cgroups are still there.
    pub(super) fn report(
        &mut self,
        job: &Job,
        id: &str,
        ending: Option<Ending>,
        reaped: Option<(Ended, Ending)>,
        wall_us: u64,
    ) -> Report {
        let stats = if job.measure { self.record.stats().unwrap_or_default() } else { Stats::default() };
        let counted = ending.or(reaped.map(|(_, counted)| counted)).unwrap_or_default();
        let ooms = self.record.oom_kills().unwrap_or(0);
        let outcome = self.outcome(ending, reaped.map(|(ended, _)| ended), ooms);
        let event = |controller: &str, file: &str, key: &str| -> u64 {
            let path = self.record.path_for(controller).map(|dir| format!("{dir}/{file}"));
            let text = path.and_then(|path| std::fs::read_to_string(path).ok()).unwrap_or_default();
            text.lines().find_map(|line| line.strip_prefix(key)?.trim().parse().ok()).unwrap_or(0)
        };
        for limit in &mut self.limits {
            let told = limit.by.starts_with("cgroup");
            limit.hit = match limit.name {
                "memory" | "swap" if told => Some(ooms > 0),
                "pids" if told => Some(event("pids", "pids.events", "max") > 0),
                "cpu" | "cpu_quota" if told && job.measure => Some(stats.cpu.throttling.throttled_periods > 0),
                "timeout" => Some(outcome == Outcome::TimedOut),
                // Of another process than the program's own, the signal is not seen.
                "cpu_time" if outcome == Outcome::CpuTime => Some(true),
                "file_size" if outcome == (Outcome::Signaled { signal: libc::SIGXFSZ }) => Some(true),
                _ => None,
            };
        }
        let cgroup_cpu = stats.cpu.total > 0;
        let (user, system) = match cgroup_cpu {
            true => (stats.cpu.user / 1000, stats.cpu.kernel / 1000),
            false => (counted.user_us, counted.system_us),
        };
        let peaks = [stats.memory.usage.max, self.samples.iter().map(|s| s.memory).max().unwrap_or(0)];
        let memory_peak = match peaks[0].max(peaks[1]) {
            0 => counted.max_rss * 1024,
            peak => peak,
        };
        let pids = self.samples.iter().map(|s| s.pids).max().unwrap_or(1);
        self.connections.sort_by_key(|c| c.at_us);
        self.violations.sort_by_key(|v| v.at_us);
        Report {
            id: id.to_owned(),
            command: job.command.clone(),
            mode: self.mode,
            profile: job.policy.syscalls.custom.is_none().then(|| profile::effective(&job.policy)),
            started: crate::clock::before(self.started.elapsed()),
            outcome,
            status: outcome.status(),
            wall_us,
            cpu_user_us: user,
            cpu_system_us: system,
            memory_peak,
            memory_average: (self.sampled.1 > 0).then(|| (self.sampled.0 / u128::from(self.sampled.1)) as u64),
            io_read: counted.blocks_in * 512,
            io_written: counted.blocks_out * 512,
            pids_peak: without_init(event("pids", "pids.peak", "")).max(pids),
            limits: self.limits.clone(),
            changes: Vec::new(),
            connections: std::mem::take(&mut self.connections),
            violations: std::mem::take(&mut self.violations),
            findings: Vec::new(),
            samples: std::mem::take(&mut self.samples),
            stdout: None,
            stderr: None,
            notes: Vec::new(),
        }
    }
}
