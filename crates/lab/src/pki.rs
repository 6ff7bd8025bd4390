//! The lab's private certification authority. It issues certificates that are correct or have one fault.

use jiff::Timestamp;
use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, CertifiedIssuer,
    CrlDistributionPoint, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, KeyIdMethod, KeyPair,
    KeyUsagePurpose, RevocationReason, RevokedCertParams, SerialNumber,
};
use rustls::sign::CertifiedKey;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use std::sync::Arc;

/// The kind of a certificate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Cert {
    /// Issued by the lab's root for the requested name.
    Good,
    /// Valid, with a wildcard for the left-most label.
    Wildcard,
    /// Expired two days ago.
    Expired,
    /// Not valid before two days from now.
    NotYetValid,
    /// Issued for another host.
    WrongName,
    /// Self-signed.
    SelfSigned,
    /// Issued by a root that the clients do not trust.
    Untrusted,
    /// With the name only in the common name, without a subjectAltName.
    CommonNameOnly,
    /// With a wildcard that would have to match two labels.
    DeepWildcard,
    /// Valid, expires in ten days.
    Expiring,
    /// Issued by an intermediate whose certificate the server does not send.
    ChainCut,
    /// Signed with SHA-1; only for `mx1.mx-weak-key.test`.
    Sha1,
    /// Valid, but listed in the CA's CRL.
    Revoked,
    /// Valid for 198 days, which public CAs issue no longer from March 2027 on.
    LongLived,
    /// Valid, for TLS servers and TLS clients.
    ForClientsToo,
    /// For TLS clients only.
    ForClientsOnly,
    /// Issued for the names of a registrar, as on a parking page.
    Parking,
    /// Issued 20 days ago, valid for 70 more.
    Renewed,
}

/// Why a certificate could not be created.
pub type PkiError = rcgen::Error;

/// The lab's CA: a trusted root with an intermediate, an untrusted root, and the time for validity periods.
pub struct Pki {
    root: CertifiedIssuer<'static, KeyPair>,
    stranger: CertifiedIssuer<'static, KeyPair>,
    middle: CertifiedIssuer<'static, KeyPair>,
    now: Timestamp,
    /// The URL of the CRL; `None` omits the distribution point from certificates.
    list: Option<String>,
}

/// The serial number of all revoked certificates.
const REVOKED: u64 = 66;

/// A certificate chain and its private key.
#[derive(Debug, Clone)]
pub struct Identity {
    /// The chain as the server sends it, with the signing key.
    pub certified: Arc<CertifiedKey>,
    /// The private key in PKCS #8, DER.
    pub key: Arc<[u8]>,
}

impl Identity {
    /// The host's certificate in DER.
    pub fn certificate(&self) -> &[u8] {
        self.certified.cert.first().map(|cert| cert.as_ref()).unwrap_or_default()
    }

    /// The chain in PEM, host certificate first.
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
    /// Creates a CA whose valid certificates last from two days before `now` to ten years after it.
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

    /// Sets the URL of the CRL that issued certificates refer to.
    pub fn with_list(self, url: String) -> Self {
        Self { list: Some(url), ..self }
    }

    /// The trusted root certificate, DER.
    pub fn root(&self) -> CertificateDer<'static> {
        self.root.der().clone()
    }

    /// The trusted root certificate in PEM, for other programs.
    pub fn root_pem(&self) -> String {
        self.root.pem()
    }

    /// The root's CRL in DER.
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

    /// Issues a certificate of this kind for `host`.
    pub fn issue(&self, host: &str, kind: Cert) -> Result<Identity, PkiError> {
        let (_, parent) = host.split_once('.').unwrap_or(("", host));
        let (_, grandparent) = parent.split_once('.').unwrap_or(("", parent));
        let name = match kind {
            Cert::Wildcard => format!("*.{parent}"),
            Cert::DeepWildcard => format!("*.{grandparent}"),
            Cert::WrongName => "elsewhere.test".to_owned(),
            Cert::Parking => "*.porkbun.com".to_owned(),
            _ => host.to_owned(),
        };
        let mut params = if kind == Cert::CommonNameOnly {
            CertificateParams::default()
        } else {
            CertificateParams::new(vec![name])?
        };
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, host);
        params.extended_key_usages = match kind {
            Cert::ForClientsToo => {
                vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth]
            }
            Cert::ForClientsOnly => vec![ExtendedKeyUsagePurpose::ClientAuth],
            _ => vec![ExtendedKeyUsagePurpose::ServerAuth],
        };
        let point = |url: &String| CrlDistributionPoint { uris: vec![url.clone()] };
        params.crl_distribution_points = self.list.iter().map(point).collect();
        if kind == Cert::Revoked {
            params.serial_number = Some(SerialNumber::from(REVOKED));
        }
        let (from, to) = match kind {
            Cert::Expired => (-40, -2),
            Cert::NotYetValid => (2, 400),
            Cert::Expiring => (-80, 10),
            Cert::LongLived => (-2, 196),
            Cert::Renewed => (-20, 70),
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

/// A certificate for `mx1.mx-weak-key.test` with a SHA-1 signature, and its key. Current libraries refuse to
/// create one, so it was made once with `openssl x509 -req -sha1 -days 36500`; the key of its CA was discarded.
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
