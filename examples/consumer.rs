//! Sends a line and prints the answer: `cargo run --example consumer -- 127.0.0.1:9090 orders "two apples"`.

use std::time::Duration;

use corelay::client::{Consumer, Error};

#[tokio::main]
async fn main() -> Result<(), Error> {
    let mut args = std::env::args().skip(1);
    let addr = args.next().unwrap_or_else(|| "127.0.0.1:9090".into());
    let channel = args.next().unwrap_or_else(|| "orders".into());
    let body = args.next().unwrap_or_else(|| "two apples".into());

    let consumer = Consumer::connect(addr, channel).await?;
    let response = consumer.send(body, Duration::from_secs(5)).await?;
    println!("{}", String::from_utf8_lossy(&response.bytes().await?));
    Ok(())
}
