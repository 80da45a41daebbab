//! The list of who may do what.

use std::collections::HashMap;
use std::sync::Arc;

use super::rule::{Pattern, looks_like, name_of};
use super::{Digest, Rights, Rule};
use crate::base::ChannelId;

/// What a session proved of itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Credentials {
    /// The hash of the token in HELLO; `None` where there was none.
    pub token: Option<Digest>,
    /// The name in the certificate the client showed; `None` without one.
    pub identity: Option<Arc<str>>,
}

/// One who may do something: whoever shows all the entry asks for.
///
/// ```
/// use corelay::auth::{Digest, Entry};
/// let shop = Entry {
///     token: Some(Digest::of(b"0f3ac1d8e5b7426f")),
///     allow: vec!["consume:orders.*".parse().unwrap()],
///     ..Entry::new("shop")
/// };
/// assert_eq!(shop.identity, None);
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// What it is called in logs and lists, in place of its token.
    pub name: String,
    /// The hash of its token. `None`: none is asked for.
    pub token: Option<Digest>,
    /// The name in its certificate. `None`: none is asked for.
    pub identity: Option<String>,
    /// What it may do.
    pub allow: Vec<Rule>,
    /// What it may not, whatever is allowed here or elsewhere.
    pub deny: Vec<Rule>,
}

impl Entry {
    /// An entry with this name, that asks for nothing yet and allows nothing.
    #[must_use]
    pub fn new(name: impl Into<String>) -> Entry {
        Entry { name: name.into(), token: None, identity: None, allow: Vec::new(), deny: Vec::new() }
    }

    fn is(&self, who: &Credentials) -> bool {
        let token = match (&self.token, &who.token) {
            (None, _) => true,
            (Some(asked), Some(shown)) => asked == shown,
            (Some(_), None) => false,
        };
        token && self.identity.as_deref().is_none_or(|asked| who.identity.as_deref() == Some(asked))
    }
}

/// An entry that can't work.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadEntry {
    /// It would be everybody's.
    #[error("{0} asks for nothing: expected a token, or an identity")]
    AsksForNothing(String),
    /// Two of the same name.
    #[error("{0} comes twice: expected each name once")]
    SameName(String),
    /// Two that ask for the same.
    #[error("{0} asks for what {1} does: expected a token of its own for each")]
    SameToken(String, String),
}

impl BadEntry {
    /// What would do.
    #[must_use]
    pub fn expected(&self) -> &'static str {
        match self {
            BadEntry::AsksForNothing(_) => "a token (token, token_sha256 or token_file) or an identity",
            BadEntry::SameName(_) => "each name once",
            BadEntry::SameToken(..) => "a token of its own, not that of another entry",
        }
    }

    /// The name of the entry that can't work.
    #[must_use]
    pub fn entry(&self) -> &str {
        match self {
            BadEntry::AsksForNothing(name) | BadEntry::SameName(name) | BadEntry::SameToken(name, _) => name,
        }
    }
}

/// What a session is granted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Grant {
    /// What it may do on its channel.
    pub rights: Rights,
    /// The name of the entry that lets it in; `None` where everybody is let in.
    pub name: Option<Arc<str>>,
}

/// Why a session is not let in.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// It showed nothing.
    #[error("no token was given, and this broker asks for one")]
    NoToken,
    /// What it showed is on no entry.
    #[error("the token is not known here")]
    Unknown,
    /// It may do less than it was granted.
    #[error("what this session was allowed to do was taken back, at least in part")]
    Less,
    /// It is known, and may not do this.
    #[error("{name} may not {verb} this channel")]
    NotAllowed {
        /// The entry's name.
        name: Arc<str>,
        /// What was wanted, in words.
        verb: &'static str,
    },
}

/// Who may do what, in all.
///
/// ```
/// use corelay::auth::{AccessList, Credentials, Digest, Entry, Rights};
/// use corelay::base::ChannelId;
/// let shop = Entry {
///     token: Some(Digest::of(b"0f3ac1d8e5b7426f")),
///     allow: vec!["consume:orders".parse().unwrap()],
///     ..Entry::new("shop")
/// };
/// let list = AccessList::new(vec![shop], [])?;
/// let who = Credentials { token: Some(Digest::of(b"0f3ac1d8e5b7426f")), identity: None };
/// let grant = list.grant(&who, Rights::CONSUME, ChannelId::named("orders")).unwrap();
/// assert_eq!(grant.name.as_deref(), Some("shop"));
/// assert!(list.grant(&who, Rights::PROVIDE, ChannelId::named("orders")).is_err());
/// # Ok::<(), corelay::auth::BadEntry>(())
/// ```
#[derive(Clone, Debug, Default)]
pub struct AccessList {
    entries: Vec<(Arc<str>, Entry)>,
    /// Names of channels, as far as they are known: only their ids are on the wire.
    names: HashMap<ChannelId, String>,
}

impl AccessList {
    /// A list of these entries. `channels` are channels whose names are known (other than from the rules), each as it
    /// is written: patterns of names are held against those.
    ///
    /// # Errors
    /// The first entry that can't work.
    pub fn new<'a>(
        entries: Vec<Entry>,
        channels: impl IntoIterator<Item = (ChannelId, &'a str)>,
    ) -> Result<AccessList, BadEntry> {
        for (index, entry) in entries.iter().enumerate() {
            if entry.token.is_none() && entry.identity.is_none() {
                return Err(BadEntry::AsksForNothing(entry.name.clone()));
            }
            for other in &entries[..index] {
                if other.name == entry.name {
                    return Err(BadEntry::SameName(entry.name.clone()));
                }
                if other.token == entry.token && other.identity == entry.identity {
                    return Err(BadEntry::SameToken(entry.name.clone(), other.name.clone()));
                }
            }
        }
        let given = channels.into_iter().filter_map(|(id, text)| Some((id, name_of(text, id)?)));
        let mut names: HashMap<ChannelId, String> = given.collect();
        for rule in entries.iter().flat_map(|entry| entry.allow.iter().chain(&entry.deny)) {
            if let Pattern::One(id, Some(name)) = &rule.channels {
                names.insert(*id, name.clone());
            }
        }
        let entries = entries.into_iter().map(|entry| (entry.name.as_str().into(), entry)).collect();
        Ok(AccessList { entries, names })
    }

    /// Whether everybody may do everything: there are no entries.
    #[must_use]
    pub fn is_open(&self) -> bool {
        self.entries.is_empty()
    }

    /// What a session is granted that wants to do `wanted` (any of it will do) on this channel.
    ///
    /// # Errors
    /// Why it is granted nothing.
    pub fn grant(&self, who: &Credentials, wanted: Rights, channel: ChannelId) -> Result<Grant, Refusal> {
        if self.is_open() {
            return Ok(Grant { rights: Rights::ALL, name: None });
        }
        let (mut allowed, mut denied, mut name) = (Rights::NONE, Rights::NONE, None);
        // all of them, so that the time it takes tells nothing
        for (entry_name, entry) in &self.entries {
            if entry.is(who) {
                name.get_or_insert(entry_name);
                allowed = allowed | self.rights(&entry.allow, channel, false);
                denied = denied | self.rights(&entry.deny, channel, true);
            }
        }
        let Some(name) = name else {
            let showed = who.token.is_some() || who.identity.is_some();
            return Err(if showed { Refusal::Unknown } else { Refusal::NoToken });
        };
        let rights = allowed.without(denied).among(wanted);
        // on the nil channel a client that is known may see whether the broker is there (`corelay ping`)
        let pings = channel == ChannelId::NIL && Rights::CONSUME.has(wanted);
        if rights.is_empty() && !pings {
            let verb = if wanted.has(Rights::PROVIDE) { "provide" } else { "consume or publish on" };
            return Err(Refusal::NotAllowed { name: Arc::clone(name), verb });
        }
        Ok(Grant { rights, name: Some(Arc::clone(name)) })
    }

    /// The rights in those of the rules that are about this channel.
    fn rights(&self, rules: &[Rule], channel: ChannelId, deny: bool) -> Rights {
        let about = rules.iter().filter(|rule| match &rule.channels {
            Pattern::All => true,
            Pattern::One(id, _) => *id == channel,
            // a channel whose name nobody told the broker might have any: it is in no list of what is allowed, and in
            // every list of what is denied
            Pattern::Named(pattern) => self.names.get(&channel).map_or(deny, |name| looks_like(pattern, name)),
        });
        about.fold(Rights::NONE, |all, rule| all | rule.rights)
    }

    /// Patterns of names that no known channel looks like: they allow nothing, or deny every channel of unknown name.
    pub fn idle_patterns(&self) -> impl Iterator<Item = (&str, &Rule)> {
        let rules = self
            .entries
            .iter()
            .flat_map(|(name, entry)| entry.allow.iter().chain(&entry.deny).map(move |rule| (name.as_ref(), rule)));
        rules.filter(|(_, rule)| match &rule.channels {
            Pattern::Named(pattern) => !self.names.values().any(|name| looks_like(pattern, name)),
            _ => false,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(name: &str, allow: &[&str], deny: &[&str]) -> Entry {
        let rules = |texts: &[&str]| texts.iter().map(|text| text.parse().unwrap()).collect();
        let token = Some(Digest::of(name.as_bytes()));
        Entry { token, allow: rules(allow), deny: rules(deny), ..Entry::new(name) }
    }

    fn who(token: &str) -> Credentials {
        Credentials { token: Some(Digest::of(token.as_bytes())), identity: None }
    }

    fn list(entries: Vec<Entry>) -> AccessList {
        let known = ["orders.eu", "orders.secret", "log"].map(|name| (ChannelId::named(name), name));
        AccessList::new(entries, known).unwrap()
    }

    fn rights(list: &AccessList, token: &str, channel: &str) -> Rights {
        let id = channel.parse().unwrap();
        let each = [Rights::CONSUME, Rights::PROVIDE].map(|wanted| list.grant(&who(token), wanted, id));
        each.into_iter().flatten().fold(Rights::NONE, |all, grant| all | grant.rights)
    }

    #[test]
    fn without_entries_everybody_may_do_everything() {
        let open = AccessList::default();
        let grant = open.grant(&Credentials::default(), Rights::PROVIDE, ChannelId::named("a")).unwrap();
        assert_eq!(grant, Grant { rights: Rights::ALL, name: None });
    }

    #[test]
    fn what_is_not_allowed_is_denied_and_deny_wins() {
        let list = list(vec![
            entry("a", &["consume:orders.*", "provide:log", "publish:log"], &["consume:orders.secret"]),
            entry("b", &["*:*"], &["publish:log", "provide:orders.*"]),
        ]);
        for (token, channel, expected) in [
            ("a", "orders.eu", Rights::CONSUME),
            ("a", "orders.secret", Rights::NONE),
            ("a", "log", Rights::PROVIDE | Rights::PUBLISH),
            ("a", "other", Rights::NONE),
            ("b", "log", Rights::PROVIDE | Rights::REQUEST),
            ("b", "orders.eu", Rights::CONSUME),
            // it may be called orders.something, for all the broker knows
            ("b", "other", Rights::CONSUME),
            ("b", "550e8400-e29b-41d4-a716-446655440000", Rights::CONSUME),
        ] {
            assert_eq!(rights(&list, token, channel), expected, "{token} on {channel}");
        }
    }

    #[test]
    fn a_uuid_is_never_taken_for_a_name() {
        let id = ChannelId::named("anything").to_string();
        let pattern = format!("consume:{}*", &id[..1]);
        let list = AccessList::new(vec![entry("a", &[&pattern], &[])], [(id.parse().unwrap(), id.as_str())]).unwrap();
        assert_eq!(rights(&list, "a", &id), Rights::NONE);
        assert_eq!(list.idle_patterns().count(), 1);
    }

    #[test]
    fn strangers_learn_what_was_wrong_and_no_more() {
        let list = list(vec![entry("a", &["publish:log"], &[])]);
        let log = ChannelId::named("log");
        let refusal = |who: &Credentials, wanted| list.grant(who, wanted, log).unwrap_err().to_string();
        assert_eq!(
            refusal(&Credentials::default(), Rights::CONSUME),
            "no token was given, and this broker asks for one"
        );
        assert_eq!(refusal(&who("b"), Rights::CONSUME), "the token is not known here");
        assert_eq!(refusal(&who("a"), Rights::PROVIDE), "a may not provide this channel");
        assert_eq!(list.grant(&who("a"), Rights::CONSUME, log).unwrap().rights, Rights::PUBLISH);
        // who is known may ping
        let ping = list.grant(&who("a"), Rights::CONSUME, ChannelId::NIL).unwrap();
        assert_eq!((ping.rights, ping.name.as_deref()), (Rights::NONE, Some("a")));
        assert!(list.grant(&who("b"), Rights::CONSUME, ChannelId::NIL).is_err());
        assert!(list.grant(&who("a"), Rights::PROVIDE, ChannelId::NIL).is_err());
    }

    #[test]
    fn an_identity_does_for_a_token_and_both_are_asked_for_where_both_are_named() {
        let by_name = Entry { token: None, identity: Some("shop".into()), ..entry("cert", &["consume:a"], &[]) };
        let both = Entry { identity: Some("desk".into()), ..entry("both", &["consume:b"], &[]) };
        let list = list(vec![by_name, both]);
        let grant = |identity: Option<&str>, token: Option<&str>, channel| {
            let token = token.map(|token| Digest::of(token.as_bytes()));
            let who = Credentials { token, identity: identity.map(Arc::from) };
            list.grant(&who, Rights::CONSUME, ChannelId::named(channel)).is_ok()
        };
        assert!(grant(Some("shop"), None, "a") && grant(Some("shop"), Some("else"), "a"));
        assert!(grant(Some("desk"), Some("both"), "b"));
        assert!(!grant(Some("desk"), None, "b") && !grant(None, Some("both"), "b") && !grant(Some("sho"), None, "a"));
    }

    #[test]
    fn entries_that_cannot_work_are_refused() {
        let refused = |entries| AccessList::new(entries, []).unwrap_err();
        assert_eq!(refused(vec![Entry::new("a")]), BadEntry::AsksForNothing("a".into()));
        let (one, again) = (entry("a", &[], &[]), entry("a", &["consume:x"], &[]));
        assert_eq!(refused(vec![one.clone(), again]), BadEntry::SameName("a".into()));
        let twin = Entry { name: "b".into(), ..one.clone() };
        assert_eq!(refused(vec![one, twin]), BadEntry::SameToken("b".into(), "a".into()));
    }
}
