//! The table of what each system can and can't is what the adapters answer.

use std::fs;
use std::path::Path;

use corelay::toolkit::message_broker::{Capabilities, Memory};

/// The adapters of this build.
fn adapters() -> Vec<(&'static str, Capabilities)> {
    vec![
        ("memory", Memory::CAPABILITIES),
        ("corelay", corelay::toolkit::message_broker::corelay::Corelay::CAPABILITIES),
        #[cfg(feature = "nats")]
        ("nats", corelay::toolkit::message_broker::nats::Nats::CAPABILITIES),
        #[cfg(feature = "redis")]
        ("redis", corelay::toolkit::message_broker::redis::Redis::CAPABILITIES),
        #[cfg(feature = "amqp")]
        ("amqp", corelay::toolkit::message_broker::amqp::Amqp::CAPABILITIES),
        #[cfg(feature = "kafka")]
        ("kafka", corelay::toolkit::message_broker::kafka::Kafka::CAPABILITIES),
    ]
}

/// A row's first words, and the capability it is about. What all systems do has none.
type Row = (&'static str, Option<fn(Capabilities) -> bool>);

const ROWS: [Row; 12] = [
    ("takes charge of what is published", Some(|can| can.stores)),
    ("survives a restart of the system", Some(|can| can.durable)),
    ("every group gets every message", Some(|can| can.fan_out)),
    ("redelivery of what was refused, or whose member was lost", None),
    ("redelivery after `ack_timeout`", Some(|can| can.ack_timeout)),
    ("the system holds back what was refused with a delay", Some(|can| can.delayed_nack)),
    ("order of a key in a group", Some(|can| can.order_per_key)),
    ("topics: create, delete, check", Some(|can| can.topics)),
    ("topics: list", Some(|can| can.list_topics)),
    ("a new group from the earliest message", Some(|can| can.start_earliest)),
    ("topics bounded by count", Some(|can| can.max_messages)),
    ("topics bounded by age", Some(|can| can.max_age)),
];

/// The cells of the table in this file, its head first.
fn table(file: &str) -> Vec<Vec<String>> {
    let text = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(file)).unwrap();
    let lines = text.lines().map(|line| line.trim_start_matches("//! "));
    let lines = lines.skip_while(|line| !line.starts_with("| | `memory` |")).take_while(|line| line.starts_with('|'));
    let cells = |line: &str| line.trim_matches('|').split('|').map(|cell| cell.trim().to_string()).collect();
    lines.filter(|line| !line.starts_with("|---")).map(cells).collect()
}

#[test]
fn is_what_the_adapters_answer() {
    let table = table("docs/TOOLKIT.md");
    assert_eq!(table, self::table("src/toolkit/message_broker.rs"), "the module's page has another one");
    let rows: Vec<_> = table.iter().skip(1).map(|row| row[0].as_str()).collect();
    assert_eq!(rows, ROWS.map(|(name, _)| name));
    for (system, can) in adapters() {
        let column = table[0].iter().position(|head| *head == format!("`{system}`")).expect(system);
        for (row, (name, capability)) in table.iter().skip(1).zip(ROWS) {
            let says = &row[column];
            let is_yes = says.starts_with("yes");
            assert!(is_yes || says.starts_with("no"), "{system}, {name}: {says}");
            assert_eq!(is_yes, capability.is_none_or(|capability| capability(can)), "{system}, {name}: {says}");
        }
    }
}
