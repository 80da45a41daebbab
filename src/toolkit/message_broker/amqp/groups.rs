//! Which groups a topic has: AMQP can't say which queues are bound to an exchange, so each is noted in a queue, as a
//! message that nobody consumes until the topic is deleted.

use lapin::options::{
    BasicGetOptions, BasicPublishOptions, ConfirmSelectOptions, QueueDeclareOptions, QueueDeleteOptions,
};
use lapin::types::{FieldTable, ShortString};
use lapin::{BasicProperties, Channel};

use super::{Amqp, Consume, Error, confirmed, failed, is_not_found, name};

/// Stored on disk.
const PERSISTENT: u8 = 2;

impl Amqp {
    /// The queue with the names of a topic's groups. No group has an empty name.
    fn notes(&self, topic: &str) -> ShortString {
        name(&[&self.shared.options.prefix, topic, "/"])
    }

    fn group_queue(&self, topic: &str, group: &str) -> ShortString {
        name(&[&self.shared.options.prefix, topic, "/", group])
    }

    /// Whether there is such a queue. The server closes a channel on which it is asked for one there isn't.
    async fn has_queue(&self, queue: ShortString) -> Result<bool, Error> {
        let channel = self.channel().await?;
        let passive = QueueDeclareOptions { passive: true, ..QueueDeclareOptions::default() };
        match channel.queue_declare(queue, passive, FieldTable::default()).await {
            Ok(_) => {
                let _ = channel.close(200, "done".into()).await;
                Ok(true)
            }
            Err(error) if is_not_found(&error) => Ok(false),
            Err(error) => Err(failed("looking for a group", error)),
        }
    }

    /// Notes a new group, before it is made: one that is noted and not there does no harm.
    pub(super) async fn enter(&self, consume: &Consume) -> Result<(), Error> {
        let Consume { topic, group, .. } = consume;
        if self.has_queue(self.group_queue(topic, group)).await? {
            return Ok(());
        }
        let channel = self.channel().await?;
        let notes = self.notes(topic);
        let durable = QueueDeclareOptions { durable: true, ..QueueDeclareOptions::default() };
        let declared = channel.queue_declare(notes.clone(), durable, FieldTable::default()).await;
        declared.map_err(|error| failed("noting a group", error))?;
        let selected = channel.confirm_select(ConfirmSelectOptions::default()).await;
        selected.map_err(|error| failed("confirm.select", error))?;
        let properties = BasicProperties::default().with_delivery_mode(PERSISTENT);
        let (default, options) = (ShortString::default(), BasicPublishOptions::default());
        let sent = channel.basic_publish(default, notes, options, group.as_bytes(), properties).await;
        let noted = sent.map_err(|error| failed("noting a group", error))?.await;
        confirmed(noted, topic)?;
        let _ = channel.close(200, "done".into()).await;
        Ok(())
    }

    /// Deletes the queues of all groups noted, and then the notes.
    pub(super) async fn delete_groups(&self, channel: &Channel, topic: &str) -> lapin::Result<()> {
        let notes = self.notes(topic);
        // made if there was no group: reading from a queue that isn't there would cost the channel
        let durable = QueueDeclareOptions { durable: true, ..QueueDeclareOptions::default() };
        channel.queue_declare(notes.clone(), durable, FieldTable::default()).await?;
        // unacknowledged they come back if this is cut off halfway
        while let Some(note) = channel.basic_get(notes.clone(), BasicGetOptions::default()).await? {
            let group = String::from_utf8_lossy(&note.delivery.data).into_owned();
            channel.queue_delete(self.group_queue(topic, &group), QueueDeleteOptions::default()).await?;
        }
        channel.queue_delete(notes, QueueDeleteOptions::default()).await?;
        Ok(())
    }
}
