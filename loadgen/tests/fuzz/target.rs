//! What the load generator's two ends make of a broker's bytes, however these are cut.

use loadgen::frames::{FrameConsumer, FrameProvider, Terms};
use loadgen::pump::Out;
use loadgen::size::Size;
use loadgen::wire::{Broken, Consumer, Done, HIGH_WATER, Provider};

const SLOTS: u32 = 4;
/// No body of the script's is longer: what is to be sent must not be what takes the time.
const LONGEST: u64 = 5000;
/// Answers that go in one frame, and in several.
const AT_ONCE: u64 = 50;
const STREAMED: u64 = 150;

fn terms() -> Terms {
    Terms { may_send: 200, takes: 100, chunk: 60, timeout_ms: 9 }
}

/// The first byte is the role, the second how the bytes are cut.
///
/// # Panics
/// If they mean something else in pieces than they do whole.
pub fn loadgen(data: &[u8]) {
    let [role, cut, bytes @ ..] = data else { return };
    let pieces = 1 + usize::from(cut % 40);
    if role % 2 == 0 {
        let sizes = [u64::from(*role), u64::from(*cut) * 10, 0, LONGEST];
        assert_eq!(consumer(bytes, usize::MAX, &sizes), consumer(bytes, pieces, &sizes));
    } else if role & 2 == 0 {
        // an answer in one frame ends its stream at once, so nothing depends on when it is written
        assert_eq!(provider(bytes, usize::MAX, AT_ONCE), provider(bytes, pieces, AT_ONCE));
    } else {
        let _ = provider(bytes, pieces, STREAMED);
    }
}

/// Which requests ended how, or why the connection did.
fn consumer(bytes: &[u8], piece: usize, sizes: &[u64]) -> (Done, Result<(), Broken>) {
    let (mut consumer, mut out, mut done) = (FrameConsumer::new(terms(), SLOTS, 7), Out::default(), Done::new());
    (0..SLOTS).zip(sizes).for_each(|(slot, &size)| consumer.request(slot, size, &mut out));
    for part in bytes.chunks(piece.min(bytes.len()).max(1)) {
        if let Err(broken) = consumer.receive(part, &mut out, &mut done) {
            return (done, Err(broken));
        }
        consumer.resume(&mut out);
    }
    assert!(done.iter().all(|&(slot, _)| slot < SLOTS), "{done:?}");
    assert_eq!(done.len(), done.iter().map(|(slot, _)| slot).collect::<std::collections::BTreeSet<_>>().len());
    (done, Ok(()))
}

/// How many requests were answered, or why the connection ended.
fn provider(bytes: &[u8], piece: usize, answer: u64) -> Result<u64, Broken> {
    let (mut provider, mut out) = (FrameProvider::new(terms(), Size::Fixed(answer), 7), Out::default());
    let mut answered = 0;
    for part in bytes.chunks(piece.min(bytes.len()).max(1)) {
        answered += provider.receive(part, &mut out)?;
        provider.resume(&mut out);
        assert!(out.len() < HIGH_WATER + bytes.len() * 200, "{} bytes for {}", out.len(), bytes.len());
    }
    Ok(answered)
}
