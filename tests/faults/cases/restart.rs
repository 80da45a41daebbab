//! The broker is killed and started again; its clients come back by themselves.

use std::net::{Ipv4Addr, TcpListener};
use std::time::{Duration, Instant};

use corelay::client::{Consumer, Options, Provider, Request};
use rustix::process::Signal;

use crate::peers::CHANNEL;
use crate::run::{Broker, eventually};
use crate::site::Site;

/// A port below those the kernel gives to outgoing connections: one of the clients' would else take it meanwhile.
fn free_port() -> u16 {
    let first = 20_000 + (std::process::id() % 1000) as u16 * 10;
    (first..).find(|&port| TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok()).expect("a free port")
}

pub fn restart(site: &mut Site) -> String {
    let clients = site.scale(200, 10_000);
    let listen = format!("127.0.0.1:{}", free_port());
    replace(site, &listen);
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("a runtime");
    let echo = |mut request: Request| async move {
        let body = request.bytes().await?;
        request.respond(body).await
    };
    let (provider, consumers) = runtime.block_on(async {
        let provider = Provider::connect(listen.as_str(), CHANNEL, 64).await.expect("the broker serves");
        let serving = provider.clone();
        tokio::spawn(async move { serving.serve(64, echo).await });
        let mut consumers = Vec::new();
        for _ in 0..clients {
            let options = Options::default().name("restart");
            consumers.push(Consumer::connect_with(listen.as_str(), CHANNEL, options).await.expect("the broker serves"));
        }
        (provider, consumers)
    });
    let (bound, back) = {
        let began = Instant::now();
        let bound = replace(site, &listen);
        runtime.block_on(async {
            // each has a request answered by the new one
            let asked = consumers.iter().map(|consumer| {
                let consumer = consumer.clone();
                tokio::spawn(async move {
                    loop {
                        let sent = consumer.request("back").wait(true).timeout(Duration::from_secs(20)).send().await;
                        let answer = match sent {
                            Ok(response) => response.bytes().await,
                            Err(error) => Err(error),
                        };
                        if answer.is_ok_and(|body| body == "back") {
                            break;
                        }
                        assert!(began.elapsed() < Duration::from_secs(20), "a client is not back");
                    }
                })
            });
            for asked in asked.collect::<Vec<_>>() {
                asked.await.expect("it does not panic");
            }
        });
        (bound, began.elapsed())
    };
    if site.full {
        assert!(back < Duration::from_secs(5), "all were back after {back:?}");
    }
    runtime.block_on(async {
        for consumer in &consumers {
            consumer.close().await;
        }
        provider.close().await;
    });
    drop((consumers, provider, runtime));
    format!("killed, started and listening after {bound:.1?}; all {clients} served again after {back:.1?}")
}

/// Kills the broker and starts another at once, as a supervisor does.
fn replace(site: &mut Site, listen: &str) -> Duration {
    let begin = Instant::now();
    let answered = site.bystander.answered();
    site.broker.process.signal(Signal::KILL);
    site.broker.process.0.wait().expect("a child of ours");
    site.broker = Broker::spawn(&mut site.again(listen));
    let took = begin.elapsed();
    eventually("the bystander to be back", || site.bystander.answered() > answered);
    took
}
