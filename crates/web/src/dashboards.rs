//! The dashboards of all tenants. Each tenant has a router of its own, whose pages read the store for that tenant, so that no page
//! can show another one's data. It is made at the first request for the tenant; a new tenant needs no restart.

use crate::base_path::TenantRouters;
use crate::state::Dashboard;
use axum::Router;
use config::failure::Failure;
use net::BoxFuture;
use operations::store_failure;
use operations::tenants::TenantList;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use store::Tenant;

/// The maximum number of routers of further tenants that are kept. One that is made again has to read its domains.
const MAX_KEPT: usize = 1000;

/// The routers of all tenants.
pub struct Dashboards {
    first: Arc<Dashboard>,
    tenants: TenantList,
    /// What is served for the first tenant, with what belongs to the installation: reports by POST, and the public check.
    main: Router,
    /// Makes the router of a further tenant.
    routes: fn(&Arc<Dashboard>) -> Router,
    further: Mutex<BTreeMap<Tenant, Router>>,
}

impl Dashboards {
    pub fn new(first: &Arc<Dashboard>, main: Router, routes: fn(&Arc<Dashboard>) -> Router) -> Self {
        let tenants = TenantList::new(&first.auth.store);
        Self { first: first.clone(), tenants, main, routes, further: Mutex::default() }
    }

    async fn find(&self, name: &str) -> Result<Option<(Tenant, Router)>, Failure> {
        let found = self.tenants.named(name).await.map_err(|error| store_failure(&error))?;
        let Some(tenant) = found else { return Ok(None) };
        if tenant.tenant == Tenant::FIRST {
            return Ok(Some((tenant.tenant, self.main.clone())));
        }
        if let Some(router) = self.kept().get(&tenant.tenant) {
            return Ok(Some((tenant.tenant, router.clone())));
        }
        let dashboard = self.first.of_tenant(&tenant).await?;
        let router = (self.routes)(&dashboard);
        let mut kept = self.kept();
        if kept.len() >= MAX_KEPT {
            kept.clear();
        }
        kept.insert(tenant.tenant, router.clone());
        Ok(Some((tenant.tenant, router)))
    }

    fn kept(&self) -> std::sync::MutexGuard<'_, BTreeMap<Tenant, Router>> {
        self.further.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl TenantRouters for Dashboards {
    fn main(&self) -> Router {
        self.main.clone()
    }

    fn named<'a>(&'a self, name: &'a str) -> BoxFuture<'a, Result<Option<(Tenant, Router)>, Failure>> {
        Box::pin(self.find(name))
    }
}
