//! Receives TLS reports by HTTPS POST (RFC 8460 §3, `rua=https:`) and passes them to the inbox. The path ends in a
//! secret of this store, so that only senders that read the `_smtp._tls` record can post. A domain may have an address of
//! its own, with its name after the secret: the report is then about that domain, which a report of DANE results or without
//! a policy does not say itself. A 2xx status is sent only after the report is stored durably (REC-03).
//!
//! Everybody can read that record, so each client has a rate and a share of the requests at once, a body has a time to
//! arrive, and the memory for bodies is bounded. A request beyond a limit is answered at once, before its body is read,
//! and never waits: it holds up neither other reports nor the pages at the same address.

use crate::client_addr::ClientAddr;
use crate::counts::WebCounts;
use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{Path, Request, State};
use axum::http::StatusCode;
use axum::http::header::RETRY_AFTER;
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use config::failure::Failure;
use config::{Config, InboxConfig};
use formats::DomainName;
use formats::limits::{
    INBOX_POST_BUFFER_BYTES_PER_CLIENT, INBOX_POST_PAUSE, INBOX_POST_TIME, INBOX_POSTS,
    INBOX_POSTS_PER_CLIENT, REPORT_PACKED_BYTES,
};
use http_body_util::BodyExt;
use net::memory_budget::{MemoryBudget, Reservation};
use net::rate_limit::{Admission, ClientLimit, LimitReached, RateLimiter};
use operations::inbox::inbox;
use operations::world::World;
use operations::{RolloutContext, store_failure};
use receiver::inbox::{Inbox, InboxError, receive_buffers};
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::{Duration, Instant};
use store::reports::{Arrival, KeepOutcome};
use store::{Outage, Store};

/// The route that receives reports; `None` if `inbox.http` is not set.
///
/// # Errors
///
/// If the store can't provide the path's secret.
pub async fn router(config: &InboxConfig, store: &Store, world: &World) -> Result<Option<Router>, Failure> {
    let Some(place) = &config.http else { return Ok(None) };
    let path = format!("{place}/{}", secret(store).await?);
    let inbox = inbox(config, store, world, Arrival::Https);
    let state = Arc::new(Posts { inbox, limits: PostLimits::new(config.messages_per_minute) });
    let of_domain = format!("{path}/{{domain}}");
    let router = Router::new().route(&path, post(receive)).route(&of_domain, post(receive_about));
    Ok(Some(router.method_not_allowed_fallback(|| async { ONLY_POST }).with_state(state)))
}

/// The inbox, and what may be posted to it.
struct Posts {
    inbox: Inbox,
    limits: PostLimits,
}

/// The limits of reports by POST.
struct PostLimits {
    rates: RateLimiter,
    at_once: ClientLimit,
    memory: MemoryBudget,
    /// How long a whole body may take.
    time: Duration,
    /// How long the next piece of a body may take.
    pause: Duration,
}

impl PostLimits {
    /// The limits, with at most `per_minute` reports a minute from each client.
    fn new(per_minute: u32) -> Self {
        Self {
            rates: RateLimiter::new(per_minute, MINUTE),
            at_once: ClientLimit::new(INBOX_POSTS, Some(INBOX_POSTS_PER_CLIENT)),
            memory: receive_buffers(Arrival::Https),
            time: INBOX_POST_TIME,
            pause: INBOX_POST_PAUSE,
        }
    }

    /// Counts a request; it counts as one at once until the admission is dropped. Clients whose address is not known share
    /// the limits of one.
    fn admit(&self, from: Option<IpAddr>, now: Instant) -> Result<Admission, Reply> {
        let from = from.unwrap_or(UNKNOWN_CLIENT);
        let admission = self.at_once.try_take(Some(from)).map_err(|reached| match reached {
            LimitReached::Client => TOO_MANY,
            LimitReached::Total => SERVICE_BUSY,
        })?;
        match self.rates.take(from, now) {
            true => Ok(admission),
            false => Err(TOO_MANY),
        }
    }
}

/// The period of the rate.
const MINUTE: Duration = Duration::from_secs(60);
/// The address that clients of unknown address count under.
const UNKNOWN_CLIENT: IpAddr = IpAddr::V4(Ipv4Addr::UNSPECIFIED);
/// The value of `Retry-After`, in seconds.
const RETRY_SECONDS: u32 = 60;

/// The secret part of the path, created at the first call.
async fn secret(store: &Store) -> Result<String, Failure> {
    let token = crate::auth::random_token()?;
    store.secret("reports", &token).await.map_err(|error| store_failure(&error))
}

/// The full URL for the `rua` of domains. A domain's own URL has its name after it: `URL/example.org`.
///
/// # Errors
///
/// If `inbox.http` or the dashboard is not configured, or the store fails.
pub async fn address(context: &RolloutContext) -> Result<String, Failure> {
    let config: &Config = &context.config;
    let place = config.inbox.as_ref().and_then(|inbox| inbox.http.as_ref());
    let (Some(place), Some(dashboard)) = (place, &config.dashboard) else {
        return Err(Failure::usage(
            "reports over HTTPS are disabled",
            "inbox.http or the dashboard is not configured",
            "Add\n  [dashboard]\n  url = \"https://reports.example.org\"\n  [inbox]\n  http = \"/reports\"",
        ));
    };
    Ok(format!("{}{place}/{}", dashboard.url, secret(&context.store).await?))
}

type Reply = (StatusCode, &'static str);

const SERVICE_BUSY: Reply =
    (StatusCode::SERVICE_UNAVAILABLE, "too many reports are being received, try again later\n");
const TOO_MANY: Reply =
    (StatusCode::TOO_MANY_REQUESTS, "too many reports from your address, try again later\n");
const ONLY_POST: Reply = (StatusCode::METHOD_NOT_ALLOWED, "reports are received by POST\n");
const TOO_SLOW: Reply = (StatusCode::REQUEST_TIMEOUT, "the request took too long\n");

async fn receive(State(posts): State<Arc<Posts>>, request: Request) -> Response {
    receive_from(&posts, request, None).await
}

/// Receives a report at the address of a domain.
async fn receive_about(
    State(posts): State<Arc<Posts>>,
    Path(domain): Path<String>,
    request: Request,
) -> Response {
    match DomainName::parse(&domain) {
        Ok(domain) => receive_from(&posts, request, Some(domain)).await,
        Err(_) => response((StatusCode::NOT_FOUND, "the address does not end in a domain name\n")),
    }
}

async fn receive_from(posts: &Posts, request: Request, domain: Option<DomainName>) -> Response {
    let from = request.extensions().get::<ClientAddr>().and_then(|client| client.0);
    let reply = match posts.limits.admit(from, Instant::now()) {
        Ok(_admission) => take(posts, from, domain, request.into_body()).await,
        Err(reply) => reply,
    };
    response(reply)
}

/// The response, which states when to try again if that helps.
fn response(reply: Reply) -> Response {
    WebCounts::shared().posts.inc(&[reply.0.as_str()]);
    let is_temporary = matches!(reply.0, StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE);
    match is_temporary {
        true => (reply.0, [(RETRY_AFTER, RETRY_SECONDS.to_string())], reply.1).into_response(),
        false => reply.into_response(),
    }
}

/// Reports that the store fails to keep.
static OUTAGE: Outage = Outage::new();

async fn take(posts: &Posts, from: Option<IpAddr>, domain: Option<DomainName>, body: Body) -> Reply {
    let client = from.unwrap_or(UNKNOWN_CLIENT);
    let memory = posts.limits.memory.for_client(client, INBOX_POST_BUFFER_BYTES_PER_CLIENT);
    let mut memory = memory.reservation();
    let bytes = match posts.limits.read_body(body, &mut memory).await {
        Ok(bytes) if bytes.is_empty() => return (StatusCode::BAD_REQUEST, "the request body is empty\n"),
        Ok(bytes) => bytes,
        Err(reply) => return reply,
    };
    match posts.inbox.for_client(Some(client)).accept_posted(bytes, domain).await {
        Ok(outcome) => {
            if let Some(failures) = OUTAGE.ends() {
                tracing::info!(failures, "reports received over HTTPS are stored again");
            }
            tracing::info!(?outcome, "reports received over HTTPS");
            let mut kept =
                outcome.reports.iter().map(|report| report.kept).chain(outcome.dmarc.iter().copied());
            let is_new = kept.any(|kept| kept == KeepOutcome::New);
            match outcome.quarantined {
                None if is_new => (StatusCode::CREATED, "stored\n"),
                None => (StatusCode::OK, "already stored\n"),
                Some(_) if outcome.reports.is_empty() && outcome.dmarc.is_empty() => {
                    (StatusCode::ACCEPTED, "stored, but can't be parsed as a report\n")
                }
                Some(_) => (StatusCode::ACCEPTED, "stored, but not everything can be parsed as a report\n"),
            }
        }
        Err(InboxError::Busy(_)) => SERVICE_BUSY,
        Err(InboxError::Store(error)) => {
            if OUTAGE.is_news(&error) {
                tracing::error!(%error, "can't store a report received over HTTPS");
            }
            (StatusCode::SERVICE_UNAVAILABLE, "try again later\n")
        }
    }
}

/// A body, piece by piece.
trait Pieces: Send {
    /// The next piece; `None` at the end, and an error if the connection broke.
    fn next(&mut self) -> impl Future<Output = Option<Result<Bytes, axum::Error>>> + Send;
}

impl Pieces for Body {
    async fn next(&mut self) -> Option<Result<Bytes, axum::Error>> {
        // Trailers are not needed.
        self.frame().await.map(|frame| frame.map(|frame| frame.into_data().unwrap_or_default()))
    }
}

impl PostLimits {
    /// Reads a body within its time, into memory that is reserved before it is used.
    async fn read_body(&self, body: impl Pieces, memory: &mut Reservation) -> Result<Vec<u8>, Reply> {
        let read = tokio::time::timeout(self.time, self.read_pieces(body, memory)).await;
        read.unwrap_or(Err(TOO_SLOW))
    }

    async fn read_pieces(&self, mut body: impl Pieces, memory: &mut Reservation) -> Result<Vec<u8>, Reply> {
        let mut bytes = Vec::new();
        while let Some(data) = tokio::time::timeout(self.pause, body.next()).await.map_err(|_| TOO_SLOW)? {
            let Ok(data) = data else {
                return Err((StatusCode::BAD_REQUEST, "the request body is incomplete\n"));
            };
            let length = bytes.len() + data.len();
            if length > REPORT_PACKED_BYTES {
                return Err((StatusCode::PAYLOAD_TOO_LARGE, "the report is too large\n"));
            }
            if length > bytes.capacity() {
                let capacity = (bytes.capacity() * 2).clamp(length, REPORT_PACKED_BYTES);
                if !memory.cover(capacity) {
                    return Err(SERVICE_BUSY);
                }
                bytes.reserve_exact(capacity - bytes.len());
            }
            bytes.extend_from_slice(&data);
        }
        Ok(bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use formats::limits::{INBOX_POST_BUFFER_BYTES, INBOX_SMALL_BYTES};

    fn limits(per_minute: u32) -> PostLimits {
        let memory = MemoryBudget::new(INBOX_POST_BUFFER_BYTES, INBOX_SMALL_BYTES);
        PostLimits { memory, ..PostLimits::new(per_minute) }
    }

    #[tokio::test]
    async fn a_posted_body_is_bounded_by_the_limit_of_a_report_and_by_the_memory_of_all() {
        let limits = limits(600);
        let read = async |size: usize| {
            let mut memory = limits.memory.reservation();
            let read = limits.read_body(Body::from(vec![0; size]), &mut memory).await;
            read.map(|bytes| (bytes.len(), memory.bytes())).map_err(|(status, _)| status.as_u16())
        };
        assert_eq!(read(REPORT_PACKED_BYTES).await, Ok((REPORT_PACKED_BYTES, REPORT_PACKED_BYTES)));
        assert_eq!(read(REPORT_PACKED_BYTES + 1).await, Err(413));
        assert_eq!(limits.memory.used(), 0);
        let mut others = limits.memory.reservation();
        assert!(others.cover(INBOX_POST_BUFFER_BYTES / 4 * 3));
        assert_eq!(read(REPORT_PACKED_BYTES).await, Err(503));
        assert_eq!(read(1000).await, Ok((1000, 1000)));
    }

    /// A body that never ends: without any piece, or with one after the other.
    struct Endless {
        sends: bool,
    }

    impl Pieces for Endless {
        async fn next(&mut self) -> Option<Result<Bytes, axum::Error>> {
            match self.sends {
                true => tokio::task::yield_now().await,
                false => std::future::pending().await,
            }
            Some(Ok(Bytes::new()))
        }
    }

    #[tokio::test]
    async fn a_slow_body_ends_in_time_whether_it_stops_or_trickles() {
        let (short, long) = (Duration::from_millis(20), Duration::from_secs(600));
        for (sends, time, pause) in [(false, long, short), (true, short, long)] {
            let limits = PostLimits { time, pause, ..limits(600) };
            let mut memory = limits.memory.reservation();
            assert_eq!(limits.read_body(Endless { sends }, &mut memory).await, Err(TOO_SLOW));
        }
    }

    #[test]
    fn each_client_posts_so_many_reports_a_minute() {
        let limits = limits(3);
        let now = Instant::now();
        let [one, same, other]: [IpAddr; 3] =
            ["2001:db8::1", "2001:db8::2", "192.0.2.1"].map(|text| text.parse().unwrap());
        let status = |from, now| limits.admit(from, now).map(drop).map_err(|(status, _)| status.as_u16());
        for from in [one, same, one] {
            assert_eq!(status(Some(from), now), Ok(()));
        }
        assert_eq!(status(Some(same), now), Err(429));
        assert_eq!((status(Some(other), now), status(None, now)), (Ok(()), Ok(())));
        assert_eq!(status(Some(one), now + Duration::from_secs(20)), Ok(()));
    }

    #[test]
    fn each_client_has_a_share_of_the_reports_at_once_and_those_beyond_the_total_are_refused() {
        let limits = limits(1000);
        let mut held = Vec::new();
        let mut take = |number: u8| {
            let admission = limits.admit(Some(IpAddr::from([192, 0, number, 1])), Instant::now());
            admission.map(|admission| held.push(admission)).map_err(|(status, _)| status.as_u16())
        };
        for _ in 0..INBOX_POSTS_PER_CLIENT {
            assert_eq!(take(1), Ok(()));
        }
        assert_eq!(take(1), Err(429));
        for number in 0..INBOX_POSTS - INBOX_POSTS_PER_CLIENT {
            assert_eq!(take(u8::try_from(10 + number).unwrap()), Ok(()));
        }
        assert_eq!(take(2), Err(503));
        held.clear();
        assert!(limits.admit(None, Instant::now()).is_ok());
    }

    #[test]
    fn a_temporary_refusal_says_when_to_try_again() {
        for (reply, retry) in [(SERVICE_BUSY, true), (TOO_MANY, true), (TOO_SLOW, false)] {
            assert_eq!(response(reply).headers().contains_key(RETRY_AFTER), retry, "{reply:?}");
        }
    }
}
