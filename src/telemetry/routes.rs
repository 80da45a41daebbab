//! Which path is answered by what.

use std::sync::{Arc, PoisonError};

use axum::extract::{DefaultBodyLimit, Query, State};
use axum::http::{HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router, middleware};
use serde::Deserialize;
use tracing::info;

use super::guard::guard;
use super::health::Health;
use super::lists::{self, ChannelArg, Wanted};
use super::state::State as Shared;
use super::{dashboard, log, metrics, producers, prometheus, totals};

type Admin = State<Arc<Shared>>;

/// What a browser is told of every answer: nothing from elsewhere, no framing, no guessing, no keeping.
const HEADERS: [(HeaderName, HeaderValue); 4] = [
    (
        header::CONTENT_SECURITY_POLICY,
        HeaderValue::from_static(
            "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src data:; \
             frame-ancestors 'none'; base-uri 'none'; form-action 'none'",
        ),
    ),
    (header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff")),
    (header::REFERRER_POLICY, HeaderValue::from_static("no-referrer")),
    (header::CACHE_CONTROL, HeaderValue::from_static("no-store")),
];

pub(super) fn router(state: Arc<Shared>) -> Router {
    Router::new()
        .merge(dashboard::routes())
        .route("/livez", get(livez))
        .route("/readyz", get(readyz))
        .route("/healthz", get(healthz))
        .route("/metrics", get(async |State(state): Admin| page(metrics::cores(&state).await)))
        .route("/metrics/channels", get(async |State(state): Admin| page(metrics::channels(&state).await)))
        .route("/varz", get(async |State(state): Admin| Json(totals::varz(&state).await)))
        .route("/connz", get(connz))
        .route("/channelz", get(channelz))
        .route("/producerz", get(async |State(state): Admin| Json(producers::page(&state).await)))
        .route("/latencyz", get(latencyz))
        .route("/historyz", get(historyz))
        .route("/log", get(log::get).put(log::put).layer(DefaultBodyLimit::max(log::MAX_FILTER)))
        .route("/drain", post(drain))
        .fallback(async || (StatusCode::NOT_FOUND, "there is no such page; / links to those there are\n"))
        .layer(middleware::from_fn(guard))
        .layer(middleware::map_response(async |mut response: Response| {
            response.headers_mut().extend(HEADERS);
            response
        }))
        .with_state(state)
}

fn page(text: String) -> impl IntoResponse {
    ([(header::CONTENT_TYPE, prometheus::CONTENT_TYPE)], text)
}

fn status(good: bool) -> StatusCode {
    if good { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE }
}

/// In words, for people who look at a probe.
fn words(good: bool, health: &Health) -> (StatusCode, String) {
    let view = health.view();
    let lines = if good { vec!["ok".to_owned()] } else { view.reasons };
    (status(good), lines.join("\n") + "\n")
}

async fn livez(State(state): Admin) -> impl IntoResponse {
    let health = Health::of(&state).await;
    words(health.is_live(), &health)
}

async fn readyz(State(state): Admin) -> impl IntoResponse {
    let health = Health::of(&state).await;
    words(health.is_ready(), &health)
}

async fn healthz(State(state): Admin) -> impl IntoResponse {
    let health = Health::of(&state).await;
    (status(health.is_ready()), Json(health.view()))
}

async fn connz(State(state): Admin, Query(wanted): Query<Wanted>) -> impl IntoResponse {
    Json(lists::connections(&state, &wanted).await)
}

async fn channelz(State(state): Admin, Query(wanted): Query<Wanted>) -> impl IntoResponse {
    Json(lists::channels(&state, &wanted).await)
}

/// What `/latencyz` is asked for.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Latency {
    channel: Option<ChannelArg>,
    #[serde(default)]
    format: Format,
    #[serde(default)]
    of: Times,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Format {
    #[default]
    Json,
    Hgrm,
}

/// Which of the three times `?format=hgrm` is about.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Times {
    QueueWait,
    FirstByte,
    #[default]
    Total,
}

async fn latencyz(State(state): Admin, Query(wanted): Query<Latency>) -> Response {
    match wanted.format {
        Format::Json => Json(lists::latency(&state, wanted.channel).await).into_response(),
        Format::Hgrm => {
            let times = lists::AllTimes::of(&state).await;
            let of = match wanted.channel {
                None => Some(times.all),
                Some(ChannelArg(id)) => times.each.into_iter().find(|(at, _)| *at == Some(id)).map(|(_, times)| times),
            };
            let Some(of) = of else {
                return (StatusCode::NOT_FOUND, "no request of that channel was timed\n").into_response();
            };
            match wanted.of {
                Times::QueueWait => of.queue_wait.hgrm(),
                Times::FirstByte => of.first_byte.hgrm(),
                Times::Total => of.total.hgrm(),
            }
            .into_response()
        }
    }
}

/// What `/historyz` is asked for.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct History {
    /// Only points after this number.
    after: Option<u64>,
}

async fn historyz(State(state): Admin, Query(History { after }): Query<History>) -> impl IntoResponse {
    Json(state.history.lock().unwrap_or_else(PoisonError::into_inner).after(after))
}

async fn drain(State(state): Admin) -> impl IntoResponse {
    info!("draining, as the admin endpoint was told");
    state.inspector.stopper().drain();
    (StatusCode::ACCEPTED, "draining\n")
}
