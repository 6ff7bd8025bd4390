//! Names the domains that the guard does not check, since nothing of them was ever published. An operator who has not run
//! `sternpost apply` would take the guard's silence for good news.

use formats::Mode;
use formats::counted::counted;
use operations::RolloutContext;
use receiver::rollout::RolloutState;
use std::collections::{BTreeMap, BTreeSet};
use store::StoreError;

/// Domains that a line of the log names.
const MAX_NAMED: usize = 5;

/// The domains that the log has named.
#[derive(Default)]
pub(super) struct Unapplied(BTreeSet<String>);

impl Unapplied {
    /// Logs the domains that were never applied, unless it has logged them before.
    pub async fn log(&mut self, context: &RolloutContext) {
        let found = context.store.rollouts().await.map(|rollouts| unapplied(context, &rollouts));
        match found {
            Ok(found) => {
                if let Some(words) = in_words(found.difference(&self.0).map(String::as_str).collect()) {
                    tracing::warn!("{words}");
                }
                self.0 = found;
            }
            Err(error) => tracing::warn!("the states of the domains can't be read: {error}"),
        }
    }
}

/// The domains that should have a policy, never had one, and get one only from the operator.
fn unapplied(
    context: &RolloutContext,
    rollouts: &BTreeMap<String, Result<RolloutState, StoreError>>,
) -> BTreeSet<String> {
    let is_begun = |name: &str| match rollouts.get(name) {
        Some(Ok(rollout)) => rollout.mode.is_some() || rollout.newest().is_some(),
        Some(Err(_)) => true,
        None => false,
    };
    let is_left = |spec: &&receiver::domain::DomainSpec| {
        context.desired(spec).mode != Mode::None
            && !context.is_applied_by_guard(spec)
            && !is_begun(spec.name.as_str())
    };
    context.known.iter().filter(is_left).map(|spec| spec.name.to_string()).collect()
}

fn in_words(names: Vec<&str>) -> Option<String> {
    let named = names.iter().take(MAX_NAMED).copied().collect::<Vec<_>>();
    let more = match names.len().saturating_sub(MAX_NAMED) {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    (!names.is_empty()).then(|| {
        format!(
            "the guard does not check {}, of which no policy was ever published: {}{more}. Publish it with: sternpost apply {}",
            counted(names.len(), "domain"),
            named.join(", "),
            named.join(" ")
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use config::Config;
    use formats::{DomainName, MxPattern, Policy};
    use operations::world::World;
    use std::sync::Arc;
    use store::Store;

    #[tokio::test]
    async fn domains_that_were_never_applied_are_named_until_they_are() {
        let folder = tempfile::tempdir().unwrap();
        let text = "[guard]\n[dns]\nservers = [\"127.0.0.1:1\"]\n[[domain]]\nname = \"new.example\"\n\
            [[domain]]\nname = \"applied.example\"\n[[domain]]\nname = \"retired.example\"\nmode = \"none\"\n";
        let config = Config::parse(text, None).unwrap();
        let store = Store::open(&folder.path().join("s.db"), store::Tenant::FIRST).await.unwrap();
        let world = Arc::new(World::new(&config).unwrap());
        let context = RolloutContext::at(config, store, world).await.unwrap();
        let policy = Policy::new(Mode::Testing, 600, vec![MxPattern::parse("mx.example").unwrap()]).unwrap();
        let apply = async |name: &str| {
            let applied = |rollout: &mut RolloutState| rollout.intend(&policy);
            context.store.change_rollout(&DomainName::parse(name).unwrap(), applied).await.unwrap();
        };
        apply("applied.example").await;
        let mut unapplied = Unapplied::default();
        unapplied.log(&context).await;
        assert_eq!(unapplied.0, ["new.example".to_owned()].into());
        apply("new.example").await;
        unapplied.log(&context).await;
        assert!(unapplied.0.is_empty());
    }

    #[test]
    fn the_line_names_some_domains_and_the_command() {
        assert_eq!(in_words(Vec::new()), None);
        let one = in_words(vec!["a.example"]).unwrap();
        assert!(
            one.contains("does not check 1 domain, of") && one.ends_with("sternpost apply a.example"),
            "{one}"
        );
        let seven = in_words(vec!["a", "b", "c", "d", "e", "f", "g"]).unwrap();
        assert!(seven.contains("7 domains") && seven.contains(": a, b, c, d, e and 2 more."), "{seven}");
    }
}
