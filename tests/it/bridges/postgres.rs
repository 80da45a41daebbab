//! PostgreSQL.

use std::sync::Arc;

use bytes::Bytes;
use corelay::forward::{Client, Message, Part, PostgresClient, Promise, SendErrorKind};
use tokio::task::spawn_blocking;
use tokio_postgres::{Client as Connection, NoTls};

use super::rig::{
    Books, killing, nobody_there_is_said, number, numbered, slowness_is_bounded, survives, survives_behind_a_producer,
};
use crate::message_broker::system::soon;
use crate::servers::proxy::Proxy;
use crate::servers::{free_port, postgres};

async fn connect(url: &str) -> Connection {
    let (client, driver) = tokio_postgres::connect(url, NoTls).await.unwrap();
    tokio::spawn(driver);
    client
}

/// The target, for what stands behind the database's name in a URL of the tests.
fn target(url: &str, params: &str) -> String {
    format!("{}?{params}", url.split('?').next().unwrap())
}

/// Numbers of all rows, in the order in which they were inserted.
async fn numbers(url: &str, table: &str) -> Vec<u32> {
    let rows = connect(url).await.query(&format!("SELECT body FROM {table} ORDER BY position"), &[]).await.unwrap();
    rows.iter().map(|row| number(row.get(0))).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn arrives_whole_and_in_order_and_nothing_twice() {
    const COUNT: u32 = 300;
    let Some(url) = postgres::database().await else { return };
    connect(&url).await.batch_execute("CREATE SCHEMA events").await.unwrap();
    let client = PostgresClient::new(&target(&url, "table=events.Orders&create=true")).unwrap();
    assert_eq!(client.promise(), Promise::AtLeastOnce);
    soon("probe", client.probe()).await.unwrap();
    let mut books = Books::default();
    for first in (0..COUNT).step_by(50) {
        soon("batch", books.send(&client, first..first + 50)).await;
    }
    assert_eq!((books.delivered.len(), books.failures.len()), (COUNT as usize, 0));
    let table = "events.\"Orders\"";
    assert_eq!(numbers(&url, table).await, (0..COUNT).collect::<Vec<_>>());
    let mut message = numbered(COUNT);
    let parts = [
        (Part::Chunk { sequence: 0, last: false }, &b"first "[..]),
        (Part::Chunk { sequence: 1, last: true }, &b"second"[..]),
        (Part::Aborted { sequence: 2 }, &b""[..]),
    ];
    let parts: Vec<Message> = parts
        .map(|(part, body)| {
            (message.part, message.body) = (part, Bytes::copy_from_slice(body));
            message.clone()
        })
        .into();
    // again is as good as once
    for _ in 0..2 {
        let done = soon("parts", client.send_batch(&parts)).await;
        assert_eq!((done.delivered, done.error), (3, None));
    }
    let rows = connect(&url)
        .await
        .query(
            &format!(
                "SELECT part, state, request_id::text, channel::text, kind, headers::text, body,
                    (extract(epoch FROM received) * 1000)::bigint
                FROM {table} WHERE key = '{}' ORDER BY part",
                message.key
            ),
            &[],
        )
        .await
        .unwrap();
    let states: Vec<(i32, String, Vec<u8>)> = rows.iter().map(|row| (row.get(0), row.get(1), row.get(6))).collect();
    let expected = [(0, "chunk", &b"first "[..]), (1, "last", &b"second"[..]), (2, "aborted", &b""[..])];
    assert_eq!(states, expected.map(|(part, state, body)| (part, state.to_string(), body.to_vec())));
    for row in &rows {
        assert_eq!(row.get::<_, String>(2), message.id.to_string());
        assert_eq!(row.get::<_, String>(3), message.channel.to_string());
        assert_eq!(row.get::<_, &str>(4), message.kind.as_str());
        let headers = r#"[["number", "300"], ["binary", {"hex": "00ff0d0a"}], ["odd/name", "x"]]"#;
        assert_eq!(row.get::<_, &str>(5), headers);
        assert_eq!(row.get::<_, i64>(7), 1_700_000_000_300);
    }
    client.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_at_fault_is_refused_alone() {
    let Some(url) = postgres::database().await else { return };
    let client = PostgresClient::new(&target(&url, "table=orders")).unwrap();
    let error = soon("answer", client.send(&numbered(1))).await.unwrap_err();
    assert_eq!((error.kind(), error.is_in_doubt()), (SendErrorKind::Rejected, false), "no table: {error}");
    let making = PostgresClient::new(&target(&url, "table=orders&create=true")).unwrap();
    soon("message", making.send(&numbered(1))).await.unwrap();
    let admin = connect(&url).await;
    admin.batch_execute("ALTER TABLE orders ADD CHECK (length(body) < 5000)").await.unwrap();
    let mut large = numbered(3);
    large.body = vec![b'x'; 5000].into();
    let done = soon("batch", client.send_batch(&[numbered(2), large, numbered(4)])).await;
    let error = done.error.unwrap();
    assert_eq!((done.delivered, error.kind(), error.is_in_doubt()), (1, SendErrorKind::Rejected, false), "{error}");
    assert!(!error.to_string().contains("xxxx"), "nothing of the message: {error}");
    assert_eq!(numbers(&url, "orders").await, [1, 2]);
    // dropped under way it is made again
    admin.batch_execute("DROP TABLE orders").await.unwrap();
    let mut books = Books::default();
    soon("batch", books.send(&making, 5..8)).await;
    books.check(Promise::AtLeastOnce, false, &numbers(&url, "orders").await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn down_from_the_start_and_killed_under_way() {
    let nobody = PostgresClient::new(&format!("postgres://me:secret@127.0.0.1:{}/x", free_port())).unwrap();
    nobody_there_is_said(&nobody).await;

    let Some(server) = spawn_blocking(|| postgres::private(&[])).await.unwrap() else { return };
    let url = postgres::url(&server, "postgres");
    let client = PostgresClient::new(&target(&url, "create=true&timeout=2s")).unwrap();
    let mut outage = killing(server, postgres::is_up);
    let books = survives(&client, 3, &mut outage).await;
    // one sent again meets its own key
    books.check(Promise::AtLeastOnce, false, &numbers(&url, "corelay_messages").await);

    let client = PostgresClient::new(&target(&url, "table=produced&create=true&timeout=2s")).unwrap();
    let books = survives_behind_a_producer(Arc::new(client), &mut outage).await;
    books.check(Promise::AtLeastOnce, false, &numbers(&url, "produced").await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn slow() {
    let Some(url) = postgres::database().await else { return };
    let server = url.split(['@', '/']).nth(3).unwrap().to_string();
    let proxy = Proxy::start(server.parse().unwrap()).await;
    let through = target(&url, "create=true&timeout=500ms").replace(&server, &format!("127.0.0.1:{}", proxy.port));
    let client = PostgresClient::new(&through).unwrap();
    let books = slowness_is_bounded(&client, || proxy.freeze(), || proxy.thaw()).await;
    books.check(Promise::AtLeastOnce, false, &numbers(&url, "corelay_messages").await);
}
