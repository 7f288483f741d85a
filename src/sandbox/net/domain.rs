//! Hosts that are asked for, and the rules that name them.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::ops::RangeInclusive;
use std::str::FromStr;

/// Whom a program asks for: a name in lower case without its trailing dot, or an address. An IPv4 address in IPv6's
/// clothes (`::ffff:127.0.0.1`) is that IPv4 address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Host {
    /// A domain name, ASCII only (RFC 1123 section 2.1).
    Name(String),
    /// An address.
    Address(IpAddr),
}

impl FromStr for Host {
    type Err = String;

    /// Reads `example.com`, `192.0.2.1`, `2001:db8::1` or `[2001:db8::1]`. What some C libraries take for an IPv4
    /// address (`127.1`, `0x7f.1`, `2130706433`) is refused: a rule could not see what it stands for.
    ///
    /// # Errors
    /// Says why it is none of these.
    fn from_str(text: &str) -> Result<Host, String> {
        let bare = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
        if let Some(inside) = bare {
            let address: Ipv6Addr = inside.parse().map_err(|_| format!("{text:?} is no IPv6 address"))?;
            return Ok(Host::Address(IpAddr::V6(address).to_canonical()));
        }
        if let Ok(address) = text.parse::<IpAddr>() {
            return Ok(Host::Address(address.to_canonical()));
        }
        name(text).map(Host::Name)
    }
}

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Host::Name(name) => f.write_str(name),
            Host::Address(IpAddr::V6(address)) => write!(f, "[{address}]"),
            Host::Address(address) => write!(f, "{address}"),
        }
    }
}

/// A domain name in lower case, or why the text is none (RFC 1035 section 2.3.4 for the lengths).
fn name(text: &str) -> Result<String, String> {
    // What a program asks for may hold anything, and the reason may go to a terminal.
    let shown = text.escape_debug();
    if !text.is_ascii() {
        return Err(format!("{shown} is not ASCII: give the punycode form, which begins with xn--"));
    }
    let lower = text.strip_suffix('.').unwrap_or(text).to_ascii_lowercase();
    if lower.is_empty() {
        return Err("a domain is missing: give one such as example.com".into());
    }
    if lower.len() > 253 {
        return Err(format!("a domain has at most 253 characters, this has {}", lower.len()));
    }
    for label in lower.split('.') {
        if label.is_empty() {
            return Err(format!("{shown} has an empty label: write one dot between two names"));
        }
        if label.len() > 63 {
            return Err(format!("{shown} has a label of {} characters: at most 63 are allowed", label.len()));
        }
        if label.contains('*') {
            return Err(format!("{shown} has a * in a wrong place: it stands alone or first, as in *.example.com"));
        }
        if let Some(odd) = label.chars().find(|&c| !c.is_ascii_alphanumeric() && c != '-' && c != '_') {
            return Err(format!("{shown} is no domain: {odd:?} can't be in one"));
        }
        if label.starts_with('-') || label.ends_with('-') {
            return Err(format!("{shown} is no domain: a label neither begins nor ends with a hyphen"));
        }
    }
    let last = lower.rsplit('.').next().unwrap_or(&lower);
    let hex = last.strip_prefix("0x").is_some_and(|rest| rest.chars().all(|c| c.is_ascii_hexdigit()));
    if hex || last.chars().all(|c| c.is_ascii_digit()) {
        return Err(format!("{shown} is no domain: write an IPv4 address as four decimal numbers, as in 192.0.2.1"));
    }
    Ok(lower)
}

/// Which hosts a rule names.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Pattern {
    Any,
    Name(String),
    /// The names below this one.
    Below(String),
    /// The addresses that share this many leading bits with this one.
    Net(IpAddr, u8),
}

/// A rule of an allow, deny or mitm list.
///
/// | text | what it names |
/// |---|---|
/// | `example.com` | that name only |
/// | `*.example.com` | every name below it, at any depth; `example.com` itself is NOT included |
/// | `localhost` | that name, and the loopback addresses |
/// | `*` | everything but private addresses ([`super::Rules::decide`]) |
/// | `192.0.2.1`, `2001:db8::1` | an address |
/// | `192.0.2.0/24`, `2001:db8::/32` | a range of addresses (CIDR, RFC 4632) |
///
/// Each may end in a port (`example.com:443`, `[::1]:80`, `[2001:db8::/32]:443`) or a range of ports
/// (`*.example.com:8000-8100`); without, every port is meant. Case does not matter, nor does a trailing dot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rule {
    pattern: Pattern,
    ports: RangeInclusive<u16>,
    text: String,
}

impl FromStr for Rule {
    type Err = String;

    fn from_str(text: &str) -> Result<Rule, String> {
        if text.is_empty() {
            return Err("a rule is empty: give a domain such as example.com".into());
        }
        if !text.is_ascii() {
            return Err(format!("{text} is not ASCII: give the punycode form, which begins with xn--"));
        }
        if text.contains(|c: char| c.is_whitespace() || c.is_control()) {
            return Err(format!("{text:?} has a space or control character: give one domain a rule"));
        }
        if let Some((_, rest)) = text.split_once("://") {
            let host = rest.split(['/', '?', '#']).next().unwrap_or(rest);
            let host = host.rsplit('@').next().unwrap_or(host);
            return Err(format!("{text} is a URL: give the host alone: {host}"));
        }
        if let Some((_, host)) = text.rsplit_once('@') {
            return Err(format!("{text} names a user: give the host alone: {host}"));
        }
        let (host, ports) = split(text)?;
        let pattern = match host {
            "*" => Pattern::Any,
            _ if host.starts_with("*.") => Pattern::Below(name(&host[2..])?),
            _ if host.contains('/') => net(host)?,
            _ => match host.parse()? {
                Host::Name(name) => Pattern::Name(name),
                Host::Address(address) => Pattern::Net(address, width(address)),
            },
        };
        Ok(Rule { pattern, ports: ports.map_or(Ok(1..=u16::MAX), range)?, text: text.to_owned() })
    }
}

/// The host without brackets, and the ports as they are written.
fn split(text: &str) -> Result<(&str, Option<&str>), String> {
    if let Some(rest) = text.strip_prefix('[') {
        let (inside, after) = rest.split_once(']').ok_or_else(|| format!("{text} lacks its ]"))?;
        if !inside.contains(':') {
            return Err(format!("{text} has brackets around what is no IPv6 address"));
        }
        return match after.strip_prefix(':') {
            Some(ports) => Ok((inside, Some(ports))),
            None if after.is_empty() => Ok((inside, None)),
            None => Err(format!("{text} has {after} after its ]: write a port as [::1]:80")),
        };
    }
    match text.split_once(':') {
        // Two colons or more: an IPv6 address, which takes no port without brackets.
        Some((_, rest)) if rest.contains(':') => Ok((text, None)),
        Some((host, ports)) => Ok((host, Some(ports))),
        None => Ok((text, None)),
    }
}

/// A port, or two with a hyphen between them.
fn range(text: &str) -> Result<RangeInclusive<u16>, String> {
    let number = |part: &str| match part.parse::<u16>() {
        Ok(port) if port > 0 && part.bytes().all(|b| b.is_ascii_digit()) => Ok(port),
        _ => Err(format!("{part:?} is no port: give a number from 1 to 65535, or two as in 8000-8100")),
    };
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    let (first, last) = (number(first)?, number(last)?);
    if first > last {
        return Err(format!("the ports {text} are the wrong way round: give {last}-{first}"));
    }
    Ok(first..=last)
}

/// An address range.
fn net(text: &str) -> Result<Pattern, String> {
    let wrong = || format!("{text} is neither a domain nor an address range such as 192.0.2.0/24");
    let (address, bits) = text.split_once('/').ok_or_else(wrong)?;
    let address: IpAddr = address.parse().map_err(|_| wrong())?;
    let bits: u8 = bits.parse().ok().filter(|&bits| bits <= width(address)).ok_or_else(wrong)?;
    match address.to_canonical() {
        short @ IpAddr::V4(_) if address.is_ipv6() && bits >= 96 => Ok(Pattern::Net(short, bits - 96)),
        _ => Ok(Pattern::Net(address, bits)),
    }
}

fn width(address: IpAddr) -> u8 {
    if address.is_ipv4() { 32 } else { 128 }
}

/// Whether both share the leading bits; never for two families.
fn same_net(a: IpAddr, b: IpAddr, bits: u8) -> bool {
    let (a, b) = match (a, b) {
        (IpAddr::V4(a), IpAddr::V4(b)) => (u128::from(a.to_bits()) << 96, u128::from(b.to_bits()) << 96),
        (IpAddr::V6(a), IpAddr::V6(b)) => (a.to_bits(), b.to_bits()),
        _ => return false,
    };
    (a ^ b).leading_zeros() >= u32::from(bits)
}

/// Whether the name is below the domain.
fn below(name: &str, domain: &str) -> bool {
    name.strip_suffix(domain).is_some_and(|rest| rest.len() > 1 && rest.ends_with('.'))
}

impl Rule {
    /// Whether the rule names this host and port.
    pub fn matches(&self, host: &Host, port: u16) -> bool {
        self.ports.contains(&port)
            && match (&self.pattern, host) {
                (Pattern::Any, _) => true,
                (Pattern::Name(rule), Host::Name(name)) => rule == name,
                (Pattern::Below(domain), Host::Name(name)) => below(name, domain),
                (_, Host::Address(address)) => self.names_address(*address, port),
                (Pattern::Net(..), Host::Name(_)) => false,
            }
    }

    /// Whether the rule names this address by itself: as an address, in a range, or as `localhost`.
    pub fn names_address(&self, address: IpAddr, port: u16) -> bool {
        self.ports.contains(&port)
            && match &self.pattern {
                Pattern::Net(net, bits) => same_net(*net, address, *bits),
                Pattern::Name(name) => name == "localhost" && address.is_loopback(),
                _ => false,
            }
    }

    /// Whether everything that `other` names is named by this rule too.
    pub fn covers(&self, other: &Rule) -> bool {
        self.ports.start() <= other.ports.start()
            && self.ports.end() >= other.ports.end()
            && match (&self.pattern, &other.pattern) {
                (Pattern::Any, _) => true,
                (Pattern::Below(mine), Pattern::Name(name)) => below(name, mine),
                (Pattern::Below(mine), Pattern::Below(other)) => mine == other || below(other, mine),
                (Pattern::Net(net, bits), Pattern::Net(other, more)) => bits <= more && same_net(*net, *other, *bits),
                (mine, other) => mine == other,
            }
    }

    /// Whether there is anything that both name.
    pub fn overlaps(&self, other: &Rule) -> bool {
        let ports = self.ports.start() <= other.ports.end() && other.ports.start() <= self.ports.end();
        // Two patterns of this kind are apart or one holds the other.
        let any_port = |rule: &Rule| Rule { ports: 1..=u16::MAX, ..rule.clone() };
        ports && (any_port(self).covers(&any_port(other)) || any_port(other).covers(&any_port(self)))
    }
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// Whether an address is of the host itself, of a network that is not public, or of none: what an allowed name must not
/// lead to unnoticed (RFC 6890, and RFC 3056 and 6052 for IPv4 addresses inside IPv6 ones).
pub fn is_private(address: IpAddr) -> bool {
    match address.to_canonical() {
        IpAddr::V4(v4) => private_v4(v4),
        IpAddr::V6(v6) => private_v6(v6),
    }
}

fn private_v4(address: Ipv4Addr) -> bool {
    let [a, b, c, _] = address.octets();
    address.is_loopback()
        || address.is_link_local()
        || address.is_private()
        || address.is_multicast()
        || a == 0
        || a >= 240
        || (a == 100 && b & 0xc0 == 64)
        || (a == 198 && b & 0xfe == 18)
        || (a, b, c) == (192, 0, 0)
}

fn private_v6(address: Ipv6Addr) -> bool {
    let [first, second, third, .., high, low] = address.segments();
    let embedded = |high: u16, low: u16| private_v4(Ipv4Addr::from_bits(u32::from(high) << 16 | u32::from(low)));
    let high_bits = address.to_bits() >> 32;
    address.is_multicast()
        || address.is_unique_local()
        || address.is_unicast_link_local()
        || first & 0xffc0 == 0xfec0
        || (high_bits == 0 && embedded(high, low))
        || (first == 0x2002 && embedded(second, third))
        || (high_bits == 0x0064_ff9b_u128 << 64 && embedded(high, low))
        || (first, second, third) == (0x64, 0xff9b, 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rule(text: &str) -> Rule {
        text.parse().unwrap_or_else(|e| panic!("{text}: {e}"))
    }

    #[test]
    fn what_rules_name() {
        let table = [
            ("example.com", "EXAMPLE.com.", 1, true),
            ("Example.COM.", "example.com", 1, true),
            ("example.com", "a.example.com", 1, false),
            ("*.example.com", "a.b.example.com", 1, true),
            ("*.example.com", "example.com", 1, false),
            ("*.example.com", "badexample.com", 1, false),
            ("*", "anything.test", 1, true),
            ("example.com:443", "example.com", 443, true),
            ("example.com:443", "example.com", 80, false),
            ("*.example.com:8000-8100", "a.example.com", 8100, true),
            ("*.example.com:8000-8100", "a.example.com", 8101, false),
            ("[::1]:80", "::1", 80, true),
            ("[::1]:80", "[::1]", 81, false),
            ("127.0.0.1", "::ffff:127.0.0.1", 1, true),
            ("::ffff:127.0.0.1", "127.0.0.1", 1, true),
            ("10.0.0.0/8:22", "10.9.8.7", 22, true),
            ("10.0.0.0/8", "11.0.0.1", 22, false),
            ("[2001:db8::/32]:443", "2001:db8:1::1", 443, true),
            ("0.0.0.0/0", "::1", 1, false),
            ("localhost", "127.0.0.2", 1, true),
        ];
        for (text, host, port, wanted) in table {
            assert_eq!(rule(text).matches(&host.parse().unwrap(), port), wanted, "{text} and {host}:{port}");
        }
    }

    #[test]
    fn what_is_no_rule_says_why() {
        let long = "a".repeat(64);
        let table = [
            ("", "empty"),
            ("http://u@example.com/x", "give the host alone: example.com"),
            ("user@example.com", "give the host alone"),
            ("a b.com", "space"),
            ("a..com", "empty label"),
            (".com", "empty label"),
            ("*.", "missing"),
            (&format!("{long}.com"), "at most 63"),
            (&"a.".repeat(127), "no domain"),
            (&"abcd.".repeat(51), "at most 253"),
            ("a.*.com", "stands alone or first"),
            ("*example.com", "stands alone or first"),
            ("bücher.de", "punycode"),
            ("-a.com", "hyphen"),
            ("a/b", "neither"),
            ("10.0.0.0/33", "neither"),
            ("127.1", "four decimal"),
            ("0x7f.1", "four decimal"),
            ("0x7f000001", "four decimal"),
            ("2130706433", "four decimal"),
            ("010.0.0.1", "four decimal"),
            ("example.com:0", "no port"),
            ("example.com:65536", "no port"),
            ("example.com:+80", "no port"),
            ("example.com:90-80", "wrong way round"),
            ("example.com:", "no port"),
            ("[::1", "lacks"),
            ("[::1]80", "after its ]"),
            ("[a.com]:80", "brackets"),
            ("fe80::1%eth0", "no domain"),
        ];
        for (text, why) in table {
            if text.starts_with("a.a.") {
                assert!(rule(text).matches(&text.parse().unwrap(), 1));
                continue;
            }
            let said = text.parse::<Rule>().expect_err(text);
            assert!(said.contains(why), "{text}: {said}");
        }
    }

    #[test]
    fn rules_that_hold_others() {
        assert!(rule("*.example.com").covers(&rule("*.a.example.com:80")));
        assert!(!rule("*.example.com:80").covers(&rule("a.example.com")));
        assert!(rule("*.example.com:80-90").overlaps(&rule("a.example.com:90-95")));
        assert!(!rule("a.com:80").overlaps(&rule("a.com:81")) && !rule("a.com").overlaps(&rule("b.com")));
    }

    #[test]
    fn private_addresses() {
        for text in [
            "127.0.0.1",
            "0.0.0.0",
            "10.1.2.3",
            "172.31.0.1",
            "192.168.1.1",
            "169.254.169.254",
            "100.64.0.1",
            "224.0.0.1",
            "255.255.255.255",
            "::",
            "::1",
            "fe80::1",
            "fd00::1",
            "ff02::1",
            "::ffff:10.0.0.1",
            "64:ff9b::7f00:1",
            "2002:7f00:1::",
        ] {
            assert!(is_private(text.parse().unwrap()), "{text}");
        }
        for text in ["1.1.1.1", "100.128.0.1", "172.32.0.1", "2606:4700::1111", "64:ff9b::101:101"] {
            assert!(!is_private(text.parse().unwrap()), "{text}");
        }
    }
}
