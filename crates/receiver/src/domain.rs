//! The settings of a mail domain. The configuration file, the store and the API share this one format. The planner
//! receives them as a [`DesiredState`].

mod tag;

pub use tag::{MAX_TAG_CHARS, MAX_TAGS, Tag};

use crate::host::order::ChallengeType;
use crate::rollout::desired::{DesiredState, PolicyHostAt};
use formats::limits::MAX_AGE_SECONDS;
use formats::tlsrpt_record::Rua;
use formats::{DomainName, Mode, MxPattern};
use net::dns::provider::Service;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// The settings of one domain.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DomainSpec {
    /// The mail domain.
    pub name: DomainName,
    /// The mode to reach in the end: `enforce` unless set otherwise.
    #[serde(default = "enforce")]
    pub mode: Mode,
    /// Patterns of the policy's `mx` lines. When empty, the MX hosts that DNS shows are used.
    #[serde(default)]
    pub mx: Vec<MxPattern>,
    /// The `max_age` of its policies.
    #[serde(default)]
    pub max_age: MaxAge,
    /// What serves the policy file.
    #[serde(default)]
    pub host: HostedBy,
    /// How its DNS records are changed.
    #[serde(default)]
    pub dns: DnsBy,
    /// Whether the guard may add an MX host that DNS shows to the policy without the operator.
    #[serde(default)]
    pub repair: bool,
    /// Whether enforcement begins without `sternpost promote` as soon as the evidence is sufficient.
    #[serde(default)]
    pub auto_promote: bool,
    /// Whether the owner delegates the domain's names to our zone by CNAME records (PUB-06).
    #[serde(default)]
    pub delegated: bool,
    /// How the CA validates the policy host; `None` leaves that to the settings of the CA.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub challenge: Option<ChallengeType>,
    /// The addresses that `_smtp._tls` names (`mailto:` or `https:`). When empty, that record is not managed.
    #[serde(default, serialize_with = "rua_as_text", deserialize_with = "rua_from_text")]
    pub rua: Vec<Rua>,
    /// Words by which the operator groups domains; sorted.
    #[serde(default, skip_serializing_if = "Vec::is_empty", deserialize_with = "tag::from_texts")]
    pub tags: Vec<Tag>,
}

/// The `max_age` values of a domain, in seconds, each from 1 to [`MAX_AGE_SECONDS`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct MaxAge {
    /// The `max_age` of policies in the modes `testing` and `none`, in seconds.
    #[serde(deserialize_with = "max_age")]
    pub testing: u32,
    /// The `max_age` of policies in the mode `enforce`, in seconds.
    #[serde(deserialize_with = "max_age")]
    pub enforce: u32,
    /// Assumed for an earlier policy that can no longer be fetched.
    #[serde(deserialize_with = "max_age")]
    pub before: u32,
}

impl Default for MaxAge {
    /// One day, one week, and the maximum of RFC 8461.
    fn default() -> Self {
        Self { testing: 86_400, enforce: 604_800, before: MAX_AGE_SECONDS }
    }
}

/// What serves the policy file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum HostedBy {
    /// `sternpost serve`, in its role `[host]`.
    #[serde(rename = "self")]
    Sternpost,
    /// A web server or platform that serves the files written by `sternpost export`.
    #[default]
    Static,
    /// A third party; the policy is only monitored.
    Elsewhere,
}

/// How DNS records are changed.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum DnsBy {
    /// The operator changes them manually.
    #[default]
    Hand,
    /// DNS UPDATE (RFC 2136), sent to the server configured under this name.
    Update(String),
    /// The API of the DNS provider, configured under this name.
    Provider(Service, String),
}

impl DomainSpec {
    /// Creates a domain whose other settings are the defaults.
    pub fn new(name: DomainName) -> Self {
        Self {
            name,
            mode: enforce(),
            mx: Vec::new(),
            max_age: MaxAge::default(),
            host: HostedBy::default(),
            dns: DnsBy::default(),
            repair: false,
            auto_promote: false,
            delegated: false,
            challenge: None,
            rua: Vec::new(),
            tags: Vec::new(),
        }
    }

    /// Builds the planner's input. `policy_host_target` is the target of `mta-sts` for policies that we host; `zone` is the zone
    /// that domains are delegated to.
    pub fn desired(
        &self,
        policy_host_target: Option<PolicyHostAt>,
        zone: Option<DomainName>,
    ) -> DesiredState {
        DesiredState {
            domain: self.name.clone(),
            mx: self.mx.clone(),
            mode: self.mode,
            max_age_testing: self.max_age.testing,
            max_age_enforce: self.max_age.enforce,
            max_age_before: self.max_age.before,
            rua: self.rua.clone(),
            policy_host: match self.host {
                HostedBy::Sternpost => policy_host_target,
                HostedBy::Static => Some(PolicyHostAt::Operator),
                HostedBy::Elsewhere => None,
            },
            delegated_to: zone.filter(|_| self.delegated),
        }
    }
}

fn enforce() -> Mode {
    Mode::Enforce
}

fn max_age<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u32, D::Error> {
    let seconds = u32::deserialize(deserializer)?;
    match seconds {
        1..=MAX_AGE_SECONDS => Ok(seconds),
        _ => Err(serde::de::Error::custom(format!("max_age must be 1 to {MAX_AGE_SECONDS} seconds"))),
    }
}

fn rua_as_text<S: Serializer>(rua: &[Rua], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_seq(rua.iter().map(ToString::to_string))
}

fn rua_from_text<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<Rua>, D::Error> {
    let parse = |text: String| match Rua::parse(&text) {
        Ok(Some(rua)) => Ok(rua),
        Ok(None) => Err(serde::de::Error::custom(format!(
            "{text:?}: a report address must be a mailto: or https: URI"
        ))),
        Err(why) => Err(serde::de::Error::custom(format!("{text:?}: {why}"))),
    };
    Vec::<String>::deserialize(deserializer)?.into_iter().map(parse).collect()
}

impl DnsBy {
    /// Parses `manual`, `rfc2136:NAME` or `PROVIDER:NAME`. The error lists the valid forms.
    pub fn parse(text: &str) -> Result<Self, String> {
        let (kind, name) = text.split_once(':').unwrap_or((text, ""));
        match (kind, name, Service::parse(kind)) {
            ("manual", "", _) if !text.contains(':') => Ok(Self::Hand),
            ("rfc2136", name, _) if !name.is_empty() => Ok(Self::Update(name.to_owned())),
            (_, name, Some(service)) if !name.is_empty() => Ok(Self::Provider(service, name.to_owned())),
            _ => {
                let known = Service::ALL.map(|service| format!("\"{}:NAME\"", service.as_str())).join(", ");
                Err(format!("dns must be \"manual\", \"rfc2136:NAME\" or one of {known}, not {text:?}"))
            }
        }
    }
}

impl Serialize for DnsBy {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Hand => serializer.serialize_str("manual"),
            Self::Update(name) => serializer.collect_str(&format_args!("rfc2136:{name}")),
            Self::Provider(service, name) => {
                serializer.collect_str(&format_args!("{}:{name}", service.as_str()))
            }
        }
    }
}

impl<'de> Deserialize<'de> for DnsBy {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Self::parse(&String::deserialize(deserializer)?).map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_domain_survives_a_round_trip_through_json_and_its_defaults_are_safe() {
        let json = serde_json::json!({ "name": "Example.org", "rua": ["mailto:r@example.org"] });
        let spec: DomainSpec = serde_json::from_value(json).unwrap();
        assert_eq!((spec.mode, spec.max_age, &spec.dns), (Mode::Enforce, MaxAge::default(), &DnsBy::Hand));
        let again: DomainSpec = serde_json::from_value(serde_json::to_value(&spec).unwrap()).unwrap();
        assert_eq!(again, spec);
    }

    #[test]
    fn errors_name_the_invalid_setting() {
        let error =
            |json: serde_json::Value| serde_json::from_value::<DomainSpec>(json).unwrap_err().to_string();
        let mut json = serde_json::json!({ "name": "example.org" });
        json["mod"] = "none".into();
        assert!(error(json.clone()).contains("unknown field `mod`"));
        json.as_object_mut().unwrap().remove("mod");
        for (key, value, expected) in [
            ("rua", serde_json::json!(["ftp://x"]), "mailto: or https:"),
            ("max_age", serde_json::json!({ "enforce": 0 }), "1 to 31557600 seconds"),
            ("dns", "route66".into(), "not \"route66\""),
            ("mx", serde_json::json!(["mx.*.example"]), "leftmost"),
            ("tags", serde_json::json!(["Big customer"]), "unlike \"Big customer\""),
        ] {
            let mut json = json.clone();
            json[key] = value;
            assert!(error(json.clone()).contains(expected), "{}", error(json));
        }
    }
}
