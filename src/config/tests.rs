use std::fs;
use std::time::Duration;

use super::table::{LISTS, SETTINGS};
use super::*;

#[path = "../../tests/fuzz/engine.rs"]
mod engine;

#[test]
fn fuzz_config() {
    engine::run("config", fuzzing::config);
}

/// A value of the right kind that is not the default, as text. None for what is in another file, or is no argument.
fn other(name: &str) -> Option<&'static str> {
    Some(match name {
        "server.listen" => "127.0.0.1:7,unix:/run/a.sock",
        "admin.listen" => "127.0.0.1:8",
        "admin.insecure" | "tls.tls12" | "limits.limit_loopback" => "true",
        "server.name" => "other \"name\"",
        "server.cores" => "0,2",
        "server.pin" => "false",
        "server.io" => "epoll",
        "auth.token.a.b.token" => return None,
        "auth.file" | "auth.token.a.b.token_file" => return None,
        "server.insecure" => "true",
        "auth.token.a.b.token_sha256" => "sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad",
        "auth.token.a.b.allow" | "auth.token.a.b.deny" => "consume:orders.*,provide:log",
        "log.level" => "warn,corelay::request=trace",
        "log.format" => "json",
        "telemetry.otlp" => "http://127.0.0.1:4318",
        "producer.a.b.url" => "tcp://127.0.0.1:9",
        "producer.a.b.channels" => "a,b",
        "producer.a.b.what" => "both",
        "producer.a.b.when_full" => "drop_oldest",
        "producer.a.b.max_age" => "31s",
        "forward.assembly_bytes" => "128MiB",
        "forward.max_message" => "2MiB",
        "producer.a.b.queue_bytes" => "32MiB",
        "limits.max_frame" | "channel.a.b.window" => "64KiB",
        "limits.window" | "limits.max_window" => "128KiB",
        "limits.queue_bytes" | "channel.a.b.queue_bytes" => "32MiB",
        "limits.connection_buffer" => "128KiB",
        "limits.core_buffer" => "512MiB",
        "io.buffer_size" => "32KiB",
        "io.buffers" | "io.ring_entries" => "2048",
        name if name.ends_with("_timeout") || name.ends_with("keepalive") || name.ends_with("grace") => "31s",
        _ => "77",
    })
}

/// Every setting there is: its name and the variable for it.
fn every_setting() -> Vec<(String, String)> {
    let entries = LISTS.iter().flat_map(|list| {
        let key = |key: &str| Key { section: list.name.into(), entry: Some("a.b".into()), key: key.into() };
        list.settings.iter().map(move |(name, _)| key(name))
    });
    let plain = SETTINGS.iter().map(|s| Key { section: s.section.into(), entry: None, key: s.key.into() });
    plain.chain(entries).map(|key| (key.to_string(), source::variable(&key))).collect()
}

fn written(text: &str) -> (tempfile::TempDir, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("corelay.toml");
    fs::write(&path, text).unwrap();
    (dir, path)
}

fn from_file(text: &str) -> Result<Loaded, ConfigError> {
    let (_dir, path) = written(text);
    Loaded::from(&Sources { file: Some(path), ..Sources::default() })
}

fn refusal(result: Result<Loaded, ConfigError>) -> String {
    let text = result.expect_err("to be refused").to_string();
    match text.find("corelay.toml:") {
        Some(at) => text[at..].to_owned(),
        None => text,
    }
}

#[test]
fn every_setting_is_set_from_file_environment_and_set_alike() {
    // the entry exists, so that its variables find it by its true name
    let text = "[[channel]]\nid = 'a.b'\n[[producer]]\nid = 'a.b'\nurl = 'tcp://127.0.0.1:1'\n\
                [[auth.token]]\nname = 'a.b'\nidentity = 'x'\n";
    let (_dir, path) = written(text);
    let file = Some(path);
    for (name, variable) in every_setting() {
        let Some(value) = other(&name) else { continue };
        let set = vec![format!("{name}={value}")];
        let by_set = Loaded::from(&Sources { file: file.clone(), set, ..Sources::default() }).unwrap();
        let start = Loaded::from(&Sources { file: file.clone(), ..Sources::default() }).unwrap();
        assert_ne!(by_set.config, start.config, "{name} = {value} changes nothing");

        let env = vec![(variable.clone(), value.to_owned())];
        let by_env = Loaded::from(&Sources { file: file.clone(), env, ..Sources::default() }).unwrap();
        assert_eq!(by_env.config, by_set.config, "{variable}");
        assert_eq!(by_env.origins[&name], Origin::Env(variable));

        // what is shown is a file that sets the same
        let by_file = from_file(&by_set.to_toml()).unwrap();
        assert_eq!(by_file.config, by_set.config, "{name} from a file");
        assert!(matches!(by_file.origins[&name], Origin::File { .. }), "{name}");
    }
}

#[test]
fn later_sources_win() {
    let (_dir, path) = written("[server]\nspin_us = 1\n");
    let mut sources = Sources { file: Some(path), ..Sources::default() };
    let spin = |sources: &Sources| Loaded::from(sources).unwrap().config.server.spin.as_micros();
    assert_eq!(spin(&sources), 1);
    sources.env = vec![("CORELAY_SERVER_SPIN_US".into(), "2".into())];
    assert_eq!(spin(&sources), 2);
    sources.set = vec!["server.spin_us=3".into(), "server.spin_us=4".into()];
    assert_eq!(spin(&sources), 4);
    sources.flags = vec![("--spin-us", "server.spin_us", vec!["5".into()])];
    assert_eq!(spin(&sources), 5);
    assert!(Loaded::from(&sources).unwrap().to_toml().contains("# from --spin-us"));
}

#[test]
fn unknown_keys_are_refused_with_the_nearest_one() {
    for (text, refused) in [
        ("[limits]\nwindwo = 1", "corelay.toml:2: there is no setting limits.windwo; did you mean limits.window?"),
        ("\n[server]\nwindow = 1", "corelay.toml:3: there is no setting server.window; did you mean limits.window?"),
        ("[limit]\nwindow = 1", "corelay.toml:2: there is no setting limit.window; did you mean limits.window?"),
        (
            "[[channel]]\nid = 'a'\nspraed = 2",
            "corelay.toml:3: there is no setting channel.a.spraed; did you mean channel.a.spread?",
        ),
        ("[quux]\n", "corelay.toml:1: there is no setting quux; corelay serve --check-config lists them all"),
        ("listen = 1", "corelay.toml:1: there is no setting listen; did you mean server.listen?"),
    ] {
        assert_eq!(refusal(from_file(text)), refused);
    }
    let env = vec![("CORELAY_LIMITS_WINDWO".into(), "1".into())];
    let by_env = refusal(Loaded::from(&Sources { env, ..Sources::default() }));
    assert_eq!(
        by_env,
        "CORELAY_LIMITS_WINDWO: there is no setting CORELAY_LIMITS_WINDWO; did you mean CORELAY_LIMITS_WINDOW?"
    );
    let set = vec!["sever.pin=false".into()];
    let by_set = refusal(Loaded::from(&Sources { set, ..Sources::default() }));
    assert_eq!(by_set, "--set: there is no setting sever.pin; did you mean server.pin?");
}

#[test]
fn bad_values_are_refused_by_name() {
    for (text, refused) in [
        (
            "[server]\nlisten = ['nowhere']",
            "corelay.toml:2: server.listen = nowhere: expected host:port, tls://host:port or unix:/path",
        ),
        ("[server]\npin = 'perhaps'", "corelay.toml:2: server.pin = perhaps: expected true or false"),
        (
            "[limits]\nkeepalive = 20",
            "corelay.toml:2: limits.keepalive = 20: expected a duration such as 250ms, 5s, 2m or 1h",
        ),
        (
            "[limits]\nwindow = -1",
            "corelay.toml:2: limits.window = -1: expected a size such as 4096, 256KiB, 64MiB or 1GiB",
        ),
        ("[limits]\nwindow = '1TiB'", "corelay.toml:2: limits.window = 1TiB: expected a size of at most 32 bits"),
        (
            "[log]\nlevel = 'inof'",
            "corelay.toml:2: log.level = inof: expected error, warn, info, debug, trace, off, or a filter such as info,corelay::request=trace (target=level)",
        ),
        (
            "[telemetry]\notlp = 'https://x'",
            "corelay.toml:2: telemetry.otlp = https://x: expected off, or http://host:port",
        ),
        ("[limits]\nmax_streams = [1, 2]", "corelay.toml:2: limits.max_streams = 1,2: expected one value, not a list"),
        ("[limits.window]\na = 1", "corelay.toml:1: limits.window = {...}: expected a plain value"),
        ("[[channel]]\nspread = 1", "corelay.toml:1: channel.id = nothing: expected a text, in each entry"),
        ("[channel]\nid = 'a'", "corelay.toml:1: channel = [...]: expected [[channel]], one for each"),
        ("[[channel]]\nid = 'a'\n[[channel]]\nid = 'a'", "corelay.toml:3: channel.id = a: expected each entry once"),
    ] {
        assert_eq!(refusal(from_file(text)), refused);
    }
    assert!(refusal(from_file("[server]\nname = ")).starts_with("corelay.toml:2: not TOML: "));
    let gone = Sources { file: Some("/no/such/file".into()), ..Sources::default() };
    assert!(refusal(Loaded::from(&gone)).starts_with("cannot read the configuration file /no/such/file: "));
    let set = vec!["window".into()];
    let bare = refusal(Loaded::from(&Sources { set, ..Sources::default() }));
    assert_eq!(bare, "--set window: expected section.key=value, such as limits.window=1MiB");
}

#[test]
fn values_that_do_not_go_together_are_refused_where_they_were_set() {
    let refused = refusal(from_file("[limits]\nmax_timeout = '2h'\ndefault_timeout = '3h'"));
    assert_eq!(refused, "corelay.toml:3: limits.default_timeout = 10800s: expected at most limits.max_timeout (7200s)");
    let refused = refusal(from_file("[[channel]]\nid = 'a'\nwindow = 1"));
    assert!(refused.starts_with("corelay.toml:3: channel.a.window = 1: expected 4096 (4KiB) to "), "{refused}");
}

#[test]
fn channels_are_named_in_variables_as_well_as_a_variable_can() {
    let id = "550e8400-e29b-41d4-a716-446655440000";
    let variable = |name: &str| vec![(format!("CORELAY_CHANNEL_{name}_QUEUE_REQUESTS"), "9".to_owned())];
    for (name, id) in [("ORDERS", "orders"), ("550E8400_E29B_41D4_A716_446655440000", id), ("A_B", "a_b")] {
        let loaded = Loaded::from(&Sources { env: variable(name), ..Sources::default() }).unwrap();
        let channel = &loaded.config.server.channels[0];
        assert_eq!((channel.name.as_str(), channel.queue_requests), (id, Some(9)));
    }
}

#[test]
fn what_others_put_into_the_environment_is_no_setting() {
    let names =
        ["CORELAY_LOG", "CORELAY_SERVICE_HOST", "CORELAY_PORT_9090_TCP", "CORELAY_HEADER_A", "CORELAY_CHANNEL", "HOME"];
    let env = names.map(|name| (name.to_owned(), "x".to_owned())).to_vec();
    assert_eq!(Loaded::from(&Sources { env, ..Sources::default() }).unwrap().config, Config::default());
}

const ABC: &str = "sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";

#[test]
fn a_token_is_read_from_wherever_it_may_stand_and_shown_as_its_hash() {
    let dir = tempfile::tempdir().unwrap();
    let in_file = |name: &str, text: &str| {
        let path = dir.path().join(name);
        fs::write(&path, text).unwrap();
        path.display().to_string()
    };
    let (plain, hashed) = (in_file("plain", "abc\n"), in_file("hashed", ABC));
    let entry = |how: &str| format!("[[auth.token]]\nname = 'a'\n{how}\nallow = ['consume:x']\n");
    let own = in_file("own.toml", &entry("token = 'abc'").replace("auth.token", "token"));
    for text in [
        entry("token = 'abc'"),
        entry(&format!("token = '{ABC}'")),
        entry(&format!("token_sha256 = '{}'", &ABC[7..])),
        entry(&format!("token_file = '{plain}'")),
        entry(&format!("token_file = '{hashed}'")),
        format!("[auth]\nfile = '{own}'\n"),
    ] {
        let loaded = from_file(&text).unwrap();
        let auth = &loaded.config.server.auth;
        assert_eq!((auth.len(), auth[0].token.map(|token| token.to_string()).as_deref()), (1, Some(ABC)), "{text}");
        assert_eq!(auth[0].allow[0].to_string(), "consume:x");
        let shown = loaded.to_toml();
        assert!(!shown.contains("'abc'") && !shown.contains("\"abc\""), "{shown}");
        assert_eq!(&from_file(&shown).unwrap().config.server.auth, auth, "{shown}");
    }
    let env = vec![("CORELAY_AUTH_TOKEN_A_TOKEN".into(), "abc".into()), ("CORELAY_TOKEN".into(), "a client's".into())];
    let by_env = Loaded::from(&Sources { env, ..Sources::default() }).unwrap();
    assert_eq!(by_env.config.server.auth[0].token.unwrap().to_string(), ABC);
}

#[test]
fn bad_tokens_are_refused_without_telling_them() {
    let entry = |rest: &str| format!("[[auth.token]]\nname = 'a'\n{rest}\n");
    for (text, refused) in [
        (
            entry("token = 'sha256:abc'"),
            "corelay.toml:3: auth.token.a.token = ***: expected sha256: and 64 hexadecimal digits",
        ),
        (entry("token = ''"), "corelay.toml:3: auth.token.a.token = ***: expected a token"),
        (
            entry("token = 'abc'\ntoken_sha256 = 'abc'"),
            "corelay.toml:4: auth.token.a.token_sha256 = ***: expected sha256: and 64 hexadecimal digits",
        ),
        (
            entry(&format!("token = 'abc'\ntoken_sha256 = '{ABC}'")),
            "corelay.toml:4: auth.token.a.token_sha256 = ***: expected one of token, token_sha256 and token_file",
        ),
        (
            entry("identity = 'x'\nallow = ['orders']"),
            "corelay.toml:4: auth.token.a.allow = orders: expected rules such as consume:orders, publish:log.*, \
             provide:resize or *:*",
        ),
        (
            entry("allow = []"),
            "corelay.toml:2: auth.token.a.name = a: expected a token (token, token_sha256 or token_file) or an identity",
        ),
        ("[auth]\ntoken = 'abc'".into(), "corelay.toml:2: auth.token = ...: expected [[auth.token]], one for each"),
        (
            "[[auth.token]]\ntoken = 'abc'".into(),
            "corelay.toml:1: auth.token.name = nothing: expected a text, in each entry",
        ),
    ] {
        assert_eq!(refusal(from_file(&text)), refused);
    }
    let set = vec!["auth.token.a.token=abc".to_owned()];
    let told = refusal(Loaded::from(&Sources { set, ..Sources::default() }));
    assert!(told.contains("CORELAY_AUTH_TOKEN_A_TOKEN") && !told.contains("abc"), "{told}");
}

#[test]
fn a_password_in_a_url_is_not_told_and_not_taken_from_the_arguments() {
    let url = |url: &str| format!("[telemetry]\notlp = '{url}'\n");
    let shown = from_file(&url("http://me:secret@h:4318")).unwrap().to_toml();
    assert!(shown.contains("http://me:***@h:4318") && !shown.contains("secret"), "{shown}");
    let refused = refusal(from_file(&url("https://me:secret@h:4318")));
    assert!(refused.contains("telemetry.otlp = https://me:***@h:4318: expected") && !refused.contains("secret"));
    for (set, variable) in [
        ("producer.a.url=nats://me:secret@h/orders", "CORELAY_PRODUCER_A_URL"),
        ("producer.a.url=http://h/hook?query=secret", "CORELAY_PRODUCER_A_URL"),
        ("telemetry.otlp=http://me:secret@h:4318", "CORELAY_TELEMETRY_OTLP"),
    ] {
        let told = refusal(Loaded::from(&Sources { set: vec![set.to_owned()], ..Sources::default() }));
        assert!(told.contains(variable) && !told.contains("secret"), "{told}");
    }
    let set = vec!["producer.a.url=nats://me@h/orders?timeout=2s".to_owned()];
    assert!(Loaded::from(&Sources { set, ..Sources::default() }).is_err(), "one word may be a token");
    let set = vec!["producer.a.url=tcp://h:9000?framing=lines".to_owned()];
    assert!(Loaded::from(&Sources { set, ..Sources::default() }).is_ok());
}

#[test]
fn a_password_that_changes_is_a_change() {
    let producer = |url: &str| from_file(&format!("[[producer]]\nid = 'a'\nurl = '{url}'\n")).unwrap().config;
    let (old, new) = (producer("nats://me:old@h/orders"), producer("nats://me:new@h/orders"));
    assert_eq!(new.changed_since(&old), ["producer.a.url"]);
    assert!(new.changed_since(&new).is_empty());
}

#[test]
fn the_defaults_are_shown() {
    let shown = Loaded::from(&Sources::default()).unwrap().to_toml();
    assert!(!shown.contains('#'), "nothing departs from the defaults");
    insta::assert_snapshot!(shown);
}

#[test]
fn durations_are_read_as_durations() {
    let loaded = from_file("[limits]\nkeepalive = '250ms'\nwindow = 0x10_000\n").unwrap();
    assert_eq!(loaded.config.server.limits.keepalive, Duration::from_millis(250));
    assert_eq!(loaded.config.server.limits.window, 65_536);
}

#[test]
fn producers_are_named_by_variables_as_the_seed_had_it() {
    let variable = |name: &str, value: &str| (name.to_owned(), value.to_owned());
    let env = vec![
        variable("PRODUCER_CONSUMER1", "tcp://127.0.0.1:9000"),
        variable("PRODUCER_CONSUMER_2", "tcp://127.0.0.1:9001"),
        variable("PRODUCER_MY_DB", "tcp://me:secret@127.0.0.1:9002"),
        variable("PRODUCER_", "ignored"),
    ];
    let (_dir, path) =
        written("[[producer]]\nid = 'My_DB'\nurl = 'tcp://127.0.0.1:1'\nwhat = 'both'\nchannels = ['a']");
    let loaded = Loaded::from(&Sources { file: Some(path), env, ..Sources::default() }).unwrap();
    let producers: Vec<_> =
        loaded.config.server.producers.iter().map(|each| (each.id.as_str(), each.url.0.as_str())).collect();
    let expected = [
        ("My_DB", "tcp://me:secret@127.0.0.1:9002"),
        ("consumer1", "tcp://127.0.0.1:9000"),
        ("consumer-2", "tcp://127.0.0.1:9001"),
    ];
    assert_eq!(producers, expected);
    let shown = loaded.to_toml();
    assert!(shown.contains("tcp://me:***@127.0.0.1:9002") && !shown.contains("secret"), "{shown}");
    let refused = refusal(from_file("[[producer]]\nid = 'a'\nwhat = 'all'"));
    assert!(refused.contains("producer.a.what = all: expected request, response or both"), "{refused}");
    let refused = refusal(from_file("[[producer]]\nid = 'a'"));
    assert!(refused.contains("producer.a.url = nothing: expected where to forward to"), "{refused}");
}
