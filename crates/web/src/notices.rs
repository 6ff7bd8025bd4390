//! Notices of the last action, which a redirect hands to the next page in its query (`layout::redirect_with_notice`).
//! They look like words of the dashboard, so a link from a third party must not contain one: the redirect signs its
//! notice for the session, and a notice without that signature is removed from the query before a page reads it.

use crate::signer::Signer;
use crate::visitor::CurrentSession;
use axum::http::header::LOCATION;
use axum::http::uri::PathAndQuery;
use axum::http::{HeaderValue, Uri};
use axum::response::Response;

/// The purpose that the signature is bound to.
const PURPOSE: &str = "notice";
/// The parameter with the notice (`layout::NoticeParam`).
const NOTICE: &str = "said";
/// The parameter with its signature.
const SIGNATURE: &str = "by";

/// The response, with a signature if it redirects with a notice.
pub fn sign(signer: &Signer, session: &CurrentSession, mut response: Response) -> Response {
    let marker = format!("?{NOTICE}=");
    let signed = response.headers().get(LOCATION).and_then(|to| to.to_str().ok()).and_then(|to| {
        let (_, notice) = to.split_once(&marker)?;
        let signature = signer.sign(PURPOSE, &[&session.digest, notice]);
        HeaderValue::try_from(format!("{to}&{SIGNATURE}={signature}")).ok()
    });
    if let Some(signed) = signed {
        response.headers_mut().insert(LOCATION, signed);
    }
    response
}

/// The URI without its notice, if the session's own redirect did not make it; `None` if there is nothing to take out.
pub fn without_forged(signer: &Signer, session: &CurrentSession, uri: &Uri) -> Option<Uri> {
    let query = uri.query()?;
    let pairs: Vec<(&str, &str)> =
        query.split('&').map(|pair| pair.split_once('=').unwrap_or((pair, ""))).collect();
    let value = |name: &str| pairs.iter().find(|(key, _)| *key == name).map(|(_, value)| *value);
    // Our own links never encode the name of a parameter.
    let is_notice = |key: &str| key == NOTICE || key.contains(['%', '+']);
    let (notice, signature) = (value(NOTICE).unwrap_or_default(), value(SIGNATURE).unwrap_or_default());
    let is_own = pairs.iter().filter(|(key, _)| is_notice(key)).all(|(key, _)| *key == NOTICE)
        && signer.is_signed(PURPOSE, &[&session.digest, notice], signature);
    if is_own || !pairs.iter().any(|(key, _)| is_notice(key)) {
        return None;
    }
    let kept: Vec<&str> =
        query.split('&').filter(|pair| !is_notice(pair.split('=').next().unwrap_or_default())).collect();
    let mut parts = uri.clone().into_parts();
    let path = format!("{}?{}", uri.path(), kept.join("&"));
    parts.path_and_query = Some(PathAndQuery::try_from(path).ok()?);
    Uri::from_parts(parts).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::layout::redirect_with_notice;
    use axum::response::IntoResponse;
    use store::Tenant;

    fn session(digest: &str) -> CurrentSession {
        CurrentSession { tenant: Tenant::FIRST, digest: digest.to_owned() }
    }

    #[test]
    fn a_notice_is_shown_to_the_session_whose_action_made_it_and_to_no_other() {
        let signer = Signer::new("key");
        let redirect = sign(&signer, &session("a"), redirect_with_notice("/account", "Done: 1 & 2."));
        let to: Uri = redirect.headers()[LOCATION].to_str().unwrap().parse().unwrap();
        assert_eq!(without_forged(&signer, &session("a"), &to), None);
        let other = without_forged(&signer, &session("b"), &to).unwrap();
        assert!(other.path() == "/account" && !other.to_string().contains("said"), "{other}");
        let plain = sign(&signer, &session("a"), axum::response::Redirect::to("/x").into_response());
        assert_eq!(plain.headers()[LOCATION], "/x");
    }

    #[test]
    fn a_notice_of_a_link_is_taken_out_and_other_parameters_stay() {
        let signer = Signer::new("key");
        let signature = signer.sign(PURPOSE, &["a", "x"]);
        for (query, kept) in [
            ("said=Your+session", ""),
            ("s%61id=x&page=2", "page=2"),
            ("page=2&said=x&q=a%20b", "page=2&q=a%20b"),
            ("said=x&by=y", "by=y"),
            (&*format!("said=x&by={signature}&s%61id=y"), &*format!("by={signature}")),
            (&*format!("said=y&by={signature}"), &*format!("by={signature}")),
            ("said=x&said=y", ""),
        ] {
            let uri =
                without_forged(&signer, &session("a"), &format!("/p?{query}").parse().unwrap()).unwrap();
            assert_eq!(uri.to_string(), format!("/p?{kept}"), "{query}");
        }
        for query in ["", "?page=2&q=a%20b", "?", "?by=x"] {
            let uri = format!("/p{query}").parse().unwrap();
            assert_eq!(without_forged(&signer, &session("a"), &uri), None, "{query}");
        }
    }
}
