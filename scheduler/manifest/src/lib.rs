//! Requests as users already write them, read into one native `JobSpec`.
//!
//! Native job files, Ray's placement groups, KubeRay's RayCluster, RayJob and RayService, Kubernetes' Job, Pod, Workload,
//! PodGroup and ResourceClaimTemplate, JobSet, LeaderWorkerSet, Kueue's Workload and annotations, KAI's PodGroup and
//! annotations, YuniKorn's task groups, Volcano's Job, the jobs of Kubeflow's training operator. [`read`] finds out which
//! it is.
//! **Invariant:** pure: text in, a job and notes out, or all its faults. No field is dropped without a word.

mod decode;
mod document;
mod finding;
mod kubernetes;
mod label;
mod mig;
pub mod model;
pub mod native;
mod quantity;
mod ray;
mod shape;
pub mod text;
mod topology;

pub use document::TEXT_BYTES_MAX;
pub use finding::{Fault, Note};

use finding::Findings;
use proto::v1::JobSpec;

/// What a text was understood as.
#[derive(Clone, PartialEq, Debug)]
pub struct Understood {
    /// The job.
    pub spec: JobSpec,
    /// Fields that steer nothing, or were read in a way worth knowing.
    pub notes: Vec<Note>,
}

/// Reads a text of any of the known kinds; bounded in time and memory whatever the text is.
pub fn read(text: &str) -> Result<Understood, Vec<Fault>> {
    let documents = document::documents(text).map_err(|fault| vec![fault])?;
    let mut findings = Findings::default();
    let spec = match documents.as_slice() {
        [only] if ray::placement::is_one(&only.value) => ray::placement::read(only, &mut findings),
        [only] if native::is_one(&only.value) => native::read(only, &mut findings),
        all => kubernetes::assemble(all, &mut findings),
    };
    let (spec, notes) = findings.finish(spec)?;
    Ok(Understood { spec, notes })
}

/// The text that bytes are, unless they are none.
pub fn utf8(bytes: Vec<u8>) -> Result<String, Fault> {
    String::from_utf8(bytes).map_err(|error| {
        let problem = format!("is no UTF-8 text from byte {}", error.utf8_error().valid_up_to());
        Fault { path: String::new(), problem }
    })
}
