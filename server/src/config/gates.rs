//! etcd's feature gates: their names and defaults in 3.7, and the text that sets them.

use super::{FeatureGate, value};

const ALPHA: &str = "ALPHA";
const BETA: &str = "BETA";
const ALL_ALPHA: &str = "AllAlpha";
const ALL_BETA: &str = "AllBeta";

/// All gates with their defaults, sorted by name.
pub(super) const GATES: [FeatureGate; 11] = [
    FeatureGate { name: ALL_ALPHA, stage: ALPHA, enabled: false },
    FeatureGate { name: ALL_BETA, stage: BETA, enabled: false },
    FeatureGate { name: "CompactHashCheck", stage: ALPHA, enabled: false },
    FeatureGate { name: "FastLeaseKeepAlive", stage: BETA, enabled: true },
    FeatureGate { name: "InitialCorruptCheck", stage: ALPHA, enabled: false },
    FeatureGate { name: "LeaseCheckpoint", stage: ALPHA, enabled: false },
    FeatureGate { name: "LeaseCheckpointPersist", stage: ALPHA, enabled: false },
    FeatureGate { name: "PriorityRequest", stage: ALPHA, enabled: false },
    FeatureGate { name: "SetMemberLocalAddr", stage: ALPHA, enabled: false },
    FeatureGate { name: "StopGRPCServiceOnDefrag", stage: ALPHA, enabled: false },
    FeatureGate { name: "TxnModeWriteWithSharedBuffer", stage: BETA, enabled: true },
];

/// The gate of that name, with its default.
pub(super) fn find(name: &str) -> Option<&'static FeatureGate> {
    GATES.iter().find(|gate| gate.name == name)
}

/// Reads `A=true,B=false`. The last word on a gate counts.
pub(super) fn parse(text: &str) -> Result<Vec<(&'static str, bool)>, String> {
    let mut set = Vec::new();
    for each in text.split(',').filter(|each| !each.is_empty()) {
        let (name, truth) = each
            .split_once('=')
            .map(|(name, truth)| (name.trim(), truth.trim()))
            .ok_or_else(|| format!("missing bool value for {}", each.trim()))?;
        let enabled = value::boolean(truth).ok_or_else(|| {
            format!(
                "invalid value of {name}={truth}, err: strconv.ParseBool: parsing {truth:?}: invalid syntax"
            )
        })?;
        let gate = find(name).ok_or_else(|| format!("unrecognized feature gate: {name}"))?;
        set.push((gate.name, enabled));
    }
    Ok(set)
}

/// The state of all gates once these are set: a gate's own setting beats that of its stage.
pub(super) fn resolve(set: &[(&'static str, bool)]) -> Vec<FeatureGate> {
    let own = |name: &str| set.iter().rev().find(|(each, _)| *each == name).map(|(_, enabled)| *enabled);
    GATES
        .iter()
        .map(|gate| {
            let of_stage = own(if gate.stage == ALPHA { ALL_ALPHA } else { ALL_BETA });
            let enabled = own(gate.name).or(of_stage).unwrap_or(gate.enabled);
            FeatureGate { enabled, ..*gate }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn enabled(text: &str) -> Vec<&'static str> {
        let set = parse(text).unwrap_or_default();
        resolve(&set).into_iter().filter(|gate| gate.enabled).map(|gate| gate.name).collect()
    }

    #[test]
    fn a_gates_own_setting_beats_that_of_its_stage() {
        assert_eq!(enabled(""), ["FastLeaseKeepAlive", "TxnModeWriteWithSharedBuffer"]);
        assert_eq!(enabled("AllBeta=false,FastLeaseKeepAlive=true"), ["FastLeaseKeepAlive"]);
        assert_eq!(enabled("AllAlpha=true,AllAlpha=false,AllBeta=false"), Vec::<&str>::new());
        assert_eq!(enabled("AllAlpha=true").len(), GATES.len() - 1);
    }

    #[test]
    fn broken_settings_are_told_in_etcds_words() {
        for (text, error) in [
            ("Foo=true", "unrecognized feature gate: Foo"),
            ("CompactHashCheck", "missing bool value for CompactHashCheck"),
            (
                "CompactHashCheck=maybe",
                "invalid value of CompactHashCheck=maybe, err: strconv.ParseBool: parsing \"maybe\": invalid syntax",
            ),
        ] {
            assert_eq!(parse(text), Err(error.to_owned()));
        }
    }
}
