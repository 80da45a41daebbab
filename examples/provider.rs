//! Answers requests in upper case until Ctrl-C: `cargo run --example provider -- 127.0.0.1:9090 orders`.

use std::time::Duration;

use corelay::client::{Error, Provider, Request};

#[tokio::main]
async fn main() -> Result<(), Error> {
    let mut args = std::env::args().skip(1);
    let addr = args.next().unwrap_or_else(|| "127.0.0.1:9090".into());
    let channel = args.next().unwrap_or_else(|| "orders".into());

    let provider = Provider::connect(addr, channel, 16).await?;
    let stopping = provider.clone();
    tokio::spawn(async move {
        tokio::signal::ctrl_c().await.expect("a signal handler");
        stopping.drain(Duration::from_secs(5)).await
    });
    provider
        .serve(16, |mut request: Request| async move {
            let order = request.bytes().await?;
            request.respond(order.to_ascii_uppercase()).await
        })
        .await;
    provider.error().map_or(Ok(()), Err)
}
