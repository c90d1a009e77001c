//! Node faults with their repair, as InfiniteHBD's authors publish them: `node, start_day, end_day`,
//! or the same with `start_s, end_s`; further columns are left aside.
//!
//! **Invariant:** faults may overlap; as changes a node is down from the first start to the last
//! end of such.

use super::table::{Row, SECONDS_MAX, Table};
use super::{BadRows, Change, NodeChange, TraceError};
use scheduler_core::unit::TimeMs;
use std::collections::BTreeMap;
use std::io::{self, Write};
use std::path::Path;

const MS_PER_DAY: f64 = 86_400_000.0;
const DAYS_MAX: u64 = SECONDS_MAX / 86_400;

/// A node out of order.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct NodeFault {
    /// As the file calls it.
    pub node: String,
    /// From the file's beginning.
    pub start: TimeMs,
    pub end: TimeMs,
}

/// Faults of the file, in its order.
pub fn read(file: &Path, bad: &mut BadRows) -> Result<Vec<NodeFault>, TraceError> {
    let table = Table::open(file)?;
    let in_days = table.column("start_day").is_some();
    let (columns, unit) = if in_days {
        (["start_day", "end_day"], (DAYS_MAX, MS_PER_DAY))
    } else {
        (["start_s", "end_s"], (SECONDS_MAX, 1_000.0))
    };
    table.rows(bad, |row| fault(row, columns, unit))
}

fn fault(
    row: &Row<'_>,
    [from, to]: [&str; 2],
    (max, ms): (u64, f64),
) -> Result<NodeFault, TraceError> {
    let time = |column| row.scaled(column, max, ms).map(|ms| TimeMs(ms.round() as u64));
    let (start, end) = (time(from)?, time(to)?);
    if end < start {
        return Err(row.bad(to, row.text(to)?, format!("is before {from}")));
    }
    Ok(NodeFault { node: row.name("node")?.to_owned(), start, end })
}

/// Writes faults so that [`read`] gives the same again.
pub fn write(faults: &[NodeFault], out: &mut dyn Write) -> io::Result<()> {
    writeln!(out, "node,start_s,end_s")?;
    for fault in faults {
        let s = |at: TimeMs| format!("{}.{:03}", at.0 / 1_000, at.0 % 1_000);
        let node = super::nodes::quoted(&fault.node);
        writeln!(out, "{node},{},{}", s(fault.start), s(fault.end))?;
    }
    Ok(())
}

/// When each node is out of order, from the first start to the last end of overlapping faults.
pub fn spans(faults: &[NodeFault]) -> BTreeMap<&str, Vec<(TimeMs, TimeMs)>> {
    let mut by_node: BTreeMap<&str, Vec<(TimeMs, TimeMs)>> = BTreeMap::new();
    for fault in faults {
        by_node.entry(&fault.node).or_default().push((fault.start, fault.end));
    }
    for spans in by_node.values_mut() {
        spans.sort_unstable();
        spans.dedup_by(|next, last| {
            let overlap = next.0 <= last.1;
            if overlap {
                last.1 = last.1.max(next.1);
            }
            overlap
        });
    }
    by_node
}

/// The same as nodes going down and coming up, by rising time.
pub fn changes(faults: &[NodeFault]) -> Vec<NodeChange> {
    let mut changes = Vec::new();
    for (node, spans) in spans(faults) {
        for (start, end) in spans {
            let change = |at, change| NodeChange { at, node: node.to_owned(), change };
            changes.extend([change(start, Change::Down), change(end, Change::Up)]);
        }
    }
    changes.sort();
    changes
}
