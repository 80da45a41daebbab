//! Certificates for tests: a CA in a directory of its own, and what it signs.

use std::path::{Path, PathBuf};

use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, SanType, date_time_ymd};

/// A CA and its files.
pub struct Pki {
    dir: tempfile::TempDir,
    issuer: Issuer<'static, KeyPair>,
}

impl Pki {
    /// A CA, whose certificate is in `ca.pem`.
    pub fn new() -> Pki {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(Vec::<String>::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let dir = tempfile::tempdir().unwrap();
        // no two have the same name, or a stranger's signatures would be looked at
        params.distinguished_name.push(DnType::CommonName, format!("CA in {}", dir.path().display()));
        std::fs::write(dir.path().join("ca.pem"), params.self_signed(&key).unwrap().pem()).unwrap();
        Pki { dir, issuer: Issuer::new(params, key) }
    }

    pub fn path(&self, file: &str) -> PathBuf {
        self.dir.path().join(file)
    }

    pub fn ca(&self) -> PathBuf {
        self.path("ca.pem")
    }

    /// Signs a certificate with this common name and these alternative names, as `change` has it: `FILE.pem`, and its
    /// key, `FILE.key`.
    pub fn issue(
        &self,
        file: &str,
        common: &str,
        names: Vec<SanType>,
        change: impl FnOnce(&mut CertificateParams),
    ) -> (PathBuf, PathBuf) {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(Vec::<String>::new()).unwrap();
        params.distinguished_name = rcgen::DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, common);
        params.subject_alt_names = names;
        change(&mut params);
        let cert = params.signed_by(&key, &self.issuer).unwrap();
        let (cert_file, key_file) = (self.path(&format!("{file}.pem")), self.path(&format!("{file}.key")));
        std::fs::write(&cert_file, cert.pem()).unwrap();
        write_private(&key_file, &key.serialize_pem());
        (cert_file, key_file)
    }

    /// A server's, for `localhost` and 127.0.0.1.
    pub fn server(&self, file: &str) -> (PathBuf, PathBuf) {
        let local = [SanType::DnsName("localhost".try_into().unwrap()), SanType::IpAddress([127, 0, 0, 1].into())];
        self.issue(file, "broker", local.into(), |_| ())
    }

    /// A client's, known as this.
    pub fn client(&self, name: &str) -> (PathBuf, PathBuf) {
        self.issue(name, name, vec![], |_| ())
    }

    /// A client's that was good until some years ago.
    pub fn expired(&self, name: &str) -> (PathBuf, PathBuf) {
        self.issue(name, name, vec![], |params| {
            params.not_before = date_time_ymd(2019, 1, 1);
            params.not_after = date_time_ymd(2020, 1, 1);
        })
    }
}

fn write_private(path: &Path, text: &str) {
    use std::os::unix::fs::PermissionsExt;
    std::fs::write(path, text).unwrap();
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600)).unwrap();
}
