//! What the admin endpoint is told at its start.

use crate::broker::{BadOption, ListenAddr};

/// Where the admin endpoint is, and who may come.
///
/// ```
/// use corelay::telemetry::AdminOptions;
/// let open = AdminOptions { listen: Some("0.0.0.0:9091".parse().unwrap()), insecure: false };
/// assert_eq!(open.validate().unwrap_err().key, "admin.listen");
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AdminOptions {
    /// Where it listens; `None` for nowhere, the default.
    pub listen: Option<ListenAddr>,
    /// Serve other machines too, without encryption or a check of who asks. Default: no.
    pub insecure: bool,
}

impl AdminOptions {
    /// Checks that no other machine can come in unless that was said to be meant.
    ///
    /// # Errors
    /// An address that others can reach, without `insecure`.
    pub fn validate(&self) -> Result<(), BadOption> {
        match &self.listen {
            Some(addr) if !addr.is_local() && !self.insecure => Err(BadOption {
                key: "admin.listen".into(),
                value: addr.to_string(),
                expected: "an address of this machine alone, such as 127.0.0.1:9091 or unix:/run/corelay-admin: \
                               whoever reaches it sees who is connected, and can drain the broker. To serve a network \
                               you trust, say so with --admin-insecure (admin.insecure = true)"
                    .into(),
            }),
            _ => Ok(()),
        }
    }
}
