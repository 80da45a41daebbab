//! Kafka: the mock cluster of librdkafka, which speaks the protocol on real sockets and keeps what it is given in memory.

use std::sync::{Mutex, OnceLock, mpsc};
use std::time::Duration;

use rdkafka::error::KafkaResult;
use rdkafka::mocking::MockCluster;

type Order = Box<dyn FnOnce(&Cluster) -> KafkaResult<()> + Send>;
type Cluster = MockCluster<'static, rdkafka::producer::DefaultProducerContext>;

/// A cluster of one broker, on a thread of its own, which it may not leave. It goes when this does.
#[derive(Debug)]
pub struct Kafka {
    pub brokers: String,
    orders: Mutex<mpsc::Sender<(Order, mpsc::Sender<KafkaResult<()>>)>>,
}

impl Kafka {
    /// Starts one.
    pub fn start() -> Kafka {
        let (orders, received) = mpsc::channel::<(Order, mpsc::Sender<KafkaResult<()>>)>();
        let (told, brokers) = mpsc::channel();
        std::thread::spawn(move || {
            let cluster = MockCluster::new(1).expect("a mock cluster");
            told.send(cluster.bootstrap_servers()).expect("who started it waits");
            for (order, answer) in received {
                let _ = answer.send(order(&cluster));
            }
        });
        Kafka { brokers: brokers.recv().expect("it starts"), orders: Mutex::new(orders) }
    }

    fn order(&self, order: impl FnOnce(&Cluster) -> KafkaResult<()> + Send + 'static) {
        let (answer, answered) = mpsc::channel();
        self.orders.lock().unwrap().send((Box::new(order), answer)).expect("the cluster runs");
        answered.recv().expect("the cluster runs").unwrap();
    }

    /// The mock can't be told by the protocol.
    pub fn create_topic(&self, name: &str, partitions: i32) {
        let name = name.to_string();
        self.order(move |cluster| cluster.create_topic(&name, partitions, 1));
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
    tokio::task::spawn_blocking(|| SHARED.get_or_init(Kafka::start)).await.unwrap()
}
