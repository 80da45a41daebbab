//! SIGHUP: what a running broker reads anew.
//!
//! All settings are read again, from the same sources as at the start. If anything is wrong with them, everything stays
//! as it was. Else each part of the list in `serve` is shown the new settings and takes up its own; one that can't says
//! so, keeps what it had, and hinders no other.

use corelay::tls::{Acceptor, TlsOptions};
use tracing::{error, info};

use crate::config::{Config, Loaded, Sources};

/// Takes up its part of the new settings. What it gives is for the log: what it took up, if anything, or why it keeps
/// what it had.
pub(crate) type Part = Box<dyn FnMut(&Config) -> Result<Option<String>, String> + Send>;

/// What is read anew, and from where.
pub(crate) struct Reload {
    sources: Sources,
    parts: Vec<(&'static str, Part)>,
}

impl Reload {
    /// Nothing yet.
    pub(crate) fn new(sources: Sources) -> Reload {
        Reload { sources, parts: Vec::new() }
    }

    /// With one more part; `name` is for the log.
    pub(crate) fn with(mut self, name: &'static str, part: Part) -> Reload {
        self.parts.push((name, part));
        self
    }

    /// Reads everything anew.
    pub(crate) fn now(&mut self) {
        let loaded = match Loaded::from(&self.sources) {
            Ok(loaded) => loaded,
            Err(error) => return error!(%error, "not reloaded, everything stays as it was"),
        };
        for (name, part) in &mut self.parts {
            match part(&loaded.config) {
                Ok(Some(what)) => info!(part = name, "reloaded: {what}"),
                Ok(None) => {}
                Err(error) => error!(part = name, "not reloaded, it stays as it was: {error}"),
            }
        }
    }
}

/// The part of all that only a start can change: it says which settings wait for one.
pub(crate) fn waits_for_a_start(running: Config) -> Part {
    Box::new(move |config| {
        let mut running = running.clone();
        // taken up by parts of their own
        running.server.tls = config.server.tls.clone();
        running.admin.tls = config.admin.tls.clone();
        running.log.level = config.log.level.clone();
        let changed = config.changed_since(&running);
        Ok((!changed.is_empty()).then(|| format!("{} will change with the next start", changed.join(", "))))
    })
}

/// Certificates and keys: the files are read again, whether or not it is others that are named now.
pub(crate) fn renews(acceptor: Option<Acceptor>, files: fn(&Config) -> TlsOptions) -> Part {
    Box::new(move |config| {
        let Some(acceptor) = &acceptor else { return Ok(None) };
        let options = files(config);
        acceptor.reload_from(&options).map_err(|error| error.to_string())?;
        let cert = options.cert.as_ref().map(|path| path.display().to_string()).unwrap_or_default();
        Ok(Some(format!("handshakes use the certificate in {cert} from now on")))
    })
}
