//! Events on their way from the thread that attends to a sandbox to the one that reads them.

use super::event::{Event, Output};
use nix::sys::eventfd::{EfdFlags, EventFd};
use std::collections::VecDeque;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

/// How much output may wait to be read, in bytes: beyond that the program waits, as it does with a full pipe.
const OUTPUT_MAX: usize = 1 << 20;

/// How many events may wait before samples and connections are left to the report.
const EVENTS_MAX: usize = 10_000;

#[derive(Default)]
struct State {
    events: VecDeque<Event>,
    /// Bytes of output among them.
    bytes: usize,
    /// Nobody reads events any more.
    unread: bool,
    pid: Option<i32>,
    over: bool,
}

/// What the two threads share.
pub(super) struct Queue {
    state: Mutex<State>,
    changed: Condvar,
    /// Readable as long as an event waits, or nothing is to come any more.
    readable: EventFd,
    /// Readable when the attending thread is to look up.
    wake: EventFd,
}

fn output(event: &Event) -> usize {
    match event {
        Event::Stdout(Output { data, .. }) | Event::Stderr(Output { data, .. }) => data.len(),
        _ => 0,
    }
}

impl Queue {
    /// An empty queue.
    ///
    /// # Errors
    /// As eventfd(2).
    pub fn new() -> nix::Result<Queue> {
        let event = || EventFd::from_value_and_flags(0, EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK);
        Ok(Queue { state: Mutex::default(), changed: Condvar::new(), readable: event()?, wake: event()? })
    }

    /// No code of a caller's runs while the lock is held, so it can't be left half-way.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wait_while(&self, condition: impl FnMut(&mut State) -> bool) -> MutexGuard<'_, State> {
        self.changed.wait_while(self.lock(), condition).unwrap_or_else(PoisonError::into_inner)
    }

    fn take(&self, state: &mut State) -> Option<Event> {
        let event = state.events.pop_front()?;
        let before = state.bytes;
        state.bytes -= output(&event);
        if before >= OUTPUT_MAX && state.bytes < OUTPUT_MAX {
            self.rouse();
        }
        if state.events.is_empty() && !state.over {
            let _ = self.readable.read();
        }
        Some(event)
    }

    /// The next event; `None` after the last.
    pub fn next(&self) -> Option<Event> {
        self.take(&mut self.wait_while(|state| state.events.is_empty() && !state.over))
    }

    /// An event, if one waits.
    pub fn try_next(&self) -> Option<Event> {
        self.take(&mut self.lock())
    }

    /// Puts an event in; with `told` it has been read elsewhere, and only its news count.
    pub fn put(&self, event: &Event, told: bool) {
        let mut state = self.lock();
        if let Event::Started { pid, .. } = event {
            state.pid = Some(*pid);
        }
        let dispensable = matches!(event, Event::Sample(_) | Event::Connection(_));
        let full = dispensable && state.events.len() >= EVENTS_MAX;
        if !(told || state.unread || full) {
            state.bytes += output(event);
            state.events.push_back(event.clone());
            if state.events.len() == 1 {
                let _ = self.readable.write(1);
            }
        }
        self.changed.notify_all();
    }

    /// Nothing is to come any more.
    pub fn end(&self) {
        let mut state = self.lock();
        state.over = true;
        if state.events.is_empty() {
            let _ = self.readable.write(1);
        }
        self.changed.notify_all();
    }

    /// Whether nothing is to come any more.
    pub fn is_over(&self) -> bool {
        self.lock().over
    }

    /// Nobody reads what waits and what is to come.
    pub fn ignore(&self) {
        let mut state = self.lock();
        state.unread = true;
        state.events.clear();
        state.bytes = 0;
        self.rouse();
    }

    /// Whether there is room for output.
    pub fn has_room(&self) -> bool {
        self.lock().bytes < OUTPUT_MAX
    }

    /// The program's process ID, waited for; `None` if there is none to come.
    pub fn pid(&self) -> Option<i32> {
        self.wait_while(|state| state.pid.is_none() && !state.over).pid
    }

    /// The same as it is known now.
    pub fn pid_so_far(&self) -> Option<i32> {
        self.lock().pid
    }

    /// For poll(2) by who reads: an event waits, or nothing is to come.
    pub fn readable(&self) -> BorrowedFd<'_> {
        self.readable.as_fd()
    }

    /// For poll(2) by who attends.
    pub fn wake(&self) -> BorrowedFd<'_> {
        self.wake.as_fd()
    }

    /// Has who attends look up.
    pub fn rouse(&self) {
        let _ = self.wake.write(1);
    }

    /// It has.
    pub fn roused(&self) {
        let _ = self.wake.read();
    }
}
