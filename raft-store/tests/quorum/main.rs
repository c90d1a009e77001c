//! Whole servers in one process, over a network in memory and real disks.
//!
//! **Invariant:** no sleeps and no ports: every wait is for an event, and bounded.

mod cluster;
mod damage;
mod inspection;
mod members;
mod power;
mod replication;
mod snapshots;
