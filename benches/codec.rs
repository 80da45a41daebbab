//! Frames to bytes and back.

mod common;

use std::hint::black_box;

use common::frames::{hello, requests, response};
use corelay::base::ChannelId;
use corelay::protocol::{
    Flags, FrameType, HEADER_LEN, Header, Hello, Role, VERSION, Welcome, check_header_block, encode_headers,
    iter_headers,
};
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use uuid::Uuid;

const FRAMES: u32 = 1024;

/// The headers of whole frames that stand one behind the other.
fn headers(mut bytes: &[u8]) -> impl Iterator<Item = Header> {
    std::iter::from_fn(move || {
        let (header, rest) = bytes.split_first_chunk::<HEADER_LEN>()?;
        let header = Header::decode(header);
        bytes = &rest[header.length as usize..];
        Some(header)
    })
}

fn frames(c: &mut Criterion) {
    let mut group = c.benchmark_group("codec");
    group.throughput(Throughput::Elements(u64::from(FRAMES)));
    let mut out = Vec::new();
    for kind in [FrameType::Data, FrameType::Credit, FrameType::Error] {
        group.bench_function(format!("encode {kind:?} headers"), |b| {
            b.iter(|| {
                out.clear();
                for stream in 0..FRAMES {
                    let header = Header::new(black_box(kind), stream).flags(Flags::END).length(64).arg(stream);
                    out.extend_from_slice(&header.encode());
                }
            });
        });
    }
    group.bench_function("encode RESPONSEs of 64 bytes", |b| {
        b.iter(|| {
            out.clear();
            (0..FRAMES).for_each(|stream| response(stream, black_box(64), &mut out));
        });
    });
    group.bench_function("encode REQUESTs of 64 bytes", |b| b.iter(|| requests(FRAMES, black_box(64), Flags::NONE)));
    let bytes = requests(FRAMES, 64, Flags::NONE);
    group.bench_function("decode REQUESTs of 64 bytes", |b| {
        b.iter(|| {
            let requests = headers(black_box(&bytes)).filter(|header| header.frame_type() == Some(FrameType::Request));
            assert_eq!(requests.count(), FRAMES as usize);
        });
    });
    group.finish();
}

fn handshake(c: &mut Criterion) {
    let mut group = c.benchmark_group("codec");
    group.throughput(Throughput::Elements(1));
    let mut frame = hello(Role::Provider, 65536, 8);
    group.bench_function("decode HELLO", |b| b.iter(|| Hello::decode(black_box(&frame[HEADER_LEN..]))));
    let said = Hello::decode(&frame[HEADER_LEN..]).expect("what was encoded");
    group.bench_function("encode HELLO", |b| {
        b.iter(|| {
            frame.clear();
            black_box(&said).encode(&mut frame)
        });
    });
    let welcome = Welcome {
        version: VERSION,
        core: 0,
        cores: 1,
        features: 0,
        server: Uuid::nil(),
        window: 65536,
        max_frame: 1 << 20,
        max_streams: 1024,
        keepalive_ms: 15_000,
        default_timeout_ms: 30_000,
    };
    frame.clear();
    welcome.encode(&mut frame);
    group.bench_function("decode WELCOME", |b| b.iter(|| Welcome::decode(black_box(&frame[HEADER_LEN..]))));
    group.bench_function("encode WELCOME", |b| {
        b.iter(|| {
            frame.clear();
            black_box(&welcome).encode(&mut frame);
        });
    });
    group.bench_function("channel id of a name", |b| b.iter(|| ChannelId::named(black_box("thumbnails"))));
    group.finish();
}

fn blocks(c: &mut Criterion) {
    let mut group = c.benchmark_group("codec");
    let entries = [
        ("traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"),
        ("content-type", "application/json"),
        ("event-type", "order.created"),
    ];
    group.throughput(Throughput::Elements(entries.len() as u64));
    let mut block = Vec::new();
    group.bench_function("encode a block of 3 headers", |b| {
        b.iter(|| {
            block.clear();
            encode_headers(black_box(entries), &mut block).expect("entries that can be sent");
        });
    });
    block.clear();
    encode_headers(entries, &mut block).expect("entries that can be sent");
    group.bench_function("check it", |b| b.iter(|| check_header_block(black_box(&block[2..]))));
    group.bench_function("read it", |b| b.iter(|| iter_headers(black_box(&block[2..])).count()));
    group.finish();
}

criterion_group!(benches, frames, handshake, blocks);
criterion_main!(benches);
