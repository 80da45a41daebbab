//! Limits.
use std::time::Duration;
/// Temporary.
#[derive(Clone, Debug)]
#[allow(missing_docs)]
pub struct Limits {
    pub max_connections: u32,
    pub max_connections_per_ip: u32,
    pub max_unauthenticated: u32,
    pub handshake_timeout: Duration,
    pub max_frame: u32,
    pub max_streams: u32,
    pub window: u32,
    pub frame_timeout: Duration,
    pub write_timeout: Duration,
    pub keepalive: Duration,
    pub default_timeout: Duration,
    pub max_timeout: Duration,
    pub cancel_grace: Duration,
    pub queue_requests: u32,
    pub queue_bytes: usize,
    pub connection_buffer: usize,
    pub core_buffer: usize,
    pub drain_timeout: Duration,
}
impl Default for Limits {
    fn default() -> Self {
        let s = Duration::from_secs;
        Limits {
            max_connections: 100_000,
            max_connections_per_ip: 0,
            max_unauthenticated: 4096,
            handshake_timeout: s(5),
            max_frame: 1 << 20,
            max_streams: 4096,
            window: 256 << 10,
            frame_timeout: s(10),
            write_timeout: s(30),
            keepalive: s(20),
            default_timeout: s(30),
            max_timeout: s(3600),
            cancel_grace: s(5),
            queue_requests: 10_000,
            queue_bytes: 64 << 20,
            connection_buffer: 64 << 10,
            core_buffer: 256 << 20,
            drain_timeout: s(30),
        }
    }
}
