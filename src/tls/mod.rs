//! TLS between a reactor, which knows bytes, and the broker core, which knows frames: neither knows of it.
//!
//! ```text
//!   reactor ── ciphertext ──► Session::receive ── one record's bytes at a time ──► core
//!           ◄── ciphertext ── Session::seal    ◄── a batch, in records of 16 KiB ──
//! ```
//!
//! | file | what it is |
//! |---|---|
//! | `session` | one connection's cryptographic state, and how far its output has left; no I/O |
//! | `acceptor` | what all sessions of a listener share: certificate, key, client CAs, tickets; exchanged by a reload |
//! | `files` | PEM files to what rustls takes, with errors that say what to do |
//! | `identity` | the name a client's certificate states |
//! | `options` | how it is all configured |
//!
//! Cryptography is rustls' and *ring*'s alone. Cut-through is per record: its bytes can be trusted only when the
//! record is whole, so at most one record of each connection is held here, and that is what the limits' sum counts.
//!
//! Invariants:
//! - A session belongs to one core at a time, and moves whole: the part of a record that has come, and what is
//!   encrypted and not sent, go with it.
//! - Records leave in the order they were encrypted in, whatever is for the core and whatever is TLS's own.
//! - No bytes of a peer reach the core before the handshake is over, and none behind a record that is not genuine.

#[cfg(feature = "server")]
mod acceptor;
mod files;
#[cfg(feature = "server")]
mod identity;
#[cfg(feature = "server")]
mod options;
#[cfg(feature = "server")]
mod session;
#[cfg(all(test, feature = "server", feature = "client"))]
mod tests;

#[cfg(feature = "server")]
pub use self::acceptor::Acceptor;
pub use self::files::{FileError, certificates, key, roots};
#[cfg(feature = "server")]
pub use self::identity::identity;
#[cfg(feature = "server")]
pub use self::options::TlsOptions;
#[cfg(feature = "server")]
pub use self::session::{Bench, Fault, MAX_HANDSHAKE, MAX_RECORD, News, SESSION, SPARE, Session, feed};

/// The protocol's name in ALPN. A client that offers none is served; one that offers only others is refused, so that
/// no other protocol's client can be led here.
pub const ALPN: &[u8] = b"corelay/1";

/// Why TLS can't be set up.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file of certificates or keys.
    #[error(transparent)]
    File(#[from] FileError),
    /// A key that is not the certificate's.
    #[error("the key in {key} is not the one of the certificate in {cert}: give the files of one pair")]
    Mismatch {
        /// The certificate's file.
        cert: String,
        /// The key's file.
        key: String,
    },
    /// Something else rustls refuses.
    #[error("{what}: {source}")]
    Refused {
        /// What was being set up.
        what: String,
        /// What rustls says.
        source: rustls::Error,
    },
    /// No CAs to check the peer with.
    #[error("{what}: {why}")]
    Roots {
        /// Where they were looked for.
        what: String,
        /// What is wrong with them.
        why: String,
    },
    /// TLS is asked for without being configured.
    #[error("{0}")]
    Missing(String),
}
