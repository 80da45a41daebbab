//! `loadgen report`: runs that were written as JSON, compared.

use std::path::PathBuf;

use clap::Args;

use super::Failure;
use super::output::{say, to_file};
use crate::report::{Report, html, table};

/// Compares runs that were written with --json.
#[derive(Clone, Debug, Args)]
pub struct ReportArgs {
    /// What `loadgen run --json` wrote
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
    /// Writes one self-contained page with all of them; `-` is standard output, in place of the tables
    #[arg(long, value_name = "FILE")]
    html: Option<PathBuf>,
}

/// The command.
pub(super) fn run(args: &ReportArgs) -> Result<(), Failure> {
    let mut reports = Vec::new();
    for path in &args.files {
        let text = std::fs::read_to_string(path).map_err(|error| format!("can't read {}: {error}", path.display()))?;
        let report: Report =
            serde_json::from_str(&text).map_err(|error| format!("{} is no report: {error}", path.display()))?;
        reports.push(report);
    }
    if let Some(path) = &args.html {
        to_file(path, |out| out.write_all(html::page(&reports).as_bytes()))?;
        if path.as_os_str() == "-" {
            return Ok(());
        }
    }
    reports.iter().try_for_each(|report| say(&table::table(report)))
}
