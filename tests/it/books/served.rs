//! A server and the line to it.

use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::Duration;

use super::Victim;
use crate::servers::proxy::{Line, Proxy};

/// A server that messages are put into.
pub trait Service {
    /// Whether what was in doubt may be there twice.
    const TWICE: bool;
    /// Whether it may be there behind what followed it.
    const REORDERS: bool = false;

    /// Where it listens.
    fn port(&self) -> u16;
    /// For a producer that reaches it by this port, and waits so long for an answer.
    fn url(&self, port: u16, timeout: Duration) -> String;

    async fn kill(&mut self);
    async fn restart(&mut self);

    /// The numbers of what is in it, in order.
    async fn arrived(&mut self) -> Vec<u32>;
}

/// One that is reached by a proxy, where its line is to be harmed.
pub struct Served<S> {
    service: S,
    proxy: Arc<Proxy>,
}

impl<S: Service> Served<S> {
    pub async fn new(service: S) -> Served<S> {
        let proxy = Proxy::start((Ipv4Addr::LOCALHOST, service.port()).into()).await;
        Served { service, proxy }
    }
}

impl<S: Service> Victim for Served<S> {
    const TWICE: bool = S::TWICE;
    const REORDERS: bool = S::REORDERS;

    fn direct(&self) -> String {
        self.service.url(self.service.port(), Duration::from_secs(10))
    }

    fn by_line(&self, timeout: Duration) -> String {
        self.service.url(self.proxy.port, timeout)
    }

    async fn kill(&mut self) {
        self.service.kill().await;
    }

    async fn restart(&mut self) {
        self.service.restart().await;
    }

    async fn cut_off(&mut self) {
        self.proxy.go_down().await;
    }

    async fn reconnect(&mut self) {
        self.proxy.come_up().await;
    }

    fn line(&self) -> &Line {
        &self.proxy.line
    }

    async fn arrived(&mut self) -> Vec<u32> {
        self.service.arrived().await
    }
}
