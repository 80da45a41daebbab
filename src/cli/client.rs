//! What all commands that talk to a broker share: where it is, and what is said when it isn't there.

use std::error::Error as _;
use std::os::unix::ffi::OsStringExt;
use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use corelay::base::ChannelId;
use corelay::client::{Addr, Addrs, Consumer, Error, ErrorKind, Options, Token};

use super::exit::{Failure, code_of};
use super::tls::TlsArgs;
use crate::config::parse_duration;

/// Where the broker is.
#[derive(Clone, Debug, Args)]
pub(crate) struct ServerArgs {
    /// The broker: host:port, tls://host:port or unix:/path; several with commas between are tried in turn
    #[arg(long, value_name = "ADDR", env = "CORELAY_SERVER", hide_env_values = true, default_value = "127.0.0.1:9090")]
    server: String,
    /// The token that proves who this is, in a file; or in the variable CORELAY_TOKEN. Never in an argument
    #[arg(long, value_name = "FILE", env = "CORELAY_TOKEN_FILE", hide_env_values = true)]
    token_file: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) tls: TlsArgs,
}

/// The variable with the token, and the one that names a file with it.
pub(crate) const TOKEN_VARIABLES: [&str; 2] = ["CORELAY_TOKEN", "CORELAY_TOKEN_FILE"];

impl ServerArgs {
    /// The addresses.
    pub(crate) fn addrs(&self) -> Addrs {
        Addrs::from(&self.server)
    }

    /// How to connect: with TLS where an address asks for it, with the token where there is one; `name` is for people.
    pub(crate) fn options(&self, name: &str) -> Result<Options, Failure> {
        let addrs = self.addrs();
        let is_used = addrs.list().is_ok_and(|addrs| addrs.iter().any(|addr| matches!(addr, Addr::Tls(_))));
        let options = Options::default().name(name).tls(self.tls.tls(is_used, "--server"));
        Ok(match self.token()? {
            Some(token) => options.token(token),
            None => options,
        })
    }

    fn token(&self) -> Result<Option<Token>, Failure> {
        let Some(path) = &self.token_file else {
            let token = std::env::var_os("CORELAY_TOKEN").filter(|token| !token.is_empty());
            return Ok(token.map(|token| token.into_vec().into()));
        };
        let bad = |what: &str| Failure::usage(format!("--token-file {}: {what}", path.display()));
        let text = std::fs::read(path).map_err(|error| bad(&error.to_string()))?;
        match text.trim_ascii_end() {
            [] => Err(bad("it is empty, expected a token")),
            token => Ok(Some(token.into())),
        }
    }

    /// Connects a consumer.
    pub(crate) async fn consumer(&self, channel: ChannelId, name: &str) -> Result<Consumer, Failure> {
        Consumer::connect_with(self.addrs(), channel, self.options(name)?)
            .await
            .map_err(|error| self.unreachable(&error))
    }

    /// What to say when connecting failed.
    pub(crate) fn unreachable(&self, error: &Error) -> Failure {
        let text = match error.kind {
            ErrorKind::Connection => {
                format!(
                    "{}\nIs a broker running there? `corelay serve` starts one; --server names another.",
                    error.text()
                )
            }
            ErrorKind::Protocol => {
                format!("{}\nIs a corelay broker listening there? --server names another address.", error.text())
            }
            ErrorKind::Unauthorized => {
                format!(
                    "not allowed: {}\nThe token is read from --token-file or the variable CORELAY_TOKEN; the broker's \
                     [[auth.token]] entries say what it may do.",
                    error.text()
                )
            }
            // of files it says itself which
            ErrorKind::InvalidInput if error.source().is_some() => error.text().to_owned(),
            ErrorKind::InvalidInput => format!("--server: {}", error.text()),
            _ => error.to_string(),
        };
        Failure::new(code_of(error.kind), text)
    }
}

/// How a request is sent.
#[derive(Clone, Debug, Args)]
pub(crate) struct SendArgs {
    /// The channel: a UUID or a name
    pub(crate) channel: ChannelId,
    /// The body: a file, or - for stdin
    #[arg(default_value = "-")]
    pub(crate) file: String,
    #[command(flatten)]
    pub(crate) server: ServerArgs,
    /// How long the whole request may take, sending and answer included; for long work give more than the default
    #[arg(long, value_name = "TIME", default_value = "30s", value_parser = timeout)]
    pub(crate) timeout: Duration,
    /// With no provider there, wait for one until the timeout
    #[arg(long)]
    pub(crate) wait: bool,
    /// The work may safely run twice: if its provider is lost, another may get it
    #[arg(long)]
    pub(crate) retry: bool,
    /// A header to send along; lower-case key, may be repeated
    #[arg(long = "header", value_name = "KEY=VALUE", value_parser = header)]
    pub(crate) headers: Vec<(String, String)>,
}

impl SendArgs {
    /// The request these arguments describe.
    pub(crate) fn build<'a>(
        &self,
        consumer: &'a Consumer,
        body: corelay::client::Body,
    ) -> corelay::client::RequestBuilder<'a> {
        let request = consumer.request(body).timeout(self.timeout).wait(self.wait).retry(self.retry);
        let with_header = |request: corelay::client::RequestBuilder<'a>, (key, value): &(String, String)| {
            request.header(key.as_str(), value.as_bytes())
        };
        self.headers.iter().fold(request, with_header)
    }
}

/// A timeout that can be sent: 1 ms to 2^32 - 1 ms.
fn timeout(text: &str) -> Result<Duration, String> {
    let time = parse_duration(text)?;
    let fits = time >= Duration::from_millis(1) && time.as_millis() <= u128::from(u32::MAX);
    if fits { Ok(time) } else { Err("expected 1ms to 49d".into()) }
}

fn header(text: &str) -> Result<(String, String), String> {
    let (key, value) = text.split_once('=').ok_or("expected KEY=VALUE")?;
    let checked = corelay::protocol::encode_headers([(key, value)], &mut Vec::new());
    checked.map_err(|error| error.to_string())?;
    Ok((key.to_owned(), value.to_owned()))
}
