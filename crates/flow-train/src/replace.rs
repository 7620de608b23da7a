//! Puts a folder of files in place of another, so that a kill at any moment leaves the old one or the new one.
//!
//! The files are written to a draft beside the folder and made durable; the draft is renamed to `new`, the folder to `old`, `new` to the folder, and `old` is removed. At every moment
//! one of the folder, `new` and `old` is whole, and [`present`] finds it. No file is ever changed in place.

use crate::{Result, TrainError};
use std::fs::{self, File};
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

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

/// Where the files of `folder` are: there, or beside it after a kill between two renames. `whole` tells a folder of this kind from others.
pub(crate) fn present(folder: &Path, whole: impl Fn(&Path) -> bool) -> PathBuf {
    let candidates = [Ok(folder.to_owned()), beside(folder, "new"), beside(folder, "old")];
    candidates.into_iter().flatten().find(|candidate| whole(candidate)).unwrap_or_else(|| folder.to_owned())
}

/// Writes `files` in place of what is in `folder`; `whole` tells a folder of this kind from others.
///
/// # Errors
/// [`TrainError::Io`], and [`TrainError::Checkpoint`] where `folder` holds something else, which stays.
pub(crate) fn replace(folder: &Path, files: &[(&str, Vec<u8>)], whole: impl Fn(&Path) -> bool) -> Result<()> {
    let [draft, new, old] = [beside(folder, "draft")?, beside(folder, "new")?, beside(folder, "old")?];
    let parent = folder.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
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
    for (name, bytes) in files {
        write_durably(&draft.join(name), bytes)?;
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

/// Writes a file in place of the one that may be there, so that a kill at any moment leaves the old one or the new one.
///
/// # Errors
/// [`TrainError::Io`].
pub(crate) fn replace_file(path: &Path, bytes: &[u8]) -> Result<()> {
    write_whole(path, |file| file.write_all(bytes).map_err(TrainError::io(path)))
}

/// Writes a file with `write`, in place of the one that may be there: that one stays until all is written, and for good if anything fails.
///
/// # Errors
/// Those of `write`, and [`TrainError::Io`].
pub fn write_whole<E: From<TrainError>>(path: &Path, write: impl FnOnce(&mut BufWriter<File>) -> Result<(), E>) -> Result<(), E> {
    let create = |at: &Path| File::create(at).map(BufWriter::new).map_err(TrainError::io(path));
    if path.metadata().is_ok_and(|found| !found.is_file()) {
        // A device or a pipe is written to, never replaced by a file.
        let mut file = create(path)?;
        write(&mut file)?;
        return Ok(file.flush().map_err(TrainError::io(path))?);
    }
    let draft = draft(path);
    let mut file = create(&draft)?;
    let written = write(&mut file).and_then(|()| {
        let durable = file.flush().and_then(|()| file.get_ref().sync_all());
        Ok(durable.map_err(TrainError::io(path)).and_then(|()| rename(&draft, path))?)
    });
    if written.is_err() {
        // The error to tell is that of the writing.
        let _ = fs::remove_file(&draft);
    }
    written
}

/// What [`replace_file`] writes first, which a kill leaves.
pub(crate) fn draft(path: &Path) -> PathBuf {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    path.with_file_name(format!(".{name}.draft"))
}

fn write_durably(path: &Path, bytes: &[u8]) -> Result<()> {
    File::create(path).and_then(|mut file| file.write_all(bytes).and_then(|()| file.sync_all())).map_err(TrainError::io(path))
}

fn rename(from: &Path, to: &Path) -> Result<()> {
    fs::rename(from, to).map_err(TrainError::io(to))
}

fn remove(folder: &Path) -> Result<()> {
    if folder.exists() { fs::remove_dir_all(folder).map_err(TrainError::io(folder)) } else { Ok(()) }
}

/// Makes a folder's entries durable.
fn sync(folder: &Path) -> Result<()> {
    File::open(folder).and_then(|file| file.sync_all()).map_err(TrainError::io(folder))
}
