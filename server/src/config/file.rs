//! The configuration file: YAML whose keys are flag names, with a block each for the two kinds of TLS.
//!
//! Rules kept here, all etcd's: unknown keys are ignored (a warning names them), empty values mean "not given",
//! durations are whole nanoseconds, lists may be sequences or texts separated by commas.

use super::flags::Kind;
use super::settings::{Settings, unfit};
use super::value::duration_text;
use super::{Failure, Note, NoteLevel};
use serde_yaml_ng::Value as Yaml;
use std::time::Duration;

/// Largest file that is read, in bytes; a configuration has a few thousand.
pub(super) const FILE_BYTES_MAX: u64 = 1024 * 1024;

/// The blocks, and what their keys are called as flags.
const BLOCKS: [(&str, &str); 2] = [("client-transport-security", ""), ("peer-transport-security", "peer-")];

/// Keys of a block that are not simply a flag's name behind the prefix: block, key, flag.
const BLOCK_KEYS: [(&str, &str, &str); 6] = [
    ("client-transport-security", "allowed-cn", "client-cert-allowed-hostname"),
    ("client-transport-security", "allowed-hostname", "client-cert-allowed-hostname"),
    ("client-transport-security", "crl-file", "client-crl-file"),
    ("client-transport-security", "skip-client-san-verification", "peer-skip-client-san-verification"),
    ("peer-transport-security", "allowed-cn", "peer-cert-allowed-cn"),
    ("peer-transport-security", "allowed-hostname", "peer-cert-allowed-hostname"),
];

/// Reads a file's text.
pub(super) fn read(text: &str) -> Result<Settings, Failure> {
    let mut settings = Settings::default();
    let root: Yaml = serde_yaml_ng::from_str(text)
        .map_err(|error| unfit(format!("error parsing the configuration file: {error}")))?;
    let Yaml::Mapping(root) = root else {
        return match root {
            Yaml::Null => Ok(settings),
            _ => Err(unfit("error parsing the configuration file: it holds no mapping".to_owned())),
        };
    };
    for (key, value) in root {
        let Yaml::String(key) = key else { continue };
        match BLOCKS.iter().find(|(block, _)| *block == key) {
            Some((block, prefix)) => read_block(&mut settings, block, prefix, &value)?,
            None => set(&mut settings, &key, &key, &value)?,
        }
    }
    Ok(settings)
}

fn read_block(settings: &mut Settings, block: &str, prefix: &str, value: &Yaml) -> Result<(), Failure> {
    let entries = match value {
        Yaml::Null => return Ok(()),
        Yaml::Mapping(entries) => entries,
        _ => return Err(unfit(format!("invalid {block}"))),
    };
    for (key, value) in entries {
        let Yaml::String(key) = key else { continue };
        let singular = key
            .strip_suffix("cns")
            .map_or_else(|| key.replace("hostnames", "hostname"), |_| "allowed-cn".to_owned());
        let special = BLOCK_KEYS.iter().find(|(of, known, _)| *of == block && *known == singular);
        let flag = special.map_or_else(|| format!("{prefix}{key}"), |(_, _, flag)| (*flag).to_owned());
        set(settings, &flag, &format!("{block}.{key}"), value)?;
    }
    Ok(())
}

fn set(settings: &mut Settings, flag: &str, key: &str, value: &Yaml) -> Result<(), Failure> {
    let kind = Settings::kind_of(flag);
    let Some(kind) = kind.filter(|_| flag != "config-file" && flag != "version") else {
        settings.notes.push(Note {
            level: NoteLevel::Warn,
            message: "unknown key in the configuration file is ignored".to_owned(),
            fields: vec![("key", key.to_owned())],
        });
        return Ok(());
    };
    let Some(text) =
        text_of(kind, value).map_err(|error| unfit(format!("invalid value for {key}: {error}")))?
    else {
        return Ok(());
    };
    settings.set_by_name(flag, &text)?;
    Ok(())
}

/// The value as it would stand on the command line; `None` if nothing was given.
fn text_of(kind: Kind, value: &Yaml) -> Result<Option<String>, String> {
    let text = match (kind, value) {
        (_, Yaml::Null) => return Ok(None),
        (Kind::Duration, Yaml::Number(number)) => match number.as_u64() {
            Some(ns) => duration_text(Duration::from_nanos(ns)),
            None => return Err(format!("a duration is a whole number of nanoseconds, not {number}")),
        },
        (Kind::Duration, _) => return Err("a duration is a whole number of nanoseconds".to_owned()),
        (_, Yaml::String(text)) => text.clone(),
        (_, Yaml::Bool(truth)) => truth.to_string(),
        (_, Yaml::Number(number)) => number.to_string(),
        (Kind::List | Kind::Urls | Kind::Origins, Yaml::Sequence(items)) => {
            let texts: Option<Vec<&str>> = items.iter().map(Yaml::as_str).collect();
            texts.ok_or("a list holds texts")?.join(",")
        }
        _ => return Err("neither a text nor a number nor a truth value".to_owned()),
    };
    // An empty text is a key left empty, as in the sample that etcd ships.
    Ok(Some(text).filter(|text| !text.is_empty()))
}
