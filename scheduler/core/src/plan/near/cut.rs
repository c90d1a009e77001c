//! Cut: what can be said before pairs are laid out — a first choice around the best centres, and
//! sites that cannot be part of any better one.
//!
//! With a thousand sites, laying out a million pairs takes longer than most answers.
//! **Invariant:** what is left out is in no choice as good as the first one found here.

use super::problem::{Cost, pair};
use super::{Question, Vertex, telling};
use crate::topology::FAR;

/// Balls whose diameter is looked at; the others have larger radii.
const BALLS_MAX: usize = 24;
/// Pairs looked at for a near first choice: what is left is for the search, which costs little
/// more.
const LOOKS_MAX: u64 = 120_000;
/// And for any: whether some will do is what the search says quickest.
const LOOKS_ANY_MAX: u64 = 30_000;
/// Bits for the sum of what all vertices have, beside some for the number of vertices, each of
/// which may be rounded up by one.
const PARTS_BITS: u32 = 31;
/// Every so manieth centre is looked at first, so that all parts of the world have their turn
/// before looks run out.
const STRIDE: usize = 8;

/// Which first choice is looked for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Goal {
    /// The first that is found.
    Any,
    /// One with a small largest cost.
    Near,
}

/// A choice found around one centre: its sites and the largest cost among them.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct First {
    pub(super) sites: Vec<u16>,
    pub(super) cost: u32,
}

/// What each site holds of what is needed, by site id, side by side: balls look at little else.
struct Rooms<'a> {
    vertices: Vec<Option<&'a Vertex>>,
    /// Row by row, in the dimensions of the need.
    have: Vec<u64>,
    need: Vec<u64>,
}

impl<'a> Rooms<'a> {
    fn new(question: &'a Question<'_>) -> Self {
        let dimensions = telling::dimensions(question);
        let need: Vec<u64> = dimensions.iter().map(|&at| question.need[at]).collect();
        let mut vertices = vec![None; question.net.len()];
        let mut have = vec![0; question.net.len() * need.len()];
        for vertex in question.vertices {
            let site = usize::from(vertex.site);
            let Some(cell) = vertices.get_mut(site) else { continue };
            *cell = Some(vertex);
            let row = &mut have[site * need.len()..(site + 1) * need.len()];
            let amount = |&at: &usize| vertex.have.get(at).copied().unwrap_or(0);
            row.iter_mut().zip(&dimensions).for_each(|(cell, at)| *cell = amount(at));
        }
        Self { vertices, have, need }
    }

    fn at(&self, site: u16) -> Option<&'a Vertex> {
        *self.vertices.get(usize::from(site))?
    }

    fn have(&self, site: u16) -> &[u64] {
        let (site, dims) = (usize::from(site), self.need.len());
        self.have.get(site * dims..(site + 1) * dims).unwrap_or(&[])
    }
}

/// Costs of one site with all others.
struct Ways<'a> {
    usual: &'a [u32],
    high: &'a [u32],
    bound: u32,
    cost: Cost,
}

impl<'a> Ways<'a> {
    fn new(question: &'a Question<'_>, site: u16, cost: Cost) -> Self {
        let (usual, high) = (question.net.median_row(site), question.net.high_row(site));
        Self { usual, high, bound: question.bound_us.unwrap_or(FAR - 1), cost }
    }

    /// As [`pair`] has it.
    fn to(&self, site: u16) -> u32 {
        let look = |row: &[u32]| row.get(usize::from(site)).copied().unwrap_or(FAR);
        let high = look(self.high);
        match self.cost {
            _ if high > self.bound => FAR,
            Cost::High => high,
            Cost::Median => look(self.usual),
        }
    }
}

/// The best of the choices that take the nearest sites around a centre. Takes the pairs it looked
/// at off `looks`.
pub(super) fn first(
    question: &Question<'_>,
    cost: Cost,
    goal: Goal,
    looks: &mut Looks,
) -> Option<First> {
    let rooms = Rooms::new(question);
    let alone = |vertex: &Vertex| vertex.have.iter().zip(question.need).all(|(a, b)| a >= b);
    let single = question.vertices.iter().filter(|vertex| alone(vertex));
    let single = single.filter_map(|vertex| Some((reach(question, vertex, cost)?, vertex.site)));
    let mut best = single.min().map(|(cost, site)| First { sites: vec![site], cost });
    let mut balls: Vec<(u32, u16)> = Vec::new();
    for vertex in (0..STRIDE).flat_map(|from| question.vertices.iter().skip(from).step_by(STRIDE)) {
        if looks.are_spent() || (goal == Goal::Any && best.is_some()) {
            break;
        }
        // A ball reaches at least as far as its own diameter's half; only its far end is known yet.
        let most = best.as_ref().map_or(FAR, |best| best.cost);
        let far = radius(question, &rooms, vertex, cost, most, looks);
        balls.extend(far.map(|far| (far, vertex.site)));
    }
    balls.sort_unstable();
    for (radius, centre) in balls.into_iter().take(BALLS_MAX) {
        let most = best.as_ref().map_or(FAR, |best| best.cost);
        if radius >= most || looks.are_spent() || (goal == Goal::Any && best.is_some()) {
            break;
        }
        let found = ball(question, &rooms, centre, cost, most, looks);
        best = found.or(best);
    }
    best
}

/// Pairs looked at, and how many may be.
pub(super) struct Looks {
    pub(super) taken: u64,
    most: u64,
}

impl Looks {
    pub(super) fn new(goal: Goal) -> Self {
        let most = match goal {
            Goal::Any => LOOKS_ANY_MAX,
            Goal::Near => LOOKS_MAX,
        };
        Self { taken: 0, most }
    }

    fn take(&mut self, pairs: usize) {
        self.taken += pairs as u64;
    }

    fn are_spent(&self) -> bool {
        self.taken >= self.most
    }
}

/// Cost to members that stay and, unless it takes one member only, inside the site; `None` = over
/// the bound.
pub(super) fn reach(question: &Question<'_>, vertex: &Vertex, cost: Cost) -> Option<u32> {
    let itself = (!vertex.lone).then_some(vertex.site);
    let others = question.fixed.iter().map(|&(fixed, _)| fixed).chain(itself);
    others
        .map(|other| pair(question, vertex.site, other, cost))
        .try_fold(0u32, |most, cost| (cost != FAR).then(|| most.max(cost)))
}

/// Vertices by rising median RTT from the centre, its own among them, as far as they can cost less
/// than `most` and keep the bound: both values of a pair are at least its median.
fn around<'a>(
    question: &'a Question<'_>,
    rooms: &'a Rooms<'a>,
    centre: u16,
    most: u32,
) -> impl Iterator<Item = &'a Vertex> + 'a {
    let usual = question.net.median_row(centre);
    let bound = question.bound_us.unwrap_or(FAR - 1).min(FAR - 1);
    let limit = bound.min(most.saturating_sub(1));
    let near = move |site: &&u16| usual.get(usize::from(**site)).is_some_and(|&rtt| rtt <= limit);
    let order = question.net.order(centre).iter().take_while(near);
    order.filter_map(|&site| rooms.at(site))
}

/// How far from the centre the need is covered, if nearer than `most`; whether the sites may stand
/// together is not looked at.
fn radius(
    question: &Question<'_>,
    rooms: &Rooms<'_>,
    centre: &Vertex,
    cost: Cost,
    most: u32,
    looks: &mut Looks,
) -> Option<u32> {
    let mut missing = Missing(rooms.need.clone());
    let mut far = reach(question, centre, cost)?;
    let ways = Ways::new(question, centre.site, cost);
    for vertex in around(question, rooms, centre.site, most) {
        looks.take(1);
        let itself = vertex.site == centre.site;
        let way = if itself { far } else { ways.to(vertex.site) };
        if way == FAR {
            continue;
        }
        far = far.max(way);
        if far >= most {
            return None;
        }
        if missing.take(rooms.have(vertex.site)) {
            return Some(far);
        }
    }
    None
}

/// The nearest sites around the centre that may stand together, if their largest cost stays below
/// `most`.
fn ball(
    question: &Question<'_>,
    rooms: &Rooms<'_>,
    centre: u16,
    cost: Cost,
    most: u32,
    looks: &mut Looks,
) -> Option<First> {
    let mut missing = Missing(rooms.need.clone());
    let mut chosen = vec![centre];
    let own = rooms.at(centre)?;
    let mut widest = reach(question, own, cost)?;
    let mut covers = missing.take(rooms.have(centre));
    for vertex in around(question, rooms, centre, most) {
        if covers {
            break;
        }
        let adds = rooms.have(vertex.site).iter().any(|&amount| amount > 0);
        if !adds || vertex.site == centre {
            continue;
        }
        looks.take(chosen.len());
        let itself = reach(question, vertex, cost).unwrap_or(FAR);
        let ways = Ways::new(question, vertex.site, cost);
        let far = chosen.iter().fold(itself, |far, &site| far.max(ways.to(site)));
        if far >= most {
            continue;
        }
        widest = widest.max(far);
        chosen.push(vertex.site);
        covers = missing.take(rooms.have(vertex.site));
    }
    chosen.sort_unstable();
    (covers && widest < most).then_some(First { sites: chosen, cost: widest })
}

/// Vertices that together with all within the bound and the cost hold the need, going by one
/// dimension; where it is told in large numbers, some that nearly do are among them.
pub(super) fn able<'a>(
    question: &Question<'a>,
    cost: Cost,
    cost_max: u32,
    dimension: usize,
) -> Vec<&'a Vertex> {
    let need = question.need.get(dimension).copied().unwrap_or(0);
    let amount = |vertex: &Vertex| vertex.have.get(dimension).copied().unwrap_or(0).min(need);
    let total =
        question.vertices.iter().fold(0u64, |sum, vertex| sum.saturating_add(amount(vertex)));
    // In parts so large that 32 bits hold all of them, which a processor adds many at a time.
    let part_bits = (u64::BITS - total.leading_zeros()).saturating_sub(PARTS_BITS);
    let parts = |amount: u64| {
        let some = u64::from(amount > 0 && part_bits > 0);
        u32::try_from((amount >> part_bits) + some).unwrap_or(u32::MAX)
    };
    let mut rooms = vec![0u32; question.net.len()];
    for vertex in question.vertices {
        if let Some(cell) = rooms.get_mut(usize::from(vertex.site)) {
            *cell = parts(amount(vertex));
        }
    }
    let bound = question.bound_us.unwrap_or(FAR - 1).min(FAR - 1);
    let most = cost_max.min(FAR - 1);
    let gathers = |vertex: &&Vertex| {
        let high = question.net.high_row(vertex.site);
        let sum = match cost {
            Cost::High => {
                let most = bound.min(most);
                sum(high.iter().zip(&rooms).map(|(&rtt, &room)| (rtt <= most, room)))
            }
            Cost::Median => {
                let usual = question.net.median_row(vertex.site);
                sum(high
                    .iter()
                    .zip(usual)
                    .zip(&rooms)
                    .map(|((&high, &usual), &room)| ((high <= bound) & (usual <= most), room)))
            }
        };
        // Its own room counts even where its inner RTT is too long: then it falls for that.
        let all = u64::from(sum) + u64::from(parts(amount(vertex)));
        all >= need >> part_bits
    };
    question.vertices.iter().filter(gathers).collect()
}

fn sum(parts: impl Iterator<Item = (bool, u32)>) -> u32 {
    parts.map(|(counts, room)| if counts { room } else { 0 }).fold(0, u32::wrapping_add)
}

/// What is still missing of the need while vertices come.
struct Missing(Vec<u64>);

impl Missing {
    /// Whether nothing is missing any more.
    fn take(&mut self, have: &[u64]) -> bool {
        let mut any = 0;
        for (missing, have) in self.0.iter_mut().zip(have) {
            *missing = missing.saturating_sub(*have);
            any |= *missing;
        }
        any == 0
    }
}
