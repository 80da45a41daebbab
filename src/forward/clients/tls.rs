//! TLS, for TCP and HTTP.

use std::io;
use std::net::Shutdown;
use std::path::Path;
use std::sync::Arc;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::io::{AsyncReadExt, AsyncWriteExt, ReadHalf, WriteHalf};
use tokio::net::TcpStream;
use tokio::sync::Mutex;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::stream::{Dial, StreamClient, Times, stream_client};
use super::tcp::TcpDial;
use super::wire::{Socket, Wire};
use crate::forward::UrlError;
use crate::forward::framing::{Format, Framing};
use crate::forward::url::{Url, host_port};

/// Whom to believe, and what the other side must be called.
#[derive(Clone)]
pub(super) struct Tls {
    connector: TlsConnector,
    name: ServerName<'static>,
}

impl std::fmt::Debug for Tls {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tls").field("name", &self.name).finish_non_exhaustive()
    }
}

impl Tls {
    /// The options `ca` (a PEM file; else the system's roots) and `server_name` (else the host).
    pub(super) fn from_url(url: &mut Url, host: &str) -> Result<Tls, UrlError> {
        let scheme = url.scheme.clone();
        let failed = |source: Box<dyn std::error::Error + Send + Sync>| UrlError::Client { scheme, source };
        let name = url.text("server_name").unwrap_or_else(|| host.to_owned());
        let name = ServerName::try_from(name);
        let roots = match url.text("ca") {
            Some(path) => roots_of(Path::new(&path)).map_err(|why| format!("ca {path}: {why}")),
            None => system_roots(),
        };
        let (name, roots) = match (name, roots) {
            (Ok(name), Ok(roots)) => (name, roots),
            (Err(error), _) => return Err(failed(format!("server_name or host: {error}").into())),
            (_, Err(why)) => return Err(failed(why.into())),
        };
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = match ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions() {
            Ok(builder) => builder.with_root_certificates(roots).with_no_client_auth(),
            Err(error) => return Err(failed(error.into())),
        };
        Ok(Tls { connector: TlsConnector::from(Arc::new(config)), name })
    }

    pub(super) async fn handshake(&self, stream: TcpStream) -> io::Result<TlsStream<TcpStream>> {
        self.connector.connect(self.name.clone(), stream).await
    }
}

fn roots_of(path: &Path) -> Result<RootCertStore, String> {
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_file_iter(path).map_err(|error| error.to_string())? {
        let certificate = certificate.map_err(|error| error.to_string())?;
        roots.add(certificate).map_err(|error| error.to_string())?;
    }
    if roots.is_empty() { Err("no certificate in it".to_owned()) } else { Ok(roots) }
}

fn system_roots() -> Result<RootCertStore, String> {
    let mut roots = RootCertStore::empty();
    let (added, _) = roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    if added > 0 { Ok(roots) } else { Err("the system has no root certificates; give some by ca=FILE".to_owned()) }
}

/// A TLS connection that can be read and written at once, and cut.
pub(super) struct TlsWire {
    read: Mutex<ReadHalf<TlsStream<TcpStream>>>,
    write: Mutex<WriteHalf<TlsStream<TcpStream>>>,
    /// A second descriptor of the socket, for shutting it while the halves are waiting.
    socket: std::net::TcpStream,
}

impl TlsWire {
    fn new(stream: TlsStream<TcpStream>) -> io::Result<TlsWire> {
        let socket = socket2::SockRef::from(stream.get_ref().0).try_clone()?.into();
        let (read, write) = tokio::io::split(stream);
        Ok(TlsWire { read: Mutex::new(read), write: Mutex::new(write), socket })
    }
}

impl Wire for TlsWire {
    const IS_DATAGRAM: bool = false;
    const IS_EXACT: bool = false;

    /// Flushed, so that what is counted as written is with the kernel.
    async fn write(&self, bytes: Vec<u8>, from: usize) -> (io::Result<usize>, Vec<u8>) {
        let mut half = self.write.lock().await;
        let result = match half.write(&bytes[from..]).await {
            Ok(count) => half.flush().await.map(|()| count),
            Err(error) => Err(error),
        };
        drop(half);
        (result, bytes)
    }

    async fn read(&self, mut buffer: Vec<u8>) -> (io::Result<usize>, Vec<u8>) {
        let result = self.read.lock().await.read(&mut buffer).await;
        (result, buffer)
    }

    fn shutdown(&self, how: Shutdown) {
        let _ = self.socket.shutdown(how);
    }
}

/// Sends over TLS, at most once: success means that the kernel has the message. On tokio's own sockets, on either
/// runtime.
///
/// `tls://host:port`; options as those of [`TcpClient`](super::TcpClient), and `ca` (a file of root certificates in PEM; else
/// those of the system) and `server_name` (what the certificate must say; else the host).
#[derive(Debug)]
pub struct TlsClient {
    stream: StreamClient<TlsDial>,
}

#[derive(Debug)]
struct TlsDial {
    tcp: TcpDial,
    tls: Tls,
}

impl Dial for TlsDial {
    async fn dial(&self) -> io::Result<Socket> {
        let stream = self.tls.handshake(self.tcp.connect().await?).await?;
        Ok(Socket::Tls(Box::new(TlsWire::new(stream)?)))
    }
}

impl TlsClient {
    const PROTOCOL: &'static str = "tls";

    pub(in crate::forward) fn from_url(mut url: Url) -> Result<TlsClient, UrlError> {
        url.without_login()?;
        url.without_path()?;
        let (host, port) = url.place(None)?;
        let format = Format::from_url(&mut url, Framing::Len32)?;
        let times = Times::from_url(&mut url)?;
        let tls = Tls::from_url(&mut url, &host)?;
        url.finish()?;
        let address = host_port(&host, port);
        let dial = TlsDial { tcp: TcpDial::new(host, port), tls };
        Ok(TlsClient { stream: StreamClient::new(dial, address, format, times) })
    }
}

stream_client!(TlsClient);
