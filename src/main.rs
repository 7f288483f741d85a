//! The `brig` command.

/// Debug builds prove that a child allocates nothing between clone and exec.
#[cfg(debug_assertions)]
#[global_allocator]
static GUARD: brig::sys::alloc::Guarded = brig::sys::alloc::Guarded;

fn main() -> std::process::ExitCode {
    brig::commands::main()
}
