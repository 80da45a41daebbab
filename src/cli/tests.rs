use clap::{CommandFactory, Parser};

use super::*;

#[test]
fn the_arguments_are_consistent() {
    Cli::command().debug_assert();
}

/// The help of each subcommand, as a user of a wide terminal sees it.
#[test]
fn help_is_as_it_was_reviewed() {
    let mut command = Cli::command().term_width(110);
    command.build();
    insta::assert_snapshot!("help", command.render_long_help());
    for name in [
        "serve",
        "request",
        "publish",
        "reply",
        "ping",
        "top",
        "channels",
        "connections",
        "latency",
        "producers",
        "check",
        "drain",
        "log",
        "demo",
        "completions",
        "man",
    ] {
        let sub = command.find_subcommand_mut(name).expect("a subcommand");
        insta::assert_snapshot!(format!("help_{name}"), sub.render_long_help());
    }
}

/// Flags that many commands share have a heading of their own, under which no others come to stand.
#[test]
fn headings_are_of_their_own_flags() {
    let mut command = Cli::command();
    command.build();
    let flags = command.get_subcommands().flat_map(|sub| sub.get_arguments().map(move |arg| (sub.get_name(), arg)));
    let (mut headed, mut plain) = (0, 0);
    for (sub, arg) in flags {
        let is_tls = sub != "serve" && arg.get_long().is_some_and(|long| long.starts_with("tls-"));
        assert_eq!(arg.get_help_heading().is_some(), is_tls, "{sub} {arg}");
        *(if is_tls { &mut headed } else { &mut plain }) += 1;
    }
    assert!(headed > 20 && plain > 50, "{headed} and {plain}");
}

#[test]
fn what_cannot_be_used_is_refused() {
    for line in [
        "",
        "serve extra",
        "request",
        "request orders --timeout 5",
        "request orders --timeout 0s",
        "request orders --header nokey",
        "request orders --header Upper=1",
        "reply orders",
        "reply orders --echo --exec cat",
        "reply orders --echo --concurrency 0",
        "ping --interval 50ms",
        "ping --count 0",
        "top --interval 10ms",
        "channels --limit 0",
        "connections --role admin",
        "latency --json --hgrm",
        "check --warning 5",
        "drain",
        "completions csh",
        "demo file --size 1MiB",
        "demo --size 1MB",
        "demo --io select",
        "demo --cores 0",
    ] {
        let arguments = ["corelay"].into_iter().chain(line.split_whitespace());
        let error = Cli::try_parse_from(arguments).expect_err(line);
        assert_eq!(error.exit_code(), 2, "{line}");
    }
}

#[test]
fn what_can_be_used_is_read() {
    for line in [
        "serve --listen 127.0.0.1:0 --listen unix:/run/a --cores 0-1 --set limits.window=1MiB --check-config",
        "request 550e8400-e29b-41d4-a716-446655440000 - --header a=b --header c=d=e --wait --retry --timeout 1m",
        "publish orders file --server a:1,b:2",
        "reply orders --exec cat --concurrency 3 --log debug",
        "--log warn ping --count 3 --interval 1s",
        "demo --size 10MiB --requests 5 --io epoll --cores 2",
        "channels --admin unix:/run/admin --channel orders --offset 10 --json",
        "connections --role provider --limit 1",
        "latency --hgrm --channel orders",
        "producers --json --admin unix:/run/admin",
        "check --channel orders --warning 10ms --critical 1s --admin 127.0.0.1:9091",
        "drain --admin 127.0.0.1:9091",
        "completions bash",
        "man --dir /tmp",
        "demo file",
    ] {
        let arguments = ["corelay"].into_iter().chain(line.split_whitespace());
        assert!(Cli::try_parse_from(arguments).is_ok(), "{line}");
    }
}

#[test]
fn the_subcommand_is_found_in_what_cannot_be_parsed() {
    let found = |line: &str| subcommand(line.split_whitespace().map(str::to_owned));
    assert_eq!(found("--log warn check --warning x"), Some("check".into()));
    assert_eq!(found("request check --timeout x"), Some("request".into()));
    assert_eq!(found("--version"), None);
}
