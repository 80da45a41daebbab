//! Where one message ends and the next begins on a stream, and whether it comes in an envelope.
//!
//! | `framing` | on the stream | a connection that breaks in the middle of a message |
//! |---|---|---|
//! | `len32` | u32 big endian, the length of what follows; then the message | the reader sees that it is cut short: it has not arrived |
//! | `lines` | the message and a line feed | as above, for a reader that takes only what has its line feed |
//! | `raw` | the message | nobody can tell: it is in doubt |
//!
//! `envelope=json` makes the message an envelope ([`super::envelope`]), which has neither line feeds nor a limit of what
//! can be said, so with `len32` and `lines` a target takes messages in [parts](super::Part), too.

use super::url::{Url, UrlError};
use super::{Message, SendError, SendErrorKind, envelope};

/// How messages are told apart.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Framing {
    /// A length before each.
    #[default]
    Len32,
    /// A line feed behind each.
    Lines,
    /// Not at all.
    Raw,
}

/// What a message looks like to its target.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Format {
    /// How messages are told apart.
    pub framing: Framing,
    /// Whether they come in [envelopes](super::envelope).
    pub envelope: bool,
}

impl Format {
    /// The options `framing` and `envelope`.
    pub(super) fn from_url(url: &mut Url, framing: Framing) -> Result<Format, UrlError> {
        let words = [("len32", Framing::Len32), ("lines", Framing::Lines), ("raw", Framing::Raw)];
        let framing = url.choice("framing", &words, framing)?;
        Ok(Format { framing, envelope: envelope_from_url(url)? })
    }

    /// Whether a target can be told that a message comes in parts.
    #[must_use]
    pub fn takes_parts(self) -> bool {
        self.envelope && self.framing != Framing::Raw
    }

    /// Whether a reader knows a message cut short from a whole one.
    pub(super) fn shows_cuts(self) -> bool {
        self.framing != Framing::Raw
    }

    /// Appends a message; on an error nothing.
    ///
    /// # Errors
    /// [`SendErrorKind::Rejected`] for a line feed in what is to be a line, [`SendErrorKind::TooLarge`] for more than
    /// a length can say.
    pub fn encode(self, message: &Message, out: &mut Vec<u8>) -> Result<(), SendError> {
        let start = out.len();
        if self.framing == Framing::Len32 {
            out.extend_from_slice(&[0; 4]);
        }
        if self.envelope {
            envelope::write(message, None, out);
        } else {
            out.extend_from_slice(&message.body);
        }
        let result = self.finish(start, out);
        if result.is_err() {
            out.truncate(start);
        }
        result
    }

    fn finish(self, start: usize, out: &mut Vec<u8>) -> Result<(), SendError> {
        match self.framing {
            Framing::Raw => {}
            Framing::Lines if out[start..].contains(&b'\n') => {
                let text = "a body with a line feed is not one line; envelope=json could carry it";
                return Err(SendError::new(SendErrorKind::Rejected, text));
            }
            Framing::Lines => out.push(b'\n'),
            Framing::Len32 => {
                let len = u32::try_from(out.len() - start - 4).map_err(|_| {
                    SendError::new(SendErrorKind::TooLarge, "4 GiB or more, which framing=len32 can't say")
                })?;
                out[start..start + 4].copy_from_slice(&len.to_be_bytes());
            }
        }
        Ok(())
    }
}

/// The option `envelope`.
pub(super) fn envelope_from_url(url: &mut Url) -> Result<bool, UrlError> {
    url.choice("envelope", &[("none", false), ("json", true)], false)
}

/// Several messages in one buffer, and where each ends.
#[derive(Debug, Default)]
pub(super) struct Encoded {
    pub(super) bytes: Vec<u8>,
    pub(super) ends: Vec<usize>,
    /// Why the one after the last has not been encoded.
    pub(super) error: Option<SendError>,
}

impl Encoded {
    /// As many as can be, in order.
    pub(super) fn new(format: Format, messages: &[Message]) -> Encoded {
        let mut encoded = Encoded::default();
        for message in messages {
            match format.encode(message, &mut encoded.bytes) {
                Ok(()) => encoded.ends.push(encoded.bytes.len()),
                Err(error) => {
                    encoded.error = Some(error);
                    break;
                }
            }
        }
        encoded
    }

    /// How many are whole within so many bytes.
    pub(super) fn whole_within(&self, written: usize) -> usize {
        self.ends.partition_point(|end| *end <= written)
    }

    /// Whether so many bytes end in the middle of a message.
    pub(super) fn is_cut(&self, written: usize) -> bool {
        let whole = self.whole_within(written);
        written > whole.checked_sub(1).map_or(0, |last| self.ends[last])
    }
}

#[cfg(test)]
#[path = "tests/framing.rs"]
mod tests;
