//! `JobService.TranslateManifest`: other systems' words into a job, with GPU models by the names that this fleet has
//! for them.
//!
//! **Invariant:** changes nothing; a bounded number of texts is worked on at a time.

use super::node_admin::capacity;
use crate::app::Context;
use crate::status;
use ::manifest::model::{self, Known};
use ::manifest::{Fault, Understood};
use prost::Message as _;
use proto::v1;
use scheduler_core::id::Name;
use std::time::Duration;
use tokio::sync::Semaphore;
use tonic::{Response, Status};

/// Texts worked on at a time: one of 1 MiB takes up to some tenths of a second of one core.
const TRANSLATIONS_MAX: usize = 4;
/// What a client is told to wait when there are too many.
const RETRY: Duration = Duration::from_millis(200);

/// Largest answer: clients take 4 MiB by default.
const ANSWER_BYTES_MAX: usize = 4 * 1024 * 1024 - 64 * 1024;

static TRANSLATIONS: Semaphore = Semaphore::const_new(TRANSLATIONS_MAX);

/// Reads a manifest, off the threads that answer others.
pub(super) async fn translate(
    context: &Context,
    request: v1::TranslateManifestRequest,
) -> Result<Response<v1::TranslateManifestResponse>, Status> {
    let bytes = request.text.len();
    if bytes > ::manifest::TEXT_BYTES_MAX {
        let limit = ::manifest::TEXT_BYTES_MAX;
        let problem = format!("is {bytes} bytes; at most {limit} are allowed");
        return Err(status::bad_field("text", &problem));
    }
    let Ok(permit) = TRANSLATIONS.try_acquire() else {
        return Err(status::busy("too many manifests are being read", RETRY));
    };
    let failed = |error: tokio::task::JoinError| status::internal(&error.to_string());
    let read = tokio::task::spawn_blocking(move || (::manifest::read(&request.text), permit));
    let (mut read, permit) = read.await.map_err(failed)?;
    if let Ok(understood) = &mut read
        && names_unknown_models(context, &understood.spec)
    {
        let (fleet, _) = capacity(context, |_| true).await;
        let fleet = fleet.models.iter();
        let fleet: Vec<Known<'_>> =
            fleet.map(|one| Known { name: &one.model, vram_mib: one.vram_mib }).collect();
        understood.notes.extend(model::resolve(&mut understood.spec, &fleet));
    }
    let answer = tokio::task::spawn_blocking(move || {
        let _permit = permit;
        answer(read)
    });
    answer.await.map(Response::new).map_err(failed)
}

/// Whether a job names a GPU model that the fleet has never shown by that name.
fn names_unknown_models(context: &Context, spec: &v1::JobSpec) -> bool {
    context.quorum.read(|state| {
        let known =
            |name: &str| Name::parse(name).is_ok_and(|name| state.models().find(&name).is_some());
        model::named(spec).any(|name| !known(name))
    })
}

fn answer(read: Result<Understood, Vec<Fault>>) -> v1::TranslateManifestResponse {
    let mut answer = v1::TranslateManifestResponse::default();
    match read {
        Ok(understood) => {
            answer.native = ::manifest::native::to_yaml(&understood.spec).unwrap_or_default();
            answer.spec = Some(understood.spec);
            let notes = understood.notes.into_iter();
            answer.notes = notes.map(|note| remark(note.path, note.text)).collect();
        }
        Err(faults) => {
            let faults = faults.into_iter();
            answer.faults = faults.map(|fault| remark(fault.path, fault.problem)).collect();
        }
    }
    if answer.encoded_len() > ANSWER_BYTES_MAX {
        answer.native = String::new();
    }
    let bytes = answer.encoded_len();
    if bytes > ANSWER_BYTES_MAX {
        let text = format!("comes to {bytes} bytes; at most {ANSWER_BYTES_MAX} are allowed");
        answer = v1::TranslateManifestResponse {
            faults: vec![remark(String::new(), text)],
            ..v1::TranslateManifestResponse::default()
        };
    }
    answer
}

fn remark(path: String, text: String) -> v1::ManifestRemark {
    v1::ManifestRemark { path, text }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_has_a_job_or_faults() {
        let good = answer(::manifest::read("{bundles: [{GPU: 1}, {GPU: 1}], ray_namespace: n}"));
        assert_eq!(good.spec.map(|spec| spec.groups.len()), Some(1));
        assert!(good.native.contains("replicas: 2") && good.faults.is_empty());
        assert_eq!(good.notes[0].path, "ray_namespace");
        let bad = answer(::manifest::read("{bundles: [{GPU: 1}], strategy: WIDE}"));
        assert_eq!((bad.spec, bad.native.as_str()), (None, ""));
        assert_eq!(bad.faults[0].path, "strategy");
    }

    #[test]
    fn answers_stay_below_what_clients_take() {
        let text = format!("bundles: [{}]", "{a: 1}, {b: 1}, ".repeat(60_000));
        let answer = answer(::manifest::read(&text));
        assert!(answer.encoded_len() <= ANSWER_BYTES_MAX);
        assert!(!answer.faults.is_empty() || answer.spec.is_some());
    }
}
