//! What the demo claims, what it observed, and how both are shown.

use crate::terminal::{marks, say};
use config::failure::Exit;
use std::path::PathBuf;
use std::time::Instant;

/// The whole demo.
#[derive(Debug, serde::Serialize)]
pub struct Playbill {
    /// Version of this shape; documented in `docs/demo.md`.
    schema: u32,
    /// True when each claim held.
    ok: bool,
    /// What was left behind.
    folder: PathBuf,
    /// How long it took.
    seconds: f64,
    acts: Vec<Act>,
    #[serde(skip)]
    aloud: bool,
    #[serde(skip)]
    begun: Instant,
}

/// One of its parts.
#[derive(Debug, serde::Serialize)]
pub struct Act {
    pub(super) number: usize,
    pub(super) title: &'static str,
    pub(super) claims: Vec<Claim>,
}

/// Something that was observed to hold, or not.
#[derive(Debug, serde::Serialize)]
pub struct Claim {
    pub(super) claim: String,
    pub(super) held: bool,
    /// What was seen.
    pub(super) evidence: String,
}

impl Playbill {
    pub(super) fn new(folder: PathBuf, aloud: bool) -> Self {
        Self { schema: 1, ok: false, folder, seconds: 0.0, acts: Vec::new(), aloud, begun: Instant::now() }
    }

    pub(super) fn act(&mut self, title: &'static str) {
        let number = self.acts.len() + 1;
        self.say(&format!("\n{number}. {title}"));
        self.acts.push(Act { number, title, claims: Vec::new() });
    }

    /// A line of the story.
    pub(super) fn say(&self, line: &str) {
        if self.aloud {
            say(line);
        }
    }

    /// A claim and what was observed about it.
    pub(super) fn claim(&mut self, claim: impl Into<String>, held: bool, evidence: impl Into<String>) {
        let claim = Claim { claim: claim.into(), held, evidence: evidence.into() };
        self.say(&format!("   {} {}", if held { marks().fine } else { marks().error }, claim.claim));
        if !claim.evidence.is_empty() {
            self.say(&format!("       {}", claim.evidence.replace('\n', "\n       ")));
        }
        if let Some(act) = self.acts.last_mut() {
            act.claims.push(claim);
        }
    }

    pub(super) fn acts(&self) -> &[Act] {
        &self.acts
    }

    fn claims(&self) -> impl Iterator<Item = &Claim> {
        self.acts.iter().flat_map(|act| &act.claims)
    }

    /// The last act: what was proved.
    pub(super) fn close(&mut self, keep: bool) {
        let ok = self.claims().all(|claim| claim.held);
        self.ok = ok;
        self.seconds = (self.begun.elapsed().as_secs_f64() * 10.0).round() / 10.0;
        let (held, all) = (self.claims().filter(|claim| claim.held).count(), self.claims().count());
        self.say("\n8. What was proved");
        for act in &self.acts {
            let ok = act.claims.iter().all(|claim| claim.held);
            self.say(&format!(
                "   {} {}. {}",
                if ok { marks().fine } else { marks().error },
                act.number,
                act.title
            ));
        }
        self.say(&format!(
            "\n   {held} of {all} claims held, in {} s. All traffic stayed on loopback.",
            self.seconds
        ));
        self.say(&format!("   Left behind: {}", self.folder.display()));
        if !keep {
            self.say("   Run it with --keep to look at everything with dig, curl and openssl.");
        }
    }

    /// The outcome for scripts.
    pub fn to_json(&self) -> String {
        serde_json::to_string(self).unwrap_or_default()
    }

    /// How the program ends.
    pub fn exit(&self) -> Exit {
        if self.ok { Exit::Fine } else { Exit::Findings }
    }
}
