//! Fields of `JobSpec` in the words and units of a job file.
//!
//! **Invariant:** only names and units change: what a path leads to stays the same, and so does every amount.

use crate::text;

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

/// What the servers say of the field at a path of theirs, in the words and units of a job file.
pub fn problem(field: &str, problem: &str) -> String {
    let unit = field.rsplit('.').next().unwrap_or_default();
    let word = |word: &str| {
        let end = word.trim_end_matches([',', ';', ':']).len();
        let (word, mark) = word.split_at(end);
        let known = NAMES.iter().find(|(theirs, _)| *theirs == word);
        let own = match word.parse::<u64>() {
            Ok(amount) if word != "0" => amount_in(unit, amount),
            _ => path(word).or_else(|| known.map(|(_, ours)| (*ours).to_owned())),
        };
        format!("{}{mark}", own.as_deref().unwrap_or(word))
    };
    problem.split(' ').map(word).collect::<Vec<_>>().join(" ")
}

/// An amount of such a field as a job file writes it; `None` = as the servers do.
fn amount_in(field: &str, amount: u64) -> Option<String> {
    match field {
        "gpu_milli" | "cpu_milli" => Some(text::milli(amount)),
        "vram_mib_min" | "memory_mib" | "disk_mib" => Some(text::mebibytes(amount)),
        "bandwidth_up_mbps_min" | "bandwidth_down_mbps_min" => Some(format!("{amount}Mbps")),
        "compute_capability_min" => Some(format!("{}.{}", amount / 100, amount % 100)),
        "rtt_us_max" => u32::try_from(amount).ok().map(text::rtt),
        "duration_s" | "duration_s_min" => Some(text::seconds(amount)),
        "begin_time_ms" | "deadline_time_ms" => text::time(amount),
        "price_micro_usd_max" | "price_total_micro_usd_max" | "price_hour_micro_usd_max" => {
            Some(text::dollars(amount))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_servers_say_in_the_words_and_units_of_a_job_file() {
        let of_shape = |field: &str| format!("spec.groups[0].shape.{field}");
        for (field, theirs, ours) in [
            (
                "spec.rtt_us_max",
                "is 70000000; at most 10000000 is allowed",
                "is 70000ms; at most 10000ms is allowed",
            ),
            (
                "spec.duration_s_min",
                "is 7200; at most 3600 is allowed",
                "is 2h; at most 1h is allowed",
            ),
            (
                "spec.duration_s",
                "is missing; a bound on the total price needs it",
                "is missing; a bound on the total price needs it",
            ),
            (
                "spec.duration_s_min",
                "is given without spec.deadline_time_ms, which it is about",
                "is given without deadline, which it is about",
            ),
            (
                "spec.deadline_time_ms",
                "is 2027-01-31T08:00:00Z; at least 2h after spec.begin_time_ms, 2027-01-31T07:00:00Z, is needed",
                "is 2027-01-31T08:00:00Z; at least 2h after begin, 2027-01-31T07:00:00Z, is needed",
            ),
            ("spec.rtt_scope", "is given, but rtt_us_max is not", "is given, but max_rtt is not"),
            (
                "spec.price_hour_micro_usd_max",
                "is 2000000; 1 to 3500000 are allowed",
                "is 2.00; 0.000001 to 3.50 are allowed",
            ),
            (
                &of_shape("cpu_milli"),
                "is 4096500; at most 4096000 is allowed",
                "is 4096.5; at most 4096 is allowed",
            ),
            (
                &of_shape("memory_mib"),
                "is 3; at most 67108864 is allowed",
                "is 3MiB; at most 64TiB is allowed",
            ),
            (
                &of_shape("bandwidth_up_mbps_min"),
                "is 9; 0 to 8 are allowed",
                "is 9Mbps; 0 to 8Mbps are allowed",
            ),
            (
                &of_shape("gpu_alternatives[0].compute_capability_min"),
                "is 10000; at most 9999 is allowed",
                "is 100.0; at most 99.99 is allowed",
            ),
            (
                "spec.groups[0].replicas",
                "brings the job to 100001 replicas",
                "brings the job to 100001 replicas",
            ),
            ("spec.groups[1].name", "is w, as of an earlier group", "is w, as of an earlier group"),
        ] {
            assert_eq!(problem(field, theirs), ours);
        }
    }

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
