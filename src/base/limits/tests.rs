use super::*;

fn refused(change: impl FnOnce(&mut Limits)) -> BadLimit {
    let mut limits = Limits::default();
    change(&mut limits);
    limits.validate().unwrap_err()
}

#[test]
fn defaults_are_valid() {
    assert_eq!(Limits::default().validate(), Ok(()));
}

#[test]
fn each_bad_limit_is_named() {
    type Change = fn(&mut Limits);
    let cases: [(&str, Change); 24] = [
        ("max_connections", |l| l.max_connections = 0),
        ("max_unauthenticated", |l| l.max_unauthenticated = 0),
        ("max_streams", |l| l.max_streams = 0),
        ("queue_requests", |l| l.queue_requests = 0),
        ("window", |l| l.window = MIN_WINDOW - 1),
        ("window", |l| l.window = MAX_CREDIT + 1),
        ("max_frame", |l| l.max_frame = MIN_MAX_FRAME - 1),
        ("max_frame", |l| l.max_frame = u32::MAX),
        ("queue_bytes", |l| l.queue_bytes = l.window as usize - 1),
        ("connection_buffer", |l| l.connection_buffer = 4095),
        ("core_buffer", |l| l.core_buffer = 600_000),
        ("core_buffer", |l| l.core_buffer = 0),
        ("handshake_timeout", |l| l.handshake_timeout = Duration::ZERO),
        ("frame_timeout", |l| l.frame_timeout = Duration::ZERO),
        ("write_timeout", |l| l.write_timeout = Duration::ZERO),
        ("write_timeout", |l| l.write_timeout = Duration::MAX),
        ("keepalive", |l| l.keepalive = Duration::from_millis(99)),
        ("keepalive", |l| l.keepalive = Duration::from_secs(50 * 86_400)),
        ("default_timeout", |l| l.default_timeout = Duration::ZERO),
        ("default_timeout", |l| l.default_timeout = l.max_timeout + Duration::from_millis(1)),
        ("max_timeout", |l| l.max_timeout = Duration::MAX),
        ("max_timeout", |l| l.max_timeout = Duration::ZERO),
        ("cancel_grace", |l| l.cancel_grace = Duration::MAX),
        ("drain_timeout", |l| l.drain_timeout = Duration::MAX),
    ];
    for (key, change) in cases {
        let bad = refused(change);
        assert_eq!(bad.key, key, "{bad}");
        assert!(bad.to_string().starts_with(&format!("limits.{key} = ")), "{bad}");
    }
}

#[test]
fn the_edges_are_valid() {
    let edges: [fn(&mut Limits); 6] = [
        |l| l.window = MIN_WINDOW,
        |l| l.max_frame = MIN_MAX_FRAME,
        |l| l.queue_bytes = l.window as usize,
        |l| l.default_timeout = l.max_timeout,
        |l| l.max_timeout = Duration::from_millis(u32::MAX.into()),
        |l| (l.cancel_grace, l.drain_timeout) = (Duration::ZERO, Duration::ZERO),
    ];
    for (index, change) in edges.into_iter().enumerate() {
        let mut limits = Limits::default();
        change(&mut limits);
        assert_eq!(limits.validate(), Ok(()), "edge {index}");
    }
}

#[test]
fn the_least_core_buffer_that_is_named_is_taken() {
    let bad = refused(|l| l.core_buffer = 1);
    let least = bad.expected.split_whitespace().nth(2).unwrap().parse().unwrap();
    let limits = Limits { core_buffer: least, ..Limits::default() };
    assert_eq!(limits.validate(), Ok(()));
}

#[test]
fn terms_of_a_core_come_once_for_each() {
    let sum = |cores| {
        Limits::default().worst_case(Layout { cores, receive_pool: 1 << 20, histograms: 1 << 20, ..Layout::default() })
    };
    let (one, four) = (sum(1), sum(4));
    let per_core: usize = one.terms.iter().filter(|t| t.share == Share::Core).map(|t| t.bytes).sum();
    let mesh = 4 * four.terms.iter().find(|t| t.name == "mesh").unwrap().bytes;
    assert_eq!(four.total(), one.total() + 3 * per_core + mesh);
}

#[test]
fn absurd_limits_saturate() {
    let limits =
        Limits { max_connections: u32::MAX, max_streams: u32::MAX, core_buffer: usize::MAX, ..Limits::default() };
    let worst =
        limits.worst_case(Layout { cores: usize::MAX, receive_pool: usize::MAX, histograms: 0, ..Layout::default() });
    assert_eq!(worst.total(), usize::MAX);
}

#[test]
fn the_table_is_readable() {
    let worst = Limits::default().worst_case(Layout {
        cores: 2,
        receive_pool: 16 << 20,
        histograms: 3 << 20,
        ..Layout::default()
    });
    insta::assert_snapshot!(worst.to_string());
    assert_eq!(worst.largest().unwrap().name, "requests under way");
}
