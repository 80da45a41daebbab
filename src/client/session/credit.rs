//! Credit in body bytes, both ways (§4).

use crate::protocol::MAX_CREDIT;

/// What this side may still send on a stream.
#[derive(Debug)]
pub(super) struct SendCredit(u32);

impl SendCredit {
    pub(super) fn new(window: u32) -> SendCredit {
        SendCredit(window)
    }

    pub(super) fn left(&self) -> usize {
        self.0 as usize
    }

    /// More was granted. `false` for a grant of nothing, or beyond what may be outstanding.
    #[must_use]
    pub(super) fn grant(&mut self, n: u32) -> bool {
        match self.0.checked_add(n) {
            Some(sum) if n > 0 && sum <= MAX_CREDIT => {
                self.0 = sum;
                true
            }
            _ => false,
        }
    }

    pub(super) fn spend(&mut self, n: usize) {
        assert!(n <= self.left(), "{n} bytes sent with credit for {}", self.0);
        self.0 -= n as u32;
    }
}

/// What the other side may still send on a stream, and what its user has taken and it has not been told yet.
#[derive(Debug)]
pub(super) struct RecvCredit {
    window: u32,
    allowed: u32,
    taken: u32,
}

impl RecvCredit {
    pub(super) fn new(window: u32) -> RecvCredit {
        RecvCredit { window, allowed: window, taken: 0 }
    }

    /// Bytes came. `false` if they were more than granted.
    #[must_use]
    pub(super) fn receive(&mut self, n: usize) -> bool {
        match u32::try_from(n).ok().and_then(|n| self.allowed.checked_sub(n)) {
            Some(left) => {
                self.allowed = left;
                true
            }
            None => false,
        }
    }

    /// The user took `n` bytes. What to grant now, if it is worth a frame: from half a window on.
    pub(super) fn take(&mut self, n: usize) -> Option<u32> {
        self.taken += n as u32;
        if self.taken < self.window.div_ceil(2) {
            return None;
        }
        self.allowed += self.taken;
        Some(std::mem::take(&mut self.taken))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn grants_have_bounds() {
        let mut credit = SendCredit::new(10);
        assert!(!credit.grant(0));
        assert!(!credit.grant(MAX_CREDIT - 9));
        assert!(!credit.grant(u32::MAX));
        assert!(credit.grant(MAX_CREDIT - 10));
        assert_eq!(credit.left(), MAX_CREDIT as usize);
    }

    #[test]
    fn what_is_taken_is_granted_again_in_halves() {
        let mut credit = RecvCredit::new(10);
        assert!(credit.receive(10));
        assert!(!credit.receive(1));
        assert_eq!(credit.take(4), None);
        assert_eq!(credit.take(1), Some(5));
        assert!(credit.receive(5));
        assert!(!credit.receive(1));
    }

    #[test]
    fn a_window_of_one_byte_works() {
        let mut credit = RecvCredit::new(1);
        for _ in 0..3 {
            assert!(credit.receive(1));
            assert_eq!(credit.take(1), Some(1));
        }
    }
}
