//! Messages larger than one may be: in parts where the target can be told so, else not at all, and counted.

use tokio::io::AsyncWriteExt;

use super::*;

fn in_parts_of(max_message: usize, options: ServerOptions) -> ServerOptions {
    ServerOptions { forward: ForwardOptions { max_message, ..ForwardOptions::default() }, ..options }
}

#[test]
fn parts_of_a_request_that_never_ended_are_followed_by_a_mark() {
    everywhere(async |options| {
        let gate = Gate::open();
        let server = serve(in_parts_of(1_000, options), ProducerOptions { what: What::Request, ..to("gate") }, &gate);
        let (addr, inspector) = (server.addr().to_string(), server.inspector());
        let provider = Provider::connect(addr.as_str(), "ch", 4).await.unwrap();
        let consumer = Consumer::connect(addr.as_str(), "ch").await.unwrap();
        let (mut writer, body) = tokio::io::duplex(10_000);
        let sending = tokio::spawn({
            let consumer = consumer.clone();
            async move { consumer.send(Body::reader(body), SOON).await.map(|_| ()) }
        });
        writer.write_all(&[b'x'; 2_500]).await.unwrap();
        eventually("two parts", || gate.got().len() == 2).await;
        sending.abort();
        consumer.close().await;
        eventually("the abort to be counted", || counts(&inspector, DropReason::Aborted)[2] == 1).await;
        drop(provider);
        tokio::task::spawn_blocking(|| server.stop().unwrap()).await.unwrap();
        let got = gate.got();
        let parts: Vec<_> = got.iter().map(|message| (message.part, message.body.len())).collect();
        let chunk = |sequence| (Part::Chunk { sequence, last: false }, 1_000);
        assert_eq!(parts, [chunk(0), chunk(1), (Part::Aborted { sequence: 2 }, 0)]);
        assert!(got.iter().all(|message| (message.key, message.id) == (got[0].key, got[0].id)));
        assert_eq!(counts(&inspector, DropReason::Aborted), [1, 0, 1, 1, 0]);
    });
}

#[test]
fn what_a_target_cannot_be_told_to_be_a_part_is_skipped() {
    everywhere(async |options| {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("out");
        let lines = ProducerOptions::new("lines", format!("file://{}", file.display()));
        let options = ServerOptions { producers: vec![lines], ..in_parts_of(1_000, options) };
        let server = Server::start(options).unwrap();
        let (addr, inspector) = (server.addr().to_string(), server.inspector());
        let consumer = Consumer::connect(addr.as_str(), "ch").await.unwrap();
        for len in [1_000, 1_001, 5_000, 10] {
            consumer.publish("x".repeat(len), SOON).await.unwrap();
        }
        tokio::task::spawn_blocking(|| server.stop().unwrap()).await.unwrap();
        let lengths: Vec<_> = std::fs::read_to_string(&file).unwrap().lines().map(str::len).collect();
        assert_eq!(lengths, [1_000, 10]);
        assert_eq!(counts(&inspector, DropReason::Skipped), [4, 2, 2, 2, 0]);
    });
}
