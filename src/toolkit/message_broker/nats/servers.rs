//! The servers of a URL and the login in it, which the client library leaves aside.

use async_nats::{ConnectOptions, ServerAddr};
use percent_encoding::percent_decode_str;

use super::super::{Error, ErrorKind};

/// Who this is.
#[derive(PartialEq, Eq)]
pub(super) enum Login {
    /// `nats://user:password@host`.
    User(String, String),
    /// `nats://token@host`.
    Token(String),
}

impl Login {
    pub(super) fn put(self, options: ConnectOptions) -> ConnectOptions {
        match self {
            Login::User(user, password) => options.user_and_password(user, password),
            Login::Token(token) => options.token(token),
        }
    }
}

/// Takes the URLs of servers apart, which are separated by commas.
pub(super) fn servers(urls: &str) -> Result<(Vec<ServerAddr>, Option<Login>), Error> {
    let invalid = |text| Error::new(ErrorKind::Invalid, text);
    let (mut servers, mut login) = (Vec::new(), None);
    for url in urls.split(',') {
        // the parser's own words could be those of the URL
        let server: ServerAddr = url.trim().parse().map_err(|_| invalid("url: expected nats://host:port"))?;
        if let Some(found) = login_of(&server).map_err(|()| invalid("url: user or password are no UTF-8"))? {
            if login.as_ref().is_some_and(|login| *login != found) {
                return Err(invalid("url: expected one login for all servers"));
            }
            login = Some(found);
        }
        // what the library shows of an address has no login then
        let mut address = server.into_inner();
        let bare = address.set_username("").and_then(|()| address.set_password(None));
        let server = bare.ok().and_then(|()| ServerAddr::from_url(address).ok());
        servers.push(server.ok_or_else(|| invalid("url: expected nats://host:port"))?);
    }
    Ok((servers, login))
}

fn login_of(server: &ServerAddr) -> Result<Option<Login>, ()> {
    let decode = |text: &str| percent_decode_str(text).decode_utf8().map(String::from).map_err(drop);
    Ok(match (server.username(), server.password()) {
        (None, None) => None,
        (Some(token), None) => Some(Login::Token(decode(token)?)),
        (user, Some(password)) => Some(Login::User(decode(user.unwrap_or_default())?, decode(password)?)),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn logins_are_taken_out_and_decoded() {
        let (found, login) = servers("nats://me:p%40ss%3A@a:1, tls://b").unwrap();
        assert!(login == Some(Login::User("me".into(), "p@ss:".into())));
        assert_eq!((found[0].host(), found[0].port(), found[1].tls_required()), ("a", 1, true));
        assert!(!format!("{found:?}").contains("p%40ss"), "{found:?}");
        assert!(servers("nats://s3cr%2Ft@a").unwrap().1 == Some(Login::Token("s3cr/t".into())));
        assert!(servers("nats://me:one@a,nats://me:one@b,nats://c").unwrap().1.is_some());
        assert!(servers("127.0.0.1:4222").unwrap().1.is_none());
    }

    #[test]
    fn what_cannot_be_used_is_said_without_the_password() {
        for (urls, why) in [
            ("nats://me:secret@a b", "expected nats://"),
            ("http://me:secret@a", "expected nats://"),
            ("nats://me:secret%ff@a", "UTF-8"),
            ("nats://me:secret@a,nats://me:other@b", "one login"),
        ] {
            let error = servers(urls).err().unwrap();
            assert_eq!(error.kind(), ErrorKind::Invalid);
            let text = format!("{error} {error:?}");
            assert!(text.contains(why) && !text.contains("secret"), "{text}");
        }
    }
}
