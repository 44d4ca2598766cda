//! What a flag is: its kind, how its value is read, what becomes of it in this version.
//!
//! The flags themselves stand in one table ([`super::table`]); parsing, variables, file, `--help`, warnings and refusals
//! follow from it.

pub(super) use super::table::{EXPERIMENTAL, FLAGS};
use super::{Url, gates, value};

/// What a value may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// Any text.
    Text,
    /// A truth value, which may be left out on the command line.
    Bool,
    /// A whole number from 0 to this.
    Unsigned(u64),
    /// A whole number.
    Signed,
    /// A duration, kept in nanoseconds.
    Duration,
    /// URLs separated by commas.
    Urls,
    /// URLs separated by commas, or `*`.
    Origins,
    /// Texts separated by commas.
    List,
    /// One of these.
    Choice(&'static [&'static str]),
    /// Feature gates.
    Gates,
    /// A flag of an older etcd that even etcd ignores; takes anything, or nothing.
    Anything,
}

/// A value that was read.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Value {
    Text(String),
    Bool(bool),
    Unsigned(u64),
    Signed(i64),
    DurationNs(i64),
    Urls(Vec<Url>),
    List(Vec<String>),
    Gates(Vec<(&'static str, bool)>),
}

impl Kind {
    /// Reads a value.
    pub(super) fn read(self, text: &str) -> Result<Value, String> {
        match self {
            Kind::Text | Kind::Anything => Ok(Value::Text(text.to_owned())),
            Kind::Bool => value::boolean(text).map(Value::Bool).ok_or_else(|| "parse error".to_owned()),
            Kind::Unsigned(max) => value::unsigned(text, max).map(Value::Unsigned),
            Kind::Signed => value::signed(text).map(Value::Signed),
            // Go's flag package hides what was wrong with a duration.
            Kind::Duration => {
                value::duration_ns(text).map(Value::DurationNs).map_err(|_| "parse error".to_owned())
            }
            Kind::Urls => value::urls(text).map(Value::Urls),
            Kind::Origins if text == "*" => Ok(Value::List(vec!["*".to_owned()])),
            Kind::Origins => {
                value::urls(text).map(|urls| Value::List(urls.into_iter().map(|url| url.text).collect()))
            }
            Kind::List => Ok(Value::List(value::list(text))),
            Kind::Choice(choices) if choices.contains(&text) => Ok(Value::Text(text.to_owned())),
            Kind::Choice(_) => Err("invalid value".to_owned()),
            Kind::Gates => gates::parse(text).map(Value::Gates),
        }
    }

    /// Whether the command line may leave the value out.
    pub(super) fn is_boolean(self) -> bool {
        matches!(self, Kind::Bool | Kind::Anything)
    }
}

/// What becomes of a flag.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Effect {
    /// It does what it says.
    Effective,
    /// Given another value than the default, it is warned about: with this reason.
    Warned(&'static str),
    /// Given another value than the default, the start is refused: with this reason.
    Refused(&'static str),
}

/// Where `--help` lists a flag.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Group {
    Member,
    Clustering,
    Security,
    Auth,
    Monitoring,
    Logging,
    Features,
    Unsafe,
    Coffer,
    /// Names of older versions of etcd: read, not listed.
    Older,
}

/// A flag.
#[derive(Debug)]
pub(super) struct Flag {
    pub(super) name: &'static str,
    pub(super) kind: Kind,
    pub(super) default: &'static str,
    pub(super) group: Group,
    pub(super) effect: Effect,
    pub(super) help: &'static str,
}

/// What an `experimental-` name of etcd 3.5 or 3.6 stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Experimental {
    /// The flag without the prefix.
    Flag(&'static str),
    /// A feature gate.
    Gate(&'static str),
}

/// The flag of that name.
pub(super) fn find(name: &str) -> Option<&'static Flag> {
    FLAGS.iter().find(|flag| flag.name == name)
}

/// The flag, or the gate, that an `experimental-` name stands for.
pub(super) fn find_experimental(name: &str) -> Option<Experimental> {
    let name = name.strip_prefix("experimental-")?;
    EXPERIMENTAL.iter().find(|(known, _)| *known == name).map(|(_, meaning)| *meaning)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_is_there_once_and_every_default_can_be_read() {
        for (place, flag) in FLAGS.iter().enumerate() {
            assert!(
                FLAGS.iter().skip(place + 1).all(|other| other.name != flag.name),
                "--{} stands twice",
                flag.name
            );
            assert!(flag.kind.read(flag.default).is_ok(), "--{} has a bad default", flag.name);
            assert_eq!(flag.help.is_empty(), flag.group == Group::Older, "--{}", flag.name);
        }
    }

    #[test]
    fn every_experimental_name_stands_for_something_that_exists() {
        for (name, meaning) in EXPERIMENTAL {
            match meaning {
                Experimental::Flag(target) => assert!(find(target).is_some(), "{name}"),
                Experimental::Gate(target) => assert!(gates::find(target).is_some(), "{name}"),
            }
            assert!(find(&format!("experimental-{name}")).is_none(), "{name} would be found twice");
        }
    }
}
