//! The broker core under a script of events: clients come, say anything, stall, go; the clock jumps; cores exchange.
//!
//! Where the simulation has clients that know what they may expect, this one has bytes that decide, and a fuzzer that
//! looks for bytes that reach new code. After each step `Core::check` and the world's own rules hold.

use std::time::Duration;

use corelay::base::ChannelId;
use corelay::base::limits::Limits;
use corelay::broker::core::{Channel, Options, Route};
use corelay::protocol::{Code, Flags, FrameType, Header, Hello, Role, VERSION};

use super::script::Script;
use crate::world::World;

/// Clients at a time.
const CLIENTS: usize = 6;
const CHANNELS: [&str; 2] = ["one", "two"];

/// A broker with limits small enough for a short script to run into.
pub(super) fn options(cores: u16) -> Options {
    let ms = Duration::from_millis;
    let limits = Limits {
        max_frame: 20_000,
        max_streams: 4,
        window: 200,
        max_window: 800,
        keepalive: ms(300),
        frame_timeout: ms(500),
        write_timeout: ms(800),
        handshake_timeout: ms(400),
        default_timeout: ms(1000),
        cancel_grace: ms(50),
        queue_requests: 3,
        queue_bytes: 1000,
        connection_buffer: 300,
        core_buffer: 20_000,
        drain_timeout: ms(200),
        ..Limits::default()
    };
    let id = ChannelId::named(CHANNELS[1]);
    let spread = Channel { id, spread: cores, window: None, queue_requests: None, queue_bytes: None };
    Options {
        core: 0,
        cores,
        server: uuid::Uuid::from_u128(9),
        seed: 7,
        secret: 11,
        limits,
        channels: if cores > 1 { vec![spread] } else { Vec::new() },
        copy_below: 40,
        routes: Vec::new(),
        tap_bytes: 600,
        access: Default::default(),
        meters: 1,
    }
}

/// Runs the script `data`.
///
/// # Panics
/// If the core breaks one of its rules.
pub fn broker(data: &[u8]) {
    let mut script = Script { left: data };
    let setting = script.byte();
    let cores = 1 + u16::from(setting % 3);
    let mut options = options(cores);
    if setting & 0x40 != 0 {
        let route = |block| Route { channels: None, requests: true, responses: true, block };
        options.routes = vec![route(false), route(true)];
    }
    let mut world = World::new(&options);
    world.ring_items = [1, 3, 16][usize::from(setting / 4 % 3)];
    world.item_bytes = [7, 4096][usize::from(setting / 16 % 2)];
    world.pressed = setting & 0x80 != 0;
    while !script.left.is_empty() {
        step(&mut world, &mut script, usize::from(cores));
        world.check();
    }
    wind_up(&mut world);
}

fn step(world: &mut World, script: &mut Script<'_>, cores: usize) {
    let [what, who] = [script.byte(), script.byte()];
    let open: Vec<usize> = (0..world.socks.len()).filter(|&sock| !world.socks[sock].gone).collect();
    let sock = usize::from(who).checked_rem(open.len()).map(|n| open[n]);
    let shard = usize::from(who) % cores;
    match (what % 20, sock) {
        (0 | 1, _) if open.len() < CLIENTS => {
            let sock = world.connect(shard);
            hello(world, sock, script.byte());
        }
        (2, _) if open.len() < CLIENTS => drop(world.connect(shard)),
        (3..=8, Some(sock)) => frame(world, sock, script),
        (9, Some(sock)) => {
            let bytes = script.bytes(40);
            write(world, sock, bytes);
        }
        (10, Some(sock)) => world.socks[sock].fin = true,
        // reads no more than so many bytes; or everything
        (11, Some(sock)) => world.socks[sock].room = world.socks[sock].down.len() + usize::from(script.byte()),
        (12, Some(sock)) => {
            world.socks[sock].down.clear();
            world.socks[sock].room = usize::MAX;
        }
        (13, Some(sock)) => {
            let n = usize::from(script.byte());
            world.deliver(sock, n);
            world.complete(sock, n.max(1));
            world.writable(sock);
        }
        (14, _) => {
            world.turn(shard, usize::from(script.byte() % 4));
            world.doze(shard);
            world.check_wakeups();
        }
        (15, _) => world.pass(Duration::from_millis(u64::from(script.byte()) * 4)),
        (16, _) if what == 16 => {
            // each core by itself: they are told at different times
            let now = world.now;
            match who {
                0..8 => world.shards[shard].core.drain(now),
                8 => world.shards[shard].core.abort(now),
                // copies wait, and one producer or the other has no room
                who => {
                    world.shards[shard].companion.stalled = who & 1 == 0;
                    world.shards[shard].companion.full = u64::from(who >> 1 & 3);
                }
            }
            world.wake(shard);
        }
        (17, _) => {
            world.settle_once(1 + usize::from(script.byte()));
        }
        _ => {
            world.settle(1 + usize::from(script.byte()) * 8);
        }
    }
}

fn write(world: &mut World, sock: usize, bytes: &[u8]) {
    if !world.socks[sock].fin {
        world.socks[sock].up.extend(bytes);
    }
}

fn hello(world: &mut World, sock: usize, how: u8) {
    let role = if how & 1 == 0 { Role::Consumer } else { Role::Provider };
    let hello = Hello {
        version: VERSION,
        role,
        features: 0,
        channel: ChannelId::named(CHANNELS[usize::from(how >> 1 & 1)]),
        client: uuid::Uuid::from_u128(5),
        window: [0, 1, 50, 5000][usize::from(how >> 2 & 3)],
        max_concurrent: u32::from(role == Role::Provider) * (1 + u32::from(how >> 4 & 3)),
        token: Default::default(),
        name: "fuzz".into(),
    };
    let mut frame = Vec::new();
    hello.encode(&mut frame).expect("nothing in it is too long");
    write(world, sock, &frame);
}

/// A frame that may belong there: its head and how much of its body there is are the script's.
fn frame(world: &mut World, sock: usize, script: &mut Script<'_>) {
    let [kind, flags, stream, arg] = [(); 4].map(|()| script.byte());
    let kind = if kind < 250 { 3 + kind % 9 } else { kind };
    let mut payload = Vec::new();
    if kind == FrameType::Request as u8 {
        payload.extend([arg; 16]);
    }
    if flags & Flags::HEADERS.0 != 0 && arg % 4 != 0 {
        payload.extend([4, 0, 1, b'k', 0, 0]);
    }
    payload.extend(script.bytes(60));
    // large bodies take another way than small ones
    let more = if arg & 0x40 != 0 { usize::from(arg & 0x3f) * 16 } else { 0 };
    payload.extend(std::iter::repeat_n(arg, more));
    let code = if kind == FrameType::Cancel as u8 { Code::Cancelled.to_wire() } else { u16::from(arg % 18) };
    let header = Header {
        length: payload.len() as u32,
        kind,
        flags: Flags(flags),
        code,
        stream: u32::from(stream % 7),
        arg: if arg == 255 { u32::MAX } else { u32::from(arg) * 3 },
    };
    let mut bytes = header.encode().to_vec();
    bytes.extend(payload);
    write(world, sock, &bytes);
}

/// Everybody leaves, and nothing may be left behind.
fn wind_up(world: &mut World) {
    for shard in &mut world.shards {
        (shard.companion.stalled, shard.companion.full) = (false, 0);
    }
    for sock in &mut world.socks {
        sock.fin = true;
        sock.room = usize::MAX;
    }
    for _ in 0..4 {
        world.settle(usize::MAX);
        world.check();
        world.pass(Duration::from_secs(40));
        (0..world.shards.len()).for_each(|shard| world.wake(shard));
    }
    world.settle(usize::MAX);
    world.check_empty();
}
