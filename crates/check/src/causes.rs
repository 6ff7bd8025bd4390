//! The table of causes. A finding states what is wrong as senders see it; its cause says how that came about, such as
//! a comma in place of a semicolon, a registrar's page behind the policy host, or a provider that does not know the
//! domain. The remedy of a finding is that of its cause. Each row has the variant, the ID, the checks that can have the cause,
//! its description, and how often measurements found it; `sternpost check --explain` prints the rows of a check.
//!
//! The modules below find the causes: [`near_record`] in TXT records, [`near_policy`] in policy files, `behind_host` at
//! the policy host, `mx_lines` between policy and MX records, and `tlsa` in TLSA records. All are functions of what was
//! observed.

pub(crate) mod behind_host;
pub(crate) mod characters;
pub(crate) mod distance;
pub(crate) mod mx_lines;
pub mod near_policy;
pub mod near_record;
pub(crate) mod tlsa;

use crate::catalogue::Check;
use crate::identifiers::identifiers;

/// A cause that was found, and what shows it.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct FoundCause {
    /// The row of the table.
    pub id: Cause,
    /// The cause in one sentence or several, with the observed values and places.
    pub what: String,
}

identifiers! {
    /// A cause; each variant's comment is its description.
    Cause: [Check]; use Check;
    OtherProtocol "other-protocol" [StsTxtVersion, RptTxtVersion] "the record is one of another protocol" "";
    PolicyLines "policy-lines-in-record" [StsTxtSyntax] "lines of the policy file are in the record" "2 of 331 invalid records (Ashiq et al., IMC 2025)";
    ZoneFileLine "zone-file-line" [StsTxtSyntax, RptTxtSyntax] "the value begins with the line of a zone file or with other text" "";
    FieldBeforeVersion "field-before-version" [StsTxtSyntax, RptTxtSyntax] "a field precedes the version" "";
    NoVersion "no-version" [StsTxtVersion, RptTxtVersion] "the record does not begin with `v=`" "";
    WrongVersion "wrong-version" [StsTxtVersion, RptTxtVersion] "the version is misspelled, or one that does not exist" "52 of 331 invalid records, with all other invalid versions (Ashiq et al., IMC 2025)";
    BareVersion "bare-version" [StsTxtSyntax, RptTxtSyntax] "the record has a version and nothing else" "";
    VersionCase "version-case" [StsTxtVersionCase, RptTxtVersionCase] "the version is in the wrong case" "";
    Backslash "backslash" [StsTxtQuotes, RptTxtQuotes] "a backslash of zone file syntax is in the value" "";
    Quotes "quotes" [StsTxtQuotes, RptTxtQuotes, PolSyntax, PolVersion, PolMode, PolMaxAge, PolMxSyntax, PolNoMx, PolCase] "quotes of zone file syntax or of a program are in the value" "";
    LeadingSpace "leading-space" [StsTxtSyntax, RptTxtSyntax, PolSyntax, PolVersion, PolMode, PolMaxAge, PolMxSyntax, PolNoMx, PolCase] "white space precedes the first character" "";
    FullWidth "full-width" [StsTxtSyntax, RptTxtSyntax, PolSyntax, PolVersion, PolMode, PolMaxAge, PolMxSyntax, PolNoMx, PolCase] "full-width characters of an East Asian keyboard are in the text" "";
    LookAlike "look-alike" [StsTxtSyntax, RptTxtSyntax, PolSyntax, PolVersion, PolMode, PolMaxAge, PolMxSyntax, PolNoMx, PolCase] "letters of another script or typographic dashes are in the text" "";
    NoBreakSpace "no-break-space" [StsTxtSyntax, RptTxtSyntax, PolSyntax, PolVersion, PolMode, PolMaxAge, PolMxSyntax, PolNoMx, PolCase] "no-break spaces of a web page or a word processor are in the text" "";
    Invisible "invisible" [StsTxtSyntax, RptTxtSyntax, PolSyntax, PolVersion, PolMode, PolMaxAge, PolMxSyntax, PolNoMx, PolCase] "characters that are not visible are in the text" "";
    LineBreak "line-break" [StsTxtSyntax, RptTxtSyntax] "line ends or control characters are in the value" "";
    WrongSeparator "wrong-separator" [StsTxtSyntax, RptTxtSyntax] "another character is in the place of a semicolon or comma" "";
    MissingSemicolon "missing-semicolon" [StsTxtSyntax, RptTxtSyntax] "there is no semicolon between two fields" "";
    EmptyField "empty-field" [StsTxtSyntax, RptTxtSyntax] "two semicolons follow each other" "";
    SpaceInField "space-in-field" [StsTxtSyntax, RptTxtSyntax] "there is white space around the `=` of a field" "";
    KeyCase "key-case" [StsTxtSyntax, RptTxtSyntax, PolCase] "a key is in the wrong case" "";
    NearKey "near-key" [StsTxtSyntax, RptTxtSyntax, RptTxtUnknown, PolSyntax, PolVersion, PolMode, PolMaxAge, PolMxSyntax, PolNoMx, PolCase, PolUnknown] "a key is misspelled, or one of another protocol" "";
    BadField "bad-field" [StsTxtSyntax, RptTxtSyntax] "a field does not have the form `name=value`" "";
    NoId "no-id" [StsTxtIdMissing] "the record has no id" "65 of 331 invalid records (Ashiq et al., IMC 2025)";
    IdForm "id-form" [StsTxtIdSyntax] "the id has other characters than letters and digits, or too many" "203 of 331 invalid records (Ashiq et al., IMC 2025)";
    NoScheme "no-scheme" [RptRuaScheme] "a report target has no `mailto:` or `https:`" "";
    NearScheme "near-scheme" [RptRuaScheme] "the scheme of a report target is misspelled or not supported" "";
    TargetSpace "target-space" [RptRuaScheme] "white space separates two report targets or is in one" "";
    EmptyTarget "empty-target" [RptRuaScheme] "there is nothing between two commas or after the last one" "";
    SizeLimit "size-limit" [RptRuaEncode] "a report target has a size limit, which only DMARC knows" "";
    Unencoded "unencoded" [RptRuaEncode] "`!` or `;` in a report target is not percent-encoded" "";
    BadTarget "bad-target" [RptRuaScheme] "a report target is not a mail address or URL that senders can use" "";
    Utf16 "utf-16" [PolSyntax, PolVersion, PolMode, PolMaxAge, PolMxSyntax, PolNoMx, PolCase] "the file is saved as UTF-16" "";
    NotUtf8 "not-utf-8" [PolSyntax, PolVersion, PolMode, PolMaxAge, PolMxSyntax, PolNoMx, PolCase] "the file is saved in an old encoding, not as UTF-8" "";
    ByteOrderMark "byte-order-mark" [PolBom] "the file begins with a byte-order mark" "";
    WebPage "web-page" [PolHtml] "the policy is inside a web page, or the server returns its start page" "";
    Comment "comment" [PolSyntax, PolVersion, PolMode, PolMaxAge, PolMxSyntax, PolNoMx, PolCase] "the file has a comment, which the format does not know" "";
    Template "template" [PolSyntax, PolVersion, PolMode, PolMaxAge, PolMxSyntax, PolNoMx, PolCase] "a placeholder of a template was not replaced" "";
    LiteralNewline "literal-newline" [PolSyntax, PolVersion, PolMode, PolMaxAge, PolMxSyntax, PolNoMx, PolCase] "line ends are written as `\\n` or `<br>`" "";
    OneLine "one-line" [PolSyntax, PolVersion, PolMode, PolMaxAge, PolMxSyntax, PolNoMx, PolCase] "several fields are in one line" "";
    BlankLine "blank-line" [PolSyntax, PolVersion, PolMode, PolMaxAge, PolMxSyntax, PolNoMx, PolCase] "there is an empty line between the fields" "";
    EqualsSign "equals-sign" [PolSyntax, PolVersion, PolMode, PolMaxAge, PolMxSyntax, PolNoMx, PolCase] "`=` is in the place of `:`" "";
    NoColon "no-colon" [PolSyntax, PolVersion, PolMode, PolMaxAge, PolMxSyntax, PolNoMx, PolCase] "there is no `:` between key and value" "";
    KeySpace "key-space" [PolSyntax, PolVersion, PolMode, PolMaxAge, PolMxSyntax, PolNoMx, PolCase] "there is white space before the `:`" "";
    Punctuation "punctuation" [PolSyntax, PolVersion, PolMode, PolMaxAge, PolMxSyntax, PolNoMx, PolCase] "a value ends in punctuation" "";
    RecordInPolicy "record-in-policy" [PolSyntax, PolVersion, PolMode, PolMaxAge, PolMxSyntax, PolNoMx, PolCase] "the text of the TXT record is in the policy file" "";
    ValueCase "value-case" [PolSyntax, PolVersion, PolMode, PolMaxAge, PolMxSyntax, PolNoMx, PolCase] "a value is in the wrong case" "";
    NearValue "near-value" [PolSyntax, PolVersion, PolMode, PolMaxAge, PolMxSyntax, PolNoMx, PolCase] "a value is misspelled" "";
    Number "number" [PolSyntax, PolVersion, PolMode, PolMaxAge, PolMxSyntax, PolNoMx, PolCase] "max_age has a unit or separators" "";
    BadLine "bad-line" [PolSyntax, PolVersion, PolMode, PolMaxAge, PolMxSyntax, PolNoMx, PolCase] "a line does not have the form `key: value`" "";
    MxList "mx-list" [PolSyntax, PolVersion, PolMode, PolMaxAge, PolMxSyntax, PolNoMx, PolCase] "several hosts are in one mx line" "";
    MxPreference "mx-preference" [PolSyntax, PolVersion, PolMode, PolMaxAge, PolMxSyntax, PolNoMx, PolCase] "an mx line has the preference of an MX record" "";
    MxAddress "mx-address" [PolSyntax, PolVersion, PolMode, PolMaxAge, PolMxSyntax, PolNoMx, PolCase] "an mx line has a mail address, a URL, a port or an IP address" "64 % of the policies with invalid syntax, with all other invalid mx lines (Ashiq et al., IMC 2025)";
    MxWildcard "mx-wildcard" [PolSyntax, PolVersion, PolMode, PolMaxAge, PolMxSyntax, PolNoMx, PolCase] "a wildcard is not written `*.` and a host name" "";
    EmptyFile "empty-file" [PolSyntax] "the policy file is empty" "";
    ProviderOptOut "provider-opt-out" [PolSyntax, HttpsStatus] "the provider that the policy host is delegated to serves an empty policy, as for a former customer" "5 domains (Ashiq et al., IMC 2025)";
    CatchAll "catch-all" [StsTxtMissing, HttpsCertName, HttpsCertSelf, HttpsCertUntrusted, HttpsCertExpired, HttpsCertCnOnly, HttpsCertChain, HttpsHandshake, HttpsTlsOld, HttpsStatus, HttpsRedirect, HttpsType, HttpsAuth, HostUnreachable, HttpsSlow, HttpsBroken, PolHtml, PolSyntax] "every name below the domain leads to one server: a registrar's parking page or a default host, not a policy host" "33 % of the policy hosts that domains run themselves; 7,237 domains were those of one registrar (Ashiq et al., IMC 2025)";
    UnknownToProvider "unknown-to-provider" [HttpsHandshake, HttpsCertName, HttpsCertSelf, HttpsCertUntrusted, HttpsCertCnOnly, HttpsStatus] "the provider that the CNAME of the policy host names does not know the domain" "43.6 % of the TLS errors of policy hosts at providers, 463 domains (Ashiq et al., IMC 2025)";
    PolicyHostInMx "policy-host-in-mx" [MatchNone, MatchMxUncovered, PolMxUnused] "an mx line names the policy host" "597 domains, 82 % of the mismatches within one domain (Ashiq et al., IMC 2025)";
    NotAnMx "not-an-mx" [MatchNone, MatchMxUncovered, PolMxUnused] "an mx line names the domain or another host that is not an MX host" "";
    FormerHost "former-host" [MatchNone, MatchMxUncovered, PolMxUnused] "an mx line names a host that was an MX host of the domain before" "644 domains, 63 % of the complete mismatches (Ashiq et al., IMC 2025)";
    FormerProvider "former-provider" [MatchNone, MatchMxUncovered, PolMxUnused] "an mx line names a mail provider that the MX records do not name" "part of the 644 domains with a former MX host (Ashiq et al., IMC 2025)";
    DidYouMean "did-you-mean" [MatchNone, MatchMxUncovered, PolMxUnused] "an mx line differs from an MX host by a few letters" "63 domains (Ashiq et al., IMC 2025)";
    OtherTld "other-tld" [MatchNone, MatchMxUncovered, PolMxUnused] "an mx line differs from an MX host by the end of the name" "";
    EmptyDigest "empty-digest" [DaneMismatch, DaneTaName] "the digest of the TLSA record is that of nothing" "7 of 314 mismatching records (Lee et al., USENIX Security 2022)";
    OtherSelector "other-selector" [DaneMismatch, DaneTaName] "the data of the TLSA record fits with another selector or matching type" "11.8 % of the mismatches, with usages (Lee et al., USENIX Security 2022)";
    OtherUsage "other-usage" [DaneMismatch, DaneTaName] "the data of the TLSA record fits another certificate of the chain, with another usage" "11.8 % of the mismatches, with selectors (Lee et al., USENIX Security 2022)";
    OtherHost "other-host" [DaneMismatch, DaneTaName] "the TLSA record fits the certificate of another MX host of the domain" "";
    OtherAddress "other-address" [DaneMismatch, DaneTaName] "the TLSA record fits the certificate that another address of the host presents" "";
    FormerCertificate "former-certificate" [DaneMismatch, DaneTaName] "the TLSA record fits the certificate that the host had before" "70 % of the mismatches (Lee et al., USENIX Security 2022)";
    NewCertificate "new-certificate" [DaneMismatch, DaneTaName] "the certificate is new, and the TLSA record most likely that of its predecessor" "new records come late at 72 to 84 % of renewals and never at 23 to 36 % (Lee et al., USENIX Security 2022)";
    DsWanted "ds-wanted" [DnssecNoDs] "the zone asks its parent for a DS record by CDS, and the parent has not taken it over" "97.4 % of failed first deployments of DANE have no DS record (Lee et al., USENIX Security 2022)";
    DsNotEntered "ds-not-entered" [DnssecNoDs] "the zone is signed, and nobody has entered the DS record at the registrar" "97.4 % of failed first deployments of DANE have no DS record (Lee et al., USENIX Security 2022)";
}

impl Cause {
    /// The checks whose findings can have this cause.
    pub fn checks(self) -> &'static [Check] {
        self.row().1
    }

    /// How often measurements found it, with the source; `None` where no number is known.
    pub fn share(self) -> Option<&'static str> {
        Some(self.row().3).filter(|share| !share.is_empty())
    }
}
