//! What `--help` and `--version` print.

use super::flags::{Effect, FLAGS, Group, Kind};
use super::{COFFER_VERSION, ETCD_VERSION};

const GROUPS: [(Group, &str); 9] = [
    (Group::Member, "Member"),
    (Group::Clustering, "Clustering"),
    (Group::Security, "Security"),
    (Group::Auth, "Authentication"),
    (Group::Monitoring, "Monitoring"),
    (Group::Logging, "Logging"),
    (Group::Features, "Behaviour"),
    (Group::Unsafe, "Unsafe"),
    (Group::Coffer, "coffer's own"),
];

const HEAD: &str = "\
Usage:

  coffer [flags]
    Start a server.

  coffer --version
    Show the version.

  coffer -h | --help
    Show this text.

Each flag may be given as a variable instead: --max-txn-ops as ETCD_MAX_TXN_OPS. A configuration file (--config-file)
stands in for all of them.
";

/// The text of `--help`.
pub(super) fn help() -> String {
    let mut text = HEAD.to_owned();
    for (group, title) in GROUPS {
        text.push_str(&format!("\n{title}:\n"));
        for flag in FLAGS.iter().filter(|flag| flag.group == group) {
            text.push_str(&match flag.kind {
                Kind::Signed | Kind::Unsigned(_) => format!("  --{} {}\n", flag.name, flag.default),
                _ => format!("  --{} '{}'\n", flag.name, flag.default),
            });
            text.push_str(&format!("    {}\n", flag.help));
            match flag.effect {
                Effect::Effective => {}
                Effect::Warned(reason) => text.push_str(&format!("    No effect: {reason}.\n")),
                Effect::Refused(reason) => {
                    text.push_str(&format!("    Refused unless left at its default: {reason}.\n"))
                }
            }
        }
    }
    text
}

/// The text of `--version`: etcd's lines first, because programs read them.
pub(super) fn version() -> String {
    let arch = match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    };
    format!(
        "etcd Version: {ETCD_VERSION}\n\
         Git SHA: Not provided (coffer matches this version of etcd)\n\
         Go Version: none (coffer is written in Rust)\n\
         Go OS/Arch: {}/{arch}\n\
         coffer Version: {COFFER_VERSION}\n",
        std::env::consts::OS
    )
}
