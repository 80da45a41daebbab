//! What TLS is told at its start.

use std::path::PathBuf;

/// The files TLS listeners use. A reload reads them again.
///
/// ```
/// use corelay::tls::TlsOptions;
/// let options = TlsOptions {
///     cert: Some("server.pem".into()),
///     key: Some("server.key".into()),
///     client_ca: Some("clients.pem".into()),
///     ..TlsOptions::default()
/// };
/// assert!(options.is_set());
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TlsOptions {
    /// The certificate in PEM, followed by those that lead to its CA.
    pub cert: Option<PathBuf>,
    /// Its private key in PEM, unencrypted.
    pub key: Option<PathBuf>,
    /// CA certificates in PEM. Where given, a client must show a certificate of one of them (mutual TLS), and is known
    /// by the name in it. Default: clients need no certificate.
    pub client_ca: Option<PathBuf>,
    /// Serve TLS 1.2 too. Default: TLS 1.3 alone, which every client library of the last years speaks.
    pub tls12: bool,
}

impl TlsOptions {
    /// Whether there is a certificate and a key.
    #[must_use]
    pub fn is_set(&self) -> bool {
        self.cert.is_some() && self.key.is_some()
    }

    /// Whether nothing is set at all.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == TlsOptions::default()
    }
}
