//! Questions and orders to rtnetlink(7), in the network namespace in which a client was made.

use crate::sys::{Errno, SysResult, files};
use netlink_packet_core::{
    NLM_F_ACK, NLM_F_CREATE, NLM_F_DUMP, NLM_F_DUMP_INTR, NLM_F_EXCL, NLM_F_REQUEST, NetlinkHeader, NetlinkMessage,
    NetlinkPayload,
};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::address::AddressMessage;
use netlink_packet_route::link::{LinkAttribute, LinkExtentMask, LinkMessage};
use netlink_sys::{Socket, SocketAddr, protocols::NETLINK_ROUTE};
use nix::fcntl::OFlag;
use nix::sched::{CloneFlags, setns};
use std::os::fd::{AsFd, BorrowedFd};

/// The largest answer that the kernel makes in one piece is half of this.
const ANSWER: usize = 64 << 10;

/// A connection to rtnetlink.
pub struct Client {
    socket: Socket,
    sequence: u32,
}

fn errno(error: &std::io::Error) -> Errno {
    error.raw_os_error().map_or(Errno::EIO, Errno::from_raw)
}

impl Client {
    /// A client in the calling thread's network namespace, where it stays.
    pub fn here() -> SysResult<Client> {
        let mut socket = Socket::new(NETLINK_ROUTE).map_err(|e| errno(&e))?;
        socket.bind_auto().map_err(|e| errno(&e))?;
        socket.connect(&SocketAddr::new(0, 0)).map_err(|e| errno(&e))?;
        Ok(Client { socket, sequence: 0 })
    }

    /// A client in another network namespace. A thread of its own enters it, so that the caller's stays where it is; the
    /// caller's goes and comes back where no thread is to be had, as under a filter that answers clone3(2) with `EPERM`.
    pub fn inside(netns: BorrowedFd) -> SysResult<Client> {
        let enter = |netns| setns(netns, CloneFlags::CLONE_NEWNET);
        let visit = || enter(netns).and_then(|()| Client::here());
        let found = std::thread::scope(|scope| {
            let there = std::thread::Builder::new().spawn_scoped(scope, visit).ok()?;
            Some(there.join().unwrap_or(Err(Errno::EIO)))
        });
        if let Some(found) = found {
            return found;
        }
        let own = files::open(None, c"/proc/thread-self/ns/net", OFlag::O_RDONLY)?;
        let found = visit();
        enter(own.as_fd()).and(found)
    }

    /// The interface of this name, if there is one.
    pub fn link(&mut self, name: &str) -> SysResult<Option<LinkMessage>> {
        let mut message = LinkMessage::default();
        message.attributes.push(LinkAttribute::IfName(name.into()));
        message.attributes.push(LinkAttribute::ExtMask(vec![LinkExtentMask::SkipStats]));
        match self.ask(RouteNetlinkMessage::GetLink(message), NLM_F_ACK) {
            Ok(answers) => Ok(links(answers).next()),
            Err(Errno::ENODEV) => Ok(None),
            Err(errno) => Err(errno),
        }
    }

    /// All interfaces.
    pub fn links(&mut self) -> SysResult<Vec<LinkMessage>> {
        self.ask(RouteNetlinkMessage::GetLink(LinkMessage::default()), NLM_F_DUMP)
            .map(|answers| links(answers).collect())
    }

    /// The addresses of an interface.
    pub fn addresses(&mut self, index: u32) -> SysResult<Vec<AddressMessage>> {
        let answers = self.ask(RouteNetlinkMessage::GetAddress(AddressMessage::default()), NLM_F_DUMP)?;
        let addresses = answers.into_iter().filter_map(|answer| match answer {
            RouteNetlinkMessage::NewAddress(address) => Some(address),
            _ => None,
        });
        Ok(addresses.filter(|address| address.header.index == index).collect())
    }

    /// Changes the interface that the message names.
    pub fn change(&mut self, link: LinkMessage) -> SysResult<()> {
        self.ask(RouteNetlinkMessage::SetLink(link), NLM_F_ACK).map(drop)
    }

    /// Makes an interface.
    #[cfg(test)]
    pub fn add_link(&mut self, link: LinkMessage) -> SysResult<()> {
        self.ask(RouteNetlinkMessage::NewLink(link), NLM_F_ACK | NLM_F_CREATE | NLM_F_EXCL).map(drop)
    }

    /// Adds an address.
    pub fn add_address(&mut self, address: AddressMessage) -> SysResult<()> {
        self.ask(RouteNetlinkMessage::NewAddress(address), NLM_F_ACK | NLM_F_CREATE | NLM_F_EXCL).map(drop)
    }

    /// Sends a request and collects the answers up to the acknowledgement or the end of the dump.
    fn ask(&mut self, request: RouteNetlinkMessage, flags: u16) -> SysResult<Vec<RouteNetlinkMessage>> {
        // A dump during which something changed is asked for again; somebody who changes things all the time ends that.
        for _ in 0..16 {
            if let Some(answers) = self.ask_once(request.clone(), flags)? {
                return Ok(answers);
            }
        }
        Err(Errno::EBUSY)
    }

    fn ask_once(&mut self, request: RouteNetlinkMessage, flags: u16) -> SysResult<Option<Vec<RouteNetlinkMessage>>> {
        self.sequence = self.sequence.wrapping_add(1);
        let mut header = NetlinkHeader::default();
        header.flags = NLM_F_REQUEST | flags;
        header.sequence_number = self.sequence;
        let mut message = NetlinkMessage::new(header, NetlinkPayload::from(request));
        message.finalize();
        let mut bytes = vec![0; message.buffer_len()];
        message.serialize(&mut bytes);
        self.socket.send(&bytes, 0).map_err(|e| errno(&e))?;
        let (mut answers, mut whole) = (Vec::new(), true);
        let mut buffer = Vec::with_capacity(ANSWER);
        loop {
            buffer.clear();
            match self.socket.recv(&mut buffer, 0) {
                Err(e) if errno(&e) == Errno::EINTR => continue,
                other => other.map_err(|e| errno(&e))?,
            };
            let mut rest = &buffer[..];
            while !rest.is_empty() {
                let message = NetlinkMessage::<RouteNetlinkMessage>::deserialize(rest).map_err(|_| Errno::EBADMSG)?;
                // Messages are padded to 4 bytes, the last one perhaps not.
                let step = (message.header.length as usize).next_multiple_of(4);
                rest = rest.get(step..).unwrap_or_default();
                if message.header.sequence_number != self.sequence {
                    continue;
                }
                whole &= message.header.flags & NLM_F_DUMP_INTR == 0;
                match message.payload {
                    NetlinkPayload::InnerMessage(answer) => answers.push(answer),
                    NetlinkPayload::Done(done) if done.code < 0 => return Err(Errno::from_raw(-done.code)),
                    NetlinkPayload::Done(_) => return Ok(whole.then_some(answers)),
                    NetlinkPayload::Error(error) => match error.raw_code() {
                        0 => return Ok(Some(answers)),
                        code => return Err(Errno::from_raw(-code)),
                    },
                    _ => {}
                }
            }
        }
    }
}

fn links(answers: Vec<RouteNetlinkMessage>) -> impl Iterator<Item = LinkMessage> {
    answers.into_iter().filter_map(|answer| match answer {
        RouteNetlinkMessage::NewLink(link) => Some(link),
        _ => None,
    })
}
