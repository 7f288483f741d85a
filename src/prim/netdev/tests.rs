//! Real interfaces in network namespaces that each test makes for itself.

use super::*;
use netlink_packet_route::AddressFamily;
use netlink_packet_route::link::{InfoData, InfoKind, InfoVeth, LinkInfo};
use nix::sched::{CloneFlags, unshare};
use std::net::IpAddr;
use std::os::fd::AsFd;

fn devices(entries: &[(&str, Option<&str>)]) -> BTreeMap<String, NetDevice> {
    entries.iter().map(|(host, name)| ((*host).into(), NetDevice { name: name.map(Into::into) })).collect()
}

fn netns() -> OwnedFd {
    open("/proc/thread-self/ns/net", OFlag::O_RDONLY | OFlag::O_CLOEXEC, Mode::empty()).unwrap()
}

/// Runs a test in a thread whose network namespace is new; gives it another new one.
fn with_namespaces(test: fn(OwnedFd)) {
    let enter = || unshare(CloneFlags::CLONE_NEWNET);
    let run = move || {
        if let Err(errno) = enter() {
            println!("SKIPPED: unshare a network namespace: {errno}");
            return;
        }
        let other = std::thread::spawn(move || enter().map(|()| netns())).join().unwrap().unwrap();
        test(other);
    };
    if let Err(panic) = std::thread::spawn(run).join() {
        std::panic::resume_unwind(panic);
    }
}

/// Makes an interface: a dummy, or half of a pair where the kernel has no dummies.
fn make(client: &mut Client, name: &str) {
    let link = |info| {
        let mut link = LinkMessage::default();
        link.attributes = vec![LinkAttribute::IfName(name.into()), LinkAttribute::LinkInfo(info)];
        link
    };
    match client.add_link(link(vec![LinkInfo::Kind(InfoKind::Dummy)])) {
        Ok(()) => return,
        Err(Errno::EOPNOTSUPP) => {}
        Err(errno) => panic!("add {name}: {errno}"),
    }
    let mut peer = LinkMessage::default();
    peer.attributes.push(LinkAttribute::IfName(format!("p-{name}")));
    let data = LinkInfo::Data(InfoData::Veth(InfoVeth::Peer(peer)));
    client.add_link(link(vec![LinkInfo::Kind(InfoKind::Veth), data])).expect("neither dummy nor veth");
}

fn index(client: &mut Client, name: &str) -> u32 {
    client.link(name).unwrap().unwrap_or_else(|| panic!("no {name}")).header.index
}

fn add(client: &mut Client, name: &str, ip: &str, prefix: u8, extra: &[AddressAttribute]) {
    let ip: IpAddr = ip.parse().unwrap();
    let mut address = AddressMessage::default();
    address.header.family = if ip.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
    address.header.prefix_len = prefix;
    address.header.index = index(client, name);
    address.attributes = vec![AddressAttribute::Local(ip), AddressAttribute::Address(ip)];
    address.attributes.extend_from_slice(extra);
    client.add_address(address).unwrap();
}

fn kept(client: &mut Client, name: &str) -> Vec<String> {
    let index = index(client, name);
    client.addresses(index).unwrap().iter().filter(|address| is_kept(address)).map(show).collect()
}

fn is_up(client: &mut Client, name: &str) -> bool {
    client.link(name).unwrap().unwrap().header.flags.contains(LinkFlags::Up)
}

#[test]
fn a_device_moves_with_name_addresses_and_attributes() {
    with_namespaces(|other| {
        let (mut host, mut inside) = (Client::here().unwrap(), Client::inside(other.as_fd()).unwrap());
        make(&mut host, "net7");
        let mut change = LinkMessage::default();
        change.header.index = index(&mut host, "net7");
        change.attributes.push(LinkAttribute::Mtu(1400));
        host.change(change).unwrap();
        let label = AddressAttribute::Label("net7:one".into());
        add(&mut host, "net7", "10.1.2.3", 24, &[label, AddressAttribute::Broadcast("10.1.2.255".parse().unwrap())]);
        add(&mut host, "net7", "10.1.2.4", 24, &[AddressAttribute::RoutePriority(77)]);
        add(&mut host, "net7", "fd00::7", 64, &[]);
        let mac = |link: LinkMessage| {
            link.attributes.into_iter().find(|attribute| matches!(attribute, LinkAttribute::Address(_))).unwrap()
        };
        let before = mac(host.link("net7").unwrap().unwrap());
        let Ok(_) = apply(&devices(&[("net7", Some("eth0"))]), other.as_fd()).map_err(|e| panic!("{e}"));
        assert!(host.link("net7").unwrap().is_none(), "still on the host");
        let link = inside.link("eth0").unwrap().unwrap();
        assert!(link.attributes.contains(&LinkAttribute::Mtu(1400)));
        assert_eq!(mac(link), before);
        assert!(is_up(&mut inside, "eth0"));
        assert_eq!(kept(&mut inside, "eth0"), ["10.1.2.3/24", "10.1.2.4/24", "fd00::7/64"]);
        let index = index(&mut inside, "eth0");
        let attributes: Vec<_> = inside.addresses(index).unwrap().into_iter().flat_map(|a| a.attributes).collect();
        assert!(attributes.contains(&AddressAttribute::Label("eth0:one".into())), "{attributes:?}");
        assert!(attributes.contains(&AddressAttribute::RoutePriority(77)));
    });
}

#[test]
fn names_with_a_number_to_be_found_are_unique() {
    with_namespaces(|other| {
        let (mut host, mut inside) = (Client::here().unwrap(), Client::inside(other.as_fd()).unwrap());
        for name in ["a0", "a1", "same"] {
            make(&mut host, name);
        }
        add(&mut host, "a1", "10.9.0.1", 16, &[]);
        // Takes the very index that one of the host's has.
        make(&mut inside, "eth0");
        let list = devices(&[("a0", Some("eth%d")), ("a1", Some("eth%d")), ("same", None)]);
        let Ok(_) = apply(&list, other.as_fd()).map_err(|e| panic!("{e}"));
        let names: BTreeSet<String> = inside
            .links()
            .unwrap()
            .iter()
            .filter_map(name_of)
            .filter(|n| n.starts_with("eth"))
            .map(Into::into)
            .collect();
        assert_eq!(names.len(), 3, "{names:?}");
        assert!(is_up(&mut inside, "same"));
        let with_address: Vec<_> = names.iter().filter(|name| kept(&mut inside, name) == ["10.9.0.1/16"]).collect();
        assert_eq!(with_address.len(), 1);
    });
}

#[test]
fn a_failure_brings_everything_back() {
    with_namespaces(|other| {
        let (mut host, mut inside) = (Client::here().unwrap(), Client::inside(other.as_fd()).unwrap());
        make(&mut host, "first");
        make(&mut host, "second");
        add(&mut host, "first", "10.3.0.1", 24, &[]);
        let first = index(&mut host, "first");
        set_up(&mut host, first).unwrap();
        make(&mut inside, "taken");
        let error = |list: &[(&str, Option<&str>)]| match apply(&devices(list), other.as_fd()) {
            Ok(_) => panic!("{list:?} should fail"),
            Err(error) => error.to_string(),
        };
        let text = error(&[("first", Some("x")), ("second", Some("taken"))]);
        assert!(text.starts_with("/linux/netDevices/second: the container has an interface taken already"), "{text}");
        assert!(error(&[("none", None)]).starts_with("/linux/netDevices/none: the host has no such interface"));
        assert!(error(&[("lo", Some("x"))]).contains("loopback"));
        // Two of a name: the second one fails after the first has moved.
        let text = error(&[("first", Some("x")), ("second", Some("x"))]);
        assert!(text.starts_with("/linux/netDevices/second: move it into the container as x: file exists"), "{text}");
        assert!(!text.contains("undone"), "{text}");
        assert_eq!(kept(&mut host, "first"), ["10.3.0.1/24"]);
        assert!(is_up(&mut host, "first") && !is_up(&mut host, "second"));
        assert!(inside.link("x").unwrap().is_none());
    });
}

#[test]
fn a_later_failure_can_undo() {
    with_namespaces(|other| {
        let mut host = Client::here().unwrap();
        make(&mut host, "net0");
        add(&mut host, "net0", "fd00::1", 64, &[]);
        let moved = apply(&devices(&[("net0", Some("eth9"))]), other.as_fd()).map_err(|e| panic!("{e}"));
        assert!(host.link("net0").unwrap().is_none());
        let Ok(()) = moved.map(|moved| moved.undo().unwrap());
        assert_eq!(kept(&mut host, "net0"), ["fd00::1/64"]);
        assert!(!is_up(&mut host, "net0"), "as it was");
    });
}

#[test]
fn the_hosts_own_namespace_is_refused() {
    with_namespaces(|_| {
        let error = apply(&devices(&[("x", None)]), netns().as_fd()).err().unwrap();
        assert!(error.to_string().contains("host's network namespace"));
    });
}

#[test]
fn only_permanent_global_addresses_are_kept() {
    let mut address = AddressMessage::default();
    address.header.flags = AddressHeaderFlags::Permanent;
    assert!(is_kept(&address));
    address.header.scope = AddressScope::Link;
    assert!(!is_kept(&address));
    let mut leased = AddressMessage::default();
    leased.attributes.push(AddressAttribute::Flags(AddressFlags::Noprefixroute));
    assert!(!is_kept(&leased));
}

#[test]
fn check_finds_each_problem() {
    let list = devices(&[
        ("a/b", None),
        ("dup1", Some("eth0")),
        ("dup2", Some("eth0")),
        ("even", Some("e%d")),
        ("fine", Some("e%d")),
        ("good", Some("")),
        ("lo", None),
        ("long", Some("a234567890140056")),
        ("over", Some("lo")),
        ("sign", Some("e%dx")),
    ]);
    let problems = check(&list, false);
    let pointers: Vec<_> = problems.iter().map(|problem| problem.pointer.as_str()).collect();
    assert_eq!(
        pointers,
        [
            "/linux/netDevices",
            "/linux/netDevices/a~1b",
            "/linux/netDevices/dup2",
            "/linux/netDevices/lo",
            "/linux/netDevices/long/name",
            "/linux/netDevices/over/name",
            "/linux/netDevices/sign/name"
        ],
        "{problems:?}"
    );
    assert!(check(&devices(&[("eth1", None)]), true).is_empty());
    assert!(check(&BTreeMap::new(), false).is_empty());
}
