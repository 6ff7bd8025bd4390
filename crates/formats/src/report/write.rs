//! Strict writing of reports: the output contains only what RFC 8460 §4 allows. The report scheduler uses it.

use super::{FailureDetail, PolicyReport, Report};
use crate::result_type::{PolicyType, ResultType};
use serde_json::{Map, Value, json};

/// Why a report can't be written according to RFC 8460.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum WriteError {
    /// A required member is missing.
    #[error("{0} is missing")]
    Missing(&'static str),
    /// A policy type or result type is not registered.
    #[error("{0:?} is not a registered name")]
    Unregistered(String),
    /// A count exceeds 2^53, so I-JSON can't represent it exactly.
    #[error("the count {0} is over 2^53")]
    Count(u64),
}

impl Report {
    /// Returns the report as I-JSON (RFC 7493). Fails instead of omitting a value that RFC 8460 does not allow.
    pub fn to_json(&self) -> Result<Vec<u8>, WriteError> {
        let organization = self.organization_name.as_ref().ok_or(WriteError::Missing("organization-name"))?;
        let contact = self.contact_info.as_ref().ok_or(WriteError::Missing("contact-info"))?;
        if self.report_id.is_empty() {
            return Err(WriteError::Missing("report-id"));
        }
        let second = |time: jiff::Timestamp| time.strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
        let policies = self.policies.iter().map(policy).collect::<Result<Vec<_>, _>>()?;
        let value = json!({
            "organization-name": organization,
            "date-range": {
                "start-datetime": second(self.date_range.start),
                "end-datetime": second(self.date_range.end),
            },
            "contact-info": contact,
            "report-id": self.report_id,
            "policies": policies,
        });
        Ok(value.to_string().into_bytes())
    }
}

fn policy(policy: &PolicyReport) -> Result<Value, WriteError> {
    if let PolicyType::Other(name) = &policy.policy_type {
        return Err(WriteError::Unregistered(name.clone()));
    }
    // RPT-24: some receivers can't parse no-policy-found without a policy domain.
    let domain = policy.policy_domain.as_ref().ok_or(WriteError::Missing("policy-domain"))?;
    let mut inner = Map::new();
    inner.insert("policy-type".into(), json!(policy.policy_type.as_str()));
    if policy.policy_type != PolicyType::NoPolicyFound {
        inner.insert("policy-string".into(), json!(policy.policy_string));
    }
    inner.insert("policy-domain".into(), json!(domain));
    if !policy.mx_host.is_empty() {
        inner.insert("mx-host".into(), json!(policy.mx_host));
    }
    let mut outer = Map::new();
    outer.insert("policy".into(), Value::Object(inner));
    outer.insert(
        "summary".into(),
        json!({
            "total-successful-session-count": count(policy.successful)?,
            "total-failure-session-count": count(policy.failed)?,
        }),
    );
    if !policy.details.is_empty() {
        let details = policy.details.iter().map(detail).collect::<Result<Vec<_>, _>>()?;
        outer.insert("failure-details".into(), Value::Array(details));
    }
    Ok(Value::Object(outer))
}

fn detail(detail: &FailureDetail) -> Result<Value, WriteError> {
    if let ResultType::Other(name) = &detail.result_type {
        return Err(WriteError::Unregistered(name.clone()));
    }
    let mut map = Map::new();
    map.insert("result-type".into(), json!(detail.result_type.as_str()));
    let mut put = |name: &str, value: Option<String>| {
        if let Some(value) = value {
            map.insert(name.into(), Value::String(value));
        }
    };
    put("sending-mta-ip", detail.sending_mta_ip.map(|ip| ip.to_string()));
    put("receiving-mx-hostname", detail.receiving_mx_hostname.clone());
    put("receiving-mx-helo", detail.receiving_mx_helo.clone());
    put("receiving-ip", detail.receiving_ip.map(|ip| ip.to_string()));
    put("additional-information", detail.additional_information.clone());
    put("failure-reason-code", detail.failure_reason_code.clone());
    map.insert("failed-session-count".into(), json!(count(detail.failed_session_count)?));
    Ok(Value::Object(map))
}

fn count(count: u64) -> Result<u64, WriteError> {
    if count <= 1 << 53 { Ok(count) } else { Err(WriteError::Count(count)) }
}
