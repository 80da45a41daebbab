//! What the library's errors mean.

use rdkafka::admin::TopicResult;
use rdkafka::error::{KafkaError, KafkaResult, RDKafkaErrorCode};

use super::super::{Error, ErrorKind};

/// A client could not be made: only its configuration can be the reason.
pub(super) fn not_made(error: KafkaError) -> Error {
    // the value may be a password
    let text = match &error {
        KafkaError::ClientConfig(_, why, key, _) => format!("{key}: {why}"),
        other => other.to_string(),
    };
    let is_missing = text.contains("not available") || text.contains("not built") || text.contains("No provider");
    Error::new(if is_missing { ErrorKind::Unsupported } else { ErrorKind::Invalid }, format!("kafka: {text}"))
}

/// The library's own accessor leaves out those of administrative requests.
fn code(error: &KafkaError) -> Option<RDKafkaErrorCode> {
    match error {
        KafkaError::AdminOp(code) => Some(*code),
        other => other.rdkafka_error_code(),
    }
}

pub(super) fn is_unknown_topic(error: &KafkaError) -> bool {
    use RDKafkaErrorCode as Code;
    let unknown = [Code::UnknownTopicOrPartition, Code::UnknownTopic, Code::UnknownPartition];
    code(error).is_some_and(|code| unknown.contains(&code))
}

/// What an error code means, where nothing else is known.
fn kind(code: RDKafkaErrorCode) -> ErrorKind {
    use RDKafkaErrorCode as Code;
    match code {
        Code::InvalidConfig | Code::PolicyViolation | Code::InvalidTopic => ErrorKind::Invalid,
        Code::MessageSizeTooLarge | Code::InvalidMessageSize | Code::MessageBatchTooLarge => ErrorKind::TooLarge,
        Code::QueueFull => ErrorKind::Full,
        Code::MessageTimedOut | Code::OperationTimedOut | Code::RequestTimedOut => ErrorKind::Timeout,
        Code::UnsupportedFeature | Code::UnsupportedVersion => ErrorKind::Unsupported,
        Code::UnknownTopicOrPartition | Code::UnknownTopic => ErrorKind::UnknownTopic,
        Code::TopicAlreadyExists => ErrorKind::TopicExists,
        Code::BrokerTransportFailure
        | Code::AllBrokersDown
        | Code::Resolve
        | Code::BrokerDestroy
        | Code::WaitingForCoordinator
        | Code::InProgress
        | Code::LeaderNotAvailable
        | Code::NotLeaderForPartition
        | Code::BrokerNotAvailable
        | Code::ReplicaNotAvailable
        | Code::NetworkException
        | Code::CoordinatorLoadInProgress
        | Code::CoordinatorNotAvailable
        | Code::NotCoordinator
        | Code::NotEnoughReplicas
        | Code::NotEnoughReplicasAfterAppend
        | Code::NotController
        | Code::PurgeQueue
        | Code::PurgeInflight
        | Code::Fatal => ErrorKind::Connection,
        Code::IllegalGeneration | Code::UnknownMemberId | Code::RebalanceInProgress => ErrorKind::Expired,
        _ => ErrorKind::Refused,
    }
}

pub(super) fn failed(what: &str, error: KafkaError) -> Error {
    let kind = code(&error).map_or(ErrorKind::Refused, kind);
    Error::new(kind, format!("{what}: {error}")).caused_by(error)
}

/// The outcome of an administrative request on one thing.
pub(super) fn administered(what: &str, done: KafkaResult<Vec<TopicResult>>) -> Result<(), Error> {
    match done.map_err(|error| failed(what, error))?.pop() {
        Some(Err((_, code))) => Err(failed(what, KafkaError::AdminOp(code))),
        _ => Ok(()),
    }
}
