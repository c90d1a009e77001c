//! Rooms: how rare the larger rooms of the fleet are, so that the last of them are not spent on
//! what would go elsewhere as well.
//!
//! A room is what is free on one node: idle GPUs with the CPU and memory beside them. Its price is
//! its GPUs over the number of nodes that have a room at least as large: next to nothing while there
//! are many, and all of it for the last one. So a job that only the largest machines can hold finds
//! one, even if none like it has ever been seen.
//! **Invariant:** a snapshot of the view; counts nodes, whatever their classes.

use super::look::Spare;
use crate::unit::GPU_MILLI_WHOLE;
use crate::view::View;
use std::cmp::Reverse;

/// Fewest idle GPUs of a room: one alone is what the other estimates are about.
const IDLE_MIN: u32 = 2;
/// A room of which there are more has no price: it would be less than a tenth of a GPU.
const RARE_NODES: u32 = 100;
/// Largest rooms that are looked at: a bound on the time, above what fleets of some thousand nodes
/// have. Smaller ones have no price.
const ROOMS_MAX: usize = 1_024;

/// Nodes with the same room.
#[derive(Clone, Copy, Debug)]
struct Room {
    idle: u32,
    cpu: u64,
    memory: u64,
    nodes: u32,
}

/// The largest rooms, those with the most idle GPUs first.
#[derive(Clone, Debug, Default)]
pub(super) struct Rooms {
    rooms: Vec<Room>,
}

impl Rooms {
    pub(super) fn new(view: &View) -> Self {
        let states = view.states().iter().map(|state| (Spare::of(state.free()), state.len()));
        Self::of(states.map(|(spare, nodes)| Room {
            idle: spare.idle,
            cpu: spare.cpu,
            memory: spare.memory,
            nodes,
        }))
    }

    fn of(rooms: impl Iterator<Item = Room>) -> Self {
        let mut rooms: Vec<Room> = rooms.filter(|room| room.idle >= IDLE_MIN).collect();
        rooms.sort_unstable_by_key(|room| Reverse((room.idle, room.cpu, room.memory)));
        rooms.truncate(ROOMS_MAX);
        Self { rooms }
    }

    /// Price of what is free on a node, in thousandths of GPUs.
    pub(super) fn price(&self, spare: &Spare) -> f64 {
        let idle = spare.idle;
        if idle < IDLE_MIN || self.rooms.last().is_none_or(|least| least.idle > idle) {
            return 0.0;
        }
        let mut nodes = 0u32;
        for room in self.rooms.iter().take_while(|room| room.idle >= idle) {
            if room.cpu >= spare.cpu && room.memory >= spare.memory {
                nodes += room.nodes;
                if nodes > RARE_NODES {
                    return 0.0;
                }
            }
        }
        f64::from(idle * u32::from(GPU_MILLI_WHOLE)) / f64::from(nodes.max(1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::node::Resources;
    use crate::unit::{CpuMilli, DiskMib, GpuSet, MemoryMib};
    use crate::view::Free;

    fn spare(idle: usize, cpu: u64, memory: u64) -> Spare {
        let (cpu, memory) = (CpuMilli(cpu), MemoryMib(memory));
        let mut free = Free::default();
        free.rest = Resources { cpu, memory, disk: DiskMib::ZERO };
        free.idle = GpuSet::first(idle);
        Spare::of(&free)
    }

    fn rooms(list: &[(u32, u64, u64, u32)]) -> Rooms {
        Rooms::of(list.iter().map(|&(idle, cpu, memory, nodes)| Room { idle, cpu, memory, nodes }))
    }

    #[test]
    fn the_last_large_rooms_cost_most() {
        let fleet = rooms(&[(8, 96, 400, 90), (8, 128, 800, 4), (8, 128, 300, 2), (2, 50, 500, 3)]);
        assert_eq!(fleet.price(&spare(8, 128, 800)), 8_000.0 / 4.0);
        assert_eq!(fleet.price(&spare(8, 128, 300)), 8_000.0 / 6.0, "memory counts");
        assert_eq!(fleet.price(&spare(8, 96, 400)), 8_000.0 / 94.0);
        assert_eq!(fleet.price(&spare(8, 90, 200)), 8_000.0 / 96.0);
        assert_eq!(fleet.price(&spare(2, 50, 200)), 2_000.0 / 99.0);
        assert_eq!(fleet.price(&spare(1, 200, 900)), 0.0, "single GPUs have no price");
        assert_eq!(fleet.price(&spare(4, 200, 900)), 4_000.0, "there is no other");
        let fleet = rooms(&[(8, 96, 400, 101)]);
        assert_eq!(fleet.price(&spare(8, 96, 400)), 0.0, "there are many");
    }

    #[test]
    fn what_is_not_looked_at_has_no_price() {
        assert_eq!(Rooms::default().price(&spare(8, 1, 1)), 0.0);
        let many: Vec<_> = (0..2_000).map(|cpu| (8, cpu, 1, 1)).chain([(4, 9_000, 9, 1)]).collect();
        assert_eq!(rooms(&many).price(&spare(4, 9_000, 9)), 0.0);
    }
}
