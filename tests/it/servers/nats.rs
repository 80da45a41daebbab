//! NATS with JetStream.

use std::path::Path;
use std::sync::OnceLock;

use super::{Line, Server, directory, find, start, unique};

/// A server of the test's own.
pub fn private() -> Option<Server> {
    configured("")
}

/// One with these lines in its configuration too.
pub fn configured(more: &'static str) -> Option<Server> {
    let program = find("nats-server", &["nats-server".into()])?;
    let line = |port: u16, dir: &Path| {
        let config = dir.join("nats.conf");
        let store = dir.join("jetstream");
        let text =
            format!("listen: 127.0.0.1:{port}\njetstream {{ store_dir: {:?} }}\n{more}\n", store.display().to_string());
        std::fs::write(&config, text).unwrap();
        let args = vec!["-c".into(), config.display().to_string()];
        Line { program: program.clone(), args, env: Vec::new(), user: None }
    };
    Some(start(directory(), line, Server::listens))
}

pub fn url(server: &Server) -> String {
    format!("nats://127.0.0.1:{}", server.port)
}

/// The URL of the server all tests share, and a prefix of the test's own.
pub async fn shared() -> Option<(String, String)> {
    static SHARED: OnceLock<Option<Server>> = OnceLock::new();
    let server = tokio::task::spawn_blocking(|| SHARED.get_or_init(private)).await.unwrap().as_ref()?;
    Some((url(server), unique("t")))
}
