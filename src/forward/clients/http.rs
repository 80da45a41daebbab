//! HTTP/1.1 and, with the feature `https`, HTTPS.

use std::io;
use std::sync::{Mutex, MutexGuard, PoisonError};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper::header::{AUTHORIZATION, CONTENT_TYPE, HOST, HeaderName, HeaderValue, USER_AGENT};
use hyper::{Request, StatusCode, Uri};
use hyper_util::rt::TokioIo;
use tokio::time::{Instant, timeout, timeout_at};

use super::stream::Times;
use super::tcp::TcpDial;
use super::wire;
use crate::forward::framing::envelope_from_url;
use crate::forward::url::{Url, host_port};
use crate::forward::{
    Client, Message, Part, Promise, SendError, SendErrorKind, SendFuture, Takes, UrlError, clients, envelope,
};

/// The most of an answer that is read, to use the connection again; with more, it is closed.
const MAX_ANSWER: usize = 64 << 10;
/// The most of an answer that is repeated in an error.
const MAX_QUOTE: usize = 200;

/// Posts each message, at least once: success means that the target has answered 2xx.
///
/// `http://user:password@host:port/path`, or `https://`; options `envelope` (`none`, `json`), `query` (percent-encoded:
/// goes to the target as its query), `connect_timeout` (5 s), `send_timeout` (5 s, from the request's first byte to the
/// answer's last), and for `https` `ca` and `server_name` as those of `TlsClient`.
///
/// Requests go one after the other over one connection. What is known of a message goes in headers:
///
/// | header | |
/// |---|---|
/// | `X-Corelay-Request-Id` | the request's id |
/// | `X-Corelay-Key` | the same when a message is sent again, and in all its parts |
/// | `X-Corelay-Channel` | the channel's UUID |
/// | `X-Corelay-Kind` | `request` or `response` |
/// | `X-Corelay-Time` | when it was received, RFC 3339 |
/// | `X-Corelay-Sequence`, `X-Corelay-Last` | of a part: which one, and `true` if nothing follows |
/// | `X-Corelay-Aborted` | `true`: the message never ended; the body is empty |
/// | `Content-Type` | the message's header `content-type`; else `application/octet-stream` |
/// | `X-Corelay-Header-...` | its other headers, those that HTTP can carry |
///
/// 408, 425, 429 and 5xx mean another attempt later, 413 that the message is too large; every other status that is
/// not 2xx refuses it for good. Redirects are not followed.
///
/// ```
/// use corelay::forward::{Client, ClientFactory, Promise};
/// let client = ClientFactory::create("http://me:secret@127.0.0.1:8080/hook?send_timeout=2s&query=v%3D1")?;
/// assert_eq!(client.address(), "http://127.0.0.1:8080/hook");
/// assert_eq!(client.promise(), Promise::AtLeastOnce);
/// # Ok::<(), corelay::forward::UrlError>(())
/// ```
pub struct HttpClient {
    scheme: &'static str,
    address: String,
    /// Path and query, as they go into the request.
    target: Uri,
    host: HeaderValue,
    authorization: Option<HeaderValue>,
    dial: TcpDial,
    #[cfg(feature = "https")]
    tls: Option<super::tls::Tls>,
    envelope: bool,
    times: Times,
    connection: Mutex<Option<Sender>>,
}

type Sender = SendRequest<Full<Bytes>>;

impl std::fmt::Debug for HttpClient {
    /// Without what may be secret: login and query.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("HttpClient").field("address", &self.address).field("times", &self.times).finish_non_exhaustive()
    }
}

/// What came of one request.
enum Attempt {
    Answered(Result<(), SendError>),
    /// Nothing of it was sent.
    Unsent(SendError),
}

impl HttpClient {
    pub(in crate::forward) fn from_url(mut url: Url) -> Result<HttpClient, UrlError> {
        let is_https = url.scheme == "https";
        let (scheme, default_port) = if is_https { ("https", 443) } else { ("http", 80) };
        let (host, port) = url.place(Some(default_port))?;
        let envelope = envelope_from_url(&mut url)?;
        let times = Times::from_url(&mut url)?;
        let query = url.text("query").map(|query| format!("?{query}")).unwrap_or_default();
        let path = if url.raw_path().is_empty() { "/" } else { url.raw_path() }.to_owned();
        let expected = "characters that HTTP allows, others percent-encoded";
        let target = format!("{path}{query}").parse().map_err(|_| url.wrong("path or query", "is none", expected))?;
        let named = host_port(&host, port);
        // as browsers write it: the usual port goes without saying
        let named = named.strip_suffix(&format!(":{default_port}")).unwrap_or(&named);
        let host_header = HeaderValue::from_str(named).map_err(|_| url.wrong("host", "is none", expected))?;
        let authorization = match (&url.user, &url.password) {
            (None, _) => None,
            (Some(user), password) => {
                let login = format!("{user}:{}", password.as_deref().unwrap_or_default());
                let value = HeaderValue::from_str(&format!("Basic {}", STANDARD.encode(login)));
                let mut value = value.map_err(|_| url.wrong("user", "is none", expected))?;
                value.set_sensitive(true);
                Some(value)
            }
        };
        #[cfg(feature = "https")]
        let tls = is_https.then(|| super::tls::Tls::from_url(&mut url, &host)).transpose()?;
        let address = format!("{scheme}://{}{path}", host_port(&host, port));
        url.finish()?;
        Ok(HttpClient {
            scheme,
            address,
            target,
            host: host_header,
            authorization,
            dial: TcpDial::new(host, port),
            #[cfg(feature = "https")]
            tls,
            envelope,
            times,
            connection: Mutex::default(),
        })
    }

    fn slot(&self) -> MutexGuard<'_, Option<Sender>> {
        self.connection.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The connection that is open, if there is one.
    async fn open(&self) -> Option<Sender> {
        let mut sender = self.slot().take()?;
        // it is ready as soon as the answer before has been read, or it is closed
        timeout(self.times.connect_timeout, sender.ready()).await.ok()?.ok()?;
        Some(sender)
    }

    async fn connect(&self) -> Result<Sender, SendError> {
        wire::connect(self.times.connect_timeout, async {
            let stream = self.dial.connect().await?;
            #[cfg(feature = "https")]
            if let Some(tls) = &self.tls {
                return start(tls.handshake(stream).await?).await;
            }
            start(stream).await
        })
        .await
    }

    async fn post(&self, message: &Message) -> Result<(), SendError> {
        if let Some(sender) = self.open().await {
            match self.request(sender, message).await {
                Attempt::Answered(result) => return result,
                // the target has closed a connection that was idle, as it may
                Attempt::Unsent(_) => {}
            }
        }
        let sender = self.connect().await?;
        match self.request(sender, message).await {
            Attempt::Answered(result) => result,
            Attempt::Unsent(error) => Err(error),
        }
    }

    async fn request(&self, mut sender: Sender, message: &Message) -> Attempt {
        let deadline = Instant::now() + self.times.send_timeout;
        let late = || SendError::new(SendErrorKind::Timeout, format!("no answer within {:?}", self.times.send_timeout));
        let response = match timeout_at(deadline, sender.try_send_request(self.build(message))).await {
            Err(_) => return Attempt::Answered(Err(late().in_doubt())),
            Ok(Ok(response)) => response,
            Ok(Err(mut error)) => {
                let text = chain(error.error());
                return match error.take_message() {
                    Some(_) => Attempt::Unsent(SendError::new(SendErrorKind::Closed, text)),
                    None => Attempt::Answered(Err(SendError::new(SendErrorKind::Closed, text).in_doubt())),
                };
            }
        };
        let status = response.status();
        let answer = timeout_at(deadline, Limited::new(response.into_body(), MAX_ANSWER).collect()).await;
        // whatever the status says has been said; only a connection that was read to the end is used again
        let answer = match answer {
            Ok(Ok(answer)) => {
                *self.slot() = Some(sender);
                answer.to_bytes()
            }
            _ => Bytes::new(),
        };
        Attempt::Answered(verdict(status, &answer))
    }

    fn build(&self, message: &Message) -> Request<Full<Bytes>> {
        let body = match self.envelope {
            true => envelope::encode(message).into(),
            false => message.body.clone(),
        };
        let mut request = Request::new(Full::new(body));
        *request.method_mut() = hyper::Method::POST;
        *request.uri_mut() = self.target.clone();
        let headers = request.headers_mut();
        headers.insert(HOST, self.host.clone());
        headers.insert(USER_AGENT, HeaderValue::from_static(concat!("corelay/", env!("CARGO_PKG_VERSION"))));
        if let Some(authorization) = &self.authorization {
            headers.insert(AUTHORIZATION, authorization.clone());
        }
        let content_type = match (self.envelope, message.headers.get("content-type")) {
            (true, _) => HeaderValue::from_static("application/json"),
            (false, stated) => stated
                .and_then(|stated| HeaderValue::from_bytes(stated).ok())
                .unwrap_or(HeaderValue::from_static("application/octet-stream")),
        };
        headers.insert(CONTENT_TYPE, content_type);
        let mut put = |name: &'static str, value: String| {
            // ids, numbers and times are always header values
            if let Ok(value) = HeaderValue::try_from(value) {
                headers.insert(HeaderName::from_static(name), value);
            }
        };
        put("x-corelay-request-id", message.id.to_string());
        put("x-corelay-key", message.key.to_string());
        put("x-corelay-channel", message.channel.to_string());
        put("x-corelay-kind", message.kind.as_str().to_owned());
        put("x-corelay-time", envelope::rfc3339(message.time));
        match message.part {
            Part::Whole => {}
            Part::Chunk { sequence, last } => {
                put("x-corelay-sequence", sequence.to_string());
                put("x-corelay-last", last.to_string());
            }
            Part::Aborted { sequence } => {
                put("x-corelay-sequence", sequence.to_string());
                put("x-corelay-aborted", "true".to_owned());
            }
        }
        if !self.envelope {
            for (name, value) in message.headers.iter().filter(|(name, _)| *name != b"content-type") {
                let name = [b"x-corelay-header-", name].concat();
                if let (Ok(name), Ok(value)) = (HeaderName::from_bytes(&name), HeaderValue::from_bytes(value)) {
                    headers.append(name, value);
                }
            }
        }
        request
    }
}

/// HTTP on a stream; its task ends with the stream, or when the sender is dropped.
async fn start<S>(stream: S) -> io::Result<Sender>
where
    S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + Send + 'static,
{
    let (sender, connection) = handshake(TokioIo::new(stream)).await.map_err(io::Error::other)?;
    tokio::spawn(async move {
        let _ = connection.await; // whoever sends is told
    });
    Ok(sender)
}

fn verdict(status: StatusCode, answer: &[u8]) -> Result<(), SendError> {
    let kind = match status.as_u16() {
        200..=299 => return Ok(()),
        413 => SendErrorKind::TooLarge,
        408 | 425 | 429 | 500..=599 => SendErrorKind::Unavailable,
        _ => SendErrorKind::Rejected,
    };
    let quote = String::from_utf8_lossy(&answer[..answer.len().min(MAX_QUOTE)]);
    let quote = quote.lines().next().unwrap_or_default().trim();
    let colon = if quote.is_empty() { "" } else { ": " };
    Err(SendError::new(kind, format!("HTTP {status}{colon}{quote}")))
}

/// An error with what caused it.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(error) = next {
        text = format!("{text}: {error}");
        next = error.source();
    }
    text
}

impl Client for HttpClient {
    fn protocol_name(&self) -> &str {
        self.scheme
    }

    fn address(&self) -> &str {
        &self.address
    }

    fn send<'a>(&'a self, message: &'a Message) -> SendFuture<'a> {
        Box::pin(self.post(message))
    }

    fn promise(&self) -> Promise {
        Promise::AtLeastOnce
    }

    fn takes(&self) -> Takes {
        Takes { max_body: None, parts: true }
    }

    fn probe(&self) -> SendFuture<'_> {
        Box::pin(async {
            let sender = match self.open().await {
                Some(sender) => sender,
                None => self.connect().await?,
            };
            *self.slot() = Some(sender);
            Ok(())
        })
    }

    fn close(&self) -> clients::Closing<'_> {
        Box::pin(async { drop(self.slot().take()) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_says_whether_to_try_again() {
        let kind = |status| verdict(StatusCode::from_u16(status).unwrap(), b"why\nmore").map_err(|error| error.kind());
        for status in [200, 204] {
            assert_eq!(kind(status), Ok(()));
        }
        for status in [408, 425, 429, 500, 503] {
            assert_eq!(kind(status), Err(SendErrorKind::Unavailable));
        }
        for status in [301, 400, 404, 409] {
            assert_eq!(kind(status), Err(SendErrorKind::Rejected));
        }
        assert_eq!(kind(413), Err(SendErrorKind::TooLarge));
        let error = verdict(StatusCode::BAD_REQUEST, b"why\nmore").unwrap_err();
        assert_eq!(error.to_string(), "rejected: HTTP 400 Bad Request: why");
    }
}
