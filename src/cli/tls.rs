//! How `tls://` brokers and admin endpoints are checked, and what they are shown: flags that many commands share.

use std::path::PathBuf;

use clap::Args;
use corelay::client::Tls;
use tracing::warn;

// of each flag, not of the struct: that heading would go on over the flags of who includes it
const HEADING: &str = "TLS (for tls:// addresses)";

/// TLS towards a broker.
#[derive(Clone, Debug, Default, Args)]
pub(crate) struct TlsArgs {
    /// CA certificates (PEM) the other side's certificate must come from [default: those of the system]
    #[arg(long, help_heading = HEADING, value_name = "FILE", env = "CORELAY_CLIENT_TLS_CA", hide_env_values = true)]
    tls_ca: Option<PathBuf>,
    /// The certificate (PEM) to show where one is asked for (mutual TLS)
    #[arg(long, help_heading = HEADING, value_name = "FILE", env = "CORELAY_CLIENT_TLS_CERT", hide_env_values = true, requires = "tls_key")]
    tls_cert: Option<PathBuf>,
    /// Its private key (PEM)
    #[arg(long, help_heading = HEADING, value_name = "FILE", env = "CORELAY_CLIENT_TLS_KEY", hide_env_values = true, requires = "tls_cert")]
    tls_key: Option<PathBuf>,
    /// The name that must be in the other side's certificate [default: the host of the address]
    #[arg(long, help_heading = HEADING, value_name = "NAME", env = "CORELAY_CLIENT_TLS_SERVER_NAME", hide_env_values = true)]
    tls_server_name: Option<String>,
    /// Take any certificate of anybody: no protection against who sits in between; for tests alone
    #[arg(long, help_heading = HEADING)]
    tls_danger_accept_any_server: bool,
}

impl TlsArgs {
    /// What the flags say. Where no address is one of TLS, they have no effect: that is told, for who gives them
    /// believes to be protected.
    pub(crate) fn tls(&self, is_used: bool, flag: &str) -> Tls {
        let tls = Tls {
            ca: self.tls_ca.clone(),
            identity: self.tls_cert.clone().zip(self.tls_key.clone()),
            server_name: self.tls_server_name.clone(),
            danger_accept_any_server: self.tls_danger_accept_any_server,
        };
        if !is_used && !tls.is_empty() {
            warn!("--tls-... are given, but no address of {flag} begins with tls://: nothing is encrypted");
        }
        tls
    }
}
