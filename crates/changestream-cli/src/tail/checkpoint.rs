//! The file that remembers where a stream stands.

use std::ffi::OsString;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use changestream_core::ResumeToken;

use crate::exit::Failure;
use crate::token::{self, Start};

/// A file with one line, such as `{"resumeAfter":{"_data":"82..."}}`: the option of the stream that goes on from there.
#[derive(Debug)]
pub(super) struct Checkpoint {
    path: PathBuf,
    saved: Option<Position>,
}

/// Where a stream stands, and how another goes on from there.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Position {
    pub(super) token: ResumeToken,
    pub(super) start: Start,
}

impl Checkpoint {
    pub(super) fn new(path: PathBuf) -> Self {
        Self { path, saved: None }
    }

    /// The position in the file; none if there is no file.
    pub(super) fn load(&mut self) -> Result<Option<Position>, Failure> {
        let text = match token::read_file(&self.path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(self.failure(&error)),
        };
        let (token, start) = token::parse(&text).map_err(|failure| {
            self.failure(&io::Error::new(io::ErrorKind::InvalidData, failure.to_string()))
        })?;
        self.saved = Some(Position {
            token,
            start: start.unwrap_or(Start::ResumeAfter),
        });
        Ok(self.saved.clone())
    }

    /// Puts the position into the file: whoever reads it, after whatever crash, finds the old one or the new one.
    pub(super) fn save(&mut self, position: Position) -> Result<(), Failure> {
        if self.saved.as_ref() == Some(&position) {
            return Ok(());
        }
        let start = position.start.as_str();
        let line = format!("{{\"{start}\":{}}}\n", token::to_json(&position.token)?);
        replace(&self.path, line.as_bytes()).map_err(|error| self.failure(&error))?;
        self.saved = Some(Position {
            token: position.token.into_owned(),
            ..position
        });
        Ok(())
    }

    fn failure(&self, error: &io::Error) -> Failure {
        Failure::file(format_args!("checkpoint {}", self.path.display()), error)
    }
}

/// Writes beside the file, then renames over it. Both the content and the name reach the disk.
fn replace(path: &Path, content: &[u8]) -> io::Result<()> {
    let Some(name) = path.file_name() else {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "it is no file name"));
    };
    let mut temporary = OsString::from(".");
    temporary.push(name);
    temporary.push(format!(".{}.tmp", std::process::id()));
    let temporary = path.with_file_name(temporary);
    let written = write_synced(&temporary, content).and_then(|()| fs::rename(&temporary, path));
    if written.is_err() {
        let _ = fs::remove_file(&temporary);
        return written;
    }
    sync_folder_of(path)
}

fn write_synced(path: &Path, content: &[u8]) -> io::Result<()> {
    let mut file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .open(path)?;
    file.write_all(content)?;
    file.sync_all()
}

fn sync_folder_of(path: &Path) -> io::Result<()> {
    let folder = match path.parent() {
        Some(folder) if folder != Path::new("") => folder,
        Some(_) | None => Path::new("."),
    };
    // Only Unix opens folders.
    if cfg!(unix) {
        File::open(folder)?.sync_all()
    } else {
        Ok(())
    }
}
