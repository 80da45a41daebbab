//! Names of topics and groups: what every system takes.

use super::{Error, ErrorKind};

/// NATS and RabbitMQ take up to 255 bytes with what the adapters put around it.
pub(super) const LONGEST: usize = 200;

/// Refuses a name that not every system would take.
pub(super) fn check(what: &str, name: &str) -> Result<(), Error> {
    let wrong = |why: &str| Error::new(ErrorKind::Invalid, format!("{what} {name:?}: {why}"));
    if name.is_empty() {
        return Err(wrong("expected a name of 1 to 200 letters, digits, dots, underscores and dashes"));
    }
    if name.len() > LONGEST {
        return Err(wrong("expected at most 200 characters"));
    }
    if !name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte)) {
        return Err(wrong("expected letters, digits, dots, underscores and dashes only"));
    }
    if name.starts_with('.') || name.ends_with('.') || name.contains("..") {
        return Err(wrong("dots stand between other characters"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_every_system_takes() {
        let long = "x".repeat(200);
        for name in ["a", "user-events", "a.b_c-D.9", &long] {
            assert!(check("topic", name).is_ok(), "{name}");
        }
        let longer = "x".repeat(201);
        for name in ["", ".", "a..b", ".a", "a.", "a b", "a*", "a>", "a/b", "ä", "a\n", &longer] {
            assert_eq!(check("topic", name).unwrap_err().kind(), ErrorKind::Invalid, "{name}");
        }
    }
}
