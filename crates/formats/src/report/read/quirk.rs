//! The oddities of real reports, by name (REC-08).

use std::fmt;

/// The oddities of real reports.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Quirk {
    /// A byte-order mark in front.
    ByteOrderMark,
    /// Not UTF-8; read as Latin-1.
    Latin1,
    /// A member that should be there is not.
    Missing,
    /// `null` where a value was expected.
    Null,
    /// Empty where a value was expected.
    Empty,
    /// A string where an array was expected.
    StringForArray,
    /// A string where a number was expected.
    StringForNumber,
    /// A value of a kind that says nothing here; left out.
    WrongKind,
    /// A member stands twice; the first counts.
    Duplicate,
    /// A member under another name than the registered one.
    OtherName,
    /// An `mx-host` written `mx: host`.
    MxPrefix,
    /// A `policy-string` of `tlsa` that holds a JSON array in a string.
    NestedArray,
    /// The whole policy in one string with line breaks.
    WholePolicyInOneString,
    /// A policy line without the space after the colon.
    NoSpaceAfterColon,
    /// An address in brackets.
    BracketedAddress,
    /// Text where an address was expected; left out.
    NotAnAddress,
    /// Text where a domain name was expected; left out.
    NotADomain,
    /// A registered name in other case.
    OtherCase,
    /// A name that is not registered; kept.
    UnknownName,
    /// A time with an offset instead of `Z`.
    Offset,
    /// A time without `Z` or offset; taken as UTC.
    NoOffset,
    /// A time with fractions of seconds.
    FractionalSeconds,
    /// The end is the next day's first second.
    EndsAtMidnight,
    /// The range is not a UTC day.
    NotADay,
    /// The end comes before the start; swapped.
    Reversed,
    /// The total of failures is less than the sum of the details.
    TotalBelowDetails,
    /// The total of failures is greater than the sum of the details.
    TotalAboveDetails,
    /// A report-id that ends in `+` or `+domain`.
    ReportIdSuffix,
    /// A text longer than is kept; cut.
    Cut,
    /// A count that is fractional or over 2^53; rounded up, or cut.
    OddCount,
    /// A number of failures that can't be read; taken as a failure of unknown cause.
    FailuresUnknown,
    /// Policies of several domains in one report.
    SeveralDomains,
    /// More warnings than are kept.
    More,
}

impl fmt::Display for Quirk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::ByteOrderMark => "begins with a byte-order mark",
            Self::Latin1 => "is not UTF-8; read as Latin-1",
            Self::Missing => "is missing",
            Self::Null => "is null",
            Self::Empty => "is empty",
            Self::StringForArray => "is a string; an array was expected",
            Self::StringForNumber => "is a string; a number was expected",
            Self::WrongKind => "is of the wrong kind; left out",
            Self::Duplicate => "stands twice; the first counts",
            Self::OtherName => "stands under a name that RFC 8460 does not have",
            Self::MxPrefix => "is written as `mx: host`",
            Self::NestedArray => "is a JSON array inside a string",
            Self::WholePolicyInOneString => "holds the whole policy in one string",
            Self::NoSpaceAfterColon => "has no space after the colon",
            Self::BracketedAddress => "is an address in brackets",
            Self::NotAnAddress => "is not an address; left out",
            Self::NotADomain => "is not a domain name; left out",
            Self::OtherCase => "is in another case than registered",
            Self::UnknownName => "is not a registered name; kept",
            Self::Offset => "has an offset instead of Z",
            Self::NoOffset => "has neither Z nor an offset; taken as UTC",
            Self::FractionalSeconds => "has fractions of seconds",
            Self::EndsAtMidnight => "ends at the next day's first second",
            Self::NotADay => "is not a UTC day",
            Self::Reversed => "ends before it starts; swapped",
            Self::TotalBelowDetails => "is less than the sum of the details",
            Self::TotalAboveDetails => "is greater than the sum of the details",
            Self::ReportIdSuffix => "ends in a plus sign or a plus sign and a domain",
            Self::Cut => "is too long; cut",
            Self::OddCount => "is not a count up to 2^53; it was rounded up, or cut",
            Self::FailuresUnknown => "can't be read, so failures are assumed and the day is not clean",
            Self::SeveralDomains => "covers several policy domains",
            Self::More => "has more oddities than are kept",
        })
    }
}
