//! What `corelay top` draws.

use corelay::telemetry::view::{Channel, Point, Producer};
use ratatui::Frame;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::{Color, Modifier, Style, Stylize};
use ratatui::text::{Line, Span};
use ratatui::widgets::{Block, Borders, Cell, Gauge, Paragraph, Row, Sparkline, Table};

use super::Shown;
use crate::cli::lists::{ago, called, shown as plain, shown_to, took};
use crate::cli::text;

pub(super) fn draw(frame: &mut Frame<'_>, shown: &Shown, admin: &str) {
    let cores = shown.points.last().map_or(0, |point| point.load.len());
    // two cores to a line; never more than a third of the screen
    let load = (cores.div_ceil(2) as u16).clamp(1, (frame.area().height / 3).max(1));
    // with their title and head, if there are any; never more than a quarter of it
    let producers = match shown.producers.len() as u16 {
        0 => 0,
        some => (some + 2).min((frame.area().height / 4).max(3)),
    };
    let reasons = reasons(shown, usize::from(frame.area().height / 12).max(1));
    let [head, figures, charts, cores, channels, producers, foot] = Layout::vertical([
        Constraint::Length(1 + reasons.len() as u16),
        Constraint::Length(2),
        Constraint::Length(6),
        Constraint::Length(load),
        Constraint::Min(3),
        Constraint::Length(producers),
        Constraint::Length(1),
    ])
    .areas(frame.area());
    draw_head(frame, head, shown, reasons);
    draw_figures(frame, figures, shown);
    let [requests, latency] = Layout::horizontal([Constraint::Fill(1); 2]).areas(charts);
    draw_line(frame, requests, shown, "requests/s", Color::Blue, |point| point.requests);
    draw_line(frame, latency, shown, "p99, us", Color::Yellow, |point| point.latency.p99 * 1e6);
    draw_load(frame, cores, shown.points.last());
    draw_channels(frame, channels, shown);
    if !shown.producers.is_empty() {
        draw_producers(frame, producers, &shown.producers);
    }
    draw_foot(frame, foot, shown, admin);
}

fn status_colour(shown: &Shown) -> Color {
    match shown.health.status.as_str() {
        "ok" => Color::Green,
        "failing" => Color::Red,
        _ => Color::Yellow,
    }
}

/// A reason is cut to so many characters: no terminal is wider.
const REASON: usize = 500;

/// What is wrong, a line each, `most` at most: of more than that the last line says how many.
fn reasons(shown: &Shown, most: usize) -> Vec<Line<'static>> {
    if let Some(trouble) = &shown.trouble {
        return vec![Line::from(trouble.lines().next().unwrap_or_default().to_owned().fg(Color::Red))];
    }
    let (reasons, colour) = (&shown.health.reasons, status_colour(shown));
    let told = if reasons.len() > most { most - 1 } else { reasons.len() };
    let mut lines: Vec<_> =
        reasons[..told].iter().map(|reason| Line::from(shown_to(reason, REASON).fg(colour))).collect();
    if told < reasons.len() {
        let more = match reasons.len() - told {
            all if told == 0 => format!("{} (and {} more at /healthz)", shown_to(&reasons[0], REASON), all - 1),
            more => format!("and {more} more at /healthz"),
        };
        lines.push(Line::from(more.fg(colour)));
    }
    if lines.is_empty() {
        lines.push(Line::default());
    }
    lines
}

fn draw_head(frame: &mut Frame<'_>, area: Rect, shown: &Shown, reasons: Vec<Line<'static>>) {
    let (varz, health) = (&shown.varz, &shown.health);
    let colour = status_colour(shown);
    let cores = if varz.cores == 1 { "1 core".to_owned() } else { format!("{} cores", varz.cores) };
    let facts = format!(
        "  corelay {}  {}  {cores}  {}  pid {}  up {}",
        varz.version,
        varz.listen.join(", "),
        varz.io,
        varz.pid,
        ago(varz.uptime_seconds)
    );
    let first =
        Line::from(vec![plain(&varz.name).bold(), Span::raw("  "), health.status.clone().fg(colour), facts.dim()]);
    let lines: Vec<_> = std::iter::once(first).chain(reasons).collect();
    frame.render_widget(Paragraph::new(lines), area);
}

fn draw_figures(frame: &mut Frame<'_>, area: Rect, shown: &Shown) {
    let now = shown.points.last().cloned().unwrap_or_default();
    let varz = &shown.varz;
    let latency = |seconds| took(seconds, &now.latency);
    let rate = |value: f64| text::grouped(value.round() as u64);
    // with how soon each is left out where there is no room for all: the highest first
    let all = [
        ("requests/s", rate(now.requests), 0),
        ("errors/s", rate(now.errors), 2),
        ("p50", latency(now.latency.p50), 6),
        ("p99", latency(now.latency.p99), 1),
        ("p99.9", latency(now.latency.p999), 7),
        ("in/s", text::bytes(now.received as u64), 8),
        ("out/s", text::bytes(now.sent as u64), 9),
        ("in flight", text::grouped(varz.in_flight), 3),
        ("connections", text::grouped(varz.connections), 4),
        ("memory", text::bytes(varz.resident_bytes), 5),
    ];
    let room = usize::from(area.width / FIGURE).clamp(1, all.len());
    let columns: Vec<_> = all.into_iter().filter(|(_, _, rank)| *rank < room).collect();
    let places = Layout::horizontal(vec![Constraint::Fill(1); columns.len()]).split(area);
    for (place, (name, value, _)) in places.iter().zip(columns) {
        frame.render_widget(Paragraph::new(vec![Line::from(name.dim()), Line::from(value.bold())]), *place);
    }
}

/// The widest of the figures at the top, and a gap.
const FIGURE: u16 = 12;

/// A table's columns behind those that tell its rows apart: their heads, their widths, and how soon each is left out
/// where there is no room for all: the highest first.
struct Columns<const N: usize> {
    /// The columns that take what is left, and how much that is at the least, together.
    names: (&'static [&'static str], u16),
    rest: [(&'static str, u16, u8); N],
}

impl<const N: usize> Columns<N> {
    /// Which of them there is room for.
    fn shown(&self, width: u16) -> [bool; N] {
        let mut shown = [true; N];
        let taken = |shown: &[bool; N]| {
            let each = self.rest.iter().zip(shown).filter(|(_, is)| **is).map(|((_, width, _), _)| width + 1);
            self.names.1 + each.sum::<u16>()
        };
        while taken(&shown) > width {
            let last = (0..N).filter(|&at| shown[at]).max_by_key(|&at| self.rest[at].2);
            let Some(last) = last else { break };
            shown[last] = false;
        }
        shown
    }

    /// The table, of rows with all their cells.
    fn table(&self, width: u16, rows: impl Iterator<Item = Vec<Cell<'static>>>) -> Table<'static> {
        let shown = self.shown(width);
        let (names, count) = (self.names.0.iter(), self.names.0.len());
        let some = |at: &usize| shown[*at];
        let heads = names.copied().chain((0..N).filter(some).map(|at| self.rest[at].0));
        let widths = std::iter::repeat_n(Constraint::Fill(1), count);
        let widths = widths.chain((0..N).filter(some).map(|at| Constraint::Length(self.rest[at].1)));
        let cells = |cells: Vec<Cell<'static>>| {
            let kept = cells.into_iter().enumerate().filter(|(at, _)| *at < count || shown[*at - count]);
            Row::new(kept.map(|(_, cell)| cell))
        };
        let head = Row::new(heads).style(Style::new().add_modifier(Modifier::DIM));
        Table::new(rows.map(cells).collect::<Vec<_>>(), widths).header(head)
    }
}

/// One figure over time, the newest to the right, with what its top stands for.
fn draw_line(frame: &mut Frame<'_>, area: Rect, shown: &Shown, name: &str, colour: Color, of: fn(&Point) -> f64) {
    let width = usize::from(area.width.saturating_sub(2));
    let from = shown.points.len().saturating_sub(width);
    let values: Vec<u64> = shown.points[from..].iter().map(|point| of(point).round() as u64).collect();
    let most = values.iter().copied().max().unwrap_or(0);
    let mut bars = vec![0; width.saturating_sub(values.len())];
    bars.extend(values);
    let title = format!(" {name}, top {} ", text::grouped(most));
    let block = Block::bordered().title(title).border_style(Style::new().dim());
    frame.render_widget(Sparkline::default().block(block).data(bars).style(Style::new().fg(colour)), area);
}

fn draw_load(frame: &mut Frame<'_>, area: Rect, now: Option<&Point>) {
    let Some(now) = now else { return };
    let lines = Layout::vertical(vec![Constraint::Length(1); usize::from(area.height)]).split(area);
    for (pair, line) in now.load.chunks(2).zip(lines.iter()).enumerate().map(|(n, (pair, line))| ((n, pair), line)) {
        let (number, pair) = pair;
        let places = Layout::horizontal([Constraint::Fill(1); 2]).spacing(1).split(*line);
        for ((at, load), place) in pair.iter().enumerate().zip(places.iter()) {
            let share = load.unwrap_or(0.0).clamp(0.0, 1.0);
            let colour = if share > 0.9 { Color::Red } else { Color::Blue };
            let label = match load {
                Some(_) => format!("core {}  {:.0} %", 2 * number + at, share * 100.0),
                None => format!("core {}  no answer", 2 * number + at),
            };
            let gauge =
                Gauge::default().ratio(share).label(label).gauge_style(Style::new().fg(colour).bg(Color::Black));
            frame.render_widget(gauge, *place);
        }
    }
}

const CHANNELS: Columns<9> = Columns {
    names: (&["CHANNEL"], 20),
    rest: [
        ("CORES", 7, 9),
        ("PROVIDERS", 9, 7),
        ("IN FLIGHT", 15, 0),
        ("WAITING", 8, 2),
        ("REQUESTS", 12, 4),
        ("ERRORS", 8, 3),
        ("BODIES", 9, 8),
        ("P50", 9, 6),
        ("P99", 9, 1),
    ],
};

fn draw_channels(frame: &mut Frame<'_>, area: Rect, shown: &Shown) {
    let rows = shown.channels.items.iter().skip(shown.scrolled).map(channel_row);
    let total = text::grouped(shown.channels.total);
    let title = match shown.scrolled.min(shown.channels.items.len().saturating_sub(1)) {
        0 => format!(" channels, {total} "),
        above => format!(" channels, {total}, from {} on ", text::grouped(above as u64 + 1)),
    };
    let block = Block::new().borders(Borders::TOP).title(title).border_style(Style::new().dim());
    frame.render_widget(CHANNELS.table(area.width, rows).block(block), area);
}

fn channel_row(channel: &Channel) -> Vec<Cell<'static>> {
    let cores: Vec<String> = channel.cores.iter().map(u16::to_string).collect();
    let colour =
        if channel.capacity > 0 && channel.in_flight >= channel.capacity { Color::Yellow } else { Color::Reset };
    let in_flight = format!("{} of {}", text::grouped(channel.in_flight), text::grouped(channel.capacity));
    vec![
        Cell::from(called(&channel.name, &channel.channel)),
        Cell::from(cores.join(",")),
        Cell::from(text::grouped(channel.providers)),
        Cell::from(in_flight.fg(colour)),
        Cell::from(text::grouped(channel.queued)),
        Cell::from(text::grouped(channel.requests)),
        Cell::from(text::grouped(channel.errors)),
        Cell::from(text::bytes(channel.request_bytes + channel.response_bytes)),
        Cell::from(took(channel.latency.p50, &channel.latency)),
        Cell::from(took(channel.latency.p99, &channel.latency)),
    ]
}

const PRODUCERS: Columns<6> = Columns {
    names: (&["PRODUCER", "ADDRESS"], 29),
    rest: [("BREAKER", 9, 0), ("FORWARDED", 12, 3), ("DROPPED", 9, 1), ("QUEUED", 9, 2), ("P50", 9, 5), ("P99", 9, 4)],
};

fn draw_producers(frame: &mut Frame<'_>, area: Rect, producers: &[Producer]) {
    let title = format!(" producers, {} ", producers.len());
    let block = Block::new().borders(Borders::TOP).title(title).border_style(Style::new().dim());
    frame.render_widget(PRODUCERS.table(area.width, producers.iter().map(producer_row)).block(block), area);
}

fn producer_row(producer: &Producer) -> Vec<Cell<'static>> {
    let counts = &producer.counts;
    let state = if producer.state == "closed" { Color::Reset } else { Color::Red };
    let dropped = counts.dropped_total();
    let loss = if dropped == 0 { Color::Reset } else { Color::Yellow };
    vec![
        Cell::from(plain(&producer.id)),
        Cell::from(plain(&producer.address)),
        Cell::from(producer.state.clone().fg(state)),
        Cell::from(text::grouped(counts.forwarded)),
        Cell::from(text::grouped(dropped).fg(loss)),
        Cell::from(text::grouped(counts.queue_messages)),
        Cell::from(took(counts.latency.p50, &counts.latency)),
        Cell::from(took(counts.latency.p99, &counts.latency)),
    ]
}

fn draw_foot(frame: &mut Frame<'_>, area: Rect, shown: &Shown, admin: &str) {
    let state = if shown.paused { "paused" } else { "" };
    let line = Line::from(vec![
        "q".bold(),
        " end  ".dim(),
        "space".bold(),
        " pause  ".dim(),
        "up, down".bold(),
        format!(" scroll   {admin}  ").dim(),
        state.fg(Color::Yellow),
    ]);
    frame.render_widget(Paragraph::new(line), area);
}

#[cfg(test)]
mod tests {
    use super::*;
    use corelay::telemetry::view::{Latency, Varz};
    use ratatui::Terminal;
    use ratatui::backend::TestBackend;

    fn drawn(shown: &Shown, width: u16, height: u16) -> String {
        let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
        terminal.draw(|frame| draw(frame, shown, "127.0.0.1:9091")).unwrap();
        terminal.backend().to_string()
    }

    fn busy() -> Shown {
        let mut shown = Shown { varz: Varz::default(), ..Shown::default() };
        shown.varz.name = "orders \x1b[2J".into();
        shown.health.status = "degraded".into();
        shown.health.reasons = vec!["core 1 holds too much".into()];
        for number in 0..500 {
            let mut point = Point::default();
            (point.number, point.requests, point.load) = (number, number as f64 * 10.0, vec![Some(0.42), None]);
            let mut latency = Latency::default();
            (latency.count, latency.p50, latency.p99) = (1, 0.000_2, 0.001_5);
            point.latency = latency;
            shown.points.push(point);
        }
        let mut channel = Channel::default();
        (channel.channel, channel.name) = ("0".into(), Some("resize".into()));
        (channel.in_flight, channel.capacity, channel.cores) = (3, 8, vec![0, 1]);
        shown.channels.items.push(channel);
        shown.channels.total = 1;
        let mut producer = Producer::default();
        (producer.id, producer.address, producer.state) = ("audit".into(), "tcp://a:9000".into(), "half_open".into());
        producer.counts.forwarded = 1_234;
        producer.counts.dropped.insert("too_old".into(), 56);
        shown.producers.push(producer);
        shown
    }

    #[test]
    fn everything_is_on_the_screen() {
        let screen = drawn(&busy(), 120, 30);
        for part in [
            "orders ?[2J  degraded",
            "core 1 holds too much",
            "4,990",
            "200 us",
            "1.50 ms",
            "core 0  42 %",
            "core 1  no answer",
            "resize",
            "3 of 8",
            "0,1",
            "producers, 1",
            "audit",
            "tcp://a:9000",
            "half_open",
            "1,234",
            "56",
            "127.0.0.1:9091",
        ] {
            assert!(screen.contains(part), "{part} in\n{screen}");
        }
    }

    #[test]
    fn a_narrow_terminal_shows_less_and_what_matters() {
        let mut shown = busy();
        let long = format!("core 2 {} not", "does ".repeat(12));
        shown.health.reasons.extend([long.clone(), "a third".into()]);
        let screen = drawn(&shown, 80, 24);
        for part in ["resize", "3 of 8", "IN FLIGHT", "P99", "audit", "tcp://a:9000", "half_open", "56"] {
            assert!(screen.contains(part), "{part} in\n{screen}");
        }
        for part in ["requests/s  ", "p99  ", "in flight  ", "core 1 holds too much", "and 2 more at /healthz"] {
            assert!(screen.contains(part), "{part} in\n{screen}");
        }
        assert!(!screen.contains("BODIES") && !screen.contains("p99.9"), "{screen}");
        let screen = drawn(&shown, 80, 36);
        assert!(["core 1 holds", long.as_str(), "a third"].iter().all(|part| screen.contains(part)), "{screen}");
    }

    #[test]
    fn no_size_is_too_small_and_nothing_known_is_fine() {
        for (width, height) in [(1, 1), (10, 3), (40, 8), (300, 100)] {
            drawn(&busy(), width, height);
            drawn(&Shown::default(), width, height);
        }
    }
}
