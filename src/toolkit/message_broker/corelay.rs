//! corelay itself: a topic's group is a channel of the broker, its members are the channel's providers, a message is a
//! request, and acknowledging is answering.
//!
//! - Nothing is stored: [`publish`](Adapter::publish) resolves when every group named in [`Options::groups`] has
//!   acknowledged. Until then the publisher holds the message, and sends it again when it was refused, late, or its
//!   member lost. A publisher that gives up, or is lost, takes it along. So [`super::Options::timeout`] has to cover the
//!   handling.
//! - With no member there, the publisher waits for one.
//! - Balancing knows the load: a member says how many messages it takes (`in_flight`), and never gets more.
//! - There is no limit to a message's size but memory.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use tokio::sync::{Mutex, oneshot};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};

use super::adapter::{Received, Source};
use super::bounds::check_timeout;
use super::consumer::waits;
use super::delivery::Settle;
use super::feed::{self, Feed};
use super::{Adapter, Capabilities, Consume, Error, ErrorKind, Message, TopicOptions};
use crate::client::{self, Consumer, Provider, Request};

const ID: &str = "corelay-id";
const TIME: &str = "corelay-time-ms";
const KEY: &str = "corelay-key";
const ATTEMPT: &str = "corelay-attempt";
/// What a member fails a request with that it has not handled: the publisher sends it again.
const AGAIN: &str = "corelay: deliver again";
/// Waits before a message is sent again: from this to [`AGAIN_MAX`], doubling, with jitter.
const AGAIN_MIN: Duration = Duration::from_millis(1);
const AGAIN_MAX: Duration = Duration::from_secs(1);
/// How long leaving waits for what is still held to be settled.
const DRAIN: Duration = Duration::from_secs(1);

/// How to reach the broker, and for whom messages are.
#[derive(Clone, Debug)]
pub struct Options {
    /// Addresses of brokers, separated by commas. Default `127.0.0.1:9090`.
    pub addr: String,
    /// The groups that get what this handle publishes: the broker knows of no topics, so the publisher says. Default:
    /// one, `default`.
    pub groups: Vec<String>,
    /// What the names of channels begin with. Default empty.
    pub prefix: String,
    /// How long a publish may take in all, the handling included. Default 30 s.
    pub timeout: Duration,
    /// How to connect.
    pub client: client::Options,
}

impl Default for Options {
    fn default() -> Options {
        Options {
            addr: "127.0.0.1:9090".into(),
            groups: vec!["default".into()],
            prefix: String::new(),
            timeout: Duration::from_secs(30),
            client: client::Options::default(),
        }
    }
}

/// corelay's channels as a message broker: see the [module](self).
///
/// ```no_run
/// use corelay::toolkit::message_broker::corelay::{Corelay, Options};
/// use corelay::toolkit::message_broker::Broker;
/// # async fn example() -> Result<(), corelay::toolkit::message_broker::Error> {
/// let options = Options { groups: vec!["billing".into(), "audit".into()], ..Options::default() };
/// let broker = Broker::new(Corelay::connect(options).await?);
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct Corelay {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    options: Options,
    /// A connection for the round trips of health checks.
    pings: Consumer,
    /// Connections to channels, by name.
    channels: Mutex<HashMap<String, Consumer>>,
}

/// What an error of the client means.
fn failed(error: client::Error) -> Error {
    use client::ErrorKind as Client;
    let kind = match error.kind {
        Client::Deadline => ErrorKind::Timeout,
        Client::Overloaded => ErrorKind::Full,
        Client::Connection | Client::Draining | Client::ProviderLost | Client::NoProvider | Client::Cancelled => {
            ErrorKind::Connection
        }
        Client::InvalidInput => ErrorKind::Invalid,
        Client::Closed => ErrorKind::Closed,
        _ => ErrorKind::Refused,
    };
    Error::new(kind, error.to_string()).caused_by(error)
}

impl Corelay {
    /// What it can do.
    pub const CAPABILITIES: Capabilities = Capabilities { ack_timeout: true, ..Capabilities::NONE };

    /// Connects.
    ///
    /// # Errors
    /// [`ErrorKind::Connection`] where no broker answers; [`ErrorKind::Invalid`] for options that can't be used.
    pub async fn connect(options: Options) -> Result<Corelay, Error> {
        check_timeout(options.timeout)?;
        if options.groups.is_empty() {
            return Err(Error::new(ErrorKind::Invalid, "groups is empty: what is published would go nowhere"));
        }
        for group in &options.groups {
            super::name::check("group", group)?;
        }
        let channel = format!("{}health", options.prefix);
        let pings = Consumer::connect_with(options.addr.as_str(), channel, options.client.clone()).await;
        let pings = pings.map_err(failed)?;
        Ok(Corelay { shared: Arc::new(Shared { options, pings, channels: Mutex::default() }) })
    }

    fn channel(&self, topic: &str, group: &str) -> String {
        format!("{}{topic}/{group}", self.shared.options.prefix)
    }

    async fn consumer(&self, channel: String) -> Result<Consumer, Error> {
        let mut channels = self.shared.channels.lock().await;
        if let Some(consumer) = channels.get(&channel) {
            return Ok(consumer.clone());
        }
        let Options { addr, client, .. } = &self.shared.options;
        let new = Consumer::connect_with(addr.as_str(), channel.as_str(), client.clone()).await.map_err(failed)?;
        channels.insert(channel, new.clone());
        Ok(new)
    }

    /// Sends a message to one group until it is acknowledged.
    async fn send(self, group: String, message: Message) -> Result<(), Error> {
        let consumer = self.consumer(self.channel(message.topic(), &group)).await?;
        let until = Instant::now() + self.shared.options.timeout;
        let mut waits = waits(AGAIN_MIN, AGAIN_MAX);
        let mut attempt = 1_u32;
        loop {
            let left = until.saturating_duration_since(Instant::now());
            let mut request = consumer.request(message.value().clone()).timeout(left).wait(true);
            for (name, value) in headers(&message, attempt) {
                request = request.header(name, value);
            }
            let done = match request.send().await {
                Ok(response) => response.bytes().await.map(drop),
                Err(error) => Err(error),
            };
            let error = match done {
                Ok(()) => return Ok(()),
                Err(error) => error,
            };
            let again = error.kind.is_retryable() || error.text() == AGAIN;
            if !again || Instant::now() >= until {
                return Err(failed(error));
            }
            attempt = attempt.saturating_add(u32::from(error.may_have_started()));
            sleep(waits.next().unwrap_or(AGAIN_MAX)).await;
        }
    }
}

fn headers(message: &Message, attempt: u32) -> Vec<(String, Vec<u8>)> {
    let own = |name: &str, value: String| (name.to_string(), value.into_bytes());
    let mut headers = vec![
        own(ID, message.id().to_string()),
        own(TIME, message.timestamp_ms().to_string()),
        own(ATTEMPT, attempt.to_string()),
    ];
    headers.extend(message.key().map(|key| (KEY.to_string(), key.to_vec())));
    headers.extend(message.headers().iter().map(|(name, value)| (lower(name), value.to_vec())));
    headers
}

/// Keys of headers are lower-case on the wire: a letter that isn't goes behind a `+`, which names don't have.
fn lower(name: &str) -> String {
    let letters = name.chars().flat_map(|letter| {
        let mark = letter.is_ascii_uppercase().then_some('+');
        mark.into_iter().chain([letter.to_ascii_lowercase()])
    });
    letters.collect()
}

fn raised(name: &str) -> String {
    let mut letters = name.chars();
    let next = || match letters.next() {
        Some('+') => letters.next().map(|letter| letter.to_ascii_uppercase()),
        letter => letter,
    };
    std::iter::from_fn(next).collect()
}

/// The message of a request, and which attempt it is.
fn decode(topic: &str, request: &Request, body: Bytes) -> (Message, u32) {
    let mut builder = Message::builder(topic).value(body).id(request.id());
    let mut attempt = 1;
    for (name, value) in request.headers() {
        let number = || std::str::from_utf8(value).ok().and_then(|text| text.parse::<u64>().ok());
        match name.as_str() {
            ID => {
                let id = std::str::from_utf8(value).ok().and_then(|text| text.parse().ok());
                builder = builder.id(id.unwrap_or(request.id()));
            }
            TIME => {
                let time = std::time::UNIX_EPOCH + Duration::from_millis(number().unwrap_or(0));
                builder = builder.timestamp(time);
            }
            KEY => builder = builder.key(value.clone()),
            ATTEMPT => attempt = number().and_then(|number| u32::try_from(number).ok()).unwrap_or(1),
            _ => builder = builder.header(raised(name), value.clone()),
        }
    }
    (builder.received(), attempt)
}

#[async_trait]
impl Adapter for Corelay {
    fn system(&self) -> &'static str {
        "corelay"
    }

    fn capabilities(&self) -> Capabilities {
        Corelay::CAPABILITIES
    }

    async fn publish(&self, message: Message) -> Result<(), Error> {
        let mut groups = JoinSet::new();
        for group in &self.shared.options.groups {
            groups.spawn(self.clone().send(group.clone(), message.clone()));
        }
        let mut result = Ok(());
        while let Some(done) = groups.join_next().await {
            let cut_off = |_| Err(Error::new(ErrorKind::Refused, "the task of a publish was cut off"));
            result = result.and(done.unwrap_or_else(cut_off));
        }
        result
    }

    async fn consume(&self, consume: &Consume) -> Result<Box<dyn Source>, Error> {
        let Options { addr, client, .. } = &self.shared.options;
        let channel = self.channel(&consume.topic, &consume.group);
        let most = u32::try_from(consume.in_flight).unwrap_or(u32::MAX);
        let provider = Provider::connect_with(addr.as_str(), channel, most, client.clone()).await.map_err(failed)?;
        let member = Member { provider, consume: consume.clone() };
        Ok(Box::new(Feed::start(consume.in_flight, |into, stop| member.run(into, stop))))
    }

    async fn create_topic(&self, _: &str, _: &TopicOptions) -> Result<(), Error> {
        Err(Error::unsupported(self.system(), "create topics: it has channels, which need no creating"))
    }

    async fn delete_topic(&self, _: &str) -> Result<(), Error> {
        Err(Error::unsupported(self.system(), "delete topics"))
    }

    async fn topic_exists(&self, _: &str) -> Result<bool, Error> {
        Err(Error::unsupported(self.system(), "tell whether there is a topic"))
    }

    async fn topics(&self) -> Result<Vec<String>, Error> {
        Err(Error::unsupported(self.system(), "list topics"))
    }

    async fn ping(&self) -> Result<(), Error> {
        self.shared.pings.ping().await.map(drop).map_err(failed)
    }

    async fn close(&self) {
        for (_, consumer) in self.shared.channels.lock().await.drain() {
            consumer.close().await;
        }
        self.shared.pings.close().await;
    }
}

/// A member of a group.
struct Member {
    provider: Provider,
    consume: Consume,
}

impl Member {
    async fn run(self, into: feed::Into, mut stop: feed::Stop) -> Result<(), Error> {
        loop {
            let request = tokio::select! {
                biased;
                _ = &mut stop => break,
                request = self.provider.receive() => request,
            };
            let Some(request) = request else {
                let ended = || Error::new(ErrorKind::Closed, "the provider was closed");
                let why = self.provider.error().map_or_else(ended, failed);
                let _ = into.send(Err(why)).await;
                return Ok(());
            };
            let (topic, timeout) = (self.consume.topic.clone(), self.consume.ack_timeout);
            let into = into.clone();
            // a body that is slow to arrive holds up none of the others
            tokio::spawn(hold(request, topic, timeout, into));
        }
        // what is held may still be settled; what is on its way goes to others
        let refuse = async {
            while let Some(request) = self.provider.receive().await {
                let _ = request.fail(AGAIN).await;
            }
        };
        let (drained, ()) = tokio::join!(self.provider.drain(DRAIN), refuse);
        drained.or(Ok(()))
    }
}

/// How a request ends.
#[derive(Debug)]
enum End {
    Ack,
    Nack,
}

type Order = (End, oneshot::Sender<Result<(), Error>>);

/// Hands a request on, and answers it when it is settled.
async fn hold(mut request: Request, topic: String, limit: Duration, into: feed::Into) {
    // cut off: the publisher sends it again, if it is still there
    let Ok(body) = request.bytes().await else { return };
    let (message, attempt) = decode(&topic, &request, body);
    let (settle, settled) = oneshot::channel::<Order>();
    let received = Received { message, attempt, settle: Box::new(Held { settle }) };
    if into.send(Ok(received.into())).await.is_err() {
        let _ = request.fail(AGAIN).await;
        return;
    }
    let gone = request.cancellation();
    let end = tokio::select! {
        end = timeout(limit, settled) => end,
        () = gone.cancelled() => return,
    };
    match end {
        Ok(Ok((End::Ack, told))) => {
            let _ = told.send(request.respond(Bytes::new()).await.map_err(failed));
        }
        Ok(Ok((End::Nack, told))) => {
            let _ = told.send(request.fail(AGAIN).await.map_err(failed));
        }
        // late, or dropped
        Err(_) | Ok(Err(_)) => {
            let _ = request.fail(AGAIN).await;
        }
    }
}

/// One message this member holds.
#[derive(Debug)]
struct Held {
    settle: oneshot::Sender<Order>,
}

impl Held {
    async fn end(self, end: End) -> Result<(), Error> {
        let expired = || Error::new(ErrorKind::Expired, "nobody waits for it any more, or it was late");
        let (told, tells) = oneshot::channel();
        self.settle.send((end, told)).map_err(|_| expired())?;
        tells.await.map_err(|_| expired())?
    }
}

#[async_trait]
impl Settle for Held {
    async fn ack(self: Box<Self>) -> Result<(), Error> {
        self.end(End::Ack).await
    }

    async fn nack(self: Box<Self>, _: Duration) -> Result<(), Error> {
        self.end(End::Nack).await
    }

    fn abandon(self: Box<Self>) {
        // dropping it tells
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_keep_their_case() {
        for name in ["a", "Case.Kept-as_IS", "X", "9"] {
            assert_eq!(raised(&lower(name)), name);
            assert!(!lower(name).bytes().any(|byte| byte.is_ascii_uppercase()));
        }
    }
}
