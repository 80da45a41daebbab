//! What goes through a broker process, in the systems it is forwarded to.

use std::io::{BufRead, BufReader, Lines};
use std::process::{ChildStderr, Stdio};

use corelay::forward::envelope;
use rustix::process::Signal;

use super::run::{Broker, assert_code, corelay, finish};
use crate::forward::target::{Target, free_port, reader};

/// A broker that forwards by what stands in its environment, and its log.
fn forwarding(log: &str, env: &[(&str, &str)], more: &[&str]) -> (Broker, Lines<BufReader<ChildStderr>>) {
    let mut command = corelay(&["serve", "--listen", "127.0.0.1:0", "--cores", "1", "--no-pin"]);
    let mut broker =
        Broker::spawn(command.args(["--log", log]).args(more).envs(env.iter().copied()).stderr(Stdio::piped()));
    let lines = BufReader::new(broker.process.0.stderr.take().unwrap()).lines();
    (broker, lines)
}

/// Ends it, and gives out what it said of this producer in the end.
fn drain(mut broker: Broker, log: Lines<BufReader<ChildStderr>>, producer: &str) -> String {
    broker.process.signal(Signal::TERM);
    assert_eq!(broker.process.code(), Some(0));
    let lines: Vec<_> =
        log.map(Result::unwrap).filter(|line| line.contains(&format!("producer=\"{producer}\""))).collect();
    lines.last().unwrap_or_else(|| panic!("nothing about {producer}")).clone()
}

/// Sends so many requests, which are answered, and publishes as many for which there is nobody; their bodies, in order.
fn send(broker: &Broker, each: usize) -> Vec<String> {
    let _provider = broker.reply(&["echo", "--echo"]);
    let requests: Vec<_> = (0..each).map(|n| format!("request {n}")).collect();
    for body in &requests {
        let output = broker.request(&["echo", "--wait"], body.as_bytes());
        assert_code(&output, 0);
        assert_eq!(output.stdout, body.as_bytes());
    }
    let published: Vec<_> = (0..each).map(|n| format!("published {n}")).collect();
    for body in &published {
        assert_code(&finish(broker.command(&["publish", "nobody"]).args(["--header", "n=1"]), body.as_bytes()), 0);
    }
    [requests, published].concat()
}

#[cfg(feature = "postgres")]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn requests_arrive_as_lines_and_as_rows() {
    use corelay::base::ChannelId;
    use tokio::task::block_in_place;

    let Some(url) = crate::servers::postgres::database().await else { return };
    let target = Target::tcp(reader);
    let log_url = format!("tcp://{}?framing=lines", target.address);
    let database = url.split('?').next().unwrap();
    let db_url = format!("{database}?table=requests&create=true");
    let (sent, said) = block_in_place(|| {
        let (broker, log) = forwarding("info", &[("PRODUCER_LOG", &log_url), ("PRODUCER_DB", &db_url)], &[]);
        let sent = send(&broker, 5);
        (sent, drain(broker, log, "db"))
    });
    assert!(said.contains("every message has been delivered") && said.contains("forwarded=10"), "{said}");
    block_in_place(|| super::run::eventually("the lines", || target.is_quiet()));
    let lines = String::from_utf8(target.received().concat()).unwrap();
    assert_eq!(lines.lines().collect::<Vec<_>>(), sent);

    let (client, driver) = tokio_postgres::connect(database, tokio_postgres::NoTls).await.unwrap();
    tokio::spawn(driver);
    let query = "SELECT body, channel::text, kind, headers::text FROM requests ORDER BY position";
    let rows = client.query(query, &[]).await.unwrap();
    let bodies: Vec<_> = rows.iter().map(|row| String::from_utf8(row.get(0)).unwrap()).collect();
    assert_eq!(bodies, sent);
    for (row, body) in rows.iter().zip(&sent) {
        let (channel, headers) =
            if body.starts_with("request") { ("echo", "[]") } else { ("nobody", r#"[["n", "1"]]"#) };
        let told: [String; 3] = [row.get(1), row.get(2), row.get(3)];
        assert_eq!(told, [ChannelId::named(channel).to_string(), "request".into(), headers.into()], "{body}");
    }
}

#[test]
fn what_is_left_at_the_end_is_said_exactly() {
    let nobody = format!("tcp://{}", free_port());
    let (broker, log) = forwarding("info", &[("PRODUCER_LOG_2", &nobody)], &["--set", "forward.drain_timeout=50ms"]);
    let sent = send(&broker, 3);
    let said = drain(broker, log, "log-2");
    let told = format!("forwarded=0 left={0} dead_lettered=0 dropped={0}", sent.len());
    assert!(said.contains(&told), "{said}");
}

#[test]
fn or_stands_in_the_dead_letter_file() {
    let dir = tempfile::tempdir().unwrap();
    let letters = dir.path().join("letters.jsonl");
    let nobody = format!("tcp://{}", free_port());
    let set = format!("producer.log.dead_letter={}", letters.display());
    let more = ["--set", "forward.drain_timeout=50ms", "--set", &set];
    let (broker, log) = forwarding("info", &[("PRODUCER_LOG", &nobody)], &more);
    let sent = send(&broker, 3);
    let said = drain(broker, log, "log");
    assert!(said.contains(&format!("left={0} dead_lettered={0} dropped=0", sent.len())), "{said}");
    let text = std::fs::read_to_string(letters).unwrap();
    let bodies: Vec<_> = text.lines().map(|line| envelope::decode(line.as_bytes()).unwrap().body).collect();
    assert_eq!(bodies, sent);
}

#[test]
fn no_password_is_logged_or_shown() {
    let port = free_port().port();
    let mut urls = vec![("PRODUCER_HTTP", format!("http://me:hunter2@127.0.0.1:{port}/?query=hunter2"))];
    if cfg!(feature = "nats") {
        urls.push(("PRODUCER_NATS", format!("nats://me:hunter2@127.0.0.1:{port}/x")));
    }
    if cfg!(feature = "redis") {
        urls.push(("PRODUCER_REDIS", format!("redis://me:hunter2@127.0.0.1:{port}/x")));
    }
    if cfg!(feature = "amqp") {
        urls.push(("PRODUCER_AMQP", format!("amqp://me:hunter2@127.0.0.1:{port}/x?queue=x")));
    }
    if cfg!(feature = "postgres") {
        urls.push(("PRODUCER_POSTGRES", format!("postgres://me:hunter2@127.0.0.1:{port}/x")));
    }
    let env: Vec<_> = urls.iter().map(|(name, url)| (*name, url.as_str())).collect();
    let (mut broker, mut log) = forwarding("debug", &env, &["--set", "forward.drain_timeout=50ms"]);
    assert_code(&finish(&mut broker.command(&["publish", "nobody"]), b"body"), 0);
    let mut lines = Vec::new();
    for (name, _) in &env {
        let failed = format!("producer=\"{}\"", name.trim_start_matches("PRODUCER_").to_lowercase());
        let is_it = |line: &String| line.contains("forwarding fails") && line.contains(&failed);
        while !lines.iter().any(is_it) {
            lines.push(log.next().expect("each says that it fails").unwrap());
        }
    }
    broker.process.signal(Signal::TERM);
    assert_eq!(broker.process.code(), Some(0));
    lines.extend(log.map(Result::unwrap));
    assert!(!lines.iter().any(|line| line.contains("hunter2")), "{lines:#?}");
    let shown = finish(corelay(&["serve", "--check-config"]).envs(env.iter().copied()), b"");
    assert_code(&shown, 0);
    let shown = super::run::text(&shown.stdout);
    assert!(shown.contains("me:***@") && !shown.contains("me:hunter2"), "{shown}");
}
