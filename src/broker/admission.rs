//! Who may connect: limits over all cores. Touched when connections come and go, never on a request's way.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU32, Ordering};

use crate::base::limits::Limits;

/// Connections counted over all cores.
#[derive(Debug)]
pub(super) struct Admission {
    max: u32,
    /// 0: no limit per address.
    max_per_ip: u32,
    total: AtomicU32,
    /// Of them, in their handshake; counted once a turn.
    strangers: AtomicU32,
    per_ip: Mutex<HashMap<IpAddr, u32>>,
}

impl Admission {
    pub(super) fn new(limits: &Limits) -> Admission {
        Admission {
            max: limits.max_connections,
            max_per_ip: limits.max_connections_per_ip,
            total: AtomicU32::new(0),
            strangers: AtomicU32::new(0),
            per_ip: Mutex::default(),
        }
    }

    /// Counts a connection in, unless it is refused: those take up to two seconds to close, and a crowd of them must
    /// not keep the places of those who left.
    ///
    /// # Errors
    /// Why it is refused.
    pub(super) fn enter(&self, ip: Option<IpAddr>) -> Result<(), String> {
        let total = self.total.fetch_add(1, Ordering::Relaxed);
        let here = ip.map_or(0, |ip| self.count(ip, |count| *count += 1));
        let admitted = self.admit(ip, total, here);
        if admitted.is_err() {
            self.leave(ip);
        }
        admitted
    }

    fn admit(&self, ip: Option<IpAddr>, total: u32, here: u32) -> Result<(), String> {
        if total >= self.max {
            return Err(format!("{} connections are open (max_connections)", self.max));
        }
        // addresses of this machine are exempt, or one proxy on it would be the limit of everybody behind it
        if self.max_per_ip > 0 && here > self.max_per_ip && ip.is_some_and(|ip| !ip.is_loopback()) {
            return Err(format!("{} connections from this address (max_connections_per_ip)", self.max_per_ip));
        }
        Ok(())
    }

    /// Counts out a connection that was counted in.
    pub(super) fn leave(&self, ip: Option<IpAddr>) {
        self.total.fetch_sub(1, Ordering::Relaxed);
        if let Some(ip) = ip {
            self.count(ip, |count| *count -= 1);
        }
    }

    /// A core's connections in their handshake were so many, and are so many now.
    pub(super) fn count_strangers(&self, before: u32, now: u32) {
        if before != now {
            // wraps on purpose: a count that shrinks adds its difference modulo 2^32
            self.strangers.fetch_add(now.wrapping_sub(before), Ordering::Relaxed);
        }
    }

    /// Connections in their handshake, over all cores.
    pub(super) fn strangers(&self) -> u32 {
        self.strangers.load(Ordering::Relaxed)
    }

    fn count(&self, ip: IpAddr, change: impl FnOnce(&mut u32)) -> u32 {
        if self.max_per_ip == 0 {
            return 0;
        }
        let mut per_ip = self.per_ip.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let count = per_ip.entry(ip).or_default();
        change(count);
        let now = *count;
        if now == 0 {
            per_ip.remove(&ip);
        }
        now
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_limits_hold_and_what_leaves_makes_room() {
        let limits = Limits { max_connections: 3, max_connections_per_ip: 2, ..Limits::default() };
        let admission = Admission::new(&limits);
        let far = Some("192.0.2.1".parse().unwrap());
        assert!(admission.enter(far).is_ok());
        assert!(admission.enter(far).is_ok());
        assert!(admission.enter(far).unwrap_err().contains("max_connections_per_ip"));
        assert!(admission.enter(None).is_ok());
        // however many are refused, one that leaves makes room
        for _ in 0..10 {
            assert!(admission.enter(None).unwrap_err().contains("max_connections"));
        }
        admission.leave(far);
        assert!(admission.enter(far).is_ok());
        for ip in [far, far, None] {
            admission.leave(ip);
        }
        assert!(admission.per_ip.lock().unwrap().is_empty());
        assert!(admission.enter(far).is_ok());
    }

    #[test]
    fn this_machine_is_exempt() {
        let limits = Limits { max_connections_per_ip: 1, ..Limits::default() };
        let admission = Admission::new(&limits);
        let local = Some("127.0.0.1".parse().unwrap());
        assert!((0..10).all(|_| admission.enter(local).is_ok()));
    }
}
