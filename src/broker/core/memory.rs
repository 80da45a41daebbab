//! The bound on held memory: `core_buffer`.

use super::{Action, Core};
use crate::base::Key;
use crate::protocol::Code;

impl Core {
    /// Ends what holds most until the bound is kept (§4), with a little room below it, so that one look at all
    /// requests pays for many bytes.
    pub(super) fn shed(&mut self) {
        let bound = self.options.limits.core_buffer;
        let target = bound - bound / 64;
        let mut all: Vec<(usize, Key)> = self.requests.iter().map(|(key, request)| (request.heap(), key)).collect();
        all.sort_unstable_by(|a, b| b.cmp(a));
        for (bytes, key) in all {
            if self.held <= target {
                return;
            }
            // ending one may have ended others
            if self.requests.get(key).is_some() {
                self.shed_request(key, bytes);
            }
        }
        while self.held > bound && self.shed_connection() {}
    }

    fn shed_request(&mut self, key: Key, bytes: usize) {
        let request = self.requests.get(key).expect("looked up by the caller");
        let channel = self.channels[request.channel as usize].id;
        self.actions.push_back(Action::ReportShed { id: request.id, channel, bytes });
        self.counters.shed += 1;
        self.end_request(key, Code::Overloaded, "the broker's buffers are full (core_buffer)");
    }

    /// No stream holds anything: the connection that has most output waiting, and takes none, is closed.
    fn shed_connection(&mut self) -> bool {
        let blocked = self.conns.iter().filter(|(_, conn)| !conn.side.is_link() && conn.out.is_blocked());
        let Some((_, key)) = blocked.map(|(key, conn)| (conn.out.counted, key)).max() else { return false };
        self.counters.connections_failed[usize::from(Code::Overloaded.to_wire())] += 1;
        self.note_expelled(key, Code::Overloaded, "most output waits for it (core_buffer)");
        self.close(key, true);
        true
    }
}
