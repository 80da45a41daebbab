//! Where a client is to send: a URL of the configuration, taken apart.

use std::collections::BTreeMap;
use std::time::Duration;

use percent_encoding::percent_decode_str;
use url::Url;

/// A target that can't be used. The text never holds a password.
///
/// ```
/// # #[cfg(feature = "nats")] {
/// use corelay::forward::NatsClient;
/// let error = NatsClient::new("nats://me:secret@127.0.0.1/orders?jetstream=maybe").unwrap_err();
/// assert_eq!(error.to_string(), r#"target nats://127.0.0.1/orders: jetstream is "maybe": expected true or false"#);
/// # }
/// ```
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("target {target}: {why}")]
pub struct InvalidTarget {
    target: String,
    why: String,
}

/// What every client of a server can be told by its URL.
#[derive(Clone, Copy, Debug)]
pub(super) struct Common {
    /// How long connecting may take: `connect_timeout`, 5 s.
    pub(super) connect_timeout: Duration,
    /// How long a batch may take: `timeout`, 10 s.
    pub(super) timeout: Duration,
    /// The largest body in bytes: `max_body`.
    pub(super) max_body: usize,
}

/// A URL and its parameters, which are taken one by one.
#[derive(Debug)]
pub(super) struct Target {
    url: Url,
    params: BTreeMap<String, String>,
    address: String,
}

#[allow(dead_code, reason = "each client uses some of it, and they are behind features")]
impl Target {
    /// A URL of one of these schemes.
    pub(super) fn new(text: &str, schemes: &[&str]) -> Result<Target, InvalidTarget> {
        // a text that can't be taken apart may hold a password anywhere
        let invalid = |why: String| InvalidTarget { target: "(unreadable)".into(), why };
        let url = Url::parse(text).map_err(|error| invalid(format!("expected a URL: {error}")))?;
        let host = url.host_str().unwrap_or_default();
        let port = url.port().map(|port| format!(":{port}")).unwrap_or_default();
        let address = format!("{}://{host}{port}{}", url.scheme(), url.path());
        let wrong = |why: String| InvalidTarget { target: address.clone(), why };
        if !schemes.contains(&url.scheme()) {
            return Err(wrong(format!("expected {}://", schemes.join(":// or "))));
        }
        if host.is_empty() {
            return Err(wrong("expected a host".into()));
        }
        let mut params = BTreeMap::new();
        for (name, value) in url.query_pairs() {
            if params.insert(name.to_string(), value.into_owned()).is_some() {
                return Err(wrong(format!("{name} is there twice")));
            }
        }
        Ok(Target { params, address, url })
    }

    /// For people: without user, password and parameters.
    pub(super) fn address(&self) -> &str {
        &self.address
    }

    pub(super) fn wrong(&self, why: impl Into<String>) -> InvalidTarget {
        InvalidTarget { target: self.address.clone(), why: why.into() }
    }

    pub(super) fn scheme(&self) -> &str {
        self.url.scheme()
    }

    /// `host:port`.
    pub(super) fn host(&self, port: u16) -> String {
        format!("{}:{}", self.url.host_str().unwrap_or_default(), self.url.port().unwrap_or(port))
    }

    /// The path without its first slash, decoded.
    pub(super) fn path(&self) -> Result<String, InvalidTarget> {
        let path = self.url.path().trim_start_matches('/');
        let decoded = percent_decode_str(path).decode_utf8();
        decoded.map(String::from).map_err(|_| self.wrong("the path is no UTF-8"))
    }

    /// The same server under another scheme and path, with user and password, without parameters: for a library.
    pub(super) fn server(&self, scheme: &str, path: &str) -> String {
        // the URL's own scheme may be of another class, which `Url` doesn't change
        let user = match (self.url.username(), self.url.password()) {
            ("", None) => String::new(),
            (user, None) => format!("{user}@"),
            (user, Some(password)) => format!("{user}:{password}@"),
        };
        let port = self.url.port().map(|port| format!(":{port}")).unwrap_or_default();
        format!("{scheme}://{user}{}{port}{path}", self.url.host_str().unwrap_or_default())
    }

    /// The path as it stands in the URL.
    pub(super) fn raw_path(&self) -> &str {
        self.url.path()
    }

    /// User and password, decoded.
    pub(super) fn login(&self) -> Result<Option<(String, String)>, InvalidTarget> {
        let decode = |text: &str| percent_decode_str(text).decode_utf8().map(String::from);
        let login = match (self.url.username(), self.url.password()) {
            ("", None) => return Ok(None),
            (user, password) => decode(user).and_then(|user| Ok((user, decode(password.unwrap_or_default())?))),
        };
        login.map(Some).map_err(|_| self.wrong("user or password are no UTF-8"))
    }

    pub(super) fn text(&mut self, name: &str) -> Option<String> {
        self.params.remove(name)
    }

    pub(super) fn flag(&mut self, name: &str, default: bool) -> Result<bool, InvalidTarget> {
        match self.text(name).as_deref() {
            None => Ok(default),
            Some("true") => Ok(true),
            Some("false") => Ok(false),
            Some(other) => Err(self.wrong(format!("{name} is {other:?}: expected true or false"))),
        }
    }

    /// A time of at least a millisecond: `250ms` or `5s`.
    fn time(&mut self, name: &str, default: Duration) -> Result<Duration, InvalidTarget> {
        let Some(text) = self.text(name) else { return Ok(default) };
        let time = match (text.strip_suffix("ms"), text.strip_suffix('s')) {
            (Some(ms), _) => ms.parse().ok().map(Duration::from_millis),
            (None, Some(seconds)) => seconds.parse().ok().map(Duration::from_secs),
            _ => None,
        };
        let hour = Duration::from_secs(3600);
        time.filter(|time| !time.is_zero() && *time <= hour)
            .ok_or_else(|| self.wrong(format!("{name} is {text:?}: expected 1ms to 3600s")))
    }

    /// A count above 0.
    pub(super) fn count(&mut self, name: &str) -> Result<Option<u64>, InvalidTarget> {
        let Some(text) = self.text(name) else { return Ok(None) };
        let count = text.parse().ok().filter(|count| *count > 0);
        count.map(Some).ok_or_else(|| self.wrong(format!("{name} is {text:?}: expected a number above 0")))
    }

    /// What all have, with what this system takes by default.
    pub(super) fn common(&mut self, max_body: usize) -> Result<Common, InvalidTarget> {
        let most = self.count("max_body")?.map_or(max_body, |most| usize::try_from(most).unwrap_or(usize::MAX));
        Ok(Common {
            connect_timeout: self.time("connect_timeout", Duration::from_secs(5))?,
            timeout: self.time("timeout", Duration::from_secs(10))?,
            max_body: most,
        })
    }

    /// All parameters have been taken.
    pub(super) fn finish(&self) -> Result<(), InvalidTarget> {
        match self.params.keys().next() {
            Some(name) => Err(self.wrong(format!("there is no parameter {name:?}"))),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_is_taken_apart() {
        let text = "redis+tls://me:p%40ss@db.example:7000/a%3Ab/c?timeout=250ms&max_body=10&on=true";
        let mut target = Target::new(text, &["redis", "redis+tls"]).unwrap();
        assert_eq!(
            (target.address(), target.host(1)),
            ("redis+tls://db.example:7000/a%3Ab/c", "db.example:7000".into())
        );
        assert_eq!(target.path().unwrap(), "a:b/c");
        assert_eq!(target.login().unwrap(), Some(("me".into(), "p@ss".into())));
        assert_eq!(target.server("rediss", "/2"), "rediss://me:p%40ss@db.example:7000/2");
        let common = target.common(7).unwrap();
        assert_eq!((common.timeout, common.max_body), (Duration::from_millis(250), 10));
        assert!(target.finish().unwrap_err().to_string().contains("no parameter \"on\""));
        assert!(target.flag("on", false).unwrap());
        assert!(target.finish().is_ok());
        assert_eq!(Target::new("redis://[::1]/a", &["redis"]).unwrap().host(6379), "[::1]:6379");
    }

    #[test]
    fn what_is_wrong_is_said_without_the_password() {
        let open = |text: &str| {
            let mut target = Target::new(text, &["nats"])?;
            target.common(1)?;
            target.flag("on", true)?;
            target.count("n")?;
            target.finish()
        };
        let wrong = [
            ("nats//me:secret", "URL"),
            ("http://me:secret@h/x", "expected nats://"),
            ("nats:///x", "host"),
            ("nats://me:secret@h/x?on=1", "true or false"),
            ("nats://me:secret@h/x?timeout=5", "1ms to 3600s"),
            ("nats://me:secret@h/x?timeout=0s", "1ms to 3600s"),
            ("nats://me:secret@h/x?connect_timeout=9999s", "1ms to 3600s"),
            ("nats://me:secret@h/x?max_body=0", "above 0"),
            ("nats://me:secret@h/x?n=-1", "above 0"),
            ("nats://me:secret@h/x?on=true&on=false", "twice"),
            ("nats://me:secret@h/x?token=abc", "no parameter"),
        ];
        for (text, why) in wrong {
            let error = open(text).unwrap_err().to_string();
            assert!(error.contains(why) && !error.contains("secret"), "{text}: {error}");
        }
    }
}
