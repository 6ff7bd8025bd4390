//! The catalogue of checks. Each row has the variant, the ID, the severity for a domain in mode `enforce`,
//! the [`Part`] that the check belongs to, the condition that it reports, and the RFC section of the rule.
//! The topic modules (such as `record`, `mx` and `dane`) refer to checks by variant; users see the ID.
//! `sternpost check --list` and `--explain` print the rows.

use crate::identifiers::identifiers;

/// The severity of a finding. The most severe value sorts first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// Mail is being lost or will be lost, or the domain is unprotected.
    Error,
    /// The setup is weak or about to break.
    Warning,
    /// Background information; nothing has to be done.
    Info,
}

/// A group of checks that are made together. Only when a part was examined do its checks count as passed or
/// failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Part {
    /// The domain name itself: its syntax, whether it exists, and its place below a public suffix.
    Domain,
    /// The domain's MX records and the addresses of its MX hosts.
    Mx,
    /// The `_mta-sts` TXT record, including its absence.
    Record,
    /// The fields of a valid `_mta-sts` record.
    RecordText,
    /// DNS lookups that failed, and whether the resolver passes on DNSSEC data.
    Dns,
    /// DNSSEC; examined only when the resolver's answers can be validated.
    Signed,
    /// The zone's name servers, queried one by one.
    NameServers,
    /// Lookups of random names and requests to report targets; in a full check only.
    ExtraProbes,
    /// Changes since the previous check of the domain.
    History,
    /// Whether TLSRPT reports still arrive.
    Inbox,
    /// The name and the addresses of the policy host, `mta-sts.<domain>`.
    PolicyHost,
    /// The TLS handshake with the policy host.
    Https,
    /// The policy host's certificate.
    HttpsCertificate,
    /// Additional requests to the policy host; in a full check only.
    HttpsDeep,
    /// The policy host's HTTP response.
    Http,
    /// The syntax of the policy file.
    Policy,
    /// The contents of a valid policy file.
    PolicyText,
    /// Whether the policy's `mx` lines match the MX hosts.
    Match,
    /// SMTP sessions with the MX hosts, up to STARTTLS.
    Session,
    /// TLS and certificates of the MX hosts.
    Tls,
    /// Additional connections to the MX hosts; in a full check only.
    TlsDeep,
    /// DANE TLSA records of the MX hosts.
    Dane,
    /// TLSA records in unsigned zones, which senders ignore; in a full check only.
    DaneDeep,
    /// The `_smtp._tls` TXT record and its report targets.
    Tlsrpt,
    /// What senders do today, and the next step of the rollout.
    Rollout,
    /// Related records (DMARC, SPF, BIMI) and known providers.
    Companions,
}

identifiers! {
    /// A check of the catalogue; each variant's comment is the condition that it reports.
    Check: (Severity, Part); use Severity, Part;
    DomSyntax "DOM-SYNTAX" (Error, Domain) "the given name is not a valid domain name" "RFC 1035 §2.3.1";
    DomIdn "DOM-IDN" (Info, Domain) "the domain is an internationalized name" "RFC 5890";
    DomNxdomain "DOM-NXDOMAIN" (Error, Domain) "the domain does not exist" "RFC 1034";
    DomSubdomain "DOM-SUBDOMAIN" (Info, Domain) "the name is a subdomain, to which the policy of the parent domain does not apply" "RFC 8461 §3.4";
    DomPublicSuffix "DOM-PUBLIC-SUFFIX" (Warning, Domain) "the name is a public suffix" "publicsuffix.org";
    MxNone "MX-NONE" (Warning, Mx) "there is no MX record; the domain's own address is the implicit MX" "RFC 5321 §5.1";
    MxNull "MX-NULL" (Info, Mx) "null MX: the domain accepts no mail and needs no MTA-STS" "RFC 7505";
    MxCname "MX-CNAME" (Warning, Mx) "an MX host name is a CNAME" "RFC 5321 §5.1";
    MxAddress "MX-ADDRESS" (Error, Mx) "an MX value is not a host name" "RFC 5321 §5.1";
    MxUnresolved "MX-UNRESOLVED" (Error, Mx) "an MX host has no address" "RFC 5321 §5.1";
    MxPrivate "MX-PRIVATE" (Error, Mx) "an MX host has a private, loopback or reserved address" "RFC 6890";
    MxSingle "MX-SINGLE" (Info, Mx) "there is only one MX host" "practice";
    MxIpv6 "MX-IPV6" (Info, Mx) "no MX host has an IPv6 address" "practice";
    MxDuplicatePref "MX-DUPLICATE-PREF" (Info, Mx) "several MX hosts have the same preference" "RFC 5321 §5.1";
    MxTtl "MX-TTL" (Info, Mx) "the TTL of the MX records is over one day" "practice";
    StsTxtMissing "STS-TXT-MISSING" (Error, Record) "there is no _mta-sts record" "RFC 8461 §3.1";
    StsTxtMultiple "STS-TXT-MULTIPLE" (Error, Record) "there is more than one v=STSv1 record" "RFC 8461 §3.1";
    StsTxtSyntax "STS-TXT-SYNTAX" (Error, Record) "the _mta-sts record is malformed" "RFC 8461 §3.1";
    StsTxtVersion "STS-TXT-VERSION" (Error, Record) "the record at _mta-sts does not have the version v=STSv1" "RFC 8461 §3.1";
    StsTxtVersionCase "STS-TXT-VERSION-CASE" (Error, Record) "the version v=STSv1 is written in the wrong case" "RFC 8461 §3.1";
    StsTxtIdMissing "STS-TXT-ID-MISSING" (Error, Record) "the record has no id field" "RFC 8461 §3.1";
    StsTxtIdSyntax "STS-TXT-ID-SYNTAX" (Error, Record) "the id is not 1 to 32 letters or digits" "RFC 8461 §3.1";
    StsTxtApex "STS-TXT-APEX" (Warning, Record) "the record is published at the wrong name" "RFC 8461 §3.1";
    StsTxtQuotes "STS-TXT-QUOTES" (Warning, Record) "the value contains stray quotes or backslashes" "practice";
    StsTxtIdStyle "STS-TXT-ID-STYLE" (Info, RecordText) "the id is not a UTC timestamp" "practice";
    StsTxtIdFuture "STS-TXT-ID-FUTURE" (Warning, RecordText) "the id is a timestamp in the future" "practice";
    StsTxtDelim "STS-TXT-DELIM" (Warning, RecordText) "white space before the first semicolon" "RFC 8461 erratum 6285";
    StsTxtUnknown "STS-TXT-UNKNOWN" (Info, RecordText) "the record has fields that RFC 8461 does not define" "RFC 8461 §3.1";
    StsTxtSplit "STS-TXT-SPLIT" (Info, RecordText) "the record is split into several strings" "RFC 8461 §3.1";
    StsTxtCname "STS-TXT-CNAME" (Info, Record) "the record is delegated by CNAME" "RFC 8461 §8.2";
    StsTxtTtl "STS-TXT-TTL" (Warning, RecordText) "the record's TTL is over one day, or over one hour in mode testing" "RFC 8461 §8.3";
    StsTxtWildcard "STS-TXT-WILDCARD" (Warning, ExtraProbes) "the record is synthesized from a wildcard" "RFC 4592";
    StsTxtUnchanged "STS-TXT-UNCHANGED" (Warning, History) "the policy file changed since the previous check, but the id did not" "RFC 8461 §3.1";
    StsTxtChanged "STS-TXT-CHANGED" (Info, History) "the id changed since the previous check, but the policy file did not" "RFC 8461 §3.1";
    DnsNsDisagree "DNS-NS-DISAGREE" (Error, NameServers) "the zone's name servers give different answers" "RFC 1034 §4.2.2";
    DnsNsLame "DNS-NS-LAME" (Warning, NameServers) "a name server does not answer for the zone" "RFC 1912 §2.8";
    DnsNsIpv6 "DNS-NS-IPV6" (Info, NameServers) "fewer than two name servers of the zone have an IPv6 address" "practice";
    DnsServfail "DNS-SERVFAIL" (Error, Dns) "a DNS lookup fails or times out" "RFC 8461 §3.1";
    DnssecBogus "DNSSEC-BOGUS" (Error, Signed) "an answer fails DNSSEC validation" "RFC 4035";
    DnssecUnsigned "DNSSEC-UNSIGNED" (Info, Signed) "the zone is not signed" "RFC 7672 §1.2";
    DnssecNoDs "DNSSEC-NO-DS" (Warning, ExtraProbes) "the zone is signed, but its parent has no DS record for it" "RFC 4035 §2.4";
    DnssecMx "DNSSEC-MX" (Info, Signed) "an MX host of a signed domain is in a zone that is not signed" "RFC 7672 §2.2.2";
    DnssecUnseen "DNSSEC-UNSEEN" (Info, Dns) "the resolver in use does not pass on DNSSEC data" "RFC 4035 §4.9";
    HostMissing "HOST-MISSING" (Error, PolicyHost) "the policy host has no address" "RFC 8461 §3.3";
    HostCname "HOST-CNAME" (Info, PolicyHost) "the policy host is delegated by CNAME" "RFC 8461 §8.2";
    HostPrivate "HOST-PRIVATE" (Error, PolicyHost) "the policy host has a private or reserved address" "RFC 6890";
    HostIpv6Broken "HOST-IPV6-BROKEN" (Warning, PolicyHost) "an IPv6 address of the policy host accepts no connections" "RFC 8305";
    HostUnreachable "HOST-UNREACHABLE" (Error, PolicyHost) "no connection to the policy host can be established" "RFC 8461 §3.3";
    HostPartial "HOST-PARTIAL" (Warning, PolicyHost) "some addresses of the policy host fail or serve a different policy" "RFC 8461 §3.3";
    HttpsHandshake "HTTPS-HANDSHAKE" (Error, Https) "the TLS handshake with the policy host fails" "RFC 8461 §3.3";
    HttpsTlsOld "HTTPS-TLS-OLD" (Error, Https) "the policy host does not support TLS 1.2 or later" "RFC 8461 §3.3";
    HttpsCertExpired "HTTPS-CERT-EXPIRED" (Error, HttpsCertificate) "the policy host's certificate has expired" "RFC 8461 §3.3";
    HttpsCertNotYet "HTTPS-CERT-NOT-YET" (Error, HttpsCertificate) "the policy host's certificate is not valid yet" "RFC 8461 §3.3";
    HttpsCertName "HTTPS-CERT-NAME" (Error, HttpsCertificate) "the policy host's certificate does not match its name" "RFC 9525 §6";
    HttpsCertUntrusted "HTTPS-CERT-UNTRUSTED" (Error, HttpsCertificate) "the policy host's certificate does not chain to a trusted root" "RFC 8461 §3.3";
    HttpsCertChain "HTTPS-CERT-CHAIN" (Error, HttpsCertificate) "the policy host does not send the intermediate certificate" "RFC 8446 §4.4.2";
    HttpsCertSelf "HTTPS-CERT-SELF" (Error, HttpsCertificate) "the policy host's certificate is self-signed" "RFC 8461 §3.3";
    HttpsCertExpiring "HTTPS-CERT-EXPIRING" (Warning, HttpsCertificate) "the policy host's certificate expires within 14 days, or a third of its lifetime if that is shorter" "practice";
    HttpsCertCnOnly "HTTPS-CERT-CN-ONLY" (Error, HttpsCertificate) "the policy host's name is only in the certificate's common name" "RFC 9525 §2";
    HttpsCertUsage "HTTPS-CERT-USAGE" (Error, HttpsCertificate) "the policy host's certificate is not for TLS servers" "RFC 5280 §4.2.1.12";
    HttpsCertLife "HTTPS-CERT-LIFE" (Info, HttpsCertificate) "the policy host's certificate is valid for longer than public CAs issue from March 2027 on" "CA/Browser Forum SC-081v3";
    HttpsSni "HTTPS-SNI" (Warning, HttpsDeep) "the policy host presents a different certificate without SNI" "RFC 6066 §3";
    HttpsRedirect "HTTPS-REDIRECT" (Error, Http) "the policy host redirects" "RFC 8461 §3.3";
    HttpsStatus "HTTPS-STATUS" (Error, Http) "the policy host returns a status other than 200" "RFC 8461 §3.3";
    HttpsType "HTTPS-TYPE" (Error, Http) "the policy file is not text/plain" "RFC 8461 §3.2";
    HttpsSize "HTTPS-SIZE" (Error, Http) "the policy file is larger than 64 KiB" "RFC 8461 §3.3";
    HttpsSlow "HTTPS-SLOW" (Warning, Http) "fetching the policy file takes over 5 seconds" "RFC 8461 §3.3";
    HttpsAuth "HTTPS-AUTH" (Error, Http) "the policy host requires a password or a browser challenge" "RFC 8461 §3.3";
    HttpsRevoked "HTTPS-REVOKED" (Error, HttpsDeep) "the CA has revoked the policy host's certificate" "RFC 5280 §5";
    HttpsUserAgent "HTTPS-USER-AGENT" (Warning, HttpsDeep) "the response depends on the User-Agent header" "practice";
    HttpsCache "HTTPS-CACHE" (Info, Http) "the policy file may be cached for over an hour" "RFC 8461 §3.3";
    HttpsBroken "HTTPS-BROKEN" (Error, Http) "the response is truncated, compressed or not valid HTTP" "RFC 8461 §3.3";
    HttpsCaa "HTTPS-CAA" (Warning, HttpsDeep) "CAA records do not allow the current CA to renew the certificate, or only for certain accounts" "RFC 8659, RFC 8657";
    PolSyntax "POL-SYNTAX" (Error, Policy) "the policy file is malformed" "RFC 8461 §3.2";
    PolVersion "POL-VERSION" (Error, Policy) "the version is missing or not STSv1" "RFC 8461 §3.2";
    PolMode "POL-MODE" (Error, Policy) "the mode is missing, or not enforce, testing or none" "RFC 8461 §3.2";
    PolMaxAge "POL-MAX-AGE" (Error, Policy) "max_age is missing or not a number" "RFC 8461 §3.2";
    PolCase "POL-CASE" (Error, Policy) "a key or value is in the wrong case" "RFC 8461 §3.2";
    PolHtml "POL-HTML" (Error, Policy) "a web page is served instead of a policy" "RFC 8461 §3.2";
    PolBom "POL-BOM" (Error, Policy) "the policy file begins with a byte-order mark" "RFC 8461 §3.2";
    PolNoMx "POL-NO-MX" (Error, Policy) "the policy has no mx line, and its mode requires one" "RFC 8461 §3.2";
    PolMxSyntax "POL-MX-SYNTAX" (Error, Policy) "an mx line is not a host name or a wildcard" "RFC 8461 §3.2";
    PolLf "POL-LF" (Info, PolicyText) "lines end in LF instead of CRLF, which is accepted" "RFC 8461 §3.2";
    PolUnknown "POL-UNKNOWN" (Info, PolicyText) "the policy has keys that RFC 8461 does not define" "RFC 8461 §3.2";
    PolDuplicate "POL-DUPLICATE" (Warning, PolicyText) "a key occurs twice; the first one counts" "RFC 8461 §3.2";
    PolMxDot "POL-MX-DOT" (Warning, PolicyText) "an mx line ends in a dot, for which some senders discard the policy" "RFC 8461 §3.2";
    PolBlankEnd "POL-BLANK-END" (Warning, PolicyText) "the policy file ends with empty lines, for which some senders discard the policy" "RFC 8461 §3.2";
    PolMaxAgeShort "POL-MAX-AGE-SHORT" (Warning, PolicyText) "max_age is under one week in mode enforce" "RFC 8461 §3.2";
    PolMaxAgeLong "POL-MAX-AGE-LONG" (Warning, PolicyText) "max_age is over 31 days in mode testing, or over the maximum of one year" "RFC 8461 §3.2";
    PolModeTesting "POL-MODE-TESTING" (Info, PolicyText) "the policy is in mode testing, not enforce" "RFC 8461 §5";
    PolModeNone "POL-MODE-NONE" (Info, PolicyText) "the policy has mode none, which retires MTA-STS" "RFC 8461 §8.3";
    PolWildcardBroad "POL-WILDCARD-BROAD" (Warning, PolicyText) "a wildcard in the policy also matches hosts of others" "RFC 8461 §4.1";
    PolMxUnused "POL-MX-UNUSED" (Warning, Match) "an mx line matches no MX host" "RFC 8461 §4.1";
    MatchMxUncovered "MATCH-MX-UNCOVERED" (Error, Match) "an MX host matches no mx line of the policy" "RFC 8461 §4.1";
    MatchNone "MATCH-NONE" (Error, Match) "the policy matches no MX host" "RFC 8461 §4.1";
    MatchWildcardDepth "MATCH-WILDCARD-DEPTH" (Error, Match) "a wildcard would have to match more than one label" "RFC 8461 §4.1";
    MatchCnameTarget "MATCH-CNAME-TARGET" (Warning, Match) "an mx line matches the CNAME target of an MX host, not its name" "RFC 8461 §4.1";
    SmtpUnreachable "SMTP-UNREACHABLE" (Warning, Session) "no connection to an MX host can be established" "RFC 5321";
    SmtpPortBlocked "SMTP-PORT-BLOCKED" (Info, Session) "this network blocks outgoing connections to port 25" "practice";
    SmtpBanner "SMTP-BANNER" (Warning, Session) "an MX host does not greet with 220 in time" "RFC 5321 §3.1";
    SmtpGreylist "SMTP-GREYLIST" (Info, Session) "an MX host defers unknown clients (greylisting)" "RFC 6647";
    SmtpNoStarttls "SMTP-NO-STARTTLS" (Error, Session) "an MX host does not offer STARTTLS" "RFC 8461 §4.2";
    SmtpStripped "SMTP-STRIPPED" (Error, Session) "the STARTTLS offer was overwritten in transit" "RFC 3207 §6";
    SmtpStarttlsFails "SMTP-STARTTLS-FAILS" (Error, Session) "STARTTLS or the TLS handshake fails" "RFC 8461 §4.2";
    SmtpInjection "SMTP-INJECTION" (Warning, TlsDeep) "a command sent in cleartext before the handshake is answered after it" "CVE-2011-0411";
    SmtpTlsOld "SMTP-TLS-OLD" (Error, Session) "an MX host does not support TLS 1.2 or later" "RFC 9325 §3.1";
    SmtpTlsLegacy "SMTP-TLS-LEGACY" (Warning, TlsDeep) "an MX host still accepts TLS 1.0 or 1.1" "RFC 8996";
    SmtpTls13 "SMTP-TLS13" (Info, Tls) "an MX host does not support TLS 1.3" "RFC 9325 §3.1";
    SmtpCipherWeak "SMTP-CIPHER-WEAK" (Warning, TlsDeep) "an MX host accepts a weak cipher suite" "RFC 9325 §4.1";
    SmtpKeyWeak "SMTP-KEY-WEAK" (Warning, Tls) "an MX certificate has a short key or an obsolete signature algorithm" "RFC 9325 §4.5";
    SmtpCertExpired "SMTP-CERT-EXPIRED" (Error, Tls) "an MX certificate has expired" "RFC 8461 §4.2";
    SmtpCertNotYet "SMTP-CERT-NOT-YET" (Error, Tls) "an MX certificate is not valid yet" "RFC 8461 §4.2";
    SmtpCertName "SMTP-CERT-NAME" (Error, Tls) "an MX certificate does not match the host name" "RFC 8461 §4.2";
    SmtpCertUntrusted "SMTP-CERT-UNTRUSTED" (Error, Tls) "an MX certificate does not chain to a trusted root" "RFC 8461 §4.2";
    SmtpCertChain "SMTP-CERT-CHAIN" (Error, Tls) "an MX host does not send the intermediate certificate" "RFC 8461 §4.2";
    SmtpCertSelf "SMTP-CERT-SELF" (Error, Tls) "an MX certificate is self-signed" "RFC 8461 §4.2";
    SmtpCertExpiring "SMTP-CERT-EXPIRING" (Warning, Tls) "an MX certificate expires within 14 days, or a third of its lifetime if that is shorter" "practice";
    SmtpCertCnOnly "SMTP-CERT-CN-ONLY" (Error, Tls) "the MX host name is only in the certificate's common name" "RFC 9525 §2";
    SmtpCertUsage "SMTP-CERT-USAGE" (Error, Tls) "an MX certificate is not for TLS servers" "RFC 5280 §4.2.1.12";
    SmtpCertLife "SMTP-CERT-LIFE" (Info, Tls) "an MX certificate is valid for longer than public CAs issue from March 2027 on" "CA/Browser Forum SC-081v3";
    SmtpCertClientAuth "SMTP-CERT-CLIENT-AUTH" (Info, Tls) "an MX certificate is for TLS clients as well, which public CAs no longer issue" "Chrome Root Program Policy";
    SmtpSniRequired "SMTP-SNI-REQUIRED" (Warning, TlsDeep) "an MX host presents a valid certificate only with SNI" "RFC 8461 §7.1";
    SmtpAddressDisagree "SMTP-ADDRESS-DISAGREE" (Warning, Tls) "the addresses of one MX host differ in certificate or TLS support" "practice";
    SmtpFlapping "SMTP-FLAPPING" (Warning, TlsDeep) "an MX host behaves differently on repeated connections" "practice";
    SmtpClientCert "SMTP-CLIENT-CERT" (Warning, Session) "an MX host requires a client certificate" "RFC 3207 §4.1";
    SmtpPq "SMTP-PQ" (Info, TlsDeep) "which key exchange an MX host agrees on with senders that offer a post-quantum group" "RFC 8446 §4.2.7";
    SmtpHelloLarge "SMTP-HELLO-LARGE" (Warning, TlsDeep) "an MX host fails with a ClientHello of more than one TCP segment" "RFC 8446 §5.1";
    SmtpRequiretls "SMTP-REQUIRETLS" (Info, Tls) "an MX host offers REQUIRETLS" "RFC 8689";
    DaneAbsent "DANE-ABSENT" (Info, Dane) "no MX host has TLSA records" "RFC 7672";
    DaneProtects "DANE-PROTECTS" (Info, Dane) "an MX host is protected by DANE" "RFC 7672";
    DaneUnsigned "DANE-UNSIGNED" (Warning, DaneDeep) "an MX host has TLSA records in an unsigned zone" "RFC 7672 §2.1";
    DaneUnknown "DANE-LOOKUP" (Error, Dane) "the TLSA records of an MX host can't be looked up" "RFC 7672 §2.1";
    DaneSyntax "DANE-SYNTAX" (Error, Dane) "a TLSA record is unusable" "RFC 6698 §2.1";
    DaneUsage "DANE-USAGE" (Warning, Dane) "a TLSA record has certificate usage 0 or 1" "RFC 7672 §3.1.3";
    DaneMismatch "DANE-MISMATCH" (Error, Dane) "no TLSA record matches the MX certificate" "RFC 7672 §3.1";
    DanePartial "DANE-PARTIAL" (Warning, Dane) "only some MX hosts have TLSA records" "RFC 7672 §2.2";
    DaneTaName "DANE-TA-NAME" (Error, Dane) "with TLSA usage 2, the chain lacks the trust anchor or the certificate does not match the name" "RFC 7672 §3.1.2";
    DaneDigest "DANE-DIGEST" (Warning, Dane) "the TLSA records contain full certificates or keys instead of digests" "RFC 7671 §9";
    DaneSelector "DANE-SELECTOR" (Warning, Dane) "a TLSA record is for the whole certificate (selector 0), which changes with each renewal" "RFC 7671 §8.1";
    DaneRollover "DANE-ROLLOVER" (Warning, Dane) "there is only one TLSA record, and the certificate is about to be renewed" "RFC 7671 §8.1";
    DaneStsConflict "DANE-STS-CONFLICT" (Warning, Dane) "DANE and MTA-STS disagree about an MX host" "RFC 8461 §2";
    RptTxtMissing "RPT-TXT-MISSING" (Warning, Tlsrpt) "there is no _smtp._tls record" "RFC 8460 §3";
    RptTxtMultiple "RPT-TXT-MULTIPLE" (Error, Tlsrpt) "there is more than one _smtp._tls record" "RFC 8460 §3";
    RptTxtSyntax "RPT-TXT-SYNTAX" (Error, Tlsrpt) "the _smtp._tls record is malformed" "RFC 8460 §3";
    RptTxtVersion "RPT-TXT-VERSION" (Error, Tlsrpt) "the record at _smtp._tls does not have the version v=TLSRPTv1" "RFC 8460 §3";
    RptTxtVersionCase "RPT-TXT-VERSION-CASE" (Error, Tlsrpt) "the version v=TLSRPTv1 is written in the wrong case" "RFC 8460 §3";
    RptTxtQuotes "RPT-TXT-QUOTES" (Error, Tlsrpt) "the value of the _smtp._tls record contains stray quotes or backslashes" "practice";
    RptTxtDelim "RPT-TXT-DELIM" (Warning, Tlsrpt) "white space before the first semicolon of the _smtp._tls record" "RFC 8461 erratum 6285";
    RptTxtUnknown "RPT-TXT-UNKNOWN" (Info, Tlsrpt) "the _smtp._tls record has fields that RFC 8460 does not define" "RFC 8460 §3";
    RptTxtWrongName "RPT-TXT-WRONG-NAME" (Warning, Tlsrpt) "the TLSRPT record is published at the wrong name" "RFC 8460 §3";
    RptRuaScheme "RPT-RUA-SCHEME" (Error, Tlsrpt) "a report target is not a valid mailto: or https: URI" "RFC 8460 §3";
    RptRuaMailto "RPT-RUA-MAILTO" (Error, Tlsrpt) "the domain of a report address accepts no mail" "RFC 8460 §3";
    RptRuaLoop "RPT-RUA-LOOP" (Warning, Tlsrpt) "reports go only to the MX hosts that they are about" "RFC 8460 §3";
    RptRuaHttps "RPT-RUA-HTTPS" (Error, ExtraProbes) "an https: report target does not accept reports" "RFC 8460 §5.4";
    RptRuaMany "RPT-RUA-MANY" (Info, Tlsrpt) "there are more than two report targets" "RFC 8460 §3";
    RptRuaEncode "RPT-RUA-ENCODE" (Error, Tlsrpt) "a report target contains `,`, `!` or `;` without percent-encoding" "RFC 8460 §3";
    RptSilent "RPT-SILENT" (Warning, Inbox) "no report has arrived for a week" "RFC 8460 §4.1";
    ReadyEnforce "READY-ENFORCE" (Info, Rollout) "whether the policy is ready for mode enforce, or which evidence is missing" "RFC 8461 §5";
    ReadyIdOrder "READY-ID-ORDER" (Warning, History) "the id was published before the policy file" "RFC 8461 §5.1";
    SenderStrict "SENDER-STRICT" (Info, Rollout) "what a sender that honors MTA-STS does with mail today" "RFC 8461 §5";
    SenderTesting "SENDER-TESTING" (Info, Rollout) "what a sender that only reports does with mail today" "RFC 8460 §4";
    SenderDane "SENDER-DANE" (Info, Rollout) "what a sender that uses DANE does with mail today" "RFC 7672 §2.2";
    SenderPlain "SENDER-PLAIN" (Info, Rollout) "what any other sender does with mail today" "RFC 3207";
    DmarcMissing "DMARC-MISSING" (Info, Companions) "there is no DMARC record" "RFC 9989";
    SpfMissing "SPF-MISSING" (Info, Companions) "there is no SPF record" "RFC 7208";
    Bimi "BIMI" (Info, Companions) "there is a BIMI record" "BIMI";
    Provider "PROVIDER" (Info, Companions) "the mail host or web host is a known provider" "the provider's documentation";
    ProviderTwo "PROVIDER-TWO" (Info, Companions) "the policy and the mail of the domain are at two providers" "Ashiq et al., IMC 2025";
}

impl Check {
    /// The severity for a domain in mode `enforce`. A finding may carry a different one.
    pub fn severity(self) -> Severity {
        self.row().1.0
    }

    /// The part that the check belongs to.
    pub fn part(self) -> Part {
        self.row().1.1
    }

    /// The RFC section or other source of the rule; `practice` for operational advice.
    pub fn source(self) -> &'static str {
        self.row().3
    }
}
