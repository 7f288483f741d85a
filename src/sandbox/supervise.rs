//! One sandbox from its start to its report: launches the plan, then attends to it from one loop.

use super::cgroups::{self, Cgroups};
use super::compile::{self, Compiled, Overlay, Walls};
use super::diff;
use super::event::{Event, Output};
use super::live::Live;
use super::orphans::Orphans;
use super::policy::{Limits, Policy};
use super::record::Recorder;
use super::report::{Captured, Finding, Mode, Report};
use super::start;
pub use super::start::{Leftover, new_id};
use super::watch::Watch;
use crate::error::{Context, Error, Kind, Result};
use crate::sys::init::Ending;
use crate::sys::{Errno, files, init, timer};
use nix::fcntl::OFlag;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::statfs::fstatfs;
use std::collections::BTreeMap;
use std::ffi::CString;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

/// How many changes of an overlay are listed.
const CHANGES_MAX: usize = 10_000;

/// What a standard stream of the program is.
#[derive(Debug, Default)]
pub enum Stream {
    /// The caller's own.
    #[default]
    Inherit,
    /// `/dev/null`.
    Null,
    /// Output: read by the supervisor, told as events, and kept up to a limit.
    Capture,
    /// This file.
    File(OwnedFd),
}

/// What is to be run, and how it is looked after.
#[derive(Debug, Default)]
pub struct Job {
    /// What it may do.
    pub policy: Policy,
    /// The program and its arguments.
    pub command: Vec<String>,
    /// The program is named by [`Attendant::assignment`] instead, once all else is there.
    pub later: bool,
    /// Standard input, output and error.
    pub streams: [Stream; 3],
    /// How many bytes of each captured stream are kept.
    pub keep_output: usize,
    /// Count what is used; without it the report has only what costs nothing.
    pub measure: bool,
    /// How often use is looked at while it runs, if it is measured; `None` is never.
    pub sample: Option<Duration>,
    /// List what was changed in the writable layer.
    pub list_changes: bool,
    /// Make those changes for real when the program exits with status 0.
    pub commit: bool,
    /// What static analysis found.
    pub findings: Vec<Finding>,
}

/// What a sandbox that has been prepared is to run.
#[derive(Debug, Clone, Default)]
pub struct Assignment {
    /// The program and its arguments.
    pub command: Vec<String>,
    /// Variables besides those of the policy.
    pub env: BTreeMap<String, String>,
    /// Its limits: of those in the policy, memory, swap, CPU, processes and time-out can have changed.
    pub limits: Limits,
}

/// Who attends to a sandbox besides: watches it, and other sources of orders.
pub trait Attendant {
    /// What is to be polled for `POLLIN`.
    fn sources(&self) -> Vec<BorrowedFd<'_>> {
        Vec::new()
    }
    /// A source, by its place in [`Attendant::sources`], is ready. An error is told as a note.
    ///
    /// # Errors
    /// Whatever is wrong with an order.
    fn ready(&mut self, source: usize, live: &mut Live) -> Result<()> {
        let _ = (source, live);
        Ok(())
    }
    /// This is on the host from now on.
    fn made(&mut self, left: &Leftover) {
        let _ = left;
    }
    /// What is to be polled for `POLLOUT`.
    fn sinks(&self) -> Vec<BorrowedFd<'_>> {
        Vec::new()
    }
    /// One of the sinks takes more.
    fn drain(&mut self) {}
    /// Something happened.
    fn event(&mut self, event: &Event) {
        let _ = event;
    }
    /// Whether captured output is to be read now: what is not read fills its pipe, and then the program waits. Looked at again
    /// after each source that was ready.
    fn takes_output(&self) -> bool {
        true
    }
    /// What a sandbox is to run that was prepared ([`Job::later`]); it waits as long as this takes, and time counts from here.
    ///
    /// # Errors
    /// The sandbox is given up.
    fn assignment(&mut self) -> Result<Assignment> {
        Err(Error::invalid("nobody names a program for this sandbox"))
    }
    /// The report of a sandbox that was prepared, while what it leaves is still being removed.
    fn reported(&mut self, report: &Report) {
        let _ = report;
    }
    /// The sandbox is set up and its program about to run.
    ///
    /// # Errors
    /// The sandbox is given up.
    fn about_to_run(&mut self) -> Result<()> {
        Ok(())
    }
    /// Whether this process has nothing else to do, and no other children to come: then what is orphaned is the sandbox's.
    fn is_alone(&self) -> bool {
        false
    }
    /// A socket for the master of the program's terminal, if it is to have one.
    ///
    /// # Errors
    /// As socketpair(2).
    fn console(&mut self) -> Result<Option<OwnedFd>> {
        Ok(None)
    }
}

/// Nobody in particular.
pub struct Nobody;

impl Attendant for Nobody {}

/// Runs a sandbox to its end.
///
/// # Errors
/// The policy is wrong, or the program could not be started; nothing is left then.
pub fn run(mut job: Job, attendant: &mut dyn Attendant) -> Result<Report> {
    if job.command.is_empty() {
        return Err(Error::invalid("no command: name a program to run, after --"));
    }
    start::complete(&mut job.policy);
    start::check(&job.policy)?;
    let id = job.policy.id.clone().unwrap_or_else(new_id);
    let mut walls = Walls::best();
    let mut notes = Vec::new();
    loop {
        let orphans = (walls.mode == Mode::Confined && attendant.is_alone()).then(Orphans::catch).flatten();
        match start::start(&mut job, &id, walls, &mut notes, attendant) {
            Ok(started) => return attend(job, id, started, notes, attendant, orphans.as_ref()),
            Err(error) => match start::weaker(&error, walls) {
                Some((next, _)) if !start::network_holds(&job.policy, next) => {
                    let what =
                        "the network can't be closed: no network namespace is to be had, and the policy gives sockets";
                    return Err(error.context(what).hint("--net host goes on with all of the network"));
                }
                Some((next, why)) if job.policy.weaker_nested => {
                    notes.push(format!("{why} ({error})"));
                    walls = next;
                }
                // Its own remedy is the better one.
                _ if error.remedy().is_some() => return Err(error),
                _ => return Err(notes.into_iter().fold(error, |error, note| error.hint(note))),
            },
        }
    }
}

/// A sandbox whose program runs.
pub(super) struct Started {
    pub compiled: Compiled,
    pub live: Live,
    pub recorder: Option<Recorder>,
    pub layer: Option<OwnedFd>,
    /// How the program ends, from its init.
    pub ending: OwnedFd,
    /// Captured standard output and error.
    pub outputs: [Option<OwnedFd>; 2],
    pub placeholders: start::Placeholders,
}

/// What is kept of a captured stream.
#[derive(Default)]
struct Kept {
    bytes: Vec<u8>,
    all: u64,
}

impl Kept {
    fn captured(&self) -> Captured {
        Captured {
            text: String::from_utf8_lossy(&self.bytes).into_owned(),
            bytes: self.all,
            truncated: self.all > self.bytes.len() as u64,
        }
    }
}

/// The sources of the loop, in the order in which they are looked at.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Source {
    Ending,
    Timeout,
    Sample,
    Recorder,
    Watch,
    Proxy,
    Output(usize),
    Attendant(usize),
    Sink,
}

#[allow(clippy::too_many_lines, reason = "one loop with one arm a source")]
fn attend(
    job: Job,
    id: String,
    started: Started,
    mut notes: Vec<String>,
    attendant: &mut dyn Attendant,
    orphans: Option<&Orphans>,
) -> Result<Report> {
    let Started { mut compiled, mut live, mut recorder, layer, ending, mut outputs, placeholders } = started;
    notes.append(&mut compiled.notes);
    let begun = Event::Started {
        at_us: 0,
        id: id.clone(),
        pid: live.program_pid(),
        command: job.command.clone(),
        mode: live.mode,
    };
    attendant.event(&begun);
    for finding in &job.findings {
        attendant.event(&Event::Finding { at_us: 0, finding: finding.clone() });
    }
    for text in &notes {
        attendant.event(&Event::Note { at_us: live.at_us(), text: text.clone() });
    }
    live.set_timer()?;
    let sampler = match job.sample {
        Some(interval) if job.measure && live.can_sample() => {
            Some(timer::every(interval).during(|| "set the sampling timer".into())?)
        }
        _ => None,
    };
    let mut kept = [Kept::default(), Kept::default()];
    let mut ended: Option<Option<Ending>> = None;
    while ended.is_none() || outputs.iter().any(Option::is_some) {
        let proxy = live.proxy_events();
        // Of a program that has ended there is no more than what its pipes hold.
        let takes_output = ended.is_some() || attendant.takes_output();
        let mut sources = Vec::with_capacity(8);
        if ended.is_none() {
            sources.push((Source::Ending, ending.as_fd()));
            sources.extend(live.timer().map(|fd| (Source::Timeout, fd)));
            sources.extend(sampler.as_ref().map(|fd| (Source::Sample, fd.as_fd())));
        }
        if ended.is_none() {
            let others = attendant.sources();
            sources.extend(others.into_iter().enumerate().map(|(n, fd)| (Source::Attendant(n), fd)));
            sources.extend(attendant.sinks().into_iter().map(|fd| (Source::Sink, fd)));
        }
        sources.extend(recorder.as_ref().map(|r| (Source::Recorder, r.as_fd())));
        sources.extend(live.watch.as_ref().map(|watch| (Source::Watch, watch.as_fd())));
        sources.extend(proxy.as_ref().map(|fd| (Source::Proxy, fd.as_fd())));
        for (number, output) in outputs.iter().enumerate().filter(|_| takes_output) {
            sources.extend(output.as_ref().map(|fd| (Source::Output(number), fd.as_fd())));
        }
        let wanted = |source| if source == Source::Sink { PollFlags::POLLOUT } else { PollFlags::POLLIN };
        let mut polled: Vec<_> = sources.iter().map(|(source, fd)| PollFd::new(*fd, wanted(*source))).collect();
        match poll(&mut polled, PollTimeout::NONE) {
            Err(Errno::EINTR) => continue,
            other => other.during(|| "poll".into())?,
        };
        // With the last process that has the filter there is nobody left to be heard.
        let silent = polled.iter().zip(&sources).any(|(p, (source, _))| *source == Source::Recorder && hung_up(p));
        let ready: Vec<Source> = polled
            .iter()
            .zip(&sources)
            .filter(|(p, _)| p.revents().is_some_and(|r| !r.is_empty()))
            .map(|(_, (source, _))| *source)
            .collect();
        drop(polled);
        drop(sources);
        if silent {
            live.violations.append(&mut recorder.take().map(|r| r.violations()).unwrap_or_default());
        }
        for source in ready {
            match source {
                Source::Ending => {
                    let told = init::ending(ending.as_fd()).ok().flatten();
                    // Its init has died without a word, and with it who would have ended the rest.
                    if let (None, Some(orphans)) = (told, orphans) {
                        orphans.end(live.child.pid);
                    }
                    ended = Some(told);
                }
                Source::Timeout => live.time_is_up(),
                Source::Sample => {
                    let _ = sampler.as_ref().map(|fd| timer::passed(fd.as_fd()));
                    if let Some(sample) = live.sample() {
                        attendant.event(&Event::Sample(sample));
                    }
                }
                Source::Recorder => match recorder.as_mut().map(Recorder::hear) {
                    Some(Ok(Some(violation))) if !start::ignored(&job.policy, &violation) => {
                        attendant.event(&Event::Violation(violation));
                    }
                    Some(Err(_)) => {
                        live.violations.append(&mut recorder.take().map(|r| r.violations()).unwrap_or_default());
                    }
                    _ => {}
                },
                Source::Watch => told(&mut live, &job, attendant),
                Source::Proxy => drop(live.hear_proxy(&mut |event| attendant.event(&event))),
                Source::Output(number) => {
                    let mut piece = vec![0; 65536];
                    let read = outputs[number].as_ref().map_or(Ok(0), |fd| files::read(fd.as_fd(), &mut piece));
                    match read {
                        Ok(length @ 1..) => {
                            piece.truncate(length);
                            let kept = &mut kept[number];
                            kept.all += length as u64;
                            let room = job.keep_output.saturating_sub(kept.bytes.len()).min(length);
                            kept.bytes.extend_from_slice(&piece[..room]);
                            let output = Output { at_us: live.at_us(), data: piece };
                            attendant.event(&if number == 0 { Event::Stdout(output) } else { Event::Stderr(output) });
                        }
                        _ => outputs[number] = None,
                    }
                }
                Source::Sink => attendant.drain(),
                Source::Attendant(number) => {
                    if let Err(error) = attendant.ready(number, &mut live) {
                        attendant.event(&Event::Note { at_us: live.at_us(), text: error.to_string() });
                    }
                }
            }
        }
        for limit in live.changed.drain(..).collect::<Vec<_>>() {
            attendant.event(&Event::LimitUpdated { at_us: live.at_us(), limit });
        }
    }
    let wall_us = live.at_us();
    // All that was left is being ended by the kernel; the cgroup goes only once it is. How the program has ended is known
    // before, and who has prepared a sandbox is in a hurry.
    let early = job.later && matches!(ended, Some(Some(_)));
    told(&mut live, &job, attendant);
    let mut watch = live.watch.take();
    if let Some(watch) = &mut watch {
        live.violations.append(&mut watch.stop());
    }
    let reaped = if early { None } else { live.reap() };
    live.stop_proxies(&mut |event| attendant.event(&event));
    if let Some(recorder) = recorder {
        live.violations.extend(recorder.violations());
    }
    let mut report = live.report(&job, &id, ended.flatten(), reaped, wall_us);
    // What was full and is not any more has left no trace.
    let is_full = |layer: &OwnedFd| fstatfs(layer).is_ok_and(|found| found.blocks() > 0 && found.blocks_free() == 0);
    if job.policy.files.layer.is_none() && layer.as_ref().is_some_and(is_full) {
        report.limits.iter_mut().filter(|limit| limit.name == "disk").for_each(|limit| limit.hit = Some(true));
    }
    let outcome = report.outcome;
    attendant.event(&Event::Exited { at_us: wall_us, outcome, status: report.status });
    for (number, slot) in [&mut report.stdout, &mut report.stderr].into_iter().enumerate() {
        *slot = matches!(job.streams[number + 1], Stream::Capture).then(|| kept[number].captured());
    }
    report.violations.retain(|violation| !start::ignored(&job.policy, violation));
    if let Some(layer) = layer.filter(|_| job.list_changes || job.commit) {
        let commit = job.commit && report.status == 0;
        match changes(&layer, &compiled.overlays, live.mode, commit) {
            Ok(found) => report.changes = found,
            Err(error) => notes.push(format!("the writable layer: {error}")),
        }
    }
    report.findings = job.findings;
    if early {
        report.notes.clone_from(&notes);
        attendant.reported(&report);
        live.reap();
    }
    notes.extend(placeholders.remove());
    if let Err(error) = live.record.remove() {
        notes.push(error.to_string());
    }
    drop(watch);
    report.notes = notes;
    Ok(report)
}

/// Whether the other side is gone, and left nothing.
fn hung_up(polled: &PollFd) -> bool {
    let gone = PollFlags::POLLHUP | PollFlags::POLLERR;
    polled.revents().is_some_and(|r| r.intersects(gone) && !r.contains(PollFlags::POLLIN))
}

/// Tells what was opened although it is hidden.
fn told(live: &mut Live, job: &Job, attendant: &mut dyn Attendant) {
    for violation in live.watch.as_mut().map(Watch::hear).unwrap_or_default() {
        if !start::ignored(&job.policy, &violation) {
            attendant.event(&Event::Violation(violation));
        }
    }
}

/// What was changed, by overlay; with `commit` it is changed for real, too.
fn changes(layer: &OwnedFd, overlays: &[Overlay], mode: Mode, commit: bool) -> Result<Vec<super::report::Change>> {
    let directory = OFlag::O_RDONLY | OFlag::O_DIRECTORY;
    let marks = if mode == Mode::UserNamespace { diff::Marks::User } else { diff::Marks::Trusted };
    let mut all = Vec::new();
    for overlay in overlays {
        let c = |text: Vec<u8>| CString::new(text).map_err(|_| Error::invalid("a path holds a NUL byte"));
        let upper = c(format!("{}/upper", overlay.name).into())?;
        let upper = files::open(Some(layer.as_fd()), &upper, directory).during(|| "open it".into())?;
        let lower = c(overlay.lower.as_os_str().as_encoded_bytes().to_vec())?;
        let lower = files::open(None, &lower, directory).during(|| format!("open {}", overlay.lower.display()))?;
        let seen_as = overlay.target.to_string_lossy();
        if commit {
            all.extend(diff::commit(upper.as_fd(), lower.as_fd(), marks, &seen_as)?);
        } else {
            all.extend(diff::changes(upper.as_fd(), lower.as_fd(), marks, &seen_as, CHANGES_MAX)?.list);
        }
    }
    Ok(all)
}

/// Compiles a policy without running anything: the OCI spec, for `--print-spec`.
///
/// # Errors
/// As [`run`].
pub fn spec(policy: &Policy, command: &[String]) -> Result<crate::spec::Spec> {
    let mut policy = policy.clone();
    start::complete(&mut policy);
    start::check(&policy)?;
    let id = policy.id.clone().unwrap_or_else(new_id);
    Ok(compile::compile(&policy, command, &id, Walls::best(), false)?.spec)
}

/// How long since the start, for who has only the instant.
pub(super) fn micros(since: Instant) -> u64 {
    since.elapsed().as_micros() as u64
}

/// The cgroups of a sandbox that is about to start, or none and why.
pub(super) fn cgroups(compiled: &Compiled, id: &str, measure: bool) -> std::result::Result<Cgroups, Error> {
    let made = cgroups::make(&compiled.spec, id, measure)?;
    let wants = compiled.spec.linux().resources.is_some();
    if wants && made.record.groups.is_empty() && made.scope.is_none() {
        return Err(Error::new(Kind::Status, "this user may make no cgroup"));
    }
    Ok(made)
}
