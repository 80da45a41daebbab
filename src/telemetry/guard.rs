//! Who may change something: never a web page of somebody else that a browser on this machine happens to show.
//!
//! Such a page can make the browser send a POST to 127.0.0.1, but the browser then says so in `Origin`. And it can have
//! its own name resolve to 127.0.0.1 (DNS rebinding), but the browser then sends that name in `Host`. With TLS there is no
//! such thing, for our certificate is not one for that name: names will do there.

use axum::extract::Request;
use axum::http::{HeaderMap, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

/// Marks requests that came by TLS.
#[derive(Clone, Copy, Debug)]
pub(super) struct Encrypted;

/// Lets through what only looks, and what plainly comes from a person or program that means this endpoint.
pub(super) async fn guard(request: Request, next: Next) -> Response {
    if request.method().is_safe() {
        return next.run(request).await;
    }
    match refusal(request.headers(), request.extensions().get::<Encrypted>().is_some()) {
        None => next.run(request).await,
        Some(why) => (StatusCode::FORBIDDEN, format!("refused: {why}\n")).into_response(),
    }
}

fn refusal(headers: &HeaderMap, encrypted: bool) -> Option<&'static str> {
    let text = |name| headers.get(name).and_then(|value| value.to_str().ok());
    let Some(host) = text(header::HOST) else { return Some("no Host header") };
    if !encrypted && !is_plain(host) {
        return Some("the Host header must be an IP address or localhost: a name may be anybody's (DNS rebinding)");
    }
    let scheme = if encrypted { "https" } else { "http" };
    let origin = headers.get(header::ORIGIN).map(|_| text(header::ORIGIN).unwrap_or_default());
    match origin {
        Some(origin) if origin != format!("{scheme}://{host}") => Some("it comes from another site's page (Origin)"),
        _ => None,
    }
}

/// Whether a Host header names no name: an IP address or localhost, with or without a port.
fn is_plain(host: &str) -> bool {
    let name = match host.strip_prefix('[') {
        Some(rest) => rest.split(']').next().unwrap_or_default(),
        None => host.split(':').next().unwrap_or_default(),
    };
    name.eq_ignore_ascii_case("localhost") || name.parse::<std::net::IpAddr>().is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused_where(lines: &[(header::HeaderName, &str)], encrypted: bool) -> bool {
        let headers: HeaderMap = lines.iter().map(|(name, value)| (name.clone(), value.parse().unwrap())).collect();
        refusal(&headers, encrypted).is_some()
    }

    fn refused(lines: &[(header::HeaderName, &str)]) -> bool {
        refused_where(lines, false)
    }

    #[test]
    fn with_tls_names_will_do_but_other_sites_will_not() {
        let host = (header::HOST, "broker.example:9091");
        assert!(!refused_where(std::slice::from_ref(&host), true));
        assert!(!refused_where(&[host.clone(), (header::ORIGIN, "https://broker.example:9091")], true));
        for origin in ["http://broker.example:9091", "https://evil.example", "null"] {
            assert!(refused_where(&[host.clone(), (header::ORIGIN, origin)], true), "{origin}");
        }
    }

    #[test]
    fn other_sites_pages_are_refused_and_tools_are_not() {
        fn host(value: &str) -> (header::HeaderName, &str) {
            (header::HOST, value)
        }
        fn origin(value: &str) -> (header::HeaderName, &str) {
            (header::ORIGIN, value)
        }
        for good in ["127.0.0.1:9091", "localhost:9091", "localhost", "[::1]:9091", "192.0.2.7"] {
            assert!(!refused(&[host(good)]), "{good}");
            assert!(!refused(&[host(good), origin(&format!("http://{good}"))]), "{good}");
            assert!(refused(&[host(good), origin("https://evil.example")]), "{good}");
            assert!(refused(&[host(good), origin("null")]), "{good}");
        }
        for bad in ["evil.example:9091", "evil.example", "127.0.0.1.evil.example", "[evil]", "", "localhost.evil"] {
            assert!(refused(&[host(bad)]), "{bad}");
        }
        assert!(refused(&[]));
    }
}
