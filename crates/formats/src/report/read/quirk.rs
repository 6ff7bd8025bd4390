//! Deviations of real reports from RFC 8460, with their descriptions (REC-08). [`super`] detects them; the dashboard
//! and `sternpost reports` show them.

use std::fmt;

/// A deviation of a report from RFC 8460.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Quirk {
    /// The report begins with a byte-order mark.
    ByteOrderMark,
    /// The gzip data is followed by other bytes, which are ignored.
    TrailingBytes,
    /// The report is not UTF-8, and is read as Latin-1.
    Latin1,
    /// The report is UTF-16 or UTF-32, and is converted.
    WideUnits,
    /// The report is followed by other text, which is ignored.
    TrailingText,
    /// An expected member is missing.
    Missing,
    /// The value is `null`.
    Null,
    /// The value is empty.
    Empty,
    /// The value is a string instead of an array.
    StringForArray,
    /// The value is a string instead of a number.
    StringForNumber,
    /// The value has the wrong JSON type, and is ignored unless it can be converted.
    WrongKind,
    /// The member occurs twice; the first value is used.
    Duplicate,
    /// The member has a name that differs from RFC 8460.
    OtherName,
    /// An `mx-host` value has the form `mx: host`.
    MxPrefix,
    /// The `policy-string` is a JSON array within a string.
    NestedArray,
    /// The `policy-string` is the whole policy in one string with line breaks.
    WholePolicyInOneString,
    /// A policy line has no space after the colon.
    NoSpaceAfterColon,
    /// An IP address is in brackets.
    BracketedAddress,
    /// The value is not an IP address, and is ignored.
    NotAnAddress,
    /// The value is not a domain name, and is ignored.
    NotADomain,
    /// A registered name differs in case.
    OtherCase,
    /// A name is not registered; it is kept.
    UnknownName,
    /// A time has an offset instead of `Z`.
    Offset,
    /// A time has neither `Z` nor an offset, and is read as UTC.
    NoOffset,
    /// A time is a number of seconds or milliseconds since 1970.
    EpochTime,
    /// A time is 24:00:00, and is read as the beginning of the next day.
    HourTwentyFour,
    /// A time has fractions of a second.
    FractionalSeconds,
    /// The range ends at the first second of the next day.
    EndsAtMidnight,
    /// The range is not exactly one UTC day.
    NotADay,
    /// The range ends before it starts; the ends are swapped.
    Reversed,
    /// The total number of failures is less than the sum of the details.
    TotalBelowDetails,
    /// The total number of failures is greater than the sum of the details.
    TotalAboveDetails,
    /// The `report-id` ends in `+` or `+domain`.
    ReportIdSuffix,
    /// A text is too long, and is truncated.
    Cut,
    /// A count is fractional and is rounded up, or exceeds 2^53 and is reduced to it.
    OddCount,
    /// A number of failures is unreadable, and is counted as one failure.
    FailuresUnknown,
    /// The report has policies of several domains.
    SeveralDomains,
    /// There are further deviations, which are not listed.
    More,
}

impl fmt::Display for Quirk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::ByteOrderMark => "begins with a byte-order mark",
            Self::TrailingBytes => "is followed by bytes that are not gzip data; ignored",
            Self::Latin1 => "is not UTF-8; read as Latin-1",
            Self::WideUnits => "is UTF-16 or UTF-32; converted",
            Self::TrailingText => "is followed by other text; ignored",
            Self::Missing => "is missing",
            Self::Null => "is null",
            Self::Empty => "is empty",
            Self::StringForArray => "is a string; an array was expected",
            Self::StringForNumber => "is a string; a number was expected",
            Self::WrongKind => "has the wrong JSON type",
            Self::Duplicate => "occurs twice; the first value is used",
            Self::OtherName => "has a name that RFC 8460 does not define",
            Self::MxPrefix => "has the form `mx: host`",
            Self::NestedArray => "is a JSON array within a string",
            Self::WholePolicyInOneString => "contains the whole policy in one string",
            Self::NoSpaceAfterColon => "has no space after the colon",
            Self::BracketedAddress => "is an address in brackets",
            Self::NotAnAddress => "is not an IP address; ignored",
            Self::NotADomain => "is not a domain name; ignored",
            Self::OtherCase => "differs in case from the registered name",
            Self::UnknownName => "is not a registered name; kept",
            Self::Offset => "has an offset instead of Z",
            Self::NoOffset => "has neither Z nor an offset; read as UTC",
            Self::EpochTime => "is a number; read as seconds or milliseconds since 1970",
            Self::HourTwentyFour => "has the hour 24; read as the beginning of the next day",
            Self::FractionalSeconds => "has fractions of a second",
            Self::EndsAtMidnight => "is the first second of the next day",
            Self::NotADay => "is not exactly one UTC day",
            Self::Reversed => "ends before it starts; swapped",
            Self::TotalBelowDetails => "is less than the sum of the details",
            Self::TotalAboveDetails => "is greater than the sum of the details",
            Self::ReportIdSuffix => "ends in a plus sign or a plus sign and a domain",
            Self::Cut => "is too long; truncated",
            Self::OddCount => "is not an integer up to 2^53; rounded up, or reduced to 2^53",
            Self::FailuresUnknown => "is unreadable; at least one failure is assumed",
            Self::SeveralDomains => "covers several policy domains",
            Self::More => "has further deviations, which are not listed",
        })
    }
}
