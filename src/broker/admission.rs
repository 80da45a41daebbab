//! Who may connect: limits over all cores. Touched when connections come and go, never on a request's way.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, PoisonError};

use super::core::Refused;
use crate::base::limits::Limits;

/// Connections counted over all cores.
#[derive(Debug)]
pub(super) struct Admission {
    max: u32,
    max_strangers: u32,
    /// 0: no limit per address.
    max_per_ip: u32,
    max_strangers_per_ip: u32,
    limit_loopback: bool,
    total: AtomicU32,
    /// Of them, those that have not been sent WELCOME.
    strangers: AtomicU32,
    places: Mutex<HashMap<IpAddr, Counts>>,
}

/// The connections from one place.
#[derive(Clone, Copy, Debug, Default)]
struct Counts {
    all: u32,
    strangers: u32,
}

/// A connection as it is counted; whoever has it gives it back to [`Admission::leave`] once.
#[derive(Debug)]
pub(super) struct Counted {
    /// Where it comes from, if that is limited.
    place: Option<IpAddr>,
    stranger: bool,
}

impl Admission {
    pub(super) fn new(limits: &Limits) -> Admission {
        Admission {
            max: limits.max_connections,
            max_strangers: limits.max_unauthenticated,
            max_per_ip: limits.max_connections_per_ip,
            max_strangers_per_ip: limits.max_unauthenticated_per_ip,
            limit_loopback: limits.limit_loopback,
            total: AtomicU32::new(0),
            strangers: AtomicU32::new(0),
            places: Mutex::default(),
        }
    }

    /// Counts a connection in, unless it is refused: those take up to two seconds to close, and a crowd of them must
    /// not keep the places of those who left.
    ///
    /// # Errors
    /// Why it is refused.
    pub(super) fn enter(&self, ip: Option<IpAddr>) -> Result<Counted, Refused> {
        let place = ip.filter(|ip| self.is_limited(*ip)).map(place_of);
        let total = self.total.fetch_add(1, Ordering::Relaxed) + 1;
        let strangers = self.strangers.fetch_add(1, Ordering::Relaxed) + 1;
        let here = place.map_or(Counts::default(), |place| {
            self.count(place, |counts| {
                counts.all += 1;
                counts.strangers += 1;
            })
        });
        let counted = Counted { place, stranger: true };
        let over = |count: u32, max: u32| max > 0 && count > max;
        let why = if over(total, self.max) {
            Refused::MaxConnections
        } else if over(here.all, self.max_per_ip) {
            Refused::MaxConnectionsPerIp
        } else if over(strangers, self.max_strangers) {
            Refused::MaxUnauthenticated
        } else if over(here.strangers, self.max_strangers_per_ip) {
            Refused::MaxUnauthenticatedPerIp
        } else {
            return Ok(counted);
        };
        self.leave(counted);
        Err(why)
    }

    /// The connection has been sent WELCOME.
    pub(super) fn welcomed(&self, counted: &mut Counted) {
        if std::mem::replace(&mut counted.stranger, false) {
            self.strangers.fetch_sub(1, Ordering::Relaxed);
            if let Some(place) = counted.place {
                self.count(place, |counts| counts.strangers -= 1);
            }
        }
    }

    /// Counts a connection out.
    pub(super) fn leave(&self, mut counted: Counted) {
        self.welcomed(&mut counted);
        self.total.fetch_sub(1, Ordering::Relaxed);
        if let Some(place) = counted.place {
            self.count(place, |counts| counts.all -= 1);
        }
    }

    fn is_limited(&self, ip: IpAddr) -> bool {
        (self.max_per_ip > 0 || self.max_strangers_per_ip > 0) && (self.limit_loopback || !ip.is_loopback())
    }

    fn count(&self, place: IpAddr, change: impl FnOnce(&mut Counts)) -> Counts {
        let mut places = self.places.lock().unwrap_or_else(PoisonError::into_inner);
        let counts = places.entry(place).or_default();
        change(counts);
        let now = *counts;
        if now.all == 0 {
            places.remove(&place);
        }
        now
    }
}

/// What counts as one address: an IPv4 address, or an IPv6 /64, of which one host can use any part.
fn place_of(ip: IpAddr) -> IpAddr {
    match ip {
        IpAddr::V4(_) => ip,
        IpAddr::V6(v6) => IpAddr::V6(Ipv6Addr::from_bits(v6.to_bits() & !u128::from(u64::MAX))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(text: &str) -> Option<IpAddr> {
        Some(text.parse().unwrap())
    }

    #[test]
    fn each_limit_holds_and_what_leaves_makes_room() {
        let limits = Limits {
            max_connections: 5,
            max_connections_per_ip: 3,
            max_unauthenticated: 4,
            max_unauthenticated_per_ip: 2,
            ..Limits::default()
        };
        let admission = Admission::new(&limits);
        let (far, other) = (ip("192.0.2.1"), ip("192.0.2.2"));
        let enter = |ip| admission.enter(ip);
        let refused = |ip| admission.enter(ip).expect_err("a full place");
        let (mut first, mut second) = (enter(far).unwrap(), enter(far).unwrap());
        assert_eq!(refused(far), Refused::MaxUnauthenticatedPerIp);
        admission.welcomed(&mut first);
        admission.welcomed(&mut first);
        let third = enter(far).expect("one of three is no stranger");
        admission.welcomed(&mut second);
        assert_eq!(refused(far), Refused::MaxConnectionsPerIp);
        let mut others = vec![enter(other).unwrap(), enter(None).unwrap()];
        assert_eq!(refused(None), Refused::MaxConnections);
        // however many are refused, one that leaves makes room
        for _ in 0..10 {
            assert_eq!(refused(other), Refused::MaxConnections);
        }
        admission.leave(first);
        others.push(enter(None).unwrap());
        admission.leave(second);
        assert_eq!(refused(None), Refused::MaxUnauthenticated);
        others.into_iter().chain([third]).for_each(|counted| admission.leave(counted));
        assert!(admission.places.lock().unwrap().is_empty());
        assert_eq!((admission.total.into_inner(), admission.strangers.into_inner()), (0, 0));
    }

    #[test]
    fn half_of_each_limit_is_free_of_it() {
        let limits = Limits { max_connections_per_ip: 4, max_unauthenticated_per_ip: 4, ..Limits::default() };
        let admission = Admission::new(&limits);
        let far = ip("192.0.2.1");
        assert!((0..2).map(|_| admission.enter(far)).all(|admitted| admitted.is_ok()));
    }

    #[test]
    fn an_ipv6_network_is_one_address() {
        let limits = Limits { max_connections_per_ip: 2, ..Limits::default() };
        let admission = Admission::new(&limits);
        assert!(admission.enter(ip("2001:db8::1")).is_ok());
        assert!(admission.enter(ip("2001:db8::2")).is_ok());
        assert_eq!(admission.enter(ip("2001:db8::ffff:1:2:3")).unwrap_err(), Refused::MaxConnectionsPerIp);
        assert!(admission.enter(ip("2001:db8:0:1::1")).is_ok());
    }

    #[test]
    fn this_machine_is_exempt_unless_it_is_not_to_be() {
        let limits = Limits { max_connections_per_ip: 1, max_unauthenticated_per_ip: 1, ..Limits::default() };
        let enter = |limits: &Limits| {
            let admission = Admission::new(limits);
            [ip("127.0.0.1"), ip("127.0.0.1"), None, None].map(|ip| admission.enter(ip).is_ok())
        };
        assert_eq!(enter(&limits), [true; 4]);
        assert_eq!(enter(&Limits { limit_loopback: true, ..limits }), [true, false, true, true]);
    }
}
