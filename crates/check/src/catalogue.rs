//! The checks that are made, each a row: ID, severity in `enforce`, what trips it, where the rule is.

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

macro_rules! catalogue {
    ($($name:ident $id:literal $severity:ident $about:literal $source:literal;)*) => {
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
    DomNxdomain "DOM-NXDOMAIN" Error "the domain does not exist" "RFC 1034";
    MxNone "MX-NONE" Warning "no MX record; the address record is the implicit MX" "RFC 5321 §5.1";
    MxNull "MX-NULL" Info "null MX: no mail, MTA-STS is not needed" "RFC 7505";
    MxAddress "MX-ADDRESS" Error "an MX value is not a host name" "RFC 5321 §5.1";
    MxUnresolved "MX-UNRESOLVED" Error "an MX name has no address" "RFC 5321 §5.1";
    DnsServfail "DNS-SERVFAIL" Error "a look-up fails or times out" "RFC 8461 §3.1";
    DnssecBogus "DNSSEC-BOGUS" Error "the answer fails DNSSEC validation" "RFC 4035";
    StsTxtMissing "STS-TXT-MISSING" Error "there is no _mta-sts record" "RFC 8461 §3.1";
    StsTxtMultiple "STS-TXT-MULTIPLE" Error "more than one record of the version" "RFC 8461 §3.1";
    StsTxtSyntax "STS-TXT-SYNTAX" Error "the record is malformed" "RFC 8461 §3.1";
    StsTxtVersionCase "STS-TXT-VERSION-CASE" Error "the version is in the wrong case" "RFC 8461 §3.1";
    StsTxtIdMissing "STS-TXT-ID-MISSING" Error "the record has no id" "RFC 8461 §3.1";
    StsTxtIdSyntax "STS-TXT-ID-SYNTAX" Error "the id is not 1 to 32 letters or digits" "RFC 8461 §3.1";
    StsTxtDelim "STS-TXT-DELIM" Warning "white space before the first semicolon" "RFC 8461 erratum 6285";
    StsTxtUnknown "STS-TXT-UNKNOWN" Info "fields that this version does not know" "RFC 8461 §3.1";
    StsTxtCname "STS-TXT-CNAME" Info "the record is delegated by CNAME" "RFC 8461 §8.2";
    HostMissing "HOST-MISSING" Error "the policy host has no address" "RFC 8461 §3.3";
    HostPrivate "HOST-PRIVATE" Error "the policy host has only private or reserved addresses" "RFC 6890";
    HostUnreachable "HOST-UNREACHABLE" Error "no connection to the policy host" "RFC 8461 §3.3";
    HttpsHandshake "HTTPS-HANDSHAKE" Error "the TLS handshake with the policy host fails" "RFC 8461 §3.3";
    HttpsTlsOld "HTTPS-TLS-OLD" Error "the policy host speaks no TLS 1.2 or newer" "RFC 8461 §3.3";
    HttpsCertExpired "HTTPS-CERT-EXPIRED" Error "the policy host's certificate has expired" "RFC 8461 §3.3";
    HttpsCertNotYet "HTTPS-CERT-NOT-YET" Error "the policy host's certificate is not valid yet" "RFC 8461 §3.3";
    HttpsCertName "HTTPS-CERT-NAME" Error "the policy host's certificate is for other names" "RFC 6125";
    HttpsCertUntrusted "HTTPS-CERT-UNTRUSTED" Error "the policy host's certificate does not chain to a trusted root" "RFC 8461 §3.3";
    HttpsCertExpiring "HTTPS-CERT-EXPIRING" Warning "the policy host's certificate ends within 14 days" "practice";
    HttpsRedirect "HTTPS-REDIRECT" Error "the policy host redirects" "RFC 8461 §3.3";
    HttpsStatus "HTTPS-STATUS" Error "the policy host answers another status than 200" "RFC 8461 §3.3";
    HttpsType "HTTPS-TYPE" Error "the policy file is not text/plain" "RFC 8461 §3.2";
    HttpsSize "HTTPS-SIZE" Error "the policy file has over 64 KiB" "RFC 8461 §3.3";
    HttpsSlow "HTTPS-SLOW" Error "the policy file does not come in time" "RFC 8461 §3.3";
    HttpsBroken "HTTPS-BROKEN" Error "the answer breaks off, is compressed or is not HTTP" "RFC 8461 §3.3";
    PolSyntax "POL-SYNTAX" Error "the policy file is malformed" "RFC 8461 §3.2";
    PolHtml "POL-HTML" Error "a web page in place of a policy" "RFC 8461 §3.2";
    PolBom "POL-BOM" Error "a byte-order mark in front of the policy" "RFC 8461 §3.2";
    PolNoMx "POL-NO-MX" Error "no mx line in a policy that needs one" "RFC 8461 §3.2";
    PolLf "POL-LF" Info "lines end in LF alone, which is accepted" "RFC 8461 §3.2";
    PolUnknown "POL-UNKNOWN" Info "keys that this version does not know" "RFC 8461 §3.2";
    PolDuplicate "POL-DUPLICATE" Warning "a key stands twice; the first counts" "RFC 8461 §3.2";
    PolMaxAgeShort "POL-MAX-AGE-SHORT" Warning "max_age is under a week" "RFC 8461 §3.2";
    PolMaxAgeLong "POL-MAX-AGE-LONG" Warning "max_age is over a month while testing, or over the maximum" "RFC 8461 §3.2";
    PolModeTesting "POL-MODE-TESTING" Info "the policy is tested, not enforced" "RFC 8461 §5";
    PolModeNone "POL-MODE-NONE" Info "the policy of mode none retires MTA-STS" "RFC 8461 §8.3";
    PolMxUnused "POL-MX-UNUSED" Warning "an mx line that no MX host matches" "RFC 8461 §4.1";
    MatchMxUncovered "MATCH-MX-UNCOVERED" Error "an MX host that no mx line matches" "RFC 8461 §4.1";
    MatchNone "MATCH-NONE" Error "no MX host is matched by the policy" "RFC 8461 §4.1";
    SmtpUnreachable "SMTP-UNREACHABLE" Warning "an MX host takes no connection" "RFC 5321";
    SmtpBanner "SMTP-BANNER" Warning "an MX host does not greet with 220" "RFC 5321 §3.1";
    SmtpNoStarttls "SMTP-NO-STARTTLS" Error "an MX host does not offer STARTTLS" "RFC 8461 §4.2";
    SmtpStripped "SMTP-STRIPPED" Error "the offer of STARTTLS was overwritten on the way" "RFC 3207 §6";
    SmtpStarttlsFails "SMTP-STARTTLS-FAILS" Error "STARTTLS or the handshake fails" "RFC 8461 §4.2";
    SmtpCertExpired "SMTP-CERT-EXPIRED" Error "an MX certificate has expired" "RFC 8461 §4.2";
    SmtpCertNotYet "SMTP-CERT-NOT-YET" Error "an MX certificate is not valid yet" "RFC 8461 §4.2";
    SmtpCertName "SMTP-CERT-NAME" Error "an MX certificate is for other names" "RFC 8461 §4.2";
    SmtpCertUntrusted "SMTP-CERT-UNTRUSTED" Error "an MX certificate does not chain to a trusted root" "RFC 8461 §4.2";
    SmtpCertExpiring "SMTP-CERT-EXPIRING" Warning "an MX certificate ends within 14 days" "practice";
    DaneMismatch "DANE-MISMATCH" Error "no TLSA record matches the MX certificate" "RFC 7672 §3.1";
    DaneUnknown "DANE-LOOKUP" Error "the TLSA records of an MX host can't be looked up" "RFC 7672 §2.1";
    DaneProtects "DANE-PROTECTS" Info "an MX host is protected by DANE" "RFC 7672";
    RptTxtMissing "RPT-TXT-MISSING" Warning "there is no _smtp._tls record" "RFC 8460 §3";
    RptTxtMultiple "RPT-TXT-MULTIPLE" Error "more than one _smtp._tls record" "RFC 8460 §3";
    RptTxtSyntax "RPT-TXT-SYNTAX" Error "the _smtp._tls record is malformed" "RFC 8460 §3";
    RptRuaScheme "RPT-RUA-SCHEME" Warning "a report target of a scheme that is not used" "RFC 8460 §3";
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
