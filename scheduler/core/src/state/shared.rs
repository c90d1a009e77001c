//! One copy of what many nodes or jobs have in common.
//!
//! **Invariant:** neither stored nor hashed, and never looked at to decide anything: it settles
//! which equal values lie in the same place, and spares a spec in a place known to be valid the
//! question whether it is.

use crate::hash::Hasher;
use crate::id::Name;
use crate::job::JobSpec;
use crate::node::Node;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::hash::Hash;
use std::sync::Arc;

/// Texts kept for sharing at most: labels with a value per node must not fill memory twice. Once
/// there are as many, sharing begins anew, or whoever came first with many would end it for all.
const TEXTS_MAX: usize = 65_536;
/// Specs kept for sharing at most, and how big they may be: so together they hold a few MB.
const SPECS_MAX: usize = 4_096;
const SPEC_GROUPS_MAX: usize = 4;
const SPEC_PROGRAM_ITEMS_MAX: usize = 8;
/// Submitted specs remembered by their place: jobs of one record share theirs, and few shapes of
/// job make up most of a stream.
const SUBMITTED_MAX: usize = 32;

#[derive(Debug, Default)]
pub(super) struct Shared {
    texts: BTreeSet<Arc<str>>,
    names: BTreeSet<Name>,
    /// By hash; equality is checked.
    specs: BTreeMap<u128, Arc<JobSpec>>,
    /// Valid specs as they were submitted, the latest last, and the copies kept of them.
    submitted: VecDeque<(Arc<JobSpec>, Arc<JobSpec>)>,
}

impl Shared {
    fn text(&mut self, text: &mut Arc<str>) {
        share(&mut self.texts, text);
    }

    fn name(&mut self, name: &mut Name) {
        share(&mut self.names, name);
    }

    pub(super) fn share_in_node(&mut self, node: &mut Node) {
        self.name(&mut node.supplier.0);
        let place = &mut node.place;
        for name in [&mut place.region, &mut place.zone, &mut place.site, &mut place.rack] {
            self.name(name);
        }
        for taint in &mut node.taints {
            self.text(&mut taint.key);
            self.text(&mut taint.value);
        }
        let shared = |(mut key, mut value): (Arc<str>, Arc<str>)| {
            self.text(&mut key);
            self.text(&mut value);
            (key, value)
        };
        let labels = Arc::unwrap_or_clone(std::mem::take(&mut node.labels));
        node.labels = Arc::new(labels.into_iter().map(shared).collect());
        node.gpus.shrink_to_fit();
        node.taints.shrink_to_fit();
    }

    /// The copy kept of this very spec, if it was submitted lately; it is valid then.
    pub(super) fn submitted(&self, spec: &Arc<JobSpec>) -> Option<Arc<JobSpec>> {
        let same = |(submitted, _): &&(Arc<JobSpec>, _)| Arc::ptr_eq(submitted, spec);
        self.submitted.iter().rev().find(same).map(|(_, kept)| kept.clone())
    }

    /// Remembers a valid spec by its place; gives the copy to keep.
    pub(super) fn submit(&mut self, spec: &Arc<JobSpec>) -> Arc<JobSpec> {
        let kept = self.spec(spec);
        if is_small(spec) {
            if self.submitted.len() >= SUBMITTED_MAX {
                self.submitted.pop_front();
            }
            self.submitted.push_back((spec.clone(), kept.clone()));
        }
        kept
    }

    /// The spec, or an equal one that other jobs have already: streams of small jobs repeat theirs.
    pub(super) fn spec(&mut self, spec: &Arc<JobSpec>) -> Arc<JobSpec> {
        if !is_small(spec) {
            return spec.clone();
        }
        let mut hasher = Hasher::new();
        spec.hash(&mut hasher);
        let key = hasher.finish128();
        match self.specs.get(&key) {
            Some(known) if known == spec => known.clone(),
            Some(_) => spec.clone(),
            None => {
                if self.specs.len() >= SPECS_MAX {
                    // What is still used lives on in its jobs; what comes next is shared anew.
                    self.specs.clear();
                }
                self.specs.insert(key, spec.clone());
                spec.clone()
            }
        }
    }
}

/// Puts the known one of equal texts in the place of this one.
fn share<T: Clone + Ord>(known: &mut BTreeSet<T>, text: &mut T) {
    if let Some(known) = known.get(text) {
        *text = known.clone();
        return;
    }
    if known.len() >= TEXTS_MAX {
        known.clear();
    }
    known.insert(text.clone());
}

fn is_small(spec: &JobSpec) -> bool {
    let program = &spec.program;
    spec.groups.len() <= SPEC_GROUPS_MAX
        && program.argv.len() + program.env.len() <= SPEC_PROGRAM_ITEMS_MAX
}
