use std::io::{BufRead, Read, Write};
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt;
use std::process::{Command, Stdio};

use rustix::process::Signal;

use super::run::{Process, assert_code, corelay, eventually, finish, text};

const SHOP: &str = "5f0e3c7b9d1a4286-shop";
const DESK: &str = "c41d8aa07be35f92-desk";
const LATER: &str = "77ab20c3d4e91f56-later";

/// A broker with a file of settings, its log kept.
struct Guarded {
    process: Process,
    server: String,
    admin: String,
    log: std::sync::Arc<std::sync::Mutex<String>>,
}

impl Guarded {
    fn start(settings: &std::path::Path, env: &[(&str, &str)]) -> Guarded {
        let line = ["serve", "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0", "--cores", "1", "--no-pin"];
        let mut command = corelay(&line);
        command.args(["--log", "trace", "--config"]).arg(settings).envs(env.iter().copied()).stderr(Stdio::piped());
        let mut process = Process::start(&mut command);
        let log = std::sync::Arc::<std::sync::Mutex<String>>::default();
        let mut stderr = process.0.stderr.take().unwrap();
        let kept = log.clone();
        std::thread::spawn(move || {
            let mut bytes = [0; 4096];
            while let Ok(n @ 1..) = stderr.read(&mut bytes) {
                kept.lock().unwrap().push_str(&String::from_utf8_lossy(&bytes[..n]));
            }
        });
        let mut lines = process.stdout().lines().map(Result::unwrap);
        let mut addr = |what: &str| lines.next().unwrap().strip_prefix(what).expect(what).to_owned();
        let (server, admin) = (addr("listening on "), addr("admin on "));
        Guarded { process, server, admin, log }
    }

    fn log(&self) -> String {
        self.log.lock().unwrap().clone()
    }

    fn command(&self, line: &[&str]) -> Command {
        let mut command = corelay(line);
        command.env("CORELAY_SERVER", &self.server);
        command
    }

    fn page(&self, path: &str) -> String {
        let mut socket = TcpStream::connect(&self.admin).unwrap();
        write!(socket, "GET {path} HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n\r\n", self.admin).unwrap();
        let mut page = String::new();
        socket.read_to_string(&mut page).unwrap();
        page
    }
}

fn written(dir: &tempfile::TempDir, name: &str, text: &str) -> std::path::PathBuf {
    let path = dir.path().join(name);
    std::fs::write(&path, text).unwrap();
    std::fs::set_permissions(&path, PermissionsExt::from_mode(0o600)).unwrap();
    path
}

fn settings(shop_allows: &str) -> String {
    format!(
        "[[auth.token]]\nname = 'the-shop'\ntoken = '{SHOP}'\nallow = ['{shop_allows}']\n\
         [[auth.token]]\nname = 'desk'\nallow = ['provide:orders']\n"
    )
}

#[test]
fn tokens_come_by_file_or_environment_and_are_seen_nowhere() {
    let dir = tempfile::tempdir().unwrap();
    let file = written(&dir, "corelay.toml", &settings("consume:orders"));
    let broker = Guarded::start(&file, &[("CORELAY_AUTH_TOKEN_DESK_TOKEN", DESK)]);
    let desk = written(&dir, "desk", &format!("{DESK}\n"));
    let mut reply = broker.command(&["reply", "orders", "--exec", "env; cat", "--log", "trace", "--token-file"]);
    let mut provider = Process::start(reply.arg(&desk).stderr(Stdio::piped()));
    let shop = |line: &[&str]| finish(broker.command(line).env("CORELAY_TOKEN", SHOP), b"hello");
    let answer = shop(&["request", "orders", "--wait", "--log", "trace"]);
    assert_code(&answer, 0);
    assert!(text(&answer.stdout).ends_with("hello"), "{}", text(&answer.stdout));
    for (line, token, what) in [
        (&["request", "orders"][..], "", "no token was given"),
        (&["publish", "orders"], "guessed", "the token is not known here"),
        (&["ping", "--count", "1"], "guessed", "the token is not known here"),
        (&["request", "other"], SHOP, "the-shop may not consume or publish on this channel"),
        (&["reply", "orders", "--echo"], SHOP, "the-shop may not provide this channel"),
    ] {
        let output = finish(broker.command(line).env("CORELAY_TOKEN", token), b"");
        assert_code(&output, 3);
        assert!(text(&output.stderr).contains(what), "{}", text(&output.stderr));
        assert!(text(&output.stderr).contains("CORELAY_TOKEN"), "{}", text(&output.stderr));
    }
    let check = |token| finish(broker.command(&["check"]).env("CORELAY_TOKEN", token), b"");
    assert_code(&check("guessed"), 2);
    assert!(text(&check("guessed").stdout).contains("the token is not known here"));
    assert_code(&check(SHOP), 0);
    assert_code(&shop(&["ping", "--count", "1"]), 0);

    let connz = broker.page("/connz");
    assert!(connz.contains(r#""user":"desk""#), "{connz}");
    eventually("the refusals in the log", || broker.log().contains("UNAUTHORIZED"));
    let cmdline = |process: &Process| std::fs::read_to_string(format!("/proc/{}/cmdline", process.0.id())).unwrap();
    let mut seen = vec![
        ("log", broker.log()),
        ("/connz", connz),
        ("/varz", broker.page("/varz")),
        ("/metrics", broker.page("/metrics")),
        ("/channelz", broker.page("/channelz")),
        ("the broker's arguments", cmdline(&broker.process)),
        ("the provider's arguments", cmdline(&provider)),
        ("the consumer's log", text(&answer.stderr)),
        ("the environment of the provider's command", text(&answer.stdout)),
    ];
    provider.signal(Signal::TERM);
    let mut log = String::new();
    provider.0.stderr.take().unwrap().read_to_string(&mut log).unwrap();
    seen.push(("the provider's log", log));
    let check = finish(
        corelay(&["serve", "--check-config", "--config"]).arg(&file).env("CORELAY_AUTH_TOKEN_DESK_TOKEN", DESK),
        b"",
    );
    assert_code(&check, 0);
    seen.extend([("--check-config", text(&check.stdout)), ("its log", text(&check.stderr))]);
    for (where_, all) in seen {
        assert!(!all.contains(SHOP) && !all.contains(DESK), "a token stands in {where_}: {all}");
    }
}

#[test]
fn sighup_changes_who_may_do_what_and_a_bad_file_does_not() {
    let dir = tempfile::tempdir().unwrap();
    let token = written(&dir, "later", "sha256:0000000000000000000000000000000000000000000000000000000000000000");
    let more = written(&dir, "more.toml", &format!("[[token]]\nname = 'later'\ntoken_file = '{}'\n", token.display()));
    let with = |allow: &str| format!("{}[auth]\nfile = '{}'\n", "", more.display()) + &settings(allow);
    let file = written(&dir, "corelay.toml", &with("provide:orders"));
    let mut broker = Guarded::start(&file, &[("CORELAY_AUTH_TOKEN_DESK_TOKEN", DESK)]);
    let provider = |token: &str| {
        let mut reply = broker.command(&["reply", "orders", "--echo"]);
        Process::start(reply.env("CORELAY_TOKEN", token).stderr(Stdio::piped()))
    };
    let providers = || broker.page("/connz").matches(r#""role":"provider""#).count();
    let (mut shop, _desk) = (provider(SHOP), provider(DESK));
    eventually("both providers", || providers() == 2);
    // bad: nothing changes
    std::fs::write(&file, with("use:orders")).unwrap();
    broker.process.signal(Signal::HUP);
    eventually("the refusal", || broker.log().contains("everything stays as it was"));
    assert_eq!(providers(), 2);
    // the shop loses its right, and somebody else's token is changed in its file
    std::fs::write(&file, with("consume:orders")).unwrap();
    std::fs::write(&token, LATER).unwrap();
    broker.process.signal(Signal::HUP);
    eventually("the shop to go", || providers() == 1);
    let mut log = std::io::BufReader::new(shop.0.stderr.take().unwrap()).lines().map(Result::unwrap);
    log.find(|line| line.contains("lets this client in no longer")).expect("it is told");
    let ping = finish(broker.command(&["ping", "--count", "1"]).env("CORELAY_TOKEN", LATER), b"");
    assert_code(&ping, 0);
    // let in again, it comes back by itself
    std::fs::write(&file, with("provide:orders")).unwrap();
    broker.process.signal(Signal::HUP);
    eventually("the shop to be back", || providers() == 2);
    broker.process.signal(Signal::TERM);
    assert_eq!(broker.process.code(), Some(0));
}

#[test]
fn what_is_unsafe_is_refused_or_said() {
    let line = ["serve", "--listen", "0.0.0.0:0", "--check-config"];
    let open = finish(&mut corelay(&line), b"");
    assert_code(&open, 2);
    assert!(text(&open.stderr).contains("--insecure") && text(&open.stderr).contains("[[auth.token]]"));
    assert_code(&finish(corelay(&line).arg("--insecure"), b""), 0);
    let given = format!("auth.token.shop.token={SHOP}");
    let argument = finish(&mut corelay(&["serve", "--set", &given]), b"");
    assert_code(&argument, 2);
    let told = text(&argument.stderr);
    assert!(told.contains("CORELAY_AUTH_TOKEN_SHOP_TOKEN") && !told.contains(SHOP), "{told}");
    let dir = tempfile::tempdir().unwrap();
    let file = written(&dir, "corelay.toml", &settings("consume:orders").replace(SHOP, "short"));
    std::fs::set_permissions(&file, PermissionsExt::from_mode(0o644)).unwrap();
    let mut check = corelay(&["serve", "--check-config", "--config"]);
    let said = finish(check.arg(&file).env("CORELAY_AUTH_TOKEN_DESK_TOKEN", DESK), b"");
    assert_code(&said, 0);
    assert!(text(&said.stderr).contains("mode 644: others can read it"), "{}", text(&said.stderr));
    assert!(text(&said.stderr).contains("auth.token.the-shop.token is short"), "{}", text(&said.stderr));
}
