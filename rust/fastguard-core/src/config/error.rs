//! What is wrong with a configuration, in words that lead to its cure.

use std::fmt;

/// Everything that is wrong with one configuration.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct ConfigError {
    file: Option<String>,
    problems: Vec<Problem>,
}

/// One thing that is wrong.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Problem {
    /// Where, as the file spells it: `issuers[0].jwks_uri`. Empty for the file as a whole.
    pub key: String,
    /// The line in the file, where it is known.
    pub line: Option<usize>,
    /// What.
    pub message: String,
    /// What was probably meant.
    pub nearest: Option<String>,
}

/// Something that is allowed and probably not meant.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Warning {
    /// Where.
    pub key: String,
    /// What.
    pub message: String,
}

impl Problem {
    pub(super) fn new(key: impl Into<String>, message: impl Into<String>) -> Self {
        Self { key: key.into(), line: None, message: message.into(), nearest: None }
    }

    /// Names the candidate that is nearest to what was written, if one is near.
    #[must_use]
    pub(super) fn nearest<'a>(mut self, written: &str, candidates: impl IntoIterator<Item = &'a str>) -> Self {
        self.nearest = nearest(written, candidates);
        self
    }
}

/// The candidate that differs least. More than two fifths of its letters apart, none is near.
pub(super) fn nearest<'a>(written: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<String> {
    let distance = |candidate: &&str| strsim::damerau_levenshtein(&written.to_lowercase(), &candidate.to_lowercase());
    let best = candidates.into_iter().min_by_key(distance)?;
    (distance(&best) * 5 <= best.chars().count().max(3) * 2).then(|| best.to_owned())
}

impl ConfigError {
    /// One problem at a key.
    pub fn at(key: impl Into<String>, message: impl Into<String>) -> Self {
        Self::new(vec![Problem::new(key, message)])
    }

    pub(super) const fn new(problems: Vec<Problem>) -> Self {
        Self { file: None, problems }
    }

    pub(super) fn in_file(mut self, file: Option<&str>) -> Self {
        self.file = file.map(str::to_owned);
        self
    }

    pub(super) fn with_lines(mut self, line_of: impl Fn(&str) -> Option<usize>) -> Self {
        for problem in &mut self.problems {
            problem.line = problem.line.or_else(|| line_of(&problem.key));
        }
        self
    }

    /// The problems, one by one.
    pub fn problems(&self) -> &[Problem] {
        &self.problems
    }
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, problem) in self.problems.iter().enumerate() {
            if index > 0 {
                f.write_str("\n")?;
            }
            if let Some(file) = &self.file {
                write!(f, "{file}:")?;
                if let Some(line) = problem.line {
                    write!(f, "{line}:")?;
                }
                f.write_str(" ")?;
            }
            if !problem.key.is_empty() {
                write!(f, "{}: ", problem.key)?;
            }
            f.write_str(&problem.message)?;
            if let Some(nearest) = &problem.nearest {
                write!(f, "; the nearest is `{nearest}`")?;
            }
        }
        Ok(())
    }
}

impl std::error::Error for ConfigError {}
