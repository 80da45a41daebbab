//! TLS by the command line: every command that talks to a broker, the admin endpoint, and what a start says.

use std::io::BufRead;
use std::path::Path;
use std::process::{Command, Stdio};

use rustix::process::Signal;

use super::run::{Broker, assert_code, corelay, finish, noise, text};
use crate::pki::Pki;

fn serve(pki: &Pki, more: &[&str]) -> Command {
    let (cert, key) = pki.server("server");
    let mut command = corelay(&["serve", "--listen", "tls://localhost:0", "--cores", "1", "--no-pin", "--log", "info"]);
    command.arg("--tls-cert").arg(cert).arg("--tls-key").arg(key).args(more);
    command
}

fn with_ca<'a>(command: &'a mut Command, ca: &Path) -> &'a mut Command {
    command.env("CORELAY_CLIENT_TLS_CA", ca)
}

#[test]
fn every_command_speaks_it() {
    let pki = Pki::new();
    let broker = Broker::spawn(serve(&pki, &[]).stderr(Stdio::null()));
    assert!(broker.addr.starts_with("tls://127.0.0.1:"), "{}", broker.addr);
    let mut reply = broker.command(&["reply", "echo", "--echo"]);
    let _provider = super::run::Process::start(with_ca(&mut reply, &pki.ca()));
    let body = noise(3 << 20);
    let answer = finish(with_ca(&mut broker.command(&["request", "echo", "--wait"]), &pki.ca()), &body);
    assert_code(&answer, 0);
    assert!(answer.stdout == body);
    let ca = pki.ca();
    let ca = ca.to_str().unwrap();
    for line in [
        &["ping", "-c", "1", "--tls-ca", ca][..],
        &["check", "--tls-ca", ca][..],
        &["publish", "echo", "/dev/null", "--tls-ca", ca],
    ] {
        assert_code(&finish(&mut broker.command(line), b""), 0);
    }
    let distrusting =
        finish(&mut broker.command(&["ping", "-c", "1", "--tls-ca", pki.client("other").0.to_str().unwrap()]), b"");
    assert_code(&distrusting, 3);
    assert!(text(&distrusting.stderr).contains("not of a CA trusted here"), "{}", text(&distrusting.stderr));
    let missing = finish(&mut broker.command(&["ping", "-c", "1", "--tls-ca", "/nowhere/ca.pem"]), b"");
    assert!(text(&missing.stderr).contains("/nowhere/ca.pem"), "{}", text(&missing.stderr));
}

/// What docs/OPERATING.md shows: with a token over TLS, on either reactor, every command does what it may, and no more.
#[test]
fn tokens_are_asked_for_behind_it() {
    for io in ["uring", "epoll"] {
        let pki = Pki::new();
        let settings = pki.path("corelay.toml");
        let entries = "[[auth.token]]\nname = 'shop'\ntoken = '0d6f5b3c9a417e28-shop'\nallow = ['consume:orders', 'publish:log']\n\
                       [[auth.token]]\nname = 'desk'\ntoken = '5be07a94c2d81f36-desk'\nallow = ['provide:*']\n";
        std::fs::write(&settings, entries).unwrap();
        let mut command = serve(&pki, &["--io", io, "--config", settings.to_str().unwrap()]);
        let mut process = super::run::Process::start(command.stderr(Stdio::null()));
        let mut line = String::new();
        process.stdout().read_line(&mut line).unwrap();
        let Some(addr) = line.trim().strip_prefix("listening on ") else {
            assert!(std::env::var_os("CI").is_none() && io == "uring", "{line:?} of a broker on {io}");
            eprintln!("SKIPPED on io_uring, which can't be had here");
            continue;
        };
        let as_who = |line: &[&str], token: &str| {
            let mut command = corelay(line);
            command.env("CORELAY_SERVER", addr).env("CORELAY_TOKEN", token).env("CORELAY_CLIENT_TLS_CA", pki.ca());
            command
        };
        let (shop, desk) = ("0d6f5b3c9a417e28-shop", "5be07a94c2d81f36-desk");
        let provide =
            |channel| super::run::Process::start(&mut as_who(&["reply", channel, "--exec", "tr a-z A-Z"], desk));
        let _providers = ["orders", "log"].map(provide);
        let answer = finish(&mut as_who(&["request", "orders", "--wait"], shop), b"a table, please");
        assert_code(&answer, 0);
        assert_eq!(text(&answer.stdout), "A TABLE, PLEASE");
        assert_code(&finish(&mut as_who(&["publish", "log", "--wait"], shop), b"sold"), 0);
        for (line, token, why) in [
            (&["request", "log"][..], shop, "this token may not send requests here"),
            (&["request", "secrets"], shop, "shop may not consume or publish on this channel"),
            (&["reply", "orders", "--echo"], shop, "shop may not provide this channel"),
            (&["request", "orders"], "guessed", "the token is not known here"),
            (&["request", "orders"], "", "no token was given"),
        ] {
            let refused = finish(&mut as_who(line, token), b"");
            assert!(!refused.status.success() && refused.stdout.is_empty(), "{line:?} on {io}");
            assert!(text(&refused.stderr).contains(why), "{line:?} on {io}: {}", text(&refused.stderr));
        }
        // an authority that did not sign it, or no TLS at all: nothing comes of it
        for (server, ca) in [(addr.to_owned(), pki.client("other").0), (addr.replace("tls://", ""), pki.ca())] {
            let mut command = as_who(&["ping", "-c", "1"], shop);
            let refused = finish(command.env("CORELAY_SERVER", &server).env("CORELAY_CLIENT_TLS_CA", ca), b"");
            assert_code(&refused, 3);
        }
    }
}

#[test]
fn the_admin_endpoint_speaks_it_too() {
    let pki = Pki::new();
    let (ca, (cert, key)) = (pki.ca(), pki.client("operator"));
    let paths = [&ca, &cert, &key].map(|path| path.to_str().unwrap());
    let mut broker = serve(&pki, &["--admin", "tls://0.0.0.0:0", "--tls-client-ca", paths[0]]);
    let mut process = super::run::Process::start(broker.stderr(Stdio::null()));
    let mut lines = process.stdout().lines().map(Result::unwrap);
    let _listening = lines.next().unwrap();
    let admin = lines.next().unwrap();
    let port = admin.strip_prefix("admin on tls://0.0.0.0:").expect("the address");
    let addr = format!("tls://localhost:{port}");
    let mutual = ["--tls-ca", paths[0], "--tls-cert", paths[1], "--tls-key", paths[2]];
    let channels = finish(corelay(&["channels", "--json", "--admin", &addr]).args(mutual), b"");
    assert_code(&channels, 0);
    // a certificate is asked for
    assert_code(&finish(&mut corelay(&["channels", "--admin", &addr, "--tls-ca", paths[0]]), b""), 3);
    // a name in Host is none to be afraid of here
    let drained = finish(corelay(&["drain", "--admin", &addr]).args(mutual), b"");
    assert_code(&drained, 0);
    assert_eq!(process.code(), Some(0));
}

#[test]
fn a_start_says_what_is_wrong_with_the_files() {
    let pki = Pki::new();
    let (cert, key) = pki.server("server");
    let (cert, key) = (cert.to_str().unwrap(), key.to_str().unwrap());
    let other = pki.client("other").1;
    let line =
        |more: &[&str]| finish(corelay(&["serve", "--listen", "tls://127.0.0.1:0", "--cores", "1"]).args(more), b"");
    for (more, code, said) in [
        (&[][..], 2, "tls.cert and tls.key"),
        (&["--tls-cert", cert][..], 2, "tls.cert and tls.key"),
        (&["--tls-cert", "/nowhere.pem", "--tls-key", key][..], 1, "can't read the certificate in /nowhere.pem"),
        (&["--tls-cert", cert, "--tls-key", other.to_str().unwrap()][..], 1, "give the files of one pair"),
        (&["--tls-cert", cert, "--tls-key", key, "--tls-client-ca", key][..], 1, "no CA certificate"),
    ] {
        let output = line(more);
        assert_code(&output, code);
        assert!(text(&output.stderr).contains(said), "{more:?}: {}", text(&output.stderr));
    }
    let open =
        corelay(&["serve", "--admin", "tls://0.0.0.0:0", "--tls-cert", cert, "--tls-key", key, "--check-config"])
            .output();
    let open = open.unwrap();
    assert_code(&open, 2);
    assert!(text(&open.stderr).contains("ask them for certificates"), "{}", text(&open.stderr));
}

#[test]
fn what_is_doubtful_is_warned_of() {
    use std::os::unix::fs::PermissionsExt;
    let pki = Pki::new();
    let mut command = serve(&pki, &[]);
    let (cert, key) = pki.expired("server");
    std::fs::set_permissions(&key, std::fs::Permissions::from_mode(0o644)).unwrap();
    let mut broker = Broker::spawn(command.stderr(Stdio::piped()));
    broker.process.signal(Signal::TERM);
    let mut log = String::new();
    std::io::Read::read_to_string(&mut broker.process.0.stderr.take().unwrap(), &mut log).unwrap();
    assert!(log.contains("the TLS certificate has expired") && log.contains("chmod 600"), "{log}");
    assert!(log.contains(cert.to_str().unwrap()) && log.contains(key.to_str().unwrap()), "{log}");
    assert!(!log.contains("PRIVATE KEY"));
}

#[test]
fn sighup_reads_the_certificates_again() {
    let (pki, next) = (Pki::new(), Pki::new());
    let mut broker = Broker::spawn(serve(&pki, &[]).stderr(Stdio::piped()));
    let mut log = std::io::BufReader::new(broker.process.0.stderr.take().unwrap()).lines().map(Result::unwrap);
    let ping = |pki: &Pki| finish(with_ca(&mut broker.command(&["ping", "-c", "1"]), &pki.ca()), b"").status.code();
    assert_eq!((ping(&pki), ping(&next)), (Some(0), Some(3)));
    let (cert, key) = next.server("server");
    std::fs::copy(cert, pki.path("server.pem")).unwrap();
    broker.process.signal(Signal::HUP);
    log.find(|line| line.contains("give the files of one pair")).expect("it says so, and keeps the old ones");
    assert_eq!((ping(&pki), ping(&next)), (Some(0), Some(3)));
    std::fs::copy(key, pki.path("server.key")).unwrap();
    broker.process.signal(Signal::HUP);
    log.find(|line| line.contains("reloaded: ")).expect("it says so");
    assert_eq!((ping(&pki), ping(&next)), (Some(3), Some(0)));
}
