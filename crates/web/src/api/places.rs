//! Places for requests that take long, in total and for each tenant, so that one tenant does not take all of them.

use super::problem::{Problem, ProblemType};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use store::Tenant;

/// The places for one kind of work.
pub struct Places {
    total: usize,
    each: usize,
    taken: Arc<Mutex<BTreeMap<Tenant, usize>>>,
}

/// A place, which is free again when this is dropped.
pub struct Place {
    tenant: Tenant,
    taken: Arc<Mutex<BTreeMap<Tenant, usize>>>,
}

impl Places {
    /// This many places in total, and for each tenant.
    pub fn new(total: usize, each: usize) -> Self {
        Self { total, each, taken: Arc::default() }
    }

    /// Takes a place for a tenant.
    pub fn take(&self, tenant: Tenant, what: &str) -> Result<Place, Problem> {
        let mut taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        let of_tenant = taken.get(&tenant).copied().unwrap_or(0);
        let why = match (of_tenant >= self.each, taken.values().sum::<usize>() >= self.total) {
            (true, _) => format!("{} of your {what} run now, which is the most", self.each),
            (false, true) => format!("{} {what} run on this server now, which is the most", self.total),
            (false, false) => {
                taken.insert(tenant, of_tenant + 1);
                return Ok(Place { tenant, taken: self.taken.clone() });
            }
        };
        let remedy = "Try again in some seconds.";
        Err(Problem::new(ProblemType::LimitReached, "there is no free place", why, remedy))
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        match taken.get_mut(&self.tenant) {
            Some(count) if *count > 1 => *count -= 1,
            _ => drop(taken.remove(&self.tenant)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_tenant_does_not_take_all_places_and_a_place_is_free_again() {
        let places = Places::new(3, 2);
        let take = |number| places.take(Tenant::numbered(number), "plans");
        let held = [take(1).unwrap(), take(1).unwrap()];
        assert_eq!(take(1).err().unwrap().kind, ProblemType::LimitReached);
        let other = take(2).unwrap();
        assert!(take(3).is_err());
        drop(held);
        assert!(take(1).is_ok());
        drop(other);
        assert!(places.taken.lock().unwrap().is_empty());
    }
}
