//! What strangers write: reports of every kind, whole and broken, bombs, and mail that is none of it. All of it comes from
//! a seed. What takes long to make is made once.

use crate::place::{ADDRESS, OURS, now};
use data_encoding::BASE64_MIME;
use formats::DomainName;
use formats::report::{DateRange, pack};
use formats::tlsrpt_record::MailAddress;
use jiff::SignedDuration;
use lab::random::Random;
use sender::report::{Addresses, DkimKey, PreparedReport, Reporter, compose};
use std::io::Write as _;
use std::sync::Arc;

const REPORT: &str = "application/tlsrpt+gzip";

/// What strangers have at hand.
pub struct Messages {
    signers: Vec<Arc<DkimKey>>,
    blanks: Vec<u8>,
    small_blanks: Vec<u8>,
    values: Vec<u8>,
    zip: Vec<u8>,
    zips: Vec<u8>,
    elements: Vec<u8>,
    details: Vec<Vec<u8>>,
    random: Vec<u8>,
}

/// A report about our domain as text, of one of the last 20 days.
pub fn report(id: &str, sender: &str, dice: &mut Random) -> String {
    let day = DateRange::utc_day(now() - SignedDuration::from_hours(24 * (1 + dice.below(20) as i64)));
    let (good, failed) = (dice.below(1000), if dice.chance(20) { dice.below(5) } else { 0 });
    let details: Vec<String> = (0..failed)
        .map(|number| format!(r#"{{"result-type":"certificate-expired","sending-mta-ip":"198.51.100.{number}","receiving-mx-hostname":"mx{number}.{OURS}","receiving-ip":"203.0.113.{number}","failed-session-count":1}}"#))
        .collect();
    format!(
        r#"{{"organization-name":"{sender}","date-range":{{"start-datetime":"{}","end-datetime":"{}"}},"contact-info":"tls@{sender}","report-id":"{id}","policies":[{{"policy":{{"policy-type":"sts","policy-string":["version: STSv1","mode: testing","mx: mx.{OURS}","max_age: 604800"],"policy-domain":"{OURS}","mx-host":["mx.{OURS}"]}},"summary":{{"total-successful-session-count":{good},"total-failure-session-count":{failed}}},"failure-details":[{}]}}]}}"#,
        day.start,
        day.end,
        details.join(",")
    )
}

/// A report mail as a sender makes it, signed.
pub fn signed(key: &DkimKey, id: &str, dice: &mut Random) -> Vec<u8> {
    let text = report(id, key.domain.as_str(), dice);
    let read = formats::report::Report::read(text.as_bytes()).unwrap().report;
    let prepared = PreparedReport {
        domain: DomainName::parse(OURS).unwrap(),
        day: read.date_range,
        report_id: id.to_owned(),
        packed: pack(text.as_bytes()).unwrap(),
    };
    let from = MailAddress::parse(&format!("tls@{}", key.domain)).unwrap();
    let reporter = Reporter {
        organization: key.domain.to_string(),
        contact: from.clone(),
        from,
        addresses: Addresses::Full,
    };
    let to = MailAddress::parse(ADDRESS).unwrap();
    compose(&prepared, &reporter, &to, std::slice::from_ref(key), now()).unwrap().message
}

/// A mail with one part, in base64.
fn mail(kind: &str, content: &[u8]) -> Vec<u8> {
    let head = format!(
        "From: tls@anybody.example\r\nTLS-Report-Domain: {OURS}\r\nTLS-Report-Submitter: anybody.example\r\nSubject: Report\r\n\
         MIME-Version: 1.0\r\nContent-Type: {kind}\r\nContent-Transfer-Encoding: base64\r\n\r\n"
    );
    [head.into_bytes(), BASE64_MIME.encode(content).into_bytes(), b"\r\n".to_vec()].concat()
}

fn zip(members: impl Iterator<Item = (String, Vec<u8>)>) -> Vec<u8> {
    let mut zip = zip::ZipWriter::new(std::io::Cursor::new(Vec::new()));
    for (name, bytes) in members {
        zip.start_file(name, zip::write::SimpleFileOptions::default()).unwrap();
        zip.write_all(&bytes).unwrap();
    }
    zip.finish().unwrap().into_inner()
}

/// The XML of a DMARC report with these records.
fn dmarc(id: u64, records: &str) -> String {
    let begin = now().as_second() / 86_400 * 86_400 - 86_400;
    format!(
        "<?xml version=\"1.0\"?><feedback><report_metadata><org_name>x</org_name><email>d@anybody.example</email><report_id>{id}</report_id>\
         <date_range><begin>{begin}</begin><end>{}</end></date_range></report_metadata><policy_published><domain>{OURS}</domain><p>none</p>\
         </policy_published>{records}</feedback>",
        begin + 86_399
    )
}

/// A valid report of 90,000 failures.
fn many_details(id: usize, dice: &mut Random) -> Vec<u8> {
    let details = (0..90_000).map(|number| {
        format!(
            r#"{{"result-type":"certificate-expired","receiving-mx-hostname":"mx{number}.{OURS}","failed-session-count":1}}"#
        )
    });
    let details = details.collect::<Vec<_>>().join(",");
    let report = report(&format!("many-{id}"), "anybody.example", dice);
    let (start, _) = report.split_once("\"failure-details\":").unwrap();
    pack(format!("{start}\"failure-details\":[{details}]}}]}}").as_bytes()).unwrap()
}

const RECORD: &str = "<record><row><source_ip>203.0.113.7</source_ip><count>3</count><policy_evaluated><disposition>none</disposition>\
                      <dkim>pass</dkim><spf>fail</spf></policy_evaluated></row><identifiers><header_from>ours.test</header_from></identifiers></record>";

impl Messages {
    pub fn new(signers: Vec<Arc<DkimKey>>, seed: u64) -> Self {
        let mut dice = Random::new(seed);
        let start = b"{\"report-id\":\"1\",\"policies\":[";
        let blanks = |bytes: usize| pack(&[start.to_vec(), vec![b' '; bytes]].concat()).unwrap();
        let values = format!("{{\"report-id\":\"1\",\"policies\":[{}0]}}", "{},".repeat(4_000_000));
        let bomb = vec![b' '; 8 << 20];
        let inner = zip((0..20).map(|number| (format!("{number}.json"), bomb.clone())));
        let outer = zip((0..10).map(|number| (format!("{number}.zip"), inner.clone())));
        let elements = dmarc(1, &"<a><b/></a>".repeat(400_000));
        Self {
            signers,
            blanks: blanks(60 << 20),
            small_blanks: blanks(1 << 20),
            values: pack(values.as_bytes()).unwrap(),
            zip: inner,
            zips: outer,
            elements: pack(elements.as_bytes()).unwrap(),
            details: (0..4).map(|number| many_details(number, &mut dice)).collect(),
            random: (0..1 << 17).flat_map(|_| dice.value().to_le_bytes()).collect(),
        }
    }

    fn id(dice: &mut Random) -> String {
        format!("{:016x}", dice.value())
    }

    /// A compressed report that nobody has signed.
    pub fn report(&self, dice: &mut Random) -> Vec<u8> {
        pack(report(&Self::id(dice), "anybody.example", dice).as_bytes()).unwrap()
    }

    /// A valid report with as many failures as one may have, each at a host of its own.
    pub fn details(&self, dice: &mut Random) -> Vec<u8> {
        mail(REPORT, &self.details[dice.below(self.details.len())])
    }

    pub fn unsigned(&self, dice: &mut Random) -> Vec<u8> {
        mail(REPORT, &self.report(dice))
    }

    /// A stranger who signs with a domain of their own.
    pub fn signed_by_a_stranger(&self, dice: &mut Random) -> Vec<u8> {
        signed(&self.signers[dice.below(self.signers.len())], &Self::id(dice), dice)
    }

    /// The same signature over other numbers.
    pub fn forged(&self, dice: &mut Random) -> Vec<u8> {
        let mail = String::from_utf8(self.signed_by_a_stranger(dice)).unwrap();
        mail.replace("aggregate TLS report", "aggregate TLS rep0rt").into_bytes()
    }

    pub fn broken(&self, dice: &mut Random) -> Vec<u8> {
        let mut report = self.report(dice);
        match dice.below(3) {
            0 => report.truncate(report.len() / 2),
            1 => {
                let place = 20 + dice.below(report.len() - 20);
                report[place] ^= 0x55;
            }
            _ => report = pack(b"{\"report-id\":\"1\",\"policies\":[{\"policy\":").unwrap(),
        }
        mail(REPORT, &report)
    }

    pub fn noise(&self, dice: &mut Random) -> Vec<u8> {
        let most = if dice.chance(10) { self.random.len() / 2 } else { 20_000 };
        let size = 1000 + dice.below(most);
        let start = dice.below(self.random.len() - size);
        mail(REPORT, &self.random[start..start + size])
    }

    pub fn blanks(&self, _: &mut Random) -> Vec<u8> {
        mail(REPORT, &self.blanks)
    }

    pub fn small_blanks(&self, _: &mut Random) -> Vec<u8> {
        mail(REPORT, &self.small_blanks)
    }

    pub fn values(&self, _: &mut Random) -> Vec<u8> {
        mail(REPORT, &self.values)
    }

    /// The same as a file.
    pub fn values_file(&self, _: &mut Random) -> Vec<u8> {
        self.values.clone()
    }

    pub fn blanks_file(&self, _: &mut Random) -> Vec<u8> {
        self.blanks.clone()
    }

    pub fn zip(&self, _: &mut Random) -> Vec<u8> {
        mail("application/zip; name=\"report.json.zip\"", &self.zip)
    }

    pub fn zips(&self, _: &mut Random) -> Vec<u8> {
        mail("application/zip; name=\"report.json.zip\"", &self.zips)
    }

    pub fn multiparts(&self, dice: &mut Random) -> Vec<u8> {
        let start = "From: a@anybody.example\r\nTLS-Report-Domain: ours.test\r\nContent-Type: multipart/mixed; boundary=b\r\n\r\n";
        let part = "--b\r\nContent-Type: multipart/mixed; boundary=b\r\n\r\n";
        (start.to_owned() + &part.repeat(1000 + dice.below(20_000))).into_bytes()
    }

    pub fn messages(&self, dice: &mut Random) -> Vec<u8> {
        let level = "Content-Type: message/rfc822\r\n\r\n";
        ("TLS-Report-Domain: ours.test\r\n".to_owned() + &level.repeat(1000 + dice.below(20_000)))
            .into_bytes()
    }

    /// More reports in one mail than are read.
    pub fn many(&self, dice: &mut Random) -> Vec<u8> {
        let mut text =
            "From: a@anybody.example\r\nContent-Type: multipart/mixed; boundary=b\r\n\r\n".to_owned();
        for _ in 0..120 {
            let part = report(&Self::id(dice), "anybody.example", dice);
            text += &format!("--b\r\nContent-Type: application/tlsrpt+json\r\n\r\n{part}\r\n");
        }
        (text + "--b--\r\n").into_bytes()
    }

    pub fn header(&self, dice: &mut Random) -> Vec<u8> {
        let line = "DKIM-Signature: v=1; a=rsa-sha256; d=anybody.example; s=s; h=from; bh=YQ==; b=YQ==\r\n";
        (line.repeat(1000 + dice.below(50_000)) + "\r\nhi\r\n").into_bytes()
    }

    pub fn dmarc(&self, dice: &mut Random) -> Vec<u8> {
        let text = dmarc(dice.value(), &RECORD.repeat(1 + dice.below(50)));
        mail(
            "application/gzip; name=\"anybody.example!ours.test!1!2.xml.gz\"",
            &pack(text.as_bytes()).unwrap(),
        )
    }

    pub fn broken_dmarc(&self, dice: &mut Random) -> Vec<u8> {
        let mut text = dmarc(dice.value(), RECORD);
        match dice.below(2) {
            0 => text.truncate(text.len() / 2),
            _ => {
                let entity = "<!DOCTYPE f [<!ENTITY a \"aaaaaaaaaa\"><!ENTITY b \"&a;&a;&a;&a;&a;&a;&a;\">]><feedback>&b;";
                text = text.replacen("<feedback>", entity, 1);
            }
        }
        mail("application/xml; name=\"anybody.example!ours.test!1!2.xml\"", text.as_bytes())
    }

    pub fn elements(&self, _: &mut Random) -> Vec<u8> {
        mail("application/gzip; name=\"anybody.example!ours.test!1!2.xml.gz\"", &self.elements)
    }

    pub fn bounce(&self, dice: &mut Random) -> Vec<u8> {
        let inner = String::from_utf8(self.unsigned(dice)).unwrap();
        format!(
            "From: <>\r\nContent-Type: multipart/report; report-type=delivery-status; boundary=b\r\n\r\n--b\r\nContent-Type: text/plain\r\n\r\nno such user\r\n\
             --b\r\nContent-Type: message/delivery-status\r\n\r\nReporting-MTA: dns; x\r\n\r\nAction: failed\r\n\r\n--b\r\nContent-Type: message/rfc822\r\n\r\n{inner}\r\n--b--\r\n"
        )
        .into_bytes()
    }

    pub fn letter(&self, dice: &mut Random) -> Vec<u8> {
        format!("From: a@anybody.example\r\nSubject: offer {}\r\n\r\nbuy now\r\n", dice.value()).into_bytes()
    }
}
