//! Finds the reports in one file: a part of a message, a member of an archive, or a file that was posted or imported. It may be
//! compressed and archived several times. The text may have several reports.

use super::super::claims;
use super::super::dmarc::{self, ExtractedDmarc};
use super::super::mime::is_mail;
use super::super::shape::{BEGINNING_BYTES, is_packed, looks_like_a_report};
use super::super::submitter::{Origin, submitter_of_file};
use super::{Extracted, Extractor, File, InGzip, LeftInGzip, NoReport, Stopped};
use formats::dmarc::{DmarcReport, is_dmarc_text};
use formats::limits::{INBOX_PACKINGS, INBOX_REPORTS};
use formats::mbox::is_mbox;
use formats::report::{
    Held, ReadReport, Report, ReportFileName, ReportTexts, UnpackError, Unpacked, beginning_of_gzip, is_tar,
    is_zip, pack, tar_members, unpack_within, zip_members_within,
};

impl Extractor<'_> {
    /// Reads a file: an archive, or one or more reports.
    pub(super) fn file(&mut self, file: &File<'_>, origin: &Origin, depth: usize) -> Result<(), Stopped> {
        if file.packings > INBOX_PACKINGS {
            self.unreadable(file, file.bytes, NoReport::TooManyPackings)
        } else if is_zip(file.bytes) {
            self.zip(file, origin, depth)
        } else if is_tar(file.bytes) {
            self.tar(file, origin, depth)
        } else {
            self.compressed(file, origin, depth)
        }
    }

    fn zip(&mut self, file: &File<'_>, origin: &Origin, depth: usize) -> Result<(), Stopped> {
        let contents = match zip_members_within(file.bytes, INBOX_REPORTS, &mut self.budget) {
            Ok(contents) => contents,
            Err(error) => return self.unreadable(file, file.bytes, NoReport::Unpack(error)),
        };
        for member in contents.members {
            let is_labelled = file.is_labelled || claims::is_named_so(&member.name);
            match member.text {
                Ok(text) => self.member(file, &member.name, text.bytes(), origin, depth)?,
                Err(error) => self.failed(&member.name, error, is_labelled)?,
            }
        }
        self.left_out(file, contents.left_out > 0);
        Ok(())
    }

    fn tar(&mut self, file: &File<'_>, origin: &Origin, depth: usize) -> Result<(), Stopped> {
        let mut members = tar_members(file.bytes);
        for member in members.by_ref().take(INBOX_REPORTS) {
            match member.is_cut {
                false => self.member(file, &member.name, member.bytes, origin, depth)?,
                true => {
                    let claims = file.is_labelled || claims::is_named_so(&member.name);
                    let cut = UnpackError::Broken("the tar file ends within this file".to_owned());
                    self.failed(&member.name, cut, claims)?;
                }
            }
        }
        self.left_out(file, members.next().is_some());
        Ok(())
    }

    /// Records that an archive has more files than are read.
    fn left_out(&mut self, archive: &File<'_>, is_so: bool) {
        if is_so {
            let claims = archive.is_labelled || !self.found.reports.is_empty();
            self.problem(archive.name, NoReport::TooManyReports, claims);
        }
    }

    /// Reads a file within an archive.
    fn member(
        &mut self,
        archive: &File<'_>,
        name: &str,
        bytes: &[u8],
        origin: &Origin,
        depth: usize,
    ) -> Result<(), Stopped> {
        let is_named = claims::is_named_so(name);
        let is_labelled = archive.is_labelled || is_named;
        let member = File { bytes, name, is_labelled, packings: archive.packings + 1 };
        match is_named || looks_like_a_report(bytes) || is_dmarc_text(bytes) {
            true => self.file(&member, origin, depth),
            false => self.inner(bytes, name, depth),
        }
    }

    /// Reads reports, compressed or not.
    fn compressed(&mut self, file: &File<'_>, origin: &Origin, depth: usize) -> Result<(), Stopped> {
        if self.is_full() {
            return Ok(());
        }
        let (text, packing) = match unpack_within(file.bytes, &mut self.budget) {
            Ok(unpacked) => unpacked,
            // A mail may be larger than a report.
            Err(error)
                if error != UnpackError::Busy
                    && self.is_left(file, || beginning_of_gzip(file.bytes, BEGINNING_BYTES)) =>
            {
                return Ok(());
            }
            Err(error) => return self.unreadable(file, file.bytes, NoReport::Unpack(error)),
        };
        let bytes = text.bytes();
        if self.is_left(file, || bytes) {
            Ok(())
        } else if packing != Unpacked::Plain && is_packed(bytes) {
            self.file(&File { bytes, packings: file.packings + 1, ..*file }, origin, depth)
        } else if is_dmarc_text(bytes) {
            self.dmarc(bytes, file, origin)
        } else if packing != Unpacked::Plain
            && !looks_like_a_report(bytes)
            && (is_mail(bytes) || is_mbox(bytes))
        {
            self.compressed_mail(bytes, file, depth)
        } else {
            self.reports(bytes, packing, file, origin)
        }
    }

    /// True if the text of a whole file is left to the caller.
    fn is_left<T: AsRef<[u8]>>(&mut self, file: &File<'_>, text: impl FnOnce() -> T) -> bool {
        if self.in_gzip != InGzip::Leave || file.packings > 0 {
            return false;
        }
        let Some(left) = LeftInGzip::of(text().as_ref()) else { return false };
        self.in_gzip = InGzip::Left(left);
        true
    }

    /// Reads a mail or an mbox that is compressed as a whole. What is labeled as a report has to have one.
    fn compressed_mail(&mut self, mail: &[u8], file: &File<'_>, depth: usize) -> Result<(), Stopped> {
        let found = |extractor: &Self| {
            let found = &extractor.found;
            found.reports.len() + found.dmarc.len() + found.problems.len()
        };
        let before = found(self);
        self.inner(mail, file.name, depth)?;
        match file.is_labelled && found(self) == before {
            true => self.unreadable(file, mail, NoReport::Unrecognized),
            false => Ok(()),
        }
    }

    /// True if there are as many reports as are read. What is beyond them is a problem.
    fn is_full(&mut self) -> bool {
        let is_full = self.found.reports.len() + self.found.dmarc.len() == INBOX_REPORTS;
        if is_full && !self.found.problems.iter().any(|problem| problem.why == NoReport::TooManyReports) {
            self.problem("", NoReport::TooManyReports, true);
        }
        is_full
    }

    /// Reads the reports in a decompressed text.
    fn reports(
        &mut self,
        bytes: &[u8],
        packing: Unpacked,
        file: &File<'_>,
        origin: &Origin,
    ) -> Result<(), Stopped> {
        let mut held = match self.budget.reserve_for_parsing(bytes) {
            Ok(held) => held,
            Err(error) => return self.unreadable(file, bytes, NoReport::Unpack(error)),
        };
        let texts = ReportTexts::decode(bytes);
        let mut objects = texts.objects();
        // Text without an object is parsed for the error.
        let first = objects.next().unwrap_or(texts.whole());
        let mut next = objects.next();
        if next.is_none() {
            let trailing = objects.trailing();
            let read = Report::read_text(&texts, first, self.budget.nodes());
            let read = read.map(|read| read.with_packing(packing).with_trailing(trailing));
            let read = match read {
                Ok(read) => read,
                Err(error) => return self.unreadable(file, bytes, NoReport::Read(error)),
            };
            match packed(file.bytes, bytes, packing, &mut held) {
                Ok(packed) => {
                    held.keep(self.keep(read, packed, packing, file, origin));
                    self.trailing(file, trailing);
                    return Ok(());
                }
                Err(error) => return self.failed(file.name, error, true),
            }
        }
        let (mut object, mut kept) = (Some(first), 0);
        let mut number = 0;
        while let Some(text) = object {
            number += 1;
            if self.is_full() {
                break;
            }
            if number > INBOX_REPORTS {
                self.problem(file.name, NoReport::TooManyReports, file.is_labelled || kept > 0);
                break;
            }
            match self.one_of_several(&texts, text, &mut held) {
                Ok((read, packed)) => {
                    kept += self.keep(read.with_packing(packing), packed, packing, file, origin);
                }
                Err(why) => {
                    let name = format!("{}[{}]", file.name, number - 1);
                    self.unreadable(&File { name: &name, ..*file }, text.as_bytes(), why)?;
                }
            }
            (object, next) = (next, objects.next());
        }
        self.trailing(file, objects.trailing());
        held.keep(kept);
        Ok(())
    }

    /// Reads one of several reports in a text.
    fn one_of_several(
        &mut self,
        texts: &ReportTexts<'_>,
        object: &str,
        held: &mut Held<'_>,
    ) -> Result<(ReadReport, Vec<u8>), NoReport> {
        let read = Report::read_text(texts, object, self.budget.nodes()).map_err(NoReport::Read)?;
        let packed = packed(&[], object.as_bytes(), Unpacked::Plain, held).map_err(NoReport::Unpack)?;
        Ok((read, packed))
    }

    /// Records that the text after the reports may be a report too.
    fn trailing(&mut self, file: &File<'_>, text: &str) {
        if claims::has_members(text.as_bytes()) {
            self.problem(file.name, NoReport::Trailing, true);
        }
    }

    /// Reads one DMARC report.
    fn dmarc(&mut self, text: &[u8], file: &File<'_>, origin: &Origin) -> Result<(), Stopped> {
        self.found.has_dmarc = true;
        let mut held = Held::new(self.budget.memory());
        if let Err(error) = held.grow(dmarc::memory_to_read(text)) {
            return self.failed(file.name, error, false);
        }
        match DmarcReport::read(text, &mut self.elements) {
            Ok(report) => {
                let extracted = ExtractedDmarc::new(report, file.name, origin);
                held.keep(extracted.memory());
                self.found.dmarc.push(extracted);
            }
            Err(error) => self.problem(file.name, NoReport::DmarcRead(error), false),
        }
        Ok(())
    }

    /// Adds a report. Returns the memory that it takes.
    fn keep(
        &mut self,
        read: ReadReport,
        packed: Vec<u8>,
        packing: Unpacked,
        file: &File<'_>,
        origin: &Origin,
    ) -> usize {
        let named = ReportFileName::parse(file.name);
        let submitter = origin.submitter.clone().or_else(|| submitter_of_file(named.as_ref(), &read.report));
        let policy_domain = origin.policy_domain.clone().or_else(|| named.map(|named| named.policy_domain));
        let memory = packed.len() + memory_of(&read.report);
        self.is_for_reports |= packing == Unpacked::Plain;
        self.found.reports.push(Extracted { read, submitter, policy_domain, packed });
        memory
    }
}

/// The report's JSON text, compressed with gzip, with its memory. Gzip data stays as it was received.
fn packed(
    received: &[u8],
    json: &[u8],
    packing: Unpacked,
    held: &mut Held<'_>,
) -> Result<Vec<u8>, UnpackError> {
    match packing {
        Unpacked::Gzip | Unpacked::GzipWithTrailingBytes => {
            held.grow(received.len())?;
            Ok(received.to_vec())
        }
        Unpacked::Plain | Unpacked::Zip => {
            // Text that can't be compressed grows by less than one part in a thousand (RFC 1951 §3.2.4).
            held.grow(json.len() + json.len() / 1000 + 100)?;
            pack(json).map_err(|error| UnpackError::Broken(error.to_string()))
        }
    }
}

/// The memory of a report, roughly.
fn memory_of(report: &Report) -> usize {
    const TEXT: usize = 48;
    let text = |text: &Option<String>| text.as_ref().map_or(0, |text| text.len() + TEXT);
    let policies = report.policies.iter().map(|policy| {
        let lines = policy.policy_string.iter().chain(&policy.mx_host).map(|line| line.len() + TEXT);
        let details = policy.details.iter().map(|detail| {
            size_of_val(detail)
                + text(&detail.receiving_mx_hostname)
                + text(&detail.receiving_mx_helo)
                + text(&detail.additional_information)
                + text(&detail.failure_reason_code)
        });
        size_of_val(policy) + lines.sum::<usize>() + details.sum::<usize>()
    });
    policies.sum::<usize>() + report.report_id.len() + text(&report.organization_name) + 1024
}
