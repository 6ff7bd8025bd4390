//! The claims of the demo with the evidence for each: printed as they are checked, and serialized for --json
//! (docs/demo.md).

use crate::terminal::{marks, say};
use config::failure::Exit;
use std::path::PathBuf;
use std::time::Instant;

/// The outcome of the demo.
#[derive(Debug, serde::Serialize)]
pub struct Playbill {
    /// The version of this JSON format.
    schema: u32,
    /// True when all claims held.
    ok: bool,
    /// The folder with the files that the demo leaves.
    folder: PathBuf,
    /// Duration in seconds, rounded to tenths.
    seconds: f64,
    acts: Vec<Act>,
    #[serde(skip)]
    aloud: bool,
    #[serde(skip)]
    begun: Instant,
}

/// An act: a title and the claims checked in it.
#[derive(Debug, serde::Serialize)]
pub struct Act {
    pub(super) number: usize,
    pub(super) title: &'static str,
    pub(super) claims: Vec<Claim>,
}

/// A claim, and whether it held.
#[derive(Debug, serde::Serialize)]
pub struct Claim {
    pub(super) claim: String,
    pub(super) held: bool,
    /// What was observed; may be empty.
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

    /// Prints a line, unless --json is given.
    pub(super) fn say(&self, line: &str) {
        if self.aloud {
            say(line);
        }
    }

    /// Records and prints a claim with its evidence, in the current act.
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

    /// Finishes the outcome and prints the summary.
    pub(super) fn close(&mut self, keep: bool) {
        let ok = self.claims().all(|claim| claim.held);
        self.ok = ok;
        self.seconds = (self.begun.elapsed().as_secs_f64() * 10.0).round() / 10.0;
        let (held, all) = (self.claims().filter(|claim| claim.held).count(), self.claims().count());
        self.say("\n8. Summary");
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
        self.say(&format!("   Files: {}", self.folder.display()));
        if !keep {
            self.say("   Use --keep to inspect the servers with dig, curl and openssl.");
        }
    }

    /// The outcome as one line of JSON.
    pub fn to_json(&self) -> String {
        serde_json::to_string(self).unwrap_or_default()
    }

    /// The exit code: success when all claims held, else findings.
    pub fn exit(&self) -> Exit {
        if self.ok { Exit::Fine } else { Exit::Findings }
    }
}
