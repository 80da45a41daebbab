//! Several producers at once.

use std::sync::Arc;

use corelay::forward::{ClientFactory, DropReason, ForwardError, PoolError, WhenFull};

use super::target::{DRAIN, Target, free_port, read, reader};
use super::*;

#[test]
fn a_black_hole_holds_up_nobody_else() {
    for io in runtimes() {
        // accepted by the kernel, read by nobody
        let hole = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let target = Target::tcp(reader);
        let pool = ProducerPool::on(io);
        let options = ProducerOptions { max_age: Duration::from_secs(3600), ..options() };
        let url = format!("tcp://{}?send_timeout=1h", hole.local_addr().unwrap());
        let black = pool.add("black", ClientFactory::create(&url).unwrap(), options.clone()).unwrap();
        let refused = ClientFactory::create(&format!("tcp://{}", free_port())).unwrap();
        pool.add(
            "down",
            refused,
            ProducerOptions {
                retries: 0,
                breaker_failures: u32::MAX,
                backoff_max: Duration::from_millis(2),
                ..options
            },
        )
        .unwrap();
        pool.add_url("up", &format!("tcp://{}", target.address)).unwrap();
        assert_eq!(pool.list(), ["black", "down", "up"]);
        while black.offer(vec![0; 1 << 20]).is_ok() {}
        eventually("a full socket", || black.snapshot().counters.queue_bytes > 1 << 20);
        for n in 0..100 {
            let results = pool.forward_to_many_blocking(&["down", "up", "nobody"], n.to_string());
            assert_eq!(results[0].1.as_ref().unwrap_err().reason(), Some(DropReason::RetriesSpent));
            assert_eq!(results[1], ("up".to_owned(), Ok(())));
            assert_eq!(results[2].1, Err(ForwardError::UnknownProducer("nobody".to_owned())));
        }
        let reports = pool.drain_blocking(Duration::from_millis(50));
        assert_eq!((reports["down"].left, reports["up"].left), (0, 0));
        assert!(reports["black"].left > 0);
        assert_eq!(reports["black"].dropped.total(), reports["black"].left);
        assert_balanced(&black.snapshot());
        assert!(pool.is_empty());
    }
}

#[test]
fn all_of_them_get_it_and_each_says_what_became_of_it() {
    for io in runtimes() {
        let targets = [Target::tcp(reader), Target::tcp(reader), Target::tcp(reader)];
        let pool = ProducerPool::on(io);
        for (n, target) in targets.iter().enumerate() {
            pool.add_url(format!("consumer-{n}"), &format!("tcp://{}", target.address)).unwrap();
        }
        for n in 0..50 {
            let results = pool.forward_to_all_blocking(n.to_string());
            assert!(results.iter().all(|(_, result)| result.is_ok()) && results.len() == 3);
        }
        let sent: Vec<_> = (0..50).map(|n| n.to_string().into_bytes()).collect();
        for target in &targets {
            eventually("all of it", || target.messages() == sent);
        }
        assert_eq!(pool.snapshot().iter().map(|snapshot| snapshot.counters.forwarded).sum::<u64>(), 150);
        assert!(pool.remove_blocking("consumer-1", DRAIN).is_some());
        assert!(pool.remove_blocking("consumer-1", DRAIN).is_none());
        assert_eq!(pool.len(), 2);
    }
}

/// The only test that uses it: it is the process's.
#[tokio::test]
async fn the_process_has_a_pool_and_short_functions_for_it() {
    use corelay::forward::{
        add_tcp_producer, add_tcp_producer_with_timeout, forward_to_all_producers, forward_to_producer,
        get_producer_pool,
    };
    let targets = [Target::tcp(reader), Target::tcp(reader)];
    add_tcp_producer("first", &targets[0].address).unwrap();
    add_tcp_producer_with_timeout("second", &targets[1].address, Duration::from_secs(10)).unwrap();
    let taken = add_tcp_producer("first", &targets[0].address);
    assert!(matches!(taken, Err(PoolError::Taken(_))) && add_tcp_producer("third", "nowhere").is_err());
    assert_eq!(get_producer_pool().list(), ["first", "second"]);
    forward_to_producer("first", "one").await.unwrap();
    assert_eq!(forward_to_producer("third", "one").await, Err(ForwardError::UnknownProducer("third".to_owned())));
    let results = forward_to_all_producers("two").await;
    assert_eq!(results, [("first".to_owned(), Ok(())), ("second".to_owned(), Ok(()))]);
    assert!(get_producer_pool().drain(DRAIN).await.values().all(|report| report.left == 0));
    eventually("both", || targets[0].messages() == [b"one", b"two"] && targets[1].messages() == [b"two"]);
}

#[test]
fn an_id_is_one_producer() {
    let pool = ProducerPool::new();
    pool.add_url("a", "udp://127.0.0.1:9").unwrap();
    assert!(matches!(pool.add_url("a", "udp://127.0.0.1:9"), Err(PoolError::Taken(id)) if id == "a"));
    assert!(matches!(pool.add_url("", "udp://127.0.0.1:9"), Err(PoolError::Options(_))));
    assert!(matches!(pool.add_url("b", "udp://127.0.0.1"), Err(PoolError::Url(_))));
    assert!(matches!(ProducerPool::local().add_url("a", "udp://127.0.0.1:9"), Err(PoolError::NoRuntime)));
}

#[test]
fn a_local_pool_lives_on_the_threads_own_runtime() {
    for io in runtimes() {
        let target = Target::tcp(reader);
        let url = format!("tcp://{}", target.address);
        corelay::forward::runtime::run_on(io, async {
            let pool = ProducerPool::local();
            pool.add_url("a", &url).unwrap();
            for n in 0..100 {
                pool.forward_to("a", n.to_string()).await.unwrap();
            }
            assert_eq!(pool.drain(DRAIN).await["a"].left, 0);
        })
        .unwrap();
        eventually("all of it", || target.messages().len() == 100);
    }
    // and on any of tokio's
    let target = Target::tcp(reader);
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(async {
        let pool = Arc::new(ProducerPool::local());
        pool.add_url("a", &format!("tcp://{}", target.address)).unwrap();
        let tasks = (0..4).map(|_| {
            let pool = Arc::clone(&pool);
            tokio::spawn(async move {
                for n in 0..50 {
                    pool.forward_to("a", n.to_string()).await.unwrap();
                }
            })
        });
        for task in tasks.collect::<Vec<_>>() {
            task.await.unwrap();
        }
        pool.drain(DRAIN).await;
    });
    eventually("all of it", || target.messages().len() == 200);
}

#[test]
fn a_flapping_target_costs_messages_only_where_that_is_the_promise() {
    for io in runtimes() {
        // up for some bytes, away for some milliseconds, again and again
        let address = free_port();
        let pool = ProducerPool::on(io);
        let options =
            ProducerOptions { when_full: WhenFull::Block, queue_bytes: 200_000, max_message: 10_000, ..options() };
        let client = ClientFactory::create(&format!("tcp://{address}")).unwrap();
        let producer = pool.add("test", client, options).unwrap();
        let sent = bodies(6_000, 5_000, 11);
        let (source, all) = (producer.clone(), sent.clone());
        let bringing = std::thread::spawn(move || {
            for body in all {
                while source.is_over() {
                    std::thread::yield_now();
                }
                source.offer(body).unwrap();
            }
        });
        let mut targets = Vec::new();
        for up in 0..8 {
            let mut target = Target::tcp_at(address, move |_, peer, log| {
                read(peer, log, 10_000 + up * 5_000);
            });
            let is_done = || bringing.is_finished() && producer.snapshot().counters.queue_messages == 0;
            eventually("a connection", || target.connections() > 0 || is_done());
            target.stop();
            let failed = producer.snapshot().counters.attempts_failed;
            eventually("trouble", || producer.snapshot().counters.attempts_failed > failed || is_done());
            targets.push(target);
        }
        targets.push(Target::tcp_at(address, reader));
        bringing.join().unwrap();
        assert_eq!(producer.drain_blocking(DRAIN).left, 0);
        eventually("the ends of all connections", || targets.iter().all(Target::is_quiet));
        let snapshot = producer.snapshot();
        let received: Vec<_> = targets.iter().flat_map(Target::messages).collect();
        assert_in_order(&received, &sent);
        let counters = &snapshot.counters;
        assert_eq!((counters.accepted, counters.forwarded + counters.dropped.total()), (6_000, 6_000));
        assert!(received.len() as u64 <= counters.forwarded);
        assert_balanced(&snapshot);
    }
}
