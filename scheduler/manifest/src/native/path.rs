//! Fields of `JobSpec` in the words of a job file.
//!
//! **Invariant:** only names change: what a path leads to stays the same.

/// Names that differ, as the servers say them and as a job file does.
const NAMES: [(&str, &str); 29] = [
    ("replicas_min", "min_replicas"),
    ("replicas_max", "max_replicas"),
    ("replicas_per_node_max", "max_per_node"),
    ("gpu_count", "gpus"),
    ("gpu_milli", "gpus"),
    ("gpu_alternatives", "gpu"),
    ("vram_mib_min", "min_vram"),
    ("compute_capability_min", "min_compute_capability"),
    ("cpu_milli", "cpu"),
    ("memory_mib", "memory"),
    ("disk_mib", "disk"),
    ("bandwidth_up_mbps_min", "min_bandwidth_up"),
    ("bandwidth_down_mbps_min", "min_bandwidth_down"),
    ("skew_max", "max_skew"),
    ("rtt_us_max", "max_rtt"),
    ("rtt_objective", "minimise"),
    ("duration_s", "duration"),
    ("duration_ms", "duration"),
    ("duration_s_min", "min_duration"),
    ("duration_ms_min", "min_duration"),
    ("begin_time_ms", "begin"),
    ("deadline_time_ms", "deadline"),
    ("price_micro_usd_max", "max_price"),
    ("price_total_micro_usd_max", "max_total_price"),
    ("price_hour_micro_usd_max", "max_hourly_price"),
    ("domains_max", "max_domains"),
    ("affinities", "affinity"),
    ("with_job_labels", "with_jobs"),
    ("in_flight_max", "max_in_flight"),
];

/// A path of the servers', such as `spec.groups[0].shape.vram_mib_min`, as a job file's:
/// `groups[0].min_vram`. `None` = it is about no job.
pub fn path(field: &str) -> Option<String> {
    let rest = field.strip_prefix("spec.")?;
    let parts = rest.split('.').filter(|part| *part != "shape").map(|part| {
        let end = part.find('[').unwrap_or(part.len());
        let (name, index) = part.split_at(end);
        match name {
            "regions_allowed" => format!("regions.allowed{index}"),
            "regions_denied" => format!("regions.denied{index}"),
            _ => {
                let known = NAMES.iter().find(|(theirs, _)| *theirs == name);
                format!("{}{index}", known.map_or(name, |(_, ours)| ours))
            }
        }
    });
    Some(parts.collect::<Vec<_>>().join("."))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn servers_paths_in_the_words_of_a_job_file() {
        for (theirs, ours) in [
            ("spec.groups[0].shape.gpu_models[1]", "groups[0].gpu_models[1]"),
            ("spec.groups[3].shape.gpu_alternatives[1].vram_mib_min", "groups[3].gpu[1].min_vram"),
            ("spec.groups[0].replicas_min", "groups[0].min_replicas"),
            ("spec.regions_denied[2]", "regions.denied[2]"),
            ("spec.duration_s", "duration"),
            ("spec.labels[\"a.b\"]", "labels[\"a.b\"]"),
        ] {
            assert_eq!(path(theirs).as_deref(), Some(ours));
        }
        assert_eq!(path("tenant"), None);
        assert_eq!(path("request_id"), None);
    }

    /// Every name that a job file writes must be one that it reads.
    #[test]
    fn every_name_is_a_field_of_a_job_file() {
        for (_, ours) in NAMES {
            assert!(super::super::EXAMPLE.contains(ours), "{ours}");
        }
    }
}
