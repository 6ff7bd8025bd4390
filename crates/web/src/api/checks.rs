//! The check of any domain, as `sternpost check` and the public check do it. It connects to the domain's servers, so few run at
//! once.

use super::problem::{Problem, ProblemType};
use super::{Api, Caller, domain, parse_body};
use axum::Extension;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::StatusCode;
use axum::http::header::{CONTENT_TYPE, HeaderValue};
use axum::response::{IntoResponse, Response};
use check::render::forms::json;
use formats::limits::API_CHECK_TIME;
use serde::Deserialize;
use std::sync::Arc;
use tokio::time::timeout;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Wanted {
    domain: String,
}

pub async fn check(
    State(api): State<Arc<Api>>,
    Extension(caller): Extension<Caller>,
    body: Bytes,
) -> Result<Response, Problem> {
    let wanted: Wanted = parse_body(&body, r#"{"domain":"example.org"}"#)?;
    let name = domain(&wanted.domain)?;
    let _place = api.checks.take(caller.tenant, "checks")?;
    let (world, config) = (&api.base.world, &api.base.config);
    let examination = async {
        let checker = world.checker(config, world.check_options(config), false).await?;
        Ok::<_, Problem>(checker.examine(&name).await)
    };
    match timeout(API_CHECK_TIME, examination).await {
        Ok(seen) => {
            let kind = [(CONTENT_TYPE, HeaderValue::from_static("application/json"))];
            Ok((StatusCode::OK, kind, json(&seen?)).into_response())
        }
        Err(_) => {
            let why = format!("its servers did not answer within {} seconds", API_CHECK_TIME.as_secs());
            Err(Problem::new(
                ProblemType::Unavailable,
                format!("no result of the check of {name}"),
                why,
                "Try again later.",
            ))
        }
    }
}
