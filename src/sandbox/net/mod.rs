//! Network by domain. The program's network namespace has a loopback interface and nothing else; two listening sockets
//! in there are served from out here, by an HTTP and a SOCKS5 proxy that connect for it to what the rules allow. A
//! program that ignores the proxy variables therefore reaches nothing.
//!
//! A denied name is never resolved, so that no question about it leaves the host. A connection goes to the very
//! addresses that were looked at, once.

mod body;
mod check;
mod dial;
mod domain;
mod http;
mod io;
mod proxy;
mod rules;
mod socks;
#[cfg(test)]
mod tests;

pub use check::check;
pub use dial::{Event, Resolver, Stage, resolve};
pub use domain::{Host, Rule, is_private};
pub use proxy::{Listeners, Options, Proxies};
pub use rules::{Decision, Rules, Shared};

/// The port that the HTTP proxy listens on in the sandbox.
pub const HTTP_PORT: u16 = 3128;
/// The port that the SOCKS5 proxy listens on in the sandbox.
pub const SOCKS_PORT: u16 = 1080;

/// The variables that lead a program to the proxies on these ports of its loopback interface.
///
/// - `http_proxy`, `https_proxy` and `no_proxy`, in lower case: curl, wget, git over HTTP(S), apt, pip and most others.
/// - The same in upper case: Go, Rust's reqwest and cargo, Python's requests, npm, yarn. curl heeds `HTTP_PROXY` in
///   lower case only, because CGI makes the other from a request's `Proxy` header.
/// - `all_proxy`, `ALL_PROXY`: curl and git for what has no variable of its own; `socks5h` leaves names to the proxy.
///   Without a SOCKS proxy it names the HTTP one.
/// - `NODE_USE_ENV_PROXY`: Node.js 22.21 and 24 on, which else heed none of these.
/// - `RSYNC_PROXY`: rsync's own protocol, through CONNECT.
///
/// `no_proxy` holds the sandbox's own loopback interface, so that its own servers are reached without a proxy; a server
/// on the host's is asked for by an explicit proxy (`curl --noproxy ''`). Nothing is set for ssh (git over ssh included)
/// and Java, which have no variable for it: `ssh -o ProxyCommand='nc -X 5 -x 127.0.0.1:1080 %h %p'`,
/// `java -DsocksProxyHost=127.0.0.1`.
pub fn environment(http: Option<u16>, socks: Option<u16>) -> Vec<(String, String)> {
    let http_url = http.map(|port| format!("http://127.0.0.1:{port}"));
    let all = socks.map(|port| format!("socks5h://127.0.0.1:{port}")).or(http_url.clone());
    let none = all.as_ref().map(|_| "localhost,127.0.0.1,::1".to_owned());
    let mut variables = Vec::new();
    for (name, value) in
        [("http_proxy", &http_url), ("https_proxy", &http_url), ("all_proxy", &all), ("no_proxy", &none)]
    {
        if let Some(value) = value {
            variables.push((name.to_owned(), value.clone()));
            variables.push((name.to_ascii_uppercase(), value.clone()));
        }
    }
    if let Some(port) = http {
        variables.push(("NODE_USE_ENV_PROXY".into(), "1".into()));
        variables.push(("RSYNC_PROXY".into(), format!("127.0.0.1:{port}")));
    }
    variables
}
