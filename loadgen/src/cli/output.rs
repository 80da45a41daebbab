//! Where a run's report goes.

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

use clap::Args;

use super::Failure;
use crate::measure::Measured;
use crate::report::{Report, files, html, table};

/// Where a run's report goes, beside the table on standard output.
#[derive(Clone, Debug, Default, Args)]
#[command(next_help_heading = "Reports")]
pub struct OutputArgs {
    /// Writes all numbers as JSON, for `loadgen report` too; `-` is standard output, in place of the table
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
    /// Writes the percentiles as HdrHistogram's plotter reads them
    #[arg(long, value_name = "FILE")]
    pub hgrm: Option<PathBuf>,
    /// Writes the intervals as an HdrHistogram log (V2)
    #[arg(long, value_name = "FILE")]
    pub log: Option<PathBuf>,
    /// Writes one self-contained page with the percentile curve and the latency over time
    #[arg(long, value_name = "FILE")]
    pub html: Option<PathBuf>,
    /// No live line
    #[arg(long, short)]
    pub quiet: bool,
}

impl OutputArgs {
    /// Writes what was asked for, and the table.
    ///
    /// # Errors
    /// If a file can't be written.
    pub fn write(&self, report: &Report, measured: &Measured) -> Result<(), Failure> {
        if let Some(path) = &self.hgrm {
            to_file(path, |out| files::hgrm(&measured.latency, out))?;
        }
        if let Some(path) = &self.log {
            to_file(path, |out| files::interval_log(&measured.rows, report.began, out))?;
        }
        if let Some(path) = &self.html {
            to_file(path, |out| out.write_all(html::page(std::slice::from_ref(report)).as_bytes()))?;
        }
        if let Some(path) = &self.json {
            let mut json = serde_json::to_string_pretty(report)?;
            json.push('\n');
            to_file(path, |out| out.write_all(json.as_bytes()))?;
            if path.as_os_str() == "-" {
                return Ok(());
            }
        }
        say(&table::table(report))
    }
}

/// Writes to standard output; a reader that has gone away is no failure.
pub(super) fn say(text: &str) -> Result<(), Failure> {
    match io::stdout().lock().write_all(text.as_bytes()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(error.into()),
        _ => Ok(()),
    }
}

/// Writes a file, or standard output for `-`.
pub(super) fn to_file(path: &Path, write: impl FnOnce(&mut dyn Write) -> io::Result<()>) -> Result<(), Failure> {
    let told = |error: io::Error| format!("can't write {}: {error}", path.display());
    if path.as_os_str() == "-" {
        return write(&mut io::stdout().lock()).map_err(|error| told(error).into());
    }
    let mut file = BufWriter::new(File::create(path).map_err(told)?);
    write(&mut file).and_then(|()| file.flush()).map_err(|error| told(error).into())
}
