//! What keeps `sternpost serve` from starting, apart from its addresses: each role is made as at the start, from the same
//! configuration, with an empty store in a temporary folder and without its sockets and background tasks. So
//! `sternpost config check` finds every file that a role can't read or use, a resolver that all mail would wait for, and a
//! PostgreSQL database that can't be used. Of the configured store, nothing is changed.

use super::hosting::Hosting;
use super::http::HttpsRouter;
use super::inbox::MailRole;
use super::messages::Messenger;
use super::report_hook::ReportHookRole;
use super::reporting;
use super::resolver_watch;
use super::sessions::{RemoteCollector, Sessions};
use super::tasks::Tasks;
use config::failure::Failure;
use config::{Config, UNIT_FOLDER};
use net::metrics::Registry;
use nix::unistd::geteuid;
use operations::world::World;
use operations::{RolloutContext, access, open_failure};
use std::sync::Arc;
use std::time::Duration;
use store::{Access, Store, StoreError, Tenant};
use web::Dashboard;

/// How long the resolver may take to answer.
const RESOLVER_TIMEOUT: Duration = Duration::from_secs(5);

/// Everything that keeps a role from starting.
pub async fn obstacles(config: &Config) -> Vec<Failure> {
    let world = match World::new(config) {
        Ok(world) => Arc::new(world),
        Err(failure) => return vec![failure],
    };
    let folder = match tempfile::tempdir() {
        Ok(folder) => folder,
        Err(error) => return vec![Failure::new("can't create a temporary folder", error, "Set TMPDIR.")],
    };
    let store = match Store::open(&folder.path().join("rehearsal.db"), Tenant::FIRST).await {
        Ok(store) => store,
        Err(error) => return vec![Failure::new("can't create a temporary store", error, "Set TMPDIR.")],
    };
    let mut found = Vec::new();
    found.extend(roles(config, &store, &world).await.into_iter().filter_map(Result::err));
    store.close().await;
    found.extend(database(config).await);
    found.extend(resolver(config, &world).await);
    found.into_iter().map(with_credentials).collect()
}

/// A failure, with its own remedy if systemd would put the missing file there.
fn with_credentials(failure: Failure) -> Failure {
    let (what, why, _) = failure.parts();
    let is_named = [what, why].into_iter().any(|text| text.contains(UNIT_FOLDER));
    if !is_named || !why.contains("(os error 2)") {
        return failure;
    }
    let remedy = "systemd copies the files of LoadCredential= there when it starts the service. If the unit or a drop-in has that line:\n  \
                  systemctl daemon-reload && systemctl restart sternpost";
    failure.with_remedy(remedy)
}

/// Why the PostgreSQL database can't be used, or the first sign-in can't be offered. An SQLite file is not opened, since that
/// would create or migrate it; nor by root a database behind a Unix socket, which would take root for another user than that
/// of the service.
async fn database(config: &Config) -> Option<Failure> {
    if config.store.is_behind_a_socket() && geteuid().is_root() {
        return None;
    }
    let has_people = match config.store.file() {
        Some(file) => file.exists(),
        None => {
            let access = Access { may_migrate: false, ..access(config) };
            match Store::connect(&config.store, &access, Tenant::FIRST).await {
                Ok(store) => {
                    let people = store.people(Tenant::FIRST).await;
                    store.close().await;
                    people.is_ok_and(|people| !people.is_empty())
                }
                // The server creates or migrates the tables.
                Err(StoreError::Outdated { .. }) if config.store_migrate => false,
                Err(error) => return Some(open_failure(&config.store, &error)),
            }
        }
    };
    config.dashboard.as_ref().filter(|_| !has_people)?;
    let folder = &config.state_folder;
    tempfile::tempfile_in(folder).err().map(|error| {
        Failure::new(
            format!("can't write the link for the first sign-in to {}", folder.display()),
            error,
            "Create that directory, and allow the user that Sternpost runs as to write to it; or name another one in `state_folder`.",
        )
    })
}

/// The outcome for each role.
async fn roles(config: &Config, store: &Store, world: &Arc<World>) -> Vec<Result<(), Failure>> {
    let mut all = Vec::new();
    let mut tasks = Tasks::idle(world.clock.clone());
    let context = || RolloutContext::at(config.clone(), store.clone(), world.clone());
    if let Some(role) = &config.host {
        all.push(Hosting::new(role, store.clone(), world).await.map(drop));
    }
    if let Some(role) = &config.guard {
        all.push(Messenger::new(role, store, world).map(drop));
    }
    if let Some(role) = &config.inbox {
        all.push(MailRole::new(role, store, world, &mut tasks, &mut Registry::default()).map(drop));
        if let Some(hook) = &role.webhook {
            all.push(ReportHookRole::new(hook, store, world).map(drop));
        }
    }
    if let Some(role) = &config.dashboard {
        let made = async {
            let router = web::router(&Dashboard::new(role, context().await?)?, None, None);
            let (files, proxy) = (role.certificate.as_ref(), role.behind_proxy);
            HttpsRouter::new(router, files, proxy, "dashboard-certificate", &mut tasks)
        };
        all.push(made.await.map(drop));
    }
    if let Some(role) = &config.admin {
        let made = async { web::api::router(role, context().await?, web::api::Background::default()) };
        all.push(made.await.map(drop));
    }
    if let Some(role) = &config.collector {
        let made = reporting::collector(role, store, world).and_then(|collector| {
            if role.http.is_some() {
                Sessions::new(role, collector, world, &mut tasks)?;
            }
            if let (Some(url), Some(token)) = (&role.forward_to, &role.token_file) {
                RemoteCollector::new(url, token, world)?;
            }
            Ok(())
        });
        all.push(made);
    }
    if let Some(role) = &config.reporter {
        all.push(reporting::scheduler(role, store, world).map(drop));
    }
    all
}

/// The failure with which the server ends when its resolver can't validate anything.
async fn resolver(config: &Config, world: &World) -> Option<Failure> {
    config.answers.as_ref()?;
    let probe = tokio::time::timeout(RESOLVER_TIMEOUT, world.resolver.probe()).await.ok()?;
    resolver_watch::obstacle(&probe)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    async fn found(text: &str, folder: &Path) -> Vec<String> {
        // The resolver of the machine is not asked.
        let text = format!("[dns]\nservers = [\"127.0.0.1:1\"]\n{text}");
        let config = Config::parse(&text, Some(folder.join("s.toml"))).unwrap();
        obstacles(&config).await.iter().map(ToString::to_string).collect()
    }

    #[tokio::test]
    async fn a_database_that_does_not_answer_and_a_folder_that_does_not_exist_are_found() {
        let dir = tempfile::tempdir().unwrap();
        let found = async |text: &str| {
            let config = Config::parse(text, Some(dir.path().join("s.toml"))).unwrap();
            let all: Vec<_> = obstacles(&config).await.iter().map(ToString::to_string).collect();
            all.join("\n")
        };
        let dns = "[dns]\nservers = [\"127.0.0.1:1\"]\n";
        let pages = "[dashboard]\nlisten = [\"127.0.0.1:0\"]\n";
        let folder = "state_folder = \"none\"\n";
        let problems = found(&format!("store = \"postgres://u@127.0.0.1:1/d\"\n{folder}{dns}")).await;
        assert!(problems.contains("the store postgres://u@127.0.0.1:1/d can't be opened"), "{problems}");
        let problems = found(&format!("{folder}{dns}{pages}")).await;
        assert!(problems.contains("can't write the link for the first sign-in"), "{problems}");
        assert_eq!(found(&format!("{folder}{dns}")).await, "");
        std::fs::create_dir(dir.path().join("none")).unwrap();
        assert_eq!(found(&format!("{folder}{dns}{pages}")).await, "");
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[tokio::test]
    async fn each_file_that_a_role_reads_at_the_start_is_read_and_nothing_is_left_behind() {
        let dir = tempfile::tempdir().unwrap();
        for (text, file) in [
            (
                "[reporter]\nfrom = \"a@b.example\"\ndkim = { selector = \"k\", key_file = \"dkim.pem\" }\n",
                "dkim.pem",
            ),
            (
                "[reporter]\nfrom = \"a@b.example\"\ndkim = { selector = \"k\", key_file = \"dkim.pem\" }\ndeliver = \"smarthost:m.example:587\"\nuser = \"u\"\npassword_file = \"smtp.pw\"\n",
                "smtp.pw",
            ),
            ("[admin]\nlisten = \"127.0.0.1:0\"\ntoken_file = \"admin.token\"\n", "admin.token"),
            ("[host]\nlisten = [\"127.0.0.1:0\"]\nkey_file = \"host.key\"\n", "host.key"),
            (
                "[inbox]\naddresses = [\"tls@a.example\"]\n[inbox.imap]\nhost = \"a.example\"\nuser = \"u\"\npassword_file = \"imap.pw\"\n",
                "imap.pw",
            ),
        ] {
            let problems = found(text, dir.path()).await;
            assert!(problems.iter().any(|one| one.contains(file)), "{file}: {problems:?}");
        }
        std::fs::write(dir.path().join("admin.token"), "0123456789abcdef0123456789abcdef").unwrap();
        let fine = "[admin]\nlisten = \"127.0.0.1:0\"\ntoken_file = \"admin.token\"\n[guard]\n";
        assert_eq!(found(fine, dir.path()).await, [] as [&str; 0]);
        let left: Vec<_> =
            std::fs::read_dir(dir.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert_eq!(left, ["admin.token"]);
    }

    #[tokio::test]
    async fn a_credential_that_systemd_has_not_handed_over_yet_is_explained() {
        let dir = tempfile::tempdir().unwrap();
        let text = "[admin]\nlisten = \"127.0.0.1:0\"\ntoken_file = \"$CREDENTIALS_DIRECTORY/none\"\n";
        let told = found(text, dir.path()).await.join("\n");
        assert!(told.contains("/none") && told.contains("LoadCredential="), "{told}");
        assert!(told.contains("systemctl daemon-reload && systemctl restart sternpost"), "{told}");
    }

    #[tokio::test]
    async fn a_database_that_can_not_be_used_and_a_missing_folder_for_the_first_link_are_found() {
        let dir = tempfile::tempdir().unwrap();
        let first = |first: &str| {
            Config::parse(
                &format!("{first}[dns]\nservers = [\"127.0.0.1:1\"]\n"),
                Some(dir.path().join("s.toml")),
            )
            .unwrap()
        };
        for (text, expected) in [
            ("store = \"postgres://u@127.0.0.1:1/d\"\n", "postgres://u@127.0.0.1:1/d can't be opened"),
            ("store = \"postgres://u@127.0.0.1:1/d\"\nstore_password_file = \"none\"\n", "none"),
            ("state_folder = \"none\"\n[dashboard]\nlisten = [\"127.0.0.1:0\"]\n", "first sign-in"),
        ] {
            let found = obstacles(&first(text)).await;
            let found: Vec<_> = found.iter().map(ToString::to_string).collect();
            assert!(found.iter().any(|one| one.contains(expected)), "{expected}: {found:?}");
        }
        let fine = obstacles(&first("state_folder = \".\"\n[dashboard]\nlisten = [\"127.0.0.1:0\"]\n")).await;
        assert!(fine.is_empty(), "{fine:?}");
    }
}
