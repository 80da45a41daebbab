//! The table of the full form.

use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};

use corelay::broker::Io;

use crate::cases::Case;
use crate::site::Row;

/// Rows in Markdown.
#[derive(Default)]
pub struct Table {
    rows: Vec<String>,
    /// What failed, for the end.
    pub failed: Vec<String>,
}

impl Table {
    /// Runs a case and adds its row, also where it fails.
    pub fn add(&mut self, case: &Case, io: Io, run: impl FnOnce() -> Option<Row>) {
        let shown = match catch_unwind(AssertUnwindSafe(run)) {
            Ok(Some(row)) => row.to_string(),
            Ok(None) => "skipped: see above | | | |".to_owned(),
            Err(panic) => {
                let text = panic.downcast_ref::<String>().cloned();
                let text = text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()));
                self.failed.push(format!("{} on {io}", case.name));
                format!("**failed: {}** | | | |", text.unwrap_or_default().replace('|', "\\|").replace('\n', " "))
            }
        };
        eprintln!("{shown}");
        self.rows.push(format!("| `{}` | {io} | {} | {shown}", case.name, case.what));
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "| test | reactor | fault | seen | p99 of another channel: before, during, after | memory | descriptors |"
        )?;
        writeln!(f, "|---|---|---|---|---|---|---|")?;
        self.rows.iter().try_for_each(|row| writeln!(f, "{row}"))
    }
}
