//! A topic's groups: how one begins, is joined, told how far it is, and deleted.

use std::time::Duration;

use rdkafka::consumer::{CommitMode, Consumer, StreamConsumer};
use rdkafka::{Offset, TopicPartitionList};

use super::super::{Consume, Error, ErrorKind, Start};
use super::Kafka;
use super::fault::{administered, failed, not_made};
use super::reader::Context;

/// A reader that doesn't ask for this long is taken for hung. It is to be no less than the session.
const POLL: Duration = Duration::from_secs(300);

impl Kafka {
    fn group_name(&self, consume: &Consume) -> String {
        format!("{}{}/{}", self.shared.options.prefix, consume.topic, consume.group)
    }

    /// A client that may join the group.
    pub(super) fn consumer(&self, consume: &Consume, context: Context) -> Result<StreamConsumer<Context>, Error> {
        let session = self.shared.options.session_timeout;
        let millis = |time: Duration| time.as_millis().to_string();
        let mut config = self.shared.options.config();
        config.set("group.id", self.group_name(consume));
        config.set("enable.auto.commit", "false").set("enable.auto.offset.store", "false");
        // only for partitions that are younger than the group: the others' are set
        config.set("auto.offset.reset", "earliest");
        config.set("session.timeout.ms", millis(session));
        config.set("max.poll.interval.ms", millis(session.max(POLL)));
        config.set("heartbeat.interval.ms", millis(session / 10));
        config.create_with_context(context).map_err(not_made)
    }

    pub(super) fn positions(&self, topic: &str, positions: &[(i32, i64)]) -> Result<TopicPartitionList, Error> {
        let name = self.topic_name(topic);
        let mut list = TopicPartitionList::with_capacity(positions.len());
        for (partition, position) in positions {
            let added = list.add_partition_offset(&name, *partition, Offset::Offset(*position));
            added.map_err(|error| failed("an offset", error))?;
        }
        Ok(list)
    }

    /// Has a new group begin where it is to. Blocks.
    pub(super) fn begin(
        &self,
        consumer: &StreamConsumer<Context>,
        consume: &Consume,
        partitions: &[i32],
    ) -> Result<(), Error> {
        let timeout = self.shared.options.timeout;
        let name = self.topic_name(&consume.topic);
        let mut list = TopicPartitionList::with_capacity(partitions.len());
        for partition in partitions {
            list.add_partition(&name, *partition);
        }
        let committed = consumer.committed_offsets(list, timeout);
        let committed = committed.map_err(|error| failed("the group's offsets", error))?;
        let from = if consume.start == Start::Earliest { Offset::Beginning } else { Offset::End };
        let mut unknown = TopicPartitionList::new();
        for element in committed.elements().iter().filter(|element| element.offset() == Offset::Invalid) {
            let added = unknown.add_partition_offset(&name, element.partition(), from);
            added.map_err(|error| failed("an offset", error))?;
        }
        if unknown.count() == 0 {
            return Ok(());
        }
        // in place of times stand the marks of the first and the last
        let begin = consumer.offsets_for_times(unknown, timeout).map_err(|error| failed("a topic's offsets", error))?;
        match consumer.commit(&begin, CommitMode::Sync).map_err(|error| failed("beginning a group", error)) {
            // others are members of it already: they have begun it
            Err(error) if error.kind() == ErrorKind::Expired => Ok(()),
            done => done,
        }
    }

    /// Deletes the group of a plain subscription; Kafka forgets it by itself otherwise (`offsets.retention.minutes`).
    pub(super) async fn delete_group(&self, consume: &Consume) {
        let name = self.group_name(consume);
        let deleted = match self.admin() {
            Ok(admin) => administered("delete_group", admin.delete_groups(&[&name], &self.admin_options()).await),
            Err(error) => Err(error),
        };
        if let Err(error) = deleted {
            tracing::debug!(%error, group = name, "a group is left for Kafka to forget");
        }
    }
}
