//! One state for each file of this process: the producers of several cores write to the same one.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, Weak};

/// What is known of files, while somebody has them.
pub(super) struct ByPath<T>(Mutex<BTreeMap<PathBuf, Weak<Mutex<T>>>>);

impl<T> ByPath<T> {
    pub(super) const fn new() -> ByPath<T> {
        ByPath(Mutex::new(BTreeMap::new()))
    }

    /// That of the file at this path, which need not exist; made if nobody has it.
    pub(super) fn get(&self, path: &Path, make: impl FnOnce() -> T) -> Arc<Mutex<T>> {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        known.retain(|_, state| state.strong_count() > 0);
        let name = name(path);
        if let Some(state) = known.get(&name).and_then(Weak::upgrade) {
            return state;
        }
        let state = Arc::new(Mutex::new(make()));
        known.insert(name, Arc::downgrade(&state));
        state
    }
}

/// The same for all ways to write a path, as far as its directory exists.
fn name(path: &Path) -> PathBuf {
    let whole = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    match (whole.parent().and_then(|parent| parent.canonicalize().ok()), whole.file_name()) {
        (Some(parent), Some(file)) => parent.join(file),
        _ => whole,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_has_one_state_however_it_is_written() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("sub")).unwrap();
        let states = ByPath::new();
        let first = states.get(&dir.path().join("log"), || 1);
        let same = states.get(&dir.path().join("sub/../log"), || 2);
        let other = states.get(&dir.path().join("sub/log"), || 3);
        assert!(Arc::ptr_eq(&first, &same) && !Arc::ptr_eq(&first, &other));
        drop((first, same));
        assert_eq!(*states.get(&dir.path().join("log"), || 4).lock().unwrap(), 4, "nobody had it any more");
    }
}
