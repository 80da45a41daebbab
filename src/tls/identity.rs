//! The name a client's certificate states, for who decides what that client may do.

use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer, X509Certificate};

/// The longest identity taken, in bytes: what is longer is no name anybody configures.
const MAX_IDENTITY: usize = 255;

/// The name in a verified certificate: the first URI among its subjectAltNames (SPIFFE writes identities there), else
/// the first DNS name, else the first e-mail address, else the subject's common name. `None` where it states none, or
/// one with control characters or longer than 255 bytes.
#[must_use]
pub fn identity(certificate: &[u8]) -> Option<String> {
    let (_, certificate) = X509Certificate::from_der(certificate).ok()?;
    let names = certificate.subject_alternative_name().ok().flatten();
    let names = names.map(|names| names.value.general_names.as_slice()).unwrap_or_default();
    let first = |of: fn(&GeneralName<'_>) -> Option<String>| names.iter().find_map(of);
    let common = || certificate.subject().iter_common_name().find_map(|name| name.as_str().ok().map(str::to_owned));
    let name = first(uri).or_else(|| first(dns)).or_else(|| first(mail)).or_else(common)?;
    let usable = !name.is_empty() && name.len() <= MAX_IDENTITY && !name.contains(char::is_control);
    usable.then_some(name)
}

fn uri(name: &GeneralName<'_>) -> Option<String> {
    if let GeneralName::URI(uri) = name { Some((*uri).to_owned()) } else { None }
}

fn dns(name: &GeneralName<'_>) -> Option<String> {
    if let GeneralName::DNSName(name) = name { Some((*name).to_owned()) } else { None }
}

fn mail(name: &GeneralName<'_>) -> Option<String> {
    if let GeneralName::RFC822Name(mail) = name { Some((*mail).to_owned()) } else { None }
}
