//! Pooled connections to PostgreSQL: tokio-postgres, TLS by rustls with ring.

use std::ops::{Deref, DerefMut};
use std::path::Path;
use std::sync::Arc;

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::{ClientConfig, RootCertStore};
use tokio::task::JoinHandle;
use tokio_postgres::config::SslMode;
use tokio_postgres::error::SqlState;
use tokio_postgres::{Client, Config};
use tokio_postgres_rustls::MakeRustlsConnect;

use super::{Closing, Factory};

/// Why a [`PostgresFactory`] can't be made, or a connection not opened or used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PostgresError {
    /// The server's or the driver's error; its source says more.
    #[error("PostgreSQL")]
    Postgres(#[from] tokio_postgres::Error),
    /// A certificate file that can't be read or used.
    #[error("certificates of {path}: {why}")]
    Certificates {
        /// The file.
        path: String,
        /// What is wrong with it.
        why: String,
    },
    /// TLS can't be set up.
    #[error("TLS")]
    Tls(#[from] rustls::Error),
}

/// Opens connections to PostgreSQL.
///
/// TLS follows the connection string's `sslmode`: `prefer` (the default) takes it where the server has it, `require`
/// insists, `disable` doesn't ask. Whenever TLS is used the server's certificate and name are verified, against the
/// system's roots or those of [`PostgresFactory::with_roots`].
///
/// A connection is validated by an empty query, and closed with Terminate. Wrong passwords, unknown databases and the
/// like are not tried again; a server that starts, stops or has no free slot is.
///
/// ```no_run
/// use corelay::toolkit::connection_pool::{Options, Pool, PostgresFactory};
///
/// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
/// let factory = PostgresFactory::new("postgres://shop@db.internal/orders?sslmode=require")?;
/// let pool = Pool::new(factory, Options { max_open: 25, max_idle: Some(5), ..Options::default() })?;
/// let conn = pool.get().await?;
/// let count: i64 = conn.query_one("SELECT count(*) FROM orders", &[]).await?.get(0);
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct PostgresFactory {
    config: Config,
    tls: MakeRustlsConnect,
    reset: bool,
}

impl std::fmt::Debug for PostgresFactory {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // the driver's own Debug leaves the password out
        f.debug_struct("PostgresFactory").field("config", &self.config).finish_non_exhaustive()
    }
}

impl PostgresFactory {
    /// Of a connection string, `postgres://user@host/database` or `host=... user=...`.
    ///
    /// # Errors
    /// [`PostgresError::Postgres`] for a string that can't be read.
    pub fn new(config: &str) -> Result<PostgresFactory, PostgresError> {
        PostgresFactory::with_config(config.parse()?)
    }

    /// Of the driver's own configuration. Certificates are verified against the system's roots.
    ///
    /// # Errors
    /// [`PostgresError::Tls`].
    pub fn with_config(config: Config) -> Result<PostgresFactory, PostgresError> {
        let mut roots = RootCertStore::empty();
        if config.get_ssl_mode() != SslMode::Disable {
            // a root that can't be read is a root less: verification then fails, and says so
            roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        }
        let tls = client_config(roots)?;
        Ok(PostgresFactory { config, tls: MakeRustlsConnect::new(tls), reset: false })
    }

    /// Verifies the server against the certificates of a PEM file instead of the system's.
    ///
    /// # Errors
    /// [`PostgresError::Certificates`] where there is none to be read.
    pub fn with_roots(mut self, pem: impl AsRef<Path>) -> Result<PostgresFactory, PostgresError> {
        let path = pem.as_ref();
        let wrong = |why: String| PostgresError::Certificates { path: path.display().to_string(), why };
        let mut roots = RootCertStore::empty();
        for cert in CertificateDer::pem_file_iter(path).map_err(|error| wrong(error.to_string()))? {
            let cert = cert.map_err(|error| wrong(error.to_string()))?;
            roots.add(cert).map_err(|error| wrong(error.to_string()))?;
        }
        if roots.is_empty() {
            return Err(wrong("expected at least one PEM certificate".into()));
        }
        self.tls = MakeRustlsConnect::new(client_config(roots)?);
        Ok(self)
    }

    /// Runs `DISCARD ALL` before a used connection is lent again: settings, temporary tables, prepared statements,
    /// advisory locks and listeners of its last user are gone. Costs a round trip a use, and the driver's cached
    /// type lookups. Off by default.
    #[must_use]
    pub fn reset_sessions(mut self, reset: bool) -> PostgresFactory {
        self.reset = reset;
        self
    }
}

fn client_config(roots: RootCertStore) -> Result<ClientConfig, rustls::Error> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions()?;
    Ok(builder.with_root_certificates(roots).with_no_client_auth())
}

/// A connection to PostgreSQL: use it as the [`Client`] it derefs to.
#[derive(Debug)]
pub struct PostgresConnection {
    client: Client,
    driver: JoinHandle<()>,
}

impl Deref for PostgresConnection {
    type Target = Client;

    fn deref(&self) -> &Client {
        &self.client
    }
}

impl DerefMut for PostgresConnection {
    fn deref_mut(&mut self) -> &mut Client {
        &mut self.client
    }
}

impl Factory for PostgresFactory {
    type Connection = PostgresConnection;
    type Error = PostgresError;

    async fn create(&self) -> Result<PostgresConnection, PostgresError> {
        let (client, connection) = self.config.connect(self.tls.clone()).await?;
        let driver = tokio::spawn(async move {
            if let Err(error) = connection.await {
                tracing::debug!(%error, "a connection to PostgreSQL ended");
            }
        });
        Ok(PostgresConnection { client, driver })
    }

    async fn validate(&self, conn: &mut PostgresConnection) -> Result<(), PostgresError> {
        conn.check_connection().await?;
        Ok(())
    }

    fn needs_reset(&self, _: &PostgresConnection) -> bool {
        self.reset
    }

    async fn reset(&self, conn: &mut PostgresConnection) -> Result<(), PostgresError> {
        // a transaction left open would make DISCARD ALL fail; outside of one ROLLBACK only warns
        conn.batch_execute("ROLLBACK").await?;
        conn.batch_execute("DISCARD ALL").await?;
        conn.clear_type_cache();
        Ok(())
    }

    fn is_broken(&self, conn: &PostgresConnection) -> bool {
        conn.is_closed()
    }

    fn close(&self, conn: PostgresConnection) -> Option<Closing> {
        let PostgresConnection { client, driver } = conn;
        // without a client the driver sends Terminate and ends
        drop(client);
        Some(Box::pin(async move {
            let _ = driver.await;
        }))
    }

    fn is_transient(&self, error: &PostgresError) -> bool {
        let PostgresError::Postgres(error) = error else { return false };
        let lasting = [
            SqlState::INVALID_PASSWORD,
            SqlState::INVALID_AUTHORIZATION_SPECIFICATION,
            SqlState::INVALID_CATALOG_NAME,
            SqlState::INSUFFICIENT_PRIVILEGE,
        ];
        error.code().is_none_or(|code| !lasting.contains(code))
    }
}
