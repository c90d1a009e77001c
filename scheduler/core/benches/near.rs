//! How long the choice of sites takes with 300 and 1,000 sites: the yes or no to a bound, near
//! sites without an objective, the least diameter and the least mean; over cities and over RTTs
//! without geometry, of which several worlds are asked for a yes or no alone, since which gang is
//! the hardest one differs from world to world.
//!
//! **Invariant:** worlds come from a seed, so figures of two runs are of the same cases.

// A bench may look at the clock.
#![allow(clippy::disallowed_methods, clippy::disallowed_types)]

use criterion::{BatchSize, Criterion, criterion_group, criterion_main};
use scheduler_core::fixture::cities::{cities, no_geometry};
use scheduler_core::id::SiteId;
use scheduler_core::plan::Budget;
use scheduler_core::plan::near::{Answer, Objective, Question, Vertex, any, bound_needed, choose};
use scheduler_core::topology::{Measured, Net, Sites, embed};
use scheduler_core::unit::{RttUs, TimeMs};
use std::hint::black_box;
use std::time::{Duration, Instant};

/// Heavy-tailed capacities, about 460,000 units in all for 300 sites.
fn vertices(sites: usize) -> Vec<Vertex> {
    (0u16..)
        .take(sites)
        .map(|site| {
            let tail = u64::from(site).wrapping_mul(2_654_435_761) % 997 + 20;
            Vertex::new(site, vec![300_000 / tail])
        })
        .collect()
}

fn questions(c: &mut Criterion, called: &str, sites: &Sites) {
    let net = Net::new(sites);
    let vertices = vertices(sites.len());
    let mut group = c.benchmark_group(format!("near/{called}"));
    group.sample_size(10);
    let total: u64 = vertices.iter().map(|vertex| vertex.have[0]).sum();
    for units in [1_250, 10_000, 30_000, total / 4, total / 2, total * 3 / 4] {
        let need = &[units][..];
        let question = |bound_us, objective| Question {
            net: &net,
            vertices: &vertices,
            need,
            fixed: &[],
            bound_us,
            objective,
        };
        let budget = Budget::default();
        let Some(needed) = bound_needed(&question(None, Objective::Any), budget) else { continue };
        for milli in [950u32, 980, 1_000, 1_020, 1_200] {
            let bound = Some((u64::from(needed) * u64::from(milli) / 1_000) as u32);
            let asked = question(bound, Objective::Any);
            let answer = match any(&asked, budget) {
                Answer::Chosen(choice) => format!("{} sites", choice.sites.len()),
                other => format!("{other:?}"),
            };
            eprintln!("{units} within {milli} thousandths of {needed} us: {answer}");
            group.bench_function(format!("{units} yes or no at {milli}"), |b| {
                b.iter(|| black_box(any(&asked, budget)));
            });
        }
        let bound = Some(needed + needed / 5);
        for (called, asked) in [
            ("bound 1.2", question(bound, Objective::Any)),
            ("no bound", question(None, Objective::Any)),
            ("least diameter", question(None, Objective::Diameter)),
            ("least mean", question(None, Objective::Mean)),
        ] {
            if let Answer::Chosen(choice) = choose(&asked, budget) {
                let (usual, mean) = (choice.median_us, choice.mean_us);
                eprintln!(
                    "{units} {called}: {} sites, {usual} us, mean {mean:?}, floor {}",
                    choice.sites.len(),
                    choice.floor_us
                );
            }
            group.bench_function(format!("{units} {called}"), |b| {
                b.iter(|| black_box(choose(&asked, budget)));
            });
        }
    }
    group.finish();
}

/// What the yes or no takes at worst over worlds without geometry, and how many stay open: gangs
/// whose sites are few of many, about the size from which on they are hard, and larger than any that
/// there is room for.
fn hard(c: &mut Criterion, count: usize) {
    let mut group = c.benchmark_group(format!("near/hard {count} without geometry"));
    group.sample_size(10);
    let vertices = vertices(count);
    let total: u64 = vertices.iter().map(|vertex| vertex.have[0]).sum();
    let nets: Vec<Net> = (7..13).map(|seed| Net::new(&no_geometry(count, seed))).collect();
    for units in [1_250, 10_000, 30_000, total / 8, total / 4, total / 2, total * 3 / 4] {
        let need = &[units][..];
        let (mut open, mut worst) = (0, None::<(Duration, Question<'_>)>);
        let mut asked = 0;
        for net in &nets {
            let (vertices, fixed, objective) = (&vertices[..], &[][..], Objective::Any);
            let question = Question { net, vertices, need, fixed, bound_us: None, objective };
            let budget = Budget::default();
            // Under a bound that all keep where none would do.
            let needed = bound_needed(&question, budget).unwrap_or(400_000);
            for milli in [950u32, 965, 980, 990, 999, 1_000, 1_020, 1_100, 1_200] {
                let bound_us = Some((u64::from(needed) * u64::from(milli) / 1_000) as u32);
                let question = Question { bound_us, ..question };
                let once = || {
                    let start = Instant::now();
                    (any(&question, budget), start.elapsed())
                };
                let took = (0..5).map(|_| once().1).min().unwrap_or_default();
                open += u32::from(once().0 == Answer::Aborted);
                asked += 1;
                if worst.as_ref().is_none_or(|(most, _)| *most < took) {
                    worst = Some((took, question));
                }
            }
        }
        let Some((took, question)) = worst else { continue };
        eprintln!("{units}: at worst {took:?}, {open} of {asked} open");
        group.bench_function(format!("{units} at worst"), |b| {
            b.iter(|| black_box(any(&question, Budget::default())));
        });
    }
    group.finish();
}

fn upkeep(c: &mut Criterion) {
    let mut group = c.benchmark_group("sites");
    group.sample_size(10);
    for count in [300, 1_000] {
        let sites = cities(count, 7);
        group.bench_function(format!("net of {count}"), |b| b.iter(|| black_box(Net::new(&sites))));
        let mut told = sites.clone();
        let old = Net::new(&sites);
        for site in 0..old.len() as u16 {
            black_box(old.order(site));
        }
        let news = Measured { median: RttUs(1), high: RttUs(2), samples: 1, at: TimeMs(2) };
        told.set_rtt(SiteId(3), SiteId(7), news);
        group.bench_function(format!("one RTT of {count} sites"), |b| {
            b.iter_batched(
                || old.clone(),
                |mut net| {
                    net.update(&sites, &told);
                    net
                },
                BatchSize::PerIteration,
            );
        });
        group.bench_function(format!("order of {count}"), |b| {
            b.iter_batched(
                || Net::new(&sites),
                |net| {
                    for site in 0..net.len() as u16 {
                        black_box(net.order(site));
                    }
                    net
                },
                BatchSize::PerIteration,
            );
        });
        group.bench_function(format!("coordinates of {count}"), |b| {
            b.iter(|| black_box(embed::embed(&sites)));
        });
    }
    group.finish();
}

fn near(c: &mut Criterion) {
    questions(c, "300 cities", &cities(300, 7));
    questions(c, "1000 cities", &cities(1_000, 7));
    questions(c, "300 without geometry", &no_geometry(300, 7));
    hard(c, 300);
    hard(c, 1_000);
}

criterion_group!(benches, near, upkeep);
criterion_main!(benches);
