//! What outlives the process, in a folder of its own: the secret that signs the tokens, and the certificate that the
//! machine makes for itself ([`crate::certificate`]). Nothing that says who met is ever written here, or anywhere.

use crate::auth::SECRET_BYTES_MIN;
use std::ffi::{OsStr, OsString};
use std::fs::{self, DirBuilder, File, OpenOptions, Permissions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

/// The secret's file.
const SECRET: &str = "secret";

/// Longest secret that is read: whoever puts more there gains nothing.
const SECRET_BYTES_MAX: u64 = 4096;

/// The folder, if there is to be one: what was asked for, else the system's place for what a program keeps. An
/// empty value asks for none.
pub fn folder(asked: Option<&OsStr>) -> Option<PathBuf> {
    folder_of(asked, |name| std::env::var_os(name))
}

fn folder_of(asked: Option<&OsStr>, variable: impl Fn(&str) -> Option<OsString>) -> Option<PathBuf> {
    if let Some(asked) = asked {
        return (!asked.is_empty()).then(|| asked.into());
    }
    // systemd names the folders of StateDirectory=, separated by colons; a service has one as a rule.
    let given = variable("STATE_DIRECTORY");
    let given = given.as_deref().and_then(|all| std::env::split_paths(all).next());
    // The XDG Base Directory Specification has relative paths ignored.
    let absolute = |name| variable(name).map(PathBuf::from).filter(|path| path.is_absolute());
    given
        .filter(|path| path.is_absolute())
        .or_else(|| absolute("XDG_STATE_HOME").map(|state| state.join("asamblea")))
        .or_else(|| absolute("HOME").map(|home| home.join(".local/state/asamblea")))
}

/// The secret of this folder, made if there is none yet. Of two processes that make it at once both get the same.
///
/// # Errors
/// When the folder cannot be read or written, or the file holds no secret.
pub fn secret(folder: &Path) -> io::Result<Vec<u8>> {
    let path = folder.join(SECRET);
    let kept = match read(&path, SECRET_BYTES_MAX) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let mut secret = [0u8; SECRET_BYTES_MIN];
            getrandom::fill(&mut secret).map_err(io::Error::other)?;
            write(folder, SECRET, &secret, Put::First)?;
            read(&path, SECRET_BYTES_MAX)?
        }
        kept => kept?,
    };
    if kept.len() < SECRET_BYTES_MIN {
        let why =
            format!("the secret has fewer than {SECRET_BYTES_MIN} bytes: remove it, and a new one is made");
        return Err(io::Error::new(io::ErrorKind::InvalidData, why));
    }
    Ok(kept)
}

/// What a file of the folder holds, up to so many bytes; for its owner alone from now on.
///
/// # Errors
/// When it cannot be read.
pub(crate) fn read(path: &Path, bytes_max: u64) -> io::Result<Vec<u8>> {
    let file = File::open(path)?;
    let mode = file.metadata()?.permissions().mode();
    if mode & 0o077 != 0 {
        tracing::warn!("others could read a file of the state folder; from now on they cannot");
        file.set_permissions(Permissions::from_mode(0o600))?;
    }
    let mut contents = Vec::new();
    file.take(bytes_max).read_to_end(&mut contents)?;
    Ok(contents)
}

/// What becomes of a file that is there already.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Put {
    /// It stays: whoever comes second reads what the first wrote.
    First,
    /// The new one takes its place.
    Replace,
}

/// Writes a file of the folder, whole or not at all, for its owner alone; makes the folder if need be.
///
/// # Errors
/// When the folder cannot be written.
pub(crate) fn write(folder: &Path, name: &str, contents: &[u8], put: Put) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
    let path = folder.join(name);
    let fresh = folder.join(format!("{name}.{:016x}", getrandom::u64().map_err(io::Error::other)?));
    let written = || {
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&fresh)?;
        file.write_all(contents)?;
        file.sync_all()?;
        match put {
            Put::First => match fs::hard_link(&fresh, &path) {
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => return Ok(()),
                linked => linked?,
            },
            Put::Replace => fs::rename(&fresh, &path)?,
        }
        File::open(folder)?.sync_all()
    };
    let written = written();
    // Also after a failure; what was renamed or never made cannot be removed.
    let _ = fs::remove_file(&fresh);
    written
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    /// A folder that is gone after the test.
    pub(crate) struct Place(pub(crate) PathBuf);

    impl Place {
        pub(crate) fn new() -> Self {
            let name = format!("asamblea-state-{:016x}", getrandom::u64().expect("random"));
            Self(std::env::temp_dir().join(name))
        }
    }

    impl Drop for Place {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    #[test]
    fn the_secret_is_made_once_for_its_owner_alone_and_nothing_else_is_left() {
        let place = Place::new();
        let folder = place.0.join("a/b");
        let made = secret(&folder).expect("a folder for temporary files");
        assert_eq!(made.len(), SECRET_BYTES_MIN);
        assert_eq!(secret(&folder).expect("it is there"), made);
        let mode = |path: &Path| fs::metadata(path).expect("it is there").permissions().mode() & 0o777;
        assert_eq!((mode(&folder), mode(&folder.join(SECRET))), (0o700, 0o600));
        let left: Vec<_> =
            fs::read_dir(&folder).expect("readable").map(|it| it.expect("one").file_name()).collect();
        assert_eq!(left, [SECRET]);
    }

    #[test]
    fn who_makes_it_at_the_same_time_gets_the_same() {
        let place = Place::new();
        let made: Vec<Vec<u8>> = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..16).map(|_| scope.spawn(|| secret(&place.0).expect("made"))).collect();
            threads.into_iter().map(|thread| thread.join().expect("no panic")).collect()
        });
        assert!(made.iter().all(|one| *one == made[0]));
    }

    #[test]
    fn a_damaged_secret_is_said_and_not_replaced() {
        let place = Place::new();
        fs::create_dir_all(&place.0).expect("a folder for temporary files");
        fs::write(place.0.join(SECRET), [7; SECRET_BYTES_MIN - 1]).expect("written");
        assert_eq!(secret(&place.0).expect_err("too short").kind(), io::ErrorKind::InvalidData);
        assert_eq!(fs::read(place.0.join(SECRET)).expect("there").len(), SECRET_BYTES_MIN - 1);
    }

    #[test]
    fn what_others_could_read_they_cannot_any_more() {
        let place = Place::new();
        let made = secret(&place.0).expect("made");
        let path = place.0.join(SECRET);
        fs::set_permissions(&path, Permissions::from_mode(0o644)).expect("ours");
        assert_eq!(secret(&place.0).expect("kept"), made);
        assert_eq!(fs::metadata(&path).expect("there").permissions().mode() & 0o777, 0o600);
    }

    #[test]
    fn a_place_that_cannot_be_written_is_an_error() {
        let place = Place::new();
        fs::create_dir_all(&place.0).expect("a folder for temporary files");
        // Also for root: a file, and a link to nowhere, are no folders.
        fs::write(place.0.join("file"), "").expect("written");
        symlink("nowhere/at/all", place.0.join("link")).expect("made");
        assert!(secret(&place.0.join("file")).is_err());
        assert!(secret(&place.0.join("link")).is_err());
    }

    #[test]
    fn the_folder_is_the_systems_unless_told_and_none_if_told_nothing() {
        let variables = |set: &'static [(&str, &str)]| {
            move |name: &str| set.iter().find(|(known, _)| *known == name).map(|(_, value)| value.into())
        };
        let all =
            [("STATE_DIRECTORY", "/var/lib/a:/var/lib/b"), ("XDG_STATE_HOME", "/state"), ("HOME", "/home/a")];
        let all: &'static [(&str, &str)] = Box::leak(Box::new(all));
        let place = |asked: Option<&str>, set| folder_of(asked.map(OsStr::new), variables(set));
        let path = |text: &str| Some(PathBuf::from(text));
        assert_eq!(place(Some("here"), all), path("here"));
        assert_eq!(place(Some(""), all), None);
        assert_eq!(place(None, all), path("/var/lib/a"));
        assert_eq!(place(None, &all[1..]), path("/state/asamblea"));
        assert_eq!(place(None, &all[2..]), path("/home/a/.local/state/asamblea"));
        assert_eq!(place(None, &[("XDG_STATE_HOME", "state"), ("STATE_DIRECTORY", "")]), None);
    }
}
