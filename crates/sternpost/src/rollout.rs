//! The commands of the receiving side: what is wanted of domains, the plan, and carrying it out.

pub mod apply;
pub mod domains;
pub mod export;
pub mod init;
pub mod plan;
pub mod promote;
pub mod status;

mod desk;
mod hands;

pub use desk::{Desk, Removal, holder, store_failure};
