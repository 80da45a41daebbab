//! A target's URL, taken apart: `scheme://user:password@host:port/path?option=value&...`.

use std::fmt;
use std::time::Duration;

use percent_encoding::percent_decode_str;

/// A URL that makes no client. The text never holds a password.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum UrlError {
    /// There is no `scheme://`.
    #[error("a target has no scheme; expected a URL such as tcp://127.0.0.1:9000")]
    NoScheme,
    /// A scheme that nobody has registered.
    #[error("there is no client for {scheme}://; expected one of {}", known.join(", "))]
    UnknownScheme {
        /// As given.
        scheme: String,
        /// Those there are.
        known: Vec<String>,
    },
    /// A scheme whose client is not compiled in.
    #[error("{scheme}:// needs the cargo feature `{feature}`, which this program was built without")]
    FeatureMissing {
        /// As given.
        scheme: String,
        /// The feature that brings it.
        feature: &'static str,
    },
    /// A part of the URL that can't be used.
    #[error("{scheme}://: the {part} {wrong}; expected {expected}")]
    Part {
        /// The URL's scheme.
        scheme: String,
        /// Host, port, path, user or password.
        part: &'static str,
        /// What is wrong with it.
        wrong: &'static str,
        /// What would do.
        expected: &'static str,
    },
    /// An option this client does not have.
    #[error("{scheme}:// has no option {option:?}; expected one of {}", known.join(", "))]
    UnknownOption {
        /// The URL's scheme.
        scheme: String,
        /// As given.
        option: String,
        /// Those it has.
        known: Vec<&'static str>,
    },
    /// An option that is there twice.
    #[error("{scheme}://: the option {option} is given twice")]
    Twice {
        /// The URL's scheme.
        scheme: String,
        /// Which.
        option: String,
    },
    /// An option's value that can't be used.
    #[error("{scheme}://: the option {option} is {value:?}; expected {expected}")]
    BadOption {
        /// The URL's scheme.
        scheme: String,
        /// Which.
        option: &'static str,
        /// As given.
        value: String,
        /// What would do.
        expected: String,
    },
    /// What a client of another kind says about its URL.
    #[error("{scheme}://: {source}")]
    Client {
        /// The URL's scheme.
        scheme: String,
        /// What is wrong.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

/// The parts of a URL; options are taken one by one, and those left over are an error.
pub(super) struct Url {
    pub(super) scheme: String,
    pub(super) user: Option<String>,
    pub(super) password: Option<String>,
    /// Without the brackets of an IPv6 address.
    pub(super) host: String,
    pub(super) port: Option<u16>,
    /// Decoded, with its leading slash; empty if there is none.
    pub(super) path: String,
    /// As they came: login and place, path.
    authority: String,
    raw_path: String,
    options: Vec<(String, String)>,
    known: Vec<&'static str>,
}

impl fmt::Debug for Url {
    /// Without login, path and options, where secrets may be.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Url").field("scheme", &self.scheme).field("host", &self.host).finish_non_exhaustive()
    }
}

/// The scheme of a URL, in lower case.
pub(super) fn scheme_of(text: &str) -> Result<String, UrlError> {
    let (scheme, _) = text.split_once("://").ok_or(UrlError::NoScheme)?;
    let is_scheme = scheme.starts_with(|c: char| c.is_ascii_alphabetic())
        && scheme.chars().all(|c| c.is_ascii_alphanumeric() || "+-.".contains(c));
    if is_scheme { Ok(scheme.to_ascii_lowercase()) } else { Err(UrlError::NoScheme) }
}

impl Url {
    pub(super) fn parse(text: &str) -> Result<Url, UrlError> {
        let scheme = scheme_of(text)?;
        let wrong = |part, wrong, expected| UrlError::Part { scheme: scheme.clone(), part, wrong, expected };
        let decode = |part, text: &str| {
            let decoded = percent_decode_str(text).decode_utf8();
            decoded.map(String::from).map_err(|_| wrong(part, "is not UTF-8", "UTF-8, percent-encoded where needed"))
        };
        let rest = &text[scheme.len() + 3..];
        let rest = rest.split_once('#').map_or(rest, |(rest, _)| rest);
        let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
        let (authority, raw_path) = rest.find('/').map_or((rest, ""), |slash| rest.split_at(slash));
        let (login, place) =
            authority.rsplit_once('@').map_or((None, authority), |(login, place)| (Some(login), place));
        let (user, password) = match login.map(|login| login.split_once(':').unwrap_or((login, ""))) {
            None => (None, None),
            Some((user, password)) => {
                let password = decode("password", password)?;
                (Some(decode("user", user)?), Some(password).filter(|password| !password.is_empty()))
            }
        };
        let (host, port) = split_place(place)
            .ok_or_else(|| wrong("host", "and port can't be told apart", "host:port, an IPv6 address in brackets"))?;
        let host = decode("host", host)?;
        if host.contains(|c: char| c.is_whitespace() || c.is_control()) {
            return Err(wrong("host", "has a space or control character in it", "a name or an address"));
        }
        let port = match port {
            None => None,
            Some(port) => Some(port.parse().map_err(|_| wrong("port", "is not one", "a number from 0 to 65535"))?),
        };
        let mut options = Vec::<(String, String)>::new();
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            let (name, value) = (decode("option", name)?, decode("option", value)?);
            if options.iter().any(|(other, _)| *other == name) {
                return Err(UrlError::Twice { scheme, option: name });
            }
            options.push((name, value));
        }
        Ok(Url {
            user,
            password,
            host,
            port,
            authority: authority.to_owned(),
            path: decode("path", raw_path)?,
            raw_path: raw_path.to_owned(),
            options,
            known: Vec::new(),
            scheme,
        })
    }

    pub(super) fn raw_path(&self) -> &str {
        &self.raw_path
    }

    /// Login, host and port as they came: for a library, not for people.
    #[allow(dead_code, reason = "those that use it are behind features")]
    pub(super) fn authority(&self) -> &str {
        &self.authority
    }

    pub(super) fn wrong(&self, part: &'static str, wrong: &'static str, expected: &'static str) -> UrlError {
        UrlError::Part { scheme: self.scheme.clone(), part, wrong, expected }
    }

    /// Host and port, both needed; the host without brackets.
    pub(super) fn place(&self, default_port: Option<u16>) -> Result<(String, u16), UrlError> {
        if self.host.is_empty() {
            return Err(self.wrong("host", "is missing", "host:port"));
        }
        let port = self.port.or(default_port);
        let port = port.ok_or_else(|| self.wrong("port", "is missing", "host:port"))?;
        Ok((self.host.clone(), port))
    }

    /// For clients with no use for a login.
    pub(super) fn without_login(&self) -> Result<(), UrlError> {
        match self.user {
            Some(_) => Err(self.wrong("user", "has no use here", "none")),
            None => Ok(()),
        }
    }

    /// For clients with no use for a path.
    pub(super) fn without_path(&self) -> Result<(), UrlError> {
        match &*self.path {
            "" | "/" => Ok(()),
            _ => Err(self.wrong("path", "has no use here", "none")),
        }
    }

    /// The path of a file or socket: `scheme:///path`.
    pub(super) fn file_path(&self) -> Result<std::path::PathBuf, UrlError> {
        if !self.host.is_empty() || self.port.is_some() {
            return Err(self.wrong("host", "has no use here", "three slashes and an absolute path"));
        }
        if self.path.len() < 2 || self.path.contains('\0') {
            return Err(self.wrong("path", "is missing", "three slashes and an absolute path"));
        }
        Ok(self.path.clone().into())
    }

    pub(super) fn text(&mut self, option: &'static str) -> Option<String> {
        self.known.push(option);
        let at = self.options.iter().position(|(name, _)| name == option)?;
        Some(self.options.swap_remove(at).1)
    }

    /// An option read by a function, which says no by `None`.
    pub(super) fn read<T>(
        &mut self,
        option: &'static str,
        expected: &str,
        read: impl Fn(&str) -> Option<T>,
    ) -> Result<Option<T>, UrlError> {
        let Some(value) = self.text(option) else { return Ok(None) };
        match read(&value) {
            Some(read) => Ok(Some(read)),
            None => {
                Err(UrlError::BadOption { scheme: self.scheme.clone(), option, value, expected: expected.to_owned() })
            }
        }
    }

    /// A time of 1 ms to 1 h.
    pub(super) fn duration(&mut self, option: &'static str, default: Duration) -> Result<Duration, UrlError> {
        let range = Duration::from_millis(1)..=Duration::from_secs(3600);
        let read = |text: &str| humantime::parse_duration(text).ok().filter(|duration| range.contains(duration));
        Ok(self.read(option, "a time from 1ms to 1h, such as 250ms or 5s", read)?.unwrap_or(default))
    }

    /// A number of bytes above 0.
    pub(super) fn size(&mut self, option: &'static str) -> Result<Option<u64>, UrlError> {
        self.read(option, "a size above 0, such as 4096, 256KiB or 64MiB", parse_size)
    }

    /// One of several words.
    pub(super) fn choice<T: Copy>(
        &mut self,
        option: &'static str,
        words: &[(&str, T)],
        default: T,
    ) -> Result<T, UrlError> {
        let expected = words.iter().map(|(word, _)| *word).collect::<Vec<_>>().join(" or ");
        let read = |text: &str| words.iter().find(|(word, _)| *word == text).map(|(_, value)| *value);
        Ok(self.read(option, &expected, read)?.unwrap_or(default))
    }

    /// Every option has been taken.
    pub(super) fn finish(mut self) -> Result<(), UrlError> {
        match self.options.pop() {
            None => Ok(()),
            Some((option, _)) => {
                self.known.sort_unstable();
                Err(UrlError::UnknownOption { scheme: self.scheme, option, known: self.known })
            }
        }
    }
}

/// Host and port of `host`, `host:port`, `[v6]` and `[v6]:port`.
fn split_place(place: &str) -> Option<(&str, Option<&str>)> {
    if let Some(rest) = place.strip_prefix('[') {
        let (host, rest) = rest.split_once(']')?;
        return match rest.strip_prefix(':') {
            Some(port) => Some((host, Some(port))),
            None => rest.is_empty().then_some((host, None)),
        };
    }
    match place.split_once(':') {
        None => Some((place, None)),
        Some((host, port)) => (!port.contains(':')).then_some((host, Some(port))),
    }
}

/// `host:port` for people and for looking it up, an IPv6 address in brackets.
pub(super) fn host_port(host: &str, port: u16) -> String {
    if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") }
}

fn parse_size(text: &str) -> Option<u64> {
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let scale = match unit {
        "" | "B" => 0,
        "KiB" => 10,
        "MiB" => 20,
        "GiB" => 30,
        _ => return None,
    };
    number.parse::<u64>().ok()?.checked_mul(1 << scale).filter(|&size| size > 0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn urls_are_taken_apart() {
        let mut url = Url::parse("HTTP://me:p%40ss:w@[::1]:80/a%20b?connect_timeout=250ms&n=3&rotate=64MiB").unwrap();
        assert_eq!((&*url.scheme, &*url.host, url.port), ("http", "::1", Some(80)));
        assert_eq!((url.user.as_deref(), url.password.as_deref().unwrap()), (Some("me"), "p@ss:w"));
        assert_eq!((&*url.path, url.raw_path()), ("/a b", "/a%20b"));
        assert_eq!(url.duration("connect_timeout", Duration::ZERO).unwrap(), Duration::from_millis(250));
        assert_eq!(url.text("n").as_deref(), Some("3"));
        assert_eq!(url.size("rotate").unwrap(), Some(64 << 20));
        assert_eq!(url.authority(), "me:p%40ss:w@[::1]:80");
        let shown = format!("{url:?}");
        assert!(!shown.contains("p@ss") && !shown.contains("p%40ss"), "{shown}");
        url.finish().unwrap();
        let url = Url::parse("unix:///run/x.sock").unwrap();
        assert_eq!((&*url.host, url.file_path().unwrap()), ("", "/run/x.sock".into()));
        assert_eq!(Url::parse("tcp://a:1").unwrap().place(None).unwrap(), ("a".into(), 1));
        assert_eq!(host_port("::1", 2), "[::1]:2");
    }

    #[test]
    fn what_is_wrong_is_said_without_the_password() {
        let open = |text: &str| {
            let mut url = Url::parse(text)?;
            url.place(None)?;
            url.without_path()?;
            url.duration("connect_timeout", Duration::ZERO)?;
            url.size("rotate")?;
            url.choice("framing", &[("len32", 1), ("lines", 2)], 1)?;
            url.finish()
        };
        for (text, why) in [
            ("127.0.0.1:9000", "no scheme"),
            ("me:secret@://x", "no scheme"),
            ("tcp://", "host is missing"),
            ("tcp://me:secret@h", "port is missing"),
            ("tcp://me:secret@h:70000", "0 to 65535"),
            ("tcp://me:secret@::1:1", "IPv6 address in brackets"),
            ("tcp://h:1/secret", "path has no use"),
            ("tcp://h:1?connect_timeout=5", "such as 250ms"),
            ("tcp://h:1?connect_timeout=0s", "such as 250ms"),
            ("tcp://h:1?rotate=0", "above 0"),
            ("tcp://h:1?framing=json", "expected len32 or lines"),
            ("tcp://h:1?framing=len32&framing=len32", "given twice"),
            (
                "tcp://me:secret@h:1?frame=secret",
                "no option \"frame\"; expected one of connect_timeout, framing, rotate",
            ),
        ] {
            let error = open(text).unwrap_err().to_string();
            assert!(error.contains(why) && !error.contains("secret"), "{text}: {error}");
        }
    }

    proptest! {
        #[test]
        fn no_text_panics(text in "(tcp://)?[a-z:/?&=%@\\[\\].#é]{0,30}") {
            let _ = Url::parse(&text);
        }
    }
}
