//! What a running broker can be told anew.

use std::sync::Arc;

use tracing::{info, warn};

use super::options::{BadOption, ServerOptions};
use super::server::Stopper;
use crate::auth::{AccessList, Entry};

/// Changes a running [`Server`](super::Server), from any thread. Cloning gives another handle to the same.
#[derive(Clone, Debug)]
pub struct Reloader {
    /// As at the start.
    options: Arc<ServerOptions>,
    stopper: Stopper,
}

impl Reloader {
    pub(super) fn new(options: Arc<ServerOptions>, stopper: Stopper) -> Reloader {
        Reloader { options, stopper }
    }

    /// From the next turn of each core on, these entries say who may do what ([`ServerOptions::auth`]). Sessions that
    /// may no longer do all they were granted are told UNAUTHORIZED and closed; all others go on.
    ///
    /// # Errors
    /// [`BadOption`]: an entry that can't work, or none at all where other machines can connect. Nothing has changed then.
    ///
    /// ```
    /// use corelay::auth::{Digest, Entry};
    /// let server = corelay::Server::bind("127.0.0.1:0").unwrap();
    /// let token = Some(Digest::of(b"0f3ac1d8e5b7426f"));
    /// let shop = Entry { token, allow: vec!["consume:orders".parse().unwrap()], ..Entry::new("shop") };
    /// server.reloader().auth(vec![shop])?;
    /// # server.kill();
    /// # Ok::<(), corelay::broker::BadOption>(())
    /// ```
    pub fn auth(&self, auth: Vec<Entry>) -> Result<(), BadOption> {
        let options = ServerOptions { auth, ..(*self.options).clone() };
        options.validate()?;
        let access = options.access_list()?;
        say_idle(&access);
        info!(entries = options.auth.len(), "who may do what has changed");
        self.stopper.set_access(Arc::new(access));
        Ok(())
    }
}

/// Says of which patterns nothing comes, or more than was meant.
pub(super) fn say_idle(access: &AccessList) {
    for (name, rule) in access.idle_patterns() {
        warn!(
            entry = name,
            "no known channel looks like {rule}: names are known that a [[channel]] or a rule spells out; a pattern \
             allows none of the others, and denies all of them"
        );
    }
}
