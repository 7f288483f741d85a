//! What is wrong with a policy's network section.

use super::domain::Rule;
use crate::error::Problem;
use crate::sandbox::policy::Network;
use std::os::unix::fs::FileTypeExt;

/// Every problem of a policy's network section, with JSON pointers (`/network/allow/0`).
///
/// Besides texts that are no rules these are contradictions, each of which would leave a part of the policy without
/// effect: an allowance that a denial takes back as a whole, lists while both proxies are the caller's own, and mitm domains
/// that no allowance reaches (a mitm domain is not allowed by being one). What is wrong without a look at rules or at the host
/// is told by [`check`](crate::sandbox::check::check).
pub fn check(network: &Network) -> Vec<Problem> {
    let mut problems = Vec::new();
    let allow = parse(&network.allow, "/network/allow", &mut problems);
    let deny = parse(&network.deny, "/network/deny", &mut problems);
    for (i, rule) in &allow {
        if let Some((_, denial)) = deny.iter().find(|(_, denial)| denial.covers(rule)) {
            let what = if denial == rule {
                format!("{rule} is both allowed and denied, and a denial wins; leave one of them out")
            } else {
                format!("{rule} can never be allowed: the denial of {denial} includes it; leave one of them out")
            };
            problems.push(Problem::new(format!("/network/allow/{i}"), what));
        }
    }
    if let Some(mitm) = &network.mitm {
        let socket = &mitm.socket;
        let wrong = if socket.as_os_str().is_empty() {
            None
        } else if !socket.is_absolute() {
            Some(format!("{} is relative; give the whole path", socket.display()))
        } else if !std::fs::metadata(socket).is_ok_and(|found| found.file_type().is_socket()) {
            Some(format!("{} is no unix socket; start the proxy first, or correct the path", socket.display()))
        } else {
            None
        };
        problems.extend(wrong.map(|what| Problem::new("/network/mitm/socket", what)));
        for (i, rule) in &parse(&mitm.domains, "/network/mitm/domains", &mut problems) {
            if !allow.iter().any(|(_, allowed)| allowed.overlaps(rule)) {
                problems.push(Problem::new(
                    format!("/network/mitm/domains/{i}"),
                    format!("{rule} is not allowed, so the proxy would never see it; add it to allow as well"),
                ));
            }
        }
    }
    let (http, socks) = (network.http_proxy_port.is_some(), network.socks_proxy_port.is_some());
    let lists = !network.allow.is_empty() || !network.deny.is_empty() || network.mitm.is_some();
    if lists && http && socks {
        let what = "no list applies where both proxies are your own; leave the lists out, or one of the ports";
        problems.push(Problem::new("/network", what));
    }
    problems
}

/// The rules with their places in the list; what is none becomes a problem.
fn parse(list: &[String], pointer: &str, problems: &mut Vec<Problem>) -> Vec<(usize, Rule)> {
    let mut rules = Vec::new();
    for (i, text) in list.iter().enumerate() {
        match text.parse() {
            Ok(rule) => rules.push((i, rule)),
            Err(why) => problems.push(Problem::new(format!("{pointer}/{i}"), why)),
        }
    }
    rules
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sandbox::policy::Mitm;

    fn list(texts: &[&str]) -> Vec<String> {
        texts.iter().map(|text| (*text).to_owned()).collect()
    }

    fn pointers(network: &Network) -> Vec<String> {
        check(network).into_iter().map(|problem| problem.pointer).collect()
    }

    #[test]
    fn every_problem_has_its_place() {
        let network = Network {
            allow: list(&["a.com", "http://b.com", "c.com:70000", "x.d.com"]),
            deny: list(&["*.d.com", "a.com", "e e"]),
            mitm: Some(Mitm { socket: "/nowhere".into(), domains: list(&["a.com:443", "z.com"]) }),
            ..Network::default()
        };
        let found = check(&network);
        let wanted = [
            ("/network/allow/1", "give the host alone: b.com"),
            ("/network/allow/2", "no port"),
            ("/network/deny/2", "space"),
            ("/network/allow/0", "both allowed and denied"),
            ("/network/allow/3", "*.d.com includes it"),
            ("/network/mitm/socket", "no unix socket"),
            ("/network/mitm/domains/1", "never see it"),
        ];
        assert_eq!(found.len(), wanted.len(), "{found:?}");
        for (problem, (pointer, what)) in found.iter().zip(wanted) {
            assert!(problem.pointer == pointer && problem.what.contains(what), "{problem}");
        }
    }

    #[test]
    fn sound_sections_have_none() {
        let lists = Network { allow: list(&["*.a.com", "*"]), deny: list(&["b.a.com"]), ..Network::default() };
        assert!(check(&Network::default()).is_empty() && check(&lists).is_empty());
        let own = Network { http_proxy_port: Some(1), socks_proxy_port: Some(2), ..lists };
        assert_eq!(pointers(&own), ["/network"]);
        let file = Mitm { socket: "/dev/null".into(), domains: Vec::new() };
        assert_eq!(pointers(&Network { mitm: Some(file), ..Network::default() }), ["/network/mitm/socket"]);
    }
}
