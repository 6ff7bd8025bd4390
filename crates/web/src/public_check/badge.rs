//! The badge of a domain as SVG, for pages of its owner: how the domain is protected, as the last public check found it.

use check::Protection;
use formats::markup::escaped;

/// Height of the badge in pixels.
const HEIGHT: u32 = 20;
/// Space on both sides of each text in pixels.
const MARGIN: u32 = 7;
/// The text on the left.
const LABEL: &str = "MTA-STS";

/// The badge for a protection; `None` for a domain that was not checked.
pub fn badge(domain: &str, protection: Option<Protection>) -> String {
    let value = protection.map_or("not checked", Protection::label);
    let color = color(protection);
    let (label_width, value_width) = (width(LABEL) + 2 * MARGIN, width(value) + 2 * MARGIN);
    let whole = label_width + value_width;
    let title = escaped(&format!("TLS for mail to {domain}: {value}"));
    let (label_at, value_at) = (label_width / 2, label_width + value_width / 2);
    format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{whole}\" height=\"{HEIGHT}\" role=\"img\" aria-label=\"{title}\">\
         <title>{title}</title>\
         <clipPath id=\"r\"><rect width=\"{whole}\" height=\"{HEIGHT}\" rx=\"3\"/></clipPath>\
         <g clip-path=\"url(#r)\"><rect width=\"{label_width}\" height=\"{HEIGHT}\" fill=\"#3b4754\"/>\
         <rect x=\"{label_width}\" width=\"{value_width}\" height=\"{HEIGHT}\" fill=\"{color}\"/></g>\
         <g fill=\"#fff\" text-anchor=\"middle\" font-family=\"Verdana,DejaVu Sans,sans-serif\" font-size=\"11\">\
         <text x=\"{label_at}\" y=\"14\">{LABEL}</text><text x=\"{value_at}\" y=\"14\">{}</text></g></svg>\n",
        escaped(value)
    )
}

/// White text on each color has a contrast of 4.5 or more (WCAG 2.2, 1.4.3).
fn color(protection: Option<Protection>) -> &'static str {
    match protection {
        Some(Protection::Enforced | Protection::Dane) => "#176a45",
        Some(Protection::EnforcedWithWarnings | Protection::Testing) => "#7a4f00",
        Some(Protection::Errors | Protection::None) => "#b3261e",
        Some(Protection::NoMail | Protection::NoSuchDomain | Protection::Unknown) | None => "#526070",
    }
}

/// The width of a text in pixels, at 11 pixels of a wide typeface.
fn width(text: &str) -> u32 {
    u32::try_from(text.chars().count()).unwrap_or_default().saturating_mul(7)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_badge_is_xml_that_names_domain_and_protection() {
        for protection in Protection::ALL.into_iter().map(Some).chain([None]) {
            let svg = badge("xn--bcher-kva.example", protection);
            let label = protection.map_or("not checked", Protection::label);
            assert!(svg.contains(&format!(": {label}</title>")), "{svg}");
            assert!(svg.contains("xn--bcher-kva.example"), "{svg}");
            assert_eq!(svg.matches('<').count(), svg.matches('>').count(), "{svg}");
        }
        let hostile = badge("\"><script>", None);
        assert!(!hostile.contains("<script>"), "{hostile}");
    }

    #[test]
    fn white_text_is_readable_on_every_color() {
        let channel = |hex: &str| {
            let value = f64::from(u8::from_str_radix(hex, 16).unwrap()) / 255.0;
            if value <= 0.039_28 { value / 12.92 } else { ((value + 0.055) / 1.055).powf(2.4) }
        };
        for protection in Protection::ALL.into_iter().map(Some).chain([None]) {
            let hex = color(protection);
            let light =
                0.2126 * channel(&hex[1..3]) + 0.7152 * channel(&hex[3..5]) + 0.0722 * channel(&hex[5..7]);
            assert!(1.05 / (light + 0.05) >= 4.5, "{hex}");
        }
    }
}
