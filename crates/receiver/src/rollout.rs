//! Moves a domain from no policy to `enforce`, and back to none (RFC 8461 §8). Enforcement begins when reports and
//! probes show that it is safe, not on a fixed date.
//!
//! Input: the desired state from [`crate::domain`], the state observed from outside, and the state kept in the store.
//! Output: steps, which [`Applier`] carries out, and alerts.
//!
//! | module | purpose |
//! | --- | --- |
//! | [`desired`], [`observed`] | the state that the operator wants, and the state that senders see |
//! | [`state`] | pure: the policies that senders may still cache |
//! | [`plan`] | pure: computes the next step, and all remaining stages, from these three states |
//! | [`timeline`] | pure: what time has passed, whatever the wall clock was set to |
//! | [`goal`] | what a plan is carried out for, asked for again before each step |
//! | [`outside`] | what each name server and each address of the policy host shows |
//! | [`undo`] | whether the last change of a record can be undone |
//! | [`Applier`] | carries out steps and verifies each of them from outside |
//! | [`gate`] | pure: decides from reports whether a domain is "ready" for `enforce` or "not yet", with the reasons |
//! | [`decisions`] | the operator's decisions: domains held in testing, causes excused |
//! | [`guard`] | raises alerts about conditions that make senders refuse mail, each with its remedy |
//! | [`reported`] | pure: raises alerts from reports |

pub mod decisions;
pub mod desired;
pub mod gate;
pub mod goal;
pub mod guard;
pub mod observed;
pub mod outside;
pub mod plan;
pub mod reported;
pub mod state;
pub mod timeline;
pub mod undo;

mod apply;
mod observe;
mod recover;
mod visible;

pub use apply::{
    Actor, Applied, Applier, ApplyError, Hosting, NewHosts, Observation, RecordedChange, StepOutcome,
    Verification,
};
pub use observe::{LookupError, MailHosts, mail_hosts, observe};
pub use recover::{CutOff, DroppedChange};
pub use state::RolloutState;
