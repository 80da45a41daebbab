//! The file for messages that are given up.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use super::{DropReason, Message, envelope};

/// Appends [envelopes](envelope) with a `reason`, one a line. The file is opened at the first one.
pub(super) struct DeadLetters {
    path: PathBuf,
    file: Option<File>,
}

impl DeadLetters {
    pub(super) fn new(path: PathBuf) -> DeadLetters {
        DeadLetters { path, file: None }
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// All of them, or none that counts: after a failure the file may end in the middle of a line, which the next
    /// letter does not continue.
    pub(super) async fn write(&mut self, letters: Vec<(Message, DropReason)>) -> io::Result<()> {
        let (path, file) = (self.path.clone(), self.file.take());
        let written = tokio::task::spawn_blocking(move || {
            let is_new = file.is_none();
            let mut file = match file {
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
            Ok::<_, io::Error>(file)
        });
        // after a failure it is opened anew: it may have been moved away, or its disk come back
        self.file = Some(written.await.map_err(io::Error::other)??);
        Ok(())
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
