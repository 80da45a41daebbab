//! The table, by a name from the configuration: checked and quoted. Nothing of a message is ever part of a statement.

/// PostgreSQL cuts longer identifiers.
const LONGEST: usize = 63;

/// A table's statements.
#[derive(Debug)]
pub(super) struct Table {
    create: String,
    insert: String,
}

impl Table {
    /// Of `name` or `schema.name`; what is wrong with it otherwise.
    pub(super) fn new(name: &str) -> Result<Table, String> {
        let parts: Vec<&str> = name.split('.').collect();
        if parts.len() > 2 || !parts.iter().all(|part| is_identifier(part)) {
            return Err(format!(
                "table is {name:?}: expected a name, or schema.name, of letters, digits, _ and $, not beginning with a \
                 digit, up to {LONGEST} each"
            ));
        }
        let quoted = parts.iter().map(|part| format!("\"{part}\"")).collect::<Vec<_>>().join(".");
        Ok(Table {
            create: format!(
                "CREATE TABLE IF NOT EXISTS {quoted} (
                    key uuid NOT NULL,
                    part integer NOT NULL,
                    state text NOT NULL,
                    request_id uuid NOT NULL,
                    channel uuid NOT NULL,
                    kind text NOT NULL,
                    received timestamptz NOT NULL,
                    headers jsonb NOT NULL,
                    body bytea NOT NULL,
                    position bigint GENERATED ALWAYS AS IDENTITY,
                    PRIMARY KEY (key, part)
                )"
            ),
            insert: format!(
                "INSERT INTO {quoted} (key, part, state, request_id, channel, kind, received, headers, body)
                SELECT key::uuid, part, state, request_id::uuid, channel::uuid, kind,
                    timestamptz 'epoch' + received * interval '1 microsecond', headers::jsonb, body
                FROM unnest($1, $2, $3, $4, $5, $6, $7, $8, $9) WITH ORDINALITY
                    AS sent (key, part, state, request_id, channel, kind, received, headers, body, turn)
                ORDER BY turn
                ON CONFLICT DO NOTHING"
            ),
        })
    }

    /// Makes it, if it isn't there.
    pub(super) fn create(&self) -> &str {
        &self.create
    }

    /// Inserts the rows of nine arrays: see [`Rows`](super::rows::Rows).
    pub(super) fn insert(&self) -> &str {
        &self.insert
    }
}

fn is_identifier(name: &str) -> bool {
    let first = |byte: u8| byte.is_ascii_alphabetic() || byte == b'_';
    let other = |byte: u8| byte.is_ascii_alphanumeric() || b"_$".contains(&byte);
    (1..=LONGEST).contains(&name.len()) && first(name.as_bytes()[0]) && name.bytes().all(other)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_checked_and_quoted() {
        let table = Table::new("Events.orders_2$").unwrap();
        assert!(table.insert().starts_with("INSERT INTO \"Events\".\"orders_2$\" ("));
        assert!(table.create().starts_with("CREATE TABLE IF NOT EXISTS \"Events\".\"orders_2$\" ("));
        let longer = "x".repeat(64);
        for name in ["", ".", "a.", "a.b.c", "1a", "a\"b", "a b", "a;b", "ä", "a-b", &longer] {
            assert!(Table::new(name).is_err(), "{name}");
        }
        assert!(Table::new(&"x".repeat(63)).is_ok());
    }
}
