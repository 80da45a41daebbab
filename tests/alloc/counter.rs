//! An allocator that counts what one thread asks of it.

#![allow(unsafe_code)]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::sync::atomic::{AtomicI32, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use rustix::thread::Pid;

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// The thread that is watched; 0 for none.
static WATCHED: AtomicI32 = AtomicI32::new(0);
static COUNT: AtomicU64 = AtomicU64::new(0);
/// Bytes of the first allocations that were counted: they tell which they may be.
static SIZES: [AtomicUsize; 8] = [const { AtomicUsize::new(0) }; 8];
/// Tests run side by side, and one thread is watched at a time.
static ONE: Mutex<()> = Mutex::new(());

thread_local! {
    /// This thread's id, 0 until it is asked for. Needs no destructor, so it is there for the thread's last allocation.
    static THREAD: Cell<i32> = const { Cell::new(0) };
}

/// The system's allocator behind a count.
struct Counting;

impl Counting {
    fn count(size: usize) {
        let watched = WATCHED.load(Ordering::Relaxed);
        if watched == 0 || watched != this_thread() {
            return;
        }
        let before = COUNT.fetch_add(1, Ordering::Relaxed);
        if let Some(first) = SIZES.get(before as usize) {
            first.store(size, Ordering::Relaxed);
        }
    }
}

/// The calling thread's id; allocates nothing.
pub fn this_thread() -> i32 {
    THREAD.with(|thread| {
        if thread.get() == 0 {
            thread.set(Pid::as_raw(Some(rustix::thread::gettid())));
        }
        thread.get()
    })
}

// SAFETY: every call goes to the system's allocator with the caller's own arguments, so what that promises holds here;
// counting touches atomics and a thread-local without destructor, and neither allocates nor unwinds.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        Counting::count(layout.size());
        // SAFETY: the caller keeps to the trait's contract, which is the system allocator's.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        Counting::count(layout.size());
        // SAFETY: as in `alloc`.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        Counting::count(size);
        // SAFETY: as in `alloc`; `pointer` came from here, and so from the system's allocator.
        unsafe { System.realloc(pointer, layout, size) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: as in `realloc`.
        unsafe { System.dealloc(pointer, layout) }
    }
}

/// Counts one thread's allocations as long as it lives. There is one at a time: others wait for it.
pub struct Watch {
    _one: MutexGuard<'static, ()>,
}

impl Watch {
    pub fn thread(id: i32) -> Watch {
        // a test that failed holds nothing that matters
        let one = ONE.lock().unwrap_or_else(PoisonError::into_inner);
        COUNT.store(0, Ordering::Relaxed);
        WATCHED.store(id, Ordering::SeqCst);
        Watch { _one: one }
    }

    /// Allocations so far, and the sizes of the first of them.
    pub fn count(&self) -> (u64, Vec<usize>) {
        WATCHED.store(0, Ordering::SeqCst);
        let count = COUNT.load(Ordering::SeqCst);
        (count, SIZES.iter().take(count as usize).map(|size| size.load(Ordering::Relaxed)).collect())
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        WATCHED.store(0, Ordering::SeqCst);
    }
}

#[test]
fn the_watched_thread_is_counted_and_no_other() {
    let watch = Watch::thread(this_thread());
    let boxed = Box::new([1_u8; 77]);
    std::hint::black_box(&boxed);
    assert_eq!(watch.count(), (1, vec![77]));
    drop(watch);

    let watch = Watch::thread(std::thread::spawn(this_thread).join().expect("an id"));
    std::hint::black_box(Box::new([1_u8; 77]));
    assert_eq!(watch.count(), (0, vec![]));
}
