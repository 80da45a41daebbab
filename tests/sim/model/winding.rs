//! How a client ends what is open, at the end of a run, and what must be true then.

use super::*;

impl Client {
    /// Does everything that ends what is open. Says whether it did anything.
    pub(crate) fn wind_up(&mut self, world: &mut World, shared: &mut Shared) -> bool {
        let mut moved = self.read(world, shared, usize::MAX);
        if self.dead || self.error_seen {
            return moved;
        }
        if self.hostile {
            self.leave(world, shared, true);
            return true;
        }
        if !self.hello_sent {
            self.hello(world, shared);
            return true;
        }
        let ids: Vec<u32> = self.streams.keys().copied().collect();
        for id in ids {
            moved |= self.wind_up_stream(world, shared, id);
        }
        moved
    }

    pub(super) fn wind_up_stream(&mut self, world: &mut World, shared: &mut Shared, id: u32) -> bool {
        let stream = self.streams.get_mut(&id).expect("in use");
        stream.hangs = false;
        let need = stream.recv.owed > 0 || stream.recv.granted == 0;
        if need && self.grant_all(world, id) {
            return true;
        }
        let consumer = self.is_consumer();
        let stream = self.streams.get_mut(&id).expect("in use");
        if consumer {
            if stream.send.ended || stream.cancelled {
                return false;
            }
            if stream.terminal {
                stream.cancelled = true;
                self.send(world, Header::new(FrameType::Cancel, id).code(Code::Cancelled), &[]);
                self.drop_if_free(id);
                return true;
            }
            let len = shared.specs[stream.number as usize].up_len;
            return self.more(world, id, len, self.habits.chunk.max(4000), false);
        }
        if stream.terminal {
            return false;
        }
        if stream.number == FOREIGN || stream.cancelled {
            self.fail(world, id, shared, "cancelled");
            return true;
        }
        if !stream.recv.ended && !stream.send.begun {
            return false;
        }
        self.answer(world, id, shared, self.habits.chunk.max(4000), false)
    }

    pub(super) fn grant_all(&mut self, world: &mut World, id: u32) -> bool {
        let consumer = self.is_consumer();
        let stream = self.streams.get_mut(&id).expect("in use");
        let wanted = if consumer { !stream.terminal } else { !stream.recv.ended && !stream.terminal };
        let n = stream.recv.owed.max(if stream.recv.granted == 0 { 1000 } else { 0 });
        if n == 0 || !wanted || stream.cancelled {
            return false;
        }
        stream.recv.granted += n;
        stream.recv.owed = 0;
        self.send(world, Header::new(FrameType::Credit, id).arg(n as u32), &[]);
        true
    }

    /// Requests on its connection without an outcome.
    pub(crate) fn open_requests(&self) -> Vec<u64> {
        self.streams.values().filter(|stream| !stream.terminal).map(|stream| stream.number).collect()
    }

    /// All it sent has been read: too much is not put up with.
    pub(crate) fn check_flood(&self) {
        assert!(!self.flooded || self.dead, "{self} floods, and its connection goes on");
    }

    /// Having read all there is, a provider knows of every request that has ended without it.
    pub(crate) fn check_cancels(&self, shared: &Shared, cores: usize) {
        if self.role != Role::Provider || self.dead || self.hostile || self.error_seen {
            return;
        }
        for stream in self.streams.values().filter(|stream| !stream.terminal && stream.number != FOREIGN) {
            let spec = &shared.specs[stream.number as usize];
            let ended = match spec.outcome {
                // another core may have answered a one-way request when its deadline passed here
                Some(Outcome::Failed(_)) => cores == 1 || !spec.flags.has(Flags::ONEWAY),
                // a one-way request may have been answered without its consumer having read so
                Some(Outcome::Lost) => !spec.flags.has(Flags::ONEWAY) && !spec.hostile,
                _ => false,
            };
            let number = stream.number;
            assert!(stream.cancelled || !ended, "{self}: request {number} has ended, and no CANCEL came: {spec:?}");
        }
    }
}
