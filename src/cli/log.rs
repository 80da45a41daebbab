//! The log on stderr, whose filter can change while it is written; `corelay log`, which changes a broker's.

use std::io::{IsTerminal, Write};
use std::sync::{Arc, Mutex, PoisonError};

use corelay::telemetry::LogFilter;
use hyper::{Method, StatusCode};
use tracing_appender::non_blocking::{ErrorCounter, NonBlockingBuilder, WorkerGuard};
use tracing_subscriber::fmt::writer::BoxMakeWriter;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Layer, Registry, fmt, reload};

use super::admin::AdminArgs;
use super::exit::{Failure, HELP_ADMIN, REFUSED};
use super::signals::block_on;
use crate::config::{Config, LogFormat, LogOptions, parse_filter};

/// Lines that wait for a stderr nobody reads: what a broker says in minutes. Those beyond are lost, and counted.
const WAITING: usize = 4096;

/// Who writes the lines.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Writer {
    /// The thread that has something to say; it waits for who reads stderr.
    Direct,
    /// A thread of its own: no core of the broker ever waits for who reads stderr.
    Thread,
}

/// This process's log.
#[derive(Debug)]
pub(crate) struct Log {
    filter: reload::Handle<EnvFilter, Registry>,
    current: Mutex<String>,
    thread: Mutex<Option<WorkerGuard>>,
    lost: Option<ErrorCounter>,
}

impl Log {
    /// Begins to log.
    ///
    /// # Errors
    /// A filter that is none.
    pub(crate) fn start(options: &LogOptions, writer: Writer) -> Result<Arc<Log>, Failure> {
        let level = &options.level;
        let filter =
            parse_filter(level).map_err(|expected| Failure::usage(format!("--log {level}: expected {expected}")))?;
        let (filter, handle) = reload::Layer::new(filter);
        let colours = std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none();
        let (stderr, thread, lost) = match writer {
            Writer::Direct => (BoxMakeWriter::new(std::io::stderr), None, None),
            Writer::Thread => {
                let lossy = NonBlockingBuilder::default().lossy(true).buffered_lines_limit(WAITING);
                let (writer, guard) = lossy.thread_name("corelay-log").finish(std::io::stderr());
                let lost = writer.error_counter();
                (BoxMakeWriter::new(writer), Some(guard), Some(lost))
            }
        };
        // it would tell of a closed stderr on stderr, and panic
        let lines = fmt::layer().with_writer(stderr).with_ansi(colours).log_internal_errors(false);
        let lines = match options.format {
            LogFormat::Text => lines.boxed(),
            LogFormat::Json => lines.json().flatten_event(true).with_current_span(false).with_span_list(false).boxed(),
        };
        tracing_subscriber::registry().with(filter).with(lines).init();
        let (current, thread) = (Mutex::new(level.clone()), Mutex::new(thread));
        Ok(Arc::new(Log { filter: handle, current, thread, lost }))
    }

    /// Writes what waits, for a second at most: before the process ends. Nothing is logged from then on.
    pub(crate) fn finish(&self) {
        drop(self.thread.lock().unwrap_or_else(PoisonError::into_inner).take());
    }
}

impl LogFilter for Log {
    fn current(&self) -> String {
        self.current.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn lost(&self) -> u64 {
        self.lost.as_ref().map_or(0, |lost| lost.dropped_lines() as u64)
    }

    fn change(&self, filter: &str) -> Result<(), String> {
        let parsed = parse_filter(filter)?;
        let mut current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        self.filter.reload(parsed).map_err(|error| error.to_string())?;
        filter.clone_into(&mut current);
        Ok(())
    }
}

/// Takes up the log's level from settings read anew. Gives what it did, if anything.
///
/// # Errors
/// Why it stays as it was.
pub(crate) fn reload_log(log: &Log, config: &Config) -> Result<Option<String>, String> {
    let (was, level) = (log.current(), &config.log.level);
    if was == *level {
        return Ok(None);
    }
    log.change(level)?;
    Ok(Some(format!("log.level = {level}, it was {was}")))
}

/// Show what a running broker logs, or change it
///
/// The change lasts until the broker ends or reads its settings anew (SIGHUP).
#[derive(Debug, clap::Args)]
#[command(after_help = format!("{AFTER}{HELP_ADMIN}"))]
pub(crate) struct Args {
    /// error, warn, info, debug, trace, off, or a filter such as info,corelay::request=trace
    #[arg(value_name = "FILTER", value_parser = |text: &str| parse_filter(text).map(|_| text.to_owned()))]
    filter: Option<String>,
    #[command(flatten)]
    admin: AdminArgs,
}

const AFTER: &str = "\
Examples:
  corelay log
  corelay log info,corelay::request=trace     tells of each request's end, with its trace
  corelay log info

";

pub(crate) fn run(args: Args) -> Result<(), Failure> {
    let page = match args.filter {
        None => block_on(args.admin.send(Method::GET, "/log"))?,
        Some(filter) => block_on(args.admin.send_text(Method::PUT, "/log", filter))?,
    };
    let said = String::from_utf8_lossy(&page.body);
    if page.status != StatusCode::OK {
        return Err(Failure::new(REFUSED, format!("{}: {} {}", args.admin.admin, page.status, said.trim())));
    }
    writeln!(std::io::stdout(), "{}", said.trim()).map_err(|error| Failure::stdout(&error))
}
