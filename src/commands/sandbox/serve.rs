//! `brig sandbox serve`.

use super::flags::PolicyFlags;
use crate::commands::{Context, flag_error, print};
use crate::error::Result;
use crate::sandbox::control;
use crate::sandbox::policy::Policy;
use crate::sandbox::pool::{self, Http, Options};
use crate::sandbox::units::Bytes;
use std::net::SocketAddr;
use std::path::PathBuf;

const PROTOCOL: &str = "\
A request is a JSON object on a line, the answer another one:
  {\"command\": [\"ls\", \"-l\"], \"stdin\": \"...\", \"env\": {...}, \"id\": ..., \"stream\": false}
  {\"script\": {\"language\": \"python\", \"source\": \"print(1)\"}, \"policy\": {\"limits\": {\"timeout\": \"5s\", \"memory\": \"64M\"}}}
  {\"report\": {\"status\": 0, \"stdout\": {\"text\": \"...\"}, ...}}   or   {\"error\": \"...\", \"code\": \"busy\"}
With \"stream\": true, lines {\"event\": {...}} come before the report. Limits can be lowered, never raised.";

/// Serve prepared sandboxes on a unix socket, and over HTTP if wanted: the fastest way to run many commands
#[derive(Debug, clap::Args)]
#[command(after_help = PROTOCOL)]
pub struct Serve {
    #[command(flatten)]
    policy: PolicyFlags,
    /// The socket, for this user and root [default: sandbox-pool.sock in the state directory]
    #[arg(long, value_name = "PATH", help_heading = "Server")]
    socket: Option<PathBuf>,
    /// How many sandboxes are kept prepared
    #[arg(long, value_name = "N", default_value_t = 4, help_heading = "Server")]
    pool: usize,
    /// How many run at once
    #[arg(long, value_name = "N", default_value_t = 64, help_heading = "Server")]
    max_running: usize,
    /// How many requests may wait for one
    #[arg(long, value_name = "N", default_value_t = 256, help_heading = "Server")]
    max_waiting: usize,
    /// How many requests of one user run and wait at once
    #[arg(long, value_name = "N", default_value_t = 128, help_heading = "Server")]
    per_user: usize,
    /// How many requests of one user are taken in a minute [default: as many as come]
    #[arg(long, value_name = "N", help_heading = "Server")]
    per_minute: Option<usize>,
    /// How much of each output the answer holds
    #[arg(long, value_name = "SIZE", default_value = "1M", help_heading = "Server")]
    keep_output: Bytes,
    /// Serve HTTP, too, on an address of the loopback interface: POST /run, GET /metrics, GET /health
    #[arg(long, value_name = "ADDRESS:PORT", requires = "token_file", help_heading = "Server")]
    http: Option<SocketAddr>,
    /// The file with the token that HTTP clients show
    #[arg(long, value_name = "FILE", requires = "http", help_heading = "Server")]
    token_file: Option<PathBuf>,
}

impl Serve {
    pub(super) fn run(self, context: &Context) -> Result<()> {
        let mut policy = Policy::default();
        let notes = self.policy.apply(&mut policy)?;
        context.warn(&notes);
        notes.iter().for_each(|note| eprintln!("brig: {note}"));
        if self.pool == 0 || self.max_running < self.pool {
            return Err(flag_error("--pool", "1 or more, and no more than --max-running"));
        }
        let http = match (self.http, &self.token_file) {
            (Some(address), Some(file)) => Some(Http::new(address, file).map_err(|e| e.context("--http"))?),
            _ => None,
        };
        control::guard(context.store.root(), &mut policy);
        let options = Options {
            policy,
            prepared: self.pool,
            running: self.max_running,
            waiting: self.max_waiting,
            per_caller: self.per_user,
            per_minute: self.per_minute,
            keep_output: usize::try_from(self.keep_output.0).unwrap_or(usize::MAX),
            state: Some(context.store.root().to_owned()),
        };
        let socket = self.socket.unwrap_or_else(|| context.store.root().join("sandbox-pool.sock"));
        let up = || {
            // Who started it waits for this line; nobody may.
            let _ = print(&format!("listening on {}\n", socket.display()));
        };
        pool::serve(options, &socket, http, up)
    }
}
