//! Jobs on a pool of workers, with retries, metrics and an orderly end: `cargo run --example job`.
//!
//! ```text
//! job-1: processed by attempt 1
//! job-2: the disk is busy
//! job-3: given up: no such job
//! job-2: processed by attempt 2
//! Processed jobs: 2
//! Failed jobs: 1
//! Retries: 1
//! Left over: 0
//! ```

use std::time::Duration;

use corelay::toolkit::worker_pool::{Attempt, Failure, Handler, Options, Retry, WorkerPool};

struct Job {
    id: &'static str,
}

#[derive(Debug, thiserror::Error)]
enum JobError {
    #[error("the disk is busy")]
    Busy,
    #[error("no such job")]
    Unknown,
}

struct JobHandler;

impl Handler for JobHandler {
    type Job = Job;
    type Error = JobError;

    async fn process(&self, job: &mut Job, attempt: &Attempt<'_>) -> Result<(), JobError> {
        match (job.id, attempt.number()) {
            ("job-2", 1) => {
                println!("{}: the disk is busy", job.id);
                Err(JobError::Busy)
            }
            ("job-3", _) => Err(JobError::Unknown),
            (id, number) => {
                println!("{id}: processed by attempt {number}");
                Ok(())
            }
        }
    }

    async fn on_error(&self, job: Job, failure: Failure<JobError>) {
        println!("{}: given up: {failure}", job.id);
    }

    fn is_retryable(&self, error: &JobError) -> bool {
        matches!(error, JobError::Busy)
    }
}

// One thread, so that the output is the same each time.
#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let options = Options::new(10).queue(1000).retry(Retry::times(3)).timeout(Duration::from_secs(30));
    let pool = WorkerPool::start(options, JobHandler)?;
    for id in ["job-1", "job-2", "job-3"] {
        pool.submit(Job { id }).await?;
    }
    let report = pool.shutdown(Duration::from_secs(5)).await;
    println!("Processed jobs: {}", report.metrics.processed);
    println!("Failed jobs: {}", report.metrics.failed);
    println!("Retries: {}", report.metrics.retried);
    println!("Left over: {}", report.abandoned.len());
    Ok(())
}
