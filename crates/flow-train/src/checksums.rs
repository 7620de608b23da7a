//! Checksums of the files of a checkpoint: one that was changed since it was written is refused.
//!
//! `checksums.txt` has a line for the format, then one a file: CRC-32, the number of bytes that it is of, and the
//! name. A `+` behind the number stands for a file that later checkpoints
//! add to: what lies behind those bytes is theirs. CRC-32 sees every error of up to 32 bits in a row and misses one
//! in 2³² of others; it is no seal against forgery.
//!
//! Checkpoints of versions that took none have no such file, and are read with a note.

use crate::error::broken;
use crate::{Result, TrainError};
use crc32fast::Hasher;
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs::File;
use std::io::{self, Read, Seek};
use std::path::{Path, PathBuf};

/// The file of checksums.
pub(crate) const CHECKSUMS: &str = "checksums.txt";

/// Its first line.
const FORMAT: &str = "mixerflow checkpoint 2";
/// What the first line of any version begins with.
const ANY_FORMAT: &str = "mixerflow checkpoint ";

/// The longest file of checksums: a checkpoint has eight files.
const MAX_BYTES: u64 = 4096;

/// What a file, or its beginning, has to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Checksum {
    pub(crate) crc: u32,
    pub(crate) bytes: u64,
    /// Whether more may follow.
    pub(crate) grows: bool,
}

impl Checksum {
    /// Of a whole file.
    pub(crate) fn of(bytes: &[u8]) -> Self {
        Self { crc: crc32fast::hash(bytes), bytes: bytes.len() as u64, grows: false }
    }
}

/// Checksums by the name of the file.
pub(crate) type Checksums = BTreeMap<String, Checksum>;

/// The text of the file.
pub(crate) fn to_text(sums: &Checksums) -> String {
    let mut text = format!("{FORMAT}\n");
    for (name, Checksum { crc, bytes, grows }) in sums {
        let _ = writeln!(text, "{crc:08x} {bytes}{} {name}", if *grows { "+" } else { "" });
    }
    text
}

fn parse(text: &str) -> Option<Checksums> {
    let lines = text.strip_prefix(FORMAT)?.strip_prefix('\n')?.lines();
    let line = |line: &str| {
        let (crc, rest) = line.split_once(' ')?;
        let (bytes, name) = rest.split_once(' ')?;
        let (bytes, grows) = bytes.strip_suffix('+').map_or((bytes, false), |bytes| (bytes, true));
        let sum = Checksum { crc: u32::from_str_radix(crc, 16).ok()?, bytes: bytes.parse().ok()?, grows };
        Some((name.to_owned(), sum))
    };
    let sums = lines.map(line).collect::<Option<Checksums>>()?;
    // There is one way to write them: any other text was changed.
    (to_text(&sums) == text).then_some(sums)
}

/// The files of one checkpoint, which are read only as they were written.
#[derive(Debug)]
pub(crate) struct Files {
    folder: PathBuf,
    /// None in checkpoints of versions that took none.
    pub(crate) sums: Option<Checksums>,
}

impl Files {
    /// Those in a folder.
    ///
    /// # Errors
    /// [`TrainError::Io`], and [`TrainError::Checkpoint`] for checksums that are malformed or of a newer version.
    pub(crate) fn of(folder: &Path) -> Result<Self> {
        let path = folder.join(CHECKSUMS);
        let file = match File::open(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Self::plain(folder)),
            file => file.map_err(TrainError::io(&path))?,
        };
        let mut text = Vec::new();
        file.take(MAX_BYTES).read_to_end(&mut text).map_err(TrainError::io(&path))?;
        let text = String::from_utf8(text).map_err(|e| broken(&path, e))?;
        let sums = parse(&text).ok_or_else(|| match text.lines().next().and_then(|line| line.strip_prefix(ANY_FORMAT)) {
            Some(version) if format!("{ANY_FORMAT}{version}") != FORMAT => {
                broken(&path, format!("the checkpoint is of format {version}, which this version does not know: it reads up to 2"))
            }
            _ => changed(&path),
        })?;
        Ok(Self { folder: folder.to_owned(), sums: Some(sums) })
    }

    /// Those of a folder that takes no checksums.
    pub(crate) fn plain(folder: &Path) -> Self {
        Self { folder: folder.to_owned(), sums: None }
    }

    /// Where a file is.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    /// Whether the checkpoint has the file.
    pub(crate) fn contains(&self, name: &str) -> bool {
        self.sums.as_ref().map_or_else(|| self.path(name).exists(), |sums| sums.contains_key(name))
    }

    /// The file at its beginning, once it is known to be what was written.
    ///
    /// # Errors
    /// [`TrainError::Io`], and [`TrainError::Checkpoint`] for a file that was changed.
    pub(crate) fn open(&self, name: &str) -> Result<File> {
        let path = self.path(name);
        let mut file = File::open(&path).map_err(TrainError::io(&path))?;
        if let Some(sums) = &self.sums {
            let sum = sums.get(name).ok_or_else(|| broken(&path, format!("`{CHECKSUMS}` knows no such file")))?;
            let length = file.metadata().map_err(TrainError::io(&path))?.len();
            let long = if sum.grows { length >= sum.bytes } else { length == sum.bytes };
            if !long || checksum(&mut file, sum.bytes).map_err(TrainError::io(&path))? != sum.crc {
                return Err(changed(&path));
            }
            file.rewind().map_err(TrainError::io(&path))?;
        }
        Ok(file)
    }
}

/// CRC-32 of the next `bytes` of a file.
pub(crate) fn checksum(file: &mut File, bytes: u64) -> io::Result<u32> {
    let (mut hasher, mut left, mut chunk) = (Hasher::new(), bytes, vec![0; 1 << 16]);
    while left > 0 {
        let most = usize::try_from(left).unwrap_or(usize::MAX).min(chunk.len());
        let got = file.read(&mut chunk[..most])?;
        if got == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        hasher.update(&chunk[..got]);
        left -= got as u64;
    }
    Ok(hasher.finalize())
}

/// The error for a file that is not what was written.
pub(crate) fn changed(path: &Path) -> TrainError {
    broken(path, "it was changed since it was written: its checksum is another")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_flip_of_a_bit_is_seen_in_the_checksums_and_in_the_files() {
        let folder = tempfile::tempdir().unwrap();
        let contents: [(&str, &[u8], bool); 2] = [("model", b"weights", false), ("reports", b"a report\n", true)];
        let mut sums = Checksums::new();
        for (name, bytes, grows) in contents {
            std::fs::write(folder.path().join(name), bytes).unwrap();
            sums.insert(name.to_owned(), Checksum { grows, ..Checksum::of(bytes) });
        }
        let text = to_text(&sums);
        std::fs::write(folder.path().join(CHECKSUMS), &text).unwrap();
        let read = || -> Result<()> {
            let files = Files::of(folder.path())?;
            contents.iter().try_for_each(|(name, ..)| files.open(name).map(drop))
        };
        read().unwrap();
        let mut flips = 0;
        for (name, bytes) in contents.map(|(name, bytes, _)| (name, bytes)).into_iter().chain([(CHECKSUMS, text.as_bytes())]) {
            let path = folder.path().join(name);
            for bit in 0..8 * bytes.len() {
                let mut flipped = bytes.to_vec();
                flipped[bit / 8] ^= 1 << (bit % 8);
                std::fs::write(&path, flipped).unwrap();
                assert!(matches!(read(), Err(TrainError::Checkpoint { .. })), "{name}, bit {bit}");
                flips += 1;
            }
            std::fs::write(&path, bytes).unwrap();
        }
        assert_eq!(flips, 8 * (7 + 9 + text.len()));
        // What a later checkpoint has added is no change, but to the file that does not grow.
        std::fs::write(folder.path().join("reports"), "a report\nanother").unwrap();
        read().unwrap();
        std::fs::write(folder.path().join("model"), "weights and").unwrap();
        assert!(read().is_err());
        std::fs::write(folder.path().join(CHECKSUMS), "mixerflow checkpoint 3\n").unwrap();
        assert!(read().unwrap_err().to_string().contains("the checkpoint is of format 3"));
    }
}
