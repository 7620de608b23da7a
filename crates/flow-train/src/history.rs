//! The reports of a run, and the file that they are added to: `reports.ron`, one a line.

use crate::checksums::Checksum;
use crate::error::broken;
use crate::progress::Report;
use crate::{Result, TrainError};
use crc32fast::Hasher;
use flow_api::spec::{from_ron, to_ron};
use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::path::Path;

/// The longest line of a file of reports.
const MAX_LINE: u64 = 4096;

/// The reports of a run, with what the file of them is up to each: a checkpoint adds what the last one did not have.
#[derive(Clone, Debug, Default)]
pub(crate) struct History {
    reports: Vec<Report>,
    /// Length and CRC-32 of the file up to each report.
    marks: Vec<(u64, u32)>,
}

impl History {
    pub(crate) fn reports(&self) -> &[Report] {
        &self.reports
    }

    pub(crate) fn push(&mut self, report: Report) -> Result<()> {
        let line = line(&report)?;
        let (bytes, crc) = self.marks.last().copied().unwrap_or_default();
        let mut hasher = Hasher::new_with_initial(crc);
        hasher.update(line.as_bytes());
        self.marks.push((bytes + line.len() as u64, hasher.finalize()));
        self.reports.push(report);
        Ok(())
    }

    pub(crate) fn of(reports: Vec<Report>) -> Result<Self> {
        reports.into_iter().try_fold(Self::default(), |mut history, report| {
            history.push(report)?;
            Ok(history)
        })
    }

    /// What the file is.
    pub(crate) fn checksum(&self) -> Checksum {
        let (bytes, crc) = self.marks.last().copied().unwrap_or_default();
        Checksum { crc, bytes, grows: true }
    }

    /// What is to be added to a file that has this checksum, and behind how many of its bytes; all, behind none,
    /// where it is not of this run's earlier reports.
    pub(crate) fn added_to(&self, file: Option<Checksum>) -> Result<(u64, Vec<u8>)> {
        let mark = file.map(|sum| (sum.bytes, sum.crc));
        let there = mark.and_then(|mark| self.marks.binary_search(&mark).ok()).map_or(0, |at| at + 1);
        let text = self.reports[there..].iter().map(line).collect::<Result<String>>()?;
        Ok((there.checked_sub(1).map_or(0, |at| self.marks[at].0), text.into_bytes()))
    }

    /// The first `count` reports of a file.
    ///
    /// # Errors
    /// [`TrainError::Io`], and [`TrainError::Checkpoint`] for a line that is no report.
    pub(crate) fn read(file: File, path: &Path, count: usize) -> Result<Self> {
        let mut history = Self::default();
        let reports = lines(file, path, |text| from_ron(text).map_err(|e| e.to_string()));
        for report in reports.take(count) {
            history.push(report?)?;
        }
        let got = history.reports.len();
        if got < count { Err(broken(path, format!("cut off: {got} reports where {count} were made"))) } else { Ok(history) }
    }
}

fn line(report: &Report) -> Result<String> {
    // RON on one line: no field of a report is a text that could hold a line's end.
    Ok(to_ron(report)?.lines().map(str::trim).collect::<String>() + "\n")
}

/// The reports of a file, one a line, each with `parse`. A last line that a kill has cut off is left out.
pub(crate) fn lines(
    file: File,
    path: &Path,
    parse: impl Fn(&str) -> std::result::Result<Report, String>,
) -> impl Iterator<Item = Result<Report>> {
    let mut file = BufReader::new(file);
    std::iter::from_fn(move || {
        let mut line = Vec::new();
        if let Err(error) = file.by_ref().take(MAX_LINE).read_until(b'\n', &mut line) {
            return Some(Err(TrainError::io(path)(error)));
        }
        if line.pop() != Some(b'\n') {
            let long = line.len() as u64 + 1 >= MAX_LINE;
            return long.then(|| Err(broken(path, format!("a line of more than {MAX_LINE} bytes"))));
        }
        let report = std::str::from_utf8(&line).map_err(|e| e.to_string()).and_then(&parse);
        Some(report.map_err(|e| broken(path, e)))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(step: u64) -> Report {
        let validation = [None, Some(f64::INFINITY), Some(1.25)][usize::try_from(step % 3).unwrap()];
        let (train, seconds_per_step, gradient_norm) = (0.1 * step as f64, 1e-300, f64::NAN);
        Report {
            step,
            train,
            validation,
            seconds: 1.0 / 3.0,
            seconds_per_step,
            gradient_norm,
            learning_rate: 1e-3,
            terms: Vec::new(),
            bounds_used: Vec::new(),
        }
    }

    #[test]
    fn reports_are_added_to_those_that_are_there() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("reports.ron");
        let mut history = History::of((1..4).map(report).collect()).unwrap();
        let (kept, first) = history.added_to(None).unwrap();
        assert_eq!((kept, history.checksum()), (0, Checksum { grows: true, ..Checksum::of(&first) }));
        let before = history.checksum();
        history.push(report(4)).unwrap();
        let (kept, second) = history.added_to(Some(before)).unwrap();
        assert_eq!((kept, std::str::from_utf8(&second).unwrap().lines().count()), (first.len() as u64, 1));
        let whole = [first, second].concat();
        assert_eq!(history.checksum(), Checksum { grows: true, ..Checksum::of(&whole) });
        // The reports of another run are not added to.
        assert_eq!(history.added_to(Some(Checksum { crc: 7, ..before })).unwrap(), (0, whole.clone()));

        std::fs::write(&path, [&*whole, b"(step: 5, tr"].concat()).unwrap();
        let open = || File::open(&path).unwrap();
        for count in [0, 2, 4] {
            let read = History::read(open(), &path, count).unwrap();
            assert_eq!(format!("{:?}", read.reports()), format!("{:?}", &history.reports()[..count]));
            assert_eq!(read.marks, history.marks[..count]);
        }
        assert!(History::read(open(), &path, 5).unwrap_err().to_string().contains("cut off: 4 reports where 5 were made"));
        // A file without lines costs no memory.
        std::fs::write(&path, vec![b'0'; 1 << 20]).unwrap();
        assert!(History::read(open(), &path, 5).unwrap_err().to_string().contains("a line of more than 4096 bytes"));
    }
}
