//! `[host]` and `[admin]`: the policy host and the HTTP API for control panels. The input is the validated keys;
//! `load` puts the resulting types into the [`Config`](crate::Config).

use crate::failure::Failure;
use crate::inbox::files;
use crate::read::Read;
use crate::specs::{AuthoritySpec, CertificateFiles};
use formats::DomainName;
use receiver::host::authority::{Authority, ORDERS_PER_HOUR};
use receiver::host::order::ChallengeType;
use receiver::rollout::desired::PolicyHostAt;
use sender::serve::listen::Address;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

/// `[host]`: serving policies over HTTPS.
#[derive(Debug, Clone)]
pub struct HostConfig {
    /// HTTPS listen addresses.
    pub listen: Vec<Address>,
    /// Plain HTTP listen addresses, for ACME challenges.
    pub http: Vec<Address>,
    /// The target of `mta-sts.DOMAIN`; `None` leaves that name unchanged.
    pub policy_host_target: Option<PolicyHostAt>,
    /// Plain HTTP listen addresses for a proxy that terminates TLS (`host.behind_proxy`).
    pub bare: Vec<Address>,
    /// Whether each connection begins with a PROXY protocol header.
    pub proxy_header: bool,
    /// Existing certificates, which take precedence over ACME.
    pub certificates: Vec<CertificateFiles>,
    /// The file with the key that encrypts private keys in the store; `None` stores them unencrypted.
    pub key_file: Option<PathBuf>,
    /// ACME CAs in order of preference; empty if no certificates are ordered.
    pub authorities: Vec<Authority>,
    /// How the CAs validate policy hosts; `None` means http-01 or tls-alpn-01.
    pub challenge: Option<ChallengeType>,
}

/// The role `[host]`; `None` if the section is absent.
pub fn host(read: &Read, folder: &Path) -> Result<Option<HostConfig>, Failure> {
    if !read.has("host") {
        return Ok(None);
    }
    let addresses: Vec<_> = read.list("host.addresses").iter().filter_map(|text| text.parse().ok()).collect();
    let name = read.text("host.name").and_then(|text| DomainName::parse(text).ok());
    let owned = |key: &str| read.text(key).map(str::to_owned);
    let mut certificates: Vec<CertificateFiles> = read.tables("host.certificates");
    for files in &mut certificates {
        (files.certificate, files.key) = (folder.join(&files.certificate), folder.join(&files.key));
    }
    let first = read.text("host.acme.directory").map(|directory| AuthoritySpec {
        directory: directory.to_owned(),
        contact: owned("host.acme.contact"),
        profile: owned("host.acme.profile"),
        ca_file: owned("host.acme.ca_file").map(PathBuf::from),
        key_id: owned("host.acme.key_id"),
        key_file: owned("host.acme.key_file").map(PathBuf::from),
        new_per_hour: Some(read.number("host.acme.new_per_hour", ORDERS_PER_HOUR)),
        issuer: owned("host.acme.issuer"),
    });
    let others: Vec<AuthoritySpec> = read.tables("host.acme.then");
    let authorities = first.into_iter().chain(others).map(|spec| spec.authority(folder));
    Ok(Some(HostConfig {
        listen: read.addresses("host.listen", "127.0.0.1:443"),
        http: read.addresses("host.http", ""),
        policy_host_target: match name {
            Some(name) => Some(PolicyHostAt::Alias(name)),
            None => Some(PolicyHostAt::Addresses(addresses))
                .filter(|policy_host_target| *policy_host_target != PolicyHostAt::Addresses(Vec::new())),
        },
        bare: read.addresses("host.behind_proxy", ""),
        proxy_header: read.flag("host.proxy_header"),
        certificates,
        key_file: owned("host.key_file").map(|file| folder.join(file)),
        authorities: authorities.collect::<Result<_, _>>()?,
        challenge: read.text("host.acme.challenge").and_then(ChallengeType::parse),
    }))
}

/// `[admin]`: the HTTP API for control panels.
#[derive(Debug, Clone)]
pub struct AdminConfig {
    /// The listen address. Without a certificate, other hosts can't reach it.
    pub listen: Address,
    /// The file with a bearer token that may do everything; `None` if only the tokens of the store count.
    pub token_file: Option<PathBuf>,
    /// The certificate for HTTPS; `None` for HTTP.
    pub certificate: Option<CertificateFiles>,
}

pub fn admin(read: &Read, folder: &Path) -> Result<AdminConfig, Failure> {
    let certificate = files(read, folder, "admin")?;
    let usual = Address::Tcp(SocketAddr::from(([127, 0, 0, 1], 8464)));
    let listen = read.address("admin.listen").unwrap_or(usual);
    if certificate.is_none() && listen.is_exposed() {
        return Err(Failure::usage(
            format!("[admin] can't listen on {listen}"),
            "it is reachable from other hosts, and has no TLS, which would protect the tokens",
            "Configure a certificate:\n  [admin]\n  certificate = \"fullchain.pem\"\n  key = \"key.pem\"\nOr listen on 127.0.0.1 or at a Unix socket, with a reverse proxy with TLS in front.",
        ));
    }
    let token_file = read.text("admin.token_file").map(|file| folder.join(file));
    Ok(AdminConfig { listen, token_file, certificate })
}
