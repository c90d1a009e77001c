//! Spot nodes coming and going, as Bamboo's authors record them (Thorpe et al., NSDI 2023): lines of
//! `milliseconds,add|remove,node` without a header.
//!
//! **Invariant:** a node is added only when it is not there, and removed only when it is.

use super::lines::Lines;
use super::table::SECONDS_MAX;
use super::{BadRows, Change, NodeChange, TraceError, name_fault};
use scheduler_core::unit::TimeMs;
use std::collections::BTreeSet;
use std::io::{self, Write};
use std::path::Path;

/// Changes of the file by rising time: nodes joining and being removed.
pub fn read(file: &Path, bad: &mut BadRows) -> Result<Vec<NodeChange>, TraceError> {
    let mut lines = Lines::open(file)?;
    let mut changes = Vec::new();
    let mut there = BTreeSet::new();
    loop {
        let change = match lines.next() {
            Ok(None) => break,
            Ok(Some((number, line))) => change(line, file, number, &mut there),
            Err(error) => Err(error),
        };
        changes.extend(bad.take(change)?);
    }
    if changes.is_empty() {
        return Err(bad.nothing(file));
    }
    changes.sort_by_key(|change: &NodeChange| change.at);
    Ok(changes)
}

fn change(
    line: &str,
    file: &Path,
    number: u64,
    there: &mut BTreeSet<String>,
) -> Result<NodeChange, TraceError> {
    let bad = |column: &str, value: &str, what: &str| {
        TraceError::value(file, number, column, value, what.to_owned())
    };
    let cells: Vec<&str> = line.splitn(4, ',').map(str::trim).collect();
    let &[at, what, node] = cells.as_slice() else {
        return Err(TraceError::Row {
            file: file.to_owned(),
            line: number,
            what: format!("has {} cells; time, add or remove, and node are wanted", cells.len()),
        });
    };
    let ms = at.parse::<u64>().ok().filter(|ms| *ms <= SECONDS_MAX * 1_000);
    let at = TimeMs(ms.ok_or_else(|| bad("time", at, "is no number of milliseconds"))?);
    if let Some(fault) = name_fault(node) {
        return Err(bad("node", node, &fault));
    }
    let change = match what {
        "add" if there.insert(node.to_owned()) => Change::Joined,
        "add" => return Err(bad("node", node, "is added, but it is there")),
        "remove" if there.remove(node) => Change::Removed,
        "remove" => return Err(bad("node", node, "is removed, but it is not there")),
        _ => return Err(bad("change", what, "is neither add nor remove")),
    };
    Ok(NodeChange { at, node: node.to_owned(), change })
}

/// Writes nodes joining and being removed so that [`read`] gives the same again; other changes are
/// left out.
pub fn write(changes: &[NodeChange], out: &mut dyn Write) -> io::Result<()> {
    for NodeChange { at, node, change } in changes {
        match change {
            Change::Joined => writeln!(out, "{},add,{node}", at.0)?,
            Change::Removed => writeln!(out, "{},remove,{node}", at.0)?,
            _ => {}
        }
    }
    Ok(())
}
