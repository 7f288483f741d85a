//! A sandbox that runs, in the hands of the program that started it.

use super::Callback;
use crate::error::{Context, Error, Kind, Result};
use crate::sandbox::event::Event;
use crate::sandbox::live::{Change, Live};
use crate::sandbox::queue::Queue;
use crate::sandbox::report::Report;
use crate::sandbox::supervise::{self, Attendant, Job};
use crate::sys::process;
use std::fmt;
use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::{Arc, mpsc};
use std::thread::JoinHandle;

type Act = Box<dyn FnOnce(&mut Live) -> Result<()> + Send>;

/// What the attending thread is asked to do.
struct Order {
    act: Act,
    answer: mpsc::Sender<Result<()>>,
}

/// The attendant on the thread that launches.
struct Watch {
    queue: Arc<Queue>,
    orders: mpsc::Receiver<Order>,
    callback: Option<Callback>,
}

impl Attendant for Watch {
    fn sources(&self) -> Vec<BorrowedFd<'_>> {
        vec![self.queue.wake()]
    }

    fn ready(&mut self, _: usize, live: &mut Live) -> Result<()> {
        self.queue.roused();
        for Order { act, answer } in self.orders.try_iter() {
            // Who asked may have gone.
            let _ = answer.send(act(live));
        }
        Ok(())
    }

    fn event(&mut self, event: &Event) {
        if let Some(callback) = &mut self.callback {
            callback(event);
        }
        self.queue.put(event, self.callback.is_some());
    }

    fn takes_output(&self) -> bool {
        self.queue.has_room()
    }
}

impl Drop for Watch {
    /// Also when the sandbox could not be started, or a callback panicked.
    fn drop(&mut self) {
        self.queue.end();
    }
}

/// A sandbox that was started. Dropped before it has ended, it is ended, and its thread is waited for.
///
/// As an iterator it gives the events until the last one, and waits for each. [`AsFd`] is for poll(2) and event loops: it is
/// readable as long as [`try_event`](Running::try_event) has an event, and when there is none to come any more
/// ([`is_over`](Running::is_over)).
///
/// Captured output is among the events. Nobody reading them, the program waits once a MiB of it has come, but for
/// [`wait`](Running::wait), which leaves the rest of the events aside. More than 10 000 events waiting, samples and connections
/// are told in the report alone.
///
/// ```no_run
/// use brig::sandbox::{Event, Sandbox};
///
/// let mut running = Sandbox::new("sh").args(["-c", "echo one; sleep 1; echo two"]).spawn()?;
/// for event in &mut running {
///     if let Event::Stdout(output) = event {
///         print!("{}", String::from_utf8_lossy(&output.data));
///     }
/// }
/// assert_eq!(running.wait()?.status, 0);
/// # Ok::<(), brig::error::Error>(())
/// ```
pub struct Running {
    id: String,
    queue: Arc<Queue>,
    orders: mpsc::Sender<Order>,
    stdin: Option<File>,
    thread: Option<JoinHandle<Result<Report>>>,
}

impl fmt::Debug for Running {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut shown = f.debug_struct("Running");
        let (pid, over) = (self.queue.pid_so_far(), self.is_over());
        shown.field("id", &self.id).field("pid", &pid).field("over", &over).finish_non_exhaustive()
    }
}

impl Running {
    pub(super) fn start(mut job: Job, callback: Option<Callback>, stdin: Option<File>) -> Result<Running> {
        let id = job.policy.id.get_or_insert_with(supervise::new_id).clone();
        let queue = Arc::new(Queue::new().during(|| "make an eventfd".into())?);
        let (orders, receiver) = mpsc::channel();
        let mut watch = Watch { queue: queue.clone(), orders: receiver, callback };
        // The child dies with the thread that launches it, so that is the one that stays.
        let attend = move || {
            // Signals of the program are for its other threads; the child unblocks its own.
            process::block_signals();
            supervise::run(job, &mut watch)
        };
        let thread = std::thread::Builder::new().name("brig-sandbox".into()).spawn(attend);
        let thread = Some(thread.map_err(|error| Error::no_thread("start a thread", &error))?);
        Ok(Running { id, queue, orders, stdin, thread })
    }

    /// The sandbox's ID.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// The program's process ID on the host, waited for until it runs; `None` if it could not be started, which
    /// [`wait`](Running::wait) explains.
    pub fn pid(&self) -> Option<i32> {
        self.queue.pid()
    }

    /// An event, if one waits.
    pub fn try_event(&mut self) -> Option<Event> {
        self.queue.try_next()
    }

    /// Whether it has ended and no event is to come but those that wait.
    pub fn is_over(&self) -> bool {
        self.queue.is_over()
    }

    fn order(&self, act: impl FnOnce(&mut Live) -> Result<()> + Send + 'static) -> Result<()> {
        let gone = || Error::new(Kind::Gone, format!("sandbox {} has ended", self.id));
        let (answer, answered) = mpsc::channel();
        self.orders.send(Order { act: Box::new(act), answer }).map_err(|_| gone())?;
        self.queue.rouse();
        answered.recv().map_err(|_| gone())?
    }

    /// Changes limits and domains.
    ///
    /// # Errors
    /// What is wrong with the change, or what the kernel refuses; [`Kind::Gone`] when the sandbox has ended.
    pub fn update(&self, change: Change) -> Result<()> {
        self.order(move |live| live.update(&change))
    }

    /// Sends the program a signal; SIGKILL (9) ends all that is in the sandbox.
    ///
    /// # Errors
    /// As pidfd_send_signal(2); [`Kind::Gone`] when the sandbox has ended.
    pub fn kill(&self, signal: i32) -> Result<()> {
        self.order(move |live| live.kill(signal))
    }

    /// The end that writes to the program's standard input, once, if it was given [`Input::Pipe`](super::Input::Pipe). Closed,
    /// it is the end of the input.
    pub fn stdin(&mut self) -> Option<File> {
        self.stdin.take()
    }

    /// Waits for the end and gives the report; events that were not read are left aside, an unused
    /// [`stdin`](Running::stdin) is closed.
    ///
    /// # Errors
    /// What kept the program from starting.
    ///
    /// # Panics
    /// If the callback of [`on_event`](super::Sandbox::on_event) has panicked, with its panic.
    pub fn wait(mut self) -> Result<Report> {
        self.stdin = None;
        self.queue.ignore();
        let Some(thread) = self.thread.take() else {
            return Err(Error::new(Kind::Gone, format!("sandbox {} has ended", self.id)));
        };
        thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    }
}

impl Iterator for Running {
    type Item = Event;

    fn next(&mut self) -> Option<Event> {
        self.queue.next()
    }
}

impl AsFd for Running {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.queue.readable()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if let Some(thread) = self.thread.take() {
            self.queue.ignore();
            // It may have ended meanwhile; a panic has been told by the panic hook.
            let _ = self.kill(libc::SIGKILL);
            let _ = thread.join();
        }
    }
}
