//! Every frame in every state of a stream (§3), from either role, against a table written from the protocol page.
//!
//! Cells: `ok`: taken or ignored, and the connection goes on; a code in capitals: the connection ends with it;
//! `closes`: the connection ends without ERROR; `=X`: the connection goes on, and X comes back.

use corelay::base::limits::Limits;
use corelay::protocol::{Code, FrameType, Header};

use crate::wire::*;

/// What a consumer sends on stream 1. `half`: it has sent END. `early`: answered before its END. `cancelled`: by it,
/// and the terminal frame has come. `refused`: by OVERLOADED, before its END. `before`: before WELCOME.
const CONSUMER: &str = "
            idle      open        half        early     cancelled  refused   zero      before
  HELLO     PROTOCOL  PROTOCOL    PROTOCOL    PROTOCOL  PROTOCOL   PROTOCOL  PROTOCOL  PROTOCOL
  WELCOME   PROTOCOL  PROTOCOL    PROTOCOL    PROTOCOL  PROTOCOL   PROTOCOL  PROTOCOL  PROTOCOL
  REQUEST   ok        PROTOCOL    PROTOCOL    PROTOCOL  ok         PROTOCOL  PROTOCOL  PROTOCOL
  RESPONSE  PROTOCOL  PROTOCOL    PROTOCOL    PROTOCOL  PROTOCOL   PROTOCOL  PROTOCOL  PROTOCOL
  DATA      PROTOCOL  ok          PROTOCOL    ok        PROTOCOL   ok        PROTOCOL  PROTOCOL
  DATA+END  PROTOCOL  ok          PROTOCOL    ok        PROTOCOL   ok        PROTOCOL  PROTOCOL
  ERROR     PROTOCOL  PROTOCOL    PROTOCOL    PROTOCOL  PROTOCOL   PROTOCOL  closes    PROTOCOL
  CANCEL    ok        =CANCELLED  =CANCELLED  ok        ok         ok        PROTOCOL  PROTOCOL
  CREDIT    ok        ok          ok          ok        ok         ok        PROTOCOL  PROTOCOL
  CREDIT0   FLOW_CONTROL FLOW_CONTROL FLOW_CONTROL FLOW_CONTROL FLOW_CONTROL FLOW_CONTROL PROTOCOL PROTOCOL
  PING      PROTOCOL  PROTOCOL    PROTOCOL    PROTOCOL  PROTOCOL   PROTOCOL  =PONG     PROTOCOL
  PONG      PROTOCOL  PROTOCOL    PROTOCOL    PROTOCOL  PROTOCOL   PROTOCOL  ok        PROTOCOL
  GOAWAY    PROTOCOL  PROTOCOL    PROTOCOL    PROTOCOL  PROTOCOL   PROTOCOL  closes    PROTOCOL
  EXTENSION ok        ok          ok          ok        ok         ok        ok        PROTOCOL
  UNKNOWN   PROTOCOL  PROTOCOL    PROTOCOL    PROTOCOL  PROTOCOL   PROTOCOL  PROTOCOL  PROTOCOL
";

/// What a provider sends on the stream of a request. `half`: the request has ended. `begun`: RESPONSE was sent.
/// `early`: answered before the request has ended, and CANCEL has come. `cancelled`: CANCEL has come, its terminal
/// frame is due. `overdue`: for longer than cancel_grace.
const PROVIDER: &str = "
            idle      open      half      begun     early     cancelled overdue   zero      before
  HELLO     PROTOCOL  PROTOCOL  PROTOCOL  PROTOCOL  PROTOCOL  PROTOCOL  PROTOCOL  PROTOCOL  PROTOCOL
  WELCOME   PROTOCOL  PROTOCOL  PROTOCOL  PROTOCOL  PROTOCOL  PROTOCOL  PROTOCOL  PROTOCOL  PROTOCOL
  REQUEST   PROTOCOL  PROTOCOL  PROTOCOL  PROTOCOL  PROTOCOL  PROTOCOL  PROTOCOL  PROTOCOL  PROTOCOL
  RESPONSE  PROTOCOL  ok        ok        PROTOCOL  PROTOCOL  ok        ok        PROTOCOL  PROTOCOL
  RESPONSE+END PROTOCOL =CANCEL ok        PROTOCOL  PROTOCOL  ok        ok        PROTOCOL  PROTOCOL
  DATA      PROTOCOL  PROTOCOL  PROTOCOL  ok        PROTOCOL  PROTOCOL  PROTOCOL  PROTOCOL  PROTOCOL
  DATA+END  PROTOCOL  PROTOCOL  PROTOCOL  ok        PROTOCOL  PROTOCOL  PROTOCOL  PROTOCOL  PROTOCOL
  ERROR     PROTOCOL  =CANCEL   ok        ok        PROTOCOL  ok        ok        closes    PROTOCOL
  CANCEL    PROTOCOL  PROTOCOL  PROTOCOL  PROTOCOL  PROTOCOL  PROTOCOL  PROTOCOL  PROTOCOL  PROTOCOL
  CREDIT    ok        ok        ok        ok        ok        ok        ok        PROTOCOL  PROTOCOL
  CREDIT0   FLOW_CONTROL FLOW_CONTROL FLOW_CONTROL FLOW_CONTROL FLOW_CONTROL FLOW_CONTROL FLOW_CONTROL PROTOCOL PROTOCOL
  PING      PROTOCOL  PROTOCOL  PROTOCOL  PROTOCOL  PROTOCOL  PROTOCOL  PROTOCOL  =PONG     PROTOCOL
  PONG      PROTOCOL  PROTOCOL  PROTOCOL  PROTOCOL  PROTOCOL  PROTOCOL  PROTOCOL  ok        PROTOCOL
  GOAWAY    PROTOCOL  PROTOCOL  PROTOCOL  PROTOCOL  PROTOCOL  PROTOCOL  PROTOCOL  closes    PROTOCOL
  EXTENSION ok        ok        ok        ok        ok        ok        ok        ok        PROTOCOL
  UNKNOWN   PROTOCOL  PROTOCOL  PROTOCOL  PROTOCOL  PROTOCOL  PROTOCOL  PROTOCOL  PROTOCOL  PROTOCOL
";

fn frame(name: &str, stream: u32) -> Frame {
    let plain = |kind| raw(Header::new(kind, stream));
    match name {
        "HELLO" => plain(FrameType::Hello),
        "WELCOME" => plain(FrameType::Welcome),
        "REQUEST" => request(stream).body("q"),
        "RESPONSE" => response(stream).body("r"),
        "RESPONSE+END" => response(stream).body("r").end(),
        "DATA" => data(stream).body("d"),
        "DATA+END" => data(stream).end(),
        "ERROR" => error(stream, Code::Application).text("e"),
        "CANCEL" => cancel(stream, Code::Cancelled),
        "CREDIT" => credit(stream, 7),
        "CREDIT0" => credit(stream, 0),
        "PING" => plain(FrameType::Ping).body("12345678"),
        "PONG" => plain(FrameType::Pong).body("12345678"),
        "GOAWAY" => plain(FrameType::GoAway),
        "EXTENSION" => raw(Header { kind: 0x80, ..Header::new(FrameType::Ping, stream) }).body("x"),
        "UNKNOWN" => raw(Header { kind: 0x0c, ..Header::new(FrameType::Ping, stream) }),
        _ => panic!("no frame {name}"),
    }
}

/// A world, a consumer and a provider, with stream 1 in this state for the one that is asked about.
struct Scene {
    w: World,
    c: Client,
    p: Client,
}

fn scene() -> Scene {
    let limits = Limits { max_streams: 1, cancel_grace: std::time::Duration::from_millis(10), ..Limits::default() };
    let w = World::one_core(limits);
    let (c, p) = (w.consumer("ch"), w.provider("ch", 5));
    Scene { w, c, p }
}

fn consumer_in(state: &str) -> Scene {
    let s = scene();
    let open = |end: bool| {
        s.c.send(if end { request(1).body("x").end() } else { request(1).body("x") });
        s.p.next().unwrap();
    };
    match state {
        "idle" | "zero" => {}
        "open" => open(false),
        "half" => open(true),
        "early" => {
            open(false);
            s.p.send(response(1).end());
            s.c.expect(response(1).end());
        }
        "cancelled" => {
            open(true);
            s.c.send(cancel(1, Code::Cancelled));
            s.c.expect(error(1, Code::Cancelled).started());
        }
        "refused" => {
            s.c.send(request(2).body("x"));
            s.c.send(request(1).body("x"));
            s.c.expect(error(1, Code::Overloaded));
        }
        "before" => return Scene { c: s.w.connect(), ..s },
        _ => panic!("no state {state}"),
    }
    s
}

fn provider_in(state: &str) -> Scene {
    let s = scene();
    let open = |end: bool| {
        s.c.send(if end { request(1).body("x").end() } else { request(1).body("x") });
        s.p.expect(if end { request(1).body("x").end() } else { request(1).body("x") });
    };
    match state {
        "idle" | "zero" => {}
        "open" => open(false),
        "half" => open(true),
        "begun" => {
            open(true);
            s.p.send(response(1).body("r"));
        }
        "early" => {
            open(false);
            s.p.send(response(1).end());
            s.p.expect(cancel(1, Code::Cancelled));
        }
        "cancelled" | "overdue" => {
            open(true);
            s.c.send(cancel(1, Code::Cancelled));
            s.p.expect(cancel(1, Code::Cancelled));
            if state == "overdue" {
                s.w.advance(std::time::Duration::from_millis(20));
            }
        }
        "before" => return Scene { p: s.w.connect(), ..s },
        _ => panic!("no state {state}"),
    }
    s
}

fn run(table: &str, scene: fn(&str) -> Scene, subject: fn(&Scene) -> &Client) {
    let mut lines = table.lines().filter(|line| !line.trim().is_empty());
    let states: Vec<&str> = lines.next().expect("a line of states").split_whitespace().collect();
    let mut cells = 0;
    for line in lines {
        let mut words = line.split_whitespace();
        let name = words.next().expect("a frame");
        for state in &states {
            let expected = words.next().unwrap_or_else(|| panic!("{name} has no cell for {state}"));
            eprintln!("{name} when {state}: {expected}");
            let scene = scene(state);
            let who = subject(&scene);
            let on_connection = matches!(name, "HELLO" | "WELCOME" | "PING" | "PONG" | "GOAWAY");
            let stream = if *state == "zero" || *state == "before" && on_connection { 0 } else { 1 };
            who.send(frame(name, stream));
            cell(who, expected);
            scene.w.finish();
            cells += 1;
        }
        assert_eq!(words.next(), None, "{name} has too many cells");
    }
    eprintln!("{cells} cells");
}

fn cell(who: &Client, expected: &str) {
    match expected {
        "closes" => return who.expect_closed(),
        "=PONG" => drop(who.expect(pong(b"12345678"))),
        "=CANCELLED" => drop(who.expect(error(1, Code::Cancelled).started())),
        "=CANCEL" => drop(who.expect(cancel(1, Code::Cancelled))),
        "ok" => {}
        code => {
            let code = Code::ALL.into_iter().find(|known| known.name() == code).expect("a code");
            return who.expect_failed(code);
        }
    }
    who.expect_nothing();
    who.send(ping(b"stillup?"));
    who.expect(pong(b"stillup?"));
}

#[test]
fn every_frame_from_a_consumer_in_every_state() {
    weathers(|| run(CONSUMER, consumer_in, |scene| &scene.c));
}

#[test]
fn every_frame_from_a_provider_in_every_state() {
    weathers(|| run(PROVIDER, provider_in, |scene| &scene.p));
}
