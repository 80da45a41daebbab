//! A broker's admin address, asked for its CPU time and memory: for a broker on another machine, or of another user.
//!
//! One GET of `/varz` when measuring begins and one when it ends; no more of HTTP is needed than that.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream, ToSocketAddrs};
use std::time::{Duration, Instant};

use serde::Deserialize;

/// How long an answer may take.
const PATIENCE: Duration = Duration::from_secs(2);
/// The longest answer that is read, in bytes.
const MAX_ANSWER: usize = 1 << 20;

/// What is read of `/varz`; it holds more.
#[derive(Clone, Copy, Debug, PartialEq, Deserialize)]
pub struct Varz {
    /// The broker's process id, on its machine.
    pub pid: u32,
    /// CPU time of the process since its start, in seconds.
    pub cpu_seconds: f64,
    /// Resident memory, in bytes.
    pub resident_bytes: u64,
    /// Requests it has taken since its start, of all its consumers.
    pub requests: u64,
}

/// Why the admin address told nothing.
#[derive(Debug, thiserror::Error)]
pub enum AdminError {
    /// It is none.
    #[error("{0:?}: expected the admin address, host:port or http://host:port")]
    Addr(String),
    /// No answer.
    #[error("can't ask http://{addr}/varz: {source}")]
    Io {
        /// Where.
        addr: SocketAddr,
        /// What the kernel said.
        source: io::Error,
    },
    /// An answer, but not the expected one.
    #[error("http://{addr}/varz: {why}")]
    Answer {
        /// Where.
        addr: SocketAddr,
        /// What was wrong with it.
        why: String,
    },
}

/// Reads `host:port`, `http://host:port` or the page's whole address.
///
/// # Errors
/// [`AdminError::Addr`].
///
/// ```
/// let addr = loadgen::admin::parse("http://127.0.0.1:9091/varz")?;
/// assert_eq!(addr, "127.0.0.1:9091".parse().unwrap());
/// # Ok::<(), loadgen::admin::AdminError>(())
/// ```
pub fn parse(text: &str) -> Result<SocketAddr, AdminError> {
    let bad = || AdminError::Addr(text.chars().take(80).collect());
    let plain = text.strip_prefix("http://").unwrap_or(text).split('/').next().unwrap_or_default();
    let found: Vec<_> = plain.to_socket_addrs().map_err(|_| bad())?.collect();
    found.iter().find(|addr| addr.is_ipv4()).or(found.first()).copied().ok_or_else(bad)
}

/// Asks for `/varz`.
///
/// # Errors
/// [`AdminError`].
pub fn varz(addr: SocketAddr) -> Result<Varz, AdminError> {
    let answer = get(addr).map_err(|source| AdminError::Io { addr, source })?;
    read(&answer).map_err(|why| AdminError::Answer { addr, why })
}

/// The whole answer, head and body. As HTTP/1.0, which is answered in one piece and without chunks.
fn get(addr: SocketAddr) -> io::Result<Vec<u8>> {
    let until = Instant::now() + PATIENCE;
    let mut stream = TcpStream::connect_timeout(&addr, PATIENCE)?;
    stream.set_write_timeout(Some(PATIENCE))?;
    let ask = format!("GET /varz HTTP/1.0\r\nHost: {addr}\r\nAccept: application/json\r\nConnection: close\r\n\r\n");
    stream.write_all(ask.as_bytes())?;
    let mut answer = Vec::new();
    let mut piece = [0; 4096];
    while answer.len() < MAX_ANSWER && !is_whole(&answer) {
        let left = until.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(io::ErrorKind::TimedOut.into());
        }
        stream.set_read_timeout(Some(left))?;
        match stream.read(&mut piece)? {
            0 => break,
            n => answer.extend_from_slice(&piece[..n]),
        }
    }
    Ok(answer)
}

/// Whether all bytes have come that the head promises; without a promise the end of the connection ends the answer.
fn is_whole(answer: &[u8]) -> bool {
    let Some((head, body)) = split(answer) else { return false };
    header(&head, "content-length").and_then(|length| length.parse().ok()).is_some_and(|length| body.len() >= length)
}

fn split(answer: &[u8]) -> Option<(String, &[u8])> {
    let at = memchr::memmem::find(answer, b"\r\n\r\n")?;
    Some((String::from_utf8_lossy(&answer[..at]).into_owned(), &answer[at + 4..]))
}

fn header<'a>(head: &'a str, name: &str) -> Option<&'a str> {
    let lines = head.lines().filter_map(|line| line.split_once(':'));
    lines.filter(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value.trim()).next()
}

fn read(answer: &[u8]) -> Result<Varz, String> {
    let (head, body) = split(answer).ok_or("what it sent is no HTTP")?;
    let first = head.lines().next().unwrap_or_default();
    if first.split(' ').nth(1) != Some("200") {
        return Err(format!("it answered {first:?}"));
    }
    serde_json::from_slice(body).map_err(|error| format!("not the expected JSON: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpListener;

    /// Answers one request with these bytes; the thread returns what was asked.
    fn server(answer: &'static str) -> (SocketAddr, std::thread::JoinHandle<String>) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let addr = listener.local_addr().unwrap();
        let asked = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut asked = Vec::new();
            while !asked.ends_with(b"\r\n\r\n") {
                let mut one = [0];
                stream.read_exact(&mut one).unwrap();
                asked.push(one[0]);
            }
            stream.write_all(answer.as_bytes()).unwrap();
            String::from_utf8(asked).unwrap()
        });
        (addr, asked)
    }

    #[test]
    fn the_figures_are_read_whatever_else_is_there() {
        let (addr, asked) = server(
            "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\ncontent-length: 86\r\n\r\n\
             {\"pid\": 7, \"cpu_seconds\": 1.25, \"name\": \"x\", \"resident_bytes\": 4096, \"requests\": 12345}\n",
        );
        let varz = varz(addr).unwrap();
        assert_eq!(varz, Varz { pid: 7, cpu_seconds: 1.25, resident_bytes: 4096, requests: 12345 });
        assert!(asked.join().unwrap().starts_with("GET /varz HTTP/1.0\r\nHost: 127.0.0.1:"));
    }

    #[test]
    fn another_answer_is_told() {
        let told = |answer| {
            let (addr, asked) = server(answer);
            let told = varz(addr).unwrap_err().to_string();
            asked.join().unwrap();
            told
        };
        assert!(told("HTTP/1.1 404 Not Found\r\n\r\n").ends_with("/varz: it answered \"HTTP/1.1 404 Not Found\""));
        assert!(told("HTTP/1.1 200 OK\r\n\r\n{\"pid\": 7}").contains("missing field"));
        assert!(told("hello\r\n").ends_with("what it sent is no HTTP"));
        let nobody = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        assert!(varz(nobody).unwrap_err().to_string().starts_with("can't ask http://127.0.0.1:"));
        assert!(parse("nowhere").is_err() && parse("http://127.0.0.1:1").is_ok());
    }
}
