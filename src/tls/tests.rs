//! Sessions against a client of rustls' own, in memory: any way to cut the bytes up comes to the same.

#[path = "../../tests/it/pki.rs"]
#[allow(dead_code, unreachable_pub)]
mod pki;

use std::path::Path;
use std::sync::Arc;

use proptest::prelude::*;
use rcgen::SanType;
use rustls::pki_types::ServerName;
use rustls::version::{TLS12, TLS13};
use rustls::{ClientConfig, ClientConnection, ServerConfig, SupportedProtocolVersion};

use self::pki::Pki;
use super::*;
use crate::base::{Batch, Leases, Piece, Segment};

/// Bytes of a full record.
const RECORD: usize = 16 << 10;

struct NoLeases;
impl Leases for NoLeases {
    fn bytes(&self, _: Piece) -> &[u8] {
        b"a piece of a leased buffer"
    }
    fn retain(&self, _: Piece) {}
    fn release(&self, _: Piece) {}
}

fn options(pki: &Pki) -> TlsOptions {
    let (cert, key) = pki.server("server");
    TlsOptions { cert: Some(cert), key: Some(key), ..TlsOptions::default() }
}

fn server(pki: &Pki) -> Arc<ServerConfig> {
    Acceptor::new(&options(pki), &[ALPN]).unwrap().config()
}

fn client(pki: &Pki) -> ClientConnection {
    client_of(pki, &TLS13)
}

fn client_of(pki: &Pki, version: &'static SupportedProtocolVersion) -> ClientConnection {
    let ring = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(ring).with_protocol_versions(&[version]).unwrap();
    let mut config = builder.with_root_certificates(roots(&pki.ca()).unwrap()).with_no_client_auth();
    config.alpn_protocols = vec![ALPN.to_vec()];
    ClientConnection::new(Arc::new(config), ServerName::try_from("localhost").unwrap()).unwrap()
}

fn batch(bytes: &[u8]) -> Batch {
    Batch { staged: bytes.to_vec(), total: bytes.len(), ..Batch::default() }
}

/// Noise that no shift of itself resembles.
fn noise(len: usize) -> Vec<u8> {
    let mut random = fastrand::Rng::with_seed(7);
    std::iter::repeat_with(|| random.u8(..)).take(len).collect()
}

/// What a client has to send.
fn outgoing(client: &mut ClientConnection) -> Vec<u8> {
    let mut bytes = Vec::new();
    while client.wants_write() {
        client.write_tls(&mut bytes).unwrap();
    }
    bytes
}

/// What a session has to send, as if the kernel took it at once; with what of sealed bytes has left.
fn flush(session: &mut Session, bench: &mut Bench) -> (Vec<u8>, usize) {
    let (mut bytes, mut left) = (Vec::new(), 0);
    while let Some(mut batch) = session.next_batch(bench) {
        batch.for_each_unsent(&NoLeases, |part| bytes.extend_from_slice(part));
        batch.sent = batch.total;
        left += session.returned(batch, bench);
    }
    (bytes, left)
}

/// Gives a client bytes; what it reads is appended.
fn show(client: &mut ClientConnection, mut bytes: &[u8], read: &mut Vec<u8>) {
    use std::io::Read;
    while !bytes.is_empty() {
        client.read_tls(&mut bytes).unwrap();
        client.process_new_packets().unwrap();
        // ends with WouldBlock, or at close_notify
        let _ = client.reader().read_to_end(read);
    }
}

/// A session whose handshake is over.
fn open(pki: &Pki) -> (Session, ClientConnection, Bench) {
    shake(server(pki), client(pki))
}

fn shake(config: Arc<ServerConfig>, mut client: ClientConnection) -> (Session, ClientConnection, Bench) {
    let (mut session, mut bench) = (Session::new(config).unwrap(), Bench::default());
    while client.is_handshaking() || !session.is_open() {
        let bytes = outgoing(&mut client);
        session.receive(&bytes, &mut bench, |_| ()).unwrap();
        let (bytes, _) = flush(&mut session, &mut bench);
        show(&mut client, &bytes, &mut Vec::new());
    }
    (session, client, bench)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    /// However the ciphertext is cut up, the bytes come through whole and in order, both ways.
    #[test]
    fn any_cut_comes_to_the_same(seed: u64, longest in prop::sample::select(vec![1usize, 7, 600, 40_000])) {
        let pki = Pki::new();
        let mut random = fastrand::Rng::with_seed(seed);
        let data = noise(if longest == 1 { 20_000 } else { 120_000 });
        let (mut session, mut client, mut bench) = (Session::new(server(&pki)).unwrap(), client(&pki), Bench::default());
        let (mut up, mut down, mut opened) = (Vec::new(), Vec::new(), 0);
        let (mut sent, mut answered, mut left) = (0, 0, 0);
        while up.len() < data.len() || down.len() < data.len() {
            if !client.is_handshaking() && sent < data.len() {
                use std::io::Write;
                sent += client.writer().write(&data[sent..]).unwrap();
            }
            let bytes = outgoing(&mut client);
            let mut rest = bytes.as_slice();
            while !rest.is_empty() {
                let (piece, later) = rest.split_at(random.usize(1..=longest.min(rest.len())));
                session.receive(piece, &mut bench, |news| match news {
                    News::Open { identity, resumed } => {
                        assert!(up.is_empty() && identity.is_none() && !resumed);
                        opened += 1;
                    }
                    News::Bytes(bytes) => up.extend_from_slice(bytes),
                    News::Closed => panic!("it was not closed"),
                }).unwrap();
                rest = later;
            }
            if session.is_open() && answered < data.len() {
                let n = random.usize(1..=50_000).min(data.len() - answered);
                session.seal(&batch(&data[answered..answered + n]), &NoLeases, &mut bench).unwrap();
                answered += n;
            }
            let (bytes, gone) = flush(&mut session, &mut bench);
            left += gone;
            show(&mut client, &bytes, &mut down);
        }
        prop_assert!(up == data && down == data && opened == 1);
        prop_assert_eq!((left, session.unsent()), (data.len(), 0));
    }

    /// Whatever comes instead of a handshake: no panic, and nothing is taken for bytes of a peer.
    #[test]
    fn strangers_bytes_are_harmless(bytes: Vec<u8>, at: prop::sample::Index, keep: bool) {
        let pki = Pki::new();
        let mut hello = outgoing(&mut client(&pki));
        if keep {
            let at = at.index(hello.len());
            hello.splice(at..(at + bytes.len()).min(hello.len()), bytes.iter().copied());
        } else {
            hello = bytes;
        }
        let _ = feed(server(&pki), hello.chunks(1 + at.index(64)), |_| panic!("nobody has proven anything"));
    }
}

#[test]
fn bytes_count_as_gone_with_the_whole_record_they_are_in() {
    let pki = Pki::new();
    let (mut session, mut client, mut bench) = open(&pki);
    let data = noise(3 * RECORD + 100);
    let plain = Batch {
        control: data[..24].to_vec(),
        staged: data[24..].to_vec(),
        segments: vec![Segment::Staged { len: (data.len() - 24) as u32 }],
        total: data.len(),
        sent: 0,
    };
    session.seal(&plain, &NoLeases, &mut bench).unwrap();
    let mut out = session.next_batch(&mut bench).unwrap();
    assert!(session.next_batch(&mut bench).is_none(), "one at a time");
    let record = (out.total - (100 + 22)) / 3;
    let mut seen = Vec::new();
    let mut wire = Vec::new();
    for (to, expected) in
        [(1, 0), (record - 1, 0), (record, RECORD), (2 * record + 5, RECORD), (out.total, RECORD + 100)]
    {
        let mut now = Vec::new();
        out.for_each_unsent(&NoLeases, |part| now.extend_from_slice(part));
        wire.extend_from_slice(&now[..to - out.sent]);
        out.sent = to;
        let whole = out.remaining() == 0;
        assert_eq!(session.returned(out, &mut bench), expected, "of {to} bytes");
        assert_eq!(session.is_blocked(), !whole);
        if whole {
            break;
        }
        // more is sealed behind it, and waits
        assert!(session.next_batch(&mut bench).is_none(), "the socket is full");
        session.unblock();
        out = session.next_batch(&mut bench).unwrap();
    }
    show(&mut client, &wire, &mut seen);
    assert!(seen == data);
    assert!(!session.has_output());
}

#[test]
fn leased_and_heap_bytes_are_sealed_in_order() {
    let pki = Pki::new();
    let (mut session, mut client, mut bench) = open(&pki);
    let piece = Piece { buffer: 0, generation: 0, offset: 0, len: 26 };
    let segments =
        vec![Segment::Lease(piece), Segment::Staged { len: 2 }, Segment::Heap { chunk: b"xheap".to_vec(), offset: 1 }];
    let plain = Batch { control: b"c".to_vec(), staged: b"st".to_vec(), segments, total: 1 + 26 + 2 + 4, sent: 0 };
    session.seal(&plain, &NoLeases, &mut bench).unwrap();
    let (bytes, left) = flush(&mut session, &mut bench);
    let mut seen = Vec::new();
    show(&mut client, &bytes, &mut seen);
    assert_eq!((seen.as_slice(), left), (&b"ca piece of a leased bufferstheap"[..], 33));
}

#[test]
fn a_changed_record_ends_the_session_and_shows_nothing() {
    use std::io::Write;
    let pki = Pki::new();
    let (mut session, mut client, mut bench) = open(&pki);
    client.writer().write_all(b"genuine").unwrap();
    let mut bytes = outgoing(&mut client);
    let first = bytes.len();
    client.writer().write_all(b"and changed on its way").unwrap();
    bytes.extend(outgoing(&mut client));
    bytes[first + 9] ^= 1;
    let mut seen = Vec::new();
    let result = session.receive(&bytes, &mut bench, |news| {
        if let News::Bytes(bytes) = news {
            seen.extend_from_slice(bytes);
        }
    });
    assert_eq!((result, seen.as_slice()), (Err(Fault::Peer(rustls::Error::DecryptError)), &b"genuine"[..]));
    let (alert, _) = flush(&mut session, &mut bench);
    assert!(!alert.is_empty(), "the peer is told");
    assert!(session.receive(b"more", &mut bench, |_| panic!("it has ended")).is_err());
}

#[test]
fn who_speaks_no_tls_is_told_in_its_language() {
    let pki = Pki::new();
    let (mut session, mut bench) = (Session::new(server(&pki)).unwrap(), Bench::default());
    let hello = b"GET / HTTP/1.1\r\nHost: broker\r\n\r\n";
    assert!(matches!(session.receive(hello, &mut bench, |_| ()), Err(Fault::Peer(_))));
    // fatal alert, in plain: its record has 7 bytes
    let (alert, _) = flush(&mut session, &mut bench);
    assert_eq!((alert.len(), alert[0]), (7, 21));
}

#[test]
fn a_handshake_is_bounded() {
    let pki = Pki::new();
    // handshake records of a message that claims 64 KiB, and goes on
    let mut record = vec![22, 3, 1, 0x20, 0];
    record.extend([1, 0, 0xff, 0xff]);
    record.resize(5 + 0x2000, 0);
    let more: Vec<u8> = [vec![22, 3, 1, 0x20, 0], vec![0; 0x2000]].concat();
    let pieces: Vec<&[u8]> =
        std::iter::once(record.as_slice()).chain(std::iter::repeat_n(more.as_slice(), 7)).collect();
    assert_eq!(feed(server(&pki), pieces, |_| panic!("nothing was said")), Err(Fault::TooLong));
    let mut session = Session::new(server(&pki)).unwrap();
    assert_eq!(session.hold(&vec![0; MAX_HANDSHAKE]), Ok(()));
    assert_eq!(session.hold(&[0]), Err(Fault::TooLong));
}

#[test]
fn the_end_is_said_and_heard() {
    let pki = Pki::new();
    let (mut session, mut client, mut bench) = open(&pki);
    client.send_close_notify();
    let mut heard = 0;
    session.receive(&outgoing(&mut client), &mut bench, |news| heard += u32::from(news == News::Closed)).unwrap();
    assert!(heard == 1 && !session.is_cut_short());
    session.seal(&batch(b"last words"), &NoLeases, &mut bench).unwrap();
    session.close_notify();
    session.close_notify();
    let (bytes, left) = flush(&mut session, &mut bench);
    let mut seen = Vec::new();
    show(&mut client, &bytes, &mut seen);
    let state = client.process_new_packets().unwrap();
    assert_eq!((seen.as_slice(), left, state.peer_has_closed()), (&b"last words"[..], 10, true));
}

#[test]
fn behind_its_own_close_the_broker_reads_nothing() {
    use std::io::Write;
    let pki = Pki::new();
    let (mut session, mut client, mut bench) = open(&pki);
    session.close_notify();
    client.writer().write_all(b"too late").unwrap();
    for bytes in [outgoing(&mut client), noise(100), vec![23, 3, 3, 0, 1, 0]] {
        session.receive(&bytes, &mut bench, |_| panic!("nobody waits for it")).unwrap();
    }
    assert_eq!(session.held(), 0);
    let (bytes, _) = flush(&mut session, &mut bench);
    show(&mut client, &bytes, &mut Vec::new());
    assert!(client.process_new_packets().unwrap().peer_has_closed());
}

#[test]
fn the_version_before_is_served_by_option_alone() {
    let pki = Pki::new();
    let options = options(&pki);
    let config = Acceptor::new(&TlsOptions { tls12: true, ..options.clone() }, &[ALPN]).unwrap().config();
    let (mut session, mut client, mut bench) = shake(config, client_of(&pki, &TLS12));
    let data = noise(40_000);
    session.seal(&batch(&data), &NoLeases, &mut bench).unwrap();
    let (bytes, left) = flush(&mut session, &mut bench);
    let mut seen = Vec::new();
    show(&mut client, &bytes, &mut seen);
    assert!(seen == data && left == data.len());
    let config = Acceptor::new(&options, &[ALPN]).unwrap().config();
    let hello = outgoing(&mut client_of(&pki, &TLS12));
    assert!(feed(config, [hello.as_slice()], |_| panic!("it is too old")).is_err());
}

#[test]
fn keys_are_renewed_on_the_way() {
    use std::io::Write;
    let pki = Pki::new();
    let (mut session, mut client, mut bench) = open(&pki);
    let (mut up, mut down) = (Vec::new(), Vec::new());
    for n in 0..5u8 {
        client.refresh_traffic_keys().unwrap();
        client.writer().write_all(&[n]).unwrap();
        let told = |news: News<'_>| {
            if let News::Bytes(bytes) = news {
                up.extend_from_slice(bytes)
            }
        };
        session.receive(&outgoing(&mut client), &mut bench, told).unwrap();
        session.seal(&batch(&[n]), &NoLeases, &mut bench).unwrap();
        let (bytes, left) = flush(&mut session, &mut bench);
        assert_eq!(left, 1);
        show(&mut client, &bytes, &mut down);
    }
    assert_eq!((up.as_slice(), down.as_slice()), (&[0, 1, 2, 3, 4][..], &[0, 1, 2, 3, 4][..]));
}

#[test]
fn nothing_is_sealed_before_the_handshake_is_over() {
    let pki = Pki::new();
    let (mut session, mut bench) = (Session::new(server(&pki)).unwrap(), Bench::default());
    assert_eq!(session.seal(&batch(b"x"), &NoLeases, &mut bench), Err(Fault::CannotEncrypt));
    session.close_notify();
    assert!(!session.has_output());
}

#[test]
fn a_name_is_taken_from_where_it_is_most_deliberate() {
    let pki = Pki::new();
    let uri = || SanType::URI("spiffe://prod/orders".try_into().unwrap());
    let dns = || SanType::DnsName("orders.example".try_into().unwrap());
    let mail = || SanType::Rfc822Name("orders@example".try_into().unwrap());
    for (names, expected) in [
        (vec![mail(), dns(), uri()], Some("spiffe://prod/orders")),
        (vec![mail(), dns()], Some("orders.example")),
        (vec![mail()], Some("orders@example")),
        (vec![], Some("common")),
    ] {
        let (cert, _) = pki.issue("c", "common", names, |_| ());
        assert_eq!(identity(&certificates(&cert).unwrap()[0]).as_deref(), expected);
    }
    for bad in ["", "with\nbreak", &"x".repeat(256)] {
        let (cert, _) = pki.issue("c", bad, vec![], |_| ());
        assert_eq!(identity(&certificates(&cert).unwrap()[0]), None, "{bad:?}");
    }
    assert_eq!(identity(b"no certificate"), None);
}

#[test]
fn errors_say_which_file_and_what_to_do() {
    let pki = Pki::new();
    let good = options(&pki);
    let (_, other_key) = pki.client("other");
    let empty = pki.path("empty.pem");
    std::fs::write(&empty, "nothing\n").unwrap();
    let said = |options: TlsOptions| Acceptor::new(&options, &[ALPN]).unwrap_err().to_string();
    let missing = Some(pki.path("missing.pem"));
    for (options, words) in [
        (TlsOptions { cert: missing.clone(), ..good.clone() }, ["certificate", "missing.pem", "check the path"]),
        (TlsOptions { key: missing.clone(), ..good.clone() }, ["private key", "missing.pem", "check the path"]),
        (TlsOptions { client_ca: missing, ..good.clone() }, ["CA certificate", "missing.pem", "check the path"]),
        (TlsOptions { cert: Some(empty.clone()), ..good.clone() }, ["no certificate", "empty.pem", "BEGIN CERT"]),
        (TlsOptions { key: Some(empty), ..good.clone() }, ["no private key", "empty.pem", "openssl"]),
        (TlsOptions { key: good.cert.clone(), ..good.clone() }, ["no private key", "server.pem", "openssl"]),
        (TlsOptions { key: Some(other_key), ..good.clone() }, ["is not the one", "other.key", "one pair"]),
        (TlsOptions { key: None, ..good.clone() }, ["tls.key", "tls://", "PEM"]),
    ] {
        let text = said(options);
        assert!(words.iter().all(|word| text.contains(word)), "{text}: {words:?}");
    }
}

#[test]
fn a_bad_reload_changes_nothing_and_a_good_one_all() {
    let pki = Pki::new();
    let options = options(&pki);
    let acceptor = Acceptor::new(&options, &[ALPN]).unwrap();
    let before = acceptor.config();
    let cert = options.cert.clone().unwrap();
    let text = std::fs::read(&cert).unwrap();
    std::fs::write(&cert, "half of a fi").unwrap();
    assert!(acceptor.reload().is_err());
    assert!(Arc::ptr_eq(&before, &acceptor.config()));
    std::fs::write(&cert, text).unwrap();
    acceptor.reload().unwrap();
    assert!(!Arc::ptr_eq(&before, &acceptor.config()));
    let other = TlsOptions { client_ca: Some(pki.ca()), ..options };
    acceptor.reload_from(&other).unwrap();
    assert_eq!(acceptor.options(), other);
    assert!(certificates(Path::new("/nowhere")).is_err());
}
