//! One command a request: the body on its stdin, its stdout the response, both as they come.
//!
//! ```text
//!   request ── chunk ──► stdin ┐            ┌ stdout ──► response
//!                              ├─ sh -c CMD ┤
//!   cancelled ─► SIGTERM, 2 s, SIGKILL      └ stderr ──► ours, and its tail for the error text
//! ```
//!
//! Invariants: no more than a chunk each way is held here; no process of the command's group outlives the request,
//! whichever way it ends.

use std::ffi::{OsStr, OsString};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use corelay::base::ChannelId;
use corelay::client::{Error, Request, Responder};
use rustix::process::{Pid, Signal, kill_process_group};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::process::{Child, ChildStderr, ChildStdin, ChildStdout, Command};
use tracing::warn;

/// What to run for each request.
#[derive(Debug)]
pub(crate) struct Exec {
    /// For `sh -c`.
    pub(crate) command: String,
    /// For the command's environment.
    pub(crate) channel: ChannelId,
}

/// From SIGTERM to SIGKILL.
const GRACE: Duration = Duration::from_secs(2);
/// Bytes of stderr that go into an error's text; with what stands before them they fit the 1,024 of the protocol.
const TAIL: usize = 900;
/// Bytes of stdout read at once.
const READ: usize = 64 * 1024;

impl Exec {
    /// Runs the command for `request` and answers with what it writes.
    ///
    /// # Errors
    /// The request was cancelled, or its connection lost.
    pub(crate) async fn answer(&self, request: Request) -> Result<(), Error> {
        let mut child = match self.command(&request).spawn() {
            Ok(child) => child,
            Err(error) => return request.fail(format!("cannot run sh: {error}")).await,
        };
        let mut group = Group::of(&child);
        let cancelled = request.cancellation();
        let pipes = Pipes::of(&mut child);
        let result = tokio::select! {
            result = converse(request, &mut child, &mut group, pipes) => result,
            () = cancelled.cancelled() => Ok(()),
        };
        group.end(&mut child).await;
        result
    }

    fn command(&self, request: &Request) -> Command {
        let mut command = Command::new("sh");
        command.arg("-c").arg(&self.command);
        // headers of another request, if this runs inside a command itself
        let inherited = std::env::vars_os().filter(|(name, _)| name.as_bytes().starts_with(b"CORELAY_HEADER_"));
        for (name, _) in inherited {
            command.env_remove(name);
        }
        // ours, and none of the command's business
        for name in super::client::TOKEN_VARIABLES {
            command.env_remove(name);
        }
        command.env("CORELAY_REQUEST_ID", request.id().to_string()).env("CORELAY_CHANNEL", self.channel.to_string());
        command.envs(request.headers().iter().filter_map(|(key, value)| variable(key, value)));
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command.process_group(0).kill_on_drop(true);
        command
    }
}

/// A header as a variable; `None` for a value that no variable can have.
fn variable(key: &str, value: &[u8]) -> Option<(String, OsString)> {
    let upper = |c: char| if c.is_ascii_alphanumeric() { c.to_ascii_uppercase() } else { '_' };
    let name = key.chars().map(upper).collect::<String>();
    (!value.contains(&0)).then(|| (format!("CORELAY_HEADER_{name}"), OsStr::from_bytes(value).to_owned()))
}

/// The command's process group; killed when this is dropped, so that no way of ending forgets it.
#[derive(Debug)]
struct Group(Option<Pid>);

impl Group {
    fn of(child: &Child) -> Group {
        Group(child.id().and_then(|id| i32::try_from(id).ok()).and_then(Pid::from_raw))
    }

    fn signal(&self, signal: Signal) {
        if let Some(group) = self.0 {
            // it may have ended by itself
            let _ = kill_process_group(group, signal);
        }
    }

    /// Asks it to end, then makes it. Nothing to do where its first process has ended.
    async fn end(&mut self, child: &mut Child) {
        self.signal(Signal::TERM);
        if self.0.is_some() {
            let _ = tokio::time::timeout(GRACE, child.wait()).await;
        }
        self.kill();
        let _ = child.wait().await;
    }

    /// Kills what is left of it. Only once: its number may be another's soon.
    fn kill(&mut self) {
        self.signal(Signal::KILL);
        self.0 = None;
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        self.kill();
    }
}

/// The command's ends of our pipes.
struct Pipes {
    stdin: Feed,
    stdout: ChildStdout,
    stderr: ChildStderr,
}

impl Pipes {
    fn of(child: &mut Child) -> Pipes {
        let stdin = Feed { stdin: child.stdin.take(), waiting: Bytes::new() };
        let stdout = child.stdout.take().expect("stdout is piped");
        let stderr = child.stderr.take().expect("stderr is piped");
        Pipes { stdin, stdout, stderr }
    }
}

/// The request's body on its way to the command. Whoever stops it loses no byte.
struct Feed {
    /// `None` once everything is written, or the command reads no more.
    stdin: Option<ChildStdin>,
    waiting: Bytes,
}

impl Feed {
    /// Writes the body until its end, or until the command reads no more.
    async fn run(&mut self, request: &mut Request) -> Result<(), Error> {
        while let Some(stdin) = &mut self.stdin {
            if self.waiting.is_empty() {
                match request.chunk().await? {
                    Some(chunk) => self.waiting = chunk,
                    None => self.stdin = None,
                }
            } else {
                match stdin.write(&self.waiting).await {
                    Ok(written) if written > 0 => self.waiting.advance(written),
                    // a command need not read all of its input
                    _ => self.stdin = None,
                }
            }
        }
        Ok(())
    }

    /// As [`Feed::run`], but never done.
    async fn run_on(&mut self, request: &mut Request) -> Error {
        match self.run(request).await {
            Ok(()) => std::future::pending().await,
            Err(error) => error,
        }
    }
}

/// Runs the exchange between request and command, to the one or the other's end.
async fn converse(mut request: Request, child: &mut Child, group: &mut Group, pipes: Pipes) -> Result<(), Error> {
    let Pipes { mut stdin, mut stdout, stderr } = pipes;
    let stderr = tokio::spawn(tail_of(stderr));
    let mut piece = BytesMut::with_capacity(READ);
    let mut end = Ended::default();
    // the response begins with the first byte, so that a command that fails before can fail the request whole
    let first = tokio::select! {
        error = stdin.run_on(&mut request) => return Err(error),
        first = end.read(&mut stdout, child, group, &mut piece) => first,
    };
    let Some(first) = first else {
        let status = end.status(child, group).await;
        return match failure(status, stderr).await {
            None => request.respond(Bytes::new()).await,
            Some(text) => request.fail(text).await,
        };
    };
    let mut response = request.start_response(Vec::new())?;
    let answered = async {
        response.write(first).await?;
        while let Some(more) = end.read(&mut stdout, child, group, &mut piece).await {
            response.write(more).await?;
        }
        Ok(end.status(child, group).await)
    };
    let status = tokio::select! {
        error = stdin.run_on(&mut request) => return Err(error),
        status = answered => status?,
    };
    finish(response, failure(status, stderr).await).await
}

async fn finish(response: Responder, failure: Option<String>) -> Result<(), Error> {
    match failure {
        None => response.finish().await,
        Some(text) => response.fail(text).await,
    }
}

/// How the command ended, once it has.
#[derive(Debug, Default)]
struct Ended {
    status: Option<io::Result<ExitStatus>>,
}

impl Ended {
    /// The next piece of stdout; `None` at its end. When the command has ended, whatever it left running is killed:
    /// it would hold stdout open.
    async fn read(
        &mut self,
        stdout: &mut ChildStdout,
        child: &mut Child,
        group: &mut Group,
        piece: &mut BytesMut,
    ) -> Option<Bytes> {
        loop {
            piece.reserve(READ);
            tokio::select! {
                read = stdout.read_buf(piece) => return match read {
                    Ok(n) if n > 0 => Some(piece.split().freeze()),
                    _ => None,
                },
                status = child.wait(), if self.status.is_none() => {
                    group.kill();
                    self.status = Some(status);
                }
            }
        }
    }

    /// How the command ended; waits for that where stdout was closed before.
    async fn status(self, child: &mut Child, group: &mut Group) -> io::Result<ExitStatus> {
        match self.status {
            Some(status) => status,
            None => {
                let status = child.wait().await;
                group.kill();
                status
            }
        }
    }
}

/// The text a request fails with; `None` where the command succeeded.
async fn failure(status: io::Result<ExitStatus>, stderr: tokio::task::JoinHandle<Vec<u8>>) -> Option<String> {
    let tail = stderr.await.unwrap_or_default();
    let ended = match status {
        Ok(status) if status.success() => return None,
        Ok(status) => format!("the command failed ({status})"),
        Err(error) => format!("the command was lost: {error}"),
    };
    warn!("{ended}");
    let tail = String::from_utf8_lossy(&tail);
    Some(if tail.trim().is_empty() { ended } else { format!("{ended}: {}", clipped(tail.trim())) })
}

/// The last [`TAIL`] bytes of `text`, from a character's boundary on.
fn clipped(text: &str) -> &str {
    let mut from = text.len().saturating_sub(TAIL);
    while !text.is_char_boundary(from) {
        from += 1;
    }
    &text[from..]
}

/// Passes the command's stderr on to ours, and gives its last bytes.
async fn tail_of(mut stderr: ChildStderr) -> Vec<u8> {
    let mut ours = tokio::io::stderr();
    let (mut tail, mut piece) = (Vec::new(), vec![0; 4096]);
    while let Ok(n @ 1..) = stderr.read(&mut piece).await {
        let _ = ours.write_all(&piece[..n]).await;
        tail.extend_from_slice(&piece[..n]);
        tail.drain(..tail.len().saturating_sub(TAIL));
    }
    let _ = ours.flush().await;
    tail
}

#[cfg(test)]
mod tests;
