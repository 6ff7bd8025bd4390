//! The goal of a domain's plan ([`receiver::rollout::goal`]): its settings, the operator's decisions and the
//! approval, read from the store again before each step. So `sternpost hold` and `sternpost domains set` take effect at once,
//! whatever process applies the plan. A `[[domain]]` of the configuration file is not read again, so a process that finds it
//! changed there does nothing more to the domain.

use crate::rollout_context::RolloutContext;
use config::failure::Failure;
use formats::Mode;
use net::BoxFuture;
use receiver::domain::DomainSpec;
use receiver::rollout::ApplyError;
use receiver::rollout::decisions::Decisions;
use receiver::rollout::goal::{Goal, GoalSource};
use store::leases::HeldLease;

/// The goal of a plan that was begun with certain settings. Each question for it renews the domain's lease.
pub struct CurrentGoal<'a> {
    context: &'a RolloutContext,
    spec: &'a DomainSpec,
    lease: &'a HeldLease,
}

impl<'a> CurrentGoal<'a> {
    /// The goal of a plan whose applier was made for these settings.
    pub fn new(context: &'a RolloutContext, spec: &'a DomainSpec, lease: &'a HeldLease) -> Self {
        Self { context, spec, lease }
    }

    async fn goal(&self) -> Result<Goal, ApplyError> {
        let name = &self.spec.name;
        let failed = |failure: Failure| ApplyError::Stopped(failure.to_string());
        if !self.context.renew(self.lease).await.map_err(failed)? {
            return Err(ApplyError::Stopped("another process applies it now".to_owned()));
        }
        let Some((spec, decisions)) = self.context.current(name).await.map_err(failed)? else {
            return Err(ApplyError::Stopped("the domain was removed".to_owned()));
        };
        if self.context.is_changed_in_file(name) {
            let what = "its settings were changed in the configuration file; a restart uses them".to_owned();
            return Err(ApplyError::Stopped(what));
        }
        if spec != *self.spec || !self.is_same_elsewhere(&decisions) {
            return Err(ApplyError::Stopped(
                "its settings were changed meanwhile; the next run uses them".to_owned(),
            ));
        }
        let rollout = self.context.rollout(name).await.map_err(failed)?;
        let mut desired = self.context.desired_under(&spec, &decisions);
        if rollout.is_held && desired.mode == Mode::Enforce {
            // A hold is stored in two parts, of which this is the first.
            desired.mode = Mode::Testing;
        }
        Ok(Goal { desired, permit: RolloutContext::permit(&rollout) })
    }

    /// Whether these decisions let the same places count, for which the applier was made.
    fn is_same_elsewhere(&self, decisions: &Decisions) -> bool {
        decisions.omitted_endpoints() == self.context.decisions(&self.spec.name).omitted_endpoints()
    }
}

impl GoalSource for CurrentGoal<'_> {
    fn current(&self) -> BoxFuture<'_, Result<Goal, ApplyError>> {
        Box::pin(self.goal())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::promotion::{allow, hold_back};
    use crate::rollout_context::Hold;
    use crate::world::World;
    use config::Config;
    use formats::{DomainName, MxPattern, Policy};
    use jiff::Timestamp;
    use receiver::domain::HostedBy;
    use receiver::rollout::RolloutState;
    use receiver::rollout::desired::DesiredState;
    use receiver::rollout::plan::{Permit, PlannedStep, Step};
    use receiver::rollout::state::InMode;
    use receiver::rollout::{Actor, StepOutcome};
    use std::sync::Arc;
    use store::record_changes::ChangeState;
    use store::{Store, StoreError};

    fn name() -> DomainName {
        DomainName::parse("a.example").unwrap()
    }

    fn policy(mode: Mode) -> Policy {
        Policy::new(mode, 600, vec![MxPattern::parse("mx.a.example").unwrap()]).unwrap()
    }

    /// Two processes with the same store, and a domain in testing.
    async fn two() -> (tempfile::TempDir, RolloutContext, RolloutContext, DomainSpec) {
        let folder = tempfile::tempdir().unwrap();
        let config = Config::parse("[dns]\nservers = [\"127.0.0.1:1\"]\n", None).unwrap();
        let store = Store::open(&folder.path().join("s.db"), store::Tenant::FIRST).await.unwrap();
        let world = Arc::new(World::new(&config).unwrap());
        let spec = DomainSpec { auto_promote: true, ..DomainSpec::new(name()) };
        store.put_domain(&name(), &spec).await.unwrap();
        let begin = |rollout: &mut RolloutState| {
            rollout.mode = Some(InMode { mode: Mode::Testing, since: Timestamp::UNIX_EPOCH });
            rollout.intend(&policy(Mode::Testing));
        };
        store.change_rollout(&name(), begin).await.unwrap();
        let first = RolloutContext::at(config.clone(), store.clone(), world.clone()).await.unwrap();
        let second = RolloutContext::at(config, store, world).await.unwrap();
        (folder, first, second, spec)
    }

    async fn serves(
        context: &RolloutContext,
        spec: &DomainSpec,
        desired: &DesiredState,
        step: Step,
    ) -> StepOutcome {
        let rollout = context.rollout(&name()).await.unwrap();
        context.applier(spec).unwrap().start_step(desired, step, rollout).await.unwrap()
    }

    #[tokio::test]
    async fn a_hold_takes_effect_at_once_in_a_process_that_applies_the_plan_with_earlier_decisions() {
        let (_folder, guard, mut operator, spec) = two().await;
        let lease = guard.hold(&name()).await.unwrap().unwrap();
        let goals = CurrentGoal::new(&guard, &spec, &lease);
        assert!(
            guard
                .approve(&name(), &guard.rollout(&name()).await.unwrap(), "auto_promote", "ready", Hold::Keep)
                .await
                .unwrap()
        );
        let before = goals.current().await.unwrap();
        assert_eq!((before.desired.mode, before.permit), (Mode::Enforce, Permit::Enforce));
        hold_back(&mut operator, &spec, "operator", "a broken certificate").await.unwrap();
        // The guard's context has the decisions of before.
        assert_eq!(guard.desired(&spec).mode, Mode::Enforce);
        let after = goals.current().await.unwrap();
        assert_eq!((after.desired.mode, after.permit), (Mode::Testing, Permit::Testing));
        assert!(
            !guard
                .approve(&name(), &guard.rollout(&name()).await.unwrap(), "auto_promote", "ready", Hold::Keep)
                .await
                .unwrap()
        );
        assert!(!guard.promote_by_evidence(&spec).await.unwrap());
        // Nor does a step begin that was chosen before.
        let enforce = Step::Serve(policy(Mode::Enforce));
        let outcome = serves(&guard, &spec, &before.desired, enforce).await;
        assert_eq!(outcome, StepOutcome::Idle(PlannedStep::Gate));
        let rollout = guard.rollout(&name()).await.unwrap();
        assert!(rollout.published.iter().all(|published| published.mode == Mode::Testing));
        // What eases is not held.
        let eased = serves(&guard, &spec, &before.desired, Step::Serve(policy(Mode::Testing))).await;
        assert!(matches!(eased, StepOutcome::Started(_, Actor::Operator)), "{eased:?}");
        // The operator ends the hold.
        allow(&mut operator, &spec, "operator", Some("renewed")).await.unwrap().ok().unwrap();
        let again = goals.current().await.unwrap();
        assert_eq!((again.desired.mode, again.permit), (Mode::Enforce, Permit::Enforce));
    }

    #[tokio::test]
    async fn a_domain_that_is_held_while_it_is_enforced_can_be_allowed_again() {
        let (_folder, guard, mut operator, spec) = two().await;
        let enforce = |rollout: &mut RolloutState| {
            rollout.mode = Some(InMode { mode: Mode::Enforce, since: Timestamp::UNIX_EPOCH });
        };
        guard.store.change_rollout(&name(), enforce).await.unwrap();
        hold_back(&mut operator, &spec, "operator", "a broken certificate").await.unwrap();
        let lease = guard.hold(&name()).await.unwrap().unwrap();
        let goals = CurrentGoal::new(&guard, &spec, &lease);
        assert_eq!(goals.current().await.unwrap().desired.mode, Mode::Testing);
        let said = allow(&mut operator, &spec, "operator", Some("renewed")).await.unwrap().ok().unwrap();
        assert!(said.contains("is allowed"), "{said}");
        assert_eq!(goals.current().await.unwrap().desired.mode, Mode::Enforce);
        let said = allow(&mut operator, &spec, "operator", None).await.unwrap().ok().unwrap();
        assert!(said.contains("is enforced already"), "{said}");
    }

    #[tokio::test]
    async fn an_approval_is_for_what_was_judged_although_other_hosts_came_into_testing_meanwhile() {
        let (_folder, guard, operator, _) = two().await;
        let judged = guard.rollout(&name()).await.unwrap();
        let both = ["mx.a.example", "mx2.a.example"].map(|host| MxPattern::parse(host).unwrap());
        let wider = Policy::new(Mode::Testing, 600, both.to_vec()).unwrap();
        operator
            .store
            .change_rollout(&name(), |rollout: &mut RolloutState| rollout.intend(&wider))
            .await
            .unwrap();
        for hold in [Hold::Keep, Hold::End] {
            assert!(!guard.approve(&name(), &judged, "auto_promote", "ready", hold).await.unwrap());
        }
        let judged = guard.rollout(&name()).await.unwrap();
        assert_eq!(judged.approved, None);
        assert!(guard.approve(&name(), &judged, "auto_promote", "ready", Hold::Keep).await.unwrap());
    }

    #[tokio::test]
    async fn a_domain_that_was_changed_in_the_file_is_left_alone_until_the_restart() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("s.toml");
        let text = |more: &str| {
            format!(
                "store = \"sqlite:s.db\"\n[dns]\nservers = [\"127.0.0.1:1\"]\n[[domain]]\nname = \"a.example\"\n{more}"
            )
        };
        std::fs::write(&file, text("")).unwrap();
        let config = Config::load(Some(&file)).unwrap();
        let store = Store::open(&folder.path().join("s.db"), store::Tenant::FIRST).await.unwrap();
        let world = Arc::new(World::new(&config).unwrap());
        let context = RolloutContext::at(config, store, world).await.unwrap();
        let spec = context.known_domain(&name()).await.unwrap().unwrap();
        let lease = context.hold(&name()).await.unwrap().unwrap();
        let stopped = async || match CurrentGoal::new(&context, &spec, &lease).current().await {
            Err(ApplyError::Stopped(why)) => Some(why),
            Ok(_) => None,
            other => panic!("{other:?}"),
        };
        assert_eq!(stopped().await, None);
        // A comment or another domain changes nothing for this one.
        std::fs::write(&file, text("# same\n[[domain]]\nname = \"b.example\"\n")).unwrap();
        assert_eq!(stopped().await, None);
        for changed in
            [text("mode = \"none\"\n"), text("").replace("a.example", "c.example"), text("mode = ")]
        {
            std::fs::write(&file, changed).unwrap();
            assert!(stopped().await.is_some_and(|why| why.contains("configuration file")));
        }
        // A file that this user can't read any more says nothing.
        std::fs::remove_file(&file).unwrap();
        assert_eq!(stopped().await, None);
    }

    #[tokio::test]
    async fn changed_settings_a_removal_and_a_lost_lease_stop_a_plan_before_its_next_step() {
        let (_folder, guard, operator, spec) = two().await;
        let lease = guard.hold(&name()).await.unwrap().unwrap();
        let stopped = async || match CurrentGoal::new(&guard, &spec, &lease).current().await {
            Err(ApplyError::Stopped(why)) => why,
            other => panic!("{other:?}"),
        };
        for changed in [
            DomainSpec { mode: Mode::Testing, ..spec.clone() },
            DomainSpec { auto_promote: false, ..spec.clone() },
            DomainSpec { mx: vec![MxPattern::parse("mx2.a.example").unwrap()], ..spec.clone() },
        ] {
            operator.store.put_domain(&name(), &changed).await.unwrap();
            assert!(stopped().await.contains("settings were changed"), "{changed:?}");
            assert!(!guard.promote_by_evidence(&spec).await.unwrap());
        }
        operator.store.remove_domain(&name()).await.unwrap();
        assert!(stopped().await.contains("was removed"));
        operator.store.put_domain(&name(), &spec).await.unwrap();
        CurrentGoal::new(&guard, &spec, &lease).current().await.unwrap();
        operator.take_over(&name()).await.unwrap().unwrap();
        assert!(stopped().await.contains("another process"));
    }

    #[tokio::test]
    async fn a_process_that_stood_still_while_another_took_its_lease_publishes_and_records_nothing() {
        let (_folder, guard, operator, _) = two().await;
        let spec = DomainSpec { host: HostedBy::Sternpost, ..DomainSpec::new(name()) };
        let lease = guard.hold(&name()).await.unwrap().unwrap();
        let applier = guard.applier_under(&spec, &lease).unwrap();
        let goal = guard.desired(&spec);
        let rollout = guard.rollout(&name()).await.unwrap();
        // It stands still, and does not know that its lease is over when it goes on.
        let (taken, _) = operator.take_over(&name()).await.unwrap().unwrap();
        assert!(!lease.is_over());
        let before: Option<RolloutState> = guard.store.rollout(&name()).await.unwrap();
        let step = Step::Serve(policy(Mode::None));
        let outcome = applier.start_step(&goal, step.clone(), rollout.clone()).await;
        assert!(matches!(outcome, Err(ApplyError::Store(StoreError::LeaseLost { .. }))), "{outcome:?}");
        // Each write by itself, as if it had stood still just before this one.
        let hosting = applier.hosting.as_ref().unwrap();
        let why = hosting.put(&name(), Some(&policy(Mode::None))).await.unwrap_err();
        assert!(why.contains("is over"), "{why}");
        let now = guard.world.clock.now();
        assert!(applier.store.begin_record_change(&name(), now, &0).await.is_err());
        assert!(applier.store.set_record_change(1, ChangeState::Done).await.is_err());
        assert_eq!(guard.store.rollout(&name()).await.unwrap(), before);
        assert_eq!(guard.store.hosted(&name()).await.unwrap(), None);
        // The new holder goes on.
        let applier = operator.applier_under(&spec, &taken).unwrap();
        applier.start_step(&goal, step, rollout).await.unwrap();
        assert!(guard.store.hosted(&name()).await.unwrap().is_some());
        operator.release(&taken).await.unwrap();
        assert!(applier.store.set_record_change(1, ChangeState::Done).await.is_err());
    }
}
