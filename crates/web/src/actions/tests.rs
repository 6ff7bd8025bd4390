//! Approval against the evidence, with the mail servers of the lab.

use super::*;
use crate::visitor::Role;
use axum::response::IntoResponse;
use formats::{DomainName, MxPattern};
use lab::{Lab, Ports};
use net::clock::{Clock, SystemClock};
use operations::RolloutContext;
use operations::world::World;
use receiver::rollout::RolloutState;
use receiver::rollout::state::{InMode, PublishedPolicy};
use store::Store;

struct Place {
    dashboard: Arc<Dashboard>,
    _lab: Lab,
    _dir: tempfile::TempDir,
}

impl Place {
    /// A dashboard with domains of the lab, all in testing without reports.
    async fn new(domains: &[&str]) -> Self {
        let cases: Vec<_> =
            lab::cases::all().into_iter().filter(|case| domains.contains(&case.name)).collect();
        let lab = Lab::with_cases(Ports::free(), SystemClock.now(), &cases).await.unwrap();
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("ca.pem"), lab.pki.root_pem()).unwrap();
        std::fs::write(dir.path().join("root.key"), lab.names.trust_anchor().unwrap()).unwrap();
        let mut text = format!(
            "[dns]\nservers = [\"{}\"]\ntrust_anchor = \"root.key\"\n[trust]\nca_file = \"ca.pem\"\nallow_private_addresses = true\n\
             [lab]\ndns_port = {}\nhttps_port = {}\nsmtp_port = {}\n[dashboard]\n",
            lab.names.address,
            lab.names.address.port(),
            lab.https_port,
            lab.smtp_port
        );
        for domain in domains {
            text += &format!("[[domain]]\nname = \"{domain}.test\"\n");
        }
        let config = config::Config::parse(&text, Some(dir.path().join("sternpost.toml"))).unwrap();
        let store = Store::open(config.store.file().unwrap(), store::Tenant::FIRST).await.unwrap();
        for domain in domains {
            let pattern = MxPattern::parse(&format!("*.{domain}.test")).unwrap();
            let in_testing = |rollout: &mut RolloutState| {
                rollout.mode = Some(InMode { mode: Mode::Testing, since: SystemClock.now() });
                rollout.published = vec![PublishedPolicy {
                    mode: Mode::Testing,
                    max_age: 86_400,
                    mx: vec![pattern],
                    until: None,
                    assumed: false,
                }];
            };
            store.change_rollout(&name(domain), in_testing).await.unwrap();
        }
        let world = Arc::new(World::new(&config).unwrap());
        let role = config.dashboard.clone().unwrap();
        let context = RolloutContext::at(config, store, world).await.unwrap();
        Self { dashboard: Dashboard::new(&role, context).unwrap(), _lab: lab, _dir: dir }
    }

    /// Sends the form; returns the status and the page.
    async fn approve(&self, domain: &str, accepted: &str) -> (StatusCode, String) {
        let visitor = Visitor {
            name: "ada".to_owned(),
            role: Role::Operator,
            csrf_token: "word".to_owned(),
            is_of_installation: true,
        };
        let form = ApproveForm {
            word: "word".to_owned(),
            reason: "tested by hand".to_owned(),
            accepted: accepted.to_owned(),
        };
        let (dashboard, path) = (self.dashboard.clone(), Path(format!("{domain}.test")));
        let answer = approve(State(dashboard), Extension(visitor), path, Form(form)).await;
        let response = answer.unwrap_or_else(IntoResponse::into_response);
        let status = response.status();
        let body = axum::body::to_bytes(response.into_body(), usize::MAX).await.unwrap();
        (status, String::from_utf8(body.to_vec()).unwrap())
    }

    async fn is_approved(&self, domain: &str) -> bool {
        let context = self.dashboard.context_to_change().await.unwrap();
        context.rollout(&name(domain)).await.unwrap().approved.is_some()
    }
}

fn name(domain: &str) -> DomainName {
    DomainName::parse(&format!("{domain}.test")).unwrap()
}

#[tokio::test]
async fn an_approval_against_the_evidence_names_the_hosts_that_lose_mail_and_needs_a_second_form() {
    let place = Place::new(&["mx-expired", "good-enforce"]).await;
    for accepted in ["", "mx1.other.test", "unknown"] {
        let (status, page) = place.approve("mx-expired", accepted).await;
        assert_eq!(status, StatusCode::CONFLICT, "{page}");
        for part in [
            "would not deliver",
            "<strong>mx1.mx-expired.test</strong>: ",
            "expired",
            "name=\"accepted\" value=\"mx1.mx-expired.test\" required",
            "name=\"reason\" value=\"tested by hand\"",
        ] {
            assert!(page.contains(part), "{part}\n{page}");
        }
        assert!(!place.is_approved("mx-expired").await);
    }
    let (status, page) = place.approve("mx-expired", "mx1.mx-expired.test").await;
    assert_eq!(status, StatusCode::SEE_OTHER, "{page}");
    assert!(place.is_approved("mx-expired").await);

    let (status, page) = place.approve("good-enforce", "").await;
    assert_eq!(status, StatusCode::SEE_OTHER, "{page}");
    assert!(place.is_approved("good-enforce").await);
}

#[test]
fn a_risk_is_accepted_only_as_it_is() {
    let hosts = |names: &[&str]| {
        let hosts = names.iter().map(|host| (name(host), "why".to_owned())).collect();
        Risk::Hosts(MxLosses { hosts, unreached: vec![name("down")], probed: 1 })
    };
    let unseen = Risk::Hosts(MxLosses { hosts: Vec::new(), unreached: vec![name("down")], probed: 0 });
    assert!(unseen.is_accepted("unseen") && !unseen.is_accepted("") && !unseen.is_accepted("unknown"));
    assert!(hosts(&[]).is_accepted(""));
    let both = hosts(&["a", "b"]);
    assert!(both.is_accepted(&both.token()) && both.is_accepted("b.test c.test a.test"));
    for accepted in ["", "a.test", "b.test", "a.testb.test", "unknown", "xa.test b.test"] {
        assert!(!both.is_accepted(accepted), "{accepted}");
    }
    assert!(Risk::Unknown.is_accepted("unknown"));
    assert!(!Risk::Unknown.is_accepted("") && !Risk::Unknown.is_accepted(&both.token()));
}

#[tokio::test]
async fn hosts_that_could_not_be_probed_in_time_need_a_second_form() {
    let visitor = Visitor {
        name: "ada".to_owned(),
        role: Role::Operator,
        csrf_token: "word".to_owned(),
        is_of_installation: true,
    };
    let Ok(response) = losses_page(&visitor, "a.test", "why", Risk::Unknown) else { panic!() };
    let body = axum::body::to_bytes(response.into_body(), usize::MAX).await.unwrap();
    let page = String::from_utf8(body.to_vec()).unwrap();
    let limit = format!("within {} seconds", PROBE_LIMIT.as_secs());
    let found = MxLosses { hosts: Vec::new(), unreached: vec![name("down")], probed: 0 };
    let Ok(response) = losses_page(&visitor, "a.test", "why", Risk::Hosts(found)) else { panic!() };
    let body = axum::body::to_bytes(response.into_body(), usize::MAX).await.unwrap();
    let unseen = String::from_utf8(body.to_vec()).unwrap();
    for part in [
        "No MX host of it can be reached from here",
        "outgoing port 25",
        "value=\"unseen\" required",
        "<li>down.test</li>",
    ] {
        assert!(unseen.contains(part), "{part}\n{unseen}");
    }
    assert!(page.contains(&limit) && page.contains("name=\"accepted\" value=\"unknown\" required"), "{page}");
}
