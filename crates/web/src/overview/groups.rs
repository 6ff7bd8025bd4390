//! The groups of domains that need action, as the pages show them: what is wrong, what to do, and a button or a command.

use super::OverviewQuery;
use crate::judge::{Mark, StepCause, Urgency};
use crate::snapshot::Group;
use crate::text;
use jiff::Timestamp;

/// Domains that a group names.
const NAMED_DOMAINS: usize = 3;
/// Domains in a command to paste.
const COMMAND_DOMAINS: usize = 20;

/// A group of domains that need action, as it is shown.
pub struct GroupView {
    pub mark: Mark,
    /// True for the first group, whose button is the one that stands out.
    pub is_first: bool,
    pub what: String,
    pub means: String,
    pub remedy: String,
    /// A command to paste; empty if there is none.
    pub command: String,
    /// The label and the link of the step; `None` if there is none.
    pub button: Option<(String, String)>,
    pub since: Option<Timestamp>,
    pub named: Vec<String>,
    /// The number of domains that are not named.
    pub further: usize,
    /// The link to all of its domains.
    pub link: String,
}

/// The first groups as they are shown.
pub fn group_views(groups: &[Group], most: usize) -> Vec<GroupView> {
    let view = |(place, group)| GroupView { is_first: place == 0, ..group_view(group) };
    groups.iter().take(most).enumerate().map(view).collect()
}

/// The group as it is shown.
pub fn group_view(group: &Group) -> GroupView {
    let link = match group.domains.as_slice() {
        [one] => format!("/domains/{one}"),
        _ => OverviewQuery { cause: group.id.clone(), ..OverviewQuery::default() }.link(&[]),
    };
    let button = match (group.step, group.domains.len()) {
        (_, 0) => Some(("Open the quarantine".to_owned(), "/quarantine".to_owned())),
        (Some(StepCause::Approve), 1) => {
            Some(("Approve enforcement".to_owned(), format!("{link}#next-step")))
        }
        (Some(StepCause::Approve), _) => Some(("Review and approve".to_owned(), link.clone())),
        (Some(StepCause::Decide), 1) => Some(("Decide".to_owned(), format!("{link}#rollout"))),
        (Some(StepCause::Failures), 1) => Some(("See the failures".to_owned(), format!("{link}#failures"))),
        (Some(StepCause::Alert), 1) => Some(("See the alert".to_owned(), format!("{link}#alerts"))),
        // The page of a damaged domain can't be shown.
        (Some(StepCause::Damaged), 1) => None,
        (Some(StepCause::SetUp | StepCause::Apply), _) | (None, _) => None,
        (_, many) => Some((format!("See the {}", text::counted(many, "domain")), link.clone())),
    };
    GroupView {
        mark: match group.need {
            Urgency::Failing => Mark("failing", "✗ Mail at risk"),
            _ => Mark("waiting", "! Action needed"),
        },
        is_first: false,
        what: group.what.clone(),
        means: group.means.clone(),
        remedy: group.remedy.clone(),
        command: match group.step {
            Some(StepCause::SetUp | StepCause::Apply) => command(&group.domains),
            _ => String::new(),
        },
        button,
        since: group.since,
        named: group.domains.iter().take(NAMED_DOMAINS).cloned().collect(),
        further: group.domains.len().saturating_sub(NAMED_DOMAINS),
        link,
    }
}

/// The command that carries out the plans of these domains.
fn command(domains: &[String]) -> String {
    match domains.len() {
        0..=COMMAND_DOMAINS => format!("sternpost apply {}", domains.join(" ")),
        _ => "sternpost apply".to_owned(),
    }
}
