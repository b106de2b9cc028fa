//! The kinds of the group `batch`.

pub mod cron_job;
pub mod job;
