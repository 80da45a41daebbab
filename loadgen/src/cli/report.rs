//! `loadgen report`: runs that were written as JSON, compared.

use std::path::PathBuf;

use clap::Args;

use super::Failure;
use super::output::{say, to_file};
use crate::compare::table::{Comparison, markdown, overview};
use crate::report::{Report, html, table};

/// Compares runs that were written with --json.
#[derive(Clone, Debug, Args)]
pub struct ReportArgs {
    /// What `loadgen run --json` or --html wrote; or one of `loadgen compare --json`
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
    /// Writes one self-contained page with all of them; `-` is standard output, in place of the tables
    #[arg(long, value_name = "FILE")]
    html: Option<PathBuf>,
    /// Of a comparison: writes its table as the README has it; `-` is standard output, in place of all medians
    #[arg(long, value_name = "FILE")]
    markdown: Option<PathBuf>,
}

/// The command.
pub(super) fn run(args: &ReportArgs) -> Result<(), Failure> {
    let mut reports = Vec::new();
    for path in &args.files {
        let text = std::fs::read_to_string(path).map_err(|error| format!("can't read {}: {error}", path.display()))?;
        if let Ok(comparison) = serde_json::from_str::<Comparison>(&text) {
            return compared(args, &comparison);
        }
        if let Some(page) = html::read(&text) {
            reports.extend(page);
            continue;
        }
        let report: Report =
            serde_json::from_str(&text).map_err(|error| format!("{} is no report: {error}", path.display()))?;
        reports.push(report);
    }
    if args.markdown.is_some() {
        return Err("--markdown is for what `loadgen compare --json` wrote".into());
    }
    if let Some(path) = &args.html {
        to_file(path, |out| out.write_all(html::page(&reports).as_bytes()))?;
        if path.as_os_str() == "-" {
            return Ok(());
        }
    }
    reports.iter().try_for_each(|report| say(&table::table(report)))
}

fn compared(args: &ReportArgs, comparison: &Comparison) -> Result<(), Failure> {
    if args.files.len() > 1 || args.html.is_some() {
        return Err("a comparison is shown alone, and as text: its runs are kept by `loadgen compare --keep`".into());
    }
    if let Some(path) = &args.markdown {
        to_file(path, |out| out.write_all(markdown(comparison).as_bytes()))?;
        if path.as_os_str() == "-" {
            return Ok(());
        }
    }
    say(&format!("{}\n{}\n\n{}", comparison.machine, comparison.command, overview(&comparison.medians)))
}
