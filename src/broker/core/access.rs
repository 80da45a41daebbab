//! Who is let in: asked once for each session, before its WELCOME, and again when the list changes.

use std::sync::Arc;

use super::conn::{Conn, Phase, Side};
use super::rx::Violation;
use super::{Action, Core};
use crate::auth::{AccessList, Credentials, Digest, Grant, Refusal, Rights};
use crate::base::limits::Limits;
use crate::base::{ChannelId, Key, Time};
use crate::protocol::{Code, Hello, Role};

/// A session that may be opened.
pub(super) struct Admitted {
    pub grant: Grant,
    /// What it proved of itself.
    pub credentials: Option<Box<Credentials>>,
}

impl Conn {
    /// Gives the session what it was granted.
    pub(super) fn grant(&mut self, grant: Grant) {
        self.rights = grant.rights;
        self.info.user = grant.name;
    }

    /// Notes whether its REQUESTs must be looked at more closely than most.
    pub(super) fn note_special(&mut self, limits: &Limits) {
        let may_ask = self.rights.has(Rights::REQUEST);
        self.special = self.peer_goes || !may_ask || self.abandoned >= limits.max_abandoned();
    }
}

/// The rights a connection in this role asks for: any of them will do.
fn wanted(role: Role) -> Rights {
    if role == Role::Provider { Rights::PROVIDE } else { Rights::CONSUME }
}

impl Core {
    /// Whether the session that HELLO asks for may be, and what it may do.
    ///
    /// # Errors
    /// UNAUTHORIZED.
    pub(super) fn admit(&mut self, key: Key, hello: &Hello) -> Result<Admitted, Violation> {
        let conn = self.conns.get(key).expect("looked up by the caller");
        let identity = conn.info.identity.clone();
        let token = (!hello.token.is_empty()).then(|| Digest::of(hello.token.expose()));
        let credentials = Credentials { token, identity };
        match self.options.access.grant(&credentials, wanted(hello.role), hello.channel) {
            Ok(grant) => {
                let proved = credentials != Credentials::default();
                Ok(Admitted { grant, credentials: proved.then(|| Box::new(credentials)) })
            }
            Err(refusal) => Err(self.unauthorized(key, hello.channel, &refusal)),
        }
    }

    fn unauthorized(&mut self, key: Key, channel: ChannelId, refusal: &Refusal) -> Violation {
        let peer = self.conns.get(key).map(|conn| conn.info.peer.clone()).unwrap_or_default();
        self.actions.push_back(Action::ReportUnauthorized { peer, channel, why: refusal.to_string() });
        Violation::new(Code::Unauthorized, refusal.to_string())
    }

    /// From now on this list says who may do what. Sessions that may no longer do all they were granted are told
    /// UNAUTHORIZED and closed; what they asked for ends with them. All others go on, and may do what they may now.
    pub fn set_access(&mut self, now: Time, access: Arc<AccessList>) {
        self.now = now;
        self.options.access = access;
        let open = self.conns.iter().filter(|(_, conn)| conn.phase == Phase::Open && !conn.side.is_link());
        let channel = |conn: &Conn| self.channels[conn.channel as usize].id;
        let asked: Vec<_> = open.map(|(key, conn)| (key, channel(conn), self.granted_now(conn))).collect();
        for (key, channel, granted) in asked {
            // one whose last request has just ended with its other side, and that was to go then, is closed already
            let Some(conn) = self.conns.get_mut(key).filter(|conn| conn.phase == Phase::Open) else { continue };
            match granted {
                Ok(grant) => {
                    conn.grant(grant);
                    conn.note_special(&self.options.limits);
                }
                Err(refusal) => {
                    let violation = self.unauthorized(key, channel, &refusal);
                    self.violation(key, &violation);
                }
            }
        }
    }

    /// What an open session is granted by the list as it is, if that is no less than it has.
    fn granted_now(&self, conn: &Conn) -> Result<Grant, Refusal> {
        let wanted = wanted(if conn.side == Side::Provider { Role::Provider } else { Role::Consumer });
        let channel = self.channels[conn.channel as usize].id;
        let nobody = Credentials::default();
        let credentials = conn.credentials.as_deref().unwrap_or(&nobody);
        let grant = self.options.access.grant(credentials, wanted, channel)?;
        if grant.rights.has(conn.rights.among(wanted)) { Ok(grant) } else { Err(Refusal::Less) }
    }
}
