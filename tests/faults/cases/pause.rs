//! The broker is stopped for longer than every timeout there is: nobody may be condemned for it.

use std::thread;
use std::time::Duration;

use corelay::protocol::Flags;
use rustix::process::Signal;

use crate::peers::{CHANNEL, assert_echo, consumer_hello, echoes, echoing, request_frame};
use crate::run::eventually;
use crate::site::Site;
use crate::wire::Wire;

// what a client does before the pause must be done within these times, on a busy machine too
pub const SETTINGS: &[&str] = &[
    "--set",
    "limits.handshake_timeout=4s",
    "--set",
    "limits.frame_timeout=4s",
    "--set",
    "limits.write_timeout=4s",
    "--set",
    "limits.keepalive=4s",
];

/// What a client is doing when the broker stops.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Doing {
    /// Nothing: it is due for a PING.
    Idle,
    /// It has sent half a header; the rest follows in the pause.
    HalfAHeader,
    /// It has connected; HELLO follows in the pause.
    NoHello,
    /// A request, which the provider answers in the pause.
    Request,
}

const BODY: &[u8] = b"through the pause";

pub fn pause(site: &mut Site) -> String {
    let pause = Duration::from_secs(site.scale(5, 10));
    let provider = echoing(site.addr, 2000);
    let each = site.scale(150, 500);
    let before = site.usage().descriptors;
    let doing = [Doing::Idle, Doing::HalfAHeader, Doing::Request];
    let greeted = doing.into_iter().flat_map(|doing| std::iter::repeat_n(doing, each));
    let mut crowd: Vec<(Doing, Wire)> = greeted.map(|doing| (doing, Wire::consumer(site.addr, CHANNEL))).collect();
    // more than a reactor is told of at once; and these last, whose time runs already
    crowd.extend((0..1200).map(|_| (Doing::NoHello, Wire::raw(site.addr))));
    let frame = request_frame(7, BODY);
    for (doing, wire) in &mut crowd {
        match doing {
            Doing::HalfAHeader => wire.write(&frame[..8]),
            Doing::Request => wire.write(&frame),
            Doing::Idle | Doing::NoHello => {}
        }
    }
    // it has accepted them all, and has nothing to do: it is stopped in its sleep
    eventually("all to be accepted", || site.usage().descriptors >= before + crowd.len());
    site.broker.process.signal(Signal::STOP);
    for (doing, wire) in &mut crowd {
        match doing {
            Doing::HalfAHeader => wire.write(&frame[8..]),
            Doing::NoHello => wire.write(&consumer_hello()),
            Doing::Idle | Doing::Request => {}
        }
    }
    // and some come only now, to a broker that does not accept
    for _ in 0..each {
        let mut wire = Wire::raw(site.addr);
        wire.write(&consumer_hello());
        crowd.push((Doing::NoHello, wire));
    }
    thread::sleep(pause);
    site.broker.process.signal(Signal::CONT);
    for (doing, wire) in &mut crowd {
        match doing {
            Doing::HalfAHeader | Doing::Request => assert_echo(wire, BODY),
            Doing::NoHello => wire.finish_hello(),
            Doing::Idle => {}
        }
    }
    // everybody is still there, and served
    for (n, (_, wire)) in crowd.iter_mut().enumerate() {
        echoes(wire, n as u128, b"after it");
    }
    let mut late = Wire::consumer(site.addr, CHANNEL);
    late.request(1, 1, b"a newcomer", Flags::NONE);
    assert_echo(&mut late, b"a newcomer");
    drop(provider);
    format!("of {} clients none was condemned, {} requests answered", crowd.len(), 2 * each + crowd.len() + 1)
}
