//! PEM files to what rustls takes. Every error names the file and says what to do.

use std::io;
use std::path::Path;

use rustls::RootCertStore;
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

use super::TlsError;

/// A file that can't be used.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    /// It can't be read.
    #[error("can't read the {kind} in {path}: {source}; {hint}")]
    Read {
        /// Certificate, key or CA certificates.
        kind: &'static str,
        /// Which file.
        path: String,
        /// What the kernel says.
        source: io::Error,
        /// What to do.
        hint: &'static str,
    },
    /// What is in it is something else.
    #[error("{path} has no {kind}: {why}; expected {expected}")]
    Content {
        /// Certificate, key or CA certificates.
        kind: &'static str,
        /// Which file.
        path: String,
        /// What was found.
        why: String,
        /// What would do.
        expected: &'static str,
    },
}

const CHAIN: &str = "PEM (-----BEGIN CERTIFICATE-----), the own certificate first, then those that lead to the CA";
const KEY: &str = "an unencrypted PEM key (PKCS #8, PKCS #1 or SEC 1): `openssl pkey -in FILE` makes one";

fn read(path: &Path, kind: &'static str) -> Result<Vec<u8>, FileError> {
    std::fs::read(path).map_err(|source| {
        let hint = match source.kind() {
            io::ErrorKind::NotFound => "check the path; it is taken from the working directory if it is relative",
            io::ErrorKind::PermissionDenied => "let the user this runs as read it (group or ACL), not everybody",
            _ => "check that it is a plain file",
        };
        FileError::Read { kind, path: path.display().to_string(), source, hint }
    })
}

fn content(path: &Path, kind: &'static str, why: impl ToString, expected: &'static str) -> FileError {
    FileError::Content { kind, path: path.display().to_string(), why: why.to_string(), expected }
}

fn why(error: &pem::Error) -> String {
    match error {
        pem::Error::NoItemsFound => "there is none in it".to_owned(),
        other => other.to_string(),
    }
}

fn all_certificates(path: &Path, kind: &'static str) -> Result<Vec<CertificateDer<'static>>, FileError> {
    let text = read(path, kind)?;
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&text).collect();
    let found = found.map_err(|error| content(path, kind, why(&error), CHAIN))?;
    if found.is_empty() { Err(content(path, kind, "there is none in it", CHAIN)) } else { Ok(found) }
}

/// The certificates of a PEM file, in its order: the own one first.
///
/// # Errors
/// [`FileError`].
pub fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, FileError> {
    all_certificates(path, "certificate")
}

/// The private key of a PEM file.
///
/// # Errors
/// [`FileError`].
pub fn key(path: &Path) -> Result<PrivateKeyDer<'static>, FileError> {
    let text = read(path, "private key")?;
    PrivateKeyDer::from_pem_slice(&text).map_err(|error| content(path, "private key", why(&error), KEY))
}

/// The CA certificates of a PEM file, to check a peer's certificate with.
///
/// # Errors
/// [`FileError`], or a certificate in it that can't be one of a CA.
pub fn roots(path: &Path) -> Result<RootCertStore, TlsError> {
    let mut roots = RootCertStore::empty();
    for certificate in all_certificates(path, "CA certificate")? {
        roots
            .add(certificate)
            .map_err(|source| TlsError::Refused { what: format!("a CA certificate in {}", path.display()), source })?;
    }
    Ok(roots)
}
