use std::io::{BufRead, BufReader, Seek, Write};
use std::process::Stdio;

use rustix::process::Signal;

use super::run::{Broker, Process, assert_code, corelay, finish, text};

#[test]
fn every_address_is_told_once_it_accepts() {
    let dir = tempfile::tempdir().unwrap();
    let path = format!("unix:{}", dir.path().join("socket").display());
    let mut command =
        corelay(&["serve", "--listen", "127.0.0.1:0", "--listen", &path, "--cores", "1", "--log", "warn"]);
    let mut process = Process::start(&mut command);
    let mut lines = process.stdout().lines().map(Result::unwrap);
    let tcp = lines.next().unwrap();
    let port = tcp.strip_prefix("listening on 127.0.0.1:").expect("the address").parse::<u16>().expect("a port");
    assert_eq!(lines.next().unwrap(), format!("listening on {path}"));
    std::net::TcpStream::connect(("127.0.0.1", port)).unwrap();
    std::os::unix::net::UnixStream::connect(dir.path().join("socket")).unwrap();
}

#[test]
fn either_signal_drains() {
    for signal in [Signal::TERM, Signal::INT] {
        let mut broker = Broker::start();
        broker.process.signal(signal);
        assert_eq!(broker.process.code(), Some(0), "{signal:?}");
    }
}

#[test]
fn a_second_signal_ends_at_once() {
    for (signal, code) in [(Signal::TERM, 143), (Signal::INT, 130)] {
        let (mut broker, log) = Broker::logging();
        // a request in flight, for which the drain would wait
        let _provider = broker.reply(&["busy", "--exec", "echo begun; sleep 60"]);
        let mut request = Process::start(&mut broker.command(&["request", "busy", "/dev/null", "--wait"]));
        assert_eq!(request.stdout().lines().next().unwrap().unwrap(), "begun");
        broker.process.signal(signal);
        // a second signal that came with the first would be taken for it
        log.lines().map(Result::unwrap).find(|line| line.contains("draining")).expect("the drain begins");
        broker.process.signal(signal);
        assert_eq!(broker.process.code(), Some(code));
    }
}

/// As where a log collector died. The log is lost, the broker is not.
#[test]
fn a_closed_stderr_hurts_nobody() {
    let (mut broker, log) = Broker::logging();
    drop(log);
    let _provider = broker.reply(&["echo", "--echo"]);
    assert_eq!(broker.request(&["echo", "--wait"], b"still there").stdout, b"still there");
    broker.process.signal(Signal::TERM);
    assert_eq!(broker.process.code(), Some(0));
}

#[test]
fn an_address_in_use_is_told() {
    let broker = Broker::start();
    let output = finish(&mut corelay(&["serve", "--listen", &broker.addr, "--set", "server.bind_timeout=20ms"]), b"");
    assert_code(&output, 1);
    let said = text(&output.stderr);
    assert!(said.contains("is in use, by a predecessor that is ending? Trying for 20"), "{said}");
    assert!(said.contains("can't listen on ") && said.contains(&broker.addr), "{said}");
}

#[test]
fn an_address_that_is_let_go_in_time_is_taken() {
    let holder = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = holder.local_addr().unwrap().to_string();
    let mut command =
        corelay(&["serve", "--listen", &addr, "--cores", "1", "--no-pin", "--set", "server.bind_timeout=20s"]);
    let mut process = Process::start(command.stderr(Stdio::piped()));
    let mut log = BufReader::new(process.0.stderr.take().unwrap()).lines().map(Result::unwrap);
    log.find(|line| line.contains("is in use")).expect("it says what it waits for");
    drop(holder);
    log.find(|line| line.contains("was free after")).expect("it says that it waits no more");
    assert_eq!(process.stdout().lines().next().unwrap().unwrap(), format!("listening on {addr}"));
}

#[test]
fn the_configuration_that_is_shown_is_one() {
    let set = ["--set", "limits.window=1MiB", "--set", "channel.orders.queue_requests=5", "--cores", "1"];
    let shown = finish(corelay(&["serve", "--check-config"]).args(set).env("CORELAY_LIMITS_KEEPALIVE", "5s"), b"");
    assert_code(&shown, 0);
    let lines = text(&shown.stdout);
    for line in ["window = \"1MiB\" # from --set", "keepalive = \"5s\" # from CORELAY_LIMITS_KEEPALIVE"] {
        let squeezed = |text: &str| text.split_whitespace().collect::<Vec<_>>().join(" ");
        assert!(lines.lines().any(|shown| squeezed(shown) == line), "{line} in {lines}");
    }
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(&shown.stdout).unwrap();
    let again = finish(corelay(&["serve", "--check-config", "--config"]).arg(file.path()), b"");
    assert_code(&again, 0);
    let plain =
        |text: &str| text.lines().map(|line| line.split('#').next().unwrap().trim().to_owned()).collect::<Vec<_>>();
    assert_eq!(plain(&text(&again.stdout)), plain(&lines));
}

#[test]
fn a_wrong_setting_is_refused_before_anything_starts() {
    let output = finish(&mut corelay(&["serve", "--set", "limits.windwo=1MiB"]), b"");
    assert_code(&output, 2);
    assert!(text(&output.stderr).contains("did you mean limits.window?"), "{}", text(&output.stderr));
    let output = finish(corelay(&["serve"]).env("CORELAY_SERVER_CORES", "none"), b"");
    assert_code(&output, 2);
    assert!(text(&output.stderr).contains("CORELAY_SERVER_CORES: server.cores = none: expected"));
}

#[test]
fn sighup_reads_the_settings_again_and_a_bad_file_changes_nothing() {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    let mut rewrite = |text: &str| {
        file.as_file_mut().set_len(0).unwrap();
        file.rewind().unwrap();
        file.write_all(text.as_bytes()).unwrap();
        file.path().to_owned()
    };
    let path = rewrite("[limits]\nwindow = '64KiB'\n");
    let (mut broker, log) = Broker::logging_with(&["--config", path.to_str().unwrap()]);
    let mut log = log.lines().map(Result::unwrap);
    let mut hear = |what: &str| log.find(|line| line.contains(what)).unwrap_or_else(|| panic!("{what}"));
    hear("started");
    rewrite("[limits]\nwindow = 'wide'\n");
    broker.process.signal(Signal::HUP);
    assert!(hear("everything stays as it was").contains(":2: limits.window = wide"));
    rewrite("[limits]\nwindow = '128KiB'\n");
    broker.process.signal(Signal::HUP);
    assert!(hear("reloaded").contains("limits.window will change with the next start"));
    broker.process.signal(Signal::TERM);
    assert_eq!(broker.process.code(), Some(0));
}
