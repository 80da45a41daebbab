//! Kafka. The mock cluster can't create or delete topics by the protocol: these two need a cluster that is there.

use std::sync::Arc;
use std::time::Duration;

use corelay::toolkit::message_broker::kafka::{Kafka, Login, Options};
use corelay::toolkit::message_broker::{Broker, Consume, ErrorKind, TopicOptions};

use super::conformance::conformance;
use super::outage::{Victim, survives};
use super::system::{System, consume, number_of, numbered, soon};
use crate::servers::kafka::{self, Kafka as Cluster};
use crate::servers::unique;

fn options(brokers: &str, prefix: &str) -> Options {
    // the mock waits for 3 s when the first member joins, and forgets one that is silent for longer than a session; it
    // waits for a second less than that when a member joins others
    let session_timeout = Duration::from_secs(5);
    Options { brokers: brokers.into(), prefix: prefix.into(), session_timeout, ..Options::default() }
}

fn over(cluster: &Cluster, prefix: &str) -> System {
    with(options(&cluster.brokers, prefix))
}

fn with(options: Options) -> System {
    System::new(move || {
        let options = options.clone();
        async { Broker::new(Kafka::connect(options).await.unwrap()) }
    })
}

/// With so many partitions a topic.
async fn system(partitions: u16) -> Option<System> {
    let (cluster, prefix) = (kafka::shared().await, unique("t"));
    if !cluster.is_mock() {
        let options = Options { partitions: Some(partitions), ..options(&cluster.brokers, &prefix) };
        return Some(with(options));
    }
    let partitions = partitions.into();
    let system = over(cluster, &prefix);
    Some(system.making_topics(move |topic| cluster.create_topic(&format!("{prefix}{topic}"), partitions)))
}

conformance! { system(4) =>
    messages_arrive_as_they_were_sent
    a_group_shares_and_every_group_gets_all
    what_is_refused_comes_again
    what_a_lost_member_held_goes_to_another
    what_is_late_comes_again
    what_was_acknowledged_does_not_come_again
    a_key_is_kept_in_order_by_all_members
    handlers_share_fail_and_are_called_again
    subscriptions_come_and_go
    no_more_than_so_many_at_once
    health_and_figures_tell_the_truth
    bad_input_is_refused_at_once
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn topics_come_and_go() {
    if kafka::shared().await.is_mock() {
        eprintln!(
            "SKIPPED: the mock cluster creates no topics by the protocol; CORELAY_TEST_KAFKA=host:port names one that does"
        );
        return;
    }
    super::conformance::topics_come_and_go(&system(1).await.unwrap()).await;
}

// what is published without a key has an order within one partition only
conformance! { system(1) => a_new_group_begins_where_it_says }

struct Down(Arc<Cluster>);

impl Victim for Down {
    fn go_and_come_back(&mut self) {
        self.0.go_down();
        // long enough to be noticed, shorter than a session
        std::thread::sleep(Duration::from_millis(500));
        self.0.come_up();
    }

    fn log(&self) -> String {
        "the mock cluster keeps none".into()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_acknowledged_is_lost_when_the_broker_is_gone_for_a_while() {
    let cluster = Arc::new(Cluster::start());
    let making = cluster.clone();
    let system = over(&cluster, "t").making_topics(move |topic| making.create_topic(&format!("t{topic}"), 4));
    survives(&system, Down(cluster), 3).await;
}

#[tokio::test]
async fn topics_are_found_and_what_is_not_there_is_said() {
    let (cluster, prefix, topic) = (kafka::shared().await, unique("t"), unique("topic"));
    let broker = over(cluster, &prefix).connect().await;
    let unknown = [
        broker.publish(numbered(&topic, 1)).await.unwrap_err(),
        broker.consume(consume(&topic, "g")).await.unwrap_err(),
        broker.delete_topic(&topic).await.unwrap_err(),
    ];
    assert!(unknown.iter().all(|error| error.kind() == ErrorKind::UnknownTopic), "{unknown:?}");
    assert!(!broker.topic_exists(&topic).await.unwrap());
    cluster.create_topic(&format!("{prefix}{topic}"), 1);
    assert!(broker.topic_exists(&topic).await.unwrap());
    assert_eq!(broker.topics().await.unwrap(), vec![topic.clone()]);
    soon("publish", broker.publish(numbered(&topic, 1))).await.unwrap();
    let bounded = TopicOptions { max_messages: Some(1), ..TopicOptions::default() };
    assert_eq!(broker.create_topic("other", bounded).await.unwrap_err().kind(), ErrorKind::Unsupported);
    broker.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_acknowledged_out_of_turn_comes_again_only_if_the_member_is_lost() {
    let system = system(1).await.unwrap();
    let broker = system.connect().await;
    let topic = system.topic(&broker).await;
    let mut one = soon("membership", broker.consume(consume(&topic, "g"))).await.unwrap();
    for n in 0..3 {
        soon("publish", broker.publish(numbered(&topic, n))).await.unwrap();
    }
    let mut held = Vec::new();
    for _ in 0..3 {
        held.push(soon("message", one.next()).await.unwrap());
    }
    let (last, middle, first) = (held.pop().unwrap(), held.pop().unwrap(), held.pop().unwrap());
    soon("acknowledgement", first.ack()).await.unwrap();
    soon("acknowledgement", last.ack()).await.unwrap();
    soon("leaving", one.leave()).await.unwrap();
    assert_eq!(middle.ack().await.unwrap_err().kind(), ErrorKind::Expired);
    let mut next = soon("membership", broker.consume(consume(&topic, "g"))).await.unwrap();
    for n in 1..3 {
        let delivery = soon("message", next.next()).await.unwrap();
        assert_eq!(number_of(delivery.message()), n);
        soon("acknowledgement", delivery.ack()).await.unwrap();
    }
    broker.close().await;
}

/// Behind a proxy, as the mock knows no TLS.
#[cfg(feature = "kafka-tls")]
mod tls {
    use super::*;
    use crate::pki::Pki;
    use crate::servers::kafka_tls::Front;

    /// A mock, TLS before it, and who signed that.
    async fn front() -> (Arc<Cluster>, Front, Pki) {
        let cluster = tokio::task::spawn_blocking(Cluster::start).await.unwrap();
        let pki = Pki::new();
        let front = Front::start(&cluster.brokers, &pki.server("kafka")).await;
        (Arc::new(cluster), front, pki)
    }

    fn options(front: &Front, pki: &Pki) -> Options {
        Options { tls: true, ca: Some(pki.ca()), ..super::options(&front.brokers, "t") }
    }

    async fn system() -> Option<System> {
        let (cluster, front, pki) = front().await;
        let (options, making) = (options(&front, &pki), cluster);
        let system = with(options).keeping((front, pki));
        Some(system.making_topics(move |topic| making.create_topic(&format!("t{topic}"), 4)))
    }

    conformance! { system() =>
        messages_arrive_as_they_were_sent
        what_is_refused_comes_again
        a_key_is_kept_in_order_by_all_members
        handlers_share_fail_and_are_called_again
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn who_is_not_trusted_is_not_talked_to() {
        let (_cluster, front, pki) = front().await;
        let good = Options { timeout: Duration::from_secs(2), ..options(&front, &pki) };
        Kafka::connect(good.clone()).await.unwrap();
        let stranger = Pki::new();
        for (wrong, kind) in [
            (Options { ca: Some(stranger.ca()), ..good.clone() }, ErrorKind::Connection),
            (Options { ca: None, ..good.clone() }, ErrorKind::Connection),
            (Options { tls: false, ca: None, ..good.clone() }, ErrorKind::Connection),
            (Options { tls: false, ..good.clone() }, ErrorKind::Invalid),
            (Options { ca: Some("/not/there.pem".into()), ..good.clone() }, ErrorKind::Invalid),
        ] {
            let error = Kafka::connect(wrong.clone()).await.unwrap_err();
            assert_eq!(error.kind(), kind, "{wrong:?}: {error}");
        }
        // with TLS built in, so are these; the mock doesn't ask
        for mechanism in ["SCRAM-SHA-256", "SCRAM-SHA-512"] {
            let login = Login { user: "me".into(), password: "secret".into(), mechanism: mechanism.into() };
            let error = Kafka::connect(Options { login: Some(login), ..good.clone() }).await.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Connection, "{error}");
        }
    }
}

#[tokio::test]
async fn what_cannot_work_is_an_error_that_says_so() {
    let connect = async |options: Options| Kafka::connect(options).await.unwrap_err();
    let nobody = format!("127.0.0.1:{}", crate::servers::free_port());
    let quick = Options { timeout: Duration::from_millis(300), ..options(&nobody, "t") };
    assert_eq!(connect(quick).await.kind(), ErrorKind::Connection);
    for brokers in ["no url", "", "host", ":9092", "host:99999"] {
        assert_eq!(connect(options(brokers, "t")).await.kind(), ErrorKind::Invalid, "{brokers}");
    }
    let login =
        |mechanism: &str| Some(Login { user: "me".into(), password: "secret".into(), mechanism: mechanism.into() });
    let odd = Options { login: login("ODD"), ..options(&nobody, "t") };
    assert!(!format!("{odd:?}").contains("secret"));
    let error = connect(odd).await;
    assert!(!error.to_string().contains("secret"), "{error}");
    if !cfg!(feature = "kafka-tls") {
        let error = connect(Options { tls: true, ..options(&nobody, "t") }).await;
        assert_eq!(error.kind(), ErrorKind::Unsupported, "{error}");
    }
    let broker = over(kafka::shared().await, "t").connect().await;
    let temporary = Consume { temporary: true, ..consume("not.there", "g") };
    assert_eq!(broker.consume(temporary).await.unwrap_err().kind(), ErrorKind::UnknownTopic);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_acknowledgement_that_nobody_hears_is_a_timeout() {
    let cluster = Cluster::start();
    cluster.create_topic("topic", 1);
    let options = Options { timeout: Duration::from_secs(2), ..options(&cluster.brokers, "") };
    let broker = Broker::new(Kafka::connect(options).await.unwrap());
    let mut member = soon("membership", broker.consume(consume("topic", "g"))).await.unwrap();
    soon("publish", broker.publish(numbered("topic", 1))).await.unwrap();
    let delivery = soon("message", member.next()).await.unwrap();
    cluster.go_down();
    let error = soon("answer", delivery.ack()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Timeout, "{error}");
    cluster.come_up();
    // whether it comes again is unknown; the next one comes
    while let Err(error) = soon("publish", broker.publish(numbered("topic", 2))).await {
        assert!(error.is_retryable(), "{error}");
    }
    loop {
        let delivery = soon("message", member.next()).await.unwrap();
        let number = number_of(delivery.message());
        if delivery.ack().await.is_ok() && number == 2 {
            break;
        }
    }
    soon("leaving", member.leave()).await.unwrap();
    broker.close().await;
}
