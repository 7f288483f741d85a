//! The lists, and what they decide.

use super::domain::{Host, Rule, is_private};
use crate::error::{Error, Result};
use crate::sandbox::policy::Network;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};

/// Who may be reached.
#[derive(Debug, Clone, Default)]
pub struct Rules {
    /// What may be reached.
    pub allow: Vec<Rule>,
    /// What may not; looked at first.
    pub deny: Vec<Rule>,
    /// What goes to the proxy on `mitm_socket`, if it is allowed.
    pub mitm: Vec<Rule>,
    /// That proxy's socket.
    pub mitm_socket: Option<PathBuf>,
}

/// What the rules say about one connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Decision {
    /// Whether it may be made.
    pub allowed: bool,
    /// The rule that decided, or why none did.
    pub reason: String,
    /// What would allow it; empty if it is allowed.
    pub remedy: String,
}

impl Decision {
    fn allowed(rule: &Rule) -> Decision {
        Decision { allowed: true, reason: format!("allowed by the rule {rule}"), remedy: String::new() }
    }

    pub(super) fn denied(reason: impl Into<String>, remedy: impl Into<String>) -> Decision {
        Decision { allowed: false, reason: reason.into(), remedy: remedy.into() }
    }

    fn by(rule: &Rule) -> Decision {
        Decision::denied(
            format!("denied by the rule {rule}"),
            format!("take {rule} off the denied domains, or make it narrower"),
        )
    }
}

impl Rules {
    /// The rules of a policy.
    ///
    /// # Errors
    /// Every text that is no rule, as [`super::check`] words it.
    pub fn new(network: &Network) -> Result<Rules> {
        let problems = super::check(network);
        if !problems.is_empty() {
            return Err(Error::problems("the policy", &problems));
        }
        let parse = |list: &[String]| list.iter().map(|text| text.parse().map_err(Error::invalid)).collect();
        Ok(Rules {
            allow: parse(&network.allow)?,
            deny: parse(&network.deny)?,
            mitm: network.mitm.as_ref().map_or(Ok(Vec::new()), |mitm| parse(&mitm.domains))?,
            mitm_socket: network.mitm.as_ref().map(|mitm| mitm.socket.clone()),
        })
    }

    /// Whether a program may reach a host at a port: denials first, then allowances, and then nothing allows it. A
    /// private address has to be named by itself ([`Rule::names_address`]); `*` does not include it.
    pub fn decide(&self, host: &Host, port: u16) -> Decision {
        if let Some(rule) = self.deny.iter().find(|rule| rule.matches(host, port)) {
            return Decision::by(rule);
        }
        let allowing = || self.allow.iter().filter(|rule| rule.matches(host, port));
        match host {
            Host::Address(address) if is_private(*address) && allowing().next().is_some() => {
                match allowing().find(|rule| rule.names_address(*address, port)) {
                    Some(rule) => Decision::allowed(rule),
                    None => private(*address, "is a private address"),
                }
            }
            _ => match allowing().next() {
                Some(rule) => Decision::allowed(rule),
                None => Decision::denied("no rule allows it", format!("add it with --allow-domain {host}")),
            },
        }
    }

    /// Whether an address that an allowed name (not `localhost`, which a rule names by itself) resolved to may be
    /// connected to: no rule denies it, and it is public or named by itself.
    pub fn decide_resolved(&self, name: &str, address: IpAddr, port: u16) -> Decision {
        let address = address.to_canonical();
        if let Some(rule) = self.deny.iter().find(|rule| rule.names_address(address, port)) {
            return Decision::by(rule);
        }
        match self.allow.iter().find(|rule| rule.names_address(address, port)) {
            Some(rule) => Decision::allowed(rule),
            None if is_private(address) => private(address, &format!("is private, and {name} resolves to it")),
            None => Decision { allowed: true, reason: "the address is public".into(), remedy: String::new() },
        }
    }

    /// The socket of the proxy that connections to this host go to, if one is meant to see them.
    pub fn mitm_for(&self, host: &Host, port: u16) -> Option<&Path> {
        let wanted = self.mitm.iter().any(|rule| rule.matches(host, port));
        self.mitm_socket.as_deref().filter(|_| wanted)
    }
}

fn private(address: IpAddr, why: &str) -> Decision {
    Decision::denied(format!("{address} {why}"), format!("allow the address itself with --allow-domain {address}"))
}

/// Rules that can be replaced while the proxies use them. Connections that are open stay open; the next ones are
/// decided by the new rules.
#[derive(Debug, Clone, Default)]
pub struct Shared(Arc<RwLock<Arc<Rules>>>);

impl Shared {
    /// A handle on these rules; its clones share them.
    pub fn new(rules: Rules) -> Shared {
        Shared(Arc::new(RwLock::new(Arc::new(rules))))
    }

    /// The rules of this moment.
    pub fn get(&self) -> Arc<Rules> {
        self.0.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Puts other rules in their place.
    pub fn replace(&self, rules: Rules) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(rules);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rules(allow: &[&str], deny: &[&str]) -> Rules {
        let parse = |list: &[&str]| list.iter().map(|text| text.parse().unwrap()).collect();
        Rules { allow: parse(allow), deny: parse(deny), ..Rules::default() }
    }

    #[test]
    fn denials_come_first() {
        let rules = rules(&["*.example.com", "*:80"], &["bad.example.com"]);
        let decide = |host: &str, port| rules.decide(&host.parse().unwrap(), port);
        assert!(decide("a.example.com", 443).allowed);
        assert_eq!(decide("bad.example.com", 80).reason, "denied by the rule bad.example.com");
        assert_eq!(decide("other.test", 443).reason, "no rule allows it");
        assert_eq!(decide("other.test", 443).remedy, "add it with --allow-domain other.test");
        assert!(decide("other.test", 80).allowed);
    }

    #[test]
    fn private_addresses_have_to_be_named() {
        let address = |text: &str| text.parse::<IpAddr>().unwrap();
        let open = rules(&["*"], &["9.9.9.9"]);
        assert!(open.decide(&Host::Address(address("1.1.1.1")), 80).allowed);
        assert!(open.decide(&Host::Address(address("169.254.169.254")), 80).reason.contains("private"));
        assert!(!open.decide_resolved("x.test", address("::ffff:10.0.0.1"), 80).allowed);
        assert!(!open.decide_resolved("x.test", address("9.9.9.9"), 80).allowed);
        let named = rules(&["x.test", "10.0.0.1", "localhost:80"], &[]);
        assert!(named.decide_resolved("x.test", address("10.0.0.1"), 80).allowed);
        assert!(named.decide_resolved("x.test", address("127.0.0.1"), 80).allowed);
        assert!(!named.decide_resolved("x.test", address("127.0.0.1"), 81).allowed);
        assert!(!named.decide_resolved("x.test", address("10.0.0.2"), 80).allowed);
    }
}
