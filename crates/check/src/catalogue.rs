//! The checks that are made, each a row: ID, severity in `enforce`, the part that it belongs to, what
//! trips it, where the rule is.

use std::fmt;

/// How bad a finding is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// Mail is or will be lost, or there is no protection.
    Error,
    /// Weak, or about to break.
    Warning,
    /// Good to know.
    Info,
}

/// What is looked at together: when a part was looked at, its checks passed or tripped.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Part {
    /// The domain's name.
    Domain,
    /// Its MX records.
    Mx,
    /// The `_mta-sts` record, and whether there is one.
    Record,
    /// What stands in a record that is there.
    RecordText,
    /// DNS.
    Dns,
    /// Signatures, where answers can be validated.
    Signed,
    /// The zone's name servers one by one.
    NameServers,
    /// Made-up names, further look-ups: in a deep look only.
    ExtraProbes,
    /// What a look before this one saw.
    History,
    /// The report inbox.
    Inbox,
    /// The policy host's names and addresses.
    PolicyHost,
    /// Its TLS.
    Https,
    /// Its certificate.
    HttpsCertificate,
    /// Further visits to it: in a deep look only.
    HttpsDeep,
    /// Its HTTP.
    Http,
    /// The policy file.
    Policy,
    /// What stands in a valid policy file.
    PolicyText,
    /// The policy against the MX set.
    Match,
    /// Sessions with MX hosts.
    Session,
    /// TLS with MX hosts.
    Tls,
    /// Further connections to them: in a deep look only.
    TlsDeep,
    /// DANE.
    Dane,
    /// TLSA records that do not count: in a deep look only.
    DaneDeep,
    /// The `_smtp._tls` record.
    Tlsrpt,
    /// What senders do, and what is next.
    Rollout,
    /// Neighbours of transport security.
    Companions,
}

macro_rules! catalogue {
    ($($name:ident $id:literal $severity:ident $part:ident $about:literal $source:literal;)*) => {
        /// A check.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Check {
            $(#[doc = $about] $name,)*
        }

        impl Check {
            /// All of them, in the order of the catalogue.
            pub const ALL: &[Check] = &[$(Check::$name),*];

            /// Its ID.
            pub fn id(self) -> &'static str {
                match self { $(Self::$name => $id),* }
            }

            /// How bad it is for a domain with an enforced policy.
            pub fn severity(self) -> Severity {
                match self { $(Self::$name => Severity::$severity),* }
            }

            /// What it is looked at with.
            pub fn part(self) -> Part {
                match self { $(Self::$name => Part::$part),* }
            }

            /// What trips it.
            pub fn about(self) -> &'static str {
                match self { $(Self::$name => $about),* }
            }

            /// Where the rule is.
            pub fn source(self) -> &'static str {
                match self { $(Self::$name => $source),* }
            }
        }
    };
}

catalogue! {
    DomSyntax "DOM-SYNTAX" Error Domain "what was given is not a domain name" "RFC 1035 §2.3.1";
    DomIdn "DOM-IDN" Info Domain "a Unicode name was given" "RFC 5890";
    DomNxdomain "DOM-NXDOMAIN" Error Domain "the domain does not exist" "RFC 1034";
    DomSubdomain "DOM-SUBDOMAIN" Info Domain "a name below a registered domain: the policy of its parent never applies" "RFC 8461 §3.4";
    DomPublicSuffix "DOM-PUBLIC-SUFFIX" Warning Domain "the name is a public suffix" "publicsuffix.org";
    MxNone "MX-NONE" Warning Mx "no MX record; the address record is the implicit MX" "RFC 5321 §5.1";
    MxNull "MX-NULL" Info Mx "null MX: no mail, MTA-STS is not needed" "RFC 7505";
    MxCname "MX-CNAME" Warning Mx "an MX name is a CNAME" "RFC 5321 §5.1";
    MxAddress "MX-ADDRESS" Error Mx "an MX value is not a host name" "RFC 5321 §5.1";
    MxUnresolved "MX-UNRESOLVED" Error Mx "an MX name has no address" "RFC 5321 §5.1";
    MxPrivate "MX-PRIVATE" Error Mx "an MX address is private, loopback or reserved" "RFC 6890";
    MxSingle "MX-SINGLE" Info Mx "one MX host only" "practice";
    MxIpv6 "MX-IPV6" Info Mx "no MX host has an IPv6 address" "practice";
    MxDuplicatePref "MX-DUPLICATE-PREF" Info Mx "MX hosts of equal preference" "RFC 5321 §5.1";
    MxTtl "MX-TTL" Info Mx "the MX records live over a day" "practice";
    StsTxtMissing "STS-TXT-MISSING" Error Record "there is no _mta-sts record" "RFC 8461 §3.1";
    StsTxtMultiple "STS-TXT-MULTIPLE" Error Record "more than one record of the version" "RFC 8461 §3.1";
    StsTxtSyntax "STS-TXT-SYNTAX" Error Record "the record is malformed" "RFC 8461 §3.1";
    StsTxtVersionCase "STS-TXT-VERSION-CASE" Error Record "the version is in the wrong case" "RFC 8461 §3.1";
    StsTxtIdMissing "STS-TXT-ID-MISSING" Error Record "the record has no id" "RFC 8461 §3.1";
    StsTxtIdSyntax "STS-TXT-ID-SYNTAX" Error Record "the id is not 1 to 32 letters or digits" "RFC 8461 §3.1";
    StsTxtApex "STS-TXT-APEX" Warning Record "the record stands at another name" "RFC 8461 §3.1";
    StsTxtQuotes "STS-TXT-QUOTES" Warning Record "stray quotes or backslashes in the value" "practice";
    StsTxtIdStyle "STS-TXT-ID-STYLE" Info RecordText "the id is not a UTC time stamp" "practice";
    StsTxtIdFuture "STS-TXT-ID-FUTURE" Warning RecordText "the id is a time stamp in the future" "practice";
    StsTxtDelim "STS-TXT-DELIM" Warning RecordText "white space before the first semicolon" "RFC 8461 erratum 6285";
    StsTxtUnknown "STS-TXT-UNKNOWN" Info RecordText "fields that this version does not know" "RFC 8461 §3.1";
    StsTxtSplit "STS-TXT-SPLIT" Info RecordText "the record comes in several strings" "RFC 8461 §3.1";
    StsTxtCname "STS-TXT-CNAME" Info Record "the record is delegated by CNAME" "RFC 8461 §8.2";
    StsTxtTtl "STS-TXT-TTL" Warning RecordText "the record lives over a day, or over an hour while testing" "RFC 8461 §8.3";
    StsTxtWildcard "STS-TXT-WILDCARD" Warning ExtraProbes "the answer comes from a wildcard" "RFC 4592";
    StsTxtUnchanged "STS-TXT-UNCHANGED" Warning History "the file changed since the last look and the id did not" "RFC 8461 §3.1";
    StsTxtChanged "STS-TXT-CHANGED" Info History "the id changed since the last look and the file did not" "RFC 8461 §3.1";
    DnsNsDisagree "DNS-NS-DISAGREE" Error NameServers "name servers of the zone give different answers" "RFC 1034 §4.2.2";
    DnsNsLame "DNS-NS-LAME" Warning NameServers "a name server does not answer for the zone" "RFC 1912 §2.8";
    DnsServfail "DNS-SERVFAIL" Error Dns "a look-up fails or times out" "RFC 8461 §3.1";
    DnssecBogus "DNSSEC-BOGUS" Error Signed "the answer fails DNSSEC validation" "RFC 4035";
    DnssecUnsigned "DNSSEC-UNSIGNED" Info Signed "the zone is not signed" "RFC 7672 §1.2";
    DnssecUnseen "DNSSEC-UNSEEN" Info Dns "the resolver used here lets nobody see signatures" "RFC 4035 §4.9";
    HostMissing "HOST-MISSING" Error PolicyHost "the policy host has no address" "RFC 8461 §3.3";
    HostCname "HOST-CNAME" Info PolicyHost "the policy host is delegated by CNAME" "RFC 8461 §8.2";
    HostPrivate "HOST-PRIVATE" Error PolicyHost "an address of the policy host is private or reserved" "RFC 6890";
    HostIpv6Broken "HOST-IPV6-BROKEN" Warning PolicyHost "an IPv6 address of the policy host does not answer" "RFC 8305";
    HostUnreachable "HOST-UNREACHABLE" Error PolicyHost "no connection to the policy host" "RFC 8461 §3.3";
    HostPartial "HOST-PARTIAL" Warning PolicyHost "some addresses of the policy host fail or serve something else" "RFC 8461 §3.3";
    HttpsHandshake "HTTPS-HANDSHAKE" Error Https "the TLS handshake with the policy host fails" "RFC 8461 §3.3";
    HttpsTlsOld "HTTPS-TLS-OLD" Error Https "the policy host speaks no TLS 1.2 or newer" "RFC 8461 §3.3";
    HttpsCertExpired "HTTPS-CERT-EXPIRED" Error HttpsCertificate "the policy host's certificate has expired" "RFC 8461 §3.3";
    HttpsCertNotYet "HTTPS-CERT-NOT-YET" Error HttpsCertificate "the policy host's certificate is not valid yet" "RFC 8461 §3.3";
    HttpsCertName "HTTPS-CERT-NAME" Error HttpsCertificate "the policy host's certificate is for other names" "RFC 6125";
    HttpsCertUntrusted "HTTPS-CERT-UNTRUSTED" Error HttpsCertificate "the policy host's certificate does not chain to a trusted root" "RFC 8461 §3.3";
    HttpsCertChain "HTTPS-CERT-CHAIN" Error HttpsCertificate "the policy host does not send the certificate of its issuer" "RFC 8446 §4.4.2";
    HttpsCertSelf "HTTPS-CERT-SELF" Error HttpsCertificate "the policy host's certificate is signed by itself" "RFC 8461 §3.3";
    HttpsCertExpiring "HTTPS-CERT-EXPIRING" Warning HttpsCertificate "the policy host's certificate ends within 14 days, or a third of a short life" "practice";
    HttpsCertCnOnly "HTTPS-CERT-CN-ONLY" Error HttpsCertificate "the name stands only in the common name" "RFC 6125 §6.4.4";
    HttpsSni "HTTPS-SNI" Warning HttpsDeep "without SNI another certificate is given" "RFC 6066 §3";
    HttpsRedirect "HTTPS-REDIRECT" Error Http "the policy host redirects" "RFC 8461 §3.3";
    HttpsStatus "HTTPS-STATUS" Error Http "the policy host answers another status than 200" "RFC 8461 §3.3";
    HttpsType "HTTPS-TYPE" Error Http "the policy file is not text/plain" "RFC 8461 §3.2";
    HttpsSize "HTTPS-SIZE" Error Http "the policy file has over 64 KiB" "RFC 8461 §3.3";
    HttpsSlow "HTTPS-SLOW" Warning Http "the policy file takes over 5 seconds" "RFC 8461 §3.3";
    HttpsAuth "HTTPS-AUTH" Error Http "the policy host asks for a password, or who is human" "RFC 8461 §3.3";
    HttpsRevoked "HTTPS-REVOKED" Error HttpsDeep "the authority has taken the policy host's certificate back" "RFC 5280 §5";
    HttpsUserAgent "HTTPS-USER-AGENT" Warning HttpsDeep "the answer depends on what the client calls itself" "practice";
    HttpsCache "HTTPS-CACHE" Info Http "the policy file may be kept by caches for over an hour" "RFC 8461 §3.3";
    HttpsBroken "HTTPS-BROKEN" Error Http "the answer breaks off, is compressed or is not HTTP" "RFC 8461 §3.3";
    HttpsCaa "HTTPS-CAA" Warning HttpsDeep "CAA records keep the authority in use from issuing again" "RFC 8659";
    PolSyntax "POL-SYNTAX" Error Policy "the policy file is malformed" "RFC 8461 §3.2";
    PolVersion "POL-VERSION" Error Policy "the version is missing or another" "RFC 8461 §3.2";
    PolMode "POL-MODE" Error Policy "the mode is missing or none of the three" "RFC 8461 §3.2";
    PolMaxAge "POL-MAX-AGE" Error Policy "max_age is missing or no number" "RFC 8461 §3.2";
    PolCase "POL-CASE" Error Policy "a key or value is in the wrong case" "RFC 8461 §3.2";
    PolHtml "POL-HTML" Error Policy "a web page in place of a policy" "RFC 8461 §3.2";
    PolBom "POL-BOM" Error Policy "a byte-order mark in front of the policy" "RFC 8461 §3.2";
    PolNoMx "POL-NO-MX" Error Policy "no mx line in a policy that needs one" "RFC 8461 §3.2";
    PolMxSyntax "POL-MX-SYNTAX" Error Policy "an mx line is not a host name or a wildcard" "RFC 8461 §3.2";
    PolLf "POL-LF" Info PolicyText "lines end in LF alone, which is accepted" "RFC 8461 §3.2";
    PolUnknown "POL-UNKNOWN" Info PolicyText "keys that this version does not know" "RFC 8461 §3.2";
    PolDuplicate "POL-DUPLICATE" Warning PolicyText "a key stands twice; the first counts" "RFC 8461 §3.2";
    PolMaxAgeShort "POL-MAX-AGE-SHORT" Warning PolicyText "max_age is under a week" "RFC 8461 §3.2";
    PolMaxAgeLong "POL-MAX-AGE-LONG" Warning PolicyText "max_age is over a month while testing, or over the maximum" "RFC 8461 §3.2";
    PolModeTesting "POL-MODE-TESTING" Info PolicyText "the policy is tested, not enforced" "RFC 8461 §5";
    PolModeNone "POL-MODE-NONE" Info PolicyText "the policy of mode none retires MTA-STS" "RFC 8461 §8.3";
    PolWildcardBroad "POL-WILDCARD-BROAD" Warning PolicyText "a wildcard that lets in hosts of strangers" "RFC 8461 §4.1";
    PolMxUnused "POL-MX-UNUSED" Warning Match "an mx line that no MX host matches" "RFC 8461 §4.1";
    MatchMxUncovered "MATCH-MX-UNCOVERED" Error Match "an MX host that no mx line matches" "RFC 8461 §4.1";
    MatchNone "MATCH-NONE" Error Match "no MX host is matched by the policy" "RFC 8461 §4.1";
    MatchWildcardDepth "MATCH-WILDCARD-DEPTH" Error Match "a wildcard that would have to match several labels" "RFC 8461 §4.1";
    MatchCnameTarget "MATCH-CNAME-TARGET" Warning Match "an mx line matches the target of an MX name, not the name" "RFC 8461 §4.1";
    SmtpUnreachable "SMTP-UNREACHABLE" Warning Session "an MX host takes no connection" "RFC 5321";
    SmtpPortBlocked "SMTP-PORT-BLOCKED" Info Session "port 25 is blocked from here" "practice";
    SmtpBanner "SMTP-BANNER" Warning Session "an MX host does not greet with 220 in time" "RFC 5321 §3.1";
    SmtpGreylist "SMTP-GREYLIST" Info Session "an MX host asks strangers to come again later" "RFC 6647";
    SmtpNoStarttls "SMTP-NO-STARTTLS" Error Session "an MX host does not offer STARTTLS" "RFC 8461 §4.2";
    SmtpStripped "SMTP-STRIPPED" Error Session "the offer of STARTTLS was overwritten on the way" "RFC 3207 §6";
    SmtpStarttlsFails "SMTP-STARTTLS-FAILS" Error Session "STARTTLS or the handshake fails" "RFC 8461 §4.2";
    SmtpInjection "SMTP-INJECTION" Warning TlsDeep "a command sent before the handshake is answered after it" "CVE-2011-0411";
    SmtpTlsOld "SMTP-TLS-OLD" Error Session "an MX host speaks no TLS 1.2 or newer" "RFC 9325 §3.1";
    SmtpTlsLegacy "SMTP-TLS-LEGACY" Warning TlsDeep "an MX host still speaks TLS 1.0 or 1.1" "RFC 8996";
    SmtpTls13 "SMTP-TLS13" Info Tls "an MX host does not speak TLS 1.3" "RFC 9325 §3.1";
    SmtpCipherWeak "SMTP-CIPHER-WEAK" Warning TlsDeep "an MX host agrees to a weak cipher" "RFC 9325 §4.1";
    SmtpKeyWeak "SMTP-KEY-WEAK" Warning Tls "an MX certificate has a short key or an old signature" "RFC 9325 §4.5";
    SmtpCertExpired "SMTP-CERT-EXPIRED" Error Tls "an MX certificate has expired" "RFC 8461 §4.2";
    SmtpCertNotYet "SMTP-CERT-NOT-YET" Error Tls "an MX certificate is not valid yet" "RFC 8461 §4.2";
    SmtpCertName "SMTP-CERT-NAME" Error Tls "an MX certificate is for other names" "RFC 8461 §4.2";
    SmtpCertUntrusted "SMTP-CERT-UNTRUSTED" Error Tls "an MX certificate does not chain to a trusted root" "RFC 8461 §4.2";
    SmtpCertChain "SMTP-CERT-CHAIN" Error Tls "an MX host does not send the certificate of its issuer" "RFC 8461 §4.2";
    SmtpCertSelf "SMTP-CERT-SELF" Error Tls "an MX certificate is signed by itself" "RFC 8461 §4.2";
    SmtpCertExpiring "SMTP-CERT-EXPIRING" Warning Tls "an MX certificate ends within 14 days, or a third of a short life" "practice";
    SmtpCertCnOnly "SMTP-CERT-CN-ONLY" Error Tls "the MX name stands only in the common name" "RFC 6125 §6.4.4";
    SmtpSniRequired "SMTP-SNI-REQUIRED" Warning TlsDeep "the certificate of an MX host is right only with SNI" "RFC 8461 §7.1";
    SmtpAddressDisagree "SMTP-ADDRESS-DISAGREE" Warning Tls "addresses of one MX host show different certificates or abilities" "practice";
    SmtpFlapping "SMTP-FLAPPING" Warning TlsDeep "an MX host answers differently from try to try" "practice";
    SmtpClientCert "SMTP-CLIENT-CERT" Warning Session "an MX host insists on a client's certificate" "RFC 3207 §4.1";
    SmtpRequiretls "SMTP-REQUIRETLS" Info Tls "an MX host offers REQUIRETLS" "RFC 8689";
    DaneAbsent "DANE-ABSENT" Info Dane "no MX host has TLSA records" "RFC 7672";
    DaneProtects "DANE-PROTECTS" Info Dane "an MX host is protected by DANE" "RFC 7672";
    DaneUnsigned "DANE-UNSIGNED" Warning DaneDeep "TLSA records in a zone that is not signed" "RFC 7672 §2.1";
    DaneUnknown "DANE-LOOKUP" Error Dane "the TLSA records of an MX host can't be looked up" "RFC 7672 §2.1";
    DaneSyntax "DANE-SYNTAX" Error Dane "a TLSA record that no sender can use" "RFC 6698 §2.1";
    DaneUsage "DANE-USAGE" Warning Dane "a TLSA record of usage 0 or 1" "RFC 7672 §3.1.3";
    DaneMismatch "DANE-MISMATCH" Error Dane "no TLSA record matches the MX certificate" "RFC 7672 §3.1";
    DanePartial "DANE-PARTIAL" Warning Dane "some MX hosts have TLSA records and some have none" "RFC 7672 §2.2";
    DaneTaName "DANE-TA-NAME" Error Dane "a record of usage 2, and the wrong name or no such anchor in the chain" "RFC 7672 §3.1.2";
    DaneDigest "DANE-DIGEST" Warning Dane "TLSA records of unknown or no digest only" "RFC 7671 §9";
    DaneRollover "DANE-ROLLOVER" Warning Dane "one record only, and the certificate is about to be renewed" "RFC 7671 §8.1";
    DaneStsConflict "DANE-STS-CONFLICT" Warning Dane "DANE and MTA-STS decide differently about an MX host" "RFC 8461 §2";
    RptTxtMissing "RPT-TXT-MISSING" Warning Tlsrpt "there is no _smtp._tls record" "RFC 8460 §3";
    RptTxtMultiple "RPT-TXT-MULTIPLE" Error Tlsrpt "more than one _smtp._tls record" "RFC 8460 §3";
    RptTxtSyntax "RPT-TXT-SYNTAX" Error Tlsrpt "the _smtp._tls record is malformed" "RFC 8460 §3";
    RptTxtWrongName "RPT-TXT-WRONG-NAME" Warning Tlsrpt "the record stands at another name" "RFC 8460 §3";
    RptRuaScheme "RPT-RUA-SCHEME" Error Tlsrpt "a report target of a scheme that is not used" "RFC 8460 §3";
    RptRuaMailto "RPT-RUA-MAILTO" Error Tlsrpt "the domain of a report address takes no mail" "RFC 8460 §3";
    RptRuaLoop "RPT-RUA-LOOP" Warning Tlsrpt "reports go only to the very MX hosts that they are about" "RFC 8460 §3";
    RptRuaHttps "RPT-RUA-HTTPS" Error ExtraProbes "a report target takes no HTTPS" "RFC 8460 §5.4";
    RptRuaMany "RPT-RUA-MANY" Info Tlsrpt "more than two report targets" "RFC 8460 §3";
    RptRuaEncode "RPT-RUA-ENCODE" Error Tlsrpt "a report target with `,`, `!` or `;` that is not percent-encoded" "RFC 8460 §3";
    RptSilent "RPT-SILENT" Warning Inbox "no report has come for a week" "RFC 8460 §4.1";
    ReadyEnforce "READY-ENFORCE" Info Rollout "whether the policy may be enforced, or what is missing to know it" "RFC 8461 §5";
    ReadyIdOrder "READY-ID-ORDER" Warning History "the id changed before the file did" "RFC 8461 §5.1";
    SenderStrict "SENDER-STRICT" Info Rollout "what a sender that honours MTA-STS does with mail today" "RFC 8461 §5";
    SenderTesting "SENDER-TESTING" Info Rollout "what a sender that only reports does with mail today" "RFC 8460 §4";
    SenderDane "SENDER-DANE" Info Rollout "what a sender that uses DANE does with mail today" "RFC 7672 §2.2";
    SenderPlain "SENDER-PLAIN" Info Rollout "what any other sender does with mail today" "RFC 3207";
    DmarcMissing "DMARC-MISSING" Info Companions "there is no DMARC record" "RFC 7489";
    SpfMissing "SPF-MISSING" Info Companions "there is no SPF record" "RFC 7208";
    Bimi "BIMI" Info Companions "there is a BIMI record" "BIMI";
    Provider "PROVIDER" Info Companions "the mail or web host is a known one" "the host's own documentation";
}

impl fmt::Display for Check {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.id())
    }
}

impl serde::Serialize for Check {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.id())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_unique_and_well_formed() {
        let ids: std::collections::BTreeSet<_> = Check::ALL.iter().map(|check| check.id()).collect();
        assert_eq!(ids.len(), Check::ALL.len());
        assert!(
            ids.iter()
                .all(|id| id.bytes().all(|b| b.is_ascii_uppercase() || b.is_ascii_digit() || b == b'-'))
        );
    }
}
