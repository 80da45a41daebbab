//! `/`: the dashboard, three files in the binary. No build step, and nothing is fetched from elsewhere.

use axum::Router;
use axum::http::header;
use axum::routing::get;

pub(super) fn routes<S: Clone + Send + Sync + 'static>() -> Router<S> {
    Router::new()
        .route("/", file("text/html; charset=utf-8", include_str!("dashboard/index.html")))
        .route("/dashboard.css", file("text/css; charset=utf-8", include_str!("dashboard/style.css")))
        .route("/dashboard.js", file("text/javascript; charset=utf-8", include_str!("dashboard/app.js")))
}

fn file<S: Clone + Send + Sync + 'static>(kind: &'static str, text: &'static str) -> axum::routing::MethodRouter<S> {
    get(async move || ([(header::CONTENT_TYPE, kind)], text))
}
