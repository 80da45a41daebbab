//! TLS in front of a Kafka broker that knows none.

use std::path::PathBuf;
use std::sync::Arc;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};

/// A proxy that takes TLS. What the broker says of where it is comes to name the proxy.
#[derive(Debug)]
pub struct Front {
    pub brokers: String,
    task: JoinHandle<()>,
}

impl Drop for Front {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Front {
    /// Before the broker at `broker`, `127.0.0.1:port`, with this certificate and key.
    pub async fn start(broker: &str, (cert, key): &(PathBuf, PathBuf)) -> Front {
        let certs = CertificateDer::pem_file_iter(cert).unwrap().map(Result::unwrap).collect();
        let key = PrivateKeyDer::from_pem_file(key).unwrap();
        let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()));
        let config = config.with_safe_default_protocol_versions().unwrap().with_no_client_auth();
        let acceptor = TlsAcceptor::from(Arc::new(config.with_single_cert(certs, key).unwrap()));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let brokers = listener.local_addr().unwrap().to_string();
        let renamed = (place(broker), place(&brokers));
        let broker = broker.to_string();
        let task = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (acceptor, broker, renamed) = (acceptor.clone(), broker.clone(), renamed.clone());
                tokio::spawn(async move {
                    let Ok(client) = acceptor.accept(stream).await else { return };
                    let Ok(server) = TcpStream::connect(broker).await else { return };
                    let (mut from_client, to_client) = tokio::io::split(client);
                    let (from_server, mut to_server) = server.into_split();
                    // one end is the other's
                    tokio::select! {
                        _ = tokio::io::copy(&mut from_client, &mut to_server) => {}
                        _ = answers(from_server, to_client, renamed) => {}
                    }
                });
            }
        });
        Front { brokers, task }
    }
}

/// A broker's place as its answers have it: the host, then the port.
fn place(broker: &str) -> Vec<u8> {
    let (host, port) = broker.rsplit_once(':').unwrap();
    let port: u32 = port.parse().unwrap();
    [host.as_bytes(), &port.to_be_bytes()].concat()
}

/// Moves answers whole, each with its length before it.
async fn answers(
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
    (old, new): (Vec<u8>, Vec<u8>),
) -> std::io::Result<()> {
    assert_eq!(old.len(), new.len(), "an answer keeps its length");
    loop {
        let len = from.read_u32().await?;
        let mut answer = vec![0; len as usize];
        from.read_exact(&mut answer).await?;
        for at in 0..answer.len().saturating_sub(old.len()) + 1 {
            if answer[at..].starts_with(&old) {
                answer[at..at + old.len()].copy_from_slice(&new);
            }
        }
        to.write_all(&len.to_be_bytes()).await?;
        to.write_all(&answer).await?;
        to.flush().await?;
    }
}
