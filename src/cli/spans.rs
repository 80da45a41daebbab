//! Where requests' spans go: to the OpenTelemetry collector of `telemetry.otlp`, if this build can.

use std::sync::Arc;

use corelay::broker::SpanSink;
use corelay::telemetry::Exported;

use super::exit::Failure;
use crate::config::Config;

/// A running export, or none.
#[derive(Debug, Default)]
pub(crate) struct Spans {
    #[cfg(feature = "otel")]
    exporter: Option<corelay::telemetry::otlp::Exporter>,
}

#[cfg(feature = "otel")]
impl Spans {
    /// Begins to export, if the settings say where to.
    ///
    /// # Errors
    /// What hinders it.
    pub(crate) fn start(config: &Config) -> Result<(Spans, Option<SpanSink>), Failure> {
        use corelay::telemetry::otlp::{Exporter, QUEUE};
        let Some(url) = &config.otlp else { return Ok((Spans::default(), None)) };
        let (sink, queue) = corelay::broker::spans(QUEUE);
        let exporter = Exporter::start(url, &config.server.name, queue);
        let exporter = exporter.map_err(|error| Failure::usage(format!("telemetry.otlp: {error}")))?;
        Ok((Spans { exporter: Some(exporter) }, Some(sink)))
    }

    /// What became of the spans.
    pub(crate) fn exported(&self) -> Option<Arc<Exported>> {
        self.exporter.as_ref().map(|exporter| exporter.exported())
    }

    /// Sends what is left, once the broker has ended.
    pub(crate) fn join(self) {
        if let Some(exporter) = self.exporter {
            exporter.join();
        }
    }
}

#[cfg(not(feature = "otel"))]
impl Spans {
    /// Refuses the setting: this build can't export.
    ///
    /// # Errors
    /// If it is set.
    pub(crate) fn start(config: &Config) -> Result<(Spans, Option<SpanSink>), Failure> {
        match &config.otlp {
            None => Ok((Spans::default(), None)),
            Some(url) => {
                let text = format!("telemetry.otlp = {url}: expected off, as this build has no OpenTelemetry export");
                Err(Failure::usage(format!("{text} (cargo build --features otel)")))
            }
        }
    }

    pub(crate) fn exported(&self) -> Option<Arc<Exported>> {
        None
    }

    pub(crate) fn join(self) {}
}
