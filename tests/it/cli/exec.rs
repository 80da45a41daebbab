use std::io::{BufRead, Write};
use std::time::{Duration, Instant};

use rustix::process::Signal;

use super::run::{Broker, Process, assert_code, eventually, is_alive, noise, read_text, text};

#[test]
fn a_command_transforms_a_stream() {
    let broker = Broker::start();
    let _provider = broker.reply(&["shout", "--exec", "tr a-z A-Z"]);
    let output = broker.request(&["shout", "--wait"], b"hello\n");
    assert_code(&output, 0);
    assert_eq!(text(&output.stdout), "HELLO\n");
}

#[test]
fn more_than_any_pipe_or_window_holds_passes_both_ways() {
    let broker = Broker::start();
    let _provider = broker.reply(&["cat", "--exec", "cat"]);
    let body = noise(8_000_000);
    let output = broker.request(&["cat", "--wait"], &body);
    assert_code(&output, 0);
    assert!(output.stdout == body, "{} of {} bytes", output.stdout.len(), body.len());
}

#[test]
fn bytes_pass_as_they_come() {
    let broker = Broker::start();
    let _provider = broker.reply(&["cat", "--exec", "cat"]);
    let mut request = Process::start(&mut broker.command(&["request", "cat", "--wait"]));
    let (mut stdin, mut stdout) = (request.stdin(), request.stdout());
    for line in ["first\n", "second\n"] {
        stdin.write_all(line.as_bytes()).unwrap();
        assert_eq!(read_text(&mut stdout, line.len()), line);
    }
    drop(stdin);
    assert_eq!(request.code(), Some(0));
}

#[test]
fn a_command_knows_its_request() {
    let broker = Broker::start();
    let command = "echo $CORELAY_CHANNEL; echo $CORELAY_HEADER_CONTENT_TYPE; echo ${#CORELAY_REQUEST_ID}";
    let _provider = broker.reply(&["env", "--exec", command]);
    let output = broker.request(&["env", "--wait", "--header", "content-type=a b"], b"");
    let channel = corelay::base::ChannelId::named("env");
    assert_eq!(text(&output.stdout), format!("{channel}\na b\n36\n"));
}

#[test]
fn a_failing_command_fails_the_request_with_the_end_of_its_stderr() {
    let broker = Broker::start();
    let command = "cat > /dev/null; seq 1 2000 >&2; echo 'no more ink' >&2; exit 3";
    let _provider = broker.reply(&["print", "--exec", command]);
    let output = broker.request(&["print", "--wait"], b"x");
    assert_code(&output, 1);
    let said = text(&output.stderr);
    assert!(said.contains("exit status: 3") && said.trim().ends_with("1999\n2000\nno more ink"), "{said}");
    assert!(output.stdout.is_empty());
}

#[test]
fn a_command_may_fail_in_the_middle_of_its_answer() {
    let broker = Broker::start();
    let _provider = broker.reply(&["half", "--exec", "echo half; echo torn >&2; exit 1"]);
    let output = broker.request(&["half", "--wait"], b"");
    assert_code(&output, 1);
    assert!(text(&output.stderr).contains("torn"), "{}", text(&output.stderr));
}

#[test]
fn a_command_need_not_read_its_input() {
    let broker = Broker::start();
    let _provider = broker.reply(&["deaf", "--exec", "echo heard nothing"]);
    for len in [0, 10, 3_000_000] {
        let output = broker.request(&["deaf", "--wait"], &noise(len));
        assert_code(&output, 0);
        assert_eq!(text(&output.stdout), "heard nothing\n");
    }
}

#[test]
fn a_command_may_close_its_output_early() {
    let broker = Broker::start();
    let _provider = broker.reply(&["mute", "--exec", "echo last words; exec >&-; cat > /dev/null"]);
    let output = broker.request(&["mute", "--wait"], &noise(1_000_000));
    assert_code(&output, 0);
    assert_eq!(text(&output.stdout), "last words\n");
}

#[test]
fn what_a_command_leaves_behind_does_not_outlive_it() {
    let broker = Broker::start();
    let _provider = broker.reply(&["stray", "--exec", "sleep 60 & echo $!"]);
    let started = Instant::now();
    let output = broker.request(&["stray", "--wait"], b"");
    assert_code(&output, 0);
    assert!(started.elapsed() < Duration::from_secs(30), "the answer did not wait for the stray");
    eventually("the stray to be killed", || !is_alive(&text(&output.stdout)));
}

#[test]
fn a_deadline_ends_the_whole_group() {
    let broker = Broker::start();
    let _provider = broker.reply(&["slow", "--exec", "sleep 60 & echo $!; wait"]);
    let output = broker.request(&["slow", "--wait", "--timeout", "1s"], b"");
    assert_code(&output, 5);
    eventually("the group to end", || !is_alive(&text(&output.stdout)));
}

#[test]
fn a_command_that_ignores_sigterm_is_killed() {
    let broker = Broker::start();
    let _provider = broker.reply(&["stubborn", "--exec", "trap '' TERM; echo $$; while :; do sleep 1; done"]);
    let mut request = Process::start(&mut broker.command(&["request", "stubborn", "/dev/null", "--wait"]));
    let command = request.stdout().lines().next().unwrap().unwrap();
    request.signal(Signal::INT);
    assert_eq!(request.code(), Some(130));
    eventually("the command to be killed", || !is_alive(&command));
}

#[test]
fn a_provider_that_is_ended_finishes_what_it_has() {
    let broker = Broker::start();
    let mut provider = broker.reply(&["late", "--exec", "echo begun; cat"]);
    let mut request = Process::start(&mut broker.command(&["request", "late", "--wait"]));
    let (mut stdin, mut stdout) = (request.stdin(), request.stdout());
    assert_eq!(read_text(&mut stdout, 6), "begun\n");
    provider.signal(Signal::TERM);
    stdin.write_all(b"finished\n").unwrap();
    drop(stdin);
    assert_eq!(read_text(&mut stdout, 9), "finished\n");
    assert_eq!(request.code(), Some(0));
    assert_eq!(provider.code(), Some(0));
}

#[test]
fn a_provider_that_is_ended_twice_leaves_no_command() {
    let broker = Broker::start();
    let mut provider = broker.reply(&["slow", "--exec", "sleep 60 & echo $!; wait"]);
    let mut request = Process::start(&mut broker.command(&["request", "slow", "/dev/null", "--wait"]));
    let command = request.stdout().lines().next().unwrap().unwrap();
    provider.signal(Signal::TERM);
    // a second one that came with the first would be taken for it
    std::thread::sleep(Duration::from_millis(200));
    provider.signal(Signal::TERM);
    assert_eq!(provider.code(), Some(143));
    eventually("the command to be killed", || !is_alive(&command));
    assert!(matches!(request.code(), Some(1 | 6)), "the request did not succeed");
}
