//! Round-trip times between places: a list of pairs, or a square table. Plain or packed.
//!
//! A list has columns `src`, `dst` and `avg_ms` (or `rtt_ms`), and may have `max_ms` and `mdev_ms`
//! (mean deviation), as ping prints them. A square has names in its first row and column and
//! milliseconds in its cells; an empty cell is an unknown RTT, and so is that of a place without a
//! row, or without a column, to another one.
//! **Invariant:** a value that cannot be read, or differs from an earlier one of the same pair and direction, is an
//! error that names file, line and column.

use super::table::{Row, Table};
use super::{BadRows, TraceError};
use scheduler_core::command::SiteRtt;
use scheduler_core::id::{Name, SiteId};
use scheduler_core::node::Place;
use scheduler_core::topology::{Measured, SITES_MAX, Sites};
use scheduler_core::unit::{RttUs, TimeMs};
use std::collections::BTreeMap;
use std::path::Path;

/// Longest RTT taken: ten seconds, as in the state.
const RTT_MS_MAX: u64 = 10_000;
/// Mean deviations above the mean that an RTT rarely exceeds: for most shapes of jitter some 95 of
/// 100 round trips stay below.
const DEVIATIONS: f64 = 2.0;

/// RTTs of one ordered pair in milliseconds.
#[derive(Clone, Copy, PartialEq, Debug)]
struct Told {
    usual: f64,
    high: f64,
}

/// Places and the RTTs between them.
#[derive(Clone, PartialEq, Debug)]
pub struct RttTable {
    /// As the file calls them, in order of first sight.
    pub places: Vec<String>,
    /// By ordered pair of places.
    told: BTreeMap<(usize, usize), Told>,
}

impl RttTable {
    /// Reads a file, packed or not.
    pub fn read(file: &Path, bad: &mut BadRows) -> Result<Self, TraceError> {
        let table = Table::open(file)?;
        let column = |name: &str| table.column(name);
        let list = column("src").zip(column("dst")).zip(column("avg_ms").or(column("rtt_ms")));
        let mut parser = Parser { table: Self::empty(), numbers: BTreeMap::new() };
        let form = |what: String| TraceError::Form { file: file.to_owned(), what };
        if list.is_none() && column("src").zip(column("dst")).is_some() {
            let (file, column) = (file.to_owned(), "avg_ms".to_owned());
            return Err(TraceError::Column { file, column });
        }
        if let Some(((src, dst), usual)) = list {
            let (max, deviation) = (column("max_ms"), column("mdev_ms"));
            let pair = Pair { src, dst, usual, max, deviation };
            table.rows(bad, |row| parser.pair(row, &pair))?;
        } else {
            // A square's columns are its places, in this order.
            let places: Vec<String> = table.header().iter().skip(1).cloned().collect();
            for name in &places {
                let known = parser.numbers.len();
                if parser.place(name) != Some(known) {
                    let what = "is neither a list of pairs (columns src, dst, avg_ms) nor a square \
                                of up to 4,096 different places";
                    return Err(form(what.to_owned()));
                }
            }
            table.rows(bad, |row| parser.square_row(row, places.len()))?;
        }
        match parser.table.places.len() {
            2.. => Ok(parser.table),
            found => Err(form(format!("has {found} places; 2 to {SITES_MAX} are allowed"))),
        }
    }

    fn empty() -> Self {
        Self { places: Vec::new(), told: BTreeMap::new() }
    }

    /// The usual RTT and the one that is rarely exceeded, both ways taken together: the mean of the
    /// usual ones, the larger of the high ones. `None` = the file does not tell.
    pub fn rtt(&self, a: usize, b: usize) -> Option<(RttUs, RttUs)> {
        let ways = [self.told.get(&(a, b)), self.told.get(&(b, a))];
        let known: Vec<&Told> = ways.into_iter().flatten().collect();
        let usual = known.iter().map(|told| told.usual).sum::<f64>() / known.len().max(1) as f64;
        let high = known.iter().map(|told| told.high).fold(usual, f64::max);
        let us = |ms: f64| RttUs(((ms * 1_000.0) as u32).max(1));
        (!known.is_empty()).then(|| (us(usual), us(high)))
    }

    /// All that the file tells, between sites that are called so; `None` = leave the place out.
    pub fn told(&self, site: impl Fn(usize) -> Option<Name>) -> Vec<SiteRtt> {
        let mut all = Vec::new();
        for a in 0..self.places.len() {
            for b in 0..a {
                let between = self.rtt(a, b).zip(site(a).zip(site(b)));
                if let Some(((rtt, rtt_high), (a, b))) = between {
                    all.push(SiteRtt { a, b, rtt, rtt_high, samples: 0 });
                }
            }
        }
        all
    }

    /// These places as sites 0, 1, … with the RTTs among them.
    pub fn sites(&self, places: &[usize]) -> Sites {
        let mut sites = Sites::default();
        let word = |text: String| Name::parse(&text).ok();
        for number in 0..places.len() {
            // Numbers, since a file may call its places whatever it likes.
            let at = word(format!("site-{number}"));
            let place = at.zip(word("all".to_owned())).map(|(site, all)| Place {
                region: all.clone(),
                zone: all.clone(),
                site,
                rack: all,
            });
            let Some(id) = place.and_then(|place| sites.join(&place).ok()) else { continue };
            for (other, &far) in (0u16..).zip(&places[..number]) {
                let Some((median, high)) = self.rtt(places[number], far) else { continue };
                let told = Measured { median, high, samples: 0, at: TimeMs::ZERO };
                sites.set_rtt(id, SiteId(other), told);
            }
        }
        sites
    }
}

/// Columns of a list.
struct Pair {
    src: usize,
    dst: usize,
    usual: usize,
    max: Option<usize>,
    deviation: Option<usize>,
}

struct Parser {
    table: RttTable,
    numbers: BTreeMap<String, usize>,
}

impl Parser {
    /// `None` = one more than there may be.
    fn place(&mut self, name: &str) -> Option<usize> {
        if let Some(&known) = self.numbers.get(name) {
            return Some(known);
        }
        let number = self.table.places.len();
        if number >= SITES_MAX {
            return None;
        }
        self.table.places.push(name.to_owned());
        self.numbers.insert(name.to_owned(), number);
        Some(number)
    }

    /// The place that a cell names.
    fn named(&mut self, row: &Row<'_>, at: usize) -> Result<usize, TraceError> {
        self.place(row.cell(at))
            .ok_or_else(|| row.bad_cell(at, format!("is one place more than {SITES_MAX}")))
    }

    fn pair(&mut self, row: &Row<'_>, columns: &Pair) -> Result<(), TraceError> {
        let Some(usual) = ms(row, columns.usual)? else { return Ok(()) };
        let maybe = |at: Option<usize>| at.map_or(Ok(None), |at| ms(row, at));
        let (max, deviation) = (maybe(columns.max)?, maybe(columns.deviation)?);
        let (a, b) = (self.named(row, columns.src)?, self.named(row, columns.dst)?);
        let high = usual + DEVIATIONS * deviation.unwrap_or(0.0);
        let high = max.map_or(high, |max| high.min(max.max(usual)));
        self.tell(row, columns.usual, (a, b), Told { usual, high })
    }

    /// Of a pair that is told twice, nobody knows which is right.
    fn tell(
        &mut self,
        row: &Row<'_>,
        at: usize,
        pair: (usize, usize),
        told: Told,
    ) -> Result<(), TraceError> {
        match self.table.told.insert(pair, told) {
            Some(before) if before != told => {
                let what = format!("differs from an earlier row of this pair, {} ms", before.usual);
                Err(row.bad_cell(at, what))
            }
            _ => Ok(()),
        }
    }

    fn square_row(&mut self, row: &Row<'_>, columns: usize) -> Result<(), TraceError> {
        let from = self.named(row, 0)?;
        // Columns are the first places in their order, after the names.
        for to in 0..columns {
            if let Some(usual) = ms(row, to + 1)?.filter(|_| to != from) {
                self.tell(row, to + 1, (from, to), Told { usual, high: usual })?;
            }
        }
        Ok(())
    }
}

/// Milliseconds; `None` for an empty cell.
fn ms(row: &Row<'_>, at: usize) -> Result<Option<f64>, TraceError> {
    let text = row.cell(at);
    if text.is_empty() {
        return Ok(None);
    }
    match text.parse::<f64>() {
        Ok(ms) if (0.0..=RTT_MS_MAX as f64).contains(&ms) => Ok(Some(ms)),
        _ => Err(row.bad_cell(at, format!("is not a number of milliseconds up to {RTT_MS_MAX}"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    fn read(text: &str, ending: &str) -> Result<RttTable, TraceError> {
        let dir = tempfile::tempdir().expect("a folder");
        let path = dir.path().join(format!("rtt.{ending}"));
        let mut bytes = text.as_bytes().to_vec();
        if ending.ends_with("gz") {
            let mut packer = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
            packer.write_all(&bytes).expect("packs");
            bytes = packer.finish().expect("packs");
        }
        std::fs::write(&path, bytes).expect("writes");
        RttTable::read(&path, &mut BadRows::refuse())
    }

    #[test]
    fn a_list_of_pairs_is_read_packed_or_not() {
        let text =
            "src,dst,avg_ms,min_ms,max_ms,mdev_ms\n0,1,10,9,30,2\n1,0,12,9,13,2\n2,0,5,5,5,0\n";
        for ending in ["csv", "csv.gz"] {
            let table = read(text, ending).expect("reads");
            assert_eq!(table.places, ["0", "1", "2"]);
            assert_eq!(table.rtt(0, 1), Some((RttUs(11_000), RttUs(14_000))));
            assert_eq!(table.rtt(0, 2), Some((RttUs(5_000), RttUs(5_000))));
            assert_eq!(table.rtt(1, 2), None);
            let sites = table.sites(&[2, 0]);
            assert_eq!(sites.rtt(SiteId(0), SiteId(1)), Some(RttUs(5_000)));
        }
    }

    #[test]
    fn a_pair_told_twice_must_be_told_alike() {
        let message = |text: &str| read(text, "csv").expect_err("refused").to_string();
        let list = "src,dst,avg_ms\na,b,10\nb,a,30\na,b,10\n";
        let table = read(list, "csv").expect("alike");
        assert_eq!(table.rtt(0, 1), Some((RttUs(20_000), RttUs(30_000))));
        let text = message(&list.replace("a,b,10\nb", "a,b,999\nb"));
        assert!(text.contains("line 4, column \"avg_ms\": \"10\" differs from"), "{text}");
        let text = message(",a,b\na,,7\nb,9,\na,,8\n");
        assert!(text.contains("line 4") && text.contains("\"8\" differs"), "{text}");
        let text = message("src,dst,rtt\na,b,10\n");
        assert!(text.ends_with("has no column \"avg_ms\""), "{text}");
    }

    #[test]
    fn a_square_is_read_with_its_gaps() {
        let table = read("Source,east,west,north\neast,,7,\nwest,9,0,3\nnorth,,3,\n", "csv")
            .expect("reads");
        assert_eq!(table.places, ["east", "west", "north"]);
        assert_eq!(table.rtt(1, 0), Some((RttUs(8_000), RttUs(9_000))));
        assert_eq!(table.rtt(0, 2), None);
    }

    #[test]
    fn a_place_may_lack_its_row_or_its_column() {
        let table = read("Source,east,west\neast,,7\nsouth,4,2\n", "csv").expect("reads");
        assert_eq!(table.places, ["east", "west", "south"]);
        assert_eq!(table.rtt(0, 1), Some((RttUs(7_000), RttUs(7_000))));
        assert_eq!(table.rtt(1, 2), Some((RttUs(2_000), RttUs(2_000))));
        assert_eq!(table.rtt(0, 2), Some((RttUs(4_000), RttUs(4_000))));
    }

    #[test]
    fn what_cannot_be_read_is_named() {
        for (text, told) in [
            ("src,dst,avg_ms\n0,1,fast\n", "line 2, column \"avg_ms\": \"fast\""),
            ("src,dst,avg_ms\n0,1,NaN\n", "line 2, column \"avg_ms\""),
            ("src,dst,avg_ms\n0,1,-1\n", "line 2, column \"avg_ms\""),
            ("src,dst,avg_ms\n", "has no rows"),
            ("x,a,b\nc,1,z\n", "line 2, column \"b\": \"z\""),
            ("x,a,b\na,1\n", "line 2"),
        ] {
            let error = read(text, "csv").expect_err(text).to_string();
            assert!(error.contains(told), "{error}");
        }
        let nowhere = RttTable::read(Path::new("/nowhere"), &mut BadRows::refuse());
        assert!(matches!(nowhere, Err(TraceError::File { .. })));
    }
}
