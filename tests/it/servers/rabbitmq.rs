//! RabbitMQ, with an epmd of its own: the one it would start by itself would outlive the tests.

use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use super::{Line, Server, directory, find, free_port, start, unique};

/// A server and the port mapper Erlang needs, which ends with it.
#[derive(Debug)]
pub struct RabbitMq {
    pub server: Server,
    pub epmd: Server,
}

/// Erlang's port mapper, found beside the runtime where Debian doesn't put it in PATH.
fn epmd() -> Option<PathBuf> {
    let runtimes = std::fs::read_dir("/usr/lib/erlang").into_iter().flatten().flatten();
    let beside = runtimes.map(|dir| dir.path().join("bin/epmd"));
    let candidates: Vec<_> = std::iter::once("epmd".into()).chain(beside).collect();
    find("epmd (erlang)", &candidates)
}

/// A server of the test's own.
pub fn private() -> Option<RabbitMq> {
    // the script in sbin changes to the user rabbitmq, who can't write to the test's directory
    let scripts = [
        "/usr/lib/rabbitmq/bin/rabbitmq-server".into(),
        "/usr/lib/rabbitmq/lib/rabbitmq_server/sbin/rabbitmq-server".into(),
        "rabbitmq-server".into(),
    ];
    let program = find("rabbitmq-server", &scripts)?;
    let epmd_program = epmd()?;
    let epmd_line = |port: u16, _: &Path| {
        let args = vec!["-port".into(), port.to_string(), "-address".into(), "127.0.0.1".into()];
        Line { program: epmd_program.clone(), args, env: Vec::new(), user: None }
    };
    let epmd = start(directory(), epmd_line, Server::listens);
    let node = unique("corelay");
    let line = |port: u16, dir: &Path| {
        let at = |name: &str| dir.join(name).display().to_string();
        let env = [
            // has its script become the server, not its parent
            ("RUNNING_UNDER_SYSTEMD", "true".into()),
            ("HOME", dir.display().to_string()),
            ("ERL_EPMD_PORT", epmd.port.to_string()),
            ("ERL_EPMD_ADDRESS", "127.0.0.1".into()),
            ("RABBITMQ_NODENAME", format!("{node}@localhost")),
            ("RABBITMQ_NODE_IP_ADDRESS", "127.0.0.1".into()),
            ("RABBITMQ_NODE_PORT", port.to_string()),
            ("RABBITMQ_DIST_PORT", free_port().to_string()),
            ("RABBITMQ_MNESIA_BASE", at("mnesia")),
            ("RABBITMQ_LOG_BASE", at("logs")),
            ("RABBITMQ_LOGS", "-".into()),
            ("RABBITMQ_CONFIG_FILE", at("none")),
            ("RABBITMQ_ADVANCED_CONFIG_FILE", at("none")),
            ("RABBITMQ_CONF_ENV_FILE", at("none")),
            ("RABBITMQ_ENABLED_PLUGINS", String::new()),
            ("RABBITMQ_ENABLED_PLUGINS_FILE", at("plugins")),
            (
                "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS",
                "+sbwt none +S 2:2 -kernel inet_dist_use_interface {127,0,0,1}".into(),
            ),
        ];
        let env = env.map(|(name, value)| (name.to_string(), value)).to_vec();
        Line { program: program.clone(), args: Vec::new(), env, user: None }
    };
    let server = start(directory(), line, is_up);
    Some(RabbitMq { server, epmd })
}

/// Whether it greets: it listens a little before it does.
pub fn is_up(server: &Server) -> bool {
    use std::io::{Read, Write};
    let Ok(mut conn) = std::net::TcpStream::connect(server.addr()) else { return false };
    let _ = conn.set_read_timeout(Some(std::time::Duration::from_secs(2)));
    // connection.start is a method frame
    conn.write_all(b"AMQP\0\0\x09\x01").is_ok() && matches!(conn.read(&mut [0; 1]), Ok(1))
}

pub fn url(server: &Server) -> String {
    format!("amqp://guest:guest@127.0.0.1:{}/%2f", server.port)
}

/// The URL of the server all tests share, and a prefix of the test's own.
pub async fn shared() -> Option<(String, String)> {
    static SHARED: OnceLock<Option<RabbitMq>> = OnceLock::new();
    let shared = tokio::task::spawn_blocking(|| SHARED.get_or_init(private)).await.unwrap().as_ref()?;
    Some((url(&shared.server), unique("t")))
}
