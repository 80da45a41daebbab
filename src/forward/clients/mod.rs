//! One file a protocol.

mod datagram;
mod file;
mod http;
mod stream;
mod tcp;
#[cfg(feature = "https")]
mod tls;
mod udp;
mod unix;
mod wire;

use stream::Closing;

pub use file::FileClient;
pub use http::HttpClient;
pub use tcp::TcpClient;
#[cfg(feature = "https")]
pub use tls::TlsClient;
pub use udp::UdpClient;
pub(super) use unix::from_url as unix_from_url;
pub use unix::{UnixClient, UnixDatagramClient};
