//! `corelay top`: the dashboard, in a terminal.

mod screen;

use std::io::IsTerminal;
use std::thread;
use std::time::Duration;

use corelay::telemetry::view::{Channel, Health, Historyz, Listing, Point, Producer, Producerz, Varz};
use ratatui::crossterm::event::{self, Event, KeyCode, KeyEventKind, KeyModifiers};
use tokio::sync::mpsc;

use super::admin::AdminArgs;
use super::exit::{Failure, HELP_ADMIN};
use super::signals::{Signals, block_on};
use crate::config::parse_duration;

/// Watch a broker: load, latency and channels, live
///
/// Keys: q or Esc ends, Space pauses, Up and Down scroll the channels.
#[derive(Debug, clap::Args)]
#[command(after_help = HELP_ADMIN)]
pub(crate) struct Args {
    #[command(flatten)]
    admin: AdminArgs,
    /// From one look to the next
    #[arg(long, short, value_name = "TIME", default_value = "1s", value_parser = interval)]
    interval: Duration,
}

fn interval(text: &str) -> Result<Duration, String> {
    let time = parse_duration(text)?;
    if time >= Duration::from_millis(100) { Ok(time) } else { Err("expected 100ms or more".into()) }
}

/// Points kept: as many as the broker does.
const KEPT: usize = 300;

/// What is shown.
#[derive(Debug, Default)]
struct Shown {
    varz: Varz,
    health: Health,
    points: Vec<Point>,
    channels: Listing<Channel>,
    producers: Vec<Producer>,
    /// Channels scrolled past.
    scrolled: usize,
    paused: bool,
    /// Why the last look failed.
    trouble: Option<String>,
}

impl Shown {
    async fn look(&mut self, admin: &AdminArgs) -> Result<(), Failure> {
        let varz: Varz = admin.get("/varz").await?;
        if varz.pid != self.varz.pid {
            // another process: its points count from the beginning
            self.points.clear();
        }
        let after = self.points.last().map(|point| format!("?after={}", point.number)).unwrap_or_default();
        let history: Historyz = admin.get(&format!("/historyz{after}")).await?;
        self.points.extend(history.points);
        self.points.drain(..self.points.len().saturating_sub(KEPT));
        self.health = admin.get("/healthz").await?;
        self.channels = admin.get("/channelz?limit=200").await?;
        self.producers = admin.get::<Producerz>("/producerz").await?.producers;
        self.scrolled = self.scrolled.min(self.channels.items.len().saturating_sub(1));
        self.varz = varz;
        Ok(())
    }

    /// Does what a key asks for; `false` to end.
    fn press(&mut self, key: KeyCode, control: bool) -> bool {
        match key {
            KeyCode::Char('c') if control => return false,
            KeyCode::Char('q') | KeyCode::Esc => return false,
            KeyCode::Char(' ') => self.paused = !self.paused,
            KeyCode::Down | KeyCode::Char('j') => {
                self.scrolled = (self.scrolled + 1).min(self.channels.items.len().saturating_sub(1));
            }
            KeyCode::Up | KeyCode::Char('k') => self.scrolled = self.scrolled.saturating_sub(1),
            KeyCode::Home => self.scrolled = 0,
            _ => {}
        }
        true
    }
}

pub(crate) fn run(args: Args) -> Result<(), Failure> {
    if !std::io::stdout().is_terminal() {
        let text =
            "stdout is no terminal: corelay channels, connections and latency print once, with --json for programs";
        return Err(Failure::usage(text));
    }
    block_on(async {
        let mut signals = Signals::new()?;
        let mut shown = Shown::default();
        // what can't be reached at all is told in plain words, not on a full screen
        signals.unless(shown.look(&args.admin)).await?;
        let mut terminal = ratatui::try_init().map_err(|error| Failure::local(format!("the terminal: {error}")))?;
        let result = watch(&args, &mut shown, &mut terminal, &mut signals).await;
        ratatui::restore();
        result
    })
}

async fn watch(
    args: &Args,
    shown: &mut Shown,
    terminal: &mut ratatui::DefaultTerminal,
    signals: &mut Signals,
) -> Result<(), Failure> {
    let mut keys = keys();
    let mut ticks = tokio::time::interval(args.interval);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        let drawn = terminal.draw(|frame| screen::draw(frame, shown, &args.admin.admin));
        drawn.map_err(|error| Failure::local(format!("the terminal: {error}")))?;
        tokio::select! {
            _ = ticks.tick() => {
                if !shown.paused {
                    shown.trouble = shown.look(&args.admin).await.err().and_then(|failure| failure.text);
                }
            }
            event = keys.recv() => match event {
                Some(Event::Key(key)) if key.kind == KeyEventKind::Press => {
                    if !shown.press(key.code, key.modifiers.contains(KeyModifiers::CONTROL)) {
                        return Ok(());
                    }
                }
                // the size changed: it is drawn anew
                Some(_) => {}
                None => return Err(Failure::local("the terminal is gone")),
            },
            _ = signals.next() => return Ok(()),
        }
    }
}

/// The terminal's events, read on a thread of their own: reading blocks.
fn keys() -> mpsc::UnboundedReceiver<Event> {
    let (sender, receiver) = mpsc::unbounded_channel();
    thread::spawn(move || {
        while let Ok(event) = event::read() {
            if sender.send(event).is_err() {
                return;
            }
        }
    });
    receiver
}
