//! `corelay drain`: the same as SIGTERM, from elsewhere.

use std::io::Write;

use hyper::{Method, StatusCode};

use super::admin::AdminArgs;
use super::exit::{Failure, HELP_ADMIN};
use super::signals::block_on;
use super::tls::TlsArgs;

/// Begin a broker's orderly end, as SIGTERM does
///
/// It takes nothing new, what is in flight may finish within limits.drain_timeout, then it ends. Returns at once.
#[derive(Debug, clap::Args)]
#[command(after_help = HELP_ADMIN)]
pub(crate) struct Args {
    /// The broker's admin endpoint (corelay serve --admin): host:port, tls://host:port or unix:/path
    ///
    /// There is no default: one ends no broker by leaving something out.
    #[arg(long, value_name = "ADDR", env = "CORELAY_ADMIN", hide_env_values = true)]
    admin: String,
    #[command(flatten)]
    tls: TlsArgs,
}

pub(crate) fn run(args: Args) -> Result<(), Failure> {
    let admin = AdminArgs { admin: args.admin, tls: args.tls };
    let page = block_on(admin.send(Method::POST, "/drain"))?;
    let said = String::from_utf8_lossy(&page.body);
    if page.status != StatusCode::ACCEPTED {
        return Err(Failure::new(1, format!("{}: {} {}", admin.admin, page.status, said.trim())));
    }
    writeln!(std::io::stdout(), "{}", said.trim()).map_err(|error| Failure::stdout(&error))
}
