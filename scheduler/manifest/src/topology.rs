//! Keys of node labels that name a level of the topology, in the many words that people use for them.
//!
//! **Invariant:** a key that is not known is a fault where a level is asked for, never a guess.

use crate::finding::{At, Findings, quote};
use proto::v1::TopologyLevel;

/// Keys with a fixed meaning.
const KEYS: [(&str, TopologyLevel); 14] = [
    ("topology.kubernetes.io/region", TopologyLevel::Region),
    ("failure-domain.beta.kubernetes.io/region", TopologyLevel::Region),
    ("ray.io/availability-region", TopologyLevel::Region),
    ("topology.kubernetes.io/zone", TopologyLevel::Zone),
    ("failure-domain.beta.kubernetes.io/zone", TopologyLevel::Zone),
    ("ray.io/availability-zone", TopologyLevel::Zone),
    ("cloud.google.com/gce-topology-block", TopologyLevel::Site),
    ("cloud.google.com/gce-topology-subblock", TopologyLevel::Rack),
    // One NVLink domain of GB200 and GB300 machines is one rack.
    ("ray.io/gpu-domain", TopologyLevel::Rack),
    ("nvidia.com/gpu.clique", TopologyLevel::Rack),
    ("cloud.google.com/gce-topology-host", TopologyLevel::Node),
    ("kubernetes.io/hostname", TopologyLevel::Node),
    ("ray.io/node-id", TopologyLevel::Node),
    ("muster/node", TopologyLevel::Node),
];

/// Last parts of keys that administrators choose freely, such as `cloud.provider.com/topology-rack`.
const LAST_PARTS: [(&str, TopologyLevel); 13] = [
    ("region", TopologyLevel::Region),
    ("topology-region", TopologyLevel::Region),
    ("zone", TopologyLevel::Zone),
    ("topology-zone", TopologyLevel::Zone),
    ("datacenter", TopologyLevel::Site),
    ("site", TopologyLevel::Site),
    ("block", TopologyLevel::Site),
    ("topology-block", TopologyLevel::Site),
    ("rack", TopologyLevel::Rack),
    ("topology-rack", TopologyLevel::Rack),
    ("host", TopologyLevel::Node),
    ("hostname", TopologyLevel::Node),
    ("node", TopologyLevel::Node),
];

/// The level that a key stands for.
pub(crate) fn level(key: &str) -> Option<TopologyLevel> {
    if let Some((_, level)) = KEYS.iter().find(|(known, _)| *known == key) {
        return Some(*level);
    }
    let last = key.rsplit('/').next().unwrap_or(key);
    LAST_PARTS.iter().find(|(known, _)| *known == last).map(|(_, level)| *level)
}

/// The level that a key stands for; a fault if it stands for none, a note where it was a free choice.
pub(crate) fn level_at(at: &At, key: &str, findings: &mut Findings) -> Option<TopologyLevel> {
    let found = level(key);
    match found {
        None => findings.fault(
            at,
            format!(
                "{} is no level known here; known are topology.kubernetes.io/region and zone, \
                 kubernetes.io/hostname, and keys that end in region, zone, site, block, rack or host",
                quote(key)
            ),
        ),
        Some(level) => {
            let name = word(level);
            let is_plain = key.rsplit('/').next().is_some_and(|last| last == name);
            if !is_plain {
                findings.note(at, format!("{} is read as the level {name}", quote(key)));
            }
        }
    }
    found
}

/// The label that every node has for a level, where a key names it beyond doubt.
pub(crate) fn own_label(key: &str) -> Option<&'static str> {
    let is_known = KEYS.iter().any(|(known, _)| *known == key);
    match level(key).filter(|_| is_known)? {
        TopologyLevel::Region => Some("muster/region"),
        TopologyLevel::Zone => Some("muster/zone"),
        TopologyLevel::Node if key != "ray.io/node-id" => Some("muster/node"),
        _ => None,
    }
}

/// What people call a level.
pub(crate) fn word(level: TopologyLevel) -> &'static str {
    match level {
        TopologyLevel::Unspecified => "none",
        TopologyLevel::Region => "region",
        TopologyLevel::Zone => "zone",
        TopologyLevel::Site => "site",
        TopologyLevel::Rack => "rack",
        TopologyLevel::Node => "node",
    }
}

/// The narrower of two levels; keeping to it keeps to the other as well.
pub(crate) fn narrower(a: TopologyLevel, b: TopologyLevel) -> TopologyLevel {
    if a as i32 >= b as i32 { a } else { b }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_of_all_sorts() {
        for (key, wanted) in [
            ("topology.kubernetes.io/zone", Some(TopologyLevel::Zone)),
            ("kubernetes.io/hostname", Some(TopologyLevel::Node)),
            ("cloud.provider.com/topology-block", Some(TopologyLevel::Site)),
            ("cloud.provider.com/topology-rack", Some(TopologyLevel::Rack)),
            ("topology.example.com/rack", Some(TopologyLevel::Rack)),
            ("rack", Some(TopologyLevel::Rack)),
            ("muster/site", Some(TopologyLevel::Site)),
            ("ray.io/gpu-domain", Some(TopologyLevel::Rack)),
            ("example.com/colour", None),
            ("", None),
        ] {
            assert_eq!(level(key), wanted, "{key}");
        }
        assert_eq!(own_label("topology.kubernetes.io/region"), Some("muster/region"));
        assert_eq!(own_label("example.com/region"), None);
        assert_eq!(narrower(TopologyLevel::Rack, TopologyLevel::Zone), TopologyLevel::Rack);
        assert_eq!(narrower(TopologyLevel::Unspecified, TopologyLevel::Zone), TopologyLevel::Zone);
    }

    #[test]
    fn a_free_choice_is_told() {
        let mut findings = Findings::default();
        let at = At::root().field("topologyKey");
        assert!(level_at(&at, "topology.kubernetes.io/zone", &mut findings).is_some());
        assert!(level_at(&at, "cloud.provider.com/topology-block", &mut findings).is_some());
        let ((), notes) = findings.finish(()).expect("no faults");
        assert_eq!(notes.len(), 1);
        assert!(notes[0].text.contains("level site"));
        let mut findings = Findings::default();
        assert!(level_at(&at, "colour", &mut findings).is_none());
        assert!(findings.finish(()).is_err());
    }
}
