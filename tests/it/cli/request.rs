use std::io::{BufRead, Read, Write};

use rustix::process::Signal;

use super::run::{Broker, Process, assert_code, corelay, eventually, finish, noise, read_text, text};

#[test]
fn a_body_of_any_size_comes_back_unchanged() {
    let broker = Broker::start();
    let _provider = broker.reply(&["echo", "--echo"]);
    for len in [0, 1, 64 * 1024, 5_000_000] {
        let body = noise(len);
        let output = broker.request(&["echo", "--wait"], &body);
        assert_code(&output, 0);
        assert!(output.stdout == body, "{len} bytes came back as {}", output.stdout.len());
    }
}

#[test]
fn a_file_is_sent_and_headers_come_back() {
    let broker = Broker::start();
    let _provider = broker.reply(&["echo", "--echo"]);
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(b"from a file").unwrap();
    let path = file.path().to_str().unwrap();
    let headers = ["--header", "content-type=text/plain", "--show-headers"];
    let output = broker.request(&[&["echo", path, "--wait"][..], &headers].concat(), b"");
    assert_code(&output, 0);
    assert_eq!(text(&output.stdout), "from a file");
    assert_eq!(text(&output.stderr), "content-type: text/plain\n");
}

#[test]
fn the_response_comes_while_the_request_is_still_sent() {
    let broker = Broker::start();
    let _provider = broker.reply(&["echo", "--echo"]);
    let mut request = Process::start(&mut broker.command(&["request", "echo", "--wait"]));
    let (mut stdin, mut stdout) = (request.stdin(), request.stdout());
    for line in ["first\n", "second\n"] {
        stdin.write_all(line.as_bytes()).unwrap();
        assert_eq!(read_text(&mut stdout, line.len()), line);
    }
    drop(stdin);
    assert_eq!(request.code(), Some(0));
}

#[test]
fn a_channel_may_be_named_by_its_uuid() {
    let broker = Broker::start();
    let id = corelay::base::ChannelId::named("echo").to_string();
    let _provider = broker.reply(&["echo", "--echo"]);
    let output = broker.request(&[&id, "--wait"], b"same channel");
    assert_eq!(text(&output.stdout), "same channel");
}

#[test]
fn each_failure_has_its_exit_code() {
    let broker = Broker::start();
    let output = broker.request(&["nobody"], b"x");
    assert_code(&output, 4);
    assert!(text(&output.stderr).contains("corelay reply"), "says what to do: {}", text(&output.stderr));
    let output = broker.request(&["nobody", "--wait", "--timeout", "100ms"], b"x");
    assert_code(&output, 5);
    assert!(text(&output.stderr).contains("--timeout"), "says what to do: {}", text(&output.stderr));
}

#[test]
fn what_cannot_be_used_is_told_before_anything_is_connected() {
    let output = finish(&mut corelay(&["request", "orders", "/no/such/file"]), b"");
    assert_code(&output, 2);
    assert!(text(&output.stderr).contains("/no/such/file"));
    let output = finish(&mut corelay(&["request", "orders", "--server", "nowhere"]), b"");
    assert_code(&output, 2);
    assert!(text(&output.stderr).contains("--server"), "{}", text(&output.stderr));
}

#[test]
fn a_broker_that_is_not_there_is_told() {
    // a port that was free a moment ago
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
    for line in
        [&["request", "a", "/dev/null"][..], &["publish", "a", "/dev/null"], &["reply", "a", "--echo"], &["ping"]]
    {
        let output = finish(corelay(line).args(["--server", &free]), b"");
        assert_code(&output, 3);
        let stderr = text(&output.stderr);
        assert!(stderr.contains(&free) && stderr.contains("corelay serve"), "{line:?} says what to do: {stderr}");
    }
}

#[test]
fn a_provider_that_dies_is_told() {
    let broker = Broker::start();
    let mut provider = broker.reply(&["frail", "--exec", "echo begun; sleep 60"]);
    let mut request = Process::start(&mut broker.command(&["request", "frail", "/dev/null", "--wait"]));
    assert_eq!(request.stdout().lines().next().unwrap().unwrap(), "begun");
    provider.0.kill().unwrap();
    assert_eq!(request.code(), Some(6));
}

#[test]
fn a_broker_that_dies_is_told() {
    let mut broker = Broker::start();
    let _provider = broker.reply(&["frail", "--exec", "echo begun; sleep 60"]);
    let mut request = Process::start(&mut broker.command(&["request", "frail", "/dev/null", "--wait"]));
    assert_eq!(request.stdout().lines().next().unwrap().unwrap(), "begun");
    broker.process.0.kill().unwrap();
    assert_eq!(request.code(), Some(3));
}

#[test]
fn a_broken_pipe_ends_it_quietly() {
    let broker = Broker::start();
    let _provider = broker.reply(&["endless", "--exec", "yes"]);
    let mut command = broker.command(&["request", "endless", "/dev/null", "--wait"]);
    let mut request = Process::start(command.stderr(std::process::Stdio::piped()));
    let mut stdout = request.stdout();
    assert_eq!(read_text(&mut stdout, 4), "y\ny\n");
    drop(stdout);
    assert_eq!(request.code(), Some(141));
    let mut said = String::new();
    request.0.stderr.take().unwrap().read_to_string(&mut said).unwrap();
    assert_eq!(said, "");
}

#[test]
fn an_interrupt_cancels_on_the_wire() {
    for (signal, code) in [(Signal::INT, 130), (Signal::TERM, 143)] {
        let broker = Broker::start();
        let _provider = broker.reply(&["slow", "--exec", "echo $$; exec sleep 60"]);
        let mut request = Process::start(&mut broker.command(&["request", "slow", "/dev/null", "--wait"]));
        let command = request.stdout().lines().next().unwrap().unwrap();
        request.signal(signal);
        assert_eq!(request.code(), Some(code));
        eventually("the command to be ended by the CANCEL", || !super::run::is_alive(&command));
    }
}

#[test]
fn what_is_published_arrives() {
    let broker = Broker::start();
    let dir = tempfile::tempdir().unwrap();
    let kept = dir.path().join("kept");
    let command = format!("cat > {0}.part; mv {0}.part {0}", kept.display());
    let _provider = broker.reply(&["events", "--exec", &command]);
    let body = noise(300_000);
    let output = finish(&mut broker.command(&["publish", "events", "--wait"]), &body);
    assert_code(&output, 0);
    assert!(output.stdout.is_empty());
    eventually("the event to arrive", || kept.exists());
    assert!(std::fs::read(kept).unwrap() == body);
}
