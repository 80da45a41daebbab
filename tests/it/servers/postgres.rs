//! PostgreSQL.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;

use super::{Line, Server, as_user, directory, find, start, unique};

/// PostgreSQL refuses to run as root.
const USER: &str = "postgres";

/// The directory of its programs: Debian keeps them out of PATH.
fn programs() -> Option<PathBuf> {
    let mut versions: Vec<_> = std::fs::read_dir("/usr/lib/postgresql")
        .map(|dirs| dirs.flatten().map(|dir| dir.path().join("bin/postgres")).collect())
        .unwrap_or_default();
    versions.sort();
    versions.reverse();
    versions.push("postgres".into());
    find("postgresql", &versions)?.parent().map(Path::to_path_buf)
}

/// A server of the test's own. `settings` are lines of its configuration.
pub fn private(settings: &[&str]) -> Option<Server> {
    let programs = programs()?;
    let dir = directory();
    give_away(dir.path());
    let data = dir.path().join("data");
    let mut initdb = Command::new("setpriv");
    initdb.args(as_user(Some(USER))).arg("--").arg(programs.join("initdb")).arg("-D").arg(&data);
    initdb.args(["-U", "postgres", "-A", "trust", "-E", "UTF8", "--no-locale", "--no-sync", "--no-instructions"]);
    let made = initdb.current_dir(dir.path()).stdin(Stdio::null()).output().unwrap();
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    let line = |port: u16, _: &Path| {
        let mut args = vec!["-D".into(), data.display().to_string(), "-p".into(), port.to_string()];
        for setting in ["listen_addresses=127.0.0.1", "unix_socket_directories=", "fsync=off"].iter().chain(settings) {
            args.extend(["-c".into(), (*setting).into()]);
        }
        Line { program: programs.join("postgres"), args, env: Vec::new(), user: Some(USER) }
    };
    Some(start(dir, line, is_up))
}

/// Lets the server's user write to a directory made by root.
pub fn give_away(path: &Path) {
    if rustix::process::geteuid().is_root() {
        let done = Command::new("chown").arg("-R").arg(format!("{USER}:{USER}")).arg(path).status().unwrap();
        assert!(done.success());
    }
}

/// Whether it takes queries: it listens before it does.
pub fn is_up(server: &Server) -> bool {
    let url = url(server, "postgres");
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async { tokio_postgres::connect(&url, tokio_postgres::NoTls).await.is_ok() })
    })
    .join()
    .unwrap()
}

pub fn url(server: &Server, database: &str) -> String {
    format!("postgres://postgres@127.0.0.1:{}/{database}?connect_timeout=5", server.port)
}

/// The URL of a new database on the server all tests share.
pub async fn database() -> Option<String> {
    static SHARED: OnceLock<Option<Server>> = OnceLock::new();
    let shared = tokio::task::spawn_blocking(|| SHARED.get_or_init(|| private(&[]))).await.unwrap();
    let server = shared.as_ref()?;
    let (client, driver) = tokio_postgres::connect(&url(server, "postgres"), tokio_postgres::NoTls).await.unwrap();
    let driver = tokio::spawn(driver);
    let name = unique("test");
    client.batch_execute(&format!("CREATE DATABASE {name}")).await.unwrap();
    drop(client);
    driver.await.unwrap().unwrap();
    Some(url(server, &name))
}
