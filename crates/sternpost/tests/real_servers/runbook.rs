//! The blocks of docs/runbook.md that need a mail server, with Postfix 3.7: mail that is queued since the MX host's certificate
//! has expired, the override that lets it out, and the way back. `tests/runbook.rs` runs all other blocks.

#[path = "../runbook/page.rs"]
pub mod page;

use crate::ground::{Ground, block};
use crate::postfix::{Postfix, Release};
use crate::support::{in_a_room_of_its_own, shell, until};
use lab::pki::Cert;
use page::{Block, compare, domain, fits, masked, section};

const LISTEN: &str = "listen = [\"127.0.0.1:8461\"]\n";
const TO: &str = "b@partner.example";

/// The blocks of a section with this mark, in order.
fn blocks(number: u32, mark: &str) -> Vec<Block> {
    section(number).into_iter().filter(|block| block.mark == mark).collect()
}

/// Runs the commands of a block, with this ID in place of QUEUE_ID.
fn run(block: &Block, id: &str) {
    for shown in block.commands() {
        let printed = shell(&shown.command.replace("QUEUE_ID", id));
        compare(&shown.output, &printed).unwrap_or_else(|both| panic!("$ {}\n{both}", shown.command));
    }
}

fn assert_logged(block: &Block, log: &str) {
    for line in block.text.lines().map(masked) {
        assert!(log.lines().any(|logged| fits(&line, &masked(logged))), "{line}\n{log}");
    }
}

#[test]
fn queued_mail_is_explained_and_goes_out_by_an_override() {
    in_a_room_of_its_own(|| {
        let place = tempfile::tempdir().unwrap();
        let mut partner = domain("partner.example");
        partner.setup.mx[0].cert = Cert::Expired;
        let mut ground = Ground::of(443, place.path(), &[partner], "");
        let postfix = Postfix::start(Release::V3_7, place.path(), &block("postfix.md", "main.cf 3.4"));
        ground.serve(LISTEN);
        let log = postfix.send(TO);
        let (queue, lines) = (blocks(5, "console postfix"), blocks(5, "log postfix"));
        assert_eq!((queue.len(), lines.len()), (1, 1));
        run(&queue[0], "");
        assert_logged(&lines[0], &log);

        let answer = |text: &str| {
            until(text, || ground.operator("query --cached partner.example").contains(text));
        };
        let overrides = blocks(6, "toml");
        ground.configure("", &format!("[answers]\n{LISTEN}{}", overrides[0].text));
        ground.reload();
        answer("Reply to Postfix: OK encrypt");
        let (retry, lines) = (blocks(6, "console postfix"), blocks(6, "log postfix"));
        assert_eq!((retry.len(), lines.len()), (1, 1));
        let queued = shell("postqueue -p");
        let id = queued.lines().nth(1).and_then(|line| line.split(' ').next()).unwrap();
        let log = postfix.after(TO, || run(&retry[0], id));
        assert_logged(&lines[0], &log);
        assert_eq!(ground.lab.mail_traffic.take_received().len(), 1);

        // Without the override the policy holds again.
        ground.configure("", &format!("[answers]\n{LISTEN}"));
        ground.reload();
        answer("decided by mta-sts");
        assert!(postfix.send(TO).contains("status=deferred"));
    });
}
