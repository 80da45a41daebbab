//! Files.

use std::fs;
use std::os::unix::fs::MetadataExt;

use corelay::forward::{DropReason, SendErrorKind};

use super::target::{DRAIN, len32};
use super::*;

#[test]
fn a_file_is_set_aside_when_it_is_large_and_the_oldest_goes() {
    for io in runtimes() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("out.log");
        let pool = ProducerPool::on(io);
        let producer = producer(&pool, &format!("file://{}?rotate=1000&keep=2", path.display()));
        let sent: Vec<_> = (0..100).map(|n| format!("{n:08} {}", "x".repeat(90)).into_bytes()).collect();
        for body in &sent {
            producer.offer(body.clone()).unwrap();
        }
        assert!(producer.forward_blocking("two\nlines").is_err());
        producer.forward_blocking("y".repeat(2_000)).unwrap();
        assert_eq!(producer.drain_blocking(DRAIN).left, 0);
        let mut names: Vec<_> =
            fs::read_dir(dir.path()).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        assert_eq!(names, ["out.log", "out.log.1", "out.log.2"]);
        assert_eq!(
            fs::read_to_string(&path).unwrap(),
            "y".repeat(2_000) + "\n",
            "larger than a file, and alone in one"
        );
        let kept = [fs::read(dir.path().join("out.log.2")).unwrap(), fs::read(dir.path().join("out.log.1")).unwrap()];
        assert_eq!(kept.each_ref().map(Vec::len), [1000, 1000]);
        let lines: Vec<_> =
            kept.concat().split_inclusive(|b| *b == b'\n').map(|line| line[..line.len() - 1].to_vec()).collect();
        assert_eq!(lines, sent[80..]);
        let counters = producer.snapshot().counters;
        assert_eq!((counters.forwarded, counters.dropped.get(DropReason::Rejected)), (101, 1));
        assert_balanced(&producer.snapshot());
    }
}

#[test]
fn producers_that_share_a_file_see_what_the_others_wrote() {
    for io in runtimes() {
        let dir = tempfile::tempdir().unwrap();
        let pool = ProducerPool::on(io);
        let url = format!("file://{}/out.log?rotate=1000&keep=1000", dir.path().display());
        let both = ["a", "b"].map(|id| {
            pool.add_url(id, &url).unwrap();
            pool.get(id).unwrap()
        });
        // one after the other, so that neither sees its own alone
        let sent: Vec<String> = (0..100).map(|n| format!("{n:08} {}", "x".repeat(90))).collect();
        for (n, body) in sent.iter().enumerate() {
            both[n % 2].forward_blocking(body.clone()).unwrap();
        }
        let mut arrived = Vec::new();
        for file in fs::read_dir(dir.path()).unwrap() {
            let text = fs::read_to_string(file.unwrap().path()).unwrap();
            assert_eq!(text.len(), 1000, "ten lines in each");
            arrived.extend(text.lines().map(str::to_owned));
        }
        arrived.sort();
        assert_eq!(arrived, sent);
    }
}

#[test]
fn nothing_follows_what_a_crash_cut_short() {
    for (framing, whole, torn) in
        [("lines", &b"one\n"[..], &b"one\ntw"[..]), ("len32", b"\0\0\0\x03one", b"\0\0\0\x03one\0\0\0\x09tw")]
    {
        for (before, is_torn) in [(whole, false), (torn, true)] {
            let dir = tempfile::tempdir().unwrap();
            let path = dir.path().join("out");
            fs::write(&path, before).unwrap();
            let url = format!("file://{}?framing={framing}&sync=always", path.display());
            with_client(runtimes()[0], &url, async |client| client.send(&message(b"new")).await.unwrap());
            let after = fs::read(&path).unwrap();
            let aside = fs::read(dir.path().join("out.1")).ok();
            assert_eq!(aside, is_torn.then(|| torn.to_vec()));
            assert!(after.ends_with(b"new") || after.ends_with(b"new\n"));
            assert_eq!(after.starts_with(whole), !is_torn);
            if framing == "len32" {
                assert_eq!(len32(&after).len(), if is_torn { 1 } else { 2 });
            }
        }
    }
}

#[test]
fn a_file_that_was_moved_away_is_begun_anew() {
    let dir = tempfile::tempdir().unwrap();
    let (path, moved) = (dir.path().join("out"), dir.path().join("moved"));
    with_client(runtimes()[0], &format!("file://{}", path.display()), async |client| {
        client.send(&message(b"one")).await.unwrap();
        fs::rename(&path, &moved).unwrap();
        client.send(&message(b"two")).await.unwrap();
        fs::remove_file(&path).unwrap();
        client.probe().await.unwrap();
        client.send(&message(b"three")).await.unwrap();
    });
    assert_eq!((fs::read(&moved).unwrap(), fs::read(&path).unwrap()), (b"one\n".to_vec(), b"three\n".to_vec()));
    assert_eq!(fs::metadata(&path).unwrap().nlink(), 1);
}

#[test]
fn a_full_disk_and_a_missing_directory_are_worth_another_attempt() {
    for url in ["file:///dev/full", "file:///nowhere/at/all"] {
        let error = with_client(runtimes()[0], url, async |client| client.send(&message(b"x")).await.unwrap_err());
        assert_eq!(error.kind(), SendErrorKind::Unavailable, "{error}");
    }
}
