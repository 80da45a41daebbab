//! What a reader decodes is what was sent: whatever the pieces it comes in, and wherever connections break.

use proptest::prelude::*;

use super::*;

/// A reader of one connection, as a target would write it.
fn decode(format: Format, mut stream: &[u8]) -> Vec<Vec<u8>> {
    let mut messages = Vec::new();
    match format.framing {
        Framing::Len32 => {
            while let Some((len, rest)) = stream.split_first_chunk::<4>() {
                let len = u32::from_be_bytes(*len) as usize;
                let Some((message, rest)) = rest.split_at_checked(len) else { break };
                messages.push(message.to_vec());
                stream = rest;
            }
        }
        Framing::Lines => {
            let lines = stream.split_inclusive(|byte| *byte == b'\n');
            messages.extend(lines.filter_map(|line| line.strip_suffix(b"\n")).map(<[u8]>::to_vec));
        }
        Framing::Raw => messages.push(stream.to_vec()),
    }
    if format.envelope {
        messages = messages.iter().map(|message| envelope::decode(message).unwrap().body.to_vec()).collect();
    }
    messages
}

fn any_format() -> impl Strategy<Value = Format> {
    (prop::sample::select(vec![Framing::Len32, Framing::Lines]), any::<bool>())
        .prop_map(|(framing, envelope)| Format { framing, envelope })
}

proptest! {
    #[test]
    fn what_is_read_is_what_was_sent_wherever_connections_break(
        format in any_format(),
        bodies in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..40), 0..12),
        breaks in proptest::collection::vec(0..200_usize, 0..6),
    ) {
        let bodies: Vec<Vec<u8>> = bodies
            .into_iter()
            .map(|body| match format {
                Format { framing: Framing::Lines, envelope: false } => body.into_iter().filter(|b| *b != b'\n').collect(),
                _ => body,
            })
            .collect();
        let mut left: Vec<Message> = bodies.iter().cloned().map(Message::from).collect();
        let mut received = Vec::new();
        // each connection takes so many bytes; what is whole within them has been delivered, the rest is sent again
        for written in breaks.into_iter().chain([usize::MAX]) {
            let encoded = Encoded::new(format, &left);
            prop_assert!(encoded.error.is_none());
            let written = written.min(encoded.bytes.len());
            let whole = encoded.whole_within(written);
            received.extend(decode(format, &encoded.bytes[..written]));
            prop_assert_eq!(encoded.is_cut(written), whole < left.len() && written > if whole == 0 { 0 } else { encoded.ends[whole - 1] });
            left.drain(..whole);
        }
        prop_assert_eq!(received, bodies);
    }
}

#[test]
fn a_line_feed_is_no_line() {
    let format = Format { framing: Framing::Lines, envelope: false };
    let messages = ["one", "two\n", "three"].map(Message::from);
    let encoded = Encoded::new(format, &messages);
    assert_eq!((&encoded.bytes[..], &encoded.ends[..]), (&b"one\n"[..], &[4][..]));
    assert_eq!(encoded.error.unwrap().kind(), SendErrorKind::Rejected);
    let encoded = Encoded::new(Format { envelope: true, ..format }, &messages);
    assert_eq!((encoded.ends.len(), encoded.error), (3, None));
}

#[test]
fn parts_are_for_those_that_can_be_told() {
    for (framing, envelope, parts) in [
        (Framing::Len32, true, true),
        (Framing::Lines, true, true),
        (Framing::Raw, true, false),
        (Framing::Len32, false, false),
        (Framing::Lines, false, false),
    ] {
        assert_eq!(Format { framing, envelope }.takes_parts(), parts);
    }
}
