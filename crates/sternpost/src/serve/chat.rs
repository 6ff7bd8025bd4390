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
            let text = format!("{}\n{}", title(event), text(event, escaped_bytes));
            let text = plain(&text).replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;");
            Message::json(json!({ "text": text }).to_string())
        }
        WebhookFormat::Teams => Message::json(card(event).to_string()),
        WebhookFormat::Ntfy => Message {
            kind: "text/plain; charset=utf-8",
            title: Some(title(event).chars().map(|c| if c.is_ascii_graphic() { c } else { ' ' }).collect()),
            body: text(event, char::len_utf8),
        },
    }
}

/// A text in which the words of mail servers and of DNS, which strangers choose, neither call people nor show links and pictures.
/// The characters stay; a space without width is between them.
fn plain(text: &str) -> String {
    text.replace('@', "@\u{200b}").replace("](", "]\u{200b}(")
}

/// The bytes of a character in a message whose markup is escaped.
fn escaped_bytes(c: char) -> usize {
    match c {
        '&' | '@' => 5,
        '<' | '>' | '(' => 4,
        other => other.len_utf8(),
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
                "body": [block(plain(&title(event)), "Bolder"), block(plain(&text(event, escaped_bytes)), "Default")],
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

/// What was found, and, unless it is over, the consequence and what to do. It is cut by the bytes that each character takes.
fn text(event: &Event, bytes: fn(char) -> usize) -> String {
    let alert = &event.alert;
    let domains = concerned(event, MAX_DOMAINS);
    let text = match event.event {
        EventKind::Raised => {
            format!("{domains}: {}.\n{}\nWhat to do: {}", alert.what, alert.consequence, alert.remedy)
        }
        EventKind::Over => format!("{domains}: {}.", alert.what),
    };
    if text.chars().map(bytes).sum::<usize>() <= MAX_BYTES {
        return text;
    }
    let mut left = MAX_BYTES;
    let fits = |c: &char| {
        let rest = left.checked_sub(bytes(*c));
        left = rest.unwrap_or_default();
        rest.is_some()
    };
    text.chars().take_while(fits).chain(['…']).collect()
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
            tenant: None,
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
    fn strangers_call_nobody_and_show_no_links_and_pictures() {
        let event = event(EventKind::Raised, "the host said: 554 @channel ![x](https://evil.example/x.png)");
        for format in [WebhookFormat::Text, WebhookFormat::Teams] {
            let body = message(format, &event).body;
            assert!(!body.contains("@channel") && !body.contains("]("), "{format:?}: {body}");
            assert!(body.contains("channel ![x]"), "{format:?}: {body}");
        }
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
            for hostile in ["ä", "&", "<", "@", "]("] {
                let post = message(format, &event(EventKind::Raised, &hostile.repeat(100_000)));
                assert!(post.body.len() < 4096, "{format:?} {hostile}: {}", post.body.len());
            }
        }
    }

    #[test]
    fn programs_get_the_whole_event() {
        let event = event(EventKind::Raised, "what");
        let post = message(WebhookFormat::Json, &event);
        assert_eq!(serde_json::from_str::<Event>(&post.body).unwrap(), event);
    }
}
