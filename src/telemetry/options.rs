//! What the admin endpoint is told at its start.

use crate::broker::{BadOption, ListenAddr};
use crate::tls::TlsOptions;

/// Where the admin endpoint is, and who may come.
///
/// ```
/// use corelay::telemetry::AdminOptions;
/// let open = AdminOptions { listen: Some("0.0.0.0:9091".parse().unwrap()), ..AdminOptions::default() };
/// assert_eq!(open.validate().unwrap_err().key, "admin.listen");
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AdminOptions {
    /// Where it listens; `None` for nowhere, the default.
    pub listen: Option<ListenAddr>,
    /// Certificate and key, where `listen` is a `tls://` address; its client CAs, where browsers and tools must show a
    /// certificate. Default: none.
    pub tls: TlsOptions,
    /// Serve other machines too, without encryption or a check of who asks. Default: no.
    pub insecure: bool,
}

impl AdminOptions {
    /// Checks that no other machine can come in unless that was said to be meant.
    ///
    /// # Errors
    /// An address that others can reach, neither `insecure` nor asking for certificates of them; TLS without files.
    pub fn validate(&self) -> Result<(), BadOption> {
        if self.listen.as_ref().is_some_and(ListenAddr::is_tls) && !self.tls.is_set() {
            return Err(BadOption {
                key: "admin.listen".into(),
                value: self.listen.as_ref().map_or_else(|| "off".to_owned(), ToString::to_string),
                expected: "admin.tls_cert and admin.tls_key for it, or tls.cert and tls.key: each the path of a PEM \
                           file"
                    .into(),
            });
        }
        // who shows a certificate of the right CA is no stranger
        let asks = |listen: &ListenAddr| listen.is_tls() && self.tls.client_ca.is_some();
        match &self.listen {
            Some(listen) if !listen.is_local() && !self.insecure && !asks(listen) => Err(BadOption {
                key: "admin.listen".into(),
                value: listen.to_string(),
                expected: "an address of this machine alone, such as 127.0.0.1:9091 or unix:/run/corelay-admin: \
                               whoever reaches it sees who is connected, and can drain the broker. To serve \
                               others, ask them for certificates (tls:// and admin.tls_client_ca); or, in a network \
                               you trust, say so with --admin-insecure (admin.insecure = true)"
                    .into(),
            }),
            _ => Ok(()),
        }
    }
}
