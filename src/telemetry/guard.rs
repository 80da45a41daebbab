//! Who may change something: never a web page of somebody else that a browser on this machine happens to show.
//!
//! Such a page can make the browser send a POST to 127.0.0.1, but the browser then says so in `Origin`. And it can have
//! its own name resolve to 127.0.0.1 (DNS rebinding), but the browser then sends that name in `Host`.

use axum::extract::Request;
use axum::http::{HeaderMap, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

/// Lets through what only looks, and what plainly comes from a person or program that means this endpoint.
pub(super) async fn guard(request: Request, next: Next) -> Response {
    if request.method().is_safe() {
        return next.run(request).await;
    }
    match refusal(request.headers()) {
        None => next.run(request).await,
        Some(why) => (StatusCode::FORBIDDEN, format!("refused: {why}\n")).into_response(),
    }
}

fn refusal(headers: &HeaderMap) -> Option<&'static str> {
    let text = |name| headers.get(name).and_then(|value| value.to_str().ok());
    let Some(host) = text(header::HOST) else { return Some("no Host header") };
    if !is_plain(host) {
        return Some("the Host header must be an IP address or localhost: a name may be anybody's (DNS rebinding)");
    }
    let origin = headers.get(header::ORIGIN).map(|_| text(header::ORIGIN).unwrap_or_default());
    match origin {
        Some(origin) if origin != format!("http://{host}") => Some("it comes from another site's page (Origin)"),
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

    fn refused(lines: &[(header::HeaderName, &str)]) -> bool {
        let headers: HeaderMap = lines.iter().map(|(name, value)| (name.clone(), value.parse().unwrap())).collect();
        refusal(&headers).is_some()
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
