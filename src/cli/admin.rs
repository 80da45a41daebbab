//! Talking to a broker's admin endpoint.

use std::net::IpAddr;
use std::time::Duration;

use axum::body::{Body, to_bytes};
use clap::Args;
use hyper::client::conn::http1;
use hyper::{Method, Request, StatusCode, header};
use hyper_util::rt::TokioIo;
use serde::de::DeserializeOwned;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};

use super::exit::{Failure, REFUSED, code_of};
use super::tls::TlsArgs;
use corelay::client::{Connector, ErrorKind};

/// Longer than a broker takes that waits for a core that doesn't answer.
const PATIENCE: Duration = Duration::from_secs(5);
/// How an address with TLS begins: as listeners write it, and as browsers do.
const SECURE: [&str; 2] = ["tls://", "https://"];
/// What the endpoint says of a page it doesn't have, to begin with.
const NO_SUCH_PAGE: &str = "there is no such page";
/// The longest page taken: 10,000 connections are 4 MiB.
const MAX_PAGE: usize = 64 << 20;

/// Where the admin endpoint is.
#[derive(Clone, Debug, Args)]
pub(crate) struct AdminArgs {
    /// The broker's admin endpoint (corelay serve --admin): host:port, tls://host:port or unix:/path
    #[arg(long, value_name = "ADDR", env = "CORELAY_ADMIN", hide_env_values = true, default_value = "127.0.0.1:9091")]
    pub(crate) admin: String,
    #[command(flatten)]
    pub(crate) tls: TlsArgs,
}

/// What came back.
#[derive(Debug)]
pub(crate) struct Page {
    pub(crate) status: StatusCode,
    pub(crate) body: Vec<u8>,
}

impl AdminArgs {
    /// A JSON page, as the type that describes it.
    pub(crate) async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, Failure> {
        let page = self.page(path).await?;
        serde_json::from_slice(&page.body).map_err(|error| self.strange(&format!("{path}: {error}")))
    }

    /// A page as it comes.
    pub(crate) async fn page(&self, path: &str) -> Result<Page, Failure> {
        let page = self.send(Method::GET, path).await?;
        // health pages say 503, and why
        if page.status.is_success() || page.status == StatusCode::SERVICE_UNAVAILABLE {
            return Ok(page);
        }
        let said = String::from_utf8_lossy(&page.body);
        // it knows the page, and has nothing for these arguments
        if page.status.is_client_error() && !said.is_empty() && !said.starts_with(NO_SUCH_PAGE) {
            return Err(Failure::new(REFUSED, format!("admin endpoint {}: {}", self.admin, said.trim())));
        }
        Err(self.strange(&format!("{path}: {} {}", page.status, said.trim())))
    }

    /// One request.
    pub(crate) async fn send(&self, method: Method, path: &str) -> Result<Page, Failure> {
        self.send_text(method, path, String::new()).await
    }

    /// One request, with a text.
    pub(crate) async fn send_text(&self, method: Method, path: &str, text: String) -> Result<Page, Failure> {
        let secure = SECURE.iter().find_map(|scheme| self.admin.strip_prefix(scheme));
        // the same variables serve --server, which may well be tls:// beside a plain endpoint of this machine
        let is_fine = secure.is_some() || is_of_this_machine(&self.admin);
        let connector = Connector::new(self.tls.tls(is_fine, "--admin"), b"http/1.1");
        let exchange = async {
            match (self.admin.strip_prefix("unix:"), secure) {
                (Some(socket), _) => {
                    exchange(UnixStream::connect(socket).await?, "localhost", method, path, text).await
                }
                (None, Some(addr)) => {
                    let stream = connector.connect(addr, TcpStream::connect(addr).await?).await?;
                    exchange(stream, addr, method, path, text).await
                }
                (None, None) => exchange(TcpStream::connect(&self.admin).await?, &self.admin, method, path, text).await,
            }
        };
        match tokio::time::timeout(PATIENCE, exchange).await {
            Ok(Ok(page)) => Ok(page),
            Ok(Err(error)) => Err(self.unreachable(&error.to_string())),
            Err(_) => Err(self.unreachable(&format!("no answer within {PATIENCE:?}"))),
        }
    }

    fn unreachable(&self, why: &str) -> Failure {
        let text = format!(
            "admin endpoint {}: {why}\nDoes the broker have one? `corelay serve --admin {}` does; --admin names another.",
            self.admin, self.admin
        );
        Failure::new(code_of(ErrorKind::Connection), text)
    }

    fn strange(&self, what: &str) -> Failure {
        let text = format!("admin endpoint {}: {what}\nIs it one of this version of corelay?", self.admin);
        Failure::new(code_of(ErrorKind::Protocol), text)
    }
}

/// Whether what goes to this address stays on this machine.
fn is_of_this_machine(addr: &str) -> bool {
    let host = addr.rsplit_once(':').map_or(addr, |(host, _)| host).trim_matches(['[', ']']);
    addr.starts_with("unix:") || host == "localhost" || host.parse().is_ok_and(|ip: IpAddr| ip.is_loopback())
}

type Strange = Box<dyn std::error::Error + Send + Sync>;

async fn exchange<S>(stream: S, host: &str, method: Method, path: &str, text: String) -> Result<Page, Strange>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    let request = Request::builder().method(method).uri(path).header(header::HOST, host).body(Body::from(text))?;
    let answer = async {
        let response = sender.send_request(request).await?;
        let status = response.status();
        let body = to_bytes(Body::new(response.into_body()), MAX_PAGE).await?;
        Ok(Page { status, body: body.to_vec() })
    };
    let mut connection = std::pin::pin!(connection);
    let mut answer = std::pin::pin!(answer);
    tokio::select! {
        biased;
        page = &mut answer => page,
        ended = &mut connection => {
            ended?;
            answer.await
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_of_this_machine_are_told_from_others() {
        for own in ["127.0.0.1:9091", "localhost:9091", "[::1]:9091", "unix:/run/corelay-admin"] {
            assert!(is_of_this_machine(own), "{own}");
        }
        for other in ["10.0.0.1:9091", "broker.example:9091", "localhost.example:9091", "[::]:9091", ""] {
            assert!(!is_of_this_machine(other), "{other}");
        }
    }
}
