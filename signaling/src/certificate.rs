//! The certificate for HTTPS: someone else's from files, or one that this machine makes for itself and keeps in the
//! state folder, so that after a restart browsers find what they have accepted. Knows nothing of connections.

use crate::state::{self, Put};
use anyhow::Context as _;
use rcgen::{CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, KeyPair, SanType};
use rustls::RootCertStore;
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::ServerCertVerifier as _;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, ServerName, UnixTime};
use rustls::sign::CertifiedKey;
use std::io;
use std::net::IpAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// The file of the machine's own certificate and its private key, PEM; one file, so that the two always belong
/// together.
pub const CERTIFICATE: &str = "certificate.pem";

/// Longest file that is read: whoever puts more there gains nothing. A machine with a hundred addresses makes 3 kB.
const FILE_BYTES_MAX: u64 = 64 * 1024;

const DAY: Duration = Duration::from_secs(86_400);

/// A certificate that the machine makes for itself is good for this long: browsers take no more than 398 days.
const VALIDITY: Duration = DAY.saturating_mul(397);

/// A certificate that ends within this time is replaced at a start: a bridge may run for weeks without another.
const RENEWAL: Duration = DAY.saturating_mul(30);

/// A chain of certificates, the server's own first, and the key of that one.
pub struct Certificate {
    pub(crate) chain: Vec<CertificateDer<'static>>,
    pub(crate) key: PrivateKeyDer<'static>,
}

/// What these PEM files hold.
///
/// # Errors
/// When a file cannot be read.
pub fn from_files(certificate: &Path, key: &Path) -> anyhow::Result<Certificate> {
    let chain = CertificateDer::pem_file_iter(certificate)
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .with_context(|| format!("cannot read a certificate from {}", certificate.display()))?;
    let key = PrivateKeyDer::from_pem_file(key)
        .with_context(|| format!("cannot read a private key from {}", key.display()))?;
    Ok(Certificate { chain, key })
}

/// The machine's own certificate for `localhost` and these addresses: the one in the folder while it is good for them
/// for some time to come, else a new one, which is kept there if it can be. Without a folder always a new one.
///
/// # Errors
/// When the operating system gives no random bytes.
pub fn own(folder: Option<&Path>, addresses: &[IpAddr]) -> anyhow::Result<Certificate> {
    own_at(SystemTime::now(), folder, addresses)
}

fn own_at(now: SystemTime, folder: Option<&Path>, addresses: &[IpAddr]) -> anyhow::Result<Certificate> {
    let Some(folder) = folder else { return Ok(make(now, addresses)?.certificate) };
    let put = match read(folder).and_then(|kept| assess(now, kept, addresses)) {
        Ok(kept) => return Ok(kept),
        Err(Unfit::Missing) => Put::First,
        Err(why) => {
            tracing::warn!(%why, "the kept certificate is replaced: browsers will ask about the new one");
            Put::Replace
        }
    };
    let Made { certificate, pem } = make(now, addresses)?;
    // Of two processes that start at once both serve what is in the file.
    match state::write(folder, CERTIFICATE, pem.as_bytes(), put) {
        Ok(()) => Ok(read(folder).and_then(|kept| assess(now, kept, addresses)).unwrap_or(certificate)),
        Err(error) => {
            tracing::warn!(%error, "the certificate cannot be kept: after a restart browsers ask about another");
            Ok(certificate)
        }
    }
}

/// Why a kept certificate is not used.
#[derive(Debug, thiserror::Error)]
enum Unfit {
    #[error("there is none")]
    Missing,
    #[error("its file cannot be read: {0}")]
    Unreadable(#[from] io::Error),
    #[error("its file is damaged")]
    Damaged,
    #[error("it ends within {} days, or does not have the machine's present addresses", RENEWAL.as_secs() / DAY.as_secs())]
    Outlived,
}

fn read(folder: &Path) -> Result<Certificate, Unfit> {
    let pem = state::read(&folder.join(CERTIFICATE), FILE_BYTES_MAX).map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => Unfit::Missing,
        _ => Unfit::Unreadable(error),
    })?;
    let chain = CertificateDer::pem_slice_iter(&pem).collect::<Result<Vec<_>, _>>();
    let key = PrivateKeyDer::from_pem_slice(&pem);
    match (chain, key) {
        (Ok(chain), Ok(key)) if !chain.is_empty() => Ok(Certificate { chain, key }),
        _ => Err(Unfit::Damaged),
    }
}

/// Asks what a client that trusts this certificate would ask once [`RENEWAL`] has passed, for each address.
fn assess(now: SystemTime, kept: Certificate, addresses: &[IpAddr]) -> Result<Certificate, Unfit> {
    let provider = provider();
    CertifiedKey::from_der(kept.chain.clone(), kept.key.clone_key(), &provider)
        .map_err(|_| Unfit::Damaged)?;
    let mut roots = RootCertStore::empty();
    roots.add(kept.chain[0].clone()).map_err(|_| Unfit::Damaged)?;
    let client = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider)
        .build()
        .map_err(|_| Unfit::Damaged)?;
    let then = UnixTime::since_unix_epoch((now + RENEWAL).duration_since(UNIX_EPOCH).unwrap_or_default());
    let names = addresses.iter().map(|&address| ServerName::IpAddress(address.into()));
    for name in names.chain([ServerName::try_from("localhost").map_err(|_| Unfit::Damaged)?]) {
        client.verify_server_cert(&kept.chain[0], &[], &name, &[], then).map_err(|_| Unfit::Outlived)?;
    }
    Ok(kept)
}

/// A certificate, and how it is written down.
struct Made {
    certificate: Certificate,
    pem: String,
}

fn make(now: SystemTime, addresses: &[IpAddr]) -> anyhow::Result<Made> {
    let mut params = CertificateParams::new(["localhost".to_owned()])?;
    params.subject_alt_names.extend(addresses.iter().map(|&address| SanType::IpAddress(address)));
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, "Asamblea");
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    // Clocks differ: it begins a day ago.
    let ((year, month, day), end) = (date(now - DAY), date(now - DAY + VALIDITY));
    params.not_before = rcgen::date_time_ymd(year, month, day);
    params.not_after = rcgen::date_time_ymd(end.0, end.1, end.2);
    let key = KeyPair::generate()?;
    let certificate = params.self_signed(&key)?;
    let pem = [certificate.pem(), key.serialize_pem()].concat();
    let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(key.serialize_der()));
    Ok(Made { certificate: Certificate { chain: vec![certificate.into()], key }, pem })
}

/// The cryptography of TLS.
pub(crate) fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

/// Year, month and day of a time.
fn date(time: SystemTime) -> (i32, u8, u8) {
    civil(time.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs() / DAY.as_secs()))
}

/// The Gregorian date of a number of days since 1970: 400 years are 146,097 days; years are counted from March,
/// so that the leap day comes last.
fn civil(days: u64) -> (i32, u8, u8) {
    let days = days + 719_468;
    let (era, day) = (days / 146_097, days % 146_097);
    let year = (day - day / 1460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153;
    let date = (day - (153 * month + 2) / 5 + 1) as u8;
    let (month, next) = if month < 10 { (month + 3, 0) } else { (month - 9, 1) };
    ((era * 400 + year + next) as i32, month as u8, date)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::state::tests::Place;
    use std::fs::{self, Permissions};
    use std::os::unix::fs::PermissionsExt;

    fn addresses(texts: &[&str]) -> Vec<IpAddr> {
        texts.iter().map(|text| text.parse().expect("an address")).collect()
    }

    fn end_entity(certificate: &Certificate) -> &[u8] {
        &certificate.chain[0]
    }

    #[test]
    fn days_become_dates() {
        assert_eq!(civil(0), (1970, 1, 1));
        assert_eq!(civil(11_016), (2000, 2, 29));
        assert_eq!(civil(19_722), (2023, 12, 31));
        assert_eq!(civil(20_513), (2026, 3, 1));
    }

    #[test]
    fn one_that_is_made_is_good_for_what_it_was_made_for_whatever_that_is() {
        let now = SystemTime::now();
        for list in [addresses(&[]), addresses(&["192.0.2.1", "2001:db8::1", "::1"])] {
            let made = make(now, &list).expect("random bytes").certificate;
            assert!(assess(now, made, &list).is_ok(), "{list:?}");
        }
    }

    #[test]
    fn it_is_made_once_for_its_owner_alone() {
        let place = Place::new();
        let list = addresses(&["192.0.2.1", "2001:db8::1"]);
        let made = own(Some(&place.0), &list).expect("made");
        let path = place.0.join(CERTIFICATE);
        let mode = |path: &Path| fs::metadata(path).expect("there").permissions().mode() & 0o777;
        assert_eq!((mode(&place.0), mode(&path)), (0o700, 0o600));
        let again = own(Some(&place.0), &list).expect("kept");
        assert_eq!(end_entity(&made), end_entity(&again));
        assert_eq!(made.key.secret_der(), again.key.secret_der());
        let fewer = own(Some(&place.0), &list[..1]).expect("kept");
        assert_eq!(end_entity(&made), end_entity(&fewer), "an address that is gone does no harm");
        assert_eq!(fs::read_dir(&place.0).expect("readable").count(), 1, "nothing else is left");
        fs::set_permissions(&path, Permissions::from_mode(0o644)).expect("ours");
        own(Some(&place.0), &list).expect("kept");
        assert_eq!(mode(&path), 0o600, "others cannot read it any more");
    }

    #[test]
    fn without_a_folder_there_is_another_each_time() {
        let (one, other) = (own(None, &[]).expect("made"), own(None, &[]).expect("made"));
        assert_ne!(end_entity(&one), end_entity(&other));
    }

    #[test]
    fn who_makes_it_at_the_same_time_serves_the_same() {
        let place = Place::new();
        let made: Vec<Vec<u8>> = std::thread::scope(|scope| {
            let make = || end_entity(&own(Some(&place.0), &[]).expect("made")).to_vec();
            let threads: Vec<_> = (0..16).map(|_| scope.spawn(make)).collect();
            threads.into_iter().map(|thread| thread.join().expect("no panic")).collect()
        });
        assert!(made.iter().all(|one| *one == made[0]));
    }

    #[test]
    fn one_that_ends_soon_is_replaced_for_good() {
        let place = Place::new();
        let start = SystemTime::now();
        let at =
            |days: u32| end_entity(&own_at(start + days * DAY, Some(&place.0), &[]).expect("made")).to_vec();
        let first = at(0);
        // It began a day early, ends at midnight after 397 days and is renewed 30 days before.
        assert_eq!(at(364), first);
        let second = at(366);
        assert_ne!(second, first);
        assert_eq!(at(367), second);
    }

    #[test]
    fn one_that_lacks_an_address_of_the_machine_is_replaced_for_good() {
        let place = Place::new();
        let serve =
            |list: &[&str]| end_entity(&own(Some(&place.0), &addresses(list)).expect("made")).to_vec();
        let home = serve(&["192.0.2.1"]);
        let away = serve(&["198.51.100.7"]);
        assert_ne!(home, away);
        assert_eq!(serve(&["198.51.100.7"]), away);
        assert_ne!(serve(&["192.0.2.1"]), home, "it did not keep where the machine was before");
    }

    #[test]
    fn one_that_is_damaged_in_any_way_is_replaced_for_good() {
        let place = Place::new();
        let path = place.0.join(CERTIFICATE);
        own(Some(&place.0), &[]).expect("made");
        let whole = fs::read_to_string(&path).expect("there");
        let end = whole.find("-----BEGIN PRIVATE").expect("a key");
        let foreign = make(SystemTime::now(), &[]).expect("made").pem;
        let (_, foreign_key) = foreign.split_at(foreign.find("-----BEGIN PRIVATE").expect("a key"));
        let damaged = [
            String::new(),
            "\0\u{1}".repeat(100),
            whole[..end].to_owned(),
            whole[end..].to_owned(),
            whole[..whole.len() - 40].to_owned(),
            [&whole[..end], foreign_key].concat(),
            whole.replacen('M', "N", 1),
            "x".repeat(FILE_BYTES_MAX as usize + 1),
        ];
        for contents in damaged {
            fs::write(&path, &contents).expect("written");
            let made = own(Some(&place.0), &[]).expect("made");
            let again = own(Some(&place.0), &[]).expect("kept");
            assert_eq!(end_entity(&made), end_entity(&again), "after {contents:.40?}");
        }
    }

    #[test]
    fn a_place_that_cannot_be_written_does_not_keep_the_bridge_from_starting() {
        let place = Place::new();
        fs::create_dir_all(&place.0).expect("a folder for temporary files");
        fs::write(place.0.join("file"), "").expect("written");
        assert!(own(Some(&place.0.join("file")), &[]).is_ok());
        fs::create_dir(place.0.join(CERTIFICATE)).expect("made");
        assert!(own(Some(&place.0), &[]).is_ok());
    }
}
