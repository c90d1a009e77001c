//! GPU models by the names that other systems have for them.
//!
//! Ray says `H100` or `A100-80G`, GKE `nvidia-h100-80gb`; a fleet's agents say what the driver says, such as
//! `H100-80GB-HBM3`, or what their operator chose. A name that the fleet does not know stands for those
//! models that it does know and that have all of its parts.
//! **Invariant:** a name that the fleet knows means itself; what means nothing in the fleet is left as it is.

use crate::finding::{At, Note};
use proto::v1::JobSpec;

/// A model of the fleet.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Known<'a> {
    /// Name, as its agents say it.
    pub name: &'a str,
    /// Memory of one GPU, in MiB.
    pub vram_mib: u32,
}

/// Puts the fleet's own names in place of a job's; says what was read as what.
pub fn resolve(spec: &mut JobSpec, fleet: &[Known<'_>]) -> Vec<Note> {
    let mut notes = Vec::new();
    for (index, group) in spec.groups.iter_mut().enumerate() {
        let Some(shape) = group.shape.as_mut() else { continue };
        let at = At::root().field("groups").index(index);
        names(&at.field("gpu_models"), &mut shape.gpu_models, fleet, &mut notes);
        for (index, one) in shape.gpu_alternatives.iter_mut().enumerate() {
            let at = at.field("gpu").index(index).field("models");
            names(&at, &mut one.models, fleet, &mut notes);
        }
    }
    notes
}

/// All models that a job names.
pub fn named(spec: &JobSpec) -> impl Iterator<Item = &str> {
    let shapes = spec.groups.iter().filter_map(|group| group.shape.as_ref());
    let names = shapes.flat_map(|shape| {
        let alternatives = shape.gpu_alternatives.iter().flat_map(|one| &one.models);
        shape.gpu_models.iter().chain(alternatives)
    });
    names.map(String::as_str)
}

fn names(at: &At, asked: &mut Vec<String>, fleet: &[Known<'_>], notes: &mut Vec<Note>) {
    let mut read: Vec<String> = Vec::new();
    for (index, name) in std::mem::take(asked).into_iter().enumerate() {
        let meant: Vec<&str> = if fleet.iter().any(|known| known.name == name) {
            Vec::new()
        } else {
            let like = |known: &&Known<'_>| is_like(&name, known);
            fleet.iter().filter(like).map(|known| known.name).collect()
        };
        if meant.is_empty() {
            read.push(name);
            continue;
        }
        let text = format!("{} is read as {}", crate::finding::quote(&name), meant.join(" or "));
        notes.push(Note { path: at.index(index).shown(), text });
        for one in meant {
            if !read.iter().any(|known| known == one) {
                read.push(one.to_owned());
            }
        }
    }
    *asked = read;
}

/// Whether a model has all parts of the name: `A100-80G` is an `A100-SXM4-80GB`, and an `A100-SXM` of 80 GiB.
fn is_like(asked: &str, known: &Known<'_>) -> bool {
    let (asked, has) = (parts(asked), parts(known.name));
    asked.first().is_some_and(|first| has.first() == Some(first))
        && asked.iter().all(|part| has.contains(part) || gigabytes(part, &has, known.vram_mib))
}

/// Words of a name, without whose it is.
fn parts(name: &str) -> Vec<String> {
    const BRANDS: [&str; 5] = ["nvidia", "geforce", "tesla", "amd", "instinct"];
    let words = name.split(|c: char| !c.is_ascii_alphanumeric()).filter(|word| !word.is_empty());
    words
        .map(str::to_ascii_lowercase)
        .filter(|word| !BRANDS.contains(&word.as_str()))
        .map(|word| match gib(&word) {
            Some(gib) => format!("{gib}g"),
            None => word,
        })
        .collect()
}

/// The number of a word such as `80gb` or `80g`.
fn gib(word: &str) -> Option<u32> {
    word.strip_suffix("gb").or_else(|| word.strip_suffix('g'))?.parse().ok()
}

/// Whether the part is an amount of memory that a model has whose name does not say any.
fn gigabytes(part: &str, has: &[String], vram_mib: u32) -> bool {
    let Some(gib) = gib(part) else { return false };
    // Drivers keep some of it: 80 GB are told as 81,559 MiB, 16 GB as 15,360.
    let told = u64::from(gib) * 1024;
    has.iter().all(|word| self::gib(word).is_none())
        && u64::from(vram_mib).abs_diff(told) <= told / 10
}

#[cfg(test)]
mod tests {
    use super::*;
    use proto::v1::{GpuAlternative, Group, Shape};

    const FLEET: [Known<'static>; 9] = [
        Known { name: "A100-SXM4-80GB", vram_mib: 81_251 },
        Known { name: "A100-PCIE-40GB", vram_mib: 40_536 },
        Known { name: "A100-SXM", vram_mib: 81_920 },
        Known { name: "H100-80GB-HBM3", vram_mib: 81_559 },
        Known { name: "H100-PCIE", vram_mib: 81_559 },
        Known { name: "L40S", vram_mib: 46_068 },
        Known { name: "L4", vram_mib: 23_034 },
        Known { name: "T4", vram_mib: 15_360 },
        Known { name: "RTX-4090", vram_mib: 24_564 },
    ];

    fn read(asked: &[&str]) -> (Vec<String>, usize) {
        let gpu_models = asked.iter().map(|name| (*name).to_owned()).collect();
        let shape = Shape { gpu_models, ..Shape::default() };
        let mut spec = JobSpec {
            groups: vec![Group { shape: Some(shape), ..Group::default() }],
            ..JobSpec::default()
        };
        let notes = resolve(&mut spec, &FLEET);
        (spec.groups.remove(0).shape.map(|shape| shape.gpu_models).unwrap_or_default(), notes.len())
    }

    #[test]
    fn other_systems_names_are_the_fleets() {
        for (asked, wanted) in [
            ("H100", &["H100-80GB-HBM3", "H100-PCIE"][..]),
            ("h100-80gb", &["H100-80GB-HBM3", "H100-PCIE"]),
            ("A100-80G", &["A100-SXM4-80GB", "A100-SXM"]),
            ("A100-40G", &["A100-PCIE-40GB"]),
            ("t4", &["T4"]),
            ("nvidia-tesla-t4", &["T4"]),
            ("nvidia-l4", &["L4"]),
            ("rtx-4090", &["RTX-4090"]),
        ] {
            assert_eq!(
                read(&[asked]),
                (wanted.iter().map(|w| (*w).to_owned()).collect(), 1),
                "{asked}"
            );
        }
    }

    #[test]
    fn what_is_known_or_means_nothing_stays() {
        for asked in ["A100-SXM", "L40", "H100-NVL", "MI300X", "", "80gb", "A10"] {
            assert_eq!(read(&[asked]), (vec![asked.to_owned()], 0), "{asked}");
        }
        let (read, notes) = read(&["A100-SXM", "A100", "A100-80G"]);
        assert_eq!(
            (read, notes),
            (["A100-SXM", "A100-SXM4-80GB", "A100-PCIE-40GB"].map(str::to_owned).to_vec(), 2)
        );
    }

    #[test]
    fn alternatives_keep_their_order() {
        let one = |name: &str| GpuAlternative {
            models: vec![name.to_owned()],
            ..GpuAlternative::default()
        };
        let shape = Shape {
            gpu_alternatives: vec![one("H200"), one("L4x"), one("T4 ")],
            ..Shape::default()
        };
        let mut spec = JobSpec {
            groups: vec![Group { shape: Some(shape), ..Group::default() }],
            ..JobSpec::default()
        };
        assert_eq!(named(&spec).collect::<Vec<_>>(), ["H200", "L4x", "T4 "]);
        let notes = resolve(&mut spec, &FLEET);
        assert_eq!(notes[0].to_string(), "groups[0].gpu[2].models[0]: `T4 ` is read as T4");
        let models = |spec: &JobSpec| -> Vec<String> {
            let shape = spec.groups[0].shape.as_ref().expect("a shape");
            shape.gpu_alternatives.iter().map(|one| one.models.join("|")).collect()
        };
        assert_eq!(models(&spec), ["H200", "L4x", "T4"]);
    }
}
