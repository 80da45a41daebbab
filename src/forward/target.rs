//! What URLs of servers have in common that a library connects to.

use std::fmt::Display;
use std::time::Duration;

use super::url::{Url, UrlError};

/// What every client of such a server can be told by its URL.
#[derive(Clone, Copy, Debug)]
pub(super) struct Common {
    /// How long connecting may take: `connect_timeout`, 5 s.
    pub(super) connect_timeout: Duration,
    /// How long a batch may take: `timeout`, 10 s.
    pub(super) timeout: Duration,
    /// The largest body in bytes: `max_body`.
    pub(super) max_body: usize,
}

#[allow(dead_code, reason = "each client uses some of it, and they are behind features")]
impl Url {
    /// A URL of one of these schemes.
    pub(super) fn of(text: &str, schemes: &[&str]) -> Result<Url, UrlError> {
        let url = Url::parse(text)?;
        if schemes.contains(&&*url.scheme) {
            return Ok(url);
        }
        let known = schemes.iter().map(|scheme| (*scheme).to_owned()).collect();
        Err(UrlError::UnknownScheme { scheme: url.scheme, known })
    }

    /// What all have, with what this system takes by default.
    pub(super) fn common(&mut self, max_body: usize) -> Result<Common, UrlError> {
        if self.host.is_empty() {
            return Err(self.wrong("host", "is missing", "one"));
        }
        Ok(Common {
            connect_timeout: self.duration("connect_timeout", Duration::from_secs(5))?,
            timeout: self.duration("timeout", Duration::from_secs(10))?,
            max_body: self.size("max_body")?.map_or(max_body, |most| usize::try_from(most).unwrap_or(usize::MAX)),
        })
    }

    /// For people: without user, password and options.
    pub(super) fn address(&self) -> String {
        let host = if self.host.contains(':') { format!("[{}]", self.host) } else { self.host.clone() };
        let port = self.port.map(|port| format!(":{port}")).unwrap_or_default();
        format!("{}://{host}{port}{}", self.scheme, self.raw_path())
    }

    /// The same server under another scheme and path, with user and password, without options: for a library.
    pub(super) fn server(&self, scheme: &str, path: &str) -> String {
        format!("{scheme}://{}{path}", self.authority())
    }

    /// What the path names: without its first slash, decoded.
    pub(super) fn name(&self) -> String {
        self.path.strip_prefix('/').unwrap_or(&self.path).to_owned()
    }

    /// What the library says of it.
    pub(super) fn refused(&self, why: impl Display) -> UrlError {
        UrlError::Client { scheme: self.scheme.clone(), source: why.to_string().into() }
    }

    pub(super) fn flag(&mut self, option: &'static str, default: bool) -> Result<bool, UrlError> {
        self.choice(option, &[("true", true), ("false", false)], default)
    }

    /// A number above 0.
    pub(super) fn count(&mut self, option: &'static str) -> Result<Option<u64>, UrlError> {
        self.read(option, "a number above 0", |text| text.parse().ok().filter(|count| *count > 0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_is_taken_apart() {
        let text = "redis+tls://me:p%40ss@db.example:7000/a%3Ab/c?timeout=250ms&max_body=10&on=true";
        let mut url = Url::of(text, &["redis", "redis+tls"]).unwrap();
        assert_eq!((url.address(), url.name()), ("redis+tls://db.example:7000/a%3Ab/c".into(), "a:b/c".into()));
        assert_eq!(url.server("rediss", "/2"), "rediss://me:p%40ss@db.example:7000/2");
        let common = url.common(7).unwrap();
        assert_eq!((common.timeout, common.max_body), (Duration::from_millis(250), 10));
        assert!(url.flag("on", false).unwrap());
        assert!(url.finish().is_ok());
        let url = Url::of("redis://[::1]/a", &["redis"]).unwrap();
        assert_eq!((url.address(), url.server("x", "")), ("redis://[::1]/a".into(), "x://[::1]".into()));
    }

    #[test]
    fn what_is_wrong_is_said_without_the_password() {
        let open = |text: &str| {
            let mut url = Url::of(text, &["nats"])?;
            url.common(1)?;
            url.flag("on", true)?;
            url.count("n")?;
            url.finish()
        };
        let wrong = [
            ("http://me:secret@h/x", "expected one of nats"),
            ("nats:///x", "host"),
            ("nats://me:secret@a b/x", "host"),
            ("nats://me:secret@h/x?on=1", "true or false"),
            ("nats://me:secret@h/x?timeout=5", "1ms to 1h"),
            ("nats://me:secret@h/x?connect_timeout=9999s", "1ms to 1h"),
            ("nats://me:secret@h/x?max_body=0", "above 0"),
            ("nats://me:secret@h/x?n=-1", "above 0"),
            ("nats://me:secret@h/x?token=abc", "no option \"token\""),
        ];
        for (text, why) in wrong {
            let error = open(text).unwrap_err().to_string();
            assert!(error.contains(why) && !error.contains("secret"), "{text}: {error}");
        }
    }
}
