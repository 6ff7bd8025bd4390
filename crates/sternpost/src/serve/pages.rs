//! The role `[dashboard]`: the dashboard, the public check and TLS reports by HTTPS POST, over HTTP or HTTPS. The pages
//! are in the crate `web`; this module builds their router.

use super::http::HttpsRouter;
use super::tasks::Tasks;
use config::failure::Failure;
use config::{Config, DashboardConfig};
use operations::RolloutContext;
use operations::world::World;
use std::sync::Arc;
use store::Store;
use web::first_link;
use web::{Dashboard, public_check, reports_by_post, router};

/// The service of the role.
pub async fn pages(
    role: &DashboardConfig,
    config: &Config,
    store: &Store,
    world: &Arc<World>,
    tasks: &mut Tasks,
) -> Result<HttpsRouter, Failure> {
    let reports = match &config.inbox {
        Some(inbox) => reports_by_post(inbox, store, world).await?,
        None => None,
    };
    let public = role.public_check.then(|| public_check(config, store, world));
    let context = RolloutContext::at(config.clone(), store.clone(), world.clone()).await?;
    first_link(&context, role).await?;
    let dashboard = Dashboard::new(role, context)?;
    dashboard.count_in_background();
    let router = router(&dashboard, reports, public);
    HttpsRouter::new(router, role.certificate.as_ref(), role.behind_proxy, "dashboard-certificate", tasks)
}
