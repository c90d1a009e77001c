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
/// Left out at the beginning of models' names, in this order: a vendor and its brand.
const BRANDS: [&str; 2] = ["NVIDIA", "TESLA"];
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

/// What a GPU of a model usually costs: the median of the offers of that model, spot or not, the lower
/// of two in the middle. `None` = nobody offers it.
///
/// Lists differ in how they write models, so that case, blanks, marks and vendor and brand count for
/// nothing (`A100-SXM` is `NVIDIA A100 SXM`), and a model that is not on the list by its whole name is
/// taken for the longest one that it begins with, as long as no number is cut in two: `V100M32` is a
/// `V100`, `A100` is no `A10`.
pub fn usual(offers: &[Offer], model: &str, spot: bool) -> Option<PriceMicroUsd> {
    let wanted = letters(model);
    let length = |offer: &Offer| {
        let name = letters(&offer.model);
        let rest = wanted.strip_prefix(name.as_str()).filter(|_| !name.is_empty())?;
        let cut = name.ends_with(|c: char| c.is_ascii_digit())
            && rest.starts_with(|c: char| c.is_ascii_digit());
        (!cut).then_some(name.len())
    };
    let asked = || offers.iter().filter(|offer| offer.spot == spot);
    let longest = asked().filter_map(length).max()?;
    let alike = asked().filter(|offer| length(offer) == Some(longest));
    let mut prices: Vec<PriceMicroUsd> = alike.map(|offer| offer.price).collect();
    prices.sort_unstable();
    prices.get((prices.len() - 1) / 2).copied()
}

fn letters(model: &str) -> String {
    let text: String = model.chars().filter(char::is_ascii_alphanumeric).collect();
    let text = text.to_ascii_uppercase();
    let bare =
        BRANDS.iter().fold(text.as_str(), |bare, brand| bare.strip_prefix(brand).unwrap_or(bare));
    bare.to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_model_costs_the_median_of_its_offers() {
        let offer = |model: &str, spot, usd: u64| Offer {
            provider: "p".to_owned(),
            model: model.to_owned(),
            spot,
            price: PriceMicroUsd(usd),
            vram_gb: None,
        };
        let offers = [
            offer("NVIDIA A100 SXM", false, 30),
            offer("A100-SXM", false, 10),
            offer("A100 SXM", false, 20),
            offer("A100", false, 7),
            offer("Tesla V100", false, 4),
            offer("A10", false, 2),
            offer("A10", true, 1),
        ];
        let price = |model, spot| usual(&offers, model, spot).map(|price| price.0);
        assert_eq!(price("A100-SXM4", false), Some(20));
        assert_eq!(price("a100 PCIe", false), Some(7));
        assert_eq!(price("V100M32", false), Some(4));
        assert_eq!((price("A10", false), price("A10", true)), (Some(2), Some(1)));
        assert_eq!((price("A100", true), price("T4", false), price("", false)), (None, None, None));
    }
}
