//! What the planner must hold: what it proposes is accepted, what it refuses is impossible.
