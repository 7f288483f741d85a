//! A thread of a pool: it prepares a sandbox, waits for a task, attends to that, and begins anew.

use super::Pool;
use super::metrics::Metrics;
use crate::error::{Context, Error, Kind, Result};
use crate::sandbox::event::Event;
use crate::sandbox::live::Live;
use crate::sandbox::policy::Policy;
use crate::sandbox::queue::Queue;
use crate::sandbox::report::Report;
use crate::sandbox::supervise::{self, Assignment, Attendant, Job, Leftover, Stream};
use nix::sys::epoll::Epoll;
use nix::sys::memfd::{MFdFlags, memfd_create};
use std::fs::File;
use std::io::{Seek, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError, mpsc};
use std::time::Instant;

/// What a client wants run.
pub(super) struct Task {
    pub assignment: Assignment,
    pub stdin: Vec<u8>,
    pub ticket: Arc<Ticket>,
    /// Readable when the client has gone.
    pub client: Option<Epoll>,
    pub begun: Instant,
}

/// What the client's side waits with.
pub(super) struct Ticket {
    pub queue: Queue,
    stream: bool,
    /// Nobody waits any more: an answer could not be written. Its socket may be closed before the worker sees it hung up.
    gone: AtomicBool,
    result: Mutex<Option<Result<Report>>>,
}

impl Ticket {
    /// A ticket; with `stream` the events are to be read from its queue.
    pub fn new(stream: bool) -> Result<Ticket> {
        let queue = Queue::new().during(|| "make an eventfd".into())?;
        Ok(Ticket { queue, stream, gone: AtomicBool::new(false), result: Mutex::new(None) })
    }

    /// The client is gone: what runs for it is to end.
    pub fn give_up(&self) {
        self.gone.store(true, Ordering::Release);
        self.queue.ignore();
    }

    /// Once the queue is over.
    pub fn result(&self) -> Result<Report> {
        let result = self.result.lock().unwrap_or_else(PoisonError::into_inner).take();
        result.unwrap_or_else(|| Err(Error::new(Kind::Gone, "the sandbox is gone without a word")))
    }
}

impl Task {
    fn finish(&self, result: Result<Report>, metrics: &Metrics) {
        if self.ticket.queue.is_over() {
            return;
        }
        metrics.ended(&result, self.begun.elapsed());
        *self.ticket.result.lock().unwrap_or_else(PoisonError::into_inner) = Some(result);
        self.ticket.queue.end();
    }
}

impl Drop for Task {
    /// However it came to an end, nobody waits for ever.
    fn drop(&mut self) {
        self.ticket.queue.end();
    }
}

/// Prepares and attends until no more are wanted.
pub(super) fn attend(pool: &Arc<Pool>) {
    loop {
        let (result, task) = one(pool);
        let mut state = pool.lock();
        if task.is_some() {
            state.running -= 1;
        } else {
            state.preparing -= 1;
        }
        let failed = match (task, result) {
            (Some(task), result) => {
                drop(state);
                task.finish(result, &pool.metrics);
                state = pool.lock();
                false
            }
            (None, Err(error)) => {
                if !state.stopping {
                    pool.metrics.unprepared();
                    state.failure = Some(error);
                }
                true
            }
            // No program runs without a task.
            (None, Ok(_)) => true,
        };
        let enough = state.ready.len() + state.preparing >= pool.options.prepared.max(state.queued);
        if failed || enough || state.stopping {
            state.threads -= 1;
            pool.changed.notify_all();
            return;
        }
        state.preparing += 1;
        pool.changed.notify_all();
    }
}

/// One sandbox from its preparation to its end.
fn one(pool: &Arc<Pool>) -> (Result<Report>, Option<Task>) {
    let input = match memfd_create(c"brig-stdin", MFdFlags::MFD_CLOEXEC).map(File::from) {
        Ok(input) => input,
        Err(errno) => return (Err(Error::os("make room for a standard input", errno)), None),
    };
    let stdin = match input.try_clone().during(|| "copy an fd".into()) {
        Ok(copy) => Stream::File(copy.into()),
        Err(error) => return (Err(error), None),
    };
    let id = supervise::new_id();
    let job = Job {
        policy: Policy { id: Some(id.clone()), ..pool.options.policy.clone() },
        // Named later.
        command: vec!["-".into()],
        later: true,
        streams: [stdin, Stream::Capture, Stream::Capture],
        keep_output: pool.options.keep_output,
        ..Job::default()
    };
    let mut worker = Worker { pool, id, input, task: None, ended: false };
    let result = supervise::run(job, &mut worker);
    if let Some(ledger) = &pool.ledger {
        ledger.strike(&worker.id);
    }
    (result, worker.task)
}

struct Worker<'p> {
    pool: &'p Arc<Pool>,
    id: String,
    input: File,
    task: Option<Task>,
    /// It has been asked to end.
    ended: bool,
}

/// Who may have something to say.
#[derive(Clone, Copy)]
enum Source {
    Queue,
    Client,
    End,
}

impl Worker<'_> {
    fn named(&self) -> impl Iterator<Item = (Source, BorrowedFd<'_>)> {
        let queue = self.task.iter().map(|task| (Source::Queue, task.ticket.queue.wake()));
        let client = self.task.iter().filter_map(|task| Some((Source::Client, task.client.as_ref()?.0.as_fd())));
        let end = (Source::End, self.pool.end.as_fd());
        queue.chain(client.chain([end]).filter(|_| !self.ended))
    }
}

impl Attendant for Worker<'_> {
    fn sources(&self) -> Vec<BorrowedFd<'_>> {
        self.named().map(|(_, fd)| fd).collect()
    }

    fn ready(&mut self, source: usize, live: &mut Live) -> Result<()> {
        let source = self.named().nth(source).map(|(source, _)| source);
        match (source, &self.task) {
            (Some(Source::Queue), Some(task)) => {
                task.ticket.queue.roused();
                if task.ticket.gone.load(Ordering::Acquire) {
                    self.ended = true;
                    live.kill(libc::SIGKILL)?;
                }
            }
            (Some(Source::Client | Source::End), _) => {
                self.ended = true;
                live.kill(libc::SIGKILL)?;
            }
            _ => {}
        }
        Ok(())
    }

    fn made(&mut self, left: &Leftover) {
        if let Some(ledger) = &self.pool.ledger {
            ledger.enter(&self.id, left);
        }
    }

    fn event(&mut self, event: &Event) {
        if let Some(task) = self.task.as_ref().filter(|task| task.ticket.stream) {
            task.ticket.queue.put(event, false);
        }
    }

    fn takes_output(&self) -> bool {
        self.task.as_ref().is_none_or(|task| task.ticket.queue.has_room())
    }

    fn assignment(&mut self) -> Result<Assignment> {
        let (sender, receiver) = mpsc::channel();
        let stops = || Error::new(Kind::Gone, "the pool stops");
        {
            let mut state = self.pool.lock();
            if state.stopping {
                return Err(stops());
            }
            state.ready.push_back(sender);
            state.preparing -= 1;
            self.pool.changed.notify_all();
        }
        let Ok(task) = receiver.recv() else {
            // Counted as before, for who takes it off.
            self.pool.lock().preparing += 1;
            return Err(stops());
        };
        let assignment = task.assignment.clone();
        let write = self.input.write_all(&task.stdin).and_then(|()| self.input.rewind());
        self.task = Some(task);
        write.during(|| "write the standard input".into())?;
        Ok(assignment)
    }

    fn reported(&mut self, report: &Report) {
        if let Some(task) = &self.task {
            task.finish(Ok(report.clone()), &self.pool.metrics);
        }
    }
}
