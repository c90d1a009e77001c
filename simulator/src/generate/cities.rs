//! Cities on a globe and the round trips between them, shaped like WonderNetwork's 242 cities.
//!
//! Medians there by distance: below 200 km 7.7 ms, 500-1,000 km 25.6, 2,000-4,000 km 69,
//! 8,000-12,000 km 187. Within 50 ms lie 16 per cent of the pairs, and 5.8 per cent of triples break
//! the triangle inequality: routes have detours of their own, so RTT is no metric. The mean
//! deviation is 0.6 per cent of the mean in the middle and 7.8 per cent in the worst tenth.
//! **Invariant:** both directions of a pair are alike.

use super::Draw;
use super::draw::{asin, exp};
use scheduler_core::unit::RttUs;

/// Continents: name, middle as a unit vector, spread of its cities in radians, share of all cities.
const CONTINENTS: [(&str, [f64; 3], f64, u32); 7] = [
    ("europe", [0.6590, 0.1162, 0.7431], 0.1257, 36),
    ("north-america", [-0.0668, -0.7631, 0.6428], 0.1885, 28),
    ("south-america", [0.4698, -0.8138, -0.3420], 0.1257, 7),
    ("east-asia", [-0.2962, 0.8138, 0.5000], 0.2094, 13),
    ("oceania", [-0.6870, 0.4810, -0.5446], 0.1047, 5),
    ("south-asia", [0.2048, 0.9633, 0.1736], 0.1257, 4),
    ("africa", [0.9063, 0.4226, 0.0], 0.2094, 7),
];
const EARTH_KM: f64 = 6_371.0;
/// Light goes so far in fibre in a millisecond, there and back.
const KM_PER_MS: f64 = 100.0;
/// Routes over great circles: far ones, and how much more near ones make of it.
const DETOUR_FAR: f64 = 1.78;
const DETOUR_NEAR: f64 = 900.0;
const DETOUR_NEAR_KM: f64 = 900.0;
/// Spread of the logarithm of a pair's own detour.
const DETOUR_SIGMA: f64 = 0.11;
/// Mean of a city's access in milliseconds; exponential.
const ACCESS_MS: f64 = 3.3;
/// Median and spread of the logarithm of the mean deviation over the mean RTT.
const JITTER: (f64, f64) = (0.006, 2.0);
/// Mean deviations above the usual RTT that it rarely exceeds.
const DEVIATIONS: f64 = 2.0;

/// A world of cities.
#[derive(Clone, PartialEq, Debug)]
pub struct Cities {
    cities: Vec<City>,
    /// Usual milliseconds and mean deviation of each pair, by the larger number, then the smaller.
    pairs: Vec<(f64, f64)>,
}

#[derive(Clone, PartialEq, Debug)]
struct City {
    continent: &'static str,
    /// Unit vector.
    at: [f64; 3],
    access_ms: f64,
}

impl Cities {
    pub fn new(count: usize, seed: u64) -> Self {
        let mut draw = Draw::new(seed, "cities");
        let cities: Vec<City> = (0..count).map(|_| city(&mut draw)).collect();
        let mut draw = Draw::new(seed, "city-pairs");
        let mut pairs = Vec::with_capacity(count * count / 2);
        for (number, a) in cities.iter().enumerate() {
            for b in cities.iter().take(number) {
                let km = distance_km(a, b);
                let detour = DETOUR_FAR + DETOUR_NEAR / (km + DETOUR_NEAR_KM);
                let own = exp(DETOUR_SIGMA * draw.normal());
                let usual = km / KM_PER_MS * detour * own + a.access_ms + b.access_ms;
                let jitter = draw.lognormal(JITTER.0, JITTER.1).min(1.0);
                pairs.push((usual, usual * jitter));
            }
        }
        Self { cities, pairs }
    }

    pub fn len(&self) -> usize {
        self.cities.len()
    }

    pub fn is_empty(&self) -> bool {
        self.cities.is_empty()
    }

    /// Name of its continent; empty for a number that no city has.
    pub fn continent(&self, city: usize) -> &'static str {
        self.cities.get(city).map_or("", |city| city.continent)
    }

    /// Great-circle distance; 0 for a number that no city has.
    pub fn distance_km(&self, a: usize, b: usize) -> f64 {
        let pair = self.cities.get(a).zip(self.cities.get(b));
        pair.map_or(0.0, |(a, b)| distance_km(a, b))
    }

    /// The usual RTT between two cities, and one that is rarely exceeded; `None` for one city.
    pub fn rtt(&self, a: usize, b: usize) -> Option<(RttUs, RttUs)> {
        let (low, high) = (a.min(b), a.max(b));
        let row = high.checked_mul(high.checked_sub(1)?)? / 2;
        let &(usual, deviation) = self.pairs.get(row + low).filter(|_| low != high)?;
        Some((micros(usual), micros(usual + DEVIATIONS * deviation)))
    }
}

/// At least a microsecond.
pub(super) fn micros(ms: f64) -> RttUs {
    RttUs(((ms * 1_000.0).round() as u32).max(1))
}

fn city(draw: &mut Draw) -> City {
    let weights = CONTINENTS.map(|continent| (continent, continent.3));
    let &(continent, middle, spread, _) = draw.weighed(&weights).unwrap_or(&CONTINENTS[0]);
    let at = middle.map(|part| part + spread * draw.normal());
    let length = at.iter().map(|part| part * part).sum::<f64>().sqrt().max(f64::MIN_POSITIVE);
    City { continent, at: at.map(|part| part / length), access_ms: draw.exponential(ACCESS_MS) }
}

fn distance_km(a: &City, b: &City) -> f64 {
    let square: f64 = a.at.iter().zip(&b.at).map(|(x, y)| (x - y) * (x - y)).sum();
    EARTH_KM * 2.0 * asin(square.sqrt() / 2.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ms(cities: &Cities, a: usize, b: usize) -> f64 {
        cities.rtt(a, b).map_or(0.0, |(usual, _)| f64::from(usual.0) / 1_000.0)
    }

    fn median(mut list: Vec<f64>, at: f64) -> f64 {
        list.sort_by(f64::total_cmp);
        list[((list.len() - 1) as f64 * at) as usize]
    }

    #[test]
    fn round_trips_are_as_published() {
        let mut by_distance = [
            (200.0, 7.7, vec![]),
            (1_000.0, 25.6, vec![]),
            (4_000.0, 69.0, vec![]),
            (12_000.0, 187.0, vec![]),
        ];
        let from = [0.0, 500.0, 2_000.0, 8_000.0];
        let (mut near, mut pairs, mut broken, mut triples) = (0, 0, 0, 0);
        let mut jitters = Vec::new();
        for seed in 0..4 {
            let cities = Cities::new(242, seed);
            for a in 0..242 {
                for b in 0..a {
                    let (km, usual) = (cities.distance_km(a, b), ms(&cities, a, b));
                    pairs += 1;
                    near += u32::from(usual <= 50.0);
                    for (least, (most, _, list)) in from.iter().zip(&mut by_distance) {
                        if (*least..*most).contains(&km) {
                            list.push(usual);
                        }
                    }
                    let (usual, high) = cities.rtt(b, a).expect("a pair");
                    jitters.push(f64::from(high.0 - usual.0) / f64::from(usual.0) / DEVIATIONS);
                }
            }
            let mut draw = Draw::new(seed, "triples");
            for _ in 0..40_000 {
                let [a, b, c] = [(); 3].map(|()| draw.below(242) as usize);
                if a != b && b != c && a != c {
                    triples += 1;
                    broken += u32::from(ms(&cities, a, c) > ms(&cities, a, b) + ms(&cities, b, c));
                }
            }
        }
        for (_, published, list) in by_distance {
            let found = median(list, 0.5);
            assert!((found / published - 1.0).abs() < 0.25, "{found} ms, published {published}");
        }
        let near = f64::from(near) / f64::from(pairs);
        assert!((near - 0.16).abs() < 0.03, "{near} of the pairs within 50 ms, published 0.16");
        let broken = f64::from(broken) / f64::from(triples);
        assert!((broken - 0.058).abs() < 0.01, "{broken} of the triples, published 0.058");
        assert!((median(jitters.clone(), 0.5) / 0.006 - 1.0).abs() < 0.1);
        assert!((median(jitters, 0.9) / 0.078 - 1.0).abs() < 0.1);
    }

    #[test]
    fn pairs_are_found_both_ways_and_cities_have_none_with_themselves() {
        let cities = Cities::new(5, 1);
        for a in 0..5 {
            assert_eq!(cities.rtt(a, a), None);
            for b in 0..a {
                assert_eq!(cities.rtt(a, b), cities.rtt(b, a));
                assert!(cities.rtt(a, b).is_some());
            }
        }
        assert_eq!((cities.rtt(5, 1), cities.len()), (None, 5));
    }
}
