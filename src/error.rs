//! The error types. Every message names the field, its value and the rule it broke, and is complete by itself: what an
//! error's `source()` says is in it too.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

/// An error between a user's input and a plan.
///
/// Two errors are equal where they are of one variant and say the same. Variants and their fields may become more in a
/// minor version.
///
/// ```
/// use eplb_wgpu::{Cluster, Error};
/// match Cluster::new(289, 8, 4, 32) {
///     Err(Error::Invalid { field, value, .. }) => assert_eq!((&*field, &*value), ("num_replicas", "289")),
///     other => panic!("{other:?}"),
/// }
/// ```
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum Error {
    /// A number or a shape that breaks a rule: `num_replicas 289 is not a multiple of num_gpus 32`.
    #[non_exhaustive]
    Invalid {
        /// The name of the field, as the API or the command line spells it.
        field: String,
        /// The offending value, as given.
        value: String,
        /// The rule it breaks, worded to follow the value.
        rule: String,
    },
    /// A plan that does not fit its loads or its cluster; see [`crate::check`].
    #[non_exhaustive]
    InvalidPlan {
        /// The first layer that breaks the rule, counted from 0.
        layer: usize,
        /// The rule, with the slot, expert or node it names.
        rule: String,
    },
    /// A file that cannot be read.
    #[non_exhaustive]
    Read {
        /// The file.
        path: PathBuf,
        /// The message of the operating system.
        source: Arc<std::io::Error>,
    },
    /// A file that is not what it should be.
    #[non_exhaustive]
    Parse {
        /// The file.
        path: PathBuf,
        /// The fault in it, with the place where one is known.
        source: ParseError,
    },
    /// A file that cannot be written; the previous file of that name, if any, is untouched.
    #[non_exhaustive]
    Write {
        /// The file.
        path: PathBuf,
        /// The message of the operating system, or an error of kind `InvalidInput` where the path or the format will not do.
        source: Arc<std::io::Error>,
    },
    /// No adapter fits the choice of device.
    #[non_exhaustive]
    NoDevice {
        /// The choice as given.
        wanted: String,
        /// Every adapter found, by name.
        found: Vec<String>,
    },
    /// The device refused or lost the work.
    #[non_exhaustive]
    Device {
        /// The adapter's name.
        device: String,
        /// The message of the driver or of wgpu.
        reason: String,
    },
    /// The call was stopped by [`crate::Cancel::cancel`].
    Cancelled,
}

/// A fault in the bytes of a file. [`Error::Parse`] tells which file it is.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum ParseError {
    /// The bytes are not of the format at all.
    #[non_exhaustive]
    Syntax {
        /// The fault, and where it is.
        reason: String,
        /// The message of the parser, where another one read the bytes.
        source: Option<Arc<dyn std::error::Error + Send + Sync>>,
    },
    /// The bytes are of the format, but cut off or changed.
    #[non_exhaustive]
    Damaged {
        /// The sign of it.
        reason: String,
        /// The message of the parser, where another one read the bytes.
        source: Option<Arc<dyn std::error::Error + Send + Sync>>,
    },
    /// The file is sound, but does not hold what is wanted of it.
    #[non_exhaustive]
    Content {
        /// The part that is missing or does not fit.
        reason: String,
    },
    /// The content of the file breaks a rule.
    Invalid(Box<Error>),
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Error::Invalid { field, value, rule } => write!(f, "{field} {value} {rule}"),
            Error::InvalidPlan { layer, rule } => write!(f, "plan is not valid: layer {layer}: {rule}"),
            Error::Read { path, source } => write!(f, "{}: {source}", path.display()),
            Error::Parse { path, source } => write!(f, "{}: {source}", path.display()),
            Error::Write { path, source } => write!(f, "cannot write {}: {source}", path.display()),
            Error::NoDevice { wanted, found } => {
                let found = if found.is_empty() { "none".to_string() } else { found.join(", ") };
                write!(f, "device {wanted} is not here; found: {found}")
            }
            Error::Device { device, reason } => write!(f, "device {device} failed: {reason}"),
            Error::Cancelled => f.write_str("the call was cancelled"),
        }
    }
}

impl fmt::Display for ParseError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ParseError::Syntax { reason, .. }
            | ParseError::Damaged { reason, .. }
            | ParseError::Content { reason } => f.write_str(reason),
            ParseError::Invalid(error) => write!(f, "{error}"),
        }
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Error::Read { source, .. } | Error::Write { source, .. } => Some(&**source),
            Error::Parse { source, .. } => Some(source),
            _ => None,
        }
    }
}

impl std::error::Error for ParseError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            ParseError::Syntax { source, .. } | ParseError::Damaged { source, .. } => {
                source.as_ref().map(|source| &**source as &(dyn std::error::Error + 'static))
            }
            ParseError::Invalid(error) => Some(&**error),
            ParseError::Content { .. } => None,
        }
    }
}

impl PartialEq for Error {
    fn eq(&self, other: &Self) -> bool {
        std::mem::discriminant(self) == std::mem::discriminant(other) && self.to_string() == other.to_string()
    }
}

impl PartialEq for ParseError {
    fn eq(&self, other: &Self) -> bool {
        std::mem::discriminant(self) == std::mem::discriminant(other) && self.to_string() == other.to_string()
    }
}

impl From<Error> for ParseError {
    fn from(error: Error) -> Self {
        ParseError::Invalid(Box::new(error))
    }
}

impl Error {
    /// An [`Error::Invalid`] from displayable parts.
    pub(crate) fn invalid(field: impl Into<String>, value: impl ToString, rule: impl Into<String>) -> Self {
        Error::Invalid { field: field.into(), value: value.to_string(), rule: rule.into() }
    }
}

/// Errors of readers and writers of files.
#[cfg(feature = "files")]
mod of_files {
    use std::path::Path;

    use super::{Arc, Error, ParseError};

    impl Error {
        /// An [`Error::Read`].
        pub(crate) fn read(path: &Path, source: std::io::Error) -> Self {
            Error::Read { path: path.to_path_buf(), source: Arc::new(source) }
        }

        /// An [`Error::Parse`].
        pub(crate) fn parse(path: &Path, source: ParseError) -> Self {
            Error::Parse { path: path.to_path_buf(), source }
        }

        /// An [`Error::Write`].
        pub(crate) fn write(path: &Path, source: std::io::Error) -> Self {
            Error::Write { path: path.to_path_buf(), source: Arc::new(source) }
        }

        /// An [`Error::Write`] of a file that nothing is written to.
        pub(crate) fn unwritable(
            path: &Path,
            reason: impl Into<Box<dyn std::error::Error + Send + Sync>>,
        ) -> Self {
            Self::write(path, std::io::Error::new(std::io::ErrorKind::InvalidInput, reason))
        }
    }

    impl ParseError {
        /// A [`ParseError::Syntax`] found here.
        pub(crate) fn syntax(reason: impl Into<String>) -> Self {
            ParseError::Syntax { reason: reason.into(), source: None }
        }

        /// A [`ParseError::Syntax`] that another parser found: `not JSON: …`.
        pub(crate) fn not(what: &str, source: impl std::error::Error + Send + Sync + 'static) -> Self {
            ParseError::Syntax { reason: format!("not {what}: {source}"), source: Some(Arc::new(source)) }
        }

        /// A [`ParseError::Damaged`] found here.
        pub(crate) fn damaged(reason: impl Into<String>) -> Self {
            ParseError::Damaged { reason: reason.into(), source: None }
        }

        /// A [`ParseError::Damaged`] that another parser found.
        pub(crate) fn damaged_by(what: &str, source: impl std::error::Error + Send + Sync + 'static) -> Self {
            ParseError::Damaged { reason: format!("{what}: {source}"), source: Some(Arc::new(source)) }
        }

        /// A [`ParseError::Content`].
        pub(crate) fn content(reason: impl Into<String>) -> Self {
            ParseError::Content { reason: reason.into() }
        }
    }
}

#[cfg(all(test, feature = "files"))]
mod tests {
    use std::error::Error as _;
    use std::io::{self, ErrorKind};
    use std::path::Path;

    use super::*;

    #[test]
    fn sources_can_be_matched_and_clones_are_equal() {
        let path = Path::new("loads.json");
        let read = Error::read(path, io::Error::from(ErrorKind::NotFound));
        let source = read.source().and_then(|source| source.downcast_ref::<io::Error>()).unwrap();
        assert_eq!(source.kind(), ErrorKind::NotFound);
        assert_eq!(read.clone(), read);
        assert_ne!(read, Error::write(path, io::Error::from(ErrorKind::NotFound)));
        assert_ne!(read, Error::read(path, io::Error::from(ErrorKind::PermissionDenied)));

        let json = serde_json::from_str::<Vec<u32>>("[1").unwrap_err();
        let parse = Error::parse(path, ParseError::not("JSON", json));
        assert!(parse.to_string().starts_with("loads.json: not JSON: EOF"), "{parse}");
        let json = parse.source().and_then(|parse| parse.source()).unwrap();
        assert!(json.downcast_ref::<serde_json::Error>().is_some_and(serde_json::Error::is_eof));

        let rule = ParseError::from(Error::invalid("layers", 0, "is not at least 1"));
        assert_eq!(rule.to_string(), "layers 0 is not at least 1");
        assert!(rule.source().is_some_and(|source| source.is::<Error>()));
        assert!(Error::Cancelled.source().is_none());
    }
}
