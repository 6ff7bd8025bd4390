//! The yardstick: what a sending mail server does with MTA-STS and DANE, held against what RFC 8461 and RFC 7672 demand.
//!
//! A [`case::Case`] is one row of the table: the domain with its servers, one or more phases with a message each, and the
//! oracle, which says which outcomes of a phase conform. [`cases::all`] has them all. A [`world::World`] runs the domains
//! in a lab behind a DNS observer; [`run::run`] hands one message for each phase to a [`run::Sender`], which is the mail
//! server under test, waits until the server has settled, and has [`oracle::judge`] compare what was seen from outside with
//! the row. The results make a [`report::Report`], which [`render`] writes as text, Markdown, JUnit and HTML.
//!
//! [`control`] has senders of our own that are right or wrong in one known way, each of which has to be caught in exactly
//! the cases that it fails. Begin reading in [`case`].

pub mod case;
pub mod cases;
pub mod control;
pub mod inbox;
pub mod oracle;
pub mod render;
pub mod report;
pub mod run;
pub mod tls_report;
pub mod world;
