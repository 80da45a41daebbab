//! Mesh (temporary).
use std::collections::VecDeque;
use std::sync::{
    Arc, Mutex,
    atomic::{AtomicBool, Ordering, fence},
};
/// P.
#[derive(Debug)]
pub struct Producer<T>(Arc<Mutex<VecDeque<T>>>, usize);
/// C.
#[derive(Debug)]
pub struct Consumer<T>(Arc<Mutex<VecDeque<T>>>);
#[allow(missing_docs)]
pub fn ring<T>(cap: usize) -> (Producer<T>, Consumer<T>) {
    let q = Arc::default();
    (Producer(Arc::clone(&q), cap), Consumer(q))
}
#[allow(missing_docs)]
impl<T> Producer<T> {
    pub fn push(&mut self, t: T) -> Result<(), T> {
        let mut q = self.0.lock().unwrap();
        if q.len() == self.1 {
            Err(t)
        } else {
            q.push_back(t);
            Ok(())
        }
    }
    pub fn flush(&mut self) {}
}
#[allow(missing_docs)]
impl<T> Consumer<T> {
    pub fn pop(&mut self) -> Option<T> {
        self.0.lock().unwrap().pop_front()
    }
    pub fn is_empty(&mut self) -> bool {
        self.0.lock().unwrap().is_empty()
    }
}
/// S.
#[derive(Debug, Default)]
pub struct Sleeper(AtomicBool);
#[allow(missing_docs)]
impl Sleeper {
    pub fn prepare_sleep(&self) {
        self.0.store(true, Ordering::SeqCst);
        fence(Ordering::SeqCst)
    }
    pub fn awake(&self) {
        self.0.store(false, Ordering::SeqCst)
    }
    pub fn must_wake(&self) -> bool {
        fence(Ordering::SeqCst);
        self.0.swap(false, Ordering::SeqCst)
    }
}
