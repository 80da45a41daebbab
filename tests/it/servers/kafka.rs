//! Kafka: the mock cluster of librdkafka, which speaks the protocol on real sockets and keeps what it is given in memory.
//! In its place the tests take a cluster that is there, where `CORELAY_TEST_KAFKA` names one (`host:port`).

use std::sync::{Mutex, OnceLock, mpsc};
use std::time::Duration;

use rdkafka::ClientConfig;
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::error::KafkaResult;
use rdkafka::mocking::MockCluster;

type Order = Box<dyn FnOnce(&Cluster) -> KafkaResult<()> + Send>;
type Cluster = MockCluster<'static, rdkafka::producer::DefaultProducerContext>;

/// A cluster of one broker, on a thread of its own, which it may not leave. It goes when this does.
#[derive(Debug)]
pub struct Kafka {
    pub brokers: String,
    /// To the mock; one that was there before takes none.
    orders: Option<Mutex<mpsc::Sender<Told>>>,
}

/// An order, and where its outcome goes.
type Told = (Order, mpsc::Sender<KafkaResult<()>>);

impl Kafka {
    /// Starts one.
    pub fn start() -> Kafka {
        let (orders, received) = mpsc::channel::<Told>();
        let (told, brokers) = mpsc::channel();
        std::thread::spawn(move || {
            let cluster = MockCluster::new(1).expect("a mock cluster");
            told.send(cluster.bootstrap_servers()).expect("who started it waits");
            for (order, answer) in received {
                let _ = answer.send(order(&cluster));
            }
        });
        Kafka { brokers: brokers.recv().expect("it starts"), orders: Some(Mutex::new(orders)) }
    }

    fn order(&self, order: impl FnOnce(&Cluster) -> KafkaResult<()> + Send + 'static) {
        let (answer, answered) = mpsc::channel();
        let orders = self.orders.as_ref().expect("a mock cluster");
        orders.lock().unwrap().send((Box::new(order), answer)).expect("the cluster runs");
        answered.recv().expect("the cluster runs").unwrap();
    }

    /// Whether it is the mock, which can't be told to create and delete topics by the protocol.
    pub fn is_mock(&self) -> bool {
        self.orders.is_some()
    }

    /// By the way there is.
    pub fn create_topic(&self, name: &str, partitions: i32) {
        if !self.is_mock() {
            return self.ask_for_topic(name, partitions);
        }
        let name = name.to_string();
        self.order(move |cluster| cluster.create_topic(&name, partitions, 1));
    }

    fn ask_for_topic(&self, name: &str, partitions: i32) {
        let admin: AdminClient<DefaultClientContext> =
            ClientConfig::new().set("bootstrap.servers", &self.brokers).create().unwrap();
        let topic = [NewTopic::new(name, partitions, TopicReplication::Fixed(1))];
        let create = || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(admin.create_topics(&topic, &AdminOptions::new()))
        };
        // whoever calls may be in a runtime already
        let created = std::thread::scope(|scope| scope.spawn(create).join().unwrap());
        created.unwrap().pop().unwrap().unwrap();
    }

    /// Drops all connections and takes no more.
    pub fn go_down(&self) {
        self.order(|cluster| cluster.broker_down(-1));
    }

    pub fn come_up(&self) {
        self.order(|cluster| cluster.broker_up(-1));
    }

    /// Answers that much later from now on.
    pub fn slow_down(&self, by: Duration) {
        self.order(move |cluster| cluster.broker_round_trip_time(-1, by));
    }
}

/// The one all tests share.
pub async fn shared() -> &'static Kafka {
    static SHARED: OnceLock<Kafka> = OnceLock::new();
    let find = || match std::env::var("CORELAY_TEST_KAFKA") {
        Ok(brokers) => Kafka { brokers, orders: None },
        Err(_) => Kafka::start(),
    };
    tokio::task::spawn_blocking(move || SHARED.get_or_init(find)).await.unwrap()
}
