//! The pages for people: made on the server, without JavaScript but for buttons that copy.
//!
//! | module | what |
//! | --- | --- |
//! | `door` | who may in: invitations, passwords, sign-ins, forms that are ours |
//! | `asker` | who asks for a page |
//! | `frame` | what all pages share, and how they are answered |
//! | `overview`, `domain`, `reports`, `others` | the pages |
//! | `act` | what an operator does by a form |
//! | `chart` | pictures of days |
//! | `table` | every table as CSV and JSON |
//! | `post` | reports by HTTPS POST |
//! | `public_check` | the check, for everybody |

mod act;
mod asker;
mod chart;
mod domain;
mod door;
mod frame;
mod others;
mod overview;
mod post;
mod public_check;
mod reports;
mod table;

pub use asker::Asker;
pub use door::{Role, invite};
pub use post::{address, router as reports_by_post};
pub use public_check::router as public_check;

use crate::config::DashboardConfig;
use crate::failure::Failure;
use crate::rollout::Desk;
use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::middleware::{from_fn, from_fn_with_state};
use axum::routing::{get, post as posted};
use door::Door;
use formats::limits::FORM_BYTES;
use formats::report::DateRange;
use jiff::Timestamp;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};
use store::StoreError;
use store::reports::DaySum;
use tokio::sync::{Mutex, RwLock, RwLockReadGuard, RwLockWriteGuard};

/// What the pages are made of.
pub struct Dashboard {
    desk: RwLock<Desk>,
    learned: Mutex<Instant>,
    days: Mutex<Option<(i64, Timestamp, Arc<AllDays>)>>,
    door: Door,
    config: DashboardConfig,
}

/// The days of every domain, by name.
type AllDays = BTreeMap<String, Vec<DaySum>>;

/// How old what is known of the domains may be on a page.
const FRESH: Duration = Duration::from_secs(2);

impl Dashboard {
    /// Over what commands work with as well.
    pub fn new(role: &DashboardConfig, desk: Desk) -> Result<Arc<Self>, Failure> {
        let door = Door::new(desk.store.clone(), desk.world.clock.clone(), role)?;
        let learned = Mutex::new(Instant::now());
        Ok(Arc::new(Self {
            desk: RwLock::new(desk),
            learned,
            days: Mutex::new(None),
            door,
            config: role.clone(),
        }))
    }

    /// The desk, with what commands have changed meanwhile.
    async fn desk(&self) -> Result<RwLockReadGuard<'_, Desk>, Failure> {
        let mut learned = self.learned.lock().await;
        if learned.elapsed() > FRESH {
            self.desk.write().await.learn().await?;
            *learned = Instant::now();
        }
        drop(learned);
        Ok(self.desk.read().await)
    }

    /// The days of every domain since that day, read anew when there are other reports than before.
    async fn days(&self, desk: &Desk, since: Timestamp) -> Result<Arc<AllDays>, StoreError> {
        let since = DateRange::utc_day(since).start;
        let mut held = self.days.lock().await;
        let version = desk.store.reports_version().await?;
        if let Some((_, _, days)) = held.as_ref().filter(|(of, from, _)| (*of, *from) == (version, since)) {
            return Ok(days.clone());
        }
        let days = Arc::new(desk.store.days_of_all(since).await?);
        *held = Some((version, since, days.clone()));
        Ok(days)
    }

    /// The desk, to change something.
    async fn desk_to_change(&self) -> Result<RwLockWriteGuard<'_, Desk>, Failure> {
        let mut desk = self.desk.write().await;
        desk.learn().await?;
        Ok(desk)
    }

    /// All that is served at the dashboard's address; `reports` takes them by POST, `public` is for everybody.
    pub fn router(self: &Arc<Self>, reports: Option<Router>, public: Option<Router>) -> Router {
        let inside = Router::new()
            .route("/", get(overview::page))
            .route("/domains/{name}", get(domain::page))
            .route("/domains/{name}/check", get(domain::check))
            .route("/domains/{name}/approve", posted(act::approve))
            .route("/domains/{name}/hold", posted(act::hold))
            .route("/domains/{name}/excuse", posted(act::excuse))
            .route("/reports", get(reports::list))
            .route("/reports/{id}", get(reports::one))
            .route("/reports/{id}/raw", get(reports::raw))
            .route("/quarantine", get(reports::quarantine))
            .route("/quarantine/{id}", get(reports::quarantined))
            .route("/quarantine/retry", posted(act::retry))
            .route("/senders", get(others::senders))
            .route("/journal", get(others::journal))
            .route("/sending", get(others::sending))
            .route("/settings", get(others::settings))
            .route("/settings/people", posted(act::invite))
            .route("/settings/people/remove", posted(act::remove))
            .route("/sign-out", posted(door::sign_out))
            .layer(from_fn_with_state(self.clone(), door::only_known));
        let outside = Router::new()
            .route("/sign-in", get(door::sign_in_page).post(door::sign_in))
            .route("/welcome/{secret}", get(door::welcome_page).post(door::welcome))
            .route("/style.css", get(frame::style))
            .route("/copy.js", get(frame::script));
        let pages = inside
            .merge(outside)
            .fallback(frame::nothing_here)
            .layer(from_fn_with_state(self.clone(), door::only_our_forms))
            .layer(DefaultBodyLimit::max(FORM_BYTES))
            .with_state(self.clone());
        pages
            .merge(reports.unwrap_or_default())
            .layer(from_fn(frame::safe_headers))
            .merge(public.unwrap_or_default())
    }
}
