//! What a pod needs in all, as Kubernetes' scheduler counts it.
//!
//! A request left out is its limit. Containers add up, and with them side-cars (init containers that
//! go on running); other init containers run one after the other before, so the largest counts; the
//! overhead comes on top. Requests of the pod as a whole stand in place of the sum.
//! Source: "Resource sharing within containers" and the sidecar rules of Kubernetes' documentation.
//! **Invariant:** every amount keeps the place that asks for it.

use super::pod::{Container, PodSpec, Resources};
use crate::decode::Scalar;
use crate::finding::{At, Findings};
use crate::quantity::Quantity;
use crate::shape::Amounts;
use std::collections::BTreeMap;

/// What one replica of the pod needs.
pub(super) fn of_pod(at: &At, spec: &PodSpec, findings: &mut Findings) -> Amounts {
    let mut running = Amounts::new();
    for (index, container) in spec.containers.iter().enumerate() {
        let at = at.field("containers").index(index).field("resources");
        add(&mut running, &of_resources(&at, &container.resources, findings));
    }
    let mut before = Amounts::new();
    let mut side_cars = Amounts::new();
    for (index, container) in spec.init_containers.iter().enumerate() {
        let at = at.field("initContainers").index(index);
        let mut asked = of_resources(&at.field("resources"), &container.resources, findings);
        if goes_on(&at, container, findings) {
            add(&mut side_cars, &asked);
            asked.clone_from(&side_cars);
        } else {
            add(&mut asked, &side_cars);
        }
        larger(&mut before, asked);
    }
    add(&mut running, &side_cars);
    larger(&mut running, before);
    if let Some(resources) = &spec.resources {
        // The pod's own word stands in place of the sum, resource by resource; its limit only where no
        // container asks for any.
        let own = of_resources(&at.field("resources"), resources, findings);
        let said = |name: &String| resources.requests.contains_key(name);
        let own = own.into_iter().filter(|(name, _)| said(name) || !running.contains_key(name));
        running.extend(own.collect::<Amounts>());
    }
    add(&mut running, &amounts(&at.field("overhead"), &spec.overhead, findings));
    running
}

fn goes_on(at: &At, container: &Container, findings: &mut Findings) -> bool {
    match container.restart_policy.as_deref() {
        Some("Always") => true,
        Some(_) => {
            findings.note(&at.field("restartPolicy"), "ignored: muster does not start containers");
            false
        }
        None => false,
    }
}

pub(super) fn of_resources(at: &At, resources: &Resources, findings: &mut Findings) -> Amounts {
    let requests = amounts(&at.field("requests"), &resources.requests, findings);
    let mut all = amounts(&at.field("limits"), &resources.limits, findings);
    for (name, (limit, limit_at)) in &all {
        match requests.get(name) {
            Some((request, request_at)) if request > limit => {
                findings.fault(request_at, "is more than the limit");
            }
            Some((request, request_at)) if request < limit => {
                if name.contains('/') {
                    findings.fault(request_at, "must equal the limit: it cannot be overcommitted");
                } else {
                    findings.note(limit_at, "ignored: the request counts, limits are not enforced");
                }
            }
            _ => {}
        }
    }
    all.extend(requests);
    all
}

/// Amounts as they are written down.
pub(super) fn amounts(
    at: &At,
    written: &BTreeMap<String, Scalar>,
    findings: &mut Findings,
) -> Amounts {
    let mut amounts = Amounts::new();
    for (name, text) in written {
        let at = at.field(name);
        match Quantity::parse(&text.0) {
            Ok(amount) => {
                amounts.insert(name.clone(), (amount, at));
            }
            Err(why) => findings.fault(&at, why),
        }
    }
    amounts
}

fn add(sum: &mut Amounts, more: &Amounts) {
    for (name, (amount, at)) in more {
        let (total, _) =
            sum.entry(name.clone()).or_insert_with(|| (Quantity::default(), at.clone()));
        *total = total.saturating_add(*amount);
    }
}

fn larger(sum: &mut Amounts, other: Amounts) {
    for (name, (amount, at)) in other {
        let (largest, place) = sum.entry(name).or_insert_with(|| (amount, at.clone()));
        if amount > *largest {
            (*largest, *place) = (amount, at);
        }
    }
}
