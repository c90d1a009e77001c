//! The Alibaba GPU cluster of 2023 as the FGD authors publish it (Weng et al., USENIX ATC 2023):
//! `openb_node_list_gpu_node.csv` and `openb_pod_list_NAME.csv`, packed with gzip or not.
//!
//! **Invariant:** one pod is one job of one replica.

use super::table::{Row, Table};
use super::{
    AMOUNT_MAX, BadRows, GPUS_MAX, MILLI_MAX, TraceError, TraceJob, TraceNode, TraceShape,
    nodes as lists,
};
use scheduler_core::unit::DurationMs;
use std::path::{Path, PathBuf};

/// Stem of the list of nodes.
const NODES: &str = "openb_node_list_gpu_node";
/// Stem of a workload's list of pods, before its name.
const PODS: &str = "openb_pod_list_";
/// Their own results.
const PUBLISHED: &str = "published_allocation.csv";
/// Endings, the plain file first.
const ENDINGS: [&str; 2] = [".csv", ".csv.gz"];
/// Names of the workloads in the folder, rising; there must be some.
pub fn workloads(dir: &Path) -> Result<Vec<String>, TraceError> {
    let names = known_workloads(dir)?;
    if names.is_empty() {
        let found = "so that it has no jobs".to_owned();
        let wanted = ENDINGS.map(|ending| format!("{PODS}NAME{ending}")).join(" or ");
        return Err(TraceError::Missing { dir: dir.to_owned(), wanted, found });
    }
    Ok(names)
}

fn known_workloads(dir: &Path) -> Result<Vec<String>, TraceError> {
    let mut names: Vec<String> = file_names(dir)?
        .iter()
        .filter_map(|file| {
            let rest = file.strip_prefix(PODS)?;
            ENDINGS.iter().find_map(|ending| rest.strip_suffix(ending)).map(str::to_owned)
        })
        .collect();
    names.sort();
    names.dedup();
    Ok(names)
}

/// Nodes with GPUs, in the file's order.
pub fn nodes(dir: &Path) -> Result<Vec<TraceNode>, TraceError> {
    lists::read(&find(dir, NODES)?, &mut BadRows::refuse())
}

/// Pods of a workload, in the file's order.
pub fn jobs(dir: &Path, workload: &str) -> Result<Vec<TraceJob>, TraceError> {
    pods(&find(dir, &format!("{PODS}{workload}"))?, &mut BadRows::refuse())
}

/// Pods of a file, in its order.
pub fn pods(file: &Path, bad: &mut BadRows) -> Result<Vec<TraceJob>, TraceError> {
    Table::open(file)?.rows(bad, pod)
}

/// A mean allocation that the authors publish.
#[derive(Clone, PartialEq, Debug)]
pub struct Published {
    pub workload: String,
    /// The policy by our name.
    pub policy: String,
    /// Demand that had arrived, in per cent of the fleet's GPUs.
    pub arrived_percent: u64,
    /// Over the authors' seeds, in per cent of the fleet's GPUs.
    pub allocated_percent: f64,
}

/// Their results, if the folder holds `published_allocation.csv`; else none.
pub fn published(dir: &Path) -> Result<Vec<Published>, TraceError> {
    let known = file_names(dir)?;
    let file = [PUBLISHED.to_owned(), format!("{PUBLISHED}.gz")]
        .into_iter()
        .find(|name| known.contains(name));
    match file {
        Some(file) => Table::open(&dir.join(file))?.rows(&mut BadRows::refuse(), result),
        None => Ok(Vec::new()),
    }
}

fn result(row: &Row<'_>) -> Result<Published, TraceError> {
    let policy = match row.text("policy")? {
        "Random" => "random",
        "BestFit" => "best-fit",
        "DotProd" => "dot-product",
        "GpuPacking" => "gpu-packing",
        "GpuClustering" => "gpu-clustering",
        "FGD" => "fgd",
        other => return Err(row.bad("policy", other, "is no policy of theirs".to_owned())),
    };
    let thousandths = row.thousandths("mean_allocated_pct", 100)?;
    Ok(Published {
        workload: row.text("workload")?.to_owned(),
        policy: policy.to_owned(),
        arrived_percent: row.number("arrived_pct", 1_000)?,
        allocated_percent: thousandths as f64 / 1_000.0,
    })
}

fn file_names(dir: &Path) -> Result<Vec<String>, TraceError> {
    let failed = |source| TraceError::Folder { dir: dir.to_owned(), source };
    let mut names = Vec::new();
    for entry in std::fs::read_dir(dir).map_err(failed)? {
        if let Ok(name) = entry.map_err(failed)?.file_name().into_string() {
            names.push(name);
        }
    }
    Ok(names)
}

fn find(dir: &Path, stem: &str) -> Result<PathBuf, TraceError> {
    let names = file_names(dir)?;
    let wanted = ENDINGS.map(|ending| format!("{stem}{ending}"));
    if let Some(name) = wanted.iter().find(|wanted| names.contains(wanted)) {
        return Ok(dir.join(name));
    }
    let known = known_workloads(dir)?;
    let found = if known.is_empty() {
        format!("nor any {PODS}NAME.csv")
    } else {
        format!("its workloads are {}", known.join(", "))
    };
    Err(TraceError::Missing { dir: dir.to_owned(), wanted: wanted.join(" or "), found })
}

fn pod(row: &Row<'_>) -> Result<TraceJob, TraceError> {
    let gpus = row.small("num_gpu", GPUS_MAX)?;
    let gpu_milli = row.small("gpu_milli", MILLI_MAX)?;
    if gpus > 1 && gpu_milli != MILLI_MAX {
        let what = format!("is not {MILLI_MAX}, but the pod has {gpus} GPUs");
        return Err(row.bad("gpu_milli", &gpu_milli.to_string(), what));
    }
    if gpus == 1 && gpu_milli == 0 {
        return Err(row.bad("gpu_milli", "0", "is nothing, but the pod has a GPU".to_owned()));
    }
    let mut models: Vec<String> = row
        .maybe("gpu_spec")
        .unwrap_or_default()
        .split('|')
        .filter(|model| !model.is_empty())
        .map(str::to_owned)
        .collect();
    models.sort();
    models.dedup();
    let shape = TraceShape {
        cpu_milli: row.number("cpu_milli", AMOUNT_MAX)?,
        memory_mib: row.number("memory_mib", AMOUNT_MAX)?,
        gpus,
        gpu_milli: if gpus == 0 { 0 } else { gpu_milli },
        models,
    };
    let start = row.maybe_ms("scheduled_time")?;
    let end = row.maybe_ms("deletion_time")?;
    // A pod that never started has no duration; what was deleted at once ran for a second.
    let duration = end.zip(start).map(|(end, start)| end.saturating_sub(start).max(1_000));
    Ok(TraceJob {
        name: row.name("name")?.to_owned(),
        replicas: 1,
        shape,
        submit: row.maybe_time("creation_time")?,
        duration: duration.map(DurationMs),
        ..TraceJob::default()
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    fn folder(files: &[(&str, &str)]) -> tempfile::TempDir {
        let dir = tempfile::tempdir().expect("a folder");
        for (name, text) in files {
            std::fs::write(dir.path().join(name), text).expect("a file");
        }
        dir
    }

    const HEAD: &str = "name,cpu_milli,memory_mib,num_gpu,gpu_milli,gpu_spec,qos,pod_phase,\
                        creation_time,deletion_time,scheduled_time\n";

    #[test]
    fn rows_become_jobs() {
        let text = format!(
            "{HEAD}p1,6000,12288,1,460,T4|P100|,LS,Running,10,70,20\np2,1,2,0,0,,BE,Pending,5,9,\n"
        );
        let dir = folder(&[("openb_pod_list_a.csv", &text)]);
        assert_eq!(workloads(dir.path()).expect("readable"), ["a"]);
        let jobs = jobs(dir.path(), "a").expect("readable");
        assert_eq!(jobs[0].shape.models, ["P100", "T4"]);
        assert_eq!(
            (jobs[0].shape.total_milli(), jobs[0].duration),
            (460, Some(DurationMs(50_000)))
        );
        assert_eq!((jobs[1].total_milli(), jobs[1].duration), (0, None));
    }

    #[test]
    fn packed_files_are_read_alike() {
        let dir = folder(&[]);
        let file = std::fs::File::create(dir.path().join("openb_node_list_gpu_node.csv.gz"));
        let mut packer =
            flate2::write::GzEncoder::new(file.expect("a file"), flate2::Compression::fast());
        packer.write_all(b"sn,cpu_milli,memory_mib,gpu,model\nn0,64000,262144,2,P100\n").unwrap();
        packer.finish().expect("written");
        let nodes = nodes(dir.path()).expect("readable");
        assert_eq!((nodes[0].gpus, nodes[0].model.as_str()), (2, "P100"));
    }

    #[test]
    fn a_bad_value_is_named_with_its_place() {
        let text =
            format!("{HEAD}p1,6000,12288,1,460,,LS,Running,10,70,20\np2,x,2,0,0,,BE,,5,9,\n");
        let dir = folder(&[("openb_pod_list_a.csv", &text)]);
        let error = jobs(dir.path(), "a").expect_err("line 3 is bad").to_string();
        assert!(
            error.ends_with(r#"line 3, column "cpu_milli": "x" is not a whole number"#),
            "{error}"
        );
        let text = format!("{HEAD}p1,6000,12288,2,460,,LS,Running,10,70,20\n");
        let dir = folder(&[("openb_pod_list_a.csv", &text)]);
        let error = jobs(dir.path(), "a").expect_err("half of two GPUs").to_string();
        assert!(error.contains(r#"line 2, column "gpu_milli": "460""#), "{error}");
    }

    #[test]
    fn what_is_missing_is_named() {
        let dir = folder(&[("openb_pod_list_a.csv", HEAD)]);
        let error = jobs(dir.path(), "b").expect_err("not there").to_string();
        assert!(error.contains("openb_pod_list_b.csv or openb_pod_list_b.csv.gz"), "{error}");
        assert!(error.ends_with("its workloads are a"), "{error}");
        assert!(jobs(dir.path(), "a").expect_err("no rows").to_string().ends_with("has no rows"));
        let error = nodes(&dir.path().join("nowhere")).expect_err("no folder").to_string();
        assert!(error.contains("nowhere cannot be read"), "{error}");
    }
}
