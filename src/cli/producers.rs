//! `corelay producers`: who messages are forwarded to, and what becomes of them.

use corelay::telemetry::view::{Producer, Producerz};

use super::admin::AdminArgs;
use super::exit::{Failure, HELP_ADMIN};
use super::lists::{Table, ago, raw, say, shown, shown_to, silence, took};
use super::signals::block_on;
use super::text;

/// Show the producers: whom messages are forwarded to, what was delivered and dropped
#[derive(Debug, clap::Args)]
#[command(after_help = HELP_ADMIN)]
pub(crate) struct Args {
    #[command(flatten)]
    admin: AdminArgs,
    /// Print what the admin endpoint says, in JSON
    #[arg(long)]
    json: bool,
}

/// Of an error, what a terminal has room for.
const MOST: usize = 200;

pub(crate) fn run(args: Args) -> Result<(), Failure> {
    if args.json {
        return raw(&args.admin, "/producerz");
    }
    let page: Producerz = block_on(args.admin.get("/producerz"))?;
    say(&written(&page))
}

fn written(page: &Producerz) -> String {
    if page.producers.is_empty() {
        return "no producers\n".to_owned();
    }
    let mut table = Table::new(&[
        "PRODUCER",
        "PROTOCOL",
        "ADDRESS",
        "BREAKER",
        "TAKES",
        "ACCEPTED",
        "FORWARDED",
        "BYTES",
        "RETRIED",
        "DROPPED",
        "DEAD LETTERS",
        "QUEUED",
        "SIZE",
        "P50",
        "P99",
    ]);
    for producer in &page.producers {
        let counts = &producer.counts;
        let target = [&producer.id, &producer.protocol, &producer.address].map(|text| shown(text));
        let mut row = Vec::from(target);
        row.extend([producer.state.clone(), takes(producer)]);
        row.extend([counts.accepted, counts.forwarded].map(text::grouped));
        row.push(text::bytes(counts.forwarded_bytes));
        let given_up = [counts.retried, counts.dropped_total(), counts.dead_lettered, counts.queue_messages];
        row.extend(given_up.map(text::grouped));
        row.push(text::bytes(counts.queue_bytes));
        row.extend([counts.latency.p50, counts.latency.p99].map(|time| took(time, &counts.latency)));
        table.row(row);
    }
    let more: String = page.producers.iter().flat_map(remarks).collect();
    format!("{}{more}{}", table.text(), silence(&page.silent_cores))
}

/// Requests or responses, and from where.
fn takes(producer: &Producer) -> String {
    match &producer.channels[..] {
        [] => producer.what.clone(),
        channels => shown(&format!("{} of {}", producer.what, channels.join(","))),
    }
}

/// Why messages were dropped, and what went wrong last: a line each, if there is something to say.
fn remarks(producer: &Producer) -> Vec<String> {
    let id = shown(&producer.id);
    let reasons = producer.counts.dropped.iter().filter(|(_, count)| **count > 0);
    let reasons: Vec<_> = reasons.map(|(reason, count)| format!("{} {reason}", text::grouped(*count))).collect();
    let dropped = (!reasons.is_empty()).then(|| format!("{id}: dropped {}\n", reasons.join(", ")));
    let error = producer.counts.last_error.as_ref();
    let error = error.map(|error| format!("{id}: {} ago: {}\n", ago(error.age_seconds), shown_to(&error.text, MOST)));
    dropped.into_iter().chain(error).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_target_says_cannot_steer_the_terminal() {
        let page = r#"{"silent_cores":[1],"producers":[{"id":"log","protocol":"tcp","address":"tcp://a:1","promise":
            "at_most_once","what":"both","channels":["orders","b"],"max_body":null,"parts":false,"when_full":"block",
            "state":"open","accepted":1200,"forwarded":1000,"forwarded_bytes":2048,"retried":3,"dropped":
            {"handover":0,"too_old":150},"dead_lettered":0,"queue_messages":50,"queue_bytes":9000,"queue_limit":10000,
            "last_error":{"text":"it said \u001b[2J","age_seconds":600.0},"latency":{"count":1000,"mean":0.001,
            "p50":0.001,"p90":0.002,"p99":0.004,"p999":0.005,"max":0.005},"per_core":[]}]}"#;
        insta::assert_snapshot!("producers", written(&serde_json::from_str(page).unwrap()));
        assert_eq!(written(&Producerz::default()), "no producers\n");
    }
}
