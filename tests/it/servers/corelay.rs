//! corelay itself.

use std::path::Path;

use super::{Line, Server, directory, start};

/// A broker of the test's own.
pub fn private() -> Server {
    let line = |port: u16, _: &Path| {
        let args = format!("serve --listen 127.0.0.1:{port} --cores 1 --no-pin --log warn");
        let args = args.split(' ').map(String::from).collect();
        Line { program: env!("CARGO_BIN_EXE_corelay").into(), args, env: Vec::new(), user: None }
    };
    start(directory(), line, is_up)
}

/// Whether it says that it listens. That something takes connections proves nothing: the kernel dismantles the rings of
/// a killed process a little after its end, and the listener with them.
pub fn is_up(server: &Server) -> bool {
    server.log().contains("listening on ")
}
