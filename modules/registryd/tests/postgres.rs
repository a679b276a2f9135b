//! What only PostgreSQL does to a registry: sessions that are cut off, a lock that somebody else has,
//! transactions that fail half way. Everything else is in the other files, which run over both.
//!
//! `ZOS_TEST_DATABASE=postgres cargo test -p registryd -- --include-ignored`, as `cargo xtask test`
//! does: without the variable they fail, so that nobody believes they have run.

#![expect(clippy::unwrap_used, reason = "a test stops at the first surprise")]
#![expect(clippy::tests_outside_test_module, reason = "this file is tests and nothing else")]

mod common;

use common::{Registry, agree, database, prepare, process, world};
use registryd::{
    db::{self, Db, Fault},
    sql::Connection,
    transparency::{self, files::Files},
};
use reqwest::StatusCode;
use std::path::Path;

/// Ends every other session of this database, and waits until they have ended.
const CUT: &str = "SELECT pg_terminate_backend(pid, 60000) FROM pg_stat_activity
    WHERE datname = current_database() AND pid <> pg_backend_pid()";

fn asked_for() {
    assert!(database::in_postgres(), "these tests are for ZOS_TEST_DATABASE=postgres");
}

/// Whether one more identity is taken, and what is said if not.
async fn push(registry: &Registry, name: &'static str) -> (StatusCode, String) {
    let body = serde_json::to_vec(&world().identity(name)).unwrap();
    let url = format!("{}/v1/statements", registry.base);
    let response = reqwest::Client::new().post(url).body(body).send().await.unwrap();
    (response.status(), response.text().await.unwrap())
}

fn count(data: &Path, table: &str) -> i64 {
    let sql = format!("SELECT COUNT(*) FROM {table}");
    database::tamper(data).query_one(&sql, &[], |row| row.get(0)).unwrap()
}

fn note(db: &Connection, step: i64) -> Result<(), Fault> {
    db.execute("INSERT INTO records (place, record) VALUES (?1, ?2)", &[&step, &Vec::new()])?;
    Ok(())
}

#[tokio::test]
// Without a cluster there is nothing to ask: `cargo xtask test` runs this with the variable.
#[ignore = "ZOS_TEST_DATABASE=postgres, and PostgreSQL"]
async fn a_session_that_was_cut_off_comes_back_with_all_that_was_acknowledged() {
    asked_for();
    let data = tempfile::tempdir().unwrap();
    let (world, registry) = (world(), Registry::start(data.path()).await);
    prepare(&world, &registry.client).await;
    let before = count(data.path(), "statements");
    for _ in 0..3 {
        let cut = database::tamper(data.path()).query(CUT, &[], |_| Ok(())).unwrap();
        assert!(cut.len() > 1, "there was something to cut");
        let farms = registry.client.farms().await.unwrap();
        assert_eq!(farms.farms.len(), 1);
        assert_eq!(push(&registry, "owner").await.0, StatusCode::OK, "it is known");
    }
    agree(&world, &registry.client).await;
    assert!(count(data.path(), "statements") > before);
    registry.server.stop().await.unwrap();
}

#[tokio::test]
// Without a cluster there is nothing to ask: `cargo xtask test` runs this with the variable.
#[ignore = "ZOS_TEST_DATABASE=postgres, and PostgreSQL"]
async fn a_database_that_is_gone_is_said_and_used_again_when_it_is_there() {
    asked_for();
    let data = tempfile::tempdir().unwrap();
    let registry = Registry::start(data.path()).await;
    let beside = database::tamper(data.path());
    let name: String =
        beside.query_one("SELECT current_database()::text", &[], |row| row.get(0)).unwrap();
    database::administer(&format!("ALTER DATABASE {name} ALLOW_CONNECTIONS false"));
    beside.query(CUT, &[], |_| Ok(())).unwrap();
    let (status, said) = push(&registry, "owner").await;
    assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE, "{said}");
    assert!(said.contains("cannot reach its database"), "{said}");
    let farms = reqwest::get(format!("{}/v1/farms", registry.base)).await.unwrap();
    assert_eq!(farms.status(), StatusCode::SERVICE_UNAVAILABLE);
    database::administer(&format!("ALTER DATABASE {name} ALLOW_CONNECTIONS true"));
    assert_eq!(push(&registry, "owner").await.0, StatusCode::CREATED);
    assert!(registry.client.farms().await.is_ok());
}

/// Somebody else writes from the moment on that the lock is theirs: we never do.
#[tokio::test]
// Without a cluster there is nothing to ask: `cargo xtask test` runs this with the variable.
#[ignore = "ZOS_TEST_DATABASE=postgres, and PostgreSQL"]
async fn one_registry_writes_into_a_database() {
    asked_for();
    let data = tempfile::tempdir().unwrap();
    let registry = Registry::start(data.path()).await;
    let other = tempfile::tempdir().unwrap();
    let url = database::url(data.path()).unwrap();
    let start = || {
        let mut second = process::registryd(data.path());
        second.args(["--listen", "127.0.0.1:0", "--data"]).arg(other.path());
        let second = second.args(["--database", &url]).output().unwrap();
        assert!(!second.status.success());
        String::from_utf8(second.stderr).unwrap()
    };
    let said = start();
    assert!(said.contains("another registryd uses this database: stop it first"), "{said}");

    // Whoever waits for the lock has it as soon as the session is cut off.
    let thief = database::tamper(data.path());
    let sql = "SELECT (classid::bigint << 32) | objid::bigint
               FROM pg_locks JOIN pg_database ON pg_database.oid = database
               WHERE locktype = 'advisory' AND datname = current_database()";
    // The one that every registry knows, and one that only this session does.
    let keys: Vec<i64> = thief.query(sql, &[], |row| row.get(0)).unwrap();
    assert_eq!(keys.len(), 2);
    thief.query(CUT, &[], |_| Ok(())).unwrap();
    for key in keys {
        thief.execute("SELECT pg_advisory_lock(?1)", &[&key]).unwrap();
    }
    let (status, said) = push(&registry, "owner").await;
    assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE, "{said}");
    assert_eq!(count(data.path(), "statements"), 0);
    assert!(registry.client.farms().await.is_ok(), "it may be read");
    thief.close().unwrap();
    assert_eq!(push(&registry, "owner").await.0, StatusCode::CREATED);
}

#[tokio::test]
// Without a cluster there is nothing to ask: `cargo xtask test` runs this with the variable.
#[ignore = "ZOS_TEST_DATABASE=postgres, and PostgreSQL"]
async fn nothing_of_a_transaction_that_failed_is_acknowledged() {
    asked_for();
    let data = tempfile::tempdir().unwrap();
    let db = Db::start(data.path(), &database::of(data.path())).unwrap();
    let before = count(data.path(), "records");
    // An error that somebody swallows.
    let swallowed = db.write(|db| {
        note(db, 100)?;
        drop(db.execute_batch("SELECT 1 / 0"));
        Ok(())
    });
    assert!(matches!(swallowed.await, Err(Fault::Broken(_))));
    // A session that ends between the work and its commit.
    let cut = db.write(|db| {
        note(db, 101)?;
        drop(db.execute_batch("SELECT pg_terminate_backend(pg_backend_pid())"));
        Ok(())
    });
    let error = cut.await.unwrap_err().into_error();
    assert!(db::is_lost(&error), "{error:#}");
    assert_eq!(count(data.path(), "records"), before);
    // Its lock belongs to nobody, as behind something that lends sessions out.
    let unlocked = db.write(|db| {
        note(db, 101)?;
        Ok(db.execute_batch("SELECT pg_advisory_unlock_all()")?)
    });
    assert!(db::is_lost(&unlocked.await.unwrap_err().into_error()));
    // The lock of somebody else in the same session is not this one's.
    let other = db.write(|db| {
        note(db, 101)?;
        let sql = "SELECT pg_advisory_unlock_all(); SELECT pg_advisory_lock(7)";
        Ok(db.execute_batch(sql)?)
    });
    assert!(db::is_lost(&other.await.unwrap_err().into_error()));
    let fast = db.write(|db| {
        note(db, 101)?;
        Ok(db.execute_batch("SET LOCAL synchronous_commit = off")?)
    });
    assert!(db::is_lost(&fast.await.unwrap_err().into_error()), "a power cut would take it back");
    assert_eq!(count(data.path(), "records"), before);
    // Each time, a session that came anew took the lock anew.
    // A disk that is full, in the words of the server.
    let full = db.write(|db| {
        note(db, 102)?;
        Ok(db.execute_batch("DO $$ BEGIN RAISE SQLSTATE '53100'; END $$")?)
    });
    assert!(db::is_full(&full.await.unwrap_err().into_error()));
    // The control, after all of that.
    db.write(|db| note(db, 103)).await.map_err(Fault::into_error).unwrap();
    assert_eq!(count(data.path(), "records"), before + 1);
    db.stop().await.unwrap();
}

/// A refusal may rest on what another of the batch wrote: it is no answer when that was not kept.
#[tokio::test]
// Without a cluster there is nothing to ask: `cargo xtask test` runs this with the variable.
#[ignore = "ZOS_TEST_DATABASE=postgres, and PostgreSQL"]
async fn a_session_that_ends_during_a_batch_answers_none_of_it() {
    asked_for();
    let data = tempfile::tempdir().unwrap();
    let db = Db::start(data.path(), &database::of(data.path())).unwrap();
    let refuse = |_: &Connection| -> Result<(), Fault> {
        Err(registryd::refusal(409, "old_version", "version 7 is not above 7", ""))
    };
    let (started, begun) = tokio::sync::oneshot::channel();
    let (release, released) = std::sync::mpsc::channel::<()>();
    let before = {
        let db = db.clone();
        let work = move |_: &Connection| {
            started.send(()).unwrap();
            released.recv().unwrap();
            Ok(())
        };
        tokio::spawn(async move { db.write(work).await })
    };
    begun.await.unwrap();
    // They wait together, and so are of one commit.
    let (kept, refused, cut, ()) = tokio::join!(
        db.write(|db| note(db, 1)),
        db.write(refuse),
        db.write(|db| {
            note(db, 2)?;
            drop(db.execute_batch("SELECT pg_terminate_backend(pg_backend_pid())"));
            Ok(())
        }),
        async { release.send(()).unwrap() },
    );
    before.await.unwrap().map_err(Fault::into_error).unwrap();
    for outcome in [kept, refused, cut] {
        let Err(Fault::Broken(error)) = outcome else { panic!("{outcome:?}") };
        assert!(db::is_lost(&error), "{error:#}");
    }
    assert_eq!(count(data.path(), "records"), 0);
    // The control.
    let (kept, refused) = tokio::join!(db.write(|db| note(db, 1)), db.write(refuse));
    assert!(kept.is_ok() && matches!(refused, Err(Fault::Refused(_))));
    assert_eq!(count(data.path(), "records"), 1);
    db.stop().await.unwrap();
}

/// The server has done what it could not answer any more: the log goes on from there by itself.
#[tokio::test]
// Without a cluster there is nothing to ask: `cargo xtask test` runs this with the variable.
#[ignore = "ZOS_TEST_DATABASE=postgres, and PostgreSQL"]
async fn a_log_that_grew_without_an_answer_goes_on() {
    asked_for();
    let data = tempfile::tempdir().unwrap();
    let open = database::open(data.path());
    transparency::begin(&open, data.path(), "registry.example/test").unwrap();
    open.close().unwrap();
    let registry = Registry::start(data.path()).await;
    assert_eq!(push(&registry, "owner").await.0, StatusCode::CREATED);
    let (beside, watch) = (database::tamper(data.path()), database::tamper(data.path()));
    beside.execute_batch("BEGIN; SELECT FROM log FOR UPDATE").unwrap();
    let files = Files::new(data.path());
    let does_it_instead = tokio::task::spawn_blocking(move || {
        let waits = "FROM pg_stat_activity
            WHERE datname = current_database() AND wait_event_type = 'Lock'";
        let sql = format!("SELECT COUNT(*) {waits}");
        while watch.query_one(&sql, &[], |row| row.get::<i64>(0)).unwrap() == 0 {
            std::thread::yield_now();
        }
        let root = files.edge(2).unwrap().root();
        beside.execute("UPDATE log SET size = 2, root = ?1", &[&root]).unwrap();
        let sql = format!("SELECT pg_terminate_backend(pid, 60000) {waits}");
        assert_eq!(watch.query(&sql, &[], |_| Ok(())).unwrap().len(), 1);
        beside.execute_batch("COMMIT").unwrap();
    });
    let (first, done) = tokio::join!(push(&registry, "farm"), does_it_instead);
    done.unwrap();
    // However long the log took to find out.
    assert!([StatusCode::CREATED, StatusCode::SERVICE_UNAVAILABLE].contains(&first.0), "{first:?}");
    assert_eq!(push(&registry, "it").await.0, StatusCode::CREATED);
    let sql = "SELECT size FROM log";
    let size: i64 = database::tamper(data.path()).query_one(sql, &[], |row| row.get(0)).unwrap();
    assert_eq!(size, 3);
    registry.server.stop().await.unwrap();
}

#[tokio::test]
// Without a cluster there is nothing to ask: `cargo xtask test` runs this with the variable.
#[ignore = "ZOS_TEST_DATABASE=postgres, and PostgreSQL"]
async fn another_database_of_the_same_name_is_neither_filled_nor_served() {
    asked_for();
    let data = tempfile::tempdir().unwrap();
    let registry = Registry::start(data.path()).await;
    assert_eq!(push(&registry, "owner").await.0, StatusCode::CREATED);
    let sql = "SELECT current_database()::text";
    let name: String = database::tamper(data.path()).query_one(sql, &[], |row| row.get(0)).unwrap();
    database::administer(&format!(
        "SELECT pg_terminate_backend(pid, 60000) FROM pg_stat_activity WHERE datname = '{name}'"
    ));
    database::administer(&format!("ALTER DATABASE {name} RENAME TO {name}_kept"));
    database::administer(&format!("CREATE DATABASE {name}"));
    let (status, said) = push(&registry, "it").await;
    assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE, "{said}");
    assert!(registry.client.farms().await.is_err());
    let sql = "SELECT COUNT(*) FROM pg_tables WHERE schemaname = 'public'";
    let tables: i64 = database::tamper(data.path()).query_one(sql, &[], |row| row.get(0)).unwrap();
    assert_eq!(tables, 0, "nothing was made there");
    database::administer(&format!("DROP DATABASE {name} WITH (FORCE)"));
    database::administer(&format!("ALTER DATABASE {name}_kept RENAME TO {name}"));
    assert_eq!(push(&registry, "it").await.0, StatusCode::CREATED);
    assert_eq!(push(&registry, "owner").await.0, StatusCode::OK, "it is the old one");
    registry.server.stop().await.unwrap();
}

#[tokio::test]
// Without a cluster there is nothing to ask: `cargo xtask test` runs this with the variable.
#[ignore = "ZOS_TEST_DATABASE=postgres, and PostgreSQL"]
async fn a_reader_sees_one_state_and_changes_nothing() {
    asked_for();
    let data = tempfile::tempdir().unwrap();
    let db = Db::start(data.path(), &database::of(data.path())).unwrap();
    let written = db.read(|db| note(db, 100)).await;
    assert!(matches!(written, Err(Fault::Broken(_))));
    let path = data.path().to_owned();
    let seen = db.read(move |db| {
        let sql = "SELECT COUNT(*) FROM records";
        let count = || db.query_one(sql, &[], |row| row.get::<i64>(0));
        let first = count()?;
        note(&database::tamper(&path), 101)?;
        Ok((first, count()?))
    });
    let (first, second) = seen.await.map_err(Fault::into_error).unwrap();
    assert_eq!(first, second);
    assert_eq!(count(data.path(), "records"), first + 1, "the control");
}

#[test]
// Without a cluster there is nothing to ask: `cargo xtask test` runs this with the variable.
#[ignore = "ZOS_TEST_DATABASE=postgres, and PostgreSQL"]
fn a_directory_stays_with_its_database() {
    asked_for();
    let start = |data: &Path, url: Option<&str>| {
        let mut command = process::registryd(data);
        command.env_remove("ZOS_DATABASE").args(["fsck", "--data"]).arg(data);
        let output = command.args(url.map(|url| format!("--database={url}"))).output().unwrap();
        String::from_utf8(output.stderr).unwrap()
    };
    let ours = tempfile::tempdir().unwrap();
    database::open(ours.path()).close().unwrap();
    let said = start(ours.path(), None);
    assert!(said.contains("are in PostgreSQL: name it with --database or ZOS_DATABASE"), "{said}");
    let url = database::url(ours.path()).unwrap();
    let said = start(ours.path(), Some(&url));
    assert!(said.contains("this registry has no log"), "the control: {said}");
    let others = tempfile::tempdir().unwrap();
    database::open(others.path()).close().unwrap();
    let url_others = database::url(others.path()).unwrap();
    let said = start(ours.path(), Some(&url_others));
    assert!(said.contains("is not the one that belongs to this directory"), "{said}");
    let name = url_others.split(['/', '?']).nth(3).unwrap();
    database::administer(&format!("DROP DATABASE {name} WITH (FORCE)"));
    database::administer(&format!("CREATE DATABASE {name}"));
    let said = start(others.path(), Some(&url_others));
    assert!(said.contains("is not the one that belongs to this directory"), "{said}");
    let sql = "SELECT COUNT(*) FROM pg_tables WHERE schemaname = 'public'";
    let beside = database::tamper(others.path());
    assert_eq!(beside.query_one(sql, &[], |row| row.get::<i64>(0)).unwrap(), 0, "nothing was made");
    let theirs = tempfile::tempdir().unwrap();
    db::open(theirs.path()).unwrap().close().unwrap();
    let said = start(theirs.path(), Some(&url));
    assert!(said.contains("are in SQLite: start it without --database"), "{said}");
    let said = start(theirs.path(), Some("postgres://me:secret@192.0.2.1/registry"));
    assert!(said.contains("without TLS") && !said.contains("secret"), "{said}");
}

#[test]
// Without a cluster there is nothing to ask: `cargo xtask test` runs this with the variable.
#[ignore = "ZOS_TEST_DATABASE=postgres, and PostgreSQL"]
fn a_database_that_cannot_hold_every_text_is_refused() {
    asked_for();
    let data = tempfile::tempdir().unwrap();
    let url = database::url(data.path()).unwrap();
    let name = url.split(['/', '?']).nth(3).unwrap();
    database::administer(&format!("DROP DATABASE {name}"));
    database::administer(&format!(
        "CREATE DATABASE {name} ENCODING 'SQL_ASCII' LOCALE 'C' TEMPLATE template0"
    ));
    let refused = database::of(data.path()).open(data.path()).unwrap_err();
    assert!(format!("{refused:#}").contains("create one with ENCODING 'UTF8'"), "{refused:#}");
}
