//! Who may do what: tokens and identities, the rules on them, and what follows for one session.
//!
//! ```text
//!   HELLO's token ──SHA-256──► Credentials ──┐
//!   a certificate's name ────────────────────┴─► AccessList::grant(.., role, channel) ──► Grant (rights, a name) or Refusal
//! ```
//!
//! A list without entries lets everybody do everything. With entries, all that none of them allows is denied, and
//! what one denies is denied whatever another allows. The list is asked once for each session, before its WELCOME, and
//! once more when the list changes; a request's way knows nothing of it but the rights its session was granted.
//!
//! Nothing here does I/O, and no secret is kept: of a token there is only its hash ([`Digest`]).

mod digest;
mod list;
mod rule;

pub use digest::{BadDigest, Digest};
pub use list::{AccessList, BadEntry, Credentials, Entry, Grant, Refusal};
pub use rule::{BadRule, Rights, Rule};
