//! Building a broker that does more than options can say.

use std::sync::Arc;

use super::companion::{Local, Plan};
use super::options::{ProducerOptions, ServerOptions};
use super::server::{Server, ServerError};
use super::tell::SpanSink;
use crate::forward::{Client, Message};

/// A broker to be started: its options, and what only a program can give it.
///
/// ```no_run
/// use corelay::Server;
/// use corelay::broker::{ProducerOptions, ServerOptions};
///
/// let producers = vec![ProducerOptions::new("log", "tcp://127.0.0.1:9000")];
/// let server = Server::builder()
///     .options(ServerOptions { producers, ..ServerOptions::default() })
///     .on_message(|message| println!("{} bytes on {}", message.body.len(), message.channel))
///     .start()?;
/// server.join()?;
/// # Ok::<(), corelay::broker::ServerError>(())
/// ```
#[derive(Clone, Debug, Default)]
pub struct ServerBuilder {
    options: ServerOptions,
    plans: Vec<Plan>,
    sink: Option<SpanSink>,
}

impl ServerBuilder {
    /// The id of what [`on_message`](ServerBuilder::on_message) makes.
    const LOCAL: &'static str = "on-message";

    /// How it runs. By itself: the defaults.
    #[must_use]
    pub fn options(mut self, options: ServerOptions) -> ServerBuilder {
        self.options = options;
        self
    }

    /// Processes each request here, beside its way to a provider and whatever it is forwarded to. `f` is called on a
    /// thread of its own for each core, so it may block; what it can't keep up with is dropped, and counted for the
    /// producer `on-message`. A request larger than [`ForwardOptions::max_message`](super::ForwardOptions) is skipped.
    /// A panic is caught and counted. A second call adds a second function.
    #[must_use]
    pub fn on_message(self, f: impl Fn(&Message) + Send + Sync + 'static) -> ServerBuilder {
        let n = self.plans.iter().filter(|plan| plan.options.id.starts_with(Self::LOCAL)).count();
        let id = if n == 0 { Self::LOCAL.to_owned() } else { format!("{}-{}", Self::LOCAL, n + 1) };
        let options = ProducerOptions { retries: 0, ..ProducerOptions::new(id, "local://on_message") };
        let f: super::companion::OnMessage = Arc::new(f);
        self.producer(options, move |_| Arc::new(Local(Arc::clone(&f))))
    }

    /// Forwards to a client of the program's own: `make` is called once for each core. Of `options` the url is for
    /// people only.
    #[must_use]
    pub fn producer(
        mut self,
        options: ProducerOptions,
        make: impl Fn(u16) -> Arc<dyn Client> + Send + Sync + 'static,
    ) -> ServerBuilder {
        self.plans.push(Plan { options, make: Arc::new(move |core| Ok(make(core))) });
        self
    }

    /// Puts requests whose trace is recorded in this queue when they have ended ([`spans`](super::spans)).
    #[must_use]
    pub fn spans(mut self, sink: Option<SpanSink>) -> ServerBuilder {
        self.sink = sink;
        self
    }

    /// Starts it: see [`Server::start`].
    ///
    /// # Errors
    /// [`ServerError`]: each says what to do.
    pub fn start(self) -> Result<Server, ServerError> {
        Server::start_with(self.options, self.plans, self.sink)
    }
}
