//! The books, without clocks or clients: scripts, and whatever a seed comes up with.

use std::time::Duration;

use proptest::prelude::*;

use super::*;

fn queue(when_full: WhenFull) -> Queue {
    let options = ProducerOptions { queue_bytes: 1000, max_message: 100, when_full, ..ProducerOptions::default() };
    Queue::new(options, Takes { max_body: None, parts: true })
}

fn whole(len: usize) -> Message {
    Message::new(vec![0; len])
}

fn part(key: u128, part: Part) -> Message {
    let mut message = Message::new(if matches!(part, Part::Aborted { .. }) { "" } else { "part" });
    message.key = Uuid::from_u128(key);
    message.part = part;
    message
}

fn chunk(key: u128, sequence: u32, last: bool) -> Message {
    part(key, Part::Chunk { sequence, last })
}

fn admit(queue: &mut Queue, message: Message) -> Result<(), NotTaken> {
    queue.admit(message, None, Instant::now())
}

fn take(queue: &mut Queue, most: usize) -> Vec<Entry> {
    let (mut messages, mut tickets) = (Vec::new(), Vec::new());
    assert!(queue.take(most, &mut messages, &mut tickets).is_empty());
    messages.into_iter().zip(tickets).map(|(message, ticket)| Entry { message, ticket }).collect()
}

fn deliver(queue: &mut Queue, most: usize) -> Vec<Message> {
    let entries = take(queue, most);
    let messages = entries.iter().map(|entry| entry.message.clone()).collect();
    entries.into_iter().for_each(|entry| queue.delivered(entry, Instant::now()));
    messages
}

fn is_balanced(counters: &Counters) -> bool {
    let known = counters.forwarded + counters.dropped.total() + counters.dead_lettered;
    counters.accepted == known + counters.queue_messages
}

#[test]
fn a_full_queue_turns_the_newest_away() {
    let mut queue = queue(WhenFull::DropNewest);
    for _ in 0..4 {
        admit(&mut queue, whole(100)).unwrap();
    }
    let full = NotTaken::Dropped(DropReason::QueueFull);
    assert_eq!(admit(&mut queue, whole(100)), Err(full), "912 of 1,000 bytes are taken");
    assert_eq!((queue.counters.accepted, queue.counters.dropped.get(DropReason::QueueFull)), (5, 1));
    // what is with the client counts until it's delivered
    let held = take(&mut queue, 1);
    assert_eq!(admit(&mut queue, whole(100)), Err(full));
    held.into_iter().for_each(|entry| queue.delivered(entry, Instant::now()));
    admit(&mut queue, whole(100)).unwrap();
    assert!(is_balanced(&queue.counters));
}

#[test]
fn a_queue_that_refuses_says_so_until_there_is_room_again() {
    let mut queue = queue(WhenFull::DropNewest);
    let level = |queue: &mut Queue| (queue.level(), queue.is_over());
    for body in [100, 100, 100, 20] {
        admit(&mut queue, whole(body)).unwrap();
    }
    admit(&mut queue, whole(100)).unwrap_err();
    assert_eq!(level(&mut queue), (false, false), "832 of 1,000 bytes are taken: smaller ones fit");
    admit(&mut queue, whole(30)).unwrap();
    assert_eq!(level(&mut queue), (false, false), "990 of 1,000 bytes are taken, and nothing was refused");
    admit(&mut queue, whole(0)).unwrap_err();
    assert_eq!(level(&mut queue), (true, true));
    assert_eq!(level(&mut queue), (false, true));
    deliver(&mut queue, 1);
    assert_eq!(level(&mut queue), (true, false));
}

#[test]
fn or_the_oldest_make_room() {
    let mut queue = queue(WhenFull::DropOldest);
    let messages: Vec<_> = (0..6).map(|_| whole(100)).collect();
    for message in &messages {
        admit(&mut queue, message.clone()).unwrap();
    }
    assert_eq!(deliver(&mut queue, 9), messages[2..]);
    assert_eq!(queue.counters.dropped.get(DropReason::QueueFull), 2);
    assert!(is_balanced(&queue.counters));
}

#[test]
fn the_oldest_that_is_a_part_takes_its_message_along() {
    let mut queue = queue(WhenFull::DropOldest);
    for sequence in 0..3 {
        admit(&mut queue, chunk(7, sequence, false)).unwrap();
    }
    for _ in 0..4 {
        admit(&mut queue, whole(100)).unwrap();
    }
    assert_eq!(admit(&mut queue, chunk(7, 3, true)), Err(NotTaken::StrayPart));
    assert!(deliver(&mut queue, 9).iter().all(|message| message.part == Part::Whole), "nothing had left: no mark");
    assert_eq!((queue.counters.forwarded, queue.counters.dropped.total(), queue.counters.accepted), (4, 1, 5));
    assert_eq!((queue.counters.queue_bytes, queue.counters.stray_parts), (0, 1));
}

#[test]
fn or_whoever_brings_them_is_told_to_stop() {
    let mut queue = queue(WhenFull::Block);
    let mut levels = Vec::new();
    for _ in 0..6 {
        admit(&mut queue, whole(100)).unwrap();
        levels.push(queue.level());
    }
    assert_eq!(levels, [false, false, false, false, true, false], "over with the fifth");
    assert!(queue.is_over());
    for left in [1140, 912] {
        deliver(&mut queue, 1);
        assert_eq!((queue.counters.queue_bytes, queue.level(), queue.is_over()), (left, false, true));
    }
    deliver(&mut queue, 1);
    assert_eq!(
        (queue.counters.queue_bytes, queue.level(), queue.is_over()),
        (684, true, false),
        "below three quarters"
    );
}

#[test]
fn a_message_in_parts_is_one_message() {
    let mut queue = queue(WhenFull::DropNewest);
    for (key, sequence, last) in [(1, 0, false), (2, 0, false), (1, 1, false), (2, 1, true)] {
        admit(&mut queue, chunk(key, sequence, last)).unwrap();
    }
    assert_eq!((queue.counters.accepted, queue.counters.queue_messages), (2, 2));
    deliver(&mut queue, 9);
    assert_eq!((queue.counters.forwarded, queue.counters.queue_messages), (1, 1), "one has no end yet");
    admit(&mut queue, chunk(1, 2, true)).unwrap();
    assert_eq!(admit(&mut queue, chunk(1, 3, true)), Err(NotTaken::StrayPart), "behind the last");
    deliver(&mut queue, 9);
    assert_eq!((queue.counters.forwarded, queue.counters.queue_messages), (2, 0));
    assert_eq!(queue.counters.forwarded_bytes, 5 * 4);
}

#[test]
fn when_a_part_is_missing_the_rest_goes_and_the_target_is_told_if_it_has_some() {
    for has_left in [false, true] {
        let mut queue = queue(WhenFull::DropNewest);
        admit(&mut queue, chunk(1, 0, false)).unwrap();
        if has_left {
            deliver(&mut queue, 1);
        }
        admit(&mut queue, chunk(1, 1, false)).unwrap();
        assert_eq!(admit(&mut queue, chunk(1, 3, false)), Err(NotTaken::Dropped(DropReason::Incomplete)));
        assert_eq!(admit(&mut queue, chunk(1, 4, true)), Err(NotTaken::StrayPart));
        let parts: Vec<_> = deliver(&mut queue, 9).into_iter().map(|message| message.part).collect();
        assert_eq!(parts, if has_left { vec![Part::Aborted { sequence: 2 }] } else { vec![] });
        assert_eq!((queue.counters.queue_messages, queue.counters.queue_bytes), (0, 0));
        assert_eq!(queue.counters.dropped.get(DropReason::Incomplete), 1);
    }
}

#[test]
fn the_same_goes_for_one_that_never_ends() {
    for has_left in [false, true] {
        let mut queue = queue(WhenFull::DropNewest);
        admit(&mut queue, chunk(1, 0, false)).unwrap();
        let held = take(&mut queue, usize::from(has_left));
        admit(&mut queue, part(1, Part::Aborted { sequence: 1 })).unwrap();
        // it comes back, and there is nothing it belongs to any more
        held.into_iter().for_each(|entry| queue.put_back(entry, false));
        let parts: Vec<_> = deliver(&mut queue, 9).into_iter().map(|message| message.part).collect();
        assert_eq!(parts, if has_left { vec![Part::Aborted { sequence: 1 }] } else { vec![] });
        assert_eq!(queue.counters.dropped.get(DropReason::Aborted), 1);
        assert_eq!(admit(&mut queue, part(1, Part::Aborted { sequence: 1 })), Err(NotTaken::StrayPart));
        assert_eq!((queue.counters.queue_messages, queue.counters.queue_bytes), (0, 0));
    }
}

#[test]
fn a_first_part_that_certainly_never_arrived_leaves_nothing_to_tell() {
    for (in_doubt, marks) in [(false, 0), (true, 1)] {
        let mut queue = queue(WhenFull::DropNewest);
        admit(&mut queue, chunk(1, 0, false)).unwrap();
        for entry in take(&mut queue, 1) {
            queue.put_back(entry, !in_doubt);
        }
        // a later attempt that is not in doubt doesn't clear an earlier one that was
        for entry in take(&mut queue, 1) {
            queue.put_back(entry, true);
        }
        admit(&mut queue, part(1, Part::Aborted { sequence: 1 })).unwrap();
        assert_eq!(deliver(&mut queue, 9).len(), marks);
    }
}

#[test]
fn a_target_without_parts_has_them_counted_as_one_message() {
    let mut queue = Queue::new(ProducerOptions::default(), Takes { max_body: Some(10), parts: false });
    assert_eq!(admit(&mut queue, chunk(1, 0, false)), Err(NotTaken::Dropped(DropReason::Skipped)));
    for sequence in 1..5 {
        assert_eq!(admit(&mut queue, chunk(1, sequence, sequence == 4)), Err(NotTaken::StrayPart));
    }
    assert_eq!(admit(&mut queue, whole(11)), Err(NotTaken::Dropped(DropReason::TooLarge)));
    admit(&mut queue, whole(10)).unwrap();
    let counters = &queue.counters;
    assert_eq!((counters.accepted, counters.dropped.total(), counters.queue_messages), (3, 2, 1));
    assert_eq!(counters.dropped.get(DropReason::Skipped), 1);
}

#[test]
fn what_is_too_large_is_let_in_for_the_dead_letter_file() {
    let options =
        ProducerOptions { dead_letter: Some("letters".into()), max_message: 100, ..ProducerOptions::default() };
    let mut queue = Queue::new(options, Takes { max_body: None, parts: false });
    for len in [10, 101, 20] {
        admit(&mut queue, whole(len)).unwrap();
    }
    let (mut messages, mut tickets) = (Vec::new(), Vec::new());
    let too_large = queue.take(9, &mut messages, &mut tickets);
    assert_eq!(too_large.iter().map(|entry| entry.message.body.len()).collect::<Vec<_>>(), [101]);
    assert_eq!(messages.iter().map(|message| message.body.len()).collect::<Vec<_>>(), [10, 20]);
}

#[test]
fn a_batch_is_bounded_in_messages_and_bytes() {
    let options = ProducerOptions { batch_bytes: 500, ..ProducerOptions::default() };
    let mut queue = Queue::new(options, Takes { max_body: None, parts: false });
    for len in [72, 72, 172, 600, 1] {
        admit(&mut queue, whole(len)).unwrap();
    }
    let lens = |messages: Vec<Message>| messages.iter().map(|message| message.body.len()).collect::<Vec<_>>();
    assert_eq!(lens(deliver(&mut queue, 2)), [72, 72]);
    assert_eq!(lens(deliver(&mut queue, 9)), [172]);
    assert_eq!(lens(deliver(&mut queue, 9)), [600], "larger than a batch, and alone in it");
    assert_eq!(lens(deliver(&mut queue, 9)), [1]);
}

#[test]
fn closed_it_takes_the_rest_of_what_has_begun() {
    let mut queue = queue(WhenFull::DropNewest);
    admit(&mut queue, chunk(1, 0, false)).unwrap();
    queue.close();
    let shut = Err(NotTaken::Dropped(DropReason::Shutdown));
    assert_eq!((admit(&mut queue, whole(1)), admit(&mut queue, chunk(2, 0, true))), (shut, shut));
    deliver(&mut queue, 9);
    assert!(!queue.is_finished());
    admit(&mut queue, chunk(1, 1, true)).unwrap();
    deliver(&mut queue, 9);
    assert!(queue.is_finished());
    assert!(is_balanced(&queue.counters));
}

#[derive(Clone, Debug)]
enum Act {
    Whole(usize),
    Chunk { key: u128, skip: u32, last: bool },
    Abort(u128),
    Take { most: usize, delivered: usize, then: Then },
    Expire,
    Close,
}

#[derive(Clone, Copy, Debug)]
enum Then {
    PutBack { unsent: bool },
    GiveUp,
    DeadLetter,
}

fn any_act() -> impl Strategy<Value = Act> {
    let then = prop_oneof![
        any::<bool>().prop_map(|unsent| Then::PutBack { unsent }),
        Just(Then::GiveUp),
        Just(Then::DeadLetter)
    ];
    prop_oneof![
        80 => (0..120_usize).prop_map(Act::Whole),
        160 => (0..4_u128, 0..20_u32, proptest::bool::weighted(0.2))
            .prop_map(|(key, skip, last)| Act::Chunk { key, skip: skip / 19, last }),
        20 => (0..4_u128).prop_map(Act::Abort),
        80 => (1..6_usize, 0..6_usize, then).prop_map(|(most, delivered, then)| Act::Take { most, delivered, then }),
        20 => Just(Act::Expire),
        1 => Just(Act::Close),
    ]
}

/// What a target makes of the parts it gets: no message with a hole, no second first part without an end before.
fn read(parts: &mut HashMap<Uuid, u32>, message: &Message) {
    match message.part {
        Part::Whole => {}
        Part::Chunk { sequence, last } => {
            assert_eq!(parts.remove(&message.key).unwrap_or(0), sequence, "a hole in {}", message.key);
            if !last {
                parts.insert(message.key, sequence + 1);
            }
        }
        Part::Aborted { .. } => {
            parts.remove(&message.key);
        }
    }
}

proptest! {
    #[test]
    fn whatever_happens_the_books_balance_and_no_message_has_a_hole(
        policy in prop::sample::select(vec![WhenFull::DropNewest, WhenFull::DropOldest, WhenFull::Block]),
        acts in proptest::collection::vec(any_act(), 0..120),
    ) {
        let mut queue = queue(policy);
        let (mut next, mut round) = (HashMap::<u128, (u32, u128)>::new(), 0);
        let mut target = HashMap::new();
        for act in acts {
            match act {
                Act::Whole(len) => drop(admit(&mut queue, whole(len))),
                Act::Chunk { key, skip, last } => {
                    let (sequence, full) = *next.entry(key).or_insert_with(|| { round += 1; (0, key + (round << 8)) });
                    let _ = admit(&mut queue, chunk(full, sequence + skip, last));
                    if last { next.remove(&key); } else { next.insert(key, (sequence + skip + 1, full)); }
                }
                Act::Abort(key) => if let Some((sequence, full)) = next.remove(&key) {
                    let _ = admit(&mut queue, part(full, Part::Aborted { sequence }));
                },
                Act::Take { most, delivered, then } => {
                    let mut entries = take(&mut queue, most);
                    let rest = entries.split_off(delivered.min(entries.len()));
                    for entry in entries {
                        read(&mut target, &entry.message);
                        queue.delivered(entry, Instant::now());
                    }
                    let (lost, back) = match then { Then::PutBack { .. } => (0, rest.len()), _ => (1, rest.len().saturating_sub(1)) };
                    let mut rest = rest;
                    for entry in rest.split_off(lost.min(rest.len())).into_iter().rev().take(back) {
                        queue.put_back(entry, !matches!(then, Then::PutBack { unsent: false }));
                    }
                    for entry in rest {
                        if matches!(then, Then::DeadLetter) && !entry.is_partial() {
                            queue.dead_lettered(entry, DropReason::Rejected, None);
                        } else {
                            queue.give_up(entry, DropReason::Rejected, None);
                        }
                    }
                }
                Act::Expire => for entry in queue.expired(Instant::now() + Duration::from_secs(61)) {
                    queue.give_up(entry, DropReason::TooOld, None);
                },
                Act::Close => queue.close(),
            }
            queue.level();
            prop_assert!(is_balanced(&queue.counters), "{:?}", queue.counters);
            let waiting = queue.waiting.iter().map(|entry| entry.message.cost() as u64).sum::<u64>();
            prop_assert_eq!(queue.counters.queue_bytes, waiting, "nothing is with the client");
            let marks = queue.waiting.iter().filter(|entry| entry.ticket.is_mark).count() as u64;
            if policy != WhenFull::Block {
                prop_assert!(queue.counters.queue_bytes <= 1000 + marks * 128);
            }
        }
        // in the end everything goes, and then nothing is left anywhere
        queue.close();
        queue.fail_all_open(DropReason::Shutdown);
        for message in deliver(&mut queue, usize::MAX) {
            read(&mut target, &message);
        }
        prop_assert!(queue.is_finished() && is_balanced(&queue.counters));
        prop_assert_eq!((queue.counters.queue_messages, queue.counters.queue_bytes), (0, 0));
        prop_assert!(target.len() as u64 <= queue.counters.aborts_lost, "the target holds on to {:?}", target);
    }
}
