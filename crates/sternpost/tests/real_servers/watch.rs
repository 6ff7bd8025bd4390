//! `[guard]` over a domain of the lab, with real names and a webhook: an MX host that the policy does not
//! name is told and, where that is allowed, repaired; what is over is told too.

use crate::ground::Ground;
use crate::support::{daemon, in_a_room_of_its_own, shell, until};
use std::path::Path;

/// Takes what is POSTed, one body a line.
const WEBHOOK: &str = "
import http.server, sys
class Hook(http.server.BaseHTTPRequestHandler):
    def do_POST(self):
        body = self.rfile.read(int(self.headers['content-length'])).decode()
        open(sys.argv[1], 'a').write(body + '\\n')
        self.send_response(204); self.end_headers()
    def log_message(self, *args): pass
http.server.HTTPServer(('127.0.0.1', 8099), Hook).serve_forever()
";

fn told(path: &Path) -> Vec<serde_json::Value> {
    let text = std::fs::read_to_string(path).unwrap_or_default();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[test]
fn an_mx_host_past_the_plan_is_told_to_the_webhook_with_its_remedy_and_so_is_its_end() {
    in_a_room_of_its_own(|| {
        let place = tempfile::tempdir().unwrap();
        let mut ground = Ground::new(place.path(), &["good-enforce", "good-testing"], "good-enforce");
        let alerts = place.path().join("alerts");
        let mails = place.path().join("mails");
        std::fs::write(place.path().join("hook.py"), WEBHOOK).unwrap();
        ground.configure(
            "",
            "[[domain]]\nname = \"good-enforce.test\"\n[guard]\nevery = 1\nwebhook = \"http://127.0.0.1:8099/\"\n\
             mail = [\"ops@example.org\"]\nmail_from = \"sternpost@example.org\"\nmail_deliver = \"folder:mails\"\n[metrics]\nlisten = \"127.0.0.1:8463\"\n[answers]\n",
        );
        // The first look takes what is there into the standing.
        let planned = ground.operator("plan good-enforce.test");
        assert!(planned.contains("as wanted (enforce)"), "{planned}");
        ground.run();
        until("the guard watches", || ground.log().contains("the guard watches"));
        let record = "good-enforce.test. 300 IN MX 10 mx1.good-enforce.test.";
        let other = "good-enforce.test. 300 IN MX 20 mx1.good-testing.test.";
        ground.names.change("good-enforce.test.", record, &format!("{record}\n{other}"));
        let is = |event: &str, kind: &str| {
            told(&alerts).into_iter().find(|told| told["event"] == event && told["alert"]["kind"] == kind)
        };
        // News waits for a webhook that is away.
        until("the webhook is missed", || ground.log().contains("the webhook can't be reached"));
        let metrics = shell("curl -s http://127.0.0.1:8463/metrics");
        for line in [
            "sternpost_alerts{kind=\"mx-uncovered\"} 1",
            "sternpost_alerts{kind=\"record-gone\"} 0",
            "sternpost_domain_alerts{domain=\"good-enforce.test\",kind=\"mx-uncovered\"} 1",
        ] {
            assert!(metrics.contains(line), "{line}: {metrics}");
        }
        until("it is mailed", || std::fs::read_dir(&mails).is_ok_and(|files| files.count() > 0));
        let mail = shell(&format!("cat {}/*.eml", mails.display()));
        assert!(mail.contains("good-enforce.test") && mail.contains("What to do:"), "{mail}");
        let _hook = daemon(
            &format!("python3 {}/hook.py {}", place.path().display(), alerts.display()),
            &place.path().join("hook.log"),
        );
        until("the alert comes", || is("raised", "mx-uncovered").is_some());
        let alert = is("raised", "mx-uncovered").unwrap();
        assert_eq!(alert["domain"], "good-enforce.test");
        assert!(alert["alert"]["remedy"].as_str().unwrap().contains("sternpost apply good-enforce.test"));
        assert!(ground.log().contains("mx1.good-testing.test is an MX host"), "{}", ground.log());
        ground.names.change("good-enforce.test.", &format!("{other}\n"), "");
        until("its end is told", || is("over", "mx-uncovered").is_some());
        // Told once each, however often it was looked at.
        let raised = told(&alerts)
            .iter()
            .filter(|told| told["event"] == "raised" && told["alert"]["kind"] == "mx-uncovered")
            .count();
        assert_eq!(raised, 1);
    });
}
