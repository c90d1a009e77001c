//! Compare: whether two ways of doing the same things differ by more than chance.
//!
//! Cases come in pairs: same load, same seed, another policy. `ranks` has the test.
//! **Invariant:** pure.

pub mod ranks;
