//! One copy of what many nodes or jobs have in common.
//!
//! **Invariant:** neither stored nor hashed, and never looked at to decide anything: it only
//! settles which equal values lie in the same place.

use crate::hash::Hasher;
use crate::id::Name;
use crate::job::JobSpec;
use crate::node::Node;
use std::collections::{BTreeMap, BTreeSet};
use std::hash::Hash;
use std::sync::Arc;

/// Texts kept for sharing at most: labels with a value per node must not fill memory twice.
const TEXTS_MAX: usize = 65_536;
/// Specs kept for sharing at most, and how big they may be: so together they hold a few MB.
const SPECS_MAX: usize = 4_096;
const SPEC_GROUPS_MAX: usize = 4;
const SPEC_PROGRAM_ITEMS_MAX: usize = 8;

#[derive(Debug, Default)]
pub(super) struct Shared {
    texts: BTreeSet<Arc<str>>,
    names: BTreeSet<Name>,
    /// By hash; equality is checked.
    specs: BTreeMap<u128, Arc<JobSpec>>,
}

impl Shared {
    fn text(&mut self, text: &mut Arc<str>) {
        if let Some(known) = self.texts.get(text) {
            *text = known.clone();
        } else if self.texts.len() < TEXTS_MAX {
            self.texts.insert(text.clone());
        }
    }

    fn name(&mut self, name: &mut Name) {
        if let Some(known) = self.names.get(name) {
            *name = known.clone();
        } else if self.names.len() < TEXTS_MAX {
            self.names.insert(name.clone());
        }
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
        node.labels = std::mem::take(&mut node.labels)
            .into_iter()
            .map(|(mut key, mut value)| {
                self.text(&mut key);
                self.text(&mut value);
                (key, value)
            })
            .collect();
        node.gpus.shrink_to_fit();
        node.taints.shrink_to_fit();
    }

    /// The spec, or an equal one that other jobs have already: streams of small jobs repeat theirs.
    pub(super) fn spec(&mut self, spec: &Arc<JobSpec>) -> Arc<JobSpec> {
        let program = &spec.program;
        let small = spec.groups.len() <= SPEC_GROUPS_MAX
            && program.argv.len() + program.env.len() <= SPEC_PROGRAM_ITEMS_MAX;
        if !small {
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
