//! Arguments of a sub-command, read by the rules of etcd's tools (pflag's): `--name value`, `--name=value`, `-w value`,
//! `-wvalue`; a truth value is given after `=` only; flags and words may be mixed; `--` ends the flags.

use crate::config::value;
use std::collections::BTreeMap;
use std::time::Duration;

/// What a flag takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// Any text.
    Text,
    /// A truth value.
    Bool,
    /// A number from 0 on.
    Unsigned,
    /// A duration in Go's form.
    Duration,
}

/// A flag.
#[derive(Debug)]
pub(super) struct Flag {
    pub(super) name: &'static str,
    /// A letter that stands for the name, if there is one.
    pub(super) short: Option<char>,
    pub(super) kind: Kind,
    pub(super) default: &'static str,
    pub(super) help: &'static str,
}

impl Flag {
    pub(super) const fn new(
        name: &'static str,
        kind: Kind,
        default: &'static str,
        help: &'static str,
    ) -> Flag {
        Flag { name, short: None, kind, default, help }
    }
}

/// A sub-command as its help shows it.
#[derive(Debug)]
pub(super) struct Command {
    /// How it is called.
    pub(super) usage: &'static str,
    /// What it does.
    pub(super) about: &'static str,
    pub(super) flags: &'static [&'static Flag],
    /// Variables that start so set flags too: `--dial-timeout` as `ETCDCTL_DIAL_TIMEOUT`.
    pub(super) variables: Option<&'static str>,
}

/// Arguments that were read.
#[derive(Debug, Default)]
pub(super) struct Arguments {
    given: BTreeMap<&'static str, String>,
    /// What is no flag.
    pub(super) words: Vec<String>,
}

/// Why there is nothing to do.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Unread {
    /// Help was asked for.
    Help,
    /// What is wrong.
    Wrong(String),
}

impl Command {
    /// Reads arguments, and variables where the command takes some.
    pub(super) fn read(
        &self,
        arguments: &[String],
        variables: &[(String, String)],
    ) -> Result<Arguments, Unread> {
        let mut read = Arguments::default();
        let mut rest = arguments.iter();
        while let Some(argument) = rest.next() {
            if argument == "--" {
                read.words.extend(rest.cloned());
                break;
            }
            if !self.read_flag(&mut read, argument, &mut rest)? {
                read.words.push(argument.clone());
            }
        }
        self.add_variables(&mut read, variables)?;
        for flag in self.flags {
            read.given.entry(flag.name).or_insert_with(|| flag.default.to_owned());
        }
        Ok(read)
    }

    /// Reads one flag, with its value, which may be the next argument; false for what is none.
    fn read_flag<'a>(
        &self,
        read: &mut Arguments,
        argument: &str,
        rest: &mut impl Iterator<Item = &'a String>,
    ) -> Result<bool, Unread> {
        let (flag, shown, value) = if let Some(long) = argument.strip_prefix("--") {
            let (name, value) = split(long);
            if name == "help" {
                return Err(Unread::Help);
            }
            let flag = self.flags.iter().find(|flag| flag.name == name);
            (
                flag.ok_or_else(|| Unread::Wrong(format!("unknown flag: --{name}")))?,
                format!("--{name}"),
                value,
            )
        } else {
            let Some(letters) = argument.strip_prefix('-').filter(|letters| !letters.is_empty()) else {
                return Ok(false);
            };
            let letter = letters.chars().next().unwrap_or_default();
            if letter == 'h' {
                return Err(Unread::Help);
            }
            let flag = self.flags.iter().find(|flag| flag.short == Some(letter));
            let unknown = || Unread::Wrong(format!("unknown shorthand flag: {letter:?} in {argument}"));
            let value = &letters[letter.len_utf8()..];
            let value = Some(value.strip_prefix('=').unwrap_or(value)).filter(|value| !value.is_empty());
            (flag.ok_or_else(unknown)?, format!("-{letter}"), value)
        };
        let value = match (value, flag.kind) {
            (Some(value), _) => value.to_owned(),
            (None, Kind::Bool) => "true".to_owned(),
            (None, _) => {
                rest.next().ok_or_else(|| Unread::Wrong(format!("flag needs an argument: {shown}")))?.clone()
            }
        };
        flag.check(&value).map_err(|wrong| {
            Unread::Wrong(format!("invalid argument {value:?} for \"{}\" flag: {wrong}", flag.shown()))
        })?;
        read.given.insert(flag.name, value);
        Ok(true)
    }

    fn add_variables(&self, read: &mut Arguments, variables: &[(String, String)]) -> Result<(), Unread> {
        let Some(prefix) = self.variables else { return Ok(()) };
        for flag in self.flags {
            let name = format!("{prefix}{}", flag.name.to_ascii_uppercase().replace('-', "_"));
            let variable = variables.iter().find(|(key, value)| *key == name && !value.is_empty());
            let Some((_, value)) = variable.filter(|_| !read.given.contains_key(flag.name)) else { continue };
            flag.check(value).map_err(|wrong| {
                Unread::Wrong(format!("invalid value {value:?} for environment variable {name}: {wrong}"))
            })?;
            read.given.insert(flag.name, value.clone());
        }
        Ok(())
    }

    /// The text of its help.
    pub(super) fn help(&self) -> String {
        let left = |flag: &Flag| {
            let short = flag.short.map_or_else(|| "    ".to_owned(), |letter| format!("-{letter}, "));
            let kind = match flag.kind {
                Kind::Text => " string",
                Kind::Bool => "",
                Kind::Unsigned => " uint",
                Kind::Duration => " duration",
            };
            format!("  {short}--{}{kind}", flag.name)
        };
        let help = Flag { short: Some('h'), ..Flag::new("help", Kind::Bool, "", "show this text") };
        let mut flags: Vec<&Flag> = self.flags.iter().copied().chain([&help]).collect();
        flags.sort_by_key(|flag| flag.name);
        let width = flags.iter().map(|flag| left(flag).len()).max().unwrap_or(0);
        let mut text = format!("{}\n\nUsage:\n  {}\n\nFlags:\n", self.about, self.usage);
        for flag in flags {
            let default = match (flag.kind, flag.default) {
                (_, "") | (Kind::Bool, "false") | (Kind::Unsigned, "0") => String::new(),
                (Kind::Text, default) => format!(" (default {default:?})"),
                (_, default) => format!(" (default {default})"),
            };
            text.push_str(&format!("{:width$}   {}{default}\n", left(flag), flag.help));
        }
        text
    }
}

fn split(text: &str) -> (&str, Option<&str>) {
    text.split_once('=').map_or((text, None), |(name, value)| (name, Some(value)))
}

impl Flag {
    fn shown(&self) -> String {
        match self.short {
            Some(letter) => format!("-{letter}, --{}", self.name),
            None => format!("--{}", self.name),
        }
    }

    fn check(&self, text: &str) -> Result<(), String> {
        match self.kind {
            Kind::Text => Ok(()),
            Kind::Bool => boolean(text)
                .map(drop)
                .ok_or_else(|| format!("strconv.ParseBool: parsing {text:?}: invalid syntax")),
            Kind::Unsigned => value::unsigned(text, u64::MAX).map(drop).map_err(|wrong| {
                let wrong = if wrong == "parse error" { "invalid syntax" } else { "value out of range" };
                format!("strconv.ParseUint: parsing {text:?}: {wrong}")
            }),
            Kind::Duration => value::duration_ns(text).map(drop),
        }
    }
}

fn boolean(value: &str) -> Option<bool> {
    match value {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Some(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Some(false),
        _ => None,
    }
}

impl Arguments {
    /// A flag's text: what was given, else its default.
    ///
    /// # Panics
    /// When the command has no such flag.
    pub(super) fn text(&self, name: &str) -> &str {
        self.given.get(name).map(String::as_str).expect("a flag of this command")
    }

    /// A truth value.
    pub(super) fn boolean(&self, name: &str) -> bool {
        boolean(self.text(name)).unwrap_or(false)
    }

    /// A number.
    pub(super) fn unsigned(&self, name: &str) -> u64 {
        value::unsigned(self.text(name), u64::MAX).unwrap_or(0)
    }

    /// A duration; zero for a negative one.
    pub(super) fn duration(&self, name: &str) -> Duration {
        let ns = value::duration_ns(self.text(name)).unwrap_or(0);
        Duration::from_nanos(u64::try_from(ns).unwrap_or(0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    static FORMAT: Flag =
        Flag { short: Some('w'), ..Flag::new("write-out", Kind::Text, "simple", "the form") };
    static BUMP: Flag = Flag::new("bump", Kind::Unsigned, "0", "how much");
    static SKIP: Flag = Flag::new("skip", Kind::Bool, "false", "whether");
    static WAIT: Flag = Flag::new("wait-time", Kind::Duration, "2s", "how long");
    static COMMAND: Command = Command {
        usage: "coffer test <filename> [flags]",
        about: "Tests",
        flags: &[&FORMAT, &BUMP, &SKIP, &WAIT],
        variables: Some("TEST_"),
    };

    fn read(line: &str) -> Result<Arguments, Unread> {
        let arguments: Vec<String> = line.split_whitespace().map(str::to_owned).collect();
        COMMAND.read(&arguments, &[("TEST_WAIT_TIME".to_owned(), "7s".to_owned())])
    }

    #[test]
    fn flags_and_words_may_be_mixed() {
        let read = read("a --bump 0x10 -w json b --skip c -- --bump").unwrap();
        assert_eq!(read.words, ["a", "b", "c", "--bump"]);
        assert_eq!((read.text("write-out"), read.unsigned("bump")), ("json", 16));
        assert!(read.boolean("skip"));
        assert_eq!(read.duration("wait-time").as_secs(), 7);
    }

    #[test]
    fn values_stand_after_an_equals_sign_a_letter_or_a_space() {
        for line in ["--write-out=x=y", "-w=x=y", "-wx=y", "-w x=y", "--write-out x=y"] {
            assert_eq!(read(line).unwrap().text("write-out"), "x=y", "{line}");
        }
        assert!(!read("--skip=false").unwrap().boolean("skip"));
        assert_eq!(read("--wait-time=1m").unwrap().duration("wait-time").as_secs(), 60);
        assert_eq!(read("").unwrap().text("write-out"), "simple");
        assert_eq!(read("-").unwrap().words, ["-"]);
    }

    #[test]
    fn what_is_wrong_is_said_in_the_words_of_etcds_tools() {
        let wrong = |line: &str| match read(line) {
            Err(Unread::Wrong(text)) => text,
            other => panic!("{line}: {other:?}"),
        };
        assert_eq!(wrong("--foo"), "unknown flag: --foo");
        assert_eq!(wrong("-x"), "unknown shorthand flag: 'x' in -x");
        assert_eq!(wrong("--bump"), "flag needs an argument: --bump");
        assert_eq!(
            wrong("--bump abc"),
            "invalid argument \"abc\" for \"--bump\" flag: strconv.ParseUint: parsing \"abc\": invalid syntax"
        );
        assert_eq!(
            wrong("--bump=99999999999999999999"),
            "invalid argument \"99999999999999999999\" for \"--bump\" flag: \
             strconv.ParseUint: parsing \"99999999999999999999\": value out of range"
        );
        assert!(wrong("--skip=maybe").contains("strconv.ParseBool"));
        assert!(wrong("--wait-time=5").contains("missing unit"));
        assert_eq!(read("x --help").unwrap_err(), Unread::Help);
        assert_eq!(read("-h").unwrap_err(), Unread::Help);
    }

    #[test]
    fn help_lists_the_flags_by_name() {
        let help = COMMAND.help();
        let lines: Vec<&str> = help.lines().collect();
        assert_eq!(lines[3], "  coffer test <filename> [flags]");
        assert_eq!(lines[6], "      --bump uint            how much");
        assert_eq!(lines[7], "  -h, --help                 show this text");
        assert_eq!(lines[8], "      --skip                 whether");
        assert_eq!(lines[9], "      --wait-time duration   how long (default 2s)");
        assert_eq!(lines[10], "  -w, --write-out string     the form (default \"simple\")");
    }
}
