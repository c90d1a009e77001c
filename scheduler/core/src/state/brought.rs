//! Names that a supplier brought into the fleet.
//!
//! GPU models and sites are numbered when they are first seen and keep their numbers for ever, so
//! there is an end to them; one supplier must not use them up for all others.
//! **Invariant:** each name is brought by one supplier at most; those that an operator declared, or
//! an older program took in, by none.

use super::State;
use crate::command::Rejection;
use crate::id::{ModelId, Name, SiteId, SupplierId};
use crate::node::{MODELS_MAX, NodeSpec};
use crate::topology::SITES_MAX;
use serde::{Deserialize, Serialize};

/// Most GPU models that one supplier may bring: an eighth of what a fleet may have, and twice what
/// all makers sell.
pub const MODELS_BROUGHT_MAX: usize = MODELS_MAX / 8;
/// Most sites that one supplier may bring: a quarter of what a fleet may have.
pub const SITES_BROUGHT_MAX: usize = SITES_MAX / 4;

/// What one supplier brought, by rising number.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Default, Serialize, Deserialize)]
pub struct Brought {
    pub models: Vec<ModelId>,
    pub sites: Vec<SiteId>,
}

impl State {
    /// What the supplier brought that nobody had before; `None` = nothing.
    pub fn brought(&self, supplier: &SupplierId) -> Option<&Brought> {
        self.facts.brought.get(supplier)
    }

    /// Whether the supplier itself may bring what is new in this declaration.
    pub(super) fn check_brought(
        &self,
        supplier: &SupplierId,
        spec: &NodeSpec,
    ) -> Result<(), Rejection> {
        let (models, sites) = self
            .brought(supplier)
            .map_or((0, 0), |brought| (brought.models.len(), brought.sites.len()));
        if self.sites().find(&spec.place.site).is_none() && sites >= SITES_BROUGHT_MAX {
            return too_many("spec.place.site".to_owned(), "site", SITES_BROUGHT_MAX);
        }
        let mut new: Vec<&Name> = Vec::new();
        for (at, gpu) in spec.gpus.iter().enumerate() {
            if self.models().find(&gpu.model).is_some() || new.contains(&&gpu.model) {
                continue;
            }
            new.push(&gpu.model);
            if models + new.len() > MODELS_BROUGHT_MAX {
                return too_many(format!("spec.gpus[{at}].model"), "GPU model", MODELS_BROUGHT_MAX);
            }
        }
        Ok(())
    }
}

fn too_many(field: String, what: &str, max: usize) -> Result<(), Rejection> {
    let problem = format!(
        "would be {what} number {} that this supplier brings into the fleet; at most {max} are allowed, \
         and those that operators declare do not count",
        max + 1
    );
    Err(Rejection::Invalid { field, problem })
}
