//! The body to send: a file or stdin, with a progress bar where somebody watches.

use std::io::{self, IsTerminal, Write};
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use corelay::client::Body;
use indicatif::{ProgressBar, ProgressStyle};
use tokio::fs::File;
use tokio::io::{AsyncRead, ReadBuf};

use super::exit::Failure;

/// A body, opened before anything is connected, so that a wrong name costs nothing.
pub(crate) struct Input {
    reader: Box<dyn AsyncRead + Send + Unpin>,
    /// Bytes in all, where that is known.
    len: Option<u64>,
}

impl Input {
    /// Opens a file, or stdin for `-`.
    pub(crate) async fn open(name: &str) -> Result<Input, Failure> {
        if name == "-" {
            if io::stdin().is_terminal() {
                // who has closed stderr wants no advice
                let _ = writeln!(io::stderr(), "corelay: reading the body from the terminal; Ctrl-D ends it");
            }
            return Ok(Input { reader: Box::new(tokio::io::stdin()), len: None });
        }
        let cannot = |error: io::Error| Failure::usage(format!("cannot read {name}: {error}"));
        let mut file = File::open(name).await.map_err(cannot)?;
        let metadata = file.metadata().await.map_err(cannot)?;
        if metadata.is_dir() {
            return Err(Failure::usage(format!("cannot read {name}: it is a directory")));
        }
        file.set_max_buf_size(READ);
        let len = metadata.is_file().then_some(metadata.len());
        Ok(Input { reader: Box::new(file), len })
    }

    /// The body, and the bar that follows it: hidden unless stderr is a terminal.
    pub(crate) fn into_body(self) -> (Body, ProgressBar) {
        let bar = if io::stderr().is_terminal() { visible(self.len) } else { ProgressBar::hidden() };
        (Body::reader(Counted { reader: self.reader, bar: bar.clone() }), bar)
    }
}

/// Bytes of one read of a file: few hand-overs to the helper thread that reads.
const READ: usize = 256 * 1024;

fn visible(len: Option<u64>) -> ProgressBar {
    let (bar, template) = match len {
        Some(len) => (
            ProgressBar::new(len),
            "{prefix}sent {bytes}/{total_bytes} {wide_bar} {binary_bytes_per_sec}, {eta} left {msg}",
        ),
        None => (ProgressBar::new_spinner(), "{spinner} {prefix}sent {bytes}, {binary_bytes_per_sec} {msg}"),
    };
    bar.set_style(ProgressStyle::with_template(template).expect("a template that is tested"));
    bar.enable_steady_tick(Duration::from_millis(100));
    bar
}

/// A reader whose bytes are counted by a bar.
struct Counted {
    reader: Box<dyn AsyncRead + Send + Unpin>,
    bar: ProgressBar,
}

impl AsyncRead for Counted {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = into.filled().len();
        let poll = Pin::new(&mut self.reader).poll_read(cx, into);
        self.bar.inc((into.filled().len() - before) as u64);
        poll
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_templates_are_templates() {
        visible(Some(1)).finish_and_clear();
        visible(None).finish_and_clear();
    }
}
