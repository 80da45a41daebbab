//! The examples print what their first lines say they do.

use std::path::Path;
use std::process::Command;

fn prints_what_it_says(name: &str) {
    prints(name, &[], |said| said, |lines| lines);
}

/// What an example says about itself.
fn said(name: &str) -> String {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let source = std::fs::read_to_string(root.join("examples").join(format!("{name}.rs"))).unwrap();
    let said = source.lines().skip_while(|line| *line != "//! ```text").skip(1);
    let said = said.take_while(|line| *line != "//! ```").map(|line| line.trim_start_matches("//! "));
    let said = said.collect::<Vec<_>>().join("\n");
    assert!(!said.is_empty());
    said
}

/// Run with these arguments. What it says about itself may be put in other words for them, and its lines in order.
fn prints(name: &str, args: &[&str], reword: impl Fn(String) -> String, order: impl Fn(String) -> String) {
    let said = said(name);
    let program = Path::new(env!("CARGO_BIN_EXE_corelay")).parent().unwrap().join("examples").join(name);
    if !program.is_file() {
        eprintln!("SKIPPED: no {}; `cargo build --examples` makes it", program.display());
        assert!(std::env::var_os("CI").is_none(), "the examples are not built");
        return;
    }
    let output = Command::new(program).args(args).output().unwrap();
    assert!(output.status.success(), "{output:?}");
    let printed = String::from_utf8(output.stdout).unwrap().trim_end().to_string();
    assert_eq!(order(printed), order(reword(said)), "as `cargo build --examples` last built it");
}

/// On each system there is; `run` gets the system's name and its URL.
#[cfg(all(feature = "nats", feature = "redis"))]
async fn on_each(run: impl Fn(&str, &str) + Send + Sync + Clone + 'static) {
    use crate::servers;
    let mut systems = vec![("memory", "memory".to_string())];
    // servers of their own: the examples' names are always the same
    let nats = tokio::task::spawn_blocking(servers::nats::private).await.unwrap();
    systems.extend(nats.as_ref().map(|server| ("nats", servers::nats::url(server))));
    let redis = tokio::task::spawn_blocking(servers::redis::private).await.unwrap();
    systems.extend(redis.as_ref().map(|server| ("redis", servers::redis::url(server))));
    #[cfg(feature = "amqp")]
    let rabbit = servers::rabbitmq::shared().await;
    #[cfg(feature = "amqp")]
    systems.extend(rabbit.iter().map(|(url, _, _)| ("amqp", url.clone())));
    let all = move || systems.iter().for_each(|(system, url)| run(system, url));
    tokio::task::spawn_blocking(all).await.unwrap();
}

/// Its handlers run side by side.
#[cfg(all(feature = "amqp", feature = "nats", feature = "redis"))]
#[tokio::test]
async fn user_events() {
    let sorted = |lines: String| {
        let mut lines: Vec<_> = lines.lines().collect();
        lines.sort_unstable();
        lines.join("\n")
    };
    on_each(move |system, url| {
        prints("user_events", &[url], |said| said.replace("on memory:", &format!("on {system}:")), sorted);
    })
    .await;
}

#[cfg(all(feature = "nats", feature = "postgres", feature = "redis"))]
#[tokio::test]
async fn events_to_postgres() {
    let Some(database) = crate::servers::postgres::database().await else { return };
    on_each(move |system, url| {
        // what it takes events from has no adapter for everything
        if system != "amqp" {
            let reword = |said: String| said.replace("on memory:", &format!("on {system}:"));
            prints("events_to_postgres", &[&database, url], reword, |lines| lines);
        }
    })
    .await;
}

#[cfg(feature = "postgres")]
#[tokio::test]
async fn postgres_pool() {
    let Some(database) = crate::servers::postgres::database().await else { return };
    let run = move || prints("postgres_pool", &[&database], |said| said, |lines| lines);
    tokio::task::spawn_blocking(run).await.unwrap();
}

#[test]
fn sqlite_pool() {
    prints_what_it_says("sqlite_pool");
}

#[test]
fn the_toolkits_page_shows_what_they_print() {
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/TOOLKIT.md");
    let page = std::fs::read_to_string(page).unwrap();
    for name in ["job", "user_created", "user_events", "postgres_pool", "sqlite_pool", "events_to_postgres"] {
        let shown = format!("```text\n{}\n```", said(name));
        assert!(page.contains(&shown), "{name}: {shown}");
    }
}

#[test]
fn job() {
    prints_what_it_says("job");
}

#[test]
fn user_created() {
    prints_what_it_says("user_created");
}

#[test]
fn forward_protocol() {
    prints_what_it_says("forward_protocol");
}
