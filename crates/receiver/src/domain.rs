//! A domain as its operator wants it: one shape for the configuration file, the store and the API.

use crate::rollout::desired::{DesiredState, PolicyHostAt};
use formats::limits::MAX_AGE_SECONDS;
use formats::tlsrpt_record::Rua;
use formats::{DomainName, Mode, MxPattern};
use net::dns::provider::Service;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// What is wanted of a domain.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DomainSpec {
    /// The domain.
    pub name: DomainName,
    /// Where it is to end up.
    #[serde(default = "enforce")]
    pub mode: Mode,
    /// Its MX hosts; empty means as DNS shows them.
    #[serde(default)]
    pub mx: Vec<MxPattern>,
    /// How long senders keep its policy.
    #[serde(default)]
    pub max_age: MaxAge,
    /// Who serves the policy.
    #[serde(default)]
    pub host: HostedBy,
    /// Who changes its DNS records.
    #[serde(default)]
    pub dns: DnsBy,
    /// Whether the guard may widen the policy by itself when an MX host is not in it.
    #[serde(default)]
    pub repair: bool,
    /// Whether it is enforced without a word of the operator's as soon as the evidence is there.
    #[serde(default)]
    pub auto_promote: bool,
    /// Whether the domain's owner makes its names aliases into a zone of ours (PUB-06).
    #[serde(default)]
    pub delegated: bool,
    /// Where reports go.
    #[serde(default, serialize_with = "rua_as_text", deserialize_with = "rua_from_text")]
    pub rua: Vec<Rua>,
}

/// Seconds for which senders keep a policy.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct MaxAge {
    /// In testing, and while retiring.
    #[serde(deserialize_with = "max_age")]
    pub testing: u32,
    /// When enforced.
    #[serde(deserialize_with = "max_age")]
    pub enforce: u32,
    /// What a policy of before may have had that can't be fetched any more.
    #[serde(deserialize_with = "max_age")]
    pub before: u32,
}

impl Default for MaxAge {
    /// A day, a week, and the longest that there is.
    fn default() -> Self {
        Self { testing: 86_400, enforce: 604_800, before: MAX_AGE_SECONDS }
    }
}

/// Who serves the policy.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum HostedBy {
    /// `sternpost serve`, by its role `[host]`.
    #[serde(rename = "self")]
    Sternpost,
    /// A web server or platform that gets what `sternpost export` makes.
    #[default]
    Static,
    /// Somebody else; it is only watched.
    Elsewhere,
}

/// Who changes DNS records.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum DnsBy {
    /// The operator, by hand.
    #[default]
    Hand,
    /// DNS UPDATE (RFC 2136) by the server of this name in the configuration.
    Update(String),
    /// The provider that runs the zone, by the entry of this name in the configuration.
    Provider(Service, String),
}

impl DomainSpec {
    /// A domain with nothing but defaults.
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
            rua: Vec::new(),
        }
    }

    /// The planner's view of it; `place` is where policy hosts of ours are, `zone` the one that domains are
    /// delegated to.
    pub fn wanted(&self, place: Option<PolicyHostAt>, zone: Option<DomainName>) -> DesiredState {
        DesiredState {
            domain: self.name.clone(),
            mx: self.mx.clone(),
            mode: self.mode,
            max_age_testing: self.max_age.testing,
            max_age_enforce: self.max_age.enforce,
            max_age_before: self.max_age.before,
            rua: self.rua.clone(),
            policy_host: place.filter(|_| self.host == HostedBy::Sternpost),
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
        _ => Err(serde::de::Error::custom(format!("a max_age is 1 to {MAX_AGE_SECONDS} seconds"))),
    }
}

fn rua_as_text<S: Serializer>(rua: &[Rua], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_seq(rua.iter().map(ToString::to_string))
}

fn rua_from_text<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<Rua>, D::Error> {
    let parse = |text: String| match Rua::parse(&text) {
        Ok(Some(rua)) => Ok(rua),
        Ok(None) => Err(serde::de::Error::custom(format!("{text:?}: reports go to mailto: or https:"))),
        Err(why) => Err(serde::de::Error::custom(format!("{text:?}: {why}"))),
    };
    Vec::<String>::deserialize(deserializer)?.into_iter().map(parse).collect()
}

impl DnsBy {
    /// Takes `manual`, `rfc2136:NAME` or `PROVIDER:NAME`; says what is wrong.
    pub fn parse(text: &str) -> Result<Self, String> {
        let (kind, name) = text.split_once(':').unwrap_or((text, ""));
        match (kind, name, Service::parse(kind)) {
            ("manual", "", _) if !text.contains(':') => Ok(Self::Hand),
            ("rfc2136", name, _) if !name.is_empty() => Ok(Self::Update(name.to_owned())),
            (_, name, Some(service)) if !name.is_empty() => Ok(Self::Provider(service, name.to_owned())),
            _ => {
                let known = Service::ALL.map(|service| format!("\"{}:NAME\"", service.as_str())).join(", ");
                Err(format!("dns is \"manual\", \"rfc2136:NAME\" or one of {known}, not {text:?}"))
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
    fn a_domain_goes_to_text_and_back_and_its_defaults_are_safe() {
        let json = serde_json::json!({ "name": "Example.org", "rua": ["mailto:r@example.org"] });
        let spec: DomainSpec = serde_json::from_value(json).unwrap();
        assert_eq!((spec.mode, spec.max_age, &spec.dns), (Mode::Enforce, MaxAge::default(), &DnsBy::Hand));
        let again: DomainSpec = serde_json::from_value(serde_json::to_value(&spec).unwrap()).unwrap();
        assert_eq!(again, spec);
    }

    #[test]
    fn what_is_wrong_is_named() {
        let fault =
            |json: serde_json::Value| serde_json::from_value::<DomainSpec>(json).unwrap_err().to_string();
        let mut json = serde_json::json!({ "name": "example.org" });
        json["mod"] = "none".into();
        assert!(fault(json.clone()).contains("unknown field `mod`"));
        json.as_object_mut().unwrap().remove("mod");
        for (key, value, said) in [
            ("rua", serde_json::json!(["ftp://x"]), "mailto: or https:"),
            ("max_age", serde_json::json!({ "enforce": 0 }), "1 to 31557600 seconds"),
            ("dns", "route66".into(), "not \"route66\""),
            ("mx", serde_json::json!(["mx.*.example"]), "left-most"),
        ] {
            let mut json = json.clone();
            json[key] = value;
            assert!(fault(json.clone()).contains(said), "{}", fault(json));
        }
    }
}
