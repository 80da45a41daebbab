//! A target for people to read, without what is secret in it.

/// Options whose values are shown: those of this crate's clients, but for `query`, which goes to somebody else.
/// Whatever another client calls its secrets, they are not shown.
const SHOWN: &[&str] = &[
    "brokers",
    "ca",
    "connect_timeout",
    "create",
    "db",
    "envelope",
    "exchange",
    "framing",
    "jetstream",
    "keep",
    "key",
    "mandatory",
    "max_body",
    "max_len",
    "mechanism",
    "mtu",
    "queue",
    "rotate",
    "send_timeout",
    "server_name",
    "sslmode",
    "sync",
    "table",
    "timeout",
    "type",
];

/// A target's URL with `***` in place of its password, and of the value of each option that may be a secret.
///
/// ```
/// use corelay::forward::redact;
/// assert_eq!(redact("nats://me:secret@h:4222/orders?timeout=2s"), "nats://me:***@h:4222/orders?timeout=2s");
/// assert_eq!(redact("shout://h?token=secret"), "shout://h?token=***");
/// ```
#[must_use]
pub fn redact(url: &str) -> String {
    let (scheme, rest) = url.find("://").map_or(("", url), |at| url.split_at(at + 3));
    let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
    // a password with one of these unescaped makes no URL, and is not to be seen all the same
    let is_cut = !rest[..end].contains('@') && rest[end..].contains('@') && !is_place(&rest[..end]);
    let login_end = if is_cut { rest.rfind('@') } else { rest[..end].rfind('@') };
    let mut shown = scheme.to_owned();
    let rest = match login_end {
        None => rest,
        Some(at) => {
            let login = &rest[..at];
            match login.split_once(':') {
                Some((user, _)) => shown += &format!("{user}:***@"),
                // on its own it may be a token
                None => shown += "***@",
            }
            &rest[at + 1..]
        }
    };
    let (rest, fragment) = rest.find('#').map_or((rest, ""), |at| rest.split_at(at));
    let (place, query) = rest.find('?').map_or((rest, ""), |at| rest.split_at(at));
    shown += place;
    for (n, pair) in query.trim_start_matches('?').split('&').enumerate().filter(|(_, pair)| !pair.is_empty()) {
        shown.push(if n == 0 { '?' } else { '&' });
        match pair.split_once('=') {
            Some((name, _)) if !SHOWN.contains(&name) => shown += &format!("{name}=***"),
            _ => shown += pair,
        }
    }
    shown + fragment
}

/// Whether it is a host, with a port or without.
fn is_place(text: &str) -> bool {
    text.starts_with('[') || text.split_once(':').is_none_or(|(_, port)| port.bytes().all(|byte| byte.is_ascii_digit()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_secret_is_shown_and_nothing_else_is_hidden() {
        for (url, shown) in [
            ("tcp://127.0.0.1:9000?framing=lines", "tcp://127.0.0.1:9000?framing=lines"),
            ("tcp://me:secret@[::1]:9000", "tcp://me:***@[::1]:9000"),
            ("nats://secret@h/orders", "nats://***@h/orders"),
            ("redis://:secret@h:1/a:b?db=2", "redis://:***@h:1/a:b?db=2"),
            ("amqp://me:sec@ret@h/%2f?exchange=e&key=a.b", "amqp://me:***@h/%2f?exchange=e&key=a.b"),
            ("http://h/a@b?query=token%3Dsecret&envelope=json", "http://h/a@b?query=***&envelope=json"),
            ("http://h:80/a@b", "http://h:80/a@b"),
            ("x://h?token=secret&flag&password=secret#top", "x://h?token=***&flag&password=***#top"),
            // none of these is a URL
            ("me:secret@h", "me:***@h"),
            ("x://me:sec/ret@h/p", "x://me:***@h/p"),
            ("x://me:sec?ret@h", "x://me:***@h"),
            ("x://me:sec#ret@h", "x://me:***@h"),
            ("", ""),
            ("?", ""),
        ] {
            assert_eq!(redact(url), shown, "{url}");
        }
    }

    #[test]
    fn what_each_client_can_be_told_is_shown() {
        for url in [
            "kafka://h/t?brokers=a:1&mechanism=PLAIN&timeout=1s&connect_timeout=1s&max_body=1",
            "postgres://h/d?table=t&create=true&sslmode=require",
            "file:///x?rotate=1MiB&keep=3&sync=always&framing=len32&envelope=json",
            "unix:///x?type=datagram&mtu=8KiB&send_timeout=1s",
        ] {
            assert_eq!(redact(url), url);
        }
    }
}
