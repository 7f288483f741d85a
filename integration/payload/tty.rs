//! The terminal as the container sees it.

use serde_json::{Map, Value, json};
use std::fs;

/// For each standard stream whether it is a terminal, which, and how large; and who leads the session on it.
pub fn view() -> Value {
    let mut found: Map<String, Value> = (0..3).map(|fd| (fd.to_string(), stream(fd))).collect();
    found.insert("sid".into(), json!(nix::unistd::getsid(None).map(|p| p.as_raw()).unwrap_or(-1)));
    // SAFETY: takes an integer, returns one.
    found.insert("foreground".into(), json!(unsafe { libc::tcgetpgrp(0) }));
    found.insert("controlling".into(), json!(fs::File::open("/dev/tty").is_ok()));
    found.into()
}

fn stream(fd: i32) -> Value {
    // SAFETY: takes an integer, returns one.
    if unsafe { libc::isatty(fd) } != 1 {
        return Value::Null;
    }
    let name = fs::read_link(format!("/proc/self/fd/{fd}")).map(|p| p.display().to_string()).unwrap_or_default();
    let (height, width) = size(fd);
    json!({"name": name, "height": height, "width": width})
}

/// Rows and columns.
pub fn size(fd: i32) -> (u16, u16) {
    let mut size = libc::winsize { ws_row: 0, ws_col: 0, ws_xpixel: 0, ws_ypixel: 0 };
    // SAFETY: TIOCGWINSZ writes one winsize.
    unsafe { libc::ioctl(fd, libc::TIOCGWINSZ, &raw mut size) };
    (size.ws_row, size.ws_col)
}
