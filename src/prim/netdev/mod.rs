//! `linux.netDevices` (runtime-spec 1.3): interfaces of the host moved into the container's network namespace.
//!
//! They keep their permanent global addresses, which the kernel drops on the way, and are set up. Nobody takes them back at
//! the end: when the namespace goes the kernel moves physical ones to the initial namespace and destroys virtual ones.

mod rtnl;

use crate::error::{Context, Error, Kind, Problem, Result};
use crate::spec::NetDevice;
use crate::sys::{Errno, SysResult};
use netlink_packet_route::address::{AddressAttribute, AddressFlags, AddressHeaderFlags, AddressMessage, AddressScope};
use netlink_packet_route::link::{LinkAttribute, LinkFlags, LinkMessage};
use nix::fcntl::{OFlag, open};
use nix::sys::stat::{Mode, fstat};
use rtnl::Client;
use std::collections::{BTreeMap, BTreeSet};
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};

const AT: &str = "/linux/netDevices";

/// Flags that the kernel finds for an address by itself, and does not want to be told.
const FOUND: AddressFlags = AddressFlags::Secondary
    .union(AddressFlags::Optimistic)
    .union(AddressFlags::Dadfailed)
    .union(AddressFlags::Deprecated)
    .union(AddressFlags::Tentative)
    .union(AddressFlags::Permanent)
    .union(AddressFlags::StablePrivacy);

/// Finds what is wrong with `linux.netDevices`; `has_namespace`: whether the container has a network namespace of its own.
pub fn check(devices: &BTreeMap<String, NetDevice>, has_namespace: bool) -> Vec<Problem> {
    let mut problems = Vec::new();
    if !devices.is_empty() && !has_namespace {
        problems.push(Problem::new(AT, "needs a namespace of type network in /linux/namespaces"));
    }
    let mut names = BTreeSet::new();
    for (host, device) in devices {
        let at = pointer(host);
        if host == "lo" {
            problems.push(Problem::new(&at, "the loopback interface belongs to its namespace and can't be moved"));
        } else if let Some(what) = bad_name(host).or(host.contains('%').then_some("must not contain %")) {
            problems.push(Problem::new(&at, format!("is no name of an interface: {what}")));
        }
        let name = inner_name(host, device);
        let stem = name.strip_suffix("%d").unwrap_or(name);
        if let Some(name) = &device.name
            && let Some(what) = bad_name(name)
                .filter(|_| !name.is_empty())
                .or(stem.contains('%').then_some("only a %d at the end stands for a number"))
        {
            problems.push(Problem::new(format!("{at}/name"), format!("is no name of an interface: {what}")));
        } else if name == "lo" && host != "lo" {
            problems.push(Problem::new(format!("{at}/name"), "lo exists in every network namespace"));
        } else if stem == name && !names.insert(name) {
            let what =
                format!("another device is to be called {name}, too; a name that ends with %d gets a free number");
            problems.push(Problem::new(at, what));
        }
    }
    problems
}

/// What the kernel has against a name (`dev_valid_name`).
fn bad_name(name: &str) -> Option<&'static str> {
    match name {
        "" => Some("must not be empty"),
        "." | ".." => Some("must not be a directory"),
        _ if name.len() > 15 => Some("must not be longer than 15 bytes"),
        _ if name.contains(|c: char| c == '/' || c == ':' || c == '\0' || c.is_ascii_whitespace()) => {
            Some("must not contain /, : or white space")
        }
        _ => None,
    }
}

/// The name in the container; Go writes `""` for none.
fn inner_name<'n>(host: &'n str, device: &'n NetDevice) -> &'n str {
    device.name.as_deref().filter(|name| !name.is_empty()).unwrap_or(host)
}

fn pointer(host: &str) -> String {
    format!("{AT}/{}", host.replace('~', "~0").replace('/', "~1"))
}

/// An interface, as the host had it.
struct Device {
    name: String,
    index: u32,
    up: bool,
    addresses: Vec<AddressMessage>,
    /// The index in the container, once it is there.
    inside: Option<u32>,
}

/// Devices that were moved; [`Moved::undo`] brings them back.
pub struct Moved {
    home: OwnedFd,
    host: Client,
    container: Client,
    devices: Vec<Device>,
}

/// Moves interfaces from the calling thread's network namespace into the container's, under their new names, with their
/// permanent global addresses, and sets them up. Needs CAP_NET_ADMIN in both and CAP_SYS_ADMIN over the container's.
///
/// # Errors
/// With the device's JSON pointer; then all of them are back.
pub fn apply(devices: &BTreeMap<String, NetDevice>, netns: BorrowedFd) -> Result<Moved> {
    let during = || format!("{AT}: open the network namespaces");
    let home = open("/proc/thread-self/ns/net", OFlag::O_RDONLY | OFlag::O_CLOEXEC, Mode::empty()).during(during)?;
    let (ours, theirs) = (fstat(&home).during(during)?, fstat(netns).during(during)?);
    if (ours.st_dev, ours.st_ino) == (theirs.st_dev, theirs.st_ino) {
        return Err(Error::invalid(format!("{AT}: the container is in the host's network namespace")));
    }
    let (host, container) = (Client::here().during(during)?, Client::inside(netns).during(during)?);
    let mut moved = Moved { home, host, container, devices: Vec::new() };
    // All are looked at before any is moved.
    let mut found = Vec::new();
    for (name, device) in devices {
        let inner = inner_name(name, device);
        found.push((moved.look(name, inner).during(|| pointer(name))?, inner));
    }
    for (device, inner) in found {
        let at = pointer(&device.name);
        if let Err(error) = moved.take(device, inner, netns) {
            let error = error.context(at);
            return Err(match moved.undo() {
                Ok(()) => error,
                Err(undone) => error.hint(format!("and could not be undone: {undone}")),
            });
        }
    }
    Ok(moved)
}

impl Moved {
    /// Finds a device of the host, and that it may be moved.
    fn look(&mut self, name: &str, inner: &str) -> Result<Device> {
        let link = self.host.link(name).during(|| "look it up".into())?;
        let link = link.ok_or_else(|| Error::new(Kind::Other, "the host has no such interface"))?;
        if link.header.flags.contains(LinkFlags::Loopback) {
            return Err(Error::invalid("a loopback interface belongs to its namespace and can't be moved"));
        }
        if !inner.ends_with("%d")
            && self.container.link(inner).during(|| format!("look {inner} up in the container"))?.is_some()
        {
            return Err(Error::invalid(format!("the container has an interface {inner} already"))
                .hint("a name that ends with %d gets a free number"));
        }
        let index = link.header.index;
        let mut addresses = self.host.addresses(index).during(|| "list its addresses".into())?;
        addresses.retain(is_kept);
        Ok(Device { name: name.into(), index, up: link.header.flags.contains(LinkFlags::Up), addresses, inside: None })
    }

    /// Moves one device.
    fn take(&mut self, mut device: Device, inner: &str, netns: BorrowedFd) -> Result<()> {
        let before: BTreeSet<u32> = self.indexes()?;
        let mut order = LinkMessage::default();
        order.header.index = device.index;
        order.attributes.push(LinkAttribute::NetNsFd(netns.as_raw_fd()));
        if inner != device.name {
            order.attributes.push(LinkAttribute::IfName(inner.into()));
        }
        let ordered = self.host.change(order);
        let after = self.container.links().during(|| "list the container's interfaces".into())?;
        let fresh = || after.iter().filter(|link| !before.contains(&link.header.index));
        // The index stays if it is free there; otherwise the one that was not there before is ours.
        let arrived = fresh().find(|link| link.header.index == device.index).or_else(|| fresh().next());
        let name = arrived.and_then(name_of).unwrap_or_default().to_owned();
        device.inside = arrived.map(|link| link.header.index);
        let Device { inside, addresses, name: old, .. } = &device;
        let (inside, addresses, old) = (*inside, addresses.clone(), old.clone());
        if inside.is_some() {
            // A move can succeed whose renaming fails: recorded first, so that it is undone either way.
            self.devices.push(device);
        }
        ordered.during(|| format!("move it into the container as {inner}")).map_err(|error| match error.kind() {
            Kind::Os(Errno::EINVAL) => error.hint("this kind of interface belongs to its namespace and can't be moved"),
            Kind::Os(Errno::EPERM) => error.hint("it takes CAP_NET_ADMIN in the host's network namespace"),
            _ => error,
        })?;
        let index = inside.ok_or_else(|| Error::new(Kind::Other, "it did not arrive in the container"))?;
        for address in addresses {
            let shown = show(&address);
            let address = renamed(address, index, &old, &name);
            self.container.add_address(address).during(|| format!("add its address {shown} again"))?;
        }
        set_up(&mut self.container, index).during(|| "set it up".into())
    }

    fn indexes(&mut self) -> Result<BTreeSet<u32>> {
        let links = self.container.links().during(|| "list the container's interfaces".into())?;
        Ok(links.iter().map(|link| link.header.index).collect())
    }

    /// Moves the devices back to where they came from, with their old names, addresses and state. For a create that fails
    /// later on; routes are not restored.
    ///
    /// # Errors
    /// The first device that could not be brought back; the others are.
    pub fn undo(mut self) -> Result<()> {
        let mut result = Ok(());
        for device in std::mem::take(&mut self.devices).into_iter().rev() {
            let back = self.bring_back(&device).during(|| format!("{}: move it back", pointer(&device.name)));
            result = result.and(back);
        }
        result
    }

    fn bring_back(&mut self, device: &Device) -> SysResult<()> {
        let mut order = LinkMessage::default();
        order.header.index = device.inside.unwrap_or_default();
        order.attributes.push(LinkAttribute::NetNsFd(self.home.as_raw_fd()));
        order.attributes.push(LinkAttribute::IfName(device.name.clone()));
        self.container.change(order)?;
        let link = self.host.link(&device.name)?.ok_or(Errno::ENODEV)?;
        for address in &device.addresses {
            self.host.add_address(renamed(address.clone(), link.header.index, "", ""))?;
        }
        if device.up { set_up(&mut self.host, link.header.index) } else { Ok(()) }
    }
}

fn set_up(client: &mut Client, index: u32) -> SysResult<()> {
    let mut order = LinkMessage::default();
    order.header.index = index;
    order.header.flags = LinkFlags::Up;
    order.header.change_mask = LinkFlags::Up;
    client.change(order)
}

fn name_of(link: &LinkMessage) -> Option<&str> {
    link.attributes.iter().find_map(|attribute| match attribute {
        LinkAttribute::IfName(name) => Some(name.as_str()),
        _ => None,
    })
}

/// All of an address's flags; those of the header are the lowest eight.
fn flags_of(address: &AddressMessage) -> AddressFlags {
    let long = address.attributes.iter().find_map(|attribute| match attribute {
        AddressAttribute::Flags(flags) => Some(*flags),
        _ => None,
    });
    long.unwrap_or(AddressFlags::from_bits_retain(address.header.flags.bits().into()))
}

/// The spec: permanent ones of global scope, of any family.
fn is_kept(address: &AddressMessage) -> bool {
    address.header.scope == AddressScope::Universe && flags_of(address).contains(AddressFlags::Permanent)
}

/// The order for an address on the interface of another index and name, without what the kernel finds by itself.
fn renamed(mut address: AddressMessage, index: u32, old: &str, new: &str) -> AddressMessage {
    let flags = flags_of(&address).difference(FOUND);
    address.header.index = index;
    address.header.flags = AddressHeaderFlags::from_bits_retain(flags.bits() as u8);
    address.attributes = address
        .attributes
        .into_iter()
        .filter_map(|attribute| match attribute {
            // A label starts with the interface's name: `eth0:1`.
            AddressAttribute::Label(label) if old != new => {
                let label = format!("{new}{}", label.strip_prefix(old)?);
                (label.len() <= 15).then_some(AddressAttribute::Label(label))
            }
            AddressAttribute::Address(_)
            | AddressAttribute::Local(_)
            | AddressAttribute::Label(_)
            | AddressAttribute::Broadcast(_)
            | AddressAttribute::RoutePriority(_)
            | AddressAttribute::Protocol(_) => Some(attribute),
            _ => None,
        })
        .collect();
    if !flags.is_empty() {
        address.attributes.push(AddressAttribute::Flags(flags));
    }
    address
}

fn show(address: &AddressMessage) -> String {
    let ip = |wanted: fn(&AddressAttribute) -> Option<std::net::IpAddr>| address.attributes.iter().find_map(wanted);
    let local = ip(|a| if let AddressAttribute::Local(ip) = a { Some(*ip) } else { None });
    let local = local.or_else(|| ip(|a| if let AddressAttribute::Address(ip) = a { Some(*ip) } else { None }));
    local.map_or_else(String::new, |ip| format!("{ip}/{}", address.header.prefix_len))
}

#[cfg(test)]
mod tests;
