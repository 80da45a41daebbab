//! The file for messages that are given up.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use super::one_file::ByPath;
use super::{DropReason, Message, envelope};

/// Appends [envelopes](envelope) with a `reason`, one a line. The file is opened at the first one; producers of one
/// process may share it.
pub(super) struct DeadLetters {
    path: PathBuf,
    file: Arc<Mutex<Option<File>>>,
}

static FILES: ByPath<Option<File>> = ByPath::new();

impl DeadLetters {
    pub(super) fn new(path: PathBuf) -> DeadLetters {
        DeadLetters { file: FILES.get(&path, || None), path }
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// All of them, or none that counts: after a failure the file may end in the middle of a line, which the next
    /// letter does not continue.
    pub(super) async fn write(&self, letters: Vec<(Message, DropReason)>) -> io::Result<()> {
        let (path, file) = (self.path.clone(), Arc::clone(&self.file));
        let written = tokio::task::spawn_blocking(move || {
            let mut slot = file.lock().unwrap_or_else(PoisonError::into_inner);
            let is_new = slot.is_none();
            let mut file = match slot.take() {
                Some(file) => file,
                None => OpenOptions::new().create(true).append(true).open(&path)?,
            };
            let mut lines = Vec::new();
            if is_new && !ends_a_line(&path)? {
                lines.push(b'\n');
            }
            for (message, reason) in &letters {
                envelope::write(message, Some(reason.as_str()), &mut lines);
                lines.push(b'\n');
            }
            file.write_all(&lines)?;
            // after a failure it is opened anew: it may have been moved away, or its disk come back
            *slot = Some(file);
            Ok::<_, io::Error>(())
        });
        written.await.map_err(io::Error::other)?
    }
}

/// Whether the next line may begin: the file is empty or ends with a line's end.
pub(super) fn ends_a_line(path: &Path) -> io::Result<bool> {
    use std::io::{Read, Seek, SeekFrom};
    let mut file = File::open(path)?;
    if !file.metadata()?.is_file() || file.metadata()?.len() == 0 {
        return Ok(true);
    }
    file.seek(SeekFrom::End(-1))?;
    let mut last = [0];
    file.read_exact(&mut last)?;
    Ok(last == [b'\n'])
}
