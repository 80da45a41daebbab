//! A file that grows, and is set aside when it's large.

use std::fs::{self, File, OpenOptions};
use std::io::{self, BufReader, Read, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use crate::forward::dead_letter::ends_a_line;
use crate::forward::framing::{Encoded, Format, Framing};
use crate::forward::one_file::ByPath;
use crate::forward::url::Url;
use crate::forward::{
    BatchFuture, Client, Done, Message, Promise, SendError, SendErrorKind, SendFuture, Takes, UrlError, clients,
};

/// Appends to a file.
///
/// `file:///path`; options
///
/// | option | |
/// |---|---|
/// | `framing` | `lines` (as it is), `len32` or `raw`: see [`Framing`] |
/// | `envelope` | `none` (as it is) or `json` |
/// | `rotate` | the size beyond which the file is set aside as `path.1`, and `path.1` as `path.2` and so on; never without it |
/// | `keep` | how many are kept, the oldest being removed; 5 |
/// | `sync` | `never` (as it is): success means that the kernel has it, and it outlives this process; `always`: that it is on the disk, each batch with its own `fdatasync`, and what is in doubt is written again |
///
/// A message stands in one file whole, or not at all: what a full disk has cut short is taken off again, and a file
/// that a crash left in the middle of a message is set aside before anything follows it. If somebody else moves the
/// file away, a new one is begun. Several clients of one process may share a file, as the cores of a broker do. Reading and
/// writing happen on a thread of their own.
///
/// ```
/// use corelay::forward::{Client, ClientFactory};
/// let client = ClientFactory::create("file:///var/log/orders.jsonl?envelope=json&rotate=64MiB&keep=5")?;
/// assert_eq!(client.address(), "/var/log/orders.jsonl");
/// # Ok::<(), corelay::forward::UrlError>(())
/// ```
#[derive(Debug)]
pub struct FileClient {
    address: String,
    format: Format,
    rules: Rules,
    log: Arc<Mutex<Log>>,
}

/// How the file is written.
#[derive(Clone, Copy, Debug)]
struct Rules {
    framing: Framing,
    /// The most bytes.
    rotate: u64,
    keep: u32,
    sync: bool,
}

/// A file, for all clients of this process that write to it: one's truncating or setting aside is no other's surprise.
#[derive(Debug)]
struct Log {
    path: PathBuf,
    open: Option<Open>,
}

static LOGS: ByPath<Log> = ByPath::new();

#[derive(Debug)]
struct Open {
    file: File,
    len: u64,
    /// Device and inode, to see whether it's still the one at the path.
    identity: (u64, u64),
}

impl FileClient {
    /// One message a line, never rotated.
    #[must_use]
    pub fn new(path: impl AsRef<Path>) -> FileClient {
        let format = Format { framing: Framing::Lines, envelope: false };
        FileClient::with(path.as_ref(), format, None, 5, false)
    }

    fn with(path: &Path, format: Format, rotate: Option<u64>, keep: u32, sync: bool) -> FileClient {
        let rules = Rules { framing: format.framing, rotate: rotate.unwrap_or(u64::MAX), keep, sync };
        let log = LOGS.get(path, || Log { path: path.to_owned(), open: None });
        FileClient { address: path.display().to_string(), format, rules, log }
    }

    pub(in crate::forward) fn from_url(mut url: Url) -> Result<FileClient, UrlError> {
        url.without_login()?;
        let path = url.file_path()?;
        let format = Format::from_url(&mut url, Framing::Lines)?;
        let rotate = url.size("rotate")?;
        let keep =
            url.read("keep", "a number from 0 to 1000", |text| text.parse().ok().filter(|&n: &u32| n <= 1000))?;
        let sync = url.choice("sync", &[("never", false), ("always", true)], false)?;
        url.finish()?;
        Ok(FileClient::with(&path, format, rotate, keep.unwrap_or(5), sync))
    }

    async fn append(&self, messages: &[Message]) -> Done {
        let encoded = Encoded::new(self.format, messages);
        if encoded.ends.is_empty() {
            return Done { delivered: 0, error: encoded.error };
        }
        let (log, rules) = (Arc::clone(&self.log), self.rules);
        let appended = tokio::task::spawn_blocking(move || {
            let (delivered, error) = log.lock().unwrap_or_else(PoisonError::into_inner).append(&encoded, rules);
            (delivered, error.or(encoded.error))
        });
        match appended.await {
            Ok((delivered, error)) => Done { delivered, error },
            Err(error) => {
                let error = SendError::new(SendErrorKind::Unavailable, error.to_string()).in_doubt();
                Done { delivered: 0, error: Some(error) }
            }
        }
    }
}

fn unavailable(what: &str, error: &io::Error) -> SendError {
    SendError::new(SendErrorKind::Unavailable, format!("{what}: {error}"))
}

impl Log {
    /// As many as can be: so many, and why not more.
    fn append(&mut self, encoded: &Encoded, rules: Rules) -> (usize, Option<SendError>) {
        let mut delivered = 0;
        while delivered < encoded.ends.len() {
            match self.append_some(encoded, delivered, rules) {
                Ok(upto) => delivered = upto,
                Err(error) => return (delivered, Some(error)),
            }
        }
        (delivered, None)
    }

    /// Those from here that fit into the file as it is, or at least one into a new one.
    fn append_some(&mut self, encoded: &Encoded, from: usize, rules: Rules) -> Result<usize, SendError> {
        let start = from.checked_sub(1).map_or(0, |last| encoded.ends[last]);
        let mut open = self.ready(rules).map_err(|error| unavailable("open", &error))?;
        let first = (encoded.ends[from] - start) as u64;
        if open.len > 0 && open.len.saturating_add(first) > rules.rotate {
            drop(open);
            self.set_aside(rules.keep).map_err(|error| unavailable("rotate", &error))?;
            open = self.ready(rules).map_err(|error| unavailable("open", &error))?;
        }
        let room = rules.rotate.saturating_sub(open.len);
        let fits = encoded.ends.partition_point(|end| end.saturating_sub(start) as u64 <= room);
        let upto = fits.max(from + 1);
        let bytes = &encoded.bytes[start..encoded.ends[upto - 1]];
        if let Err(error) = open.file.write_all(bytes) {
            let error = unavailable("write", &error);
            // what of it was written is taken off; if even that fails, the file is looked over when it's opened again
            return Err(match open.file.set_len(open.len) {
                Ok(()) => {
                    self.open = Some(open);
                    error
                }
                Err(_) => error.in_doubt(),
            });
        }
        open.len += bytes.len() as u64;
        if rules.sync
            && let Err(error) = open.file.sync_data()
        {
            // nobody knows what of it is on the disk, and the kernel will not say it twice
            return Err(unavailable("sync", &error).in_doubt());
        }
        self.open = Some(open);
        Ok(upto)
    }

    /// The file at the path, to be put back by whoever has written to it without trouble.
    fn ready(&mut self, rules: Rules) -> io::Result<Open> {
        let identity = fs::metadata(&self.path).map(|metadata| (metadata.dev(), metadata.ino())).ok();
        if let Some(open) = self.open.take()
            && identity == Some(open.identity)
        {
            return Ok(open);
        }
        if identity.is_some() && !is_whole(&self.path, rules.framing)? {
            tracing::warn!(file = %self.path.display(), "ends in the middle of a message: set aside");
            self.set_aside(rules.keep)?;
        }
        let file = OpenOptions::new().create(true).append(true).open(&self.path)?;
        let metadata = file.metadata()?;
        Ok(Open { file, len: metadata.len(), identity: (metadata.dev(), metadata.ino()) })
    }

    fn set_aside(&mut self, keep: u32) -> io::Result<()> {
        self.open = None;
        if keep == 0 {
            return fs::remove_file(&self.path);
        }
        for n in (1..keep).rev() {
            match fs::rename(self.numbered(n), self.numbered(n + 1)) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
        fs::rename(&self.path, self.numbered(1))
    }

    fn numbered(&self, n: u32) -> PathBuf {
        let mut name = self.path.clone().into_os_string();
        name.push(format!(".{n}"));
        name.into()
    }
}

/// Whether the next message can follow what is in the file.
fn is_whole(path: &Path, framing: Framing) -> io::Result<bool> {
    let file = File::open(path)?;
    let metadata = file.metadata()?;
    if !metadata.is_file() || metadata.len() == 0 {
        return Ok(true);
    }
    match framing {
        Framing::Raw => Ok(true),
        Framing::Lines => ends_a_line(path),
        Framing::Len32 => {
            let (mut reader, mut at) = (BufReader::new(file), 0_u64);
            while at < metadata.len() {
                let mut len = [0; 4];
                match reader.read_exact(&mut len) {
                    Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(false),
                    other => other?,
                }
                let len = i64::from(u32::from_be_bytes(len));
                reader.seek_relative(len)?;
                at += 4 + len as u64;
            }
            Ok(at == metadata.len())
        }
    }
}

impl Client for FileClient {
    fn protocol_name(&self) -> &str {
        "file"
    }

    fn address(&self) -> &str {
        &self.address
    }

    fn send<'a>(&'a self, message: &'a Message) -> SendFuture<'a> {
        Box::pin(async move { self.append(std::slice::from_ref(message)).await.into_result() })
    }

    fn send_batch<'a>(&'a self, messages: &'a [Message]) -> BatchFuture<'a> {
        Box::pin(self.append(messages))
    }

    fn promise(&self) -> Promise {
        if self.rules.sync { Promise::AtLeastOnce } else { Promise::AtMostOnce }
    }

    fn takes(&self) -> Takes {
        Takes { max_body: None, parts: self.format.takes_parts() }
    }

    fn probe(&self) -> SendFuture<'_> {
        Box::pin(async {
            let (log, rules) = (Arc::clone(&self.log), self.rules);
            let opened = tokio::task::spawn_blocking(move || {
                let mut log = log.lock().unwrap_or_else(PoisonError::into_inner);
                let open = log.ready(rules)?;
                log.open = Some(open);
                Ok::<_, io::Error>(())
            });
            let opened = opened.await.map_err(io::Error::other).and_then(|opened| opened);
            opened.map_err(|error| unavailable("open", &error))
        })
    }

    fn close(&self) -> clients::Closing<'_> {
        Box::pin(async {
            let log = Arc::clone(&self.log);
            // a write that was cut short may still be at it
            let closed = tokio::task::spawn_blocking(move || {
                log.lock().unwrap_or_else(PoisonError::into_inner).open = None;
            });
            let _ = closed.await;
        })
    }
}
