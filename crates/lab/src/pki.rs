//! The lab's private certification authority, and certificates good or broken in one way.

use jiff::Timestamp;
use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, CertifiedIssuer,
    CrlDistributionPoint, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, KeyIdMethod, KeyPair,
    KeyUsagePurpose, RevocationReason, RevokedCertParams, SerialNumber,
};
use rustls::sign::CertifiedKey;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use std::sync::Arc;

/// How a certificate is good or broken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Cert {
    /// Of the lab's root, for the asked name.
    Good,
    /// Good, by a wildcard for the left-most label.
    Wildcard,
    /// Ended yesterday.
    Expired,
    /// Begins tomorrow.
    NotYetValid,
    /// For another host.
    WrongName,
    /// Signed by its own key.
    SelfSigned,
    /// Of a root that nobody trusts.
    Untrusted,
    /// The name stands only in the common name.
    CommonNameOnly,
    /// A wildcard that would have to cover two labels.
    DeepWildcard,
    /// Good, and ends in ten days.
    Expiring,
    /// Good, of an issuer below the root whose certificate is not sent along.
    ChainCut,
    /// Signed with a digest of old.
    Sha1,
    /// Good, and on its authority's list of those that it has taken back.
    Revoked,
}

/// Why a certificate can't be made.
pub type PkiError = rcgen::Error;

/// A trusted root, an untrusted one, and the time by which certificates are dated.
pub struct Pki {
    root: CertifiedIssuer<'static, KeyPair>,
    stranger: CertifiedIssuer<'static, KeyPair>,
    middle: CertifiedIssuer<'static, KeyPair>,
    now: Timestamp,
    /// Where the list of revoked certificates is.
    list: Option<String>,
}

/// The serial of all that is revoked.
const REVOKED: u64 = 66;

/// A chain and its key.
#[derive(Debug, Clone)]
pub struct Identity {
    /// The certificate and what it is signed by, as it goes over the wire.
    pub certified: Arc<CertifiedKey>,
    /// The private key, PKCS #8.
    pub key: Arc<[u8]>,
}

impl Identity {
    /// The host's own certificate.
    pub fn certificate(&self) -> &[u8] {
        self.certified.cert.first().map(|cert| cert.as_ref()).unwrap_or_default()
    }

    /// The chain in PEM.
    pub fn chain_pem(&self) -> String {
        let one = |cert: &CertificateDer<'_>| pem::encode(&pem::Pem::new("CERTIFICATE", cert.to_vec()));
        self.certified.cert.iter().map(one).collect()
    }

    /// The private key in PEM.
    pub fn key_pem(&self) -> String {
        pem::encode(&pem::Pem::new("PRIVATE KEY", self.key.to_vec()))
    }
}

impl Pki {
    /// A new authority whose certificates are good from a day before `now` to ten years after.
    pub fn new(now: Timestamp) -> Result<Self, PkiError> {
        let root = authority("Sternpost Lab Root", now)?;
        Ok(Self {
            middle: CertifiedIssuer::signed_by(
                authority_params("Sternpost Lab Issuer", now),
                KeyPair::generate()?,
                &root,
            )?,
            root,
            stranger: authority("Unknown Root", now)?,
            now,
            list: None,
        })
    }

    /// Certificates name the list of revoked ones at this URL from now on.
    pub fn with_list(self, url: String) -> Self {
        Self { list: Some(url), ..self }
    }

    /// The trusted root.
    pub fn root(&self) -> CertificateDer<'static> {
        self.root.der().clone()
    }

    /// The trusted root as PEM, for other programs.
    pub fn root_pem(&self) -> String {
        self.root.pem()
    }

    /// The root's list of revoked certificates, DER.
    pub fn revoked(&self) -> Result<Vec<u8>, PkiError> {
        let revoked = RevokedCertParams {
            serial_number: SerialNumber::from(REVOKED),
            revocation_time: day(self.now, -1),
            reason_code: Some(RevocationReason::KeyCompromise),
            invalidity_date: None,
        };
        let list = CertificateRevocationListParams {
            this_update: day(self.now, -1),
            next_update: day(self.now, 3650),
            crl_number: SerialNumber::from(1_u64),
            issuing_distribution_point: None,
            revoked_certs: vec![revoked],
            key_identifier_method: KeyIdMethod::Sha256,
        };
        Ok(list.signed_by(&self.root)?.der().to_vec())
    }

    /// A certificate for `host` that is good or broken in this way.
    pub fn issue(&self, host: &str, kind: Cert) -> Result<Identity, PkiError> {
        let (_, parent) = host.split_once('.').unwrap_or(("", host));
        let (_, grandparent) = parent.split_once('.').unwrap_or(("", parent));
        let name = match kind {
            Cert::Wildcard => format!("*.{parent}"),
            Cert::DeepWildcard => format!("*.{grandparent}"),
            Cert::WrongName => "elsewhere.test".to_owned(),
            _ => host.to_owned(),
        };
        let mut params = if kind == Cert::CommonNameOnly {
            CertificateParams::default()
        } else {
            CertificateParams::new(vec![name])?
        };
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, host);
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        let point = |url: &String| CrlDistributionPoint { uris: vec![url.clone()] };
        params.crl_distribution_points = self.list.iter().map(point).collect();
        if kind == Cert::Revoked {
            params.serial_number = Some(SerialNumber::from(REVOKED));
        }
        let (from, to) = match kind {
            Cert::Expired => (-40, -2),
            Cert::NotYetValid => (2, 400),
            Cert::Expiring => (-80, 10),
            _ => (-2, 3650),
        };
        (params.not_before, params.not_after) = (day(self.now, from), day(self.now, to));
        if kind == Cert::Sha1 {
            return of_old_digest();
        }
        let key = KeyPair::generate()?;
        let chain = match kind {
            Cert::SelfSigned => vec![params.self_signed(&key)?.der().clone()],
            Cert::Untrusted => {
                vec![params.signed_by(&key, &self.stranger)?.der().clone(), self.stranger.der().clone()]
            }
            Cert::ChainCut => vec![params.signed_by(&key, &self.middle)?.der().clone()],
            _ => vec![params.signed_by(&key, &self.root)?.der().clone(), self.root.der().clone()],
        };
        identity(chain, &key)
    }
}

fn identity(chain: Vec<CertificateDer<'static>>, key: &KeyPair) -> Result<Identity, PkiError> {
    present(chain, key.serialize_der().into())
}

fn present(chain: Vec<CertificateDer<'static>>, der: Arc<[u8]>) -> Result<Identity, PkiError> {
    let private = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(der.to_vec()));
    let signer = rustls::crypto::aws_lc_rs::sign::any_supported_type(&private)
        .map_err(|_| PkiError::CouldNotParseKeyPair)?;
    Ok(Identity { certified: Arc::new(CertifiedKey::new(chain, signer)), key: der })
}

fn authority(name: &str, now: Timestamp) -> Result<CertifiedIssuer<'static, KeyPair>, PkiError> {
    CertifiedIssuer::self_signed(authority_params(name, now), KeyPair::generate()?)
}

fn authority_params(name: &str, now: Timestamp) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, name);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    (params.not_before, params.not_after) = (day(now, -60), day(now, 7300));
    params
}

/// A certificate for `mx1.mx-weak-key.test` that was signed with SHA-1, and its key. Libraries of today make
/// none, so it was made once: `openssl x509 -req -sha1 -days 36500`, its authority thrown away.
fn of_old_digest() -> Result<Identity, PkiError> {
    let broken = |_| PkiError::CouldNotParseCertificate;
    let certificate = pem::parse(include_str!("../assets/sha1.pem")).map_err(broken)?;
    let key = pem::parse(include_str!("../assets/sha1.key")).map_err(|_| PkiError::CouldNotParseKeyPair)?;
    present(vec![CertificateDer::from(certificate.into_contents())], key.into_contents().into())
}

fn day(now: Timestamp, days: i64) -> time::OffsetDateTime {
    let second = now.as_second().saturating_add(days * 86_400);
    time::OffsetDateTime::from_unix_timestamp(second).unwrap_or(time::OffsetDateTime::UNIX_EPOCH)
}
