//! Lists of what GPUs cost at whose place: `provider, gpu_model, is_spot, usd_per_gpu_hour` and,
//! where known, `vram_gb`; further columns are left aside.
//!
//! **Invariant:** one row is one offer; models are called what the list calls them.

use super::table::{Row, Table};
use super::{BadRows, TraceError};
use scheduler_core::unit::PriceMicroUsd;
use std::path::Path;

/// Dollars for a GPU-hour: what the state takes.
const USD_MAX: u64 = 1_000;
/// Video memory of a GPU in GB.
const VRAM_GB_MAX: u64 = 4_096;

/// GPUs of one model at one price.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Offer {
    pub provider: String,
    pub model: String,
    /// Can be taken away at any time.
    pub spot: bool,
    /// Per GPU and hour.
    pub price: PriceMicroUsd,
    /// Of each GPU; `None` = not told.
    pub vram_gb: Option<u64>,
}

/// Offers of the file, in its order.
pub fn read(file: &Path, bad: &mut BadRows) -> Result<Vec<Offer>, TraceError> {
    Table::open(file)?.rows(bad, offer)
}

fn offer(row: &Row<'_>) -> Result<Offer, TraceError> {
    let price = row.scaled("usd_per_gpu_hour", USD_MAX, 1e6)?.round() as u64;
    Ok(Offer {
        provider: row.name("provider")?.to_owned(),
        model: row.name("gpu_model")?.to_owned(),
        spot: row.number("is_spot", 1)? == 1,
        price: PriceMicroUsd(price),
        vram_gb: if row.has("vram_gb") { Some(row.whole("vram_gb", VRAM_GB_MAX)?) } else { None },
    })
}
