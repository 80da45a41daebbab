//! Which handlers there are.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use super::event::ANY;
use super::handler::Erased;
use super::metrics::{HandlerCounts, TypeCounts};
use super::options::HandlerOptions;

/// Names a registration, to [remove](super::EventProcessor::remove) it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct HandlerId(u64);

/// A handler and what belongs to it.
pub(super) struct Entry {
    pub(super) id: HandlerId,
    pub(super) name: Arc<str>,
    pub(super) handler: Box<dyn Erased>,
    pub(super) options: HandlerOptions,
    pub(super) counts: Arc<HandlerCounts>,
}

/// The handlers of a type, as they are now: a list is replaced, never changed, so that whoever has it can go on.
#[derive(Clone)]
pub(super) struct Listed {
    pub(super) entries: Arc<[Arc<Entry>]>,
    /// Of the type.
    pub(super) counts: Arc<TypeCounts>,
}

#[derive(Default)]
pub(super) struct Registry {
    inner: RwLock<Inner>,
}

#[derive(Default)]
struct Inner {
    types: HashMap<Arc<str>, Listed>,
    any: Option<Listed>,
    next: u64,
}

impl Registry {
    pub(super) fn add(
        &self,
        event_type: &Arc<str>,
        counts: Arc<TypeCounts>,
        entry: impl FnOnce(HandlerId) -> Entry,
    ) -> HandlerId {
        let mut inner = self.write();
        let id = HandlerId(inner.next);
        inner.next += 1;
        let entry = Arc::new(entry(id));
        let append = |listed: Option<&Listed>| {
            let before = listed.map_or(&[][..], |listed| &listed.entries);
            Listed { entries: before.iter().cloned().chain([entry]).collect(), counts }
        };
        if &**event_type == ANY {
            inner.any = Some(append(inner.any.as_ref()));
        } else {
            let listed = append(inner.types.get(event_type));
            inner.types.insert(event_type.clone(), listed);
        }
        id
    }

    /// Whether it was there.
    pub(super) fn remove(&self, id: HandlerId) -> bool {
        let mut inner = self.write();
        let mut found = false;
        let mut without = |listed: &mut Listed| {
            if listed.entries.iter().any(|entry| entry.id == id) {
                found = true;
                listed.entries = listed.entries.iter().filter(|entry| entry.id != id).cloned().collect();
            }
            !listed.entries.is_empty()
        };
        inner.types.retain(|_, listed| without(listed));
        if inner.any.as_mut().is_some_and(|listed| !without(listed)) {
            inner.any = None;
        }
        found
    }

    /// The handlers of a type, and those of all types.
    pub(super) fn find(&self, event_type: &str) -> (Option<Listed>, Option<Listed>) {
        let inner = self.read();
        (inner.types.get(event_type).cloned(), inner.any.clone())
    }

    /// Handlers there are.
    pub(super) fn len(&self) -> usize {
        let inner = self.read();
        inner.types.values().chain(&inner.any).map(|listed| listed.entries.len()).sum()
    }

    fn read(&self) -> RwLockReadGuard<'_, Inner> {
        self.inner.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, Inner> {
        self.inner.write().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Registry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Registry").field("handlers", &self.len()).finish()
    }
}
