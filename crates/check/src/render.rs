//! An [`Examination`](crate::Examination) as others read it: [`forms`] for programs (JSON, JUnit, Nagios, Prometheus), [`page`]
//! for people. The command line and the dashboard both use these.

pub mod forms;
pub mod page;
