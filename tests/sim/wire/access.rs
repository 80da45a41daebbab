//! Scripts with a list of who may do what.

use std::rc::Rc;
use std::sync::Arc;

use corelay::auth::AccessList;
use corelay::base::limits::Limits;
use corelay::broker::core::Counters;

use super::{Client, World};

impl World {
    /// A broker with this list of who may do what.
    pub(crate) fn guarded(cores: u16, access: AccessList) -> World {
        let w = World::cores(cores, Limits::default(), Vec::new());
        w.set_access(access);
        w
    }

    /// From now on this list says who may do what.
    pub(crate) fn set_access(&self, access: AccessList) {
        self.inner.borrow_mut().set_access(&Arc::new(access));
        self.settle();
    }

    /// One core reads all that waits there; the others stand still.
    pub(crate) fn turn_of(&self, shard: usize) {
        let mut world = self.inner.borrow_mut();
        for sock in 0..world.socks.len() {
            if world.socks[sock].shard == shard {
                world.deliver(sock, usize::MAX);
            }
        }
        world.turn(shard, usize::MAX);
    }

    pub(crate) fn all_counters(&self) -> Vec<Counters> {
        self.inner.borrow().shards.iter().map(|shard| shard.core.counters().clone()).collect()
    }

    /// A connection whose peer showed a certificate with this name.
    pub(crate) fn connect_as(&self, identity: &str) -> Client {
        let mut world = self.inner.borrow_mut();
        let sock = world.connect(0);
        let key = world.socks[sock].key;
        world.shards[0].core.identified(key, identity);
        drop(world);
        self.settle();
        Client { world: self.clone(), sock, rx: Rc::default() }
    }
}
