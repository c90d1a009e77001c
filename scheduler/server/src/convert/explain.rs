//! Explanations going out, from core to proto, and the plan that a submission means coming in.
//!
//! **Invariant:** nothing of other tenants' jobs is told but when they end.

use super::view;
use crate::call::{GroupNoPlan, NoPlan};
use crate::status;
use manifest::text::mebibytes;
use proto::v1;
use scheduler_core::duty::office::Check;
use scheduler_core::job::{JobSpec, Level, PreemptionPolicy, Strategy};
use scheduler_core::plan::Verdict;
use scheduler_core::plan::explain::change::widened;
use scheduler_core::plan::explain::{Change, Rule, Taken};
use std::fmt::Display;
use tonic::Status;

/// Most groups told in one line.
const GROUPS_TOLD_MAX: usize = 6;
/// Most jobs told in one line.
const OWN_TOLD_MAX: usize = 6;

/// The plan that a submission means, if it means one. `path` stands before the names of fields.
pub fn check(path: impl Display, index: u64, digest: &str) -> Result<Option<Check>, Status> {
    let bad = |problem: &str| status::bad_field(&format!("{path}plan_digest"), problem);
    match (index, digest) {
        (0, "") => Ok(None),
        (0, _) => Err(bad("is only for a submission with check_index")),
        (index, "") => Ok(Some(Check { index, digest: None })),
        (index, digest) => {
            let hex = digest.len() == 32 && digest.bytes().all(|byte| byte.is_ascii_hexdigit());
            let known = hex.then(|| u128::from_str_radix(digest, 16).ok()).flatten();
            let digest = known.ok_or_else(|| bad("is not one that PlanJob gave"))?;
            Ok(Some(Check { index, digest: Some(digest) }))
        }
    }
}

/// Why a job would not be placed, as a dry run tells it.
pub fn no_plan(spec: &JobSpec, why: &NoPlan, sees_all: bool) -> v1::PlanJobResponse {
    let hardest = why.groups.iter().find(|group| group.group == why.hardest);
    let rtt_us_needed = why.helps.iter().find_map(|(change, _)| match change {
        Change::RttMax(Some(rtt)) => Some(rtt.0),
        _ => None,
    });
    v1::PlanJobResponse {
        placeable: false,
        reason: Some(view::reason(&why.reason)),
        causes: hardest.map(causes).unwrap_or_default(),
        nodes_total: why.nodes_total,
        replicas_placeable: why
            .groups
            .iter()
            .fold(0, |sum: u32, group| sum.saturating_add(group.placeable)),
        rtt_us_needed: rtt_us_needed.unwrap_or(0),
        explanation: Some(explanation(spec, why, sees_all)),
        ..v1::PlanJobResponse::default()
    }
}

/// All that can be said about a job that does not fit. `sees_all`: the numbers of other tenants'
/// jobs are shown too.
pub fn explanation(spec: &JobSpec, why: &NoPlan, sees_all: bool) -> v1::Explanation {
    let (verdict, until) = match why.verdict {
        None => (v1::Verdict::Unspecified, None),
        Some(Verdict::Quota) => (v1::Verdict::Quota, None),
        Some(Verdict::NoSuchPool) => (v1::Verdict::NoSuchPool, None),
        Some(Verdict::Latency) => (v1::Verdict::Latency, None),
        Some(Verdict::Budget) => (v1::Verdict::Budget, None),
        Some(Verdict::NeverFits) => (v1::Verdict::NeverFits, None),
        Some(Verdict::NotReady) => (v1::Verdict::NotReady, None),
        Some(Verdict::BusyUntil(until)) => (v1::Verdict::BusyUntil, until),
        Some(Verdict::Undecided) => (v1::Verdict::Undecided, None),
    };
    let group = |group: &GroupNoPlan| v1::GroupExplanation {
        group: group_name(spec, group.group),
        causes: causes(group),
        replicas_wanted: group.wanted,
        replicas_placeable: group.placeable,
    };
    let help = |(change, is_least): &(Change, bool)| v1::Counterfactual {
        text: text(spec, change),
        groups: change.groups().iter().map(|&at| group_name(spec, at)).collect(),
        is_least: *is_least,
        change: Some(change_of(change, sees_all)),
    };
    v1::Explanation {
        verdict: verdict.into(),
        summary: why.reason.message.to_string(),
        until_time_ms: until.map_or(0, |until| until.0),
        nodes_total: why.nodes_total,
        groups: why.groups.iter().map(group).collect(),
        group_hardest: group_name(spec, why.hardest),
        counterfactuals: why.helps.iter().map(help).collect(),
        cut_short: why.is_cut_short,
    }
}

fn group_name(spec: &JobSpec, at: usize) -> String {
    spec.groups.get(at).map_or_else(String::new, |group| group.name.to_string())
}

fn causes(group: &GroupNoPlan) -> Vec<v1::CauseCount> {
    let cause =
        |(cause, nodes): &(String, u32)| v1::CauseCount { cause: cause.clone(), nodes: *nodes };
    group.causes.iter().map(cause).collect()
}

fn change_of(change: &Change, sees_all: bool) -> v1::counterfactual::Change {
    use v1::counterfactual::Change as To;
    match change {
        Change::Quota { gpu_milli_more } => To::QuotaGpuMilliMore(*gpu_milli_more),
        Change::Replicas(counts) => To::Replicas(v1::ReplicasPerGroup { replicas: counts.clone() }),
        Change::RttMax(rtt) => To::RttUsMax(rtt.map_or(0, |rtt| rtt.0)),
        Change::Topology(level) => To::TopologyRequired(view::level(*level).into()),
        Change::Strategy(strategy) => To::Strategy(view::strategy(Some(*strategy)).into()),
        Change::PriceMax(price) => To::PriceMicroUsdMax(price.0),
        Change::HourlyMax(price) => To::PriceHourMicroUsdMax(price.0),
        Change::DomainsMax { bound, .. } => To::DomainsMax(view::domains_max(bound)),
        Change::Model { model, .. } => {
            To::GpuModel(model.as_ref().map_or_else(String::new, ToString::to_string))
        }
        Change::VramMin { vram, .. } => To::VramMibMin(vram.0),
        Change::NoSelector { selector, .. } => To::SelectorDropped(view::selector(selector)),
        Change::SelectorValue { selector, value, .. } => {
            To::SelectorWidened(view::selector(&widened(selector, value)))
        }
        Change::Tolerate { taint, .. } => To::TaintTolerated(super::node::shown_taint(taint)),
        Change::Cpu { cpu, .. } => To::CpuMilli(cpu.0),
        Change::Memory { memory, .. } => To::MemoryMib(memory.0),
        Change::Disk { disk, .. } => To::DiskMib(disk.0),
        Change::NoRule { rule, .. } => To::RuleDropped(rule.field()),
        Change::Open { nodes } => To::NodesOpened(*nodes),
        Change::Preempt(taken) => To::Preempted(preempted(taken)),
        Change::Wait { until, job, own } => To::Ending(v1::Ending {
            time_ms: until.0,
            job_id: if *own || sees_all { job.0 } else { 0 },
        }),
    }
}

/// What others would lose, as everybody may know it.
pub fn preempted(taken: &Taken) -> v1::Preempted {
    v1::Preempted {
        jobs_whole: taken.whole,
        jobs_part: taken.part,
        gpu_milli: taken.gpu_milli,
        job_ids_own: taken.own.iter().map(|job| job.0).collect(),
    }
}

/// The change in words; what it was before comes with it.
fn text(spec: &JobSpec, change: &Change) -> String {
    let first = change.groups().first().and_then(|&at| spec.groups.get(at));
    let shape = first.map(|group| &group.shape);
    match change {
        Change::Quota { gpu_milli_more } => {
            format!("with a quota of {} GPUs more", thousandths(*gpu_milli_more))
        }
        Change::Replicas(counts) => {
            let gpus = spec.groups.iter().zip(counts).fold(0u64, |sum, (group, &count)| {
                sum.saturating_add(group.shape.gpu_milli().saturating_mul(count.into()))
            });
            let replicas = counts.iter().fold(0u32, |sum, count| sum.saturating_add(*count));
            let all = spec.replicas();
            let groups = fewer(spec, counts);
            let unit = if gpus == 1000 { "GPU" } else { "GPUs" };
            format!("with {replicas} of {all} replicas{groups}, {} {unit}", thousandths(gpus))
        }
        Change::RttMax(rtt) => {
            let before = spec.rtt_max.map_or(0, |rtt| rtt.0).into();
            match rtt {
                Some(rtt) => format!(
                    "with an RTT bound of {} ms instead of {} ms",
                    thousandths(rtt.0.into()),
                    thousandths(before)
                ),
                None => format!("without the RTT bound of {} ms", thousandths(before)),
            }
        }
        Change::Topology(level) => {
            let before = spec.topology_required.map_or("", level_word);
            match level {
                Some(level) => format!("in one {} instead of one {before}", level_word(*level)),
                None => format!("in more than one {before}"),
            }
        }
        Change::Strategy(strategy) => {
            format!("with {} instead of {}", strategy_word(*strategy), strategy_word(spec.strategy))
        }
        Change::PriceMax(price) => format!(
            "with a price bound of $ {} instead of $ {} a GPU-hour",
            dollars(price.0),
            dollars(spec.price_max.map_or(0, |price| price.0))
        ),
        Change::HourlyMax(price) => format!(
            "with a price bound of $ {} instead of $ {} per hour",
            dollars(price.0),
            dollars(spec.hourly_max.map_or(0, |price| price.0))
        ),
        Change::DomainsMax { bound, .. } => {
            let bounds = first.map_or(&spec.domains_max, |group| &group.rules.domains_max);
            let before = bounds.iter().find(|one| one.level == bound.level);
            let before = before.map_or(0, |one| one.max);
            format!("within {} {}s instead of {before}", bound.max, level_word(bound.level))
        }
        Change::Model { model: Some(model), .. } => format!("if {model} is allowed"),
        Change::Model { model: None, .. } => "if any GPU model is allowed".to_owned(),
        Change::VramMin { vram, .. } => format!(
            "with {} of vRAM instead of {}",
            mebibytes(vram.0.into()),
            mebibytes(shape.map_or(0, |shape| shape.vram_min().0).into())
        ),
        Change::NoSelector { selector, .. } => {
            format!("without the condition on {}", label_word(&selector.key))
        }
        Change::SelectorValue { selector, value, .. } => {
            format!("if {} may be {value} too", label_word(&selector.key))
        }
        Change::Tolerate { taint, .. } if taint.value.is_empty() => {
            format!("if the taint {} is tolerated", taint.key)
        }
        Change::Tolerate { taint, .. } => {
            format!("if the taint {}={} is tolerated", taint.key, taint.value)
        }
        Change::Cpu { cpu, .. } => format!(
            "with {} CPU cores for each replica instead of {}",
            thousandths(cpu.0),
            thousandths(shape.map_or(0, |shape| shape.cpu.0))
        ),
        Change::Memory { memory, .. } => format!(
            "with {} of memory for each replica instead of {}",
            mebibytes(memory.0),
            mebibytes(shape.map_or(0, |shape| shape.memory.0))
        ),
        Change::Disk { disk, .. } => format!(
            "with {} of disk for each replica instead of {}",
            mebibytes(disk.0),
            mebibytes(shape.map_or(0, |shape| shape.disk.0))
        ),
        Change::NoRule { rule: rule @ Rule::Affinity(_), .. } => {
            format!("with {rule} preferred only")
        }
        Change::NoRule { rule, .. } => format!("without {rule}"),
        Change::Open { nodes: 1 } => {
            "when a node that is down, cordoned or draining comes back".to_owned()
        }
        Change::Open { nodes } => {
            format!("when {nodes} nodes that are down, cordoned or draining come back")
        }
        Change::Preempt(Taken { whole, part, gpu_milli, own }) => {
            let policy = match spec.preemption.policy {
                PreemptionPolicy::LowerPriority => "by its preemption policy",
                PreemptionPolicy::Never => "with the preemption policy LOWER_PRIORITY",
            };
            let mut told = Vec::new();
            if *whole > 0 {
                told.push(format!("{whole} job(s) of a lower priority would go back to the queue"));
            }
            if *part > 0 {
                told.push(format!("{part} would lose spare replicas"));
            }
            let own = match own.as_slice() {
                [] => String::new(),
                own => {
                    let told = own.iter().take(OWN_TOLD_MAX).map(|job| job.0.to_string());
                    let more = if own.len() > OWN_TOLD_MAX { ", …" } else { "" };
                    format!(", own jobs {}{more}", told.collect::<Vec<_>>().join(", "))
                }
            };
            format!("{policy}: {} ({} GPUs{own})", told.join(", "), thousandths(*gpu_milli))
        }
        Change::Wait { .. } => "when running work has ended".to_owned(),
    }
}

/// Where there are several groups: those that get fewer replicas than they want.
fn fewer(spec: &JobSpec, counts: &[u32]) -> String {
    if spec.groups.len() < 2 {
        return String::new();
    }
    let each = spec.groups.iter().zip(counts).filter(|(group, count)| **count < group.replicas);
    let mut told: Vec<String> = each
        .map(|(group, count)| format!("{} {count} of {}", group.name, group.replicas))
        .collect();
    if told.is_empty() {
        return String::new();
    }
    let more = if told.len() > GROUPS_TOLD_MAX { ", …" } else { "" };
    told.truncate(GROUPS_TOLD_MAX);
    format!(" ({}{more})", told.join(", "))
}

/// What people call a label that every node has; any other by its key.
fn label_word(key: &str) -> &str {
    match key {
        "muster/region" => "the region",
        "muster/zone" => "the zone",
        "muster/site" => "the site",
        "muster/node" => "the node",
        "muster/supplier" => "the supplier",
        key => key,
    }
}

/// A number of thousandths without needless digits.
fn thousandths(amount: u64) -> String {
    let text = format!("{}.{:03}", amount / 1000, amount % 1000);
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

fn dollars(micro: u64) -> String {
    let text = format!("{}.{:06}", micro / 1_000_000, micro % 1_000_000);
    // Cents are always written.
    let cents = text.len() - 4;
    let (whole, rest) = text.split_at(cents);
    format!("{whole}{}", rest.trim_end_matches('0'))
}

fn level_word(level: Level) -> &'static str {
    match level {
        Level::Region => "region",
        Level::Zone => "zone",
        Level::Site => "site",
        Level::Rack => "rack",
        Level::Node => "node",
    }
}

fn strategy_word(strategy: Strategy) -> &'static str {
    match strategy {
        Strategy::Pack => "PACK",
        Strategy::Spread => "SPREAD",
        Strategy::StrictPack => "STRICT_PACK",
        Strategy::StrictSpread => "STRICT_SPREAD",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use scheduler_core::id::JobId;
    use scheduler_core::job::{DomainsMax, GroupSpec, Reason};
    use scheduler_core::unit::{CostMicroUsd, MemoryMib, PriceMicroUsd, RttUs, TimeMs};

    fn spec() -> JobSpec {
        let good = crate::convert::job::tests::good();
        let mut spec = crate::convert::job::spec("spec", Some(good)).expect("is good");
        spec.rtt_max = Some(RttUs(50_000));
        spec.price_max = Some(PriceMicroUsd(2_500_000));
        spec
    }

    #[test]
    fn changes_read_like_sentences() {
        let spec = spec();
        let say = |change| text(&spec, &change);
        assert_eq!(
            say(Change::RttMax(Some(RttUs(80_500)))),
            "with an RTT bound of 80.5 ms instead of 50 ms"
        );
        assert_eq!(
            say(Change::PriceMax(PriceMicroUsd(3_120_000))),
            "with a price bound of $ 3.12 instead of $ 2.50 a GPU-hour"
        );
        let hourly = JobSpec { hourly_max: Some(CostMicroUsd(450_000_000)), ..spec.clone() };
        assert_eq!(
            text(&hourly, &Change::HourlyMax(CostMicroUsd(512_300_000))),
            "with a price bound of $ 512.30 instead of $ 450.00 per hour"
        );
        let mut few = spec.clone();
        few.domains_max = vec![DomainsMax { level: Level::Rack, max: 2 }];
        few.groups[0].rules.domains_max = vec![DomainsMax { level: Level::Node, max: 7 }];
        for (groups, bound, wanted) in [
            (vec![], (Level::Rack, 3), "within 3 racks instead of 2"),
            (vec![0], (Level::Node, 9), "within 9 nodes instead of 7"),
        ] {
            let bound = DomainsMax { level: bound.0, max: bound.1 };
            assert_eq!(text(&few, &Change::DomainsMax { groups, bound }), wanted);
        }
        assert_eq!(say(Change::Quota { gpu_milli_more: 1_250 }), "with a quota of 1.25 GPUs more");
        let memory = MemoryMib(2 << 20);
        assert_eq!(
            say(Change::Memory { groups: vec![0], memory }),
            format!(
                "with 2TiB of memory for each replica instead of {}",
                mebibytes(spec.groups[0].shape.memory.0)
            )
        );
        assert_eq!(
            say(Change::NoRule { groups: Vec::new(), rule: Rule::TotalPrice }),
            "without the bound on the total price"
        );
        let mut two = spec.clone();
        two.groups.push(GroupSpec { name: spec.name.clone(), ..spec.groups[0].clone() });
        let least = [spec.groups[0].replicas, 1];
        let told = text(&two, &Change::Replicas(least.to_vec()));
        assert!(told.contains(&format!(" replicas (train 1 of {}), ", least[0])), "{told}");
    }

    #[test]
    fn those_who_would_give_way_are_told_by_number_and_own_ones_by_name() {
        let mut spec = spec();
        let (own, gpu_milli) = (vec![JobId(3), JobId(9)], 24_500);
        let change = Change::Preempt(Taken { whole: 2, part: 1, gpu_milli, own });
        assert_eq!(
            text(&spec, &change),
            "with the preemption policy LOWER_PRIORITY: 2 job(s) of a lower priority would go back \
             to the queue, 1 would lose spare replicas (24.5 GPUs, own jobs 3, 9)"
        );
        spec.preemption.policy = PreemptionPolicy::LowerPriority;
        let taken = Taken { whole: 0, part: 1, gpu_milli: 1_000, own: Vec::new() };
        let change = Change::Preempt(taken);
        assert_eq!(
            text(&spec, &change),
            "by its preemption policy: 1 would lose spare replicas (1 GPUs)"
        );
    }

    #[test]
    fn another_tenants_job_is_not_named() {
        let why = |own| NoPlan {
            verdict: Some(Verdict::BusyUntil(Some(TimeMs(9)))),
            reason: Reason::default(),
            nodes_total: 0,
            hardest: 0,
            groups: Vec::new(),
            helps: vec![(Change::Wait { until: TimeMs(9), job: JobId(7), own }, true)],
            is_cut_short: false,
        };
        let told = |own, sees_all| {
            let shown = explanation(&spec(), &why(own), sees_all);
            match &shown.counterfactuals[0].change {
                Some(v1::counterfactual::Change::Ending(ending)) => (ending.time_ms, ending.job_id),
                other => panic!("{other:?}"),
            }
        };
        assert_eq!(told(false, false), (9, 0));
        assert_eq!((told(true, false), told(false, true)), ((9, 7), (9, 7)));
    }

    #[test]
    fn a_plan_is_named_whole_or_not_at_all() {
        assert!(check("", 0, "").is_ok_and(|check| check.is_none()));
        let by_index = check("", 7, "").expect("is good").expect("is one");
        assert_eq!(by_index, Check { index: 7, digest: None });
        let hex = format!("{:032x}", 0x1234_u128);
        let by_both = check("", 7, &hex).expect("is good").expect("is one");
        assert_eq!(by_both.digest, Some(0x1234));
        for (index, digest) in [(0, hex.as_str()), (7, "12"), (7, &hex.replace('0', "+"))] {
            assert!(check("", index, digest).is_err(), "{index} {digest}");
        }
    }
}
