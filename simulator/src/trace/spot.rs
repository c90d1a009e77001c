//! Spot nodes coming and going, as Bamboo's authors record them (Thorpe et al., NSDI 2023): lines of
//! `milliseconds,add|remove,node` without a header, or of `YYYY-MM-DD, hh:mm:ss, N` where N nodes
//! were there at the time. Of numbers, the first line is the beginning, a line holds against those
//! above it that tell of its time or later, and whoever came last goes first.
//!
//! **Invariant:** a node is added only when it is not there, and removed only when it is.

use super::lines::Lines;
use super::table::SECONDS_MAX;
use super::{BadRows, Change, NodeChange, TraceError, name_fault};
use jiff::civil::DateTime;
use scheduler_core::unit::TimeMs;
use std::collections::BTreeSet;
use std::io::{self, Write};
use std::path::Path;

/// Most nodes that are there by number: more than any provider lets one tenant have.
const COUNT_MAX: u64 = 100_000;

/// Changes of the file by rising time: nodes joining and being removed.
pub fn read(file: &Path, bad: &mut BadRows) -> Result<Vec<NodeChange>, TraceError> {
    let mut lines = Lines::open(file)?;
    let mut reader = Reader { file, there: BTreeSet::new(), counts: Vec::new() };
    let mut changes = Vec::new();
    loop {
        let told = match lines.next() {
            Ok(None) => break,
            Ok(Some((number, line))) => reader.line(line, number),
            Err(error) => Err(error),
        };
        changes.extend(bad.take(told)?.flatten());
    }
    changes.extend(reader.counted()?);
    if changes.is_empty() {
        return Err(bad.nothing(file));
    }
    changes.sort_by_key(|change: &NodeChange| change.at);
    Ok(changes)
}

struct Reader<'a> {
    file: &'a Path,
    /// Nodes that are there by name.
    there: BTreeSet<String>,
    /// Nodes that are there by number, by rising time, and the lines that say so.
    counts: Vec<(DateTime, u64, u64)>,
}

impl Reader<'_> {
    /// What a line tells at once: nothing if it tells a number.
    fn line(&mut self, line: &str, number: u64) -> Result<Option<NodeChange>, TraceError> {
        let cells: Vec<&str> = line.splitn(4, ',').map(str::trim).collect();
        let &[first, second, third] = cells.as_slice() else {
            return Err(TraceError::Row {
                file: self.file.to_owned(),
                line: number,
                what: format!(
                    "has {} cells; time, add or remove, and node are wanted, or date, time of day \
                     and number of nodes",
                    cells.len()
                ),
            });
        };
        if first.contains('-') {
            self.count(first, second, third, number).map(|()| None)
        } else {
            self.named(first, second, third, number).map(Some)
        }
    }

    fn bad(&self, line: u64, column: &str, value: &str, what: &str) -> TraceError {
        TraceError::value(self.file, line, column, value, what.to_owned())
    }

    fn named(
        &mut self,
        at: &str,
        what: &str,
        node: &str,
        line: u64,
    ) -> Result<NodeChange, TraceError> {
        let ms = at.parse::<u64>().ok().filter(|ms| *ms <= SECONDS_MAX * 1_000);
        let ms = ms.ok_or_else(|| self.bad(line, "time", at, "is no number of milliseconds"))?;
        if let Some(fault) = name_fault(node) {
            return Err(self.bad(line, "node", node, &fault));
        }
        let change = match what {
            "add" if self.there.insert(node.to_owned()) => Change::Joined,
            "add" => return Err(self.bad(line, "node", node, "is added, but it is there")),
            "remove" if self.there.remove(node) => Change::Removed,
            "remove" => {
                return Err(self.bad(line, "node", node, "is removed, but it is not there"));
            }
            _ => return Err(self.bad(line, "change", what, "is neither add nor remove")),
        };
        Ok(NodeChange { at: TimeMs(ms), node: node.to_owned(), change })
    }

    fn count(&mut self, date: &str, time: &str, count: &str, line: u64) -> Result<(), TraceError> {
        let told = format!("{date} {time}");
        let now = DateTime::strptime("%Y-%m-%d %H:%M:%S", &told)
            .map_err(|_| self.bad(line, "time", &told, "is no YYYY-MM-DD, hh:mm:ss"))?;
        let wanted = count.parse::<u64>().ok().filter(|count| *count <= COUNT_MAX);
        let wanted = wanted.ok_or_else(|| {
            self.bad(line, "nodes", count, &format!("is not a number from 0 to {COUNT_MAX}"))
        })?;
        while self.counts.last().is_some_and(|(then, ..)| *then >= now) {
            self.counts.pop();
        }
        self.counts.push((now, wanted, line));
        Ok(())
    }

    /// The numbers as changes.
    fn counted(self) -> Result<Vec<NodeChange>, TraceError> {
        let (mut changes, mut count) = (Vec::new(), 0);
        for &(now, wanted, line) in &self.counts {
            let seconds = now.duration_since(self.counts[0].0).as_secs();
            let seconds = u64::try_from(seconds).ok().filter(|seconds| *seconds <= SECONDS_MAX);
            let seconds = seconds.ok_or_else(|| {
                self.bad(line, "time", &now.to_string(), "is too long after the first")
            })?;
            let change = |node: u64, change| NodeChange {
                at: TimeMs(seconds * 1_000),
                node: format!("spot-{node}"),
                change,
            };
            changes.extend((count..wanted).map(|node| change(node, Change::Joined)));
            changes.extend((wanted..count).rev().map(|node| change(node, Change::Removed)));
            count = wanted;
        }
        Ok(changes)
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    fn told(text: &str) -> Result<Vec<(u64, String, bool)>, String> {
        let dir = tempfile::tempdir().expect("a folder");
        let file = dir.path().join("spot");
        std::fs::write(&file, text).expect("writes");
        let changes = read(&file, &mut BadRows::refuse()).map_err(|error| error.to_string())?;
        let told = |change: NodeChange| {
            (change.at.0, change.node, matches!(change.change, Change::Joined))
        };
        Ok(changes.into_iter().map(told).collect())
    }

    #[test]
    fn numbers_of_nodes_are_nodes_that_come_and_go() {
        let text = "2021-12-31, 23:59:30, 2\n2022-01-01, 00:00:30, 2\n\
                    2022-01-01, 00:01:00, 1\n2022-01-01, 00:02:00, 3\n";
        let node = |at, number: u64, joins| (at, format!("spot-{number}"), joins);
        let wanted = [
            node(0, 0, true),
            node(0, 1, true),
            node(90_000, 1, false),
            node(150_000, 1, true),
            node(150_000, 2, true),
        ];
        assert_eq!(told(text).as_deref(), Ok(&wanted[..]));

        let stepping_back = "2022-01-01, 00:00:00, 1\n2022-01-01, 00:01:00, 1\n\
                             2022-01-01, 00:02:00, 1\n2022-01-01, 00:01:00, 0\n\
                             2022-01-01, 00:03:00, 0\n";
        let wanted = [node(0, 0, true), node(60_000, 0, false)];
        assert_eq!(told(stepping_back).as_deref(), Ok(&wanted[..]));
    }

    #[test]
    fn what_cannot_be_read_is_named() {
        for (text, wanted) in [
            ("2022-01-01, 25:00:00, 1\n", "is no YYYY-MM-DD, hh:mm:ss"),
            ("2022-01-01, 00:00:00, -1\n", "column \"nodes\": \"-1\" is not a number"),
            ("2022-01-01, 00:00:00, 100001\n", "is not a number from 0 to 100000"),
            ("0001-01-01, 00:00:00, 1\n9999-01-01, 00:00:00, 1\n", "is too long after"),
            ("1,add\n", "has 2 cells"),
        ] {
            let error = told(text).expect_err(text);
            assert!(error.contains(wanted), "{error}");
        }
    }
}
