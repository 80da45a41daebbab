//! A load thread's connections.

use std::os::fd::OwnedFd;

use crate::pump::Out;

/// The connections a thread drives, after their handshakes.
#[derive(Debug)]
pub struct Conns<C, P> {
    /// Consumers, with how many requests each may have in flight.
    pub consumers: Vec<(OwnedFd, C, u32)>,
    /// Providers.
    pub providers: Vec<(OwnedFd, P)>,
}

#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Slot {
    pub(super) intended: u64,
    pub(super) sent: u64,
    pub(super) size: u64,
    pub(super) busy: bool,
}

/// A connection's output, and whether it stands in the list of those to be flushed.
#[derive(Debug, Default)]
pub(super) struct Line {
    pub(super) out: Out,
    pub(super) dirty: bool,
    pub(super) ended: bool,
}

#[derive(Debug)]
pub(super) struct ConsumerConn<C> {
    pub(super) wire: C,
    pub(super) line: Line,
    pub(super) slots: Vec<Slot>,
    pub(super) free: Vec<u32>,
}

#[derive(Debug)]
pub(super) struct ProviderConn<P> {
    pub(super) wire: P,
    pub(super) line: Line,
}

impl Line {
    fn new() -> Line {
        Line { out: Out::with_capacity(4096), ..Line::default() }
    }
}

/// Connections taken apart: the sockets, consumers first, and what belongs to each.
type Parts<C, P> = (Vec<OwnedFd>, Vec<ConsumerConn<C>>, Vec<ProviderConn<P>>);

impl<C, P> Conns<C, P> {
    pub(super) fn into_parts(self) -> Parts<C, P> {
        let mut sockets = Vec::new();
        let mut consumers = Vec::new();
        for (fd, wire, slots) in self.consumers {
            sockets.push(fd);
            // the last is taken first: low numbers are the busy ones
            let (free, slots) = ((0..slots).rev().collect(), vec![Slot::default(); slots as usize]);
            consumers.push(ConsumerConn { wire, line: Line::new(), slots, free });
        }
        let mut providers = Vec::new();
        for (fd, wire) in self.providers {
            sockets.push(fd);
            providers.push(ProviderConn { wire, line: Line::new() });
        }
        (sockets, consumers, providers)
    }
}

#[inline]
pub(super) fn mark(line: &mut Line, conn: u32, dirty: &mut Vec<u32>) {
    if !line.dirty {
        line.dirty = true;
        dirty.push(conn);
    }
}

#[inline]
pub(super) fn line<'a, C, P>(
    consumers: &'a mut [ConsumerConn<C>],
    providers: &'a mut [ProviderConn<P>],
    conn: u32,
) -> &'a mut Line {
    match (conn as usize).checked_sub(consumers.len()) {
        None => &mut consumers[conn as usize].line,
        Some(provider) => &mut providers[provider].line,
    }
}
