//! Names that cannot be wrong: of services, and of variables that are handed on.

use std::fmt;

/// The stem of a service file: lower-case letters, digits and hyphens.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ServiceName(String);

impl ServiceName {
    /// A name, when the text can be one.
    #[must_use]
    pub fn new(text: &str) -> Option<ServiceName> {
        let fits = !text.is_empty()
            && text.len() <= 40
            && text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
            && !text.starts_with('-');
        fits.then(|| ServiceName(text.to_owned()))
    }

    /// The name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for ServiceName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl serde::Serialize for ServiceName {
    fn serialize<S: serde::Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.serialize_str(&self.0)
    }
}

/// A variable, or every variable that begins so, handed on from the supervisor's own environment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pass(String);

impl Pass {
    /// `NAME` or `NAME*`.
    #[must_use]
    pub fn new(text: &str) -> Option<Pass> {
        let stem = text.strip_suffix('*').unwrap_or(text);
        let fits = !stem.is_empty() && stem.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_');
        fits.then(|| Pass(text.to_owned()))
    }

    /// The one variable that it names; `None` when it names all that begin so.
    #[must_use]
    pub fn name(&self) -> Option<&str> {
        (!self.0.ends_with('*')).then_some(self.0.as_str())
    }

    /// Whether it names this variable.
    #[must_use]
    pub fn names(&self, variable: &str) -> bool {
        match self.0.strip_suffix('*') {
            Some(stem) => variable.starts_with(stem),
            None => variable == self.0,
        }
    }
}
