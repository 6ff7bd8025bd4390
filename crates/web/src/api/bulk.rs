//! Many domains in one request: NDJSON, one object of settings in a line. Lines are stored in batches as they arrive, and the answer
//! has one line for each, and a last one about all. It is written to a temporary file and sent when the body has been read: a client
//! that sends the whole body before it reads would otherwise wait for a server that waits for the client.

use super::domains::{parse_spec, settings_text, wrong};
use super::problem::{Problem, ProblemType};
use super::{Api, Caller};
use axum::Extension;
use axum::body::{Body, Bytes};
use axum::extract::{Query, State};
use axum::http::header::{CONTENT_TYPE, HeaderValue};
use axum::response::{IntoResponse, Response};
use config::failure::Failure;
use formats::DomainName;
use formats::limits::{API_BULK_BYTES, API_BULK_LINES, FORM_BYTES};
use http_body_util::BodyExt;
use operations::RolloutContext;
use receiver::domain::DomainSpec;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use std::collections::BTreeSet;
use std::fs::File;
use std::io::{BufWriter, Seek, Write};
use std::sync::Arc;
use tokio_util::io::ReaderStream;

/// Domains that are stored in one transaction.
const BATCH: usize = 500;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BulkQuery {
    /// Answers what would happen, and stores nothing.
    #[serde(default)]
    dry_run: bool,
}

/// What became of a line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum Verdict {
    Created,
    Changed,
    Unchanged,
    Refused,
}

/// How many lines became what.
#[derive(Debug, Clone, Copy, Default, Serialize)]
struct Counts {
    lines: usize,
    created: usize,
    changed: usize,
    unchanged: usize,
    refused: usize,
}

impl Counts {
    fn add(&mut self, verdict: Verdict) {
        match verdict {
            Verdict::Created => self.created += 1,
            Verdict::Changed => self.changed += 1,
            Verdict::Unchanged => self.unchanged += 1,
            Verdict::Refused => self.refused += 1,
        }
    }
}

/// A line with valid settings, or the reason why they are not.
struct Item {
    line: usize,
    name: Option<DomainName>,
    spec: Result<DomainSpec, Problem>,
}

pub async fn bulk(
    State(api): State<Arc<Api>>,
    Extension(caller): Extension<Caller>,
    Query(query): Query<BulkQuery>,
    body: Body,
) -> Result<Response, Problem> {
    let file = tempfile::tempfile().map_err(|error| no_file(&error))?;
    let mut run = BulkRun {
        context: api.base.of_tenant(caller.tenant).await?,
        who: caller.who,
        is_dry: query.dry_run,
        batch: Vec::new(),
        names: BTreeSet::new(),
        counts: Counts::default(),
        out: BufWriter::new(file),
    };
    let why = match run.read(body).await {
        Ok(()) => None,
        Err(Stop::Cut(why)) => Some(why),
        Err(Stop::Failed(problem)) => return Err(problem),
    };
    let file = run.finish(why.as_deref()).map_err(|error| no_file(&error))?;
    let kind = [(CONTENT_TYPE, HeaderValue::from_static("application/x-ndjson"))];
    let stream = ReaderStream::new(tokio::fs::File::from_std(file));
    Ok((kind, Body::from_stream(stream)).into_response())
}

fn no_file(error: &std::io::Error) -> Problem {
    let remedy = "The disk may be full, or TMPDIR not writable.";
    Problem::new(ProblemType::Unavailable, "the answer can't be written to a temporary file", error, remedy)
}

/// Why a request ends before its last line.
enum Stop {
    /// The rest of the body is not read. What was stored stays.
    Cut(String),
    /// Nothing was stored yet.
    Failed(Problem),
}

struct BulkRun {
    context: RolloutContext,
    who: String,
    is_dry: bool,
    batch: Vec<Item>,
    /// The names in the batch. A name that occurs again begins the next one, so that lines count in their order.
    names: BTreeSet<String>,
    counts: Counts,
    out: BufWriter<File>,
}

impl BulkRun {
    /// Reads the body line by line.
    async fn read(&mut self, mut body: Body) -> Result<(), Stop> {
        let (mut rest, mut size, mut is_skipped) = (Vec::new(), 0_usize, false);
        while let Some(frame) = body.frame().await {
            let frame = frame.map_err(|error| Stop::Cut(format!("the body ended early: {error}")))?;
            let Ok(data) = frame.into_data() else { continue };
            size = size.saturating_add(data.len());
            if size > API_BULK_BYTES {
                self.flush().await?;
                return Err(Stop::Cut(format!("the body has more than {API_BULK_BYTES} bytes")));
            }
            self.take(&data, &mut rest, &mut is_skipped).await?;
        }
        if !rest.is_empty() {
            self.line(&rest).await?;
        }
        self.flush().await
    }

    /// Takes the lines that end in this piece of the body. `rest` is the begin of the next one; it is skipped if it is too long.
    async fn take(&mut self, data: &Bytes, rest: &mut Vec<u8>, is_skipped: &mut bool) -> Result<(), Stop> {
        let mut pieces = data.split(|byte| *byte == b'\n').peekable();
        while let Some(piece) = pieces.next() {
            if !*is_skipped && rest.len() + piece.len() <= FORM_BYTES {
                rest.extend_from_slice(piece);
            } else if !*is_skipped {
                *is_skipped = true;
                rest.clear();
                let why = format!("the line is longer than {FORM_BYTES} bytes");
                self.counted_line().await?;
                self.push(None, Err(wrong("the settings are invalid", &why))).await?;
            }
            if pieces.peek().is_some() {
                if !*is_skipped {
                    self.line(rest).await?;
                }
                rest.clear();
                *is_skipped = false;
            }
        }
        Ok(())
    }

    /// Counts a line; fails if there are too many.
    async fn counted_line(&mut self) -> Result<(), Stop> {
        if self.counts.lines >= API_BULK_LINES {
            self.flush().await?;
            return Err(Stop::Cut(format!("the body has more than {API_BULK_LINES} lines")));
        }
        self.counts.lines += 1;
        Ok(())
    }

    async fn line(&mut self, line: &[u8]) -> Result<(), Stop> {
        self.counted_line().await?;
        if line.trim_ascii().is_empty() {
            return Ok(());
        }
        let (name, spec) = match parse(line) {
            Ok((name, fields)) => {
                let spec = self.checked(&name, fields);
                (Some(name), spec)
            }
            Err(problem) => (None, Err(problem)),
        };
        self.push(name, spec).await
    }

    /// The settings of a line, checked as those of a PUT are.
    fn checked(&self, name: &DomainName, fields: Map<String, Value>) -> Result<DomainSpec, Problem> {
        self.context
            .only_in_store(name)
            .map_err(|failure| Problem::of(ProblemType::DomainInFile, &failure))?;
        let spec = parse_spec(&self.context.config, name, fields)?;
        self.context.fits(&spec)?;
        Ok(spec)
    }

    async fn push(
        &mut self,
        name: Option<DomainName>,
        spec: Result<DomainSpec, Problem>,
    ) -> Result<(), Stop> {
        let is_again = name.as_ref().is_some_and(|name| self.names.contains(name.as_str()));
        if is_again || self.batch.len() >= BATCH {
            self.flush().await?;
        }
        self.names.extend(name.as_ref().map(ToString::to_string));
        self.batch.push(Item { line: self.counts.lines, name, spec });
        Ok(())
    }

    /// Stores the batch and writes its answers. If the store fails, that ends the request.
    async fn flush(&mut self) -> Result<(), Stop> {
        let batch = std::mem::take(&mut self.batch);
        self.names.clear();
        match self.store(batch).await {
            Ok(()) => Ok(()),
            Err(failure) if self.is_dry || self.is_untouched() => Err(Stop::Failed(failure.into())),
            Err(failure) => {
                let (what, why, _) = failure.parts();
                Err(Stop::Cut(format!("{what}: {why}")))
            }
        }
    }

    /// True if no line was stored yet.
    fn is_untouched(&self) -> bool {
        self.counts.created + self.counts.changed == 0
    }

    async fn store(&mut self, batch: Vec<Item>) -> Result<(), Failure> {
        let valid: Vec<&DomainSpec> = batch.iter().filter_map(|item| item.spec.as_ref().ok()).collect();
        let names: Vec<&str> = valid.iter().map(|spec| spec.name.as_str()).collect();
        let stored = self.context.store.domain_texts(&names).await;
        let stored = stored.map_err(|error| operations::store_failure(&error))?;
        let verdict = |spec: &DomainSpec| match stored.get(spec.name.as_str()) {
            None => Verdict::Created,
            Some(text) if *text == settings_text(spec) => Verdict::Unchanged,
            Some(_) => Verdict::Changed,
        };
        let new: Vec<DomainSpec> =
            valid.into_iter().filter(|spec| verdict(spec) != Verdict::Unchanged).cloned().collect();
        if !self.is_dry && !new.is_empty() {
            self.context.keep_all(&new, &self.who).await?;
        }
        for item in &batch {
            let mut answer = json!({ "line": item.line, "domain": item.name });
            let verdict = item.spec.as_ref().map_or(Verdict::Refused, verdict);
            self.counts.add(verdict);
            if let Some(members) = answer.as_object_mut() {
                members.insert("outcome".to_owned(), json!(verdict));
                if let Err(problem) = &item.spec {
                    members.insert("problem".to_owned(), problem.parts());
                }
            }
            self.write(&answer)?;
        }
        Ok(())
    }

    fn write(&mut self, answer: &Value) -> Result<(), Failure> {
        let written = writeln!(self.out, "{answer}");
        written.map_err(|error| Failure::new("the answer can't be written to a temporary file", error, ""))
    }

    /// Writes the last line, and returns the answer. `why` says why the rest of the body was not read.
    fn finish(mut self, why: Option<&str>) -> std::io::Result<File> {
        let mut end = json!(self.counts);
        if let Some(members) = end.as_object_mut() {
            members.insert("schema".to_owned(), 1.into());
            members.insert("end".to_owned(), true.into());
            members.insert("dry_run".to_owned(), self.is_dry.into());
            members.insert("complete".to_owned(), why.is_none().into());
            members.extend(why.map(|why| ("why".to_owned(), why.into())));
        }
        writeln!(self.out, "{end}")?;
        let mut file = self.out.into_inner().map_err(std::io::IntoInnerError::into_error)?;
        file.rewind()?;
        Ok(file)
    }
}

/// The domain and the settings of a line.
fn parse(line: &[u8]) -> Result<(DomainName, Map<String, Value>), Problem> {
    let invalid = |why: &dyn std::fmt::Display| wrong("the settings are invalid", why);
    let value: Value = serde_json::from_slice(line).map_err(|error| invalid(&error))?;
    let Value::Object(fields) = value else { return Err(invalid(&"the line is not a JSON object")) };
    let name =
        fields.get("name").and_then(Value::as_str).ok_or_else(|| invalid(&"the member name is missing"))?;
    let name = super::domain(name)?;
    Ok((name, fields))
}
