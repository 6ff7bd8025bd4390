//! The OpenAPI 3.1 document and the tables of docs/api.md, made from the table of requests.

use super::problem::{MEDIA_TYPE, ProblemType};
use super::routes::{Answer, Parameter, Place, ROUTES, Route, Values};
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;
use std::fmt::Write;

/// The schemas of bodies, by name.
const SCHEMAS: &str = include_str!("schemas.json");

/// The problems that any request can have.
const OF_ALL: [ProblemType; 4] = [
    ProblemType::RequestNotValid,
    ProblemType::TokenRefused,
    ProblemType::ScopeMissing,
    ProblemType::Unavailable,
];

/// The OpenAPI document of the API.
pub fn document() -> Value {
    let mut paths: BTreeMap<&str, Map<String, Value>> = BTreeMap::new();
    for route in ROUTES {
        paths.entry(route.path).or_default().insert(route.method.to_owned(), operation(route));
    }
    let schemas: Value = serde_json::from_str(SCHEMAS).unwrap_or_default();
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "Sternpost",
            "version": env!("CARGO_PKG_VERSION"),
            "description": "The HTTP API for control panels (docs/api.md). Every request carries a token, which decides whose domains it is about.",
        },
        "servers": [{ "url": "/" }],
        "security": [{ "token": [] }],
        "paths": paths,
        "components": {
            "securitySchemes": { "token": { "type": "http", "scheme": "bearer" } },
            "schemas": schemas,
        },
    })
}

fn operation(route: &Route) -> Value {
    let mut responses: Map<String, Value> =
        route.answers.iter().map(|one| (one.status.to_string(), response(one))).collect();
    for (status, problems) in problems(route) {
        let names: Vec<String> =
            problems.iter().map(|problem| format!("`{}`: {}.", problem.uri(), problem.title())).collect();
        let content = json!({ MEDIA_TYPE: { "schema": reference("Problem") } });
        responses.insert(status.to_string(), json!({ "description": names.join(" "), "content": content }));
    }
    let mut operation = json!({
        "operationId": operation_id(route),
        "summary": route.about,
        "responses": responses,
    });
    let Some(members) = operation.as_object_mut() else { return operation };
    if let Some(scope) = route.scope {
        members.insert("description".to_owned(), format!("Needs a token with the scope `{scope}`.").into());
        members.insert("x-scope".to_owned(), scope.as_str().into());
    }
    if !route.parameters.is_empty() {
        members.insert("parameters".to_owned(), route.parameters.iter().map(parameter).collect());
    }
    if let Some(body) = &route.body {
        // A line of NDJSON is not a JSON document, so its schema is that of one line.
        let schema = match body.media {
            "application/json" => reference(body.schema),
            _ => {
                json!({ "type": "string", "contentMediaType": "application/json", "contentSchema": reference(body.schema) })
            }
        };
        let content =
            json!({ body.media: { "schema": schema, "example": example(body.media, body.example) } });
        members.insert("requestBody".to_owned(), json!({ "required": body.is_required, "content": content }));
    }
    operation
}

fn example(media: &str, text: &str) -> Value {
    match media {
        "application/json" => serde_json::from_str(text).unwrap_or_default(),
        _ => text.into(),
    }
}

/// The problems of a request by their status.
fn problems(route: &Route) -> BTreeMap<u16, Vec<ProblemType>> {
    let mut all: BTreeMap<u16, Vec<ProblemType>> = BTreeMap::new();
    let of_all =
        OF_ALL.iter().filter(|problem| route.scope.is_some() || **problem != ProblemType::ScopeMissing);
    for problem in of_all.chain(route.problems) {
        all.entry(problem.status().as_u16()).or_default().push(*problem);
    }
    all
}

/// The method and the words of the path, such as `getDomainsStatus`.
fn operation_id(route: &Route) -> String {
    let words = route.path.trim_start_matches("/v1").split(['/', '.']);
    let words = words.map(|word| word.trim_matches(['{', '}'])).filter(|word| !word.is_empty());
    words.fold(route.method.to_owned(), |mut id, word| {
        let mut letters = word.chars();
        id.extend(letters.next().map(|first| first.to_ascii_uppercase()));
        id.extend(letters);
        id
    })
}

fn reference(schema: &str) -> Value {
    json!({ "$ref": format!("#/components/schemas/{schema}") })
}

fn response(answer: &Answer) -> Value {
    if answer.schema.is_empty() {
        return json!({ "description": answer.about });
    }
    let schema = match answer.media {
        "application/json" => reference(answer.schema),
        _ => {
            json!({ "type": "string", "contentMediaType": "application/json", "contentSchema": reference(answer.schema) })
        }
    };
    json!({ "description": answer.about, "content": { answer.media: { "schema": schema } } })
}

fn parameter(parameter: &Parameter) -> Value {
    let place = match parameter.place {
        Place::Path => "path",
        Place::Query => "query",
        Place::Header => "header",
    };
    let schema = match parameter.values {
        Values::Text if parameter.place == Place::Path => json!({ "type": "string", "minLength": 1 }),
        Values::Text => json!({ "type": "string" }),
        Values::Number(least, most) => json!({ "type": "integer", "minimum": least, "maximum": most }),
        Values::Flag => json!({ "type": "boolean" }),
        Values::OneOf(words) => json!({ "type": "string", "enum": words }),
    };
    let mut shown = json!({
        "name": parameter.name,
        "in": place,
        "required": parameter.place == Place::Path,
        "description": parameter.about,
        "schema": schema,
    });
    if let (false, Some(members)) = (parameter.example.is_empty(), shown.as_object_mut()) {
        members.insert("example".to_owned(), parameter.example.into());
    }
    shown
}

/// The tables of docs/api.md: the requests, their parameters, and the types of problems.
pub fn table() -> String {
    let mut text = "| request | scope | effect | answers |\n| --- | --- | --- | --- |\n".to_owned();
    for route in ROUTES {
        let scope = route.scope.map_or_else(|| "any".to_owned(), |scope| format!("`{scope}`"));
        let statuses: Vec<String> = route.answers.iter().map(|one| one.status.to_string()).collect();
        let failures: Vec<String> =
            route.problems.iter().map(|problem| problem.status().as_u16().to_string()).collect();
        let mut all: Vec<String> = statuses.into_iter().chain(failures).collect();
        all.sort();
        all.dedup();
        let _ = writeln!(
            text,
            "| `{} {}` | {scope} | {} | {} |",
            route.method.to_uppercase(),
            route.path,
            route.about,
            all.join(", ")
        );
    }
    text += "\n| parameter | of | meaning |\n| --- | --- | --- |\n";
    for route in ROUTES {
        let own = route.parameters.iter().filter(|parameter| parameter.place != Place::Path);
        for parameter in own {
            let (name, path) = (parameter.name, route.path);
            let _ = writeln!(
                text,
                "| `{name}` | `{} {path}` | {} |",
                route.method.to_uppercase(),
                parameter.about
            );
        }
    }
    text += "\n| status | `type` | meaning |\n| --- | --- | --- |\n";
    for problem in ProblemType::ALL {
        let _ =
            writeln!(text, "| {} | `{}` | {} |", problem.status().as_u16(), problem.uri(), problem.title());
    }
    text
}
