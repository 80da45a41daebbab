//! Redis, or Valkey.

use std::path::Path;
use std::sync::OnceLock;

use super::{Line, Server, directory, find, start, unique};

/// A server of the test's own, which writes each command to disk before it answers, so that a kill loses nothing.
pub fn private() -> Option<Server> {
    let program = find("redis-server", &["redis-server".into(), "valkey-server".into()])?;
    let line = |port: u16, dir: &Path| {
        let args = format!("--port {port} --bind 127.0.0.1 --save --appendonly yes --appendfsync always --dir");
        let mut args: Vec<_> = args.split(' ').map(String::from).collect();
        args.insert(args.iter().position(|arg| arg == "--save").unwrap() + 1, String::new());
        args.push(dir.display().to_string());
        Line { program: program.clone(), args, env: Vec::new(), user: None }
    };
    Some(start(directory(), line, is_up))
}

/// Whether it answers: it listens while it still loads its data.
pub fn is_up(server: &Server) -> bool {
    use std::io::{Read, Write};
    let Ok(mut conn) = std::net::TcpStream::connect(server.addr()) else { return false };
    let mut answer = [0; 7];
    conn.write_all(b"PING\r\n").is_ok() && conn.read_exact(&mut answer).is_ok() && answer == *b"+PONG\r\n"
}

pub fn url(server: &Server) -> String {
    format!("redis://127.0.0.1:{}", server.port)
}

/// The URL of the server all tests share, and a prefix of the test's own.
pub async fn shared() -> Option<(String, String)> {
    static SHARED: OnceLock<Option<Server>> = OnceLock::new();
    let server = tokio::task::spawn_blocking(|| SHARED.get_or_init(private)).await.unwrap().as_ref()?;
    Some((url(server), unique("t")))
}
