//! What all sessions of the TLS listeners share, exchanged whole by a reload.

use std::fmt;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::SystemTime;

use rustls::ServerConfig;
use rustls::crypto::ring;
use rustls::server::WebPkiClientVerifier;
use rustls::version::{TLS12, TLS13};
use tracing::warn;
use x509_parser::prelude::{FromDer, X509Certificate};

use super::{TlsError, TlsOptions, certificates, key, roots};

/// A certificate that ends within this time is worth a warning, in seconds: two weeks, a weekend and some to act.
const SOON: i64 = 14 * 24 * 3600;

/// What a TLS listener needs to accept: certificate, key, client CAs. Cloning gives another handle to the same.
///
/// ```no_run
/// use corelay::tls::{Acceptor, TlsOptions};
/// let options = TlsOptions { cert: Some("c.pem".into()), key: Some("c.key".into()), ..TlsOptions::default() };
/// let acceptor = Acceptor::new(&options, &[b"corelay/1"])?;
/// // ... the files were renewed:
/// acceptor.reload()?;
/// # Ok::<(), corelay::tls::TlsError>(())
/// ```
#[derive(Clone)]
pub struct Acceptor {
    shared: Arc<Shared>,
}

struct Shared {
    alpn: Vec<Vec<u8>>,
    // read once a handshake, never on a request's way
    now: RwLock<(TlsOptions, Arc<ServerConfig>)>,
}

impl fmt::Debug for Acceptor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Acceptor").field("options", &self.options()).finish_non_exhaustive()
    }
}

impl Acceptor {
    /// Reads the files. Warns of a certificate that has expired or will soon, and of a key that others can read.
    ///
    /// # Errors
    /// [`TlsError`], with the file and what to do.
    pub fn new(options: &TlsOptions, alpn: &[&[u8]]) -> Result<Acceptor, TlsError> {
        let alpn: Vec<Vec<u8>> = alpn.iter().map(|name| name.to_vec()).collect();
        let config = Arc::new(load(options, &alpn)?);
        Ok(Acceptor { shared: Arc::new(Shared { alpn, now: RwLock::new((options.clone(), config)) }) })
    }

    /// Reads the same files again. Handshakes that begin from now on use what is in them; sessions go on as they are.
    /// Tickets for resumption given out before are void, for what they were given for may have been withdrawn.
    ///
    /// # Errors
    /// [`TlsError`]; then all stays as it was.
    pub fn reload(&self) -> Result<(), TlsError> {
        self.reload_from(&self.options())
    }

    /// As [`Acceptor::reload`], from other files.
    ///
    /// # Errors
    /// [`TlsError`]; then all stays as it was.
    pub fn reload_from(&self, options: &TlsOptions) -> Result<(), TlsError> {
        let config = Arc::new(load(options, &self.shared.alpn)?);
        *self.shared.now.write().unwrap_or_else(PoisonError::into_inner) = (options.clone(), config);
        Ok(())
    }

    /// The files it reads.
    #[must_use]
    pub fn options(&self) -> TlsOptions {
        self.shared.now.read().unwrap_or_else(PoisonError::into_inner).0.clone()
    }

    /// What a handshake that begins now goes by.
    #[must_use]
    pub fn config(&self) -> Arc<ServerConfig> {
        Arc::clone(&self.shared.now.read().unwrap_or_else(PoisonError::into_inner).1)
    }
}

fn load(options: &TlsOptions, alpn: &[Vec<u8>]) -> Result<ServerConfig, TlsError> {
    let missing = |what: &str| TlsError::Missing(format!("a tls:// address needs tls.{what}: the path of a PEM file"));
    let cert = options.cert.as_deref().ok_or_else(|| missing("cert"))?;
    let key_file = options.key.as_deref().ok_or_else(|| missing("key"))?;
    let refused = |what: &str| {
        let what = what.to_owned();
        move |source| TlsError::Refused { what, source }
    };
    let chain = certificates(cert)?;
    let secret = key(key_file)?;
    warn_of_dates(cert, &chain[0]);
    warn_of_readers(key_file);
    let provider = Arc::new(ring::default_provider());
    let versions: &[_] = if options.tls12 { &[&TLS13, &TLS12] } else { &[&TLS13] };
    let builder = ServerConfig::builder_with_provider(Arc::clone(&provider)).with_protocol_versions(versions);
    let builder = builder.map_err(refused("the protocol versions"))?;
    let builder = match &options.client_ca {
        None => builder.with_no_client_auth(),
        Some(path) => {
            let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots(path)?), provider).build();
            let why = |error: rustls::server::VerifierBuilderError| error.to_string();
            let verifier =
                verifier.map_err(|error| TlsError::Roots { what: path.display().to_string(), why: why(error) })?;
            builder.with_client_cert_verifier(verifier)
        }
    };
    let mut config = builder.with_single_cert(chain, secret).map_err(|source| match source {
        rustls::Error::InconsistentKeys(_) => {
            TlsError::Mismatch { cert: cert.display().to_string(), key: key_file.display().to_string() }
        }
        source => TlsError::Refused { what: format!("{} with {}", cert.display(), key_file.display()), source },
    })?;
    config.alpn_protocols = alpn.to_vec();
    // resumption without state here: the client keeps the session, in a ticket that only this configuration can read
    config.ticketer = ring::Ticketer::new().map_err(refused("session tickets"))?;
    Ok(config)
}

/// A certificate out of date is served all the same: some clients are told not to look, and a broker that does not
/// start serves nobody.
fn warn_of_dates(path: &Path, certificate: &[u8]) {
    let Ok((_, certificate)) = X509Certificate::from_der(certificate) else { return };
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_secs() as i64);
    let (from, to) = (certificate.validity().not_before, certificate.validity().not_after);
    let path = path.display();
    if to.timestamp() < now {
        warn!(%path, expired = %to, "the TLS certificate has expired: clients will refuse it; renew it, then reload");
    } else if to.timestamp() - now < SOON {
        warn!(%path, expires = %to, "the TLS certificate expires soon: renew it, then reload");
    }
    if from.timestamp() > now {
        warn!(%path, valid_from = %from, "the TLS certificate is not valid yet: is the clock right?");
    }
}

fn warn_of_readers(path: &Path) {
    let Ok(meta) = std::fs::metadata(path) else { return };
    if meta.mode() & 0o077 != 0 {
        let mode = format!("{:o}", meta.mode() & 0o777);
        warn!(path = %path.display(), mode, "others than its owner can use the TLS key: chmod 600 it");
    }
}
