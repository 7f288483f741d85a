//! The proxies' threads: one that accepts, and one for each connection.

use super::dial::{Context, Event, Resolver, resolve};
use super::io::{Stop, Wire, relay};
use super::rules::Shared;
use super::{body::Body, http, socks};
use crate::sandbox::policy::Network;
use nix::poll::PollFlags;
use nix::sys::eventfd::{EfdFlags, EventFd};
use std::io::{ErrorKind, Result};
use std::net::TcpListener;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// A connection's stack: the largest buffers are on the heap.
const STACK: usize = 256 << 10;

/// Listening sockets of the sandbox's network namespace.
#[derive(Debug, Default)]
pub struct Listeners {
    /// For HTTP.
    pub http: Option<TcpListener>,
    /// For SOCKS5.
    pub socks: Option<TcpListener>,
}

/// What can be set besides the rules.
#[derive(Debug, Clone)]
pub struct Options {
    /// Finds the addresses of a name, on the host.
    pub resolver: Resolver,
    /// A connection over which nothing has gone for so long is ended.
    pub idle_timeout: Duration,
    /// How long a look-up and the connecting may take together.
    pub connect_timeout: Duration,
    /// The most connections at once; more wait to be accepted.
    pub connections: u32,
    /// An HTTP proxy of the caller's own on this port of the host's loopback. What comes to the HTTP listener goes there
    /// byte by byte, and NO rules apply: that proxy decides.
    pub http_proxy_port: Option<u16>,
    /// The same for SOCKS5.
    pub socks_proxy_port: Option<u16>,
}

impl Default for Options {
    /// 10 minutes idle, 20 seconds to connect, 256 connections, the host's resolver, no proxies of the caller's.
    fn default() -> Options {
        Options {
            resolver: resolve,
            idle_timeout: Duration::from_secs(600),
            connect_timeout: Duration::from_secs(20),
            connections: 256,
            http_proxy_port: None,
            socks_proxy_port: None,
        }
    }
}

impl From<&Network> for Options {
    /// The defaults, with the policy's proxies of the caller's own.
    fn from(network: &Network) -> Options {
        let Network { http_proxy_port, socks_proxy_port, .. } = *network;
        Options { http_proxy_port, socks_proxy_port, ..Options::default() }
    }
}

/// Running proxies. Dropping them stops them.
#[derive(Debug)]
pub struct Proxies {
    /// The end whose closing is the order to stop.
    order: Option<UnixStream>,
    thread: Option<JoinHandle<()>>,
}

impl Proxies {
    /// Serves the listeners by the rules, from threads of the calling process: it connects from the network namespace
    /// that the caller is in. `sink` is called from these threads, at once and for every event; it should not block.
    ///
    /// # Errors
    /// If a descriptor or a thread can't be had.
    pub fn start(
        listeners: Listeners,
        rules: Shared,
        sink: impl Fn(Event) + Send + Sync + 'static,
        options: Options,
    ) -> Result<Proxies> {
        let (order, stop) = UnixStream::pair()?;
        let stop = Arc::new(Stop(OwnedFd::from(stop)));
        for listener in [&listeners.http, &listeners.socks].into_iter().flatten() {
            listener.set_nonblocking(true)?;
        }
        let slots = EventFd::from_value_and_flags(
            options.connections,
            EfdFlags::EFD_SEMAPHORE | EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK,
        )?;
        let context = Context { rules, sink: Box::new(sink), options, stop, next: AtomicU64::new(0) };
        let accept = move || accept(&listeners, &context, &slots);
        let thread = std::thread::Builder::new().name("brig-proxy".into()).spawn(accept)?;
        Ok(Proxies { order: Some(order), thread: Some(thread) })
    }

    /// Ends every connection and waits for the threads, which takes no longer than the sink does. Only a look-up that
    /// the host's resolver is busy with goes on until that gives up; its answer is for nobody.
    pub fn stop(mut self) {
        self.end();
    }

    fn end(&mut self) {
        self.order = None;
        if let Some(thread) = self.thread.take() {
            // A panic of a connection has been told by its thread.
            let _ = thread.join();
        }
    }
}

impl Drop for Proxies {
    fn drop(&mut self) {
        self.end();
    }
}

/// A connection's place among those that may be open at once.
struct Slot<'a>(&'a EventFd);

impl Drop for Slot<'_> {
    fn drop(&mut self) {
        // It fails only at the counter's end, which is as far as 2^64.
        let _ = self.0.write(1);
    }
}

/// Accepts until the order to stop, and returns when every connection has ended.
fn accept(listeners: &Listeners, context: &Context, slots: &EventFd) {
    let own = [context.options.http_proxy_port, context.options.socks_proxy_port];
    let kinds = [(&listeners.http, Kind::Http), (&listeners.socks, Kind::Socks)].into_iter().zip(own);
    let open: Vec<_> = kinds.filter_map(|((listener, kind), own)| Some((listener.as_ref()?, kind, own))).collect();
    let watched: Vec<_> = open.iter().map(|(listener, ..)| (listener.as_fd(), PollFlags::POLLIN)).collect();
    std::thread::scope(|scope| {
        loop {
            // A place first: what nobody has a place for stays in the listener's queue.
            if forever(context, &[(slots.as_fd(), PollFlags::POLLIN)]).is_err() {
                return;
            }
            if slots.read().is_err() {
                continue;
            }
            let slot = Slot(slots);
            let Ok(ready) = forever(context, &watched) else { return };
            let Some(&(listener, kind, own)) =
                open.iter().zip(ready).find(|(_, flags)| !flags.is_empty()).map(|(listener, _)| listener)
            else {
                continue;
            };
            match listener.accept() {
                Ok((stream, _)) => {
                    let client = Wire::new(OwnedFd::from(stream), &context.stop, context.options.idle_timeout);
                    let work = move || {
                        let _slot = slot;
                        serve(context, &client, kind, own);
                    };
                    let builder = std::thread::Builder::new().name("brig-proxied".into()).stack_size(STACK);
                    // Without a thread the connection is closed, and the next one may fare better.
                    let _ = builder.spawn_scoped(scope, work);
                }
                Err(e) if matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::ConnectionAborted) => {}
                // No descriptors, no memory: the listener stays ready, so there is a pause before the next try.
                Err(_) => {
                    let pause = context.stop.wait(&[], Instant::now() + Duration::from_millis(100));
                    if pause.is_err_and(|e| e.kind() == ErrorKind::ConnectionAborted) {
                        return;
                    }
                }
            }
        }
    });
}

/// Waits without a deadline.
fn forever(context: &Context, fds: &[(std::os::fd::BorrowedFd, PollFlags)]) -> Result<Vec<PollFlags>> {
    loop {
        match context.stop.wait(fds, Instant::now() + Duration::from_secs(86_400)) {
            Err(e) if e.kind() == ErrorKind::TimedOut => {}
            ended => return ended,
        }
    }
}

/// What a listener speaks.
#[derive(Clone, Copy)]
enum Kind {
    Http,
    Socks,
}

fn serve(context: &Context, client: &Wire, kind: Kind, own: Option<u16>) {
    match (own, kind) {
        (None, Kind::Http) => http::serve(context, client),
        (None, Kind::Socks) => socks::serve(context, client),
        (Some(port), _) => {
            let via = if matches!(kind, Kind::Http) { "http" } else { "socks5" };
            if let Ok(dialed) = context.dial_own(via, port) {
                let tally = relay(client, &dialed.wire, Vec::new(), &[], Body::Open, Vec::new());
                dialed.ended(tally);
            }
        }
    }
}
