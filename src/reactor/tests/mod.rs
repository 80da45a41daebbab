//! What both reactors must do, on real sockets. Each test below runs on every reactor of `suite!`.

mod closing;
mod harness;
mod isolated;
mod listening;
mod receiving;
mod sending;
mod waking;

use super::*;

/// Runs the tests on a reactor made by `$make`.
macro_rules! suite {
    ($name:ident, $make:expr) => {
        mod $name {
            use super::*;

            suite!(@tests $make,
                closing: a_blocked_send_does_not_delay_it, what_was_sent_arrives_before_the_end,
                    nothing_is_received_afterwards, a_farewell_is_not_slept_over, an_abort_resets, unread_bytes_cause_no_reset,
                    a_stale_socket_is_ignored, dropping_a_reactor_ends_everything;
                listening: connections_come_in, stopping_frees_the_port;
                receiving: once_then_stream, once_upgraded_while_armed, fin_and_half_open, reset,
                    few_buffers_serve_many, held_buffers_park_and_resume, many_at_once_again_and_again,
                    moving_to_another_reactor;
                sending: a_whole_send_is_reported_once, a_large_one_is_reported_before_sleeping,
                    mixed_segments_arrive_in_order, refused_sends_are_never_taken_for_whole,
                    to_a_peer_that_is_gone, nothing_at_all, more_stretches_than_one_send_takes;
                waking: from_another_thread, from_another_reactor, before_the_wait, a_timeout_passes,
                    spinning_hears_as_well;
            );
        }
    };
    (@tests $make:expr, $($module:ident: $($test:ident),*;)*) => {
        $($(
            #[test]
            fn $test() {
                super::$module::$test(&$make);
            }
        )*)*
    };
}

suite!(uring, |options: Options| Uring::new(&options).expect("io_uring"));
suite!(uring_with_completions, |options: Options| {
    Uring::with_send_mode(&options, SendMode::Completions).expect("io_uring")
});
suite!(epoll, |options: Options| Epoll::new(&options).expect("epoll"));
