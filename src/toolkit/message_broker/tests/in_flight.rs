//! Whatever members do: none holds more than it asked for, and none goes without while there is something for it.

use std::time::Duration;

use proptest::prelude::*;
use tokio::time::timeout;

use super::super::{Broker, Consume, Delivery, Memory, Message, TopicOptions};

const MEMBERS: usize = 3;

#[derive(Clone, Copy, Debug)]
enum Step {
    Publish,
    /// A member takes a message.
    Take(usize),
    /// A member settles what it has held for longest.
    Ack(usize),
    Nack(usize),
    Drop(usize),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => Just(Step::Publish),
        6 => (0..MEMBERS).prop_map(Step::Take),
        3 => (0..MEMBERS).prop_map(Step::Ack),
        1 => (0..MEMBERS).prop_map(Step::Nack),
        1 => (0..MEMBERS).prop_map(Step::Drop),
    ]
}

async fn run(most: usize, steps: Vec<Step>) {
    let broker = Broker::new(Memory::default());
    broker.create_topic("t", TopicOptions::default()).await.unwrap();
    let consume = Consume { in_flight: most, ..Consume::new("t", "g") };
    let mut members = Vec::new();
    for _ in 0..MEMBERS {
        members.push(broker.consume(consume.clone()).await.unwrap());
    }
    let mut held: [Vec<Delivery>; MEMBERS] = Default::default();
    let mut ready = 0;
    for step in steps {
        match step {
            Step::Publish => {
                broker.publish(Message::builder("t").build().unwrap()).await.unwrap();
                ready += 1;
            }
            Step::Take(n) => {
                let may = held[n].len() < most && ready > 0;
                let taken = timeout(Duration::ZERO, members[n].next()).await.ok().map(Result::unwrap);
                assert_eq!(taken.is_some(), may, "{ready} ready, {} of {most} held", held[n].len());
                ready -= usize::from(taken.is_some());
                held[n].extend(taken);
            }
            Step::Ack(n) if !held[n].is_empty() => held[n].remove(0).ack().await.unwrap(),
            Step::Nack(n) if !held[n].is_empty() => {
                held[n].remove(0).nack().await.unwrap();
                ready += 1;
            }
            Step::Drop(n) if !held[n].is_empty() => {
                drop(held[n].remove(0));
                ready += 1;
            }
            _ => {}
        }
        let stats = broker.stats();
        assert_eq!(stats.in_flight, held.iter().map(|held| held.len() as u64).sum::<u64>());
    }
}

proptest! {
    #[test]
    fn never_more_than_so_many_and_never_less_than_there_is(
        most in 1..4_usize, steps in prop::collection::vec(step(), 1..80),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().unwrap();
        runtime.block_on(run(most, steps));
    }
}
