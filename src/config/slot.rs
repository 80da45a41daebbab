//! The place a setting lives in, by the kind of its value: how it is read from text and shown in TOML.

use std::fmt::Display;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use corelay::auth::{BadDigest, BadRule, Digest, Rule};
use corelay::broker::{BadValue, Cores, Io, ListenAddr, NamedChannel, TargetUrl, What};
use corelay::forward::{WhenFull, redact};

use super::log::{LogFormat, parse_filter};
use super::units::{DURATION_EXPECTED, SIZE_EXPECTED, parse_duration, parse_size, show_duration, show_size};

/// A setting's place.
#[derive(Debug)]
pub(crate) enum Slot<'a> {
    Count16(&'a mut u16),
    Count32(&'a mut u32),
    MaybeCount32(&'a mut Option<u32>),
    Count(&'a mut usize),
    Size32(&'a mut u32),
    MaybeSize32(&'a mut Option<u32>),
    Size(&'a mut usize),
    MaybeSize(&'a mut Option<usize>),
    Time(&'a mut Duration),
    Micros(&'a mut Duration),
    /// 0 for none.
    MaybeMillis(&'a mut Option<Duration>),
    Switch(&'a mut bool),
    Text(&'a mut String),
    MaybeText(&'a mut Option<String>),
    /// A token, of which the hash is kept; not shown.
    Token(&'a mut Option<Digest>),
    TokenHash(&'a mut Option<Digest>),
    Rules(&'a mut Vec<Rule>),
    Filter(&'a mut String),
    LogFormat(&'a mut LogFormat),
    Addrs(&'a mut Vec<ListenAddr>),
    MaybeAddr(&'a mut Option<ListenAddr>),
    MaybeUrl(&'a mut Option<String>),
    MaybePath(&'a mut Option<PathBuf>),
    Cores(&'a mut Cores),
    Io(&'a mut Io),
    Url(&'a mut TargetUrl),
    Channels(&'a mut Vec<NamedChannel>),
    What(&'a mut What),
    WhenFull(&'a mut WhenFull),
}

const HASH_EXPECTED: &str = "sha256: and 64 hexadecimal digits";
const RULES_EXPECTED: &str = "rules such as consume:orders, publish:log.*, provide:resize or *:*";

impl Slot<'_> {
    /// Reads the value from text, of which there may be several where it is a list.
    ///
    /// # Errors
    /// What was expected.
    pub(crate) fn set(&mut self, given: &[String]) -> Result<(), String> {
        match self {
            Slot::Addrs(addrs) => {
                **addrs = given.iter().map(|text| text.trim().parse().map_err(expected)).collect::<Result<_, _>>()?;
                return Ok(());
            }
            Slot::Rules(rules) => {
                let rule = |text: &String| text.trim().parse().map_err(|_: BadRule| RULES_EXPECTED);
                **rules = given.iter().map(rule).collect::<Result<_, _>>()?;
                return Ok(());
            }
            Slot::Channels(channels) => {
                **channels = given.iter().map(|text| text.trim().parse()).collect::<Result<_, _>>()?;
                return Ok(());
            }
            // a TOML array of CPUs
            Slot::Cores(cores) if given.len() > 1 => {
                **cores = given.join(",").parse().map_err(expected)?;
                return Ok(());
            }
            _ => {}
        }
        let [text] = given else { return Err("one value, not a list".into()) };
        match self {
            Slot::Count16(n) => **n = count(text)?,
            Slot::Count32(n) => **n = count(text)?,
            Slot::MaybeCount32(n) => **n = Some(count(text)?),
            Slot::Count(n) => **n = count(text)?,
            Slot::Size32(n) => **n = size(text)?,
            Slot::MaybeSize32(n) => **n = Some(size(text)?),
            Slot::Size(n) => **n = size(text)?,
            Slot::MaybeSize(n) => **n = Some(size(text)?),
            Slot::Time(time) => **time = parse_duration(text).map_err(|_| DURATION_EXPECTED)?,
            Slot::Micros(time) => **time = Duration::from_micros(count(text)?),
            Slot::MaybeMillis(time) => {
                let millis = Duration::from_millis(count(text)?);
                **time = (millis > Duration::ZERO).then_some(millis);
            }
            Slot::Switch(on) => **on = text.parse().map_err(|_| "true or false")?,
            Slot::Text(own) => text.clone_into(own),
            Slot::MaybeText(own) => **own = Some(text.clone()),
            Slot::Token(_) if text.is_empty() => return Err("a token".into()),
            Slot::Token(token) => **token = Some(Digest::of_written(text).map_err(|_| HASH_EXPECTED)?),
            Slot::TokenHash(token) => **token = Some(text.parse().map_err(|_: BadDigest| HASH_EXPECTED)?),
            Slot::Addrs(_) | Slot::Channels(_) | Slot::Rules(_) => unreachable!("set above"),
            Slot::Filter(own) => {
                parse_filter(text)?;
                text.clone_into(own);
            }
            Slot::LogFormat(format) => **format = text.parse()?,
            Slot::MaybeAddr(addr) if text == "off" => **addr = None,
            Slot::MaybeAddr(addr) => **addr = Some(text.parse().map_err(|bad| format!("off, or {}", expected(bad)))?),
            Slot::MaybeUrl(url) if text == "off" => **url = None,
            Slot::MaybeUrl(url) => **url = Some(plain_url(text)?),
            Slot::MaybePath(path) => **path = (!text.is_empty()).then(|| text.into()),
            Slot::Cores(cores) => **cores = text.parse().map_err(expected)?,
            Slot::Io(io) => **io = text.parse().map_err(expected)?,
            Slot::Url(url) => url.0 = text.trim().to_owned(),
            Slot::What(what) => **what = text.parse()?,
            Slot::WhenFull(policy) => **policy = text.parse().map_err(|_| "drop_newest, drop_oldest or block")?,
        }
        Ok(())
    }

    /// The value in TOML; `None` where there is none.
    pub(crate) fn show(&self) -> Option<String> {
        let size = |bytes: usize| quoted(show_size(bytes as u64));
        Some(match self {
            Slot::Count16(n) => n.to_string(),
            Slot::Count32(n) => n.to_string(),
            Slot::MaybeCount32(n) => (**n)?.to_string(),
            Slot::Count(n) => n.to_string(),
            Slot::Size32(n) => size(**n as usize),
            Slot::MaybeSize32(n) => size((**n)? as usize),
            Slot::Size(n) => size(**n),
            Slot::MaybeSize(n) => size((**n)?),
            Slot::Time(time) => quoted(show_duration(**time)),
            Slot::Micros(time) => time.as_micros().to_string(),
            Slot::MaybeMillis(time) => time.unwrap_or_default().as_millis().to_string(),
            Slot::Switch(on) => on.to_string(),
            Slot::Text(text) | Slot::Filter(text) => quoted(text),
            Slot::LogFormat(format) => quoted(format),
            Slot::MaybeText(text) => quoted((**text).as_ref()?),
            Slot::Token(_) => return None,
            Slot::TokenHash(token) => quoted((**token)?),
            Slot::Rules(rules) if rules.is_empty() => return None,
            Slot::Rules(rules) => list(rules),
            Slot::Addrs(addrs) => list(addrs),
            Slot::Url(url) if url.0.is_empty() => return None,
            Slot::Url(url) => quoted(url),
            Slot::Channels(channels) if channels.is_empty() => return None,
            Slot::Channels(channels) => list(channels),
            Slot::What(what) => quoted(what),
            Slot::WhenFull(policy) => quoted(policy.as_str()),
            Slot::MaybeAddr(addr) => addr.as_ref().map_or_else(|| quoted("off"), quoted),
            Slot::MaybeUrl(url) => quoted(url.as_deref().map_or_else(|| "off".into(), redact)),
            Slot::MaybePath(path) => quoted(path.as_ref()?.display()),
            Slot::Cores(Cores::Count(n)) => n.to_string(),
            Slot::Cores(cores) => quoted(cores),
            Slot::Io(io) => quoted(io),
        })
    }

    /// The value, to tell whether another one is the same. A URL's secrets are in it: it is for no eyes.
    pub(crate) fn compared(&self) -> Option<String> {
        match self {
            Slot::Url(url) => Some(url.0.clone()),
            Slot::MaybeUrl(url) => (**url).clone(),
            _ => self.show(),
        }
    }
}

fn expected(bad: BadValue) -> String {
    bad.expected.into()
}

fn plain_url(text: &str) -> Result<String, String> {
    let uri: Option<hyper::Uri> = text.parse().ok();
    let plain =
        uri.is_some_and(|uri| uri.scheme_str() == Some("http") && uri.host().is_some_and(|host| !host.is_empty()));
    if plain { Ok(text.to_owned()) } else { Err("off, or http://host:port".to_owned()) }
}

fn count<T: FromStr>(text: &str) -> Result<T, String> {
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let number = if digits { text.parse().ok() } else { None };
    number.ok_or_else(|| format!("a whole number of at most {} bits", 8 * size_of::<T>()))
}

fn size<T: TryFrom<u64>>(text: &str) -> Result<T, String> {
    let bytes = parse_size(text).map_err(|_| SIZE_EXPECTED)?;
    T::try_from(bytes).map_err(|_| format!("a size of at most {} bits", 8 * size_of::<T>()))
}

/// A TOML array of strings.
fn list(items: &[impl Display]) -> String {
    format!("[{}]", items.iter().map(quoted).collect::<Vec<_>>().join(", "))
}

/// A TOML basic string.
pub(crate) fn quoted(text: impl Display) -> String {
    toml::Value::String(text.to_string()).to_string()
}
