//! One rule: which rights, on which channels.

use std::fmt;
use std::ops::BitOr;
use std::str::FromStr;

use crate::base::ChannelId;

/// What a session may do on its channel: a set.
///
/// ```
/// use corelay::auth::Rights;
/// assert!(Rights::CONSUME.has(Rights::PUBLISH)); // whoever may ask may also tell
/// assert!(!Rights::PUBLISH.has(Rights::REQUEST));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Rights(u8);

impl Rights {
    /// None.
    pub const NONE: Rights = Rights(0);
    /// Send requests that want an answer.
    pub const REQUEST: Rights = Rights(1);
    /// Send ONEWAY requests.
    pub const PUBLISH: Rights = Rights(2);
    /// Send requests of both kinds.
    pub const CONSUME: Rights = Rights(1 | 2);
    /// Answer requests.
    pub const PROVIDE: Rights = Rights(4);
    /// All there are.
    pub const ALL: Rights = Rights(1 | 2 | 4);

    /// Whether all of `these` are among them.
    #[must_use]
    pub const fn has(self, these: Rights) -> bool {
        self.0 & these.0 == these.0
    }

    /// Those that are also in `these`.
    #[must_use]
    pub const fn among(self, these: Rights) -> Rights {
        Rights(self.0 & these.0)
    }

    /// Those that are not in `these`.
    #[must_use]
    pub const fn without(self, these: Rights) -> Rights {
        Rights(self.0 & !these.0)
    }

    /// Whether there are none.
    #[must_use]
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }
}

impl BitOr for Rights {
    type Output = Rights;

    fn bitor(self, other: Rights) -> Rights {
        Rights(self.0 | other.0)
    }
}

/// Rights on channels, written `right:channels`.
///
/// The right is `consume` (requests of both kinds), `publish` (ONEWAY requests alone), `provide`, or `*`. The channels
/// are one channel, a UUID or a name; `*` for all; or a pattern of names, in which each `*` stands for any text.
///
/// ```
/// use corelay::auth::Rule;
/// for text in ["consume:orders", "provide:550e8400-e29b-41d4-a716-446655440000", "publish:log.*", "*:*"] {
///     assert_eq!(text.parse::<Rule>()?.to_string(), text);
/// }
/// assert!("use:orders".parse::<Rule>().is_err());
/// # Ok::<(), corelay::auth::BadRule>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    text: String,
    pub(super) rights: Rights,
    pub(super) channels: Pattern,
}

/// Which channels.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Pattern {
    All,
    /// This one; with its name, where it was written by name.
    One(ChannelId, Option<String>),
    /// Those whose name looks like this.
    Named(String),
}

/// A rule that can't be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{given:?} is no rule: expected consume:, publish:, provide: or *:, and then a channel or a pattern such as orders.*"
)]
pub struct BadRule {
    /// What was given.
    pub given: String,
}

impl FromStr for Rule {
    type Err = BadRule;

    fn from_str(text: &str) -> Result<Rule, BadRule> {
        let bad = || BadRule { given: text.to_owned() };
        let (right, channels) = text.split_once(':').ok_or_else(bad)?;
        let rights = match right.trim() {
            "consume" => Rights::CONSUME,
            "publish" => Rights::PUBLISH,
            "provide" => Rights::PROVIDE,
            "*" => Rights::ALL,
            _ => return Err(bad()),
        };
        let channels = match channels.trim() {
            "*" => Pattern::All,
            // as names are
            pattern if pattern.contains('*') && pattern.len() <= 255 => Pattern::Named(pattern.to_owned()),
            one => {
                let id: ChannelId = one.parse().map_err(|_| bad())?;
                Pattern::One(id, name_of(one, id))
            }
        };
        Ok(Rule { text: text.to_owned(), rights, channels })
    }
}

/// The text a channel was written as, where that is a name and no UUID.
pub(super) fn name_of(text: &str, id: ChannelId) -> Option<String> {
    (ChannelId::named(text) == id).then(|| text.to_owned())
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// Whether `name` is `pattern` with each `*` of it replaced by some text.
pub(super) fn looks_like(pattern: &str, name: &str) -> bool {
    let mut parts = pattern.split('*');
    let first = parts.next().unwrap_or_default();
    let Some(mut rest) = name.strip_prefix(first) else { return false };
    let Some(last) = parts.next_back() else { return rest.is_empty() };
    for part in parts {
        // the first place is as good as any later one: what follows has only more room
        let Some(at) = rest.find(part) else { return false };
        rest = &rest[at + part.len()..];
    }
    rest.ends_with(last)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_match_whole_names() {
        for (pattern, yes, no) in [
            ("orders.*", &["orders.", "orders.eu", "orders.eu.west"][..], &["orders", "my.orders.eu", "order"][..]),
            ("*.eu", &["orders.eu", ".eu"], &["orders.eu.west", "eu"]),
            ("a*b*c", &["abc", "aXbYc", "abbcc", "abcbc"], &["ab", "acb", "abcd", "xabc"]),
            ("*a*", &["a", "bab"], &["", "b"]),
            ("a*a", &["aa", "aba"], &["a"]),
            ("**", &["", "x"], &[]),
        ] {
            for name in yes {
                assert!(looks_like(pattern, name), "{pattern} {name}");
            }
            for name in no {
                assert!(!looks_like(pattern, name), "{pattern} {name}");
            }
        }
    }

    #[test]
    fn what_is_no_rule_is_refused() {
        for bad in ["", "orders", "consume", "consume:", "Consume:a", "consume,provide:a", ":a", "consume:a\nb"] {
            assert_eq!(bad.parse::<Rule>(), Err(BadRule { given: bad.to_owned() }));
        }
    }
}
