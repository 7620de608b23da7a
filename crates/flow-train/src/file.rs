//! The one way to write a file: whole or not at all.
//!
//! What is written goes to a draft beside the file, which is made durable and then renamed over it, so that a kill, a
//! full disk or a failure leaves the file that was there. The draft has
//! a random name and is created anew: no link planted there is followed, and no two writers share one. A link is
//! followed to the file that it leads to, whose mode and owner are kept; a
//! device, a pipe or a descriptor such as `/dev/stdout` is written to as the stream that it is. A kill may leave a
//! draft, `.NAME.RANDOM.draft`, which nothing reads.

use crate::{Result, TrainError};
use std::fs::{self, File, Metadata};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};
use tempfile::NamedTempFile;

/// What the name of a draft ends in.
const DRAFT: &str = ".draft";

/// Writes a file with `write`, in place of the one that may be there: that one stays until all is written, and for
/// good if anything fails.
///
/// ```
/// # let folder = tempfile::tempdir()?;
/// # let path = folder.path().join("greeting.txt");
/// use std::io::Write;
/// flow_train::write_whole(&path, |file| file.write_all(b"hello").map_err(|source| flow_train::TrainError::Io { path:
/// path.clone(), source }))?;
/// assert_eq!(std::fs::read(&path)?, b"hello");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Errors
/// Those of `write`, and [`TrainError::Io`].
pub fn write_whole<E: From<TrainError>>(path: &Path, write: impl FnOnce(&mut BufWriter<&File>) -> Result<(), E>) -> Result<(), E> {
    let io = |source| TrainError::Io { path: path.to_owned(), source };
    let fill = |file: &File| -> Result<(), E> {
        let mut buffered = BufWriter::new(file);
        write(&mut buffered)?;
        Ok(buffered.flush().map_err(io)?)
    };
    match Target::of(path).map_err(io)? {
        Target::Stream => fill(&File::options().append(true).open(path).map_err(io)?),
        Target::File { path: target, found } => {
            let draft = draft(&target, found.as_ref()).map_err(io)?;
            fill(draft.as_file())?;
            draft.as_file().sync_all().map_err(io)?;
            draft.persist(&target).map_err(|failed| io(failed.error))?;
            Ok(sync(parent(&target))?)
        }
    }
}

/// As [`write_whole`], of bytes.
///
/// # Errors
/// [`TrainError::Io`].
pub(crate) fn replace_file(path: &Path, bytes: &[u8]) -> Result<()> {
    write_whole(path, |file| file.write_all(bytes).map_err(TrainError::io(path)))
}

/// What a name stands for.
enum Target {
    /// A device, a pipe or an open descriptor: written to, never replaced.
    Stream,
    /// A file, behind all links, with what is known of it if it is there.
    File { path: PathBuf, found: Option<Metadata> },
}

impl Target {
    fn of(path: &Path) -> io::Result<Self> {
        let path = follow(path)?;
        // `/dev/stdout` leads to a name below `/proc` that stands for an open file, not for the file's place:
        // renaming over that would cut the stream off.
        let folder = fs::canonicalize(parent(&path)).unwrap_or_default();
        if folder.starts_with("/proc") || folder == Path::new("/dev/fd") {
            return Ok(Self::Stream);
        }
        match fs::symlink_metadata(&path) {
            Ok(found) if !found.is_file() => Ok(Self::Stream),
            Ok(found) => Ok(Self::File { path, found: Some(found) }),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Self::File { path, found: None }),
            Err(error) => Err(error),
        }
    }
}

/// The name that a chain of links leads to, there or not; a descriptor below `/proc` is where it ends.
pub(crate) fn follow(path: &Path) -> io::Result<PathBuf> {
    const MOST_LINKS: usize = 40;
    let mut at = path.to_owned();
    for _ in 0..MOST_LINKS {
        if !at.is_symlink() || fs::canonicalize(parent(&at)).is_ok_and(|folder| folder.starts_with("/proc")) {
            return Ok(at);
        }
        at = parent(&at).join(fs::read_link(&at)?);
    }
    Err(io::Error::other(format!("more than {MOST_LINKS} links from one to the next")))
}

/// The folder that a name is in.
pub(crate) fn parent(path: &Path) -> &Path {
    path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// A new file beside `target`, to be renamed to it: with the mode and the owner of the one `found` there.
fn draft(target: &Path, found: Option<&Metadata>) -> io::Result<NamedTempFile> {
    // Short enough for any file system.
    let name: String = target.file_name().unwrap_or_default().to_string_lossy().chars().take(40).collect();
    let prefix = format!(".{name}.");
    let mut builder = tempfile::Builder::new();
    builder.prefix(&prefix).suffix(DRAFT);
    #[cfg(unix)]
    builder.permissions(std::os::unix::fs::PermissionsExt::from_mode(0o666));
    let draft = builder.tempfile_in(parent(target))?;
    if let Some(found) = found {
        keep_owner_and_mode(draft.as_file(), found)?;
    }
    Ok(draft)
}

/// Gives a file the owner and the mode that another has.
pub(crate) fn keep_owner_and_mode(file: &File, of: &Metadata) -> io::Result<()> {
    #[cfg(unix)]
    {
        use std::os::unix::fs::{MetadataExt, fchown};
        let own = file.metadata()?;
        if (own.uid(), own.gid()) != (of.uid(), of.gid()) {
            // Only root may give files away; everyone else owns what they write.
            let _ = fchown(file, Some(of.uid()), Some(of.gid()));
        }
    }
    file.set_permissions(of.permissions())
}

/// Whether `found` is a draft of `file` that a kill has left.
pub(crate) fn is_draft_of(found: &Path, file: &Path) -> bool {
    let name = |path: &Path| path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    is_draft(&name(found)) && name(found).starts_with(&format!(".{}.", name(file)))
}

fn is_draft(name: &str) -> bool {
    name.starts_with('.') && name.ends_with(DRAFT)
}

/// Removes the drafts that kills have left in a folder which only this process writes to.
///
/// # Errors
/// [`TrainError::Io`].
pub(crate) fn remove_drafts(folder: &Path) -> Result<()> {
    let entries = match fs::read_dir(folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        entries => entries.map_err(TrainError::io(folder))?,
    };
    for entry in entries {
        let path = entry.map_err(TrainError::io(folder))?.path();
        if path.file_name().is_some_and(|name| is_draft(&name.to_string_lossy())) && !path.is_dir() {
            fs::remove_file(&path).map_err(TrainError::io(&path))?;
        }
    }
    Ok(())
}

/// Makes a folder's entries durable.
///
/// # Errors
/// [`TrainError::Io`].
pub(crate) fn sync(folder: &Path) -> Result<()> {
    File::open(folder).and_then(|file| file.sync_all()).map_err(TrainError::io(folder))
}

#[cfg(all(test, unix))]
mod tests {
    use super::*;
    use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().permissions().mode() & 0o777
    }

    fn names(folder: &Path) -> Vec<String> {
        let mut names: Vec<_> =
            fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned()).collect();
        names.sort();
        names
    }

    #[test]
    fn a_link_is_followed_and_the_mode_is_kept() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        fs::create_dir(at("far")).unwrap();
        fs::write(at("far/file"), "old").unwrap();
        fs::set_permissions(at("far/file"), PermissionsExt::from_mode(0o640)).unwrap();
        symlink("far/file", at("near")).unwrap();
        symlink("near", at("nearer")).unwrap();
        symlink("far/new", at("dangling")).unwrap();
        symlink("circle", at("circle")).unwrap();
        for link in ["nearer", "dangling"] {
            replace_file(&at(link), b"new").unwrap();
            assert!(at(link).is_symlink(), "{link}");
        }
        assert_eq!((fs::read(at("far/file")).unwrap(), mode(&at("far/file"))), (b"new".to_vec(), 0o640));
        assert_eq!(fs::read(at("far/new")).unwrap(), b"new");
        // What is new has the mode that any new file has.
        fs::write(at("plain"), "").unwrap();
        assert_eq!(mode(&at("far/new")), mode(&at("plain")));
        assert!(matches!(replace_file(&at("circle"), b"new"), Err(TrainError::Io { .. })));
        assert_eq!(names(&at("far")), ["file", "new"]);
    }

    #[test]
    fn what_fails_leaves_the_file_and_no_draft() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        replace_file(&path, b"good").unwrap();
        let failed = write_whole(&path, |file| {
            file.write_all(b"half").map_err(TrainError::io(&path))?;
            Err(TrainError::Threads("none".to_owned()))
        });
        assert!(matches!(failed, Err(TrainError::Threads(_))));
        assert_eq!((fs::read(&path).unwrap(), names(folder.path())), (b"good".to_vec(), vec!["file".to_owned()]));
        // A name as long as there can be.
        replace_file(&folder.path().join("n".repeat(255)), b"good").unwrap();
    }

    /// The drafts' names cannot be foretold; where one is there already it is neither followed nor overwritten.
    #[test]
    fn writers_at_once_each_write_a_whole_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        let text = |writer: u8| vec![writer; 100_000];
        replace_file(&path, &text(0)).unwrap();
        std::thread::scope(|scope| {
            for writer in 1..4 {
                let path = &path;
                scope.spawn(move || (0..20).for_each(|_| replace_file(path, &text(writer)).unwrap()));
            }
            for _ in 0..200 {
                let read = fs::read(&path).unwrap();
                assert!(read.len() == 100_000 && read.iter().all(|byte| *byte == read[0]));
            }
        });
        assert_eq!(names(folder.path()), ["file"]);
    }

    #[test]
    fn a_descriptor_is_a_stream() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        fs::write(&path, "before ").unwrap();
        let open = File::options().append(true).open(&path).unwrap();
        let descriptor = PathBuf::from(format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&open)));
        let link = folder.path().join("link");
        symlink(&descriptor, &link).unwrap();
        let inode = fs::metadata(&path).unwrap().ino();
        replace_file(&link, b"after").unwrap();
        assert_eq!((fs::read_to_string(&path).unwrap().as_str(), fs::metadata(&path).unwrap().ino()), ("before after", inode));
        replace_file(Path::new("/dev/null"), b"nothing").unwrap();
    }

    #[test]
    fn only_drafts_are_removed() {
        let folder = tempfile::tempdir().unwrap();
        for name in [".spec.ron.a8.draft", ".spec.ron.draft", "a.draft", ".hidden"] {
            fs::write(folder.path().join(name), "").unwrap();
        }
        assert!(is_draft_of(&folder.path().join(".spec.ron.a8.draft"), Path::new("spec.ron")));
        assert!(!is_draft_of(&folder.path().join(".spec.ron.a8.draft"), Path::new("settings.ron")));
        remove_drafts(folder.path()).unwrap();
        assert_eq!(names(folder.path()), [".hidden", "a.draft"]);
        remove_drafts(&folder.path().join("none")).unwrap();
    }
}
