//! The `corelay` command as users run it: one process each for broker, provider and consumer.
//!
//! | file | what it is about |
//! |---|---|
//! | `run` | starting processes, and waiting for what they do |
//! | `serve` | the broker's start, configuration and end |
//! | `request` | the sending side, and its exit codes |
//! | `exec` | providers that run a command for each request |
//! | `forward` | what it forwards, in the targets and in its log |
//! | `log`, `notify` | what the broker logs; what systemd is told |
//! | `admin` | what looks at a running broker: lists, check, drain, top |
//! | `auth` | tokens: where they come from, what they allow, that nobody sees them |
//! | `tls` | TLS in every command, and its files |
//! | `tools` | ping and demo |

mod admin;
mod auth;
mod exec;
mod forward;
mod log;
mod notify;
mod request;
pub mod run;
mod serve;
mod tls;
mod tools;
