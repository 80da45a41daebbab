//! `corelay channels`, `connections`, `latency`: the admin endpoint's lists, as tables or JSON.

use std::io::Write;
use std::time::Duration;

use corelay::base::ChannelId;
use corelay::telemetry::view::{Channel, ChannelLatency, Conn, Latency, Latencyz, Listing};

use super::admin::AdminArgs;
use super::exit::{Failure, HELP_ADMIN};
use super::signals::block_on;
use super::text;

/// Show the channels: their providers, what is in flight, how long answers take
#[derive(Debug, clap::Args)]
#[command(after_help = HELP_ADMIN)]
pub(crate) struct ChannelsArgs {
    #[command(flatten)]
    admin: AdminArgs,
    #[command(flatten)]
    list: ListArgs,
}

/// Show who is connected
#[derive(Debug, clap::Args)]
#[command(after_help = HELP_ADMIN)]
pub(crate) struct ConnectionsArgs {
    #[command(flatten)]
    admin: AdminArgs,
    #[command(flatten)]
    list: ListArgs,
    /// Only consumers, or only providers
    #[arg(long, value_name = "ROLE", value_parser = ["consumer", "provider", "handshake"])]
    role: Option<String>,
}

/// Show how long requests took since the broker's start, by channel
#[derive(Debug, clap::Args)]
#[command(after_help = HELP_ADMIN)]
pub(crate) struct LatencyArgs {
    #[command(flatten)]
    admin: AdminArgs,
    /// Only this channel: a UUID or a name
    #[arg(long, value_name = "CHANNEL")]
    channel: Option<ChannelId>,
    /// Print what the admin endpoint says, in JSON
    #[arg(long, conflicts_with = "hgrm")]
    json: bool,
    /// Print percentiles as HdrHistogram's plotter reads them, in milliseconds
    #[arg(long)]
    hgrm: bool,
}

/// Which part of a list.
#[derive(Debug, clap::Args)]
struct ListArgs {
    /// Only this channel: a UUID or a name
    #[arg(long, value_name = "CHANNEL")]
    channel: Option<ChannelId>,
    /// How many to show
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = clap::value_parser!(u64).range(1..=10_000))]
    limit: u64,
    /// How many to leave out before them
    #[arg(long, value_name = "N", default_value_t = 0)]
    offset: u64,
    /// Print what the admin endpoint says, in JSON
    #[arg(long)]
    json: bool,
}

impl ListArgs {
    fn path(&self, page: &str) -> String {
        let channel = self.channel.map(|id| format!("&channel={id}")).unwrap_or_default();
        format!("{page}?offset={}&limit={}{channel}", self.offset, self.limit)
    }
}

pub(crate) fn channels(args: ChannelsArgs) -> Result<(), Failure> {
    let path = args.list.path("/channelz");
    if args.list.json {
        return raw(&args.admin, &path);
    }
    let list: Listing<Channel> = block_on(args.admin.get(&path))?;
    let mut table = Table::new(&[
        "CHANNEL",
        "CORES",
        "PROVIDERS",
        "IN FLIGHT",
        "OF",
        "QUEUED",
        "REQUESTS",
        "ERRORS",
        "BODIES IN",
        "OUT",
        "P50",
        "P99",
        "MAX",
    ]);
    for channel in &list.items {
        let times = [channel.latency.p50, channel.latency.p99, channel.latency.max];
        let counts = [channel.providers, channel.in_flight, channel.capacity, channel.queued];
        let mut row = vec![called(&channel.name, &channel.channel), numbers(&channel.cores)];
        row.extend(counts.map(text::grouped));
        row.extend([channel.requests, channel.errors].map(text::grouped));
        row.extend([channel.request_bytes, channel.response_bytes].map(text::bytes));
        row.extend(times.map(|time| took(time, &channel.latency)));
        table.row(row);
    }
    finish(&table, &list, "channels")
}

pub(crate) fn connections(args: ConnectionsArgs) -> Result<(), Failure> {
    let role = args.role.map(|role| format!("&role={role}")).unwrap_or_default();
    let path = args.list.path("/connz") + &role;
    if args.list.json {
        return raw(&args.admin, &path);
    }
    let list: Listing<Conn> = block_on(args.admin.get(&path))?;
    let mut table = Table::new(&[
        "PEER",
        "NAME",
        "USER",
        "ROLE",
        "STATE",
        "CORE",
        "IN FLIGHT",
        "OF",
        "PENDING",
        "AGE",
        "IDLE",
        "CHANNEL",
    ]);
    for conn in &list.items {
        let of = if conn.max_concurrent == 0 { "-".to_owned() } else { text::grouped(conn.max_concurrent) };
        let channel = conn.channel.as_deref().map_or_else(|| "-".to_owned(), |id| called(&conn.channel_name, id));
        table.row(vec![
            conn.peer.clone(),
            shown(&conn.name),
            conn.user.as_deref().map_or_else(|| "-".to_owned(), shown),
            conn.role.clone(),
            conn.state.clone(),
            conn.core.to_string(),
            text::grouped(conn.in_flight),
            of,
            text::bytes(conn.pending_bytes),
            ago(conn.age_seconds),
            ago(conn.idle_seconds),
            channel,
        ]);
    }
    finish(&table, &list, "connections")
}

pub(crate) fn latency(args: LatencyArgs) -> Result<(), Failure> {
    let channel = args.channel.map(|id| format!("?channel={id}")).unwrap_or_default();
    let mut path = format!("/latencyz{channel}");
    if args.hgrm {
        path += if channel.is_empty() { "?format=hgrm" } else { "&format=hgrm" };
    }
    if args.json || args.hgrm {
        return raw(&args.admin, &path);
    }
    let times: Latencyz = block_on(args.admin.get(&path))?;
    let mut table = Table::new(&["CHANNEL", "TIME", "COUNT", "MEAN", "P50", "P90", "P99", "P99.9", "MAX"]);
    for channel in &times.channels {
        let ChannelLatency { queue_wait, first_byte, total, .. } = channel;
        let name = called(&channel.name, &channel.channel);
        for (name, what, latency) in
            [(name.as_str(), "queue wait", queue_wait), ("", "first byte", first_byte), ("", "total", total)]
        {
            let Latency { mean, p50, p90, p99, p999, max, .. } = *latency;
            let mut row = vec![name.to_owned(), what.to_owned(), text::grouped(latency.count)];
            row.extend([mean, p50, p90, p99, p999, max].map(|time| took(time, latency)));
            table.row(row);
        }
    }
    let silent = silence(&times.silent_cores);
    say(&format!("{}{silent}", table.text()))
}

pub(crate) fn raw(admin: &AdminArgs, path: &str) -> Result<(), Failure> {
    let page = block_on(admin.page(path))?;
    let mut body = String::from_utf8_lossy(&page.body).into_owned();
    if !body.ends_with('\n') {
        body.push('\n');
    }
    say(&body)
}

fn finish<T>(table: &Table, list: &Listing<T>, what: &str) -> Result<(), Failure> {
    let (from, shown) = (list.offset + 1, list.items.len() as u64);
    let more = match shown {
        0 if list.total == 0 => format!("no {what}\n"),
        0 => format!("no {what} from {from} on, of {}\n", text::grouped(list.total)),
        shown if shown < list.total => {
            format!("{what} {from} to {} of {}: --offset, --limit\n", from + shown - 1, text::grouped(list.total))
        }
        _ => String::new(),
    };
    let table = if shown == 0 { String::new() } else { table.text() };
    say(&format!("{table}{more}{}", silence(&list.silent_cores)))
}

pub(crate) fn silence(cores: &[u16]) -> String {
    if cores.is_empty() { String::new() } else { format!("no answer from core {}\n", numbers(cores)) }
}

pub(crate) fn say(text: &str) -> Result<(), Failure> {
    let mut stdout = std::io::stdout().lock();
    stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()).map_err(|error| Failure::stdout(&error))
}

/// A channel's name where it has one, else its id.
pub(crate) fn called(name: &Option<String>, id: &str) -> String {
    shown(name.as_deref().unwrap_or(id))
}

/// What a stranger may have named, as a terminal can be trusted with it.
pub(crate) fn shown(name: &str) -> String {
    shown_to(name, 64)
}

/// The same, with room for so many characters.
pub(crate) fn shown_to(name: &str, most: usize) -> String {
    let plain: String = name.chars().map(|c| if c.is_control() { '?' } else { c }).take(most).collect();
    if plain.is_empty() { "-".to_owned() } else { plain }
}

fn numbers(cores: &[u16]) -> String {
    cores.iter().map(u16::to_string).collect::<Vec<_>>().join(",")
}

/// A time of a histogram; none if nothing was timed.
pub(crate) fn took(seconds: f64, of: &Latency) -> String {
    match seconds {
        _ if of.count == 0 => "-".to_owned(),
        // the first bucket: less than a turn
        ..1.1e-6 => "< 1 us".to_owned(),
        _ => text::time(seconds_of(seconds)),
    }
}

/// `3 s`, `5 m`, `2 h`, `7 d`.
pub(crate) fn ago(seconds: f64) -> String {
    match seconds as u64 {
        s @ ..120 => format!("{s} s"),
        s @ ..7_200 => format!("{} m", s / 60),
        s @ ..172_800 => format!("{} h", s / 3_600),
        s => format!("{} d", s / 86_400),
    }
}

fn seconds_of(seconds: f64) -> Duration {
    Duration::try_from_secs_f64(seconds).unwrap_or_default()
}

/// Columns as wide as what is in them: the first one to the left, numbers to the right.
#[derive(Debug)]
pub(crate) struct Table {
    rows: Vec<Vec<String>>,
}

impl Table {
    pub(crate) fn new(head: &[&str]) -> Table {
        Table { rows: vec![head.iter().map(ToString::to_string).collect()] }
    }

    pub(crate) fn row(&mut self, row: Vec<String>) {
        debug_assert_eq!(row.len(), self.rows[0].len());
        self.rows.push(row);
    }

    pub(crate) fn text(&self) -> String {
        let width = |column: usize| self.rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
        let widths: Vec<usize> = (0..self.rows[0].len()).map(width).collect();
        // figures with a unit behind them, or grouped by commas
        let is_number = |cell: &str| {
            let begins = cell.starts_with(|c: char| c == '<' || c.is_ascii_digit());
            begins && (cell.contains(' ') || cell.chars().all(|c| c == ',' || c.is_ascii_digit()))
        };
        let right = |column: usize| {
            let mut cells = self.rows[1..].iter().map(|row| row[column].as_str()).filter(|cell| *cell != "-");
            cells.all(is_number)
        };
        let rights: Vec<bool> = (0..widths.len()).map(right).collect();
        let mut text = String::new();
        for row in &self.rows {
            let mut line = String::new();
            for (column, cell) in row.iter().enumerate() {
                let width = widths[column];
                line += &if rights[column] { format!("{cell:>width$}  ") } else { format!("{cell:<width$}  ") };
            }
            text += line.trim_end();
            text.push('\n');
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_line_up() {
        let mut table = Table::new(&["CHANNEL", "COUNT", "P50"]);
        table.row(vec!["resize".into(), "1,234".into(), "1.25 ms".into()]);
        table.row(vec!["a".into(), "7".into(), "-".into()]);
        assert_eq!(table.text(), "CHANNEL  COUNT      P50\nresize   1,234  1.25 ms\na            7        -\n");
        let mut table = Table::new(&["NAME", "AGE"]);
        table.row(vec!["éclairs".into(), "3 s".into()]);
        table.row(vec!["7d".into(), "10 m".into()]);
        assert_eq!(table.text(), "NAME      AGE\néclairs   3 s\n7d       10 m\n");
    }

    #[test]
    fn a_strangers_name_cannot_steer_the_terminal() {
        assert_eq!(shown("a\x1b[2Jb\n"), "a?[2Jb?");
        assert_eq!(shown(""), "-");
        assert_eq!(shown(&"x".repeat(100)).len(), 64);
    }

    #[test]
    fn ages_read_well() {
        for (seconds, text) in [(0.4, "0 s"), (119.0, "119 s"), (600.0, "10 m"), (7_200.0, "2 h"), (1e6, "11 d")] {
            assert_eq!(ago(seconds), text);
        }
    }
}
