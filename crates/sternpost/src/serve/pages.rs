//! The role `[dashboard]`: the dashboard, the public check and TLS reports by HTTPS POST, over HTTP or HTTPS. The pages
//! are in the crate `web`; this module builds its router and serves the connections.

use super::certificate::Certificate;
use super::http::{HttpOptions, connection_with_tls};
use super::tasks::Tasks;
use axum::Router;
use config::failure::Failure;
use config::{Config, DashboardConfig};
use formats::limits::SOCKETMAP_TIME;
use net::BoxFuture;
use net::smtp::server::AnyStream;
use operations::RolloutContext;
use operations::world::World;
use sender::serve::Shutdown;
use sender::serve::listen::Serve;
use std::net::IpAddr;
use std::sync::Arc;
use store::Store;
use web::first_link;
use web::{Dashboard, public_check, reports_by_post, router};

/// The service of the role.
#[derive(Clone)]
pub struct Pages {
    router: Router,
    behind_proxy: bool,
    certificate: Option<Arc<Certificate>>,
}

impl Pages {
    pub async fn new(
        role: &DashboardConfig,
        config: &Config,
        store: &Store,
        world: &Arc<World>,
        tasks: &mut Tasks,
    ) -> Result<Self, Failure> {
        let certificate = match &role.certificate {
            Some(files) => {
                let certificate = Certificate::load(files, &[b"http/1.1"])?;
                let kept = certificate.clone();
                tasks.spawn("dashboard-certificate", move || kept.clone().keep());
                Some(certificate)
            }
            None => None,
        };
        let reports = match &config.inbox {
            Some(inbox) => reports_by_post(inbox, store, world).await?,
            None => None,
        };
        let public = role.public_check.then(|| public_check(config, store, world));
        let context = RolloutContext::at(config.clone(), store.clone(), world.clone()).await?;
        first_link(&context, role).await?;
        let router = router(&Dashboard::new(role, context)?, reports, public);
        Ok(Self { router, behind_proxy: role.behind_proxy, certificate })
    }

    /// The certificate, if the pages are served over HTTPS.
    pub fn certificate(&self) -> Option<&Arc<Certificate>> {
        self.certificate.as_ref()
    }

    /// True if many clients may share the address of a proxy: also without a certificate, since a proxy may have it.
    pub fn is_behind_proxy(&self) -> bool {
        self.behind_proxy || self.certificate.is_none()
    }

    /// True if browsers reach it by HTTPS, so that other hosts may.
    pub fn may_be_exposed(&self) -> bool {
        self.behind_proxy || self.certificate.is_some()
    }
}

impl Serve for Pages {
    fn serve(
        self: Arc<Self>,
        stream: AnyStream,
        from: Option<IpAddr>,
        shutdown: Shutdown,
    ) -> BoxFuture<'static, ()> {
        Box::pin(async move {
            let options = HttpOptions { head: SOCKETMAP_TIME, client: Some((from, self.behind_proxy)) };
            let certificate = self.certificate.as_deref();
            connection_with_tls(certificate, self.router.clone(), stream, options, shutdown).await;
        })
    }
}
