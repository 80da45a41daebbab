//! Without io_uring: what `--io auto` and `--io uring` do where the kernel refuses it, and with little locked memory.
//!
//! The refusal is real: a seccomp filter set before exec, as Docker's default profile has it. The test binary runs
//! itself once more as the launcher that sets the filter, because a filter can't be taken off again.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};

use rustix::process::{Resource, Rlimit, Signal, kill_process, setrlimit};
use seccompiler::{SeccompAction, SeccompFilter};

use crate::wire::Wire;
use corelay::protocol::{Code, Flags};

const LAUNCH: &str = "CORELAY_TEST_LAUNCH";

/// Not a test of its own: the launcher. It becomes `corelay` with what the variable asks for in force.
#[test]
fn launcher() {
    let Ok(what) = std::env::var(LAUNCH) else { return };
    match what.as_str() {
        "seccomp" => refuse_io_uring(),
        "profile" => crate::packaging::confine(),
        "memlock" => setrlimit(Resource::Memlock, Rlimit { current: Some(0), maximum: Some(0) }).unwrap(),
        other => panic!("{LAUNCH}={other}"),
    }
    let args = std::env::var("CORELAY_TEST_ARGS").unwrap();
    let error = Command::new(env!("CARGO_BIN_EXE_corelay")).args(args.split(' ')).env_remove(LAUNCH).exec();
    panic!("exec: {error}");
}

fn refuse_io_uring() {
    let calls = [libc::SYS_io_uring_setup, libc::SYS_io_uring_enter, libc::SYS_io_uring_register];
    let filter = SeccompFilter::new(
        calls.into_iter().map(|call| (call, Vec::new())).collect::<BTreeMap<_, _>>(),
        SeccompAction::Allow,
        SeccompAction::Errno(libc::EPERM as u32),
        std::env::consts::ARCH.try_into().unwrap(),
    );
    let program: seccompiler::BpfProgram = filter.unwrap().try_into().unwrap();
    seccompiler::apply_filter(&program).unwrap();
}

pub struct Launched {
    child: Child,
    pub addr: std::net::SocketAddr,
}

fn launch(what: &str, args: &str) -> Child {
    Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "fallback::launcher", "--nocapture"])
        .env(LAUNCH, what)
        .env("CORELAY_TEST_ARGS", args)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap()
}

pub fn serve(what: &str, args: &str) -> Launched {
    let mut child = launch(what, &format!("serve --listen 127.0.0.1:0 --cores 1 {args}"));
    let lines = BufReader::new(child.stdout.as_mut().unwrap()).lines();
    // the launcher is a test: its harness prints before it becomes the broker
    let addr = lines.map_while(Result::ok).find_map(|line| line.split_once("listening on ")?.1.parse().ok());
    match addr {
        Some(addr) => Launched { child, addr },
        None => panic!(
            "the broker did not start:\n{}",
            child.wait_with_output().map(|out| String::from_utf8_lossy(&out.stderr).into_owned()).unwrap()
        ),
    }
}

impl Launched {
    /// Ends it in order; what it had to say.
    pub fn stop(mut self) -> String {
        kill_process(rustix::process::Pid::from_child(&self.child), Signal::TERM).unwrap();
        assert!(self.child.wait().unwrap().success());
        let mut said = String::new();
        self.child.stderr.take().unwrap().read_to_string(&mut said).unwrap();
        said
    }
}

fn serves(addr: std::net::SocketAddr) {
    let mut consumer = Wire::consumer(addr, "x");
    consumer.request(1, 1, b"", Flags::NONE);
    consumer.expect_error(1, Code::NoProvider);
}

#[test]
fn auto_falls_back_to_epoll_and_says_so_once() {
    let broker = serve("seccomp", "--io auto");
    serves(broker.addr);
    let said = broker.stop();
    assert_eq!(said.matches("epoll takes its place").count(), 1, "{said}");
    assert!(said.contains("seccomp"), "the message names the likely cause: {said}");
    assert!(said.contains("epoll"), "{said}");
}

#[test]
fn uring_asked_for_and_refused_is_an_error_with_its_remedy() {
    let out = launch("seccomp", "serve --listen 127.0.0.1:0 --cores 1 --io uring").wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&out.stderr);
    assert!(!out.status.success());
    assert!(said.contains("seccomp") && said.contains("--io epoll"), "{said}");
}

#[test]
fn little_locked_memory_is_no_reason_for_epoll() {
    let broker = serve("memlock", "--io auto");
    serves(broker.addr);
    let said = broker.stop();
    assert!(!said.contains("epoll takes its place"), "{said}");
}
