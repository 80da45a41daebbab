//! A message's headers where the target takes other names, or text alone.

use serde_json::{Value, json};

/// Names and values as a JSON array of pairs, in their order. A value that is no text, or has a NUL in it, is an
/// object: `{"hex": "00ff"}`.
pub(super) fn as_json<'a>(headers: impl IntoIterator<Item = (&'a [u8], &'a [u8])>) -> Value {
    headers.into_iter().map(|(name, value)| json!([text(name), text(value)])).collect()
}

fn text(bytes: &[u8]) -> Value {
    match std::str::from_utf8(bytes) {
        Ok(text) if !text.contains('\0') => text.into(),
        _ => json!({ "hex": bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>() }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_that_are_no_text_survive() {
        let headers: [(&[u8], &[u8]); 3] = [(b"a", b"x"), (b"a", b"\xff\x00"), (b"b", b"\0")];
        let json = as_json(headers).to_string();
        assert_eq!(json, r#"[["a","x"],["a",{"hex":"ff00"}],["b",{"hex":"00"}]]"#);
    }
}
