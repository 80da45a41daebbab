//! The same test on each kind of broker: both reactors, one core and two.

use corelay::broker::{Io, ServerError};

/// On each reactor, and on one core and two.
pub fn everywhere<S>(start: impl Fn(Io, usize) -> Result<S, ServerError>, test: impl FnMut(S)) {
    on(&[1, 2], start, test);
}

/// On each reactor, and on so many cores. A reactor that can't be had here is skipped aloud; CI must have it.
pub fn on<S>(cores: &[usize], start: impl Fn(Io, usize) -> Result<S, ServerError>, mut test: impl FnMut(S)) {
    for io in [Io::Uring, Io::Epoll] {
        for &cores in cores {
            match start(io, cores) {
                Ok(started) => {
                    println!("on {io:?} with {cores} cores");
                    test(started);
                }
                Err(error) if std::env::var_os("CI").is_none() && io == Io::Uring => {
                    println!("SKIPPED on io_uring: {error}");
                }
                Err(error) => panic!("{io:?} with {cores} cores: {error}"),
            }
        }
    }
}
