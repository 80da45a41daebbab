//! What handlers return.

use std::fmt::Display;

/// What a handler of `Provider::serve` or of a group's messages may return: nothing,
/// or a `Result` whose error fails the request, or has the message delivered again.
pub trait Outcome: Send + 'static {
    /// What went wrong, if something did.
    fn failure(self) -> Option<String>;
}

impl Outcome for () {
    fn failure(self) -> Option<String> {
        None
    }
}

impl<E: Display + Send + 'static> Outcome for Result<(), E> {
    fn failure(self) -> Option<String> {
        self.err().map(|error| error.to_string())
    }
}
