//! The `brig` command.

/// Debug builds prove that a child allocates nothing between clone and exec.
#[cfg(debug_assertions)]
#[global_allocator]
static GUARD: brig::commands::Guarded = brig::commands::Guarded;

fn main() -> std::process::ExitCode {
    brig::commands::main()
}
