//! RabbitMQ, with an epmd of its own: the one it would start by itself would outlive the tests.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use tokio::sync::{OwnedRwLockReadGuard, OwnedRwLockWriteGuard, RwLock};

use super::{Line, Server, directory, find, free_port, start, unique};

/// A server and the port mapper Erlang needs, which ends with it.
#[derive(Debug)]
struct RabbitMq {
    server: Server,
    _epmd: Server,
}

/// Erlang's port mapper, found beside the runtime where Debian doesn't put it in PATH.
fn epmd() -> Option<PathBuf> {
    let runtimes = std::fs::read_dir("/usr/lib/erlang").into_iter().flatten().flatten();
    let beside = runtimes.map(|dir| dir.path().join("bin/epmd"));
    let candidates: Vec<_> = std::iter::once("epmd".into()).chain(beside).collect();
    find("epmd (erlang)", &candidates)
}

fn start_node() -> Option<RabbitMq> {
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
    Some(RabbitMq { server, _epmd: epmd })
}

/// Whether it greets: it listens a little before it does.
fn is_up(server: &Server) -> bool {
    use std::io::{Read, Write};
    let Ok(mut conn) = std::net::TcpStream::connect(server.addr()) else { return false };
    let _ = conn.set_read_timeout(Some(std::time::Duration::from_secs(2)));
    // connection.start is a method frame
    conn.write_all(b"AMQP\0\0\x09\x01").is_ok() && matches!(conn.read(&mut [0; 1]), Ok(1))
}

fn url(server: &Server) -> String {
    format!("amqp://guest:guest@127.0.0.1:{}/%2f", server.port)
}

/// The one node of a test run: it takes as long to come up as all other servers together.
struct Node {
    rabbit: Mutex<RabbitMq>,
    url: String,
    /// Who uses it: many, or one who kills it.
    users: Arc<RwLock<()>>,
}

async fn node() -> Option<&'static Node> {
    static NODE: OnceLock<Option<Node>> = OnceLock::new();
    let start = || {
        let rabbit = start_node()?;
        Some(Node { url: url(&rabbit.server), rabbit: Mutex::new(rabbit), users: Arc::default() })
    };
    tokio::task::spawn_blocking(move || NODE.get_or_init(start)).await.unwrap().as_ref()
}

/// Keeps the node from being killed.
pub type Lease = OwnedRwLockReadGuard<()>;

/// The URL of the node all tests share, and a prefix of the test's own. A test asks once.
pub async fn shared() -> Option<(String, String, Lease)> {
    let node = node().await?;
    Some((node.url.clone(), unique("t"), node.users.clone().read_owned().await))
}

/// The node while nobody else uses it. It is up again when this is dropped.
pub struct Alone {
    node: &'static Node,
    pub prefix: String,
    is_up: bool,
    _users: OwnedRwLockWriteGuard<()>,
}

/// See [`Alone`].
pub async fn alone() -> Option<Alone> {
    let node = node().await?;
    Some(Alone { node, prefix: unique("t"), is_up: true, _users: node.users.clone().write_owned().await })
}

impl Alone {
    fn rabbit(&self) -> MutexGuard<'static, RabbitMq> {
        self.node.rabbit.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn url(&self) -> String {
        self.node.url.clone()
    }

    /// Blocks, as the others.
    pub fn kill(&mut self) {
        self.is_up = false;
        self.rabbit().server.kill();
    }

    pub fn restart(&mut self) {
        self.rabbit().server.restart(is_up);
        self.is_up = true;
    }

    pub fn log(&self) -> String {
        self.rabbit().server.log()
    }
}

impl Drop for Alone {
    fn drop(&mut self) {
        if !self.is_up {
            self.restart();
        }
    }
}
