//! Alerts as services for people take them by webhook (`guard.webhook_format`): chats, and ntfy, which shows messages on
//! phones. Programs take the event as JSON instead. Texts are cut, since the services refuse long messages.

use super::messages::{Event, EventKind, concerned};
use super::webhook::Message;
use config::WebhookFormat;
use serde_json::json;

/// The most bytes of a message in UTF-8. ntfy turns messages of more than 4,096 bytes into attachments.
const MAX_BYTES: usize = 3500;
/// The most domains that a message names.
const MAX_DOMAINS: usize = 10;

/// What is posted about an event.
pub fn message(format: WebhookFormat, event: &Event) -> Message {
    match format {
        WebhookFormat::Json => Message::json(serde_json::to_string(event).unwrap_or_default()),
        // Slack reads these three characters as markup (https://docs.slack.dev/messaging/formatting-message-text); the
        // others show the references as the characters.
        WebhookFormat::Text => {
            let text = format!("{}\n{}", title(event), text(event));
            let text = text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;");
            Message::json(json!({ "text": text }).to_string())
        }
        WebhookFormat::Teams => Message::json(card(event).to_string()),
        WebhookFormat::Ntfy => Message {
            kind: "text/plain; charset=utf-8",
            title: Some(title(event).chars().map(|c| if c.is_ascii_graphic() { c } else { ' ' }).collect()),
            body: text(event),
        },
    }
}

/// A message with an adaptive card (<https://adaptivecards.io/explorer/>).
fn card(event: &Event) -> serde_json::Value {
    let block = |text: String, weight: &str| json!({ "type": "TextBlock", "text": text, "wrap": true, "weight": weight });
    json!({
        "type": "message",
        "attachments": [{
            "contentType": "application/vnd.microsoft.card.adaptive",
            "content": {
                "$schema": "http://adaptivecards.io/schemas/adaptive-card.json",
                "type": "AdaptiveCard",
                "version": "1.4",
                "body": [block(title(event), "Bolder"), block(text(event), "Default")],
            },
        }],
    })
}

/// The first line: which domain, and what about it.
fn title(event: &Event) -> String {
    let over = match event.event {
        EventKind::Raised => "",
        EventKind::Over => "Over: ",
    };
    let subject = &event.alert.subject;
    let about = if subject.is_empty() { String::new() } else { format!(" {subject}") };
    format!("{over}{}: {}{about}", concerned(event, 1), event.alert.kind)
}

/// What was found, and, unless it is over, the consequence and what to do.
fn text(event: &Event) -> String {
    let alert = &event.alert;
    let domains = concerned(event, MAX_DOMAINS);
    let text = match event.event {
        EventKind::Raised => {
            format!("{domains}: {}.\n{}\nWhat to do: {}", alert.what, alert.consequence, alert.remedy)
        }
        EventKind::Over => format!("{domains}: {}.", alert.what),
    };
    if text.len() <= MAX_BYTES {
        return text;
    }
    let fits = |(at, c): &(usize, char)| at + c.len_utf8() <= MAX_BYTES;
    text.char_indices().take_while(fits).map(|(_, c)| c).chain(['…']).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use jiff::Timestamp;
    use receiver::rollout::guard::{Alert, AlertKind};
    use serde_json::Value;

    fn event(event: EventKind, what: &str) -> Event {
        Event {
            schema: 1,
            event,
            domain: "example.org".to_owned(),
            at: Timestamp::UNIX_EPOCH,
            alert: Alert {
                kind: AlertKind::MxUncovered,
                subject: "mx9.example.org".to_owned(),
                what: what.to_owned(),
                consequence: "Senders refuse it.".into(),
                remedy: "sternpost apply example.org".to_owned(),
                cause: None,
                domains: Vec::new(),
            },
        }
    }

    fn value(post: &Message) -> Value {
        serde_json::from_str(&post.body).unwrap()
    }

    #[test]
    fn a_chat_gets_one_text_without_its_markup() {
        let post =
            message(WebhookFormat::Text, &event(EventKind::Raised, "<!channel> & <https://evil.example|x>"));
        assert_eq!(post.kind, "application/json");
        assert_eq!(
            value(&post),
            json!({ "text": "example.org: mx-uncovered mx9.example.org\nexample.org: &lt;!channel&gt; &amp; \
                &lt;https://evil.example|x&gt;.\nSenders refuse it.\nWhat to do: sternpost apply example.org" })
        );
    }

    #[test]
    fn teams_gets_a_card_with_title_and_message() {
        let card = value(&message(WebhookFormat::Teams, &event(EventKind::Over, "it was gone")));
        let content = &card["attachments"][0]["content"];
        assert_eq!(card["attachments"][0]["contentType"], "application/vnd.microsoft.card.adaptive");
        assert_eq!(content["body"][0]["text"], "Over: example.org: mx-uncovered mx9.example.org");
        assert_eq!(content["body"][1]["text"], "example.org: it was gone.");
    }

    #[test]
    fn ntfy_gets_text_and_a_title_that_fits_a_header() {
        let mut event = event(EventKind::Raised, "no TLS");
        event.alert.subject = "mx\r\nX-Evil: ä".to_owned();
        let post = message(WebhookFormat::Ntfy, &event);
        assert_eq!(post.title.as_deref(), Some("example.org: mx-uncovered mx  X-Evil:  "));
        assert!(post.body.starts_with("example.org: no TLS.\nSenders refuse it."), "{}", post.body);
    }

    #[test]
    fn long_texts_are_cut() {
        for format in [WebhookFormat::Text, WebhookFormat::Teams, WebhookFormat::Ntfy] {
            let post = message(format, &event(EventKind::Raised, &"ä".repeat(100_000)));
            assert!(post.body.len() < 4096, "{format:?}: {}", post.body.len());
        }
    }

    #[test]
    fn programs_get_the_whole_event() {
        let event = event(EventKind::Raised, "what");
        let post = message(WebhookFormat::Json, &event);
        assert_eq!(serde_json::from_str::<Event>(&post.body).unwrap(), event);
    }
}
