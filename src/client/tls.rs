//! TLS towards the broker: `tls://` addresses, with what the options say of certificates.

use std::fmt;
use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{Resumption, WebPkiServerVerifier};
use rustls::crypto::{CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::tls::{TlsError, certificates, key, roots};

/// How `tls://` brokers are checked, and what they are shown.
///
/// ```
/// use corelay::client::{Options, Tls};
/// let tls = Tls::default().ca("ca.pem").identity("client.pem", "client.key");
/// let options = Options::default().tls(tls);
/// # let _ = options;
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tls {
    /// CA certificates in PEM the broker's certificate must come from. Default: those of the system.
    pub ca: Option<PathBuf>,
    /// The certificate to show a broker that asks for one (mutual TLS), in PEM, and its key. Default: none.
    pub identity: Option<(PathBuf, PathBuf)>,
    /// The name that must be in the broker's certificate. Default: the host of the address.
    pub server_name: Option<String>,
    /// Takes any certificate of anybody: encrypted, and open to whoever sits in between. For tests alone.
    pub danger_accept_any_server: bool,
}

impl Tls {
    /// With this [`ca`](Tls::ca).
    #[must_use]
    pub fn ca(mut self, file: impl Into<PathBuf>) -> Tls {
        self.ca = Some(file.into());
        self
    }

    /// With this certificate and its key: see [`identity`](Tls::identity).
    #[must_use]
    pub fn identity(mut self, cert: impl Into<PathBuf>, key: impl Into<PathBuf>) -> Tls {
        self.identity = Some((cert.into(), key.into()));
        self
    }

    /// With this [`server_name`](Tls::server_name).
    #[must_use]
    pub fn server_name(mut self, name: impl Into<String>) -> Tls {
        self.server_name = Some(name.into());
        self
    }

    /// Takes any certificate of anybody: see [`danger_accept_any_server`](Tls::danger_accept_any_server).
    #[must_use]
    pub fn danger_accept_any_server(mut self, accept: bool) -> Tls {
        self.danger_accept_any_server = accept;
        self
    }

    /// Whether nothing is set.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Tls::default()
    }

    fn files(&self) -> impl Iterator<Item = &PathBuf> {
        let identity = self.identity.iter().flat_map(|(cert, key)| [cert, key]);
        self.ca.iter().chain(identity)
    }

    /// When the files were changed last, as far as can be told.
    fn stamp(&self) -> Vec<Option<SystemTime>> {
        self.files().map(|file| std::fs::metadata(file).and_then(|meta| meta.modified()).ok()).collect()
    }

    fn load(&self, alpn: &[u8]) -> Result<ClientConfig, TlsError> {
        let provider = Arc::new(ring::default_provider());
        let builder = ClientConfig::builder_with_provider(Arc::clone(&provider)).with_safe_default_protocol_versions();
        let builder = builder.map_err(|source| TlsError::Refused { what: "the protocol versions".into(), source })?;
        let builder = if self.danger_accept_any_server {
            builder.dangerous().with_custom_certificate_verifier(Arc::new(Anybody(provider)))
        } else {
            let (roots, whose) = match &self.ca {
                Some(path) => (roots(path)?, path.display().to_string()),
                None => (system_roots()?, "the system's CA certificates".to_owned()),
            };
            let verifier = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider).build();
            let verifier = verifier.map_err(|error| TlsError::Roots { what: whose, why: error.to_string() })?;
            builder.with_webpki_verifier(verifier)
        };
        let mut config = match &self.identity {
            None => builder.with_no_client_auth(),
            Some((cert, key_file)) => {
                let (chain, secret) = (certificates(cert)?, key(key_file)?);
                builder.with_client_auth_cert(chain, secret).map_err(|source| match source {
                    rustls::Error::InconsistentKeys(_) => {
                        TlsError::Mismatch { cert: cert.display().to_string(), key: key_file.display().to_string() }
                    }
                    source => {
                        TlsError::Refused { what: format!("{} with {}", cert.display(), key_file.display()), source }
                    }
                })?
            }
        };
        config.alpn_protocols = vec![alpn.to_vec()];
        // one broker, or some few
        config.resumption = Resumption::in_memory_sessions(16);
        Ok(config)
    }
}

fn system_roots() -> Result<RootCertStore, TlsError> {
    let mut roots = RootCertStore::empty();
    let found = rustls_native_certs::load_native_certs();
    let (usable, _) = roots.add_parsable_certificates(found.certs);
    if usable > 0 {
        return Ok(roots);
    }
    let why = found.errors.first().map_or_else(|| "there are none".to_owned(), ToString::to_string);
    Err(TlsError::Roots { what: "the system's CA certificates".into(), why: format!("{why}; name a CA file instead") })
}

/// Makes TLS connections over others. The files are read when they are first needed, and again when they have changed:
/// a program outlives its certificate.
#[derive(Debug)]
pub struct Connector {
    tls: Tls,
    alpn: &'static [u8],
    loaded: Mutex<Option<Loaded>>,
}

#[derive(Clone)]
struct Loaded {
    config: Arc<ClientConfig>,
    stamp: Vec<Option<SystemTime>>,
}

impl fmt::Debug for Loaded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Loaded").field("stamp", &self.stamp).finish_non_exhaustive()
    }
}

impl Connector {
    /// One for these options, that offers this protocol (ALPN).
    #[must_use]
    pub fn new(tls: Tls, alpn: &'static [u8]) -> Connector {
        Connector { tls, alpn, loaded: Mutex::new(None) }
    }

    fn config(&self) -> Result<Arc<ClientConfig>, TlsError> {
        let mut loaded = self.loaded.lock().unwrap_or_else(PoisonError::into_inner);
        let stamp = self.tls.stamp();
        if let Some(loaded) = loaded.as_ref().filter(|loaded| loaded.stamp == stamp) {
            return Ok(Arc::clone(&loaded.config));
        }
        match (self.tls.load(self.alpn), loaded.as_mut()) {
            (Ok(config), _) => {
                let config = Arc::new(config);
                *loaded = Some(Loaded { config: Arc::clone(&config), stamp });
                Ok(config)
            }
            // perhaps it is being renewed just now: looked at again the next time
            (Err(error), Some(loaded)) => {
                tracing::warn!(%error, "the TLS files have changed and can't be used: the old ones stay in use");
                Ok(Arc::clone(&loaded.config))
            }
            (Err(error), None) => Err(error),
        }
    }

    /// Does the handshake on a connection to `host_port`.
    ///
    /// # Errors
    /// A handshake that fails; for options that can't be used, with a [`TlsError`] as its source.
    pub async fn connect<S>(&self, host_port: &str, stream: S) -> io::Result<TlsStream<S>>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let config = self.config().map_err(unusable)?;
        let host = host_port.rsplit_once(':').map_or(host_port, |(host, _)| host);
        let host = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
        let name = self.tls.server_name.as_deref().unwrap_or(host);
        let name = ServerName::try_from(name.to_owned()).map_err(|_| {
            unusable(TlsError::Missing(format!("{name:?} is no server name: expected a DNS name or IP")))
        })?;
        TlsConnector::from(config).connect(name, stream).await.map_err(explain)
    }
}

fn unusable(error: TlsError) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, error)
}

/// Whether the options themselves can't be used: trying again is no use.
pub(super) fn is_unusable(error: &io::Error) -> bool {
    error.get_ref().is_some_and(|inner| inner.is::<TlsError>())
}

/// Adds what to do to what rustls says.
fn explain(error: io::Error) -> io::Error {
    use rustls::{AlertDescription, CertificateError, Error};
    let hint = match error.get_ref().and_then(|inner| inner.downcast_ref::<Error>()) {
        Some(Error::InvalidCertificate(CertificateError::UnknownIssuer | CertificateError::BadSignature)) => {
            "the broker's certificate is not of a CA trusted here: name its CA certificate"
        }
        Some(Error::InvalidCertificate(
            CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
        )) => "the broker's certificate is for another name: connect by that one, or give it as the server name",
        Some(Error::InvalidMessage(_)) => "what listens there seems not to speak TLS",
        Some(Error::AlertReceived(
            AlertDescription::CertificateRequired | AlertDescription::UnknownCA | AlertDescription::BadCertificate,
        )) => "the broker wants a client certificate of a CA it knows",
        _ if error.kind() == io::ErrorKind::UnexpectedEof => "the handshake was cut off",
        _ => return error,
    };
    io::Error::new(error.kind(), format!("{error} ({hint})"))
}

/// Checks that the peer has the key of the certificate it shows, and nothing else.
#[derive(Debug)]
struct Anybody(Arc<CryptoProvider>);

impl ServerCertVerifier for Anybody {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, cert, dss, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, cert, dss, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
