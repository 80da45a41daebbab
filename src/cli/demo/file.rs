//! The file that is streamed.

use std::fs::{File, OpenOptions};
use std::io::{BufWriter, ErrorKind, Seek, SeekFrom, Write};
use std::path::Path;

use crate::cli::exit::Failure;
use crate::cli::text;

/// The file that is streamed, open.
#[derive(Debug)]
pub(crate) struct Source {
    file: File,
    /// Its size in bytes.
    pub(crate) len: u64,
    /// What it is, for people.
    pub(crate) name: String,
}

impl Source {
    /// A file that is there.
    pub(crate) fn open(path: &Path) -> Result<Source, Failure> {
        let name = path.display().to_string();
        let cannot = |why: String| Failure::usage(format!("cannot read {name}: {why}"));
        let file = File::open(path).map_err(|error| cannot(error.to_string()))?;
        let metadata = file.metadata().map_err(|error| cannot(error.to_string()))?;
        if !metadata.is_file() {
            return Err(cannot("it is no regular file".into()));
        }
        Ok(Source { file, len: metadata.len(), name })
    }

    /// A file of `len` random bytes in the temporary directory. Its name is removed at once: however this ends, nothing
    /// is left behind.
    pub(crate) fn make(len: u64) -> Result<Source, Failure> {
        let dir = std::env::temp_dir();
        check_room(&dir, len)?;
        let path = dir.join(format!("corelay-demo-{}", uuid::Uuid::new_v4()));
        let cannot = |error: std::io::Error| {
            let hint = match error.kind() {
                ErrorKind::StorageFull | ErrorKind::QuotaExceeded | ErrorKind::FileTooLarge => {
                    "; --size takes less, TMPDIR names another directory"
                }
                _ => "; TMPDIR names another directory",
            };
            Failure::local(format!("cannot make a file of {} in {}: {error}{hint}", text::bytes(len), dir.display()))
        };
        let file = OpenOptions::new().read(true).write(true).create_new(true).open(&path).map_err(cannot)?;
        std::fs::remove_file(&path).map_err(cannot)?;
        fill(&file, len).map_err(cannot)?;
        Ok(Source { file, len, name: "random bytes".into() })
    }

    /// The file from its start, to be read once.
    pub(crate) fn reader(&self) -> std::io::Result<tokio::fs::File> {
        let mut file = self.file.try_clone()?;
        file.seek(SeekFrom::Start(0))?;
        Ok(tokio::fs::File::from_std(file))
    }
}

/// Refuses at once what `dir` has no room for, rather than when it is full. Where that can't be told, writing tells.
fn check_room(dir: &Path, len: u64) -> Result<(), Failure> {
    let Ok(fs) = rustix::fs::statvfs(dir) else { return Ok(()) };
    let free = fs.f_bavail.saturating_mul(fs.f_frsize);
    // some file systems count no blocks at all
    if fs.f_blocks == 0 || len <= free {
        return Ok(());
    }
    let (wanted, free) = (text::bytes(len), text::bytes(free));
    Err(Failure::local(format!(
        "no room for a file of {wanted} in {}: {free} are free; --size takes less, TMPDIR names another directory",
        dir.display()
    )))
}

fn fill(file: &File, len: u64) -> std::io::Result<()> {
    let mut random = fastrand::Rng::new();
    let mut block = vec![0; 1 << 20];
    let mut out = BufWriter::with_capacity(0, file);
    let mut left = len;
    while left > 0 {
        random.fill(&mut block);
        let part = usize::try_from(left).unwrap_or(usize::MAX).min(block.len());
        out.write_all(&block[..part])?;
        left -= part as u64;
    }
    out.flush()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read;

    #[test]
    fn a_made_file_has_its_size_and_no_name() {
        let made = Source::make((1 << 20) + 17).unwrap();
        assert_eq!(made.file.metadata().unwrap().len(), made.len);
        assert_eq!(std::os::unix::fs::MetadataExt::nlink(&made.file.metadata().unwrap()), 0);
        let mut bytes = Vec::new();
        (&made.file).seek(SeekFrom::Start(0)).unwrap();
        (&made.file).read_to_end(&mut bytes).unwrap();
        assert!(bytes[..1000].iter().any(|&byte| byte != 0));
    }

    #[test]
    fn a_file_without_room_is_refused_before_it_is_made() {
        let refused = Source::make(u64::MAX).unwrap_err();
        assert_eq!(refused.code, 10);
        assert!(refused.text.unwrap().contains(" are free"));
    }

    #[test]
    fn what_is_no_file_is_refused() {
        assert_eq!(Source::open(Path::new("/no/such/file")).unwrap_err().code, 2);
        assert_eq!(Source::open(Path::new("/")).unwrap_err().code, 2);
    }
}
