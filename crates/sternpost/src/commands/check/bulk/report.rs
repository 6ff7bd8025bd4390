//! `--report DIR`: the counts of a list as files to publish. `index.html` is a page without scripts and without external resources,
//! `*.svg` are its charts, each on its own for a paper, `classes.csv` is its main table, and `summary.json` all counts. No file
//! names a domain.

mod chart;

use super::tally::Tally;
use chart::{Bar, bars};
use config::failure::Failure;
use formats::counted::{count as grouped, counted};
use jiff::Timestamp;
use std::fmt::Write;
use std::path::{Path, PathBuf};

/// The files of a report.
const FILES: [&str; 7] = [
    "index.html",
    "classes.svg",
    "modes.svg",
    "findings.svg",
    "first-pass.svg",
    "classes.csv",
    "summary.json",
];

/// Findings in the chart.
const FINDINGS: usize = 15;

const STYLE: &str = "body{font:16px/1.5 system-ui,sans-serif;max-width:52rem;margin:2rem auto;padding:0 1rem;color:#1b1f24;background:#fff}\
h1{font-size:1.5rem;line-height:1.25}h2{margin:2.5rem 0 .5rem;font-size:1.15rem}figure{margin:1rem 0;max-width:40rem}figcaption{color:#57606a;font-size:.9rem}\
svg{width:100%;height:auto}table{border-collapse:collapse;width:100%}td,th{padding:.25rem .5rem;border-top:1px solid #d0d7de;text-align:left;vertical-align:top}\
td.n,th.n{text-align:right;font-variant-numeric:tabular-nums;white-space:nowrap}tr.l0{font-weight:600}tr.l1 td:first-child{padding-left:1.5rem}tr.l2 td:first-child{padding-left:2.5rem}\
code{font-size:.9em}@media(prefers-color-scheme:dark){body{color:#e6edf3;background:#0d1117}td,th{border-color:#30363d}figcaption{color:#8b949e}}\
@media print{body{color:#000;background:#fff}figure,tr{break-inside:avoid}}";

/// A folder for a report, which was found to be usable before the run.
pub struct Report(PathBuf);

impl Report {
    /// Creates the folder. One with other files than those of an earlier report is refused.
    pub fn in_folder(dir: &Path) -> Result<Self, Failure> {
        let fail = |error: std::io::Error| {
            let remedy = "Name a new folder with --report.";
            Failure::usage(format!("the report can't be written to {}", dir.display()), error, remedy)
        };
        std::fs::create_dir_all(dir).map_err(fail)?;
        for entry in std::fs::read_dir(dir).map_err(fail)? {
            let name = entry.map_err(fail)?.file_name();
            if !FILES.iter().any(|file| name == *file) {
                let why = format!("the folder has other files, such as {}", name.display());
                return Err(fail(std::io::Error::other(why)));
            }
        }
        Ok(Self(dir.to_owned()))
    }

    /// Writes the files.
    pub fn write(&self, tally: &Tally, now: Timestamp) -> Result<(), Failure> {
        let charts = charts(tally);
        let mut files: Vec<(&str, String)> =
            charts.iter().map(|chart| (chart.file, chart.svg.clone())).collect();
        files.push(("index.html", page(tally, &charts, now)));
        files.push(("classes.csv", csv(tally)));
        files.push(("summary.json", tally.json() + "\n"));
        for (name, text) in files {
            let path = self.0.join(name);
            std::fs::write(&path, text).map_err(|error| {
                let remedy = "Free space, and run the command again: results in the file of --resume are only counted.";
                Failure::new(format!("{} can't be written", path.display()), error, remedy)
            })?;
        }
        Ok(())
    }
}

struct Chart {
    file: &'static str,
    title: &'static str,
    caption: String,
    svg: String,
}

fn charts(tally: &Tally) -> Vec<Chart> {
    let classes = tally.classes();
    let share = |count: usize, of: usize| count as f64 / of.max(1) as f64;
    let mut all = Vec::new();
    let rows: Vec<Bar> = classes
        .rows()
        .filter(|(class, count)| *count > 0 && class.level < 2)
        .map(|(class, count)| Bar {
            label: class.about.to_owned(),
            share: share(count, classes.domains),
            value: format!("{} ({:.2} %)", grouped(count), classes.percent(count)),
            is_part: class.level > 0,
        })
        .collect();
    let caption = format!(
        "Share of the {} with a record at _mta-sts. A domain counts in each class that it belongs to; the parts of a class \
         are lighter.",
        counted(classes.domains, "domain")
    );
    all.push(Chart {
        file: "classes.svg",
        title: "What is wrong",
        caption,
        svg: bars("What is wrong with MTA-STS", &rows),
    });
    let simple = |rows: Vec<(String, usize)>, of: usize| -> Vec<Bar> {
        let bar = |(label, count): (String, usize)| Bar {
            label,
            share: share(count, of),
            value: format!("{} ({:.2} %)", grouped(count), 100.0 * share(count, of)),
            is_part: false,
        };
        rows.into_iter().map(bar).collect()
    };
    let modes = simple(tally.mode_rows(), tally.checked());
    let caption = format!("Share of the {} that were checked.", counted(tally.checked(), "domain"));
    let title = "Modes";
    all.push(Chart {
        file: "modes.svg",
        title,
        caption: caption.clone(),
        svg: bars("Modes of the policies", &modes),
    });
    let findings = simple(tally.finding_rows(FINDINGS), tally.checked());
    let title = "The most frequent findings";
    all.push(Chart { file: "findings.svg", title, caption, svg: bars(title, &findings) });
    let first_pass = tally.first_pass_rows();
    let most = first_pass.iter().map(|(_, count)| *count).max().unwrap_or(0);
    if most > 0 {
        let caption = "What the resolver said to each query, before anything was checked.".to_owned();
        let rows = simple(first_pass, tally.names());
        all.push(Chart {
            file: "first-pass.svg",
            title: "First pass",
            caption,
            svg: bars("First pass", &rows),
        });
    }
    all
}

fn page(tally: &Tally, charts: &[Chart], now: Timestamp) -> String {
    let classes = tally.classes();
    let mut out = format!(
        "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <title>MTA-STS of {names} domains</title>\n<style>{STYLE}</style></head>\n<body>\n<h1>MTA-STS of {names} domains</h1>\n<p>{}, Sternpost {}. \
         {} of the names were checked, {} have nothing to check, {} are not determined and {} are not a domain.</p>\n",
        now.strftime("%Y-%m-%d"),
        env!("CARGO_PKG_VERSION"),
        grouped(tally.checked()),
        grouped(tally.nothing()),
        grouped(tally.undetermined()),
        grouped(tally.invalid()),
        names = grouped(tally.names()),
    );
    let _ = writeln!(
        out,
        "<p><strong>{} of {} domains with a record at <code>_mta-sts</code> ({:.1} %) are misconfigured. {} ({:.2} %) are certain to lose \
         mail: senders that honor their policy refuse all of their MX hosts.</strong></p>",
        grouped(classes.misconfigured),
        grouped(classes.domains),
        classes.percent(classes.misconfigured),
        grouped(classes.lost),
        classes.percent(classes.lost),
    );
    for chart in charts {
        let _ = writeln!(
            out,
            "<h2>{}</h2>\n<figure>\n{}<figcaption>{} <a href=\"{}\" download>SVG</a></figcaption>\n</figure>",
            chart.title, chart.svg, chart.caption, chart.file
        );
        if chart.file == "classes.svg" {
            out += &table(tally);
        }
    }
    out += "<h2>Method</h2>\n<p>The first pass queries the TXT records at <code>_mta-sts</code> and <code>_smtp._tls</code> of each name, without \
            DNSSEC validation. Names with a record are checked: DNS with validation, the policy as senders fetch it, and one session with STARTTLS \
            for each address of each MX host. A class counts findings of the severities error and warning. The classes are those of Ashiq, Fiebig and \
            Chung, Unraveling the Complexities of MTA-STS Deployment and Management in Securing Email, ACM IMC 2025, \
            <a href=\"https://doi.org/10.1145/3730567.3732916\">doi 10.1145/3730567.3732916</a>.</p>\n\
            <p>Data: <a href=\"classes.csv\">classes.csv</a>, <a href=\"summary.json\">summary.json</a>.</p>\n</body></html>\n";
    out
}

fn table(tally: &Tally) -> String {
    let classes = tally.classes();
    let mut out =
        "<table>\n<tr><th>class</th><th class=\"n\">domains</th><th class=\"n\">share</th></tr>\n".to_owned();
    for (class, count) in classes.rows() {
        let _ = writeln!(
            out,
            "<tr class=\"l{}\"><td>{}</td><td class=\"n\">{}</td><td class=\"n\">{:.2} %</td></tr>",
            class.level,
            class.about,
            grouped(count),
            classes.percent(count)
        );
    }
    out + "</table>\n"
}

fn csv(tally: &Tally) -> String {
    let classes = tally.classes();
    let mut out = "class,level,domains,percent,about\n".to_owned();
    let _ = writeln!(out, "all,,{},100.0000,\"domains with a record at _mta-sts\"", classes.domains);
    let percent = classes.percent(classes.misconfigured);
    let _ = writeln!(
        out,
        "misconfigured,,{},{percent:.4},\"in one of the classes of level 0\"",
        classes.misconfigured
    );
    for (class, count) in classes.rows() {
        let percent = classes.percent(count);
        let _ = writeln!(out, "{},{},{count},{percent:.4},\"{}\"", class.id, class.level, class.about);
    }
    let percent = classes.percent(classes.lost);
    let _ = writeln!(
        out,
        "lost,,{},{percent:.4},\"senders that honor the policy refuse all MX hosts\"",
        classes.lost
    );
    out
}

#[cfg(test)]
mod tests {
    use super::super::earlier::Reader;
    use super::*;

    #[test]
    fn a_report_has_all_numbers_and_needs_nothing_else() {
        let reader = Reader::default();
        let mut tally = Tally::new(None);
        for line in [
            r#"{"domain":"a.example","mode":"enforce","first_pass":{"mta_sts":"record","tlsrpt":"record"},"findings":[{"check":"HTTPS-CERT-NAME","severity":"error","cause":{"id":"catch-all","what":"x"}}]}"#,
            r#"{"domain":"b.example","mode":"testing","first_pass":{"mta_sts":"record","tlsrpt":"nxdomain"},"findings":[]}"#,
            r#"{"domain":"c.example","first_pass":{"mta_sts":"nxdomain","tlsrpt":"servfail"},"findings":[]}"#,
        ] {
            tally.add_earlier(&reader.read(line.as_bytes()).unwrap());
        }
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("report");
        let now: Timestamp = "2026-11-28T12:00:00Z".parse().unwrap();
        Report::in_folder(&path).unwrap().write(&tally, now).unwrap();
        let read = |name: &str| std::fs::read_to_string(path.join(name)).unwrap();
        let page = read("index.html");
        assert!(page.contains("MTA-STS of 3 domains") && page.contains("2026-11-28"), "{page}");
        assert!(
            page.contains("1 of 2 domains with a record at <code>_mta-sts</code> (50.0 %) are misconfigured")
        );
        let outside =
            |text: &str| text.contains("<script") || text.contains("src=") || text.contains("@import");
        assert!(!outside(&page) && !page.contains("a.example"));
        assert!(page.contains("prefers-color-scheme:dark") && page.contains("width=device-width"));
        assert_eq!(page.matches("<svg").count(), 4);
        assert!(read("classes.csv").contains("\nhost-catch-all,2,1,50.0000,"));
        assert!(serde_json::from_str::<serde_json::Value>(&read("summary.json")).is_ok());
        for file in FILES {
            assert!(!read(file).is_empty(), "{file}");
        }
        // A second report replaces the first one; a folder with other files stays as it is.
        Report::in_folder(&path).unwrap().write(&tally, now).unwrap();
        std::fs::write(path.join("thesis.tex"), "precious").unwrap();
        assert!(Report::in_folder(&path).err().unwrap().to_string().contains("thesis.tex"));
    }
}
