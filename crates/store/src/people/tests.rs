//! Users and invitations.

use super::*;
use crate::sessions::NewSession;
use sqlx::sqlite::{SqliteConnectOptions, SqlitePoolOptions};

pub(crate) fn at(second: i64) -> Timestamp {
    Timestamp::from_second(second).unwrap()
}

pub(crate) fn invite(name: &str, role: &str, end: i64) -> Invitation {
    Invitation { tenant: Tenant::FIRST, name: name.into(), role: role.into(), expires_at: at(end) }
}

/// A store with the user `ann`, an operator.
pub(crate) async fn with_ann() -> (crate::scratch::Scratch, Store, Person) {
    let (scratch, store) = crate::scratch().await;
    let ann = Person { name: "ann".into(), role: "operator".into(), password: "p".into() };
    store.put_invitation("d1", &invite("ann", "operator", 100), at(0)).await.unwrap();
    assert!(store.accept("d1", Tenant::FIRST, &ann, at(0)).await.unwrap());
    (scratch, store, ann)
}

pub(crate) fn session<'s>(digest: &'s str, name: &'s str) -> NewSession<'s> {
    NewSession {
        digest,
        tenant: Tenant::FIRST,
        name,
        password: "p",
        second_factor: None,
        begun_at: at(0),
        expires_at: at(100),
        address: "192.0.2.1",
        browser: "Lynx",
    }
}

#[tokio::test]
async fn an_invitation_can_be_used_once_and_expires() {
    let (_dir, store) = crate::scratch().await;
    let tenant = Tenant::FIRST;
    let ann = Person { name: "ann".into(), role: "operator".into(), password: "p".into() };
    store.put_invitation("d1", &invite("ann", "operator", 100), at(0)).await.unwrap();
    assert_eq!(store.invitation("d1", at(99)).await.unwrap(), Some(invite("ann", "operator", 100)));
    assert_eq!(store.invitation("d1", at(100)).await.unwrap(), None);
    assert!(!store.accept("d1", tenant, &ann, at(100)).await.unwrap());
    let others =
        [Person { name: "bob".into(), ..ann.clone() }, Person { role: "reader".into(), ..ann.clone() }];
    for other in others {
        assert!(!store.accept("d1", tenant, &other, at(1)).await.unwrap());
    }
    assert!(store.accept("d1", tenant, &ann, at(1)).await.unwrap());
    assert!(!store.accept("d1", tenant, &ann, at(1)).await.unwrap());
    assert_eq!(store.people(tenant).await.unwrap(), std::slice::from_ref(&ann));
}

#[tokio::test]
async fn a_new_invitation_replaces_the_earlier_one_for_the_same_name() {
    let (_dir, store) = crate::scratch().await;
    store.put_invitation("d1", &invite("mallory", "operator", 100), at(0)).await.unwrap();
    store.put_invitation("d2", &invite("bob", "reader", 100), at(0)).await.unwrap();
    store.put_invitation("d3", &invite("mallory", "reader", 200), at(1)).await.unwrap();
    assert_eq!(store.invitation("d1", at(1)).await.unwrap(), None);
    let person = Person { name: "mallory".into(), role: "operator".into(), password: "p".into() };
    assert!(!store.accept("d1", Tenant::FIRST, &person, at(1)).await.unwrap());
    let listed = store.invitations(Tenant::FIRST, at(1)).await.unwrap();
    assert_eq!(listed, [invite("bob", "reader", 100), invite("mallory", "reader", 200)]);
    assert_eq!(store.invitations(Tenant::FIRST, at(100)).await.unwrap().len(), 1);
    for was_there in [true, false] {
        assert_eq!(store.end_invitation(Tenant::FIRST, "bob").await.unwrap(), was_there);
    }
    assert_eq!(store.invitation("d2", at(1)).await.unwrap(), None);
}

#[tokio::test]
async fn removing_a_user_ends_the_invitation_too() {
    let (_dir, store, ann) = with_ann().await;
    store.put_invitation("d2", &invite("ann", "operator", 100), at(0)).await.unwrap();
    store.put_invitation("d3", &invite("zoe", "operator", 100), at(0)).await.unwrap();
    let both = Removed { person: true, invitation: true };
    assert_eq!(store.remove_person(Tenant::FIRST, "ann").await.unwrap(), both);
    assert!(!store.accept("d2", Tenant::FIRST, &ann, at(1)).await.unwrap());
    let only_invited = Removed { person: false, invitation: true };
    assert_eq!(store.remove_person(Tenant::FIRST, "zoe").await.unwrap(), only_invited);
    assert_eq!(store.invitation("d3", at(1)).await.unwrap(), None);
    let nothing = Removed { person: false, invitation: false };
    assert_eq!(store.remove_person(Tenant::FIRST, "zoe").await.unwrap(), nothing);
}

#[tokio::test]
async fn a_changed_password_ends_the_other_sessions_and_an_open_invitation() {
    let (_dir, store, _) = with_ann().await;
    for digest in ["here", "elsewhere"] {
        store.put_session(&session(digest, "ann")).await.unwrap();
    }
    store.put_invitation("d2", &invite("ann", "operator", 100), at(0)).await.unwrap();
    let change = async |old: &str, name: &str| {
        store.change_password(Tenant::FIRST, name, old, "new", "here").await.unwrap()
    };
    assert!(!change("another", "ann").await && !change("p", "bob").await);
    assert!(store.session_user("elsewhere", at(1)).await.unwrap().is_some());
    assert!(change("p", "ann").await && !change("p", "ann").await);
    assert_eq!(store.person(Tenant::FIRST, "ann").await.unwrap().unwrap().password, "new");
    assert!(store.session_user("here", at(1)).await.unwrap().is_some());
    assert_eq!(store.session_user("elsewhere", at(1)).await.unwrap(), None);
    assert_eq!(store.invitation("d2", at(1)).await.unwrap(), None);
}

/// On SQLite, which all stores of earlier versions are.
#[tokio::test]
async fn an_upgrade_keeps_the_newest_invitation_of_each_name() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("s.db");
    let options = SqliteConnectOptions::new().filename(&file).create_if_missing(true);
    let pool = SqlitePoolOptions::new().max_connections(1).connect_with(options).await.unwrap();
    crate::migrations::sqlite_before(17).run(&pool).await.unwrap();
    for statement in [
        "INSERT INTO invitation (digest, tenant, name, role, expires_at) VALUES ('a', 0, 'ann', 'operator', 50),
         ('b', 0, 'ann', 'reader', 60), ('c', 0, 'ann', 'operator', 60), ('d', 0, 'bob', 'reader', 10)",
        "INSERT INTO person (tenant, name, role, password) VALUES (0, 'ann', 'operator', 'p')",
        "INSERT INTO sign_in (digest, tenant, name, expires_at) VALUES ('s', 0, 'ann', 90)",
    ] {
        sqlx::query(statement).execute(&pool).await.unwrap();
    }
    pool.close().await;
    let store = Store::open(&file, Tenant::FIRST).await.unwrap();
    let listed = store.invitations(Tenant::FIRST, at(0)).await.unwrap();
    assert_eq!(listed, [invite("ann", "operator", 60), invite("bob", "reader", 10)]);
    assert!(store.invitation("c", at(0)).await.unwrap().is_some());
    assert!(store.session_user("s", at(0)).await.unwrap().is_some());
}
