//! A pool of connections to a real PostgreSQL.

use std::time::Duration;

use corelay::toolkit::connection_pool::{CloseReason, Error, Options, Pool, PostgresError, PostgresFactory};
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};

use crate::servers::postgres::{database, give_away, private, url};

fn pool(url: &str, options: Options) -> Pool<PostgresFactory> {
    Pool::new(PostgresFactory::new(url).unwrap(), options).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_tasks_share_few_connections_and_nothing_is_lost() {
    const TASKS: usize = 16;
    const ROWS: usize = 60;
    let Some(url) = database().await else { return };
    let options = Options { max_open: 4, max_idle: Some(2), ..Options::default() };
    let pool = pool(&url, options);
    pool.get().await.unwrap().batch_execute("CREATE TABLE rows (task int, row int)").await.unwrap();
    let tasks: Vec<_> = (0..TASKS)
        .map(|task| {
            let pool = pool.clone();
            tokio::spawn(async move {
                let mut most = 0;
                for row in 0..ROWS {
                    let conn = pool.get().await.unwrap();
                    let (task, row) = (task as i32, row as i32);
                    conn.execute("INSERT INTO rows VALUES ($1, $2)", &[&task, &row]).await.unwrap();
                    let sql = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()";
                    most = most.max(conn.query_one(sql, &[]).await.unwrap().get::<_, i64>(0));
                }
                most
            })
        })
        .collect();
    for task in tasks {
        // what the server counts, backends it has not yet seen off included
        let most = task.await.unwrap();
        assert!(most <= 4, "{most} connections");
    }
    let conn = pool.get().await.unwrap();
    let sql = "SELECT count(*), count(DISTINCT (task, row)) FROM rows";
    let row = conn.query_one(sql, &[]).await.unwrap();
    let rows = (TASKS * ROWS) as i64;
    assert_eq!((row.get::<_, i64>(0), row.get::<_, i64>(1)), (rows, rows));
    drop(conn);
    let stats = pool.stats();
    assert_eq!(stats.acquired, (TASKS * ROWS) as u64 + 2);
    assert!(stats.waits.count() > 0 && stats.idle <= 2, "{stats:?}");
    assert!(pool.ping().await.unwrap() < Duration::from_secs(2));
    pool.close().await;
    assert_eq!(pool.stats().open, 0);
}

#[tokio::test]
async fn connections_the_server_ended_are_replaced_unseen() {
    let Some(url) = database().await else { return };
    let pool = pool(&url, Options::default());
    let held = [pool.get().await.unwrap(), pool.get().await.unwrap(), pool.get().await.unwrap()];
    let mut pids = Vec::new();
    for conn in &held {
        pids.push(conn.query_one("SELECT pg_backend_pid()", &[]).await.unwrap().get::<_, i32>(0));
    }
    let [one, two, three] = held;
    drop((one, two));
    for pid in &pids[..2] {
        three.execute("SELECT pg_terminate_backend($1, 5000)", &[pid]).await.unwrap();
    }
    // two dead ones are idle; whoever asks gets a live one
    for _ in 0..2 {
        let conn = pool.get().await.unwrap();
        conn.query_one("SELECT 1", &[]).await.unwrap();
        drop(conn);
    }
    let closed = pool.stats().closed;
    assert!(closed.by(CloseReason::Broken) + closed.by(CloseReason::Invalid) >= 1, "{closed:?}");
    assert!(three.query_one("SELECT 1", &[]).await.is_ok());
}

#[tokio::test]
async fn errors_that_last_are_not_tried_again() {
    let Some(url) = database().await else { return };
    let nowhere = format!("{}_nowhere?", url.split('?').next().unwrap());
    let pool = pool(&nowhere, Options { create_retries: 5, ..Options::default() });
    let error = pool.get().await.unwrap_err();
    let Error::Create { attempts: 1, source: PostgresError::Postgres(source) } = error else { panic!("{error}") };
    assert_eq!(source.code(), Some(&tokio_postgres::error::SqlState::INVALID_CATALOG_NAME));
    assert!(matches!(PostgresFactory::new("postgres://a:b:c"), Err(PostgresError::Postgres(_))));
}

#[tokio::test]
async fn a_session_can_be_reset_between_users() {
    let Some(url) = database().await else { return };
    for (reset, expected) in [(false, "left behind"), (true, "")] {
        let factory = PostgresFactory::new(&url).unwrap().reset_sessions(reset);
        let pool = Pool::new(factory, Options { max_open: 1, ..Options::default() }).unwrap();
        let conn = pool.get().await.unwrap();
        conn.batch_execute("SET application_name = 'left behind'; BEGIN; CREATE TEMP TABLE t ()").await.unwrap();
        drop(conn);
        let conn = pool.get().await.unwrap();
        let name: String = conn.query_one("SHOW application_name", &[]).await.unwrap().get(0);
        assert_eq!((name.as_str(), pool.stats().created), (expected, 1));
    }
}

/// A certificate authority, and a certificate of its for `name`, both PEM.
fn certificate(name: &str) -> (String, String, String) {
    let ca_key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let ca = params.self_signed(&ca_key).unwrap();
    let key = KeyPair::generate().unwrap();
    let issuer = Issuer::new(params, ca_key);
    let cert = CertificateParams::new(vec![name.to_string()]).unwrap().signed_by(&key, &issuer).unwrap();
    (ca.pem(), cert.pem(), key.serialize_pem())
}

#[tokio::test]
async fn tls_is_verified() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name);
    let (ca, cert, key) = certificate("localhost");
    let (other_ca, ..) = certificate("localhost");
    for (name, text) in [("ca.pem", ca), ("cert.pem", cert), ("key.pem", key), ("other.pem", other_ca)] {
        std::fs::write(path(name), text).unwrap();
    }
    use std::os::unix::fs::PermissionsExt;
    std::fs::set_permissions(path("key.pem"), std::fs::Permissions::from_mode(0o600)).unwrap();
    give_away(dir.path());
    let settings = [
        "ssl=on".to_string(),
        format!("ssl_cert_file={}", path("cert.pem").display()),
        format!("ssl_key_file={}", path("key.pem").display()),
    ];
    let settings: Vec<_> = settings.iter().map(String::as_str).collect();
    let started = tokio::task::spawn_blocking({
        let settings: Vec<String> = settings.iter().map(|s| (*s).to_string()).collect();
        move || private(&settings.iter().map(String::as_str).collect::<Vec<_>>())
    });
    let Some(server) = started.await.unwrap() else { return };
    let url = url(&server, "postgres").replace("127.0.0.1", "localhost") + "&sslmode=require";
    let with_roots = |name: &str| PostgresFactory::new(&url).unwrap().with_roots(path(name));
    let options = Options { create_retries: 0, ..Options::default() };

    let pool = Pool::new(with_roots("ca.pem").unwrap(), options.clone()).unwrap();
    let conn = pool.get().await.unwrap();
    let sql = "SELECT ssl, version FROM pg_stat_ssl WHERE pid = pg_backend_pid()";
    let row = conn.query_one(sql, &[]).await.unwrap();
    assert_eq!((row.get::<_, bool>(0), row.get::<_, &str>(1)), (true, "TLSv1.3"));

    // signed by somebody else; another name than the certificate's; not a certificate at all
    let pool = Pool::new(with_roots("other.pem").unwrap(), options.clone()).unwrap();
    assert!(matches!(pool.get().await, Err(Error::Create { .. })));
    let by_address = PostgresFactory::new(&url.replace("localhost", "127.0.0.1")).unwrap().with_roots(path("ca.pem"));
    assert!(matches!(Pool::new(by_address.unwrap(), options).unwrap().get().await, Err(Error::Create { .. })));
    for name in ["key.pem", "nothing.pem"] {
        assert!(matches!(with_roots(name), Err(PostgresError::Certificates { .. })));
    }
}
