//! The table of requests. The router, the OpenAPI document and the table in docs/api.md are made from it, and a test tries each
//! request as one tenant against the things of another, so that a new one is covered without another line.

use super::problem::ProblemType::{self, *};
use super::scope::Scope;
use super::{Api, applying, bulk, checks, domains, lists, openapi_document, rollout, tokens};
use axum::routing::{MethodRouter, delete, get, post, put};
use std::sync::Arc;

/// A request of the API.
pub struct Route {
    /// The method, in lower case.
    pub method: &'static str,
    pub path: &'static str,
    /// The scope that the token must have; `None` for any token.
    pub scope: Option<Scope>,
    /// What the request does, in one sentence.
    pub about: &'static str,
    pub parameters: &'static [Parameter],
    pub body: Option<RequestBody>,
    pub answers: &'static [Answer],
    /// The problems beside those that any request can have.
    pub problems: &'static [ProblemType],
    pub handler: fn() -> MethodRouter<Arc<Api>>,
}

/// Where a parameter is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    Path,
    Query,
    Header,
}

/// The values of a parameter.
#[derive(Debug, Clone, Copy)]
pub enum Values {
    Text,
    /// A whole number from the first to the second.
    Number(i64, i64),
    Flag,
    OneOf(&'static [&'static str]),
}

pub struct Parameter {
    pub name: &'static str,
    pub place: Place,
    pub values: Values,
    pub about: &'static str,
    /// A value for examples; empty if there is none.
    pub example: &'static str,
}

/// The body of a request: its schema in `schemas.json`, and an example.
pub struct RequestBody {
    pub media: &'static str,
    pub schema: &'static str,
    pub is_required: bool,
    pub example: &'static str,
}

/// A response that is not a problem.
pub struct Answer {
    pub status: u16,
    pub media: &'static str,
    /// Its schema in `schemas.json`; empty for a response without a body.
    pub schema: &'static str,
    pub about: &'static str,
}

const JSON: &str = "application/json";
const NDJSON: &str = "application/x-ndjson";

const fn of_path(name: &'static str, about: &'static str, example: &'static str) -> Parameter {
    Parameter { name, place: Place::Path, values: Values::Text, about, example }
}

const fn query(name: &'static str, values: Values, about: &'static str) -> Parameter {
    Parameter { name, place: Place::Query, values, about, example: "" }
}

const fn header(name: &'static str, about: &'static str) -> Parameter {
    Parameter { name, place: Place::Header, values: Values::Text, about, example: "" }
}

const fn json(schema: &'static str, is_required: bool, example: &'static str) -> Option<RequestBody> {
    Some(RequestBody { media: JSON, schema, is_required, example })
}

const fn ok(schema: &'static str, about: &'static str) -> Answer {
    Answer { status: 200, media: JSON, schema, about }
}

const fn status(status: u16, schema: &'static str, about: &'static str) -> Answer {
    Answer { status, media: JSON, schema, about }
}

const NAME: Parameter = of_path("name", "The mail domain.", "example.org");
const LIMIT: Parameter =
    query("limit", Values::Number(0, u32::MAX as i64), "The most entries in the answer; at most 1,000.");
const AFTER_NAME: Parameter =
    query("after", Values::Text, "Continues after this name: the member `next` of the answer before.");
const AFTER_NUMBER: Parameter = query(
    "after",
    Values::Number(i64::MIN, i64::MAX),
    "Continues after this entry, with older ones: the member `next` of the answer before.",
);
const OF_DOMAIN: Parameter = query("domain", Values::Text, "Only what is about this domain.");
const WAIT: Parameter = query(
    "wait",
    Values::Number(0, u32::MAX as i64),
    "Seconds to wait for the end of the operation; 10 unless set, and at most 60.",
);
const IF_MATCH: Parameter = header("If-Match", "The `ETag` of the settings that the change was made for.");

/// All requests, in the order of the documentation.
pub const ROUTES: &[Route] = &[
    Route {
        method: "get",
        path: "/v1/domains",
        scope: Some(Scope::Read),
        about: "List domains by name.",
        parameters: &[
            AFTER_NAME,
            LIMIT,
            query(
                "mode",
                Values::OneOf(&["enforce", "testing", "none", "off"]),
                "Only domains whose senders know this mode; `off` means no policy.",
            ),
            query(
                "alert",
                Values::Text,
                "Only domains with an active alert of this kind, such as `record-gone`, or `any`.",
            ),
            query("tag", Values::Text, "Only domains with this tag."),
        ],
        body: None,
        answers: &[ok("Domains", "The domains. With filters, an answer may have few or none and a `next`.")],
        problems: &[],
        handler: || get(domains::list),
    },
    Route {
        method: "post",
        path: "/v1/domains",
        scope: Some(Scope::Manage),
        about: "Add domains, or replace their settings: one JSON object of settings in each line.",
        parameters: &[query("dry_run", Values::Flag, "Says what would happen, and stores nothing.")],
        body: Some(RequestBody {
            media: NDJSON,
            schema: "NamedSettings",
            is_required: false,
            example: r#"{"name":"example.org","rua":["mailto:tlsrpt@example.org"]}"#,
        }),
        answers: &[Answer {
            status: 200,
            media: NDJSON,
            schema: "BulkLine",
            about: "A line for each domain, and a last one about all.",
        }],
        problems: &[],
        handler: || post(bulk::bulk),
    },
    Route {
        method: "get",
        path: "/v1/domains/{name}",
        scope: Some(Scope::Read),
        about: "Show the settings of a domain.",
        parameters: &[NAME],
        body: None,
        answers: &[ok("Domain", "The domain; the header `ETag` names the version of its settings.")],
        problems: &[UnknownDomain, SettingsNotValid],
        handler: || get(domains::one),
    },
    Route {
        method: "put",
        path: "/v1/domains/{name}",
        scope: Some(Scope::Manage),
        about: "Add a domain, or replace its settings.",
        parameters: &[
            NAME,
            IF_MATCH,
            header("If-None-Match", "`*` adds the domain only if it does not exist."),
        ],
        body: json("Settings", true, r#"{"rua":["mailto:tlsrpt@example.org"]}"#),
        answers: &[
            status(200, "Domain", "The settings are replaced, or were the same."),
            status(201, "Domain", "The domain is added."),
        ],
        problems: &[DomainInFile, VersionDiffers, BodyTooLarge, SettingsNotValid],
        handler: || put(domains::put),
    },
    Route {
        method: "delete",
        path: "/v1/domains/{name}",
        scope: Some(Scope::Manage),
        about: "Remove a domain that is no longer used for mail.",
        parameters: &[
            NAME,
            query("although_bound", Values::Flag, "Removes it even if senders may still cache its policy."),
            IF_MATCH,
        ],
        body: None,
        answers: &[status(204, "", "The domain is removed. Its journal is kept.")],
        problems: &[UnknownDomain, DomainInFile, Refused, VersionDiffers, SettingsNotValid],
        handler: || delete(domains::remove),
    },
    Route {
        method: "get",
        path: "/v1/domains/{name}/status",
        scope: Some(Scope::Read),
        about: "Show the state of a domain, as `sternpost status --json` does, without queries.",
        parameters: &[NAME],
        body: None,
        answers: &[ok("Status", "The state. A program waits until `progress.rest` is not `steps`.")],
        problems: &[UnknownDomain, SettingsNotValid],
        handler: || get(rollout::status),
    },
    Route {
        method: "get",
        path: "/v1/domains/{name}/plan",
        scope: Some(Scope::Read),
        about: "Show the steps from the current to the desired state. The name servers of the domain are queried.",
        parameters: &[NAME],
        body: None,
        answers: &[ok("Plan", "The plan, as `sternpost plan --json` prints it.")],
        problems: &[UnknownDomain, SettingsNotValid, LimitReached],
        handler: || get(rollout::plan),
    },
    Route {
        method: "post",
        path: "/v1/domains/{name}/apply",
        scope: Some(Scope::Manage),
        about: "Carry out the plan of a domain: begin an operation, or join the one that runs.",
        parameters: &[NAME, WAIT],
        body: None,
        answers: &[
            ok("Operation", "The operation has ended; `outcome` is that of `sternpost apply --json`."),
            status(202, "Operation", "The operation runs. Ask again at the path in the header `Location`."),
        ],
        problems: &[UnknownDomain, SettingsNotValid, PlanInUse, LimitReached],
        handler: || post(applying::apply),
    },
    Route {
        method: "get",
        path: "/v1/operations/{id}",
        scope: Some(Scope::Read),
        about: "Show an operation, and wait for its end.",
        parameters: &[of_path("id", "The ID of the operation.", "00000000000000000000000000000000"), WAIT],
        body: None,
        answers: &[
            ok("Operation", "The operation has ended."),
            status(202, "Operation", "The operation runs."),
        ],
        problems: &[UnknownOperation],
        handler: || get(applying::operation),
    },
    Route {
        method: "post",
        path: "/v1/domains/{name}/promote",
        scope: Some(Scope::Manage),
        about: "Allow enforcement for a domain that is in testing.",
        parameters: &[NAME],
        body: json("Promotion", false, r#"{"force":true,"reason":"all MX hosts were tested by hand"}"#),
        answers: &[ok("Decision", "Enforcement is allowed. `apply` or `[guard]` carries it out.")],
        problems: &[UnknownDomain, Refused, BodyTooLarge, SettingsNotValid, LimitReached],
        handler: || post(rollout::promote),
    },
    Route {
        method: "post",
        path: "/v1/domains/{name}/hold",
        scope: Some(Scope::Manage),
        about: "Keep a domain in testing, or return it to testing.",
        parameters: &[NAME],
        body: json("Hold", true, r#"{"reason":"new MX hosts next week"}"#),
        answers: &[ok("Decision", "The domain is held.")],
        problems: &[UnknownDomain, BodyTooLarge, SettingsNotValid],
        handler: || post(rollout::hold),
    },
    Route {
        method: "post",
        path: "/v1/domains/{name}/excuse",
        scope: Some(Scope::Manage),
        about: "Exclude a known failure cause from the evidence, or count it again.",
        parameters: &[NAME],
        body: json(
            "Excuse",
            true,
            r#"{"result":"certificate-expired","host":"mx1.example.org","reason":"renewed"}"#,
        ),
        answers: &[ok("Decision", "The cause does not count, or counts again.")],
        problems: &[UnknownDomain, Refused, BodyTooLarge, SettingsNotValid],
        handler: || post(rollout::excuse),
    },
    Route {
        method: "get",
        path: "/v1/reports",
        scope: Some(Scope::Read),
        about: "List received TLS reports, newest first.",
        parameters: &[
            OF_DOMAIN,
            query("submitter", Values::Text, "Only reports from this submitter."),
            query("failed", Values::Flag, "Only reports with failed sessions."),
            AFTER_NUMBER,
            LIMIT,
        ],
        body: None,
        answers: &[ok("Reports", "The reports.")],
        problems: &[SettingsNotValid],
        handler: || get(lists::reports),
    },
    Route {
        method: "get",
        path: "/v1/reports/{id}",
        scope: Some(Scope::Read),
        about: "Show a received report.",
        parameters: &[Parameter {
            name: "id",
            place: Place::Path,
            values: Values::Number(i64::MIN, i64::MAX),
            about: "The number of the report.",
            example: "1",
        }],
        body: None,
        answers: &[ok("Report", "The report, as `sternpost reports show --json` prints it.")],
        problems: &[UnknownReport],
        handler: || get(lists::report),
    },
    Route {
        method: "get",
        path: "/v1/alerts",
        scope: Some(Scope::Read),
        about: "List the active alerts, each with the domains that it concerns.",
        parameters: &[OF_DOMAIN],
        body: None,
        answers: &[ok("Alerts", "The alerts, oldest first.")],
        problems: &[SettingsNotValid],
        handler: || get(lists::alerts),
    },
    Route {
        method: "get",
        path: "/v1/journal",
        scope: Some(Scope::Read),
        about: "List the steps and decisions about domains, newest first.",
        parameters: &[OF_DOMAIN, AFTER_NUMBER, LIMIT],
        body: None,
        answers: &[ok("Journal", "The entries.")],
        problems: &[SettingsNotValid],
        handler: || get(lists::journal),
    },
    Route {
        method: "post",
        path: "/v1/check",
        scope: Some(Scope::Check),
        about: "Check a domain as senders see it.",
        parameters: &[],
        body: json("CheckedDomain", true, r#"{"domain":"example.org"}"#),
        answers: &[ok(
            "Check",
            "The result, as `sternpost check --json` prints it (docs/check.schema.json).",
        )],
        problems: &[BodyTooLarge, SettingsNotValid, LimitReached],
        handler: || post(checks::check),
    },
    Route {
        method: "get",
        path: "/v1/tokens",
        scope: Some(Scope::Tokens),
        about: "List the tokens of the tenant, without their secrets.",
        parameters: &[],
        body: None,
        answers: &[ok("Tokens", "The tokens.")],
        problems: &[],
        handler: || get(tokens::list),
    },
    Route {
        method: "post",
        path: "/v1/tokens",
        scope: Some(Scope::Tokens),
        about: "Create a token with scopes of the one that is used.",
        parameters: &[],
        body: json("NewToken", true, r#"{"name":"panel","scopes":["read"],"expires_in_days":90}"#),
        answers: &[status(201, "CreatedToken", "The token. It is shown once.")],
        problems: &[Refused, BodyTooLarge, SettingsNotValid],
        handler: || post(tokens::add),
    },
    Route {
        method: "delete",
        path: "/v1/tokens/{name}",
        scope: Some(Scope::Tokens),
        about: "Revoke a token.",
        parameters: &[of_path("name", "The name of the token.", "panel")],
        body: None,
        answers: &[status(204, "", "The token is revoked.")],
        problems: &[UnknownToken],
        handler: || delete(tokens::revoke),
    },
    Route {
        method: "get",
        path: "/v1/openapi.json",
        scope: None,
        about: "Show this interface as an OpenAPI document.",
        parameters: &[],
        body: None,
        answers: &[ok("Document", "The document.")],
        problems: &[],
        handler: || get(openapi_document),
    },
];
