//! A man in the middle (RFC 3552 §3.3): an attacker on the path, without any of the lab's keys.
//!
//! [`DnsProxy`] stands between a resolver and its client. It may drop, delay, replay, forge and change every response,
//! and whatever is signed stays protected by its signature alone. [`HttpsProxy`] stands between a sender and the policy
//! hosts; TLS leaves it the choice to cut the connection or to present a certificate of its own. Both forward
//! faithfully until they get attacks ([`DnsAttack`], [`HttpsAttack`]), and both write what went by into a
//! [`crate::traffic::Traffic`]. [`Planner`] makes attacks from a seed. Begin reading in `attack`.

mod attack;
mod change;
mod dns;
mod https;
mod plan;

pub use attack::{Authority, DnsAttack, DnsChange, HttpsAttack, HttpsChange, Proof, Rule, Target, When};
pub use dns::DnsProxy;
pub use hickory_proto::op::ResponseCode;
pub use hickory_proto::rr::RecordType;
pub(crate) use https::client_hello;
pub use https::{Attacker, HttpsProxy};
pub use plan::{Planner, Surroundings};
