//! Output formats of an [`Examination`](crate::Examination): [`forms`] for programs (JSON, JUnit, Nagios,
//! Prometheus) and [`page`] for people (HTML). The command line and the dashboard use both. [`audit`] formats an
//! [`Audit`](crate::audit::Audit).

pub mod audit;
pub mod forms;
pub mod page;
