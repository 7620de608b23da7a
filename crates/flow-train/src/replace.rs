//! Puts a folder of files in place of another, so that a kill at any moment leaves the old one or the new one.
//!
//! The files are written to a draft beside the folder and made durable; the draft is renamed to `new`, the folder to
//! `old`, `new` to the folder, and `old` is removed. At every moment one of the folder, `new` and `old` is whole, and
//! [`present`] finds it. No file is ever changed in place, but for one that is added to: old and new folder share it,
//! and what the old one knows of it stays as it is.

use crate::file::{follow, keep_owner_and_mode, parent, sync};
use crate::{Result, TrainError};
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

/// What a file of the new folder holds.
pub(crate) enum Content {
    /// These bytes.
    New(Vec<u8>),
    /// The first `kept` bytes of the file of that name in the old folder, and more behind them.
    Added { kept: u64, bytes: Vec<u8> },
}

/// The folder's companions: hidden, and named so that nobody else's folder is taken for one.
fn beside(folder: &Path, role: &str) -> Result<PathBuf> {
    let Some(name) = folder.file_name() else {
        return Err(TrainError::Checkpoint {
            path: folder.to_owned(),
            reason: "this is no name of a folder that could be replaced".to_owned(),
        });
    };
    Ok(folder.with_file_name(format!(".{}.checkpoint-{role}", name.to_string_lossy())))
}

/// Where the files of `folder` are: there, or beside it after a kill between two renames. `whole` tells a folder of
/// this kind from others.
pub(crate) fn present(folder: &Path, whole: impl Fn(&Path) -> bool) -> PathBuf {
    let folder = &follow(folder).unwrap_or_else(|_| folder.to_owned());
    let candidates = [Ok(folder.to_owned()), beside(folder, "new"), beside(folder, "old")];
    candidates.into_iter().flatten().find(|candidate| whole(candidate)).unwrap_or_else(|| folder.to_owned())
}

/// Writes `files` in place of what is in `folder`; `whole` tells a folder of this kind from others.
///
/// # Errors
/// [`TrainError::Io`], and [`TrainError::Checkpoint`] where `folder` holds something else, which stays.
pub(crate) fn replace(folder: &Path, files: &[(&str, Content)], whole: impl Fn(&Path) -> bool) -> Result<()> {
    let folder = &follow(folder).map_err(TrainError::io(folder))?;
    let [draft, new, old] = [beside(folder, "draft")?, beside(folder, "new")?, beside(folder, "old")?];
    let parent = parent(folder);
    fs::create_dir_all(parent).map_err(TrainError::io(parent))?;
    if folder.exists() && !whole(folder) {
        // An empty folder is as good as none; removing fails for any other.
        fs::remove_dir(folder).map_err(|_| TrainError::Checkpoint {
            path: folder.to_owned(),
            reason: "it is there already and holds something else, which is not overwritten".to_owned(),
        })?;
    }
    settle(folder, whole)?;

    fs::create_dir(&draft).map_err(TrainError::io(&draft))?;
    for (name, content) in files {
        let (path, replaced) = (draft.join(name), folder.join(name));
        let written = match content {
            Content::Added { kept, bytes } if *kept > 0 => add_durably(&path, *kept, bytes, &replaced),
            Content::New(bytes) | Content::Added { bytes, .. } => write_durably(&path, bytes, &replaced),
        };
        written.map_err(TrainError::io(&path))?;
    }
    if folder.exists() {
        File::open(&draft).and_then(|file| keep_owner_and_mode(&file, &folder.metadata()?)).map_err(TrainError::io(&draft))?;
    }
    sync(&draft)?;
    rename(&draft, &new)?;
    if folder.exists() {
        rename(folder, &old)?;
    }
    rename(&new, folder)?;
    sync(parent)?;
    remove(&old)
}

/// Finishes or clears away what a kill has left beside `folder`, which is whole or not there.
///
/// # Errors
/// [`TrainError::Io`].
pub(crate) fn settle(folder: &Path, whole: impl Fn(&Path) -> bool) -> Result<()> {
    let folder = &follow(folder).map_err(TrainError::io(folder))?;
    remove(&beside(folder, "draft")?)?;
    if !folder.exists() {
        let kept = present(folder, &whole);
        if kept != *folder {
            rename(&kept, folder)?;
        }
    }
    remove(&beside(folder, "new")?)?;
    remove(&beside(folder, "old")?)
}

/// Writes a new file, with the mode of the one that it takes the place of.
fn write_durably(path: &Path, bytes: &[u8], replaced: &Path) -> io::Result<()> {
    let mut file = File::create_new(path)?;
    if let Ok(found) = replaced.metadata() {
        keep_owner_and_mode(&file, &found)?;
    }
    file.write_all(bytes)?;
    file.sync_all()
}

/// Gives a file a second name and adds to it; what is behind the bytes to keep was cut off by a kill.
fn add_durably(path: &Path, kept: u64, bytes: &[u8], of: &Path) -> io::Result<()> {
    // A file that has another name too belongs to somebody else's copy as well. Not every file system has second names.
    if !only_name(of)? || fs::hard_link(of, path).is_err() {
        fs::copy(of, path)?;
    }
    let mut file = File::options().append(true).open(path)?;
    if file.metadata()?.len() > kept {
        file.set_len(kept)?;
    }
    file.write_all(bytes)?;
    file.sync_all()
}

#[cfg(unix)]
fn only_name(path: &Path) -> io::Result<bool> {
    Ok(std::os::unix::fs::MetadataExt::nlink(&path.metadata()?) == 1)
}

#[cfg(not(unix))]
fn only_name(_: &Path) -> io::Result<bool> {
    Ok(false)
}

fn rename(from: &Path, to: &Path) -> Result<()> {
    fs::rename(from, to).map_err(TrainError::io(to))
}

fn remove(folder: &Path) -> Result<()> {
    // Of a link, the link.
    if folder.symlink_metadata().is_ok() { fs::remove_dir_all(folder).map_err(TrainError::io(folder)) } else { Ok(()) }
}
