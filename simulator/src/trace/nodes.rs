//! Lists of nodes: openb's (`sn, cpu_milli, memory_mib, gpu, model`) and the schema that openb and
//! Alibaba's PAI cluster of 2020 share (`node, cpu_milli, memory_mib, gpus, gpu_model`).
//!
//! The second may also tell `disk_mib`, `vram_mib`, `region, zone, site, rack`, `price_micro_usd`
//! (per GPU and hour), `bandwidth_mbps` and `class`; that is what [`write`] writes.
//! **Invariant:** nodes without GPUs are nodes too.

use super::table::{Row, Table};
use super::{AMOUNT_MAX, BadRows, GPUS_MAX, TraceError, TraceNode, TracePlace};
use scheduler_core::validate::{
    BANDWIDTH_MBPS_MAX, DISK_MIB_MAX, PRICE_MICRO_USD_MAX, VRAM_MIB_MAX,
};
use std::io::{self, Write};
use std::path::Path;

/// Nodes of the file, in its order.
pub fn read(file: &Path, bad: &mut BadRows) -> Result<Vec<TraceNode>, TraceError> {
    let table = Table::open(file)?;
    let openb = table.column("sn").is_some();
    let names = if openb { ["sn", "gpu", "model"] } else { ["node", "gpus", "gpu_model"] };
    table.rows(bad, |row| node(row, names))
}

fn node(row: &Row<'_>, [name, gpus, model]: [&str; 3]) -> Result<TraceNode, TraceError> {
    let small = |column, max| if row.has(column) { row.small(column, max) } else { Ok(0) };
    let amount = |column, max| if row.has(column) { row.number(column, max) } else { Ok(0) };
    let gpus = row.small(gpus, GPUS_MAX)?;
    if gpus > 0 {
        row.name(model)?;
    }
    let place = if row.has("site") {
        let text = |column| row.name(column).map(str::to_owned);
        let (region, zone) = (text("region")?, text("zone")?);
        Some(TracePlace { region, zone, site: text("site")?, rack: text("rack")? })
    } else {
        None
    };
    Ok(TraceNode {
        name: row.name(name)?.to_owned(),
        cpu_milli: row.number("cpu_milli", AMOUNT_MAX)?,
        memory_mib: row.number("memory_mib", AMOUNT_MAX)?,
        disk_mib: amount("disk_mib", DISK_MIB_MAX)?,
        gpus,
        model: row.text(model)?.to_owned(),
        vram_mib: small("vram_mib", VRAM_MIB_MAX)?,
        place,
        price_micro_usd: amount("price_micro_usd", PRICE_MICRO_USD_MAX)?,
        bandwidth_mbps: small("bandwidth_mbps", BANDWIDTH_MBPS_MAX)?,
        class: row.maybe("class").unwrap_or_default().to_owned(),
        spec: None,
    })
}

/// Writes nodes so that [`read`] gives the same again; a recorded node's further declaration is
/// left out.
pub fn write(nodes: &[TraceNode], out: &mut dyn Write) -> io::Result<()> {
    writeln!(
        out,
        "node,cpu_milli,memory_mib,gpus,gpu_model,disk_mib,vram_mib,region,zone,site,rack,\
         price_micro_usd,bandwidth_mbps,class"
    )?;
    for node in nodes {
        let place = node.place.clone().unwrap_or_default();
        writeln!(
            out,
            "{},{},{},{},{},{},{},{},{},{},{},{},{},{}",
            quoted(&node.name),
            node.cpu_milli,
            node.memory_mib,
            node.gpus,
            quoted(&node.model),
            node.disk_mib,
            node.vram_mib,
            quoted(&place.region),
            quoted(&place.zone),
            quoted(&place.site),
            quoted(&place.rack),
            node.price_micro_usd,
            node.bandwidth_mbps,
            quoted(&node.class)
        )?;
    }
    Ok(())
}

/// A cell, in quotes where it needs them.
pub(crate) fn quoted(text: &str) -> String {
    if text.contains([',', '"', '\n', '\r']) {
        format!("\"{}\"", text.replace('"', "\"\""))
    } else {
        text.to_owned()
    }
}
