//! Settings by name, as gathered from arguments, variables or a file.
//!
//! Arguments follow Go's flag package: `-name`, `--name`, `--name=value`, `--name value`; a boolean takes its value
//! after `=` only, so `--pre-vote false` leaves "false" over, which is then refused. `--` ends the flags.

use super::flags::{self, Effect, Experimental, FLAGS, Flag, Kind, Value};
use super::{Failure, LogLevel, Note, NoteLevel};
use std::collections::BTreeMap;

/// Prefix of all environment variables.
const PREFIX: &str = "ETCD_";
/// etcd's own variables that are no flags: looked at before the flags are, or meant for its tests.
const NOT_FLAGS: [&str; 1] = ["ETCD_UNSUPPORTED_ARCH"];

/// A value that was given.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Given {
    pub(super) value: Value,
    pub(super) text: String,
}

/// All values that were given.
#[derive(Clone, Debug, Default)]
pub(super) struct Settings {
    given: BTreeMap<&'static str, Given>,
    /// Gates set by an `experimental-` name of their own.
    gates: Vec<(&'static str, bool)>,
    pub(super) notes: Vec<Note>,
}

/// A request to print something instead of serving.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct HelpWanted;

fn usage(text: String) -> Failure {
    Failure {
        exit_code: 2,
        text: format!("{text}\nRun \"coffer --help\" to see all flags."),
        line: None,
        fields: Vec::new(),
    }
}

/// A failure that etcd logs as "failed to verify flags".
pub(super) fn unfit(text: String) -> Failure {
    Failure { exit_code: 1, text, line: Some((LogLevel::Warn, "failed to verify flags")), fields: Vec::new() }
}

fn warning(message: String, fields: Vec<(&'static str, String)>) -> Note {
    Note { level: NoteLevel::Warn, message, fields }
}

/// What a name on the command line, in the environment or in a file means.
#[derive(Clone, Copy)]
enum Meaning {
    Flag(&'static Flag),
    Gate(&'static str),
}

impl Meaning {
    fn of(name: &str) -> Option<Meaning> {
        if let Some(flag) = flags::find(name) {
            return Some(Meaning::Flag(flag));
        }
        match flags::find_experimental(name)? {
            Experimental::Flag(target) => flags::find(target).map(Meaning::Flag),
            Experimental::Gate(gate) => Some(Meaning::Gate(gate)),
        }
    }

    fn kind(self) -> Kind {
        match self {
            Meaning::Flag(flag) => flag.kind,
            Meaning::Gate(_) => Kind::Bool,
        }
    }
}

impl Settings {
    /// Reads the command line.
    pub(super) fn from_arguments(arguments: &[String]) -> Result<Result<Settings, HelpWanted>, Failure> {
        let mut settings = Settings::default();
        let mut rest = arguments.iter();
        while let Some(argument) = rest.next() {
            let stripped = argument.strip_prefix("--").or_else(|| argument.strip_prefix('-'));
            let Some(body) = stripped.filter(|_| argument.len() > 1) else {
                return Err(unfit(format!("{argument:?} is not a valid flag")));
            };
            if argument == "--" {
                return match rest.next() {
                    Some(left) => Err(unfit(format!("{left:?} is not a valid flag"))),
                    None => Ok(Ok(settings)),
                };
            }
            if body.is_empty() || body.starts_with(['-', '=']) {
                return Err(usage(format!("bad flag syntax: {argument}")));
            }
            let (name, given) =
                body.split_once('=').map_or((body, None), |(name, value)| (name, Some(value)));
            let Some(meaning) = Meaning::of(name) else {
                if name == "h" || name == "help" {
                    return Ok(Err(HelpWanted));
                }
                return Err(usage(format!("flag provided but not defined: -{name}")));
            };
            let kind = meaning.kind();
            let text = match given {
                Some(text) => text,
                None if kind.is_boolean() => "true",
                None => rest
                    .next()
                    .map(String::as_str)
                    .ok_or_else(|| usage(format!("flag needs an argument: -{name}")))?,
            };
            settings.set(meaning, name, text).map_err(|error| {
                let what = if kind == Kind::Bool { "boolean value" } else { "value" };
                let of = if kind == Kind::Bool { "" } else { "flag " };
                usage(format!("invalid {what} {text:?} for {of}-{name}: {error}"))
            })?;
        }
        Ok(Ok(settings))
    }

    fn set(&mut self, meaning: Meaning, name: &str, text: &str) -> Result<(), String> {
        let value = meaning.kind().read(text)?;
        if name.starts_with("experimental-") {
            self.notes.push(warning(
                format!("--{name} is an older name and may go: use {}", newer_name(meaning)),
                Vec::new(),
            ));
        }
        match (meaning, value) {
            (Meaning::Flag(flag), value) => {
                self.given.insert(flag.name, Given { value, text: text.to_owned() });
            }
            (Meaning::Gate(gate), Value::Bool(enabled)) => self.gates.push((gate, enabled)),
            // A gate's kind is Bool, so nothing else is read for it.
            (Meaning::Gate(_), _) => {}
        }
        Ok(())
    }

    /// Adds what the environment says about flags that the command line leaves out.
    pub(super) fn add_variables(&mut self, variables: &[(String, String)]) -> Result<(), Failure> {
        let from_arguments: Vec<&'static str> = self.given.keys().copied().collect();
        for (key, text) in variables {
            let Some(name) = key.strip_prefix(PREFIX) else { continue };
            let name = name.to_ascii_lowercase().replace('_', "-");
            let shown = || vec![("environment-variable", format!("{key}={text}"))];
            if key == "ETCD_VERSION" {
                self.notes.push(warning(
                    "cannot set special environment variable".to_owned(),
                    vec![("key", key.clone()), ("value", text.clone())],
                ));
                continue;
            }
            let written_as = PREFIX.to_owned() + &name.to_ascii_uppercase().replace('-', "_");
            let meaning = Meaning::of(&name).filter(|_| written_as == *key);
            let Some(meaning) = meaning else {
                if !NOT_FLAGS.contains(&key.as_str()) {
                    self.notes.push(warning("unrecognized environment variable".to_owned(), shown()));
                }
                continue;
            };
            let shadowed = matches!(meaning, Meaning::Flag(flag) if from_arguments.contains(&flag.name));
            if shadowed {
                return Err(conflict(key));
            }
            if text.is_empty() {
                self.notes.push(warning("unrecognized environment variable".to_owned(), shown()));
                continue;
            }
            self.set(meaning, &name, text)
                .map_err(|error| unfit(format!("invalid value {text:?} for {key}: {error}")))?;
            self.notes.push(Note {
                level: NoteLevel::Info,
                message: "recognized and used environment variable".to_owned(),
                fields: vec![("variable-name", key.clone()), ("variable-value", text.clone())],
            });
        }
        Ok(())
    }

    /// Reads a configuration file's text.
    pub(super) fn from_yaml(text: &str) -> Result<Settings, Failure> {
        super::file::read(text)
    }

    /// Sets a flag from a configuration file; false if no flag is called so.
    pub(super) fn set_by_name(&mut self, name: &str, text: &str) -> Result<bool, Failure> {
        let Some(meaning) = Meaning::of(name) else { return Ok(false) };
        self.set(meaning, name, text)
            .map_err(|error| unfit(format!("invalid value {text:?} for {name}: {error}")))?;
        Ok(true)
    }

    /// What kind a name's value is of, if a flag is called so.
    pub(super) fn kind_of(name: &str) -> Option<Kind> {
        Meaning::of(name).map(Meaning::kind)
    }

    /// Takes a flag as not given.
    pub(super) fn forget(&mut self, name: &str) {
        self.given.remove(name);
    }

    /// Whether the flag was given.
    pub(super) fn is_given(&self, name: &str) -> bool {
        self.given.contains_key(name)
    }

    /// A flag's value as text: as given, or the default.
    pub(super) fn raw(&self, name: &str) -> String {
        self.given
            .get(name)
            .map(|given| given.text.clone())
            .or_else(|| flags::find(name).map(|flag| flag.default.to_owned()))
            .unwrap_or_default()
    }

    /// A flag's value, given or by default. `None` for a name that is not in the table.
    fn value(&self, name: &str) -> Option<Value> {
        if let Some(given) = self.given.get(name) {
            return Some(given.value.clone());
        }
        let flag = flags::find(name)?;
        flag.kind.read(flag.default).ok()
    }

    /// A truth value.
    pub(super) fn boolean(&self, name: &str) -> bool {
        matches!(self.value(name), Some(Value::Bool(true)))
    }

    /// A whole number from 0.
    pub(super) fn unsigned(&self, name: &str) -> u64 {
        match self.value(name) {
            Some(Value::Unsigned(value)) => value,
            other => unreachable!("--{name} is no unsigned number in the table of flags: {other:?}"),
        }
    }

    /// A whole number.
    pub(super) fn signed(&self, name: &str) -> i64 {
        match self.value(name) {
            Some(Value::Signed(value)) => value,
            other => unreachable!("--{name} is no number in the table of flags: {other:?}"),
        }
    }

    /// A duration, in nanoseconds.
    pub(super) fn duration_ns(&self, name: &str) -> i64 {
        match self.value(name) {
            Some(Value::DurationNs(value)) => value,
            other => unreachable!("--{name} is no duration in the table of flags: {other:?}"),
        }
    }

    /// URLs.
    pub(super) fn urls(&self, name: &str) -> Vec<super::Url> {
        match self.value(name) {
            Some(Value::Urls(urls)) => urls,
            other => unreachable!("--{name} is no list of URLs in the table of flags: {other:?}"),
        }
    }

    /// Texts.
    pub(super) fn list(&self, name: &str) -> Vec<String> {
        match self.value(name) {
            Some(Value::List(texts)) => texts,
            other => unreachable!("--{name} is no list in the table of flags: {other:?}"),
        }
    }

    /// Gates set by `--feature-gates` and by names of their own, which must not contradict each other.
    pub(super) fn gates(&self) -> Result<Vec<(&'static str, bool)>, Failure> {
        let Some(Value::Gates(mut set)) = self.value("feature-gates") else { return Ok(self.gates.clone()) };
        for (gate, enabled) in &self.gates {
            if set.iter().any(|(name, other)| name == gate && other != enabled) {
                return Err(unfit(format!(
                    "--feature-gates and the older flag of its own say different things about {gate}"
                )));
            }
            set.push((gate, *enabled));
        }
        Ok(set)
    }

    /// Flags that were given a value other than their default, in the order of the table.
    pub(super) fn changed(&self) -> impl Iterator<Item = (&'static Flag, &Given)> {
        FLAGS.iter().filter_map(|flag| {
            let given = self.given.get(flag.name)?;
            let same =
                flag.kind != Kind::Anything && flag.kind.read(flag.default).as_ref() == Ok(&given.value);
            (!same).then_some((flag, given))
        })
    }

    /// Warns about and refuses flags by the table.
    pub(super) fn apply_effects(&mut self) -> Result<(), Failure> {
        let mut warnings = Vec::new();
        for (flag, given) in self.changed() {
            match flag.effect {
                Effect::Effective => {}
                Effect::Warned(reason) => {
                    let message = format!("--{} has no effect: {reason}", flag.name);
                    warnings.push(warning(message, vec![("value", given.text.clone())]));
                }
                // etcd has words of its own for this one.
                Effect::Refused(reason) if flag.name == "discovery-fallback" => {
                    return Err(unfit(reason.to_owned()));
                }
                Effect::Refused(reason) => {
                    return Err(unfit(format!(
                        "--{}={} cannot be honoured: {reason}",
                        flag.name, given.text
                    )));
                }
            }
        }
        self.notes.append(&mut warnings);
        Ok(())
    }
}

fn newer_name(meaning: Meaning) -> String {
    match meaning {
        Meaning::Flag(flag) => format!("--{}", flag.name),
        Meaning::Gate(gate) => format!("--feature-gates={gate}=..."),
    }
}

fn conflict(variable: &str) -> Failure {
    let message = "conflicting environment variable is shadowed by corresponding command-line flag \
                   (either unset environment variable or disable flag))";
    Failure {
        exit_code: 1,
        text: format!("{message}: {variable}"),
        line: Some((LogLevel::Fatal, message)),
        fields: vec![("environment-variable", variable.to_owned())],
    }
}
