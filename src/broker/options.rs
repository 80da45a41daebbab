//! What a broker is told at its start: plain values, with how they are written.

mod producers;
mod values;

use std::fmt;
use std::net::SocketAddr;
use std::time::Duration;

pub(in crate::broker) use producers::validate_all;
pub use producers::{ForwardOptions, NamedChannel, ProducerOptions, TargetUrl, What};
pub use values::{BadValue, Cores, Io, ListenAddr};

use super::core::{MAX_ROUTES, Meter};
use crate::auth::{AccessList, Entry};
use crate::base::ChannelId;
use crate::base::limits::{Layout, Limits};
use crate::tls::{self, TlsOptions};

/// How a broker runs. Made with struct update syntax from the defaults:
///
/// ```
/// use corelay::broker::{Cores, ServerOptions};
/// let options = ServerOptions { cores: Cores::Count(2), name: "orders".into(), ..ServerOptions::default() };
/// assert_eq!(options.listen[0].to_string(), "127.0.0.1:9090");
/// assert!(options.validate().is_ok());
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerOptions {
    /// Where to accept connections. Default `127.0.0.1:9090`: nothing but this machine, until told otherwise.
    pub listen: Vec<ListenAddr>,
    /// How long a listening address may be in use before that is an error. Default 3 s: the kernel lets go of the port of
    /// a broker that was killed only when its rings are dismantled, some moments after its end. At most 1 min.
    pub bind_timeout: Duration,
    /// Certificate and key of the `tls://` addresses. Default: none.
    pub tls: TlsOptions,
    /// Which cores run the broker. Default: what the affinity mask and the cgroup's quota allow.
    pub cores: Cores,
    /// Whether each thread is bound to its core. Default: yes.
    pub pin: bool,
    /// How the kernel is asked. Default: io_uring, or epoll where that can't be had.
    pub io: Io,
    /// How long a core looks for work before it sleeps. Default 0: no CPU time is spent on an idle broker.
    pub spin: Duration,
    /// Bounds on everything a peer could make grow.
    pub limits: Limits,
    /// Channels that depart from them.
    pub channels: Vec<ChannelOptions>,
    /// Who messages are forwarded to; at most 64.
    pub producers: Vec<ProducerOptions>,
    /// What all of them share.
    pub forward: ForwardOptions,
    /// Receive buffers of each core; a power of two up to 32,768. Default 256: what one turn takes in at the most.
    pub buffers: usize,
    /// Size of each, in bytes. Default 64 KiB: with 256 of them 16 MiB a core. Against 16 KiB, messages of 64 KiB took
    /// a third less CPU: they arrive in one or two pieces.
    pub buffer_size: usize,
    /// Entries of a core's submission ring; a power of two up to 32,768. Default 1,024: one turn's operations.
    pub ring_entries: u32,
    /// Channels whose requests are counted and timed for each by itself, on each core; the rest is counted together.
    /// Default 256: 3 MiB a core once all have had requests, and at most 11,776 series (46 each) for Prometheus.
    pub telemetry_channels: usize,
    /// Who may do what. Default: no entries, which lets everybody do everything.
    pub auth: Vec<Entry>,
    /// Let other machines in without asking who they are. Default: no.
    pub insecure: bool,
    /// Requests that take so long or longer are told of in the log, at a bounded rate, and counted. Default: none are.
    pub slow: Option<Duration>,
    /// For people: shown in logs and metrics. Default: `corelay`.
    pub name: String,
}

impl Default for ServerOptions {
    fn default() -> ServerOptions {
        ServerOptions {
            listen: vec![ListenAddr::Tcp(SocketAddr::from(([127, 0, 0, 1], 9090)))],
            bind_timeout: Duration::from_secs(3),
            tls: TlsOptions::default(),
            cores: Cores::Auto,
            pin: true,
            io: Io::Auto,
            spin: Duration::ZERO,
            limits: Limits::default(),
            channels: Vec::new(),
            producers: Vec::new(),
            forward: ForwardOptions::default(),
            buffers: 256,
            buffer_size: 64 << 10,
            ring_entries: 1024,
            telemetry_channels: 256,
            auth: Vec::new(),
            insecure: false,
            slow: None,
            name: "corelay".into(),
        }
    }
}

/// An option that can't work.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{key} = {value}: expected {expected}")]
pub struct BadOption {
    /// Which option, as the configuration names it: `io.buffers`, `limits.window`, `channel.orders.window`.
    pub key: String,
    /// Its value.
    pub value: String,
    /// What would do.
    pub expected: String,
}

/// The most a ring of buffers or entries can have: what the kernel allows.
const MAX_RING: usize = 32_768;
/// The most channels with histograms of their own.
const MAX_METERS: usize = 16_384;

/// What is expected of an address where nobody is asked who he is.
const INSECURE: &str = "an address of this machine alone, such as 127.0.0.1:9090 or unix:/run/corelay.sock: whoever \
                        reaches it can use every channel. To let in who shows a token, name them in [[auth.token]]; \
                        who shows a certificate, serve tls:// and set tls.client_ca; all of a network you trust, say so \
                        with --insecure (server.insecure = true)";

impl ServerOptions {
    /// Checks every option by itself and against the others. What only the machine can tell (whether an address is
    /// free, a core exists) is told at the start.
    ///
    /// # Errors
    /// The first option that can't work.
    pub fn validate(&self) -> Result<(), BadOption> {
        let check = |ok: bool, key: &str, value: &dyn fmt::Display, expected: &str| {
            let bad = || BadOption { key: key.into(), value: value.to_string(), expected: expected.into() };
            if ok { Ok(()) } else { Err(bad()) }
        };
        check(!self.listen.is_empty(), "server.listen", &"nothing", "at least one address")?;
        let bind = self.bind_timeout <= Duration::from_secs(60);
        check(bind, "server.bind_timeout", &format!("{:?}", self.bind_timeout), "at most 1m")?;
        let (tls, is_tls) = (&self.tls, self.listen.iter().find(|addr| addr.is_tls()));
        if let Some(addr) = is_tls {
            check(tls.is_set(), "server.listen", addr, "tls.cert and tls.key for it, each the path of a PEM file")?;
        }
        let spin = self.spin <= Duration::from_secs(1);
        check(spin, "server.spin_us", &self.spin.as_micros(), "at most 1000000 (1 s)")?;
        let ring = |n: usize| n.is_power_of_two() && (8..=MAX_RING).contains(&n);
        let powers = "a power of two from 8 to 32768";
        check(ring(self.buffers), "io.buffers", &self.buffers, powers)?;
        check(ring(self.ring_entries as usize), "io.ring_entries", &self.ring_entries, powers)?;
        let size = (4096..=1 << 20).contains(&self.buffer_size) && self.buffer_size.is_multiple_of(64);
        check(size, "io.buffer_size", &self.buffer_size, "4096 (4KiB) to 1048576 (1MiB) bytes, a multiple of 64")?;
        let meters = self.telemetry_channels <= MAX_METERS;
        check(meters, "telemetry.channels", &self.telemetry_channels, "at most 16384 (200 MiB a core)")?;
        self.limits.validate().map_err(|bad| BadOption {
            key: format!("limits.{}", bad.key),
            value: bad.value,
            expected: bad.expected,
        })?;
        for (index, channel) in self.channels.iter().enumerate() {
            channel.validate(&self.limits)?;
            let twice = self.channels[..index].iter().any(|other| other.id == channel.id);
            check(!twice, "channel.id", &channel.name, "each channel once")?;
        }
        self.forward.validate()?;
        validate_all(self.producers.iter(), self.forward.max_message)?;
        self.access_list()?;
        // who shows a certificate of the right CA is no stranger
        let asks = |addr: &ListenAddr| addr.is_tls() && self.tls.client_ca.is_some();
        match self.listen.iter().find(|addr| !addr.is_local() && !asks(addr)) {
            Some(open) if self.auth.is_empty() && !self.insecure => check(false, "server.listen", open, INSECURE),
            _ => Ok(()),
        }
    }

    /// Who may do what, as it is asked.
    ///
    /// # Errors
    /// The first entry that can't work.
    pub fn access_list(&self) -> Result<AccessList, BadOption> {
        let names = self.channels.iter().map(|channel| (channel.id, channel.name.as_str()));
        AccessList::new(self.auth.clone(), names).map_err(|bad| BadOption {
            key: format!("auth.token.{}.name", bad.entry()),
            value: bad.entry().to_owned(),
            expected: bad.expected().to_owned(),
        })
    }

    /// Bytes that forwarding may hold on each core: on their way, in the making, and in queues.
    fn forwarding(&self) -> usize {
        if self.producers.is_empty() {
            return 0;
        }
        let queues = self.producers.iter().fold(0usize, |sum, producer| sum.saturating_add(producer.queue_bytes));
        let shared = self.forward.handover_bytes.saturating_add(self.forward.assembly_bytes);
        shared.saturating_add(queues)
    }

    /// Whether it listens with TLS anywhere.
    #[must_use]
    pub fn has_tls(&self) -> bool {
        self.listen.iter().any(ListenAddr::is_tls)
    }

    /// How this is laid out on so many cores, for [`Limits::worst_case`].
    #[must_use]
    pub fn layout(&self, cores: usize) -> Layout {
        Layout {
            cores,
            receive_pool: self.buffers.saturating_mul(self.buffer_size),
            histograms: (self.telemetry_channels + 1).saturating_mul(Meter::SIZE),
            forwarding: self.forwarding(),
            tls_core: if self.has_tls() { tls::SPARE + 4 * (self.buffer_size + tls::MAX_HANDSHAKE) } else { 0 },
            tls_connection: if self.has_tls() { tls::SESSION + tls::MAX_RECORD } else { 0 },
            tls_handshake: if self.has_tls() { tls::MAX_HANDSHAKE } else { 0 },
        }
    }
}

/// What one channel has of its own; `None` where it keeps to the limits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChannelOptions {
    /// Which channel.
    pub id: ChannelId,
    /// The id as it was written, a name or a UUID: for people.
    pub name: String,
    /// Over how many cores its connections are dealt. Default 1: all on its home core, so that a request crosses none.
    pub spread: u16,
    /// Window on new streams, in bytes.
    pub window: Option<u32>,
    /// Requests that may wait for a provider.
    pub queue_requests: Option<u32>,
    /// Body bytes that may wait for a provider.
    pub queue_bytes: Option<usize>,
}

impl ChannelOptions {
    /// A channel that departs from nothing yet.
    #[must_use]
    pub fn new(id: ChannelId, name: impl Into<String>) -> ChannelOptions {
        ChannelOptions { id, name: name.into(), spread: 1, window: None, queue_requests: None, queue_bytes: None }
    }

    /// `limits` as they hold on this channel.
    #[must_use]
    pub fn limits(&self, limits: &Limits) -> Limits {
        Limits {
            window: self.window.unwrap_or(limits.window),
            queue_requests: self.queue_requests.unwrap_or(limits.queue_requests),
            queue_bytes: self.queue_bytes.unwrap_or(limits.queue_bytes),
            ..limits.clone()
        }
    }

    fn validate(&self, limits: &Limits) -> Result<(), BadOption> {
        let key = |key| format!("channel.{}.{key}", self.name);
        if self.spread == 0 {
            return Err(BadOption { key: key("spread"), value: "0".into(), expected: "at least 1 core".into() });
        }
        self.limits(limits).validate().map_err(|bad| BadOption {
            key: key(bad.key),
            value: bad.value,
            expected: bad.expected,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn producers(count: usize) -> Vec<ProducerOptions> {
        (0..count).map(|n| ProducerOptions::new(n.to_string(), "udp://127.0.0.1:9")).collect()
    }

    #[test]
    fn there_may_be_as_many_producers_as_a_word_has_bits() {
        for count in [MAX_ROUTES / 2, MAX_ROUTES] {
            let options = ServerOptions { producers: producers(count), ..ServerOptions::default() };
            assert_eq!(options.validate(), Ok(()), "{count}");
        }
    }

    #[test]
    fn each_bad_option_is_named() {
        type Change = fn(&mut ServerOptions);
        let cases: [(&str, Change); 14] = [
            ("server.listen", |o| o.listen.clear()),
            ("server.bind_timeout", |o| o.bind_timeout = Duration::from_secs(61)),
            ("server.listen", |o| o.listen.push("tls://127.0.0.1:0".parse().unwrap())),
            ("server.spin_us", |o| o.spin = Duration::from_secs(2)),
            ("io.buffers", |o| o.buffers = 100),
            ("io.buffer_size", |o| o.buffer_size = 1000),
            ("io.ring_entries", |o| o.ring_entries = 65_536),
            ("telemetry.channels", |o| o.telemetry_channels = 16_385),
            ("limits.max_streams", |o| o.limits.max_streams = 0),
            ("auth.token.all.name", |o| o.auth = vec![Entry::new("all")]),
            ("channel.a.spread", |o| o.channels[0].spread = 0),
            ("channel.a.queue_bytes", |o| o.channels[0].queue_bytes = Some(1)),
            ("producer", |o| o.producers = producers(MAX_ROUTES + 1)),
            ("producer.id", |o| o.producers = [producers(2), producers(1)].concat()),
        ];
        for (key, change) in cases {
            let channels = vec![ChannelOptions::new(ChannelId::named("a"), "a")];
            let mut options = ServerOptions { channels, ..ServerOptions::default() };
            assert_eq!(options.validate(), Ok(()));
            change(&mut options);
            assert_eq!(options.validate().unwrap_err().key, key);
        }
    }

    #[test]
    fn other_machines_are_let_in_with_tokens_or_when_that_is_said_to_be_meant() {
        let on = |listen: &[&str]| ServerOptions {
            listen: listen.iter().map(|addr| addr.parse().unwrap()).collect(),
            ..ServerOptions::default()
        };
        for local in ["127.0.0.1:1", "127.7.7.7:1", "[::1]:1", "[::ffff:127.0.0.1]:1", "unix:/run/a"] {
            assert_eq!(on(&[local]).validate(), Ok(()), "{local}");
        }
        for open in ["0.0.0.0:1", "[::]:1", "192.0.2.1:1"] {
            let mut options = on(&["127.0.0.1:1", open]);
            let bad = options.validate().unwrap_err();
            assert_eq!((bad.key.as_str(), bad.value.as_str()), ("server.listen", open));
            assert!(bad.expected.contains("--insecure") && bad.expected.contains("[[auth.token]]"), "{bad}");
            options.insecure = true;
            assert_eq!(options.validate(), Ok(()));
            options.insecure = false;
            options.auth = vec![Entry { identity: Some("desk".into()), ..Entry::new("desk") }];
            assert_eq!(options.validate(), Ok(()));
        }
        // with TLS the certificates of clients will do, for the addresses that ask for them
        let mut options = on(&["tls://0.0.0.0:1"]);
        options.tls = TlsOptions { cert: Some("cert".into()), key: Some("key".into()), ..TlsOptions::default() };
        assert_eq!(options.validate().unwrap_err().key, "server.listen");
        options.tls.client_ca = Some("ca".into());
        assert_eq!(options.validate(), Ok(()));
        options.listen.push("0.0.0.0:2".parse().unwrap());
        assert_eq!(options.validate().unwrap_err().value, "0.0.0.0:2");
    }

    #[test]
    fn a_channel_comes_once_however_it_is_written() {
        let id = ChannelId::named("a");
        let channels = vec![ChannelOptions::new(id, "a"), ChannelOptions::new(id, id.to_string())];
        let options = ServerOptions { channels, ..ServerOptions::default() };
        assert_eq!(options.validate().unwrap_err().key, "channel.id");
    }
}
