//! Whatever a client sends: a clear refusal that names the field, and nothing changed.

use crate::harness::Cluster;
use crate::harness::client::{Client, fields};
use crate::harness::nodes::{Behaviour, TestAgent, join_once, key_of};
use crate::harness::specs::{job, job_with, node};
use proto::v1::{self, Group, JobSpec, Selector, SelectorOperator, Shape, shape::Gpus};
use tonic::{Code, Status};

fn group(spec: &mut JobSpec) -> &mut Group {
    &mut spec.groups[0]
}

fn shape(spec: &mut JobSpec) -> &mut Shape {
    spec.groups[0].shape.as_mut().expect("the default job has a shape")
}

/// Jobs that must be refused, with the field that the refusal has to name.
fn bad_jobs() -> Vec<(&'static str, &'static str, JobSpec)> {
    let long = "x".repeat(1_000_000);
    let name = |text: &str| {
        let text = text.to_owned();
        job_with(|spec| spec.name = text)
    };
    let selector = |key: &str, operator: SelectorOperator, values: usize| {
        let key = key.to_owned();
        job_with(|spec| {
            let values = (0..values).map(|v| v.to_string()).collect();
            group(spec).selectors = vec![Selector { key, operator: operator.into(), values }];
        })
    };
    vec![
        ("no replicas", "spec.groups[0].replicas", job(0, 1)),
        ("zero GPUs", "spec.groups[0].shape.gpu_count", {
            job_with(|spec| shape(spec).gpus = Some(Gpus::GpuCount(0)))
        }),
        ("all the GPUs there could be", "spec.groups[0].shape.gpu_count", job(1, u32::MAX)),
        ("all the replicas there could be", "spec.groups[0].replicas", job(u32::MAX, 1)),
        ("too many GPUs in all", "spec.groups", {
            job_with(|spec| {
                let mut groups = Vec::new();
                for at in 0..3 {
                    let mut each = job(30_000, 64).groups.remove(0);
                    each.name = format!("g{at}");
                    groups.push(each);
                }
                spec.groups = groups;
            })
        }),
        ("a share of nothing", "spec.groups[0].shape.gpu_milli", {
            job_with(|spec| shape(spec).gpus = Some(Gpus::GpuMilli(0)))
        }),
        ("a share of more than one", "spec.groups[0].shape.gpu_milli", {
            job_with(|spec| shape(spec).gpus = Some(Gpus::GpuMilli(1_000)))
        }),
        ("no name", "spec.name", name("")),
        ("a name of 1 MB", "spec.name", name(&long)),
        ("control characters", "spec.name", name("a\u{1b}[31mb\n")),
        ("a path", "spec.name", name("../../etc/passwd")),
        ("NUL", "spec.name", name("a\0b")),
        ("look-alike letters", "spec.name", name("jоb")),
        ("no kind", "spec.kind", job_with(|spec| spec.kind = 0)),
        ("an unknown kind", "spec.kind", job_with(|spec| spec.kind = 99)),
        ("an unknown strategy", "spec.strategy", job_with(|spec| spec.strategy = -5)),
        ("an unknown level", "spec.topology_required", {
            job_with(|spec| spec.topology_required = 77)
        }),
        ("an unknown role", "spec.groups[0].role", job_with(|spec| group(spec).role = 9)),
        ("no groups", "spec.groups", job_with(|spec| spec.groups.clear())),
        ("no shape", "spec.groups[0].shape", job_with(|spec| group(spec).shape = None)),
        ("two groups of one name", "spec.groups[1].name", {
            job_with(|spec| spec.groups.push(job(1, 1).groups.remove(0)))
        }),
        ("a minimum above the whole", "spec.groups[0].replicas_min", {
            job_with(|spec| group(spec).replicas_min = 2)
        }),
        ("an unknown model", "spec.groups[0].shape.gpu_models[0]", {
            job_with(|spec| shape(spec).gpu_models = vec!["H1OO".to_owned()])
        }),
        ("absurd video memory", "spec.groups[0].shape.vram_mib_min", {
            job_with(|spec| shape(spec).vram_mib_min = u32::MAX)
        }),
        ("absurd CPU", "spec.groups[0].shape.cpu_milli", {
            job_with(|spec| shape(spec).cpu_milli = u64::MAX)
        }),
        ("absurd memory", "spec.groups[0].shape.memory_mib", {
            job_with(|spec| shape(spec).memory_mib = u64::MAX)
        }),
        ("absurd duration", "spec.duration_s", job_with(|spec| spec.duration_s = u64::MAX)),
        ("absurd price", "spec.price_micro_usd_max", {
            job_with(|spec| spec.price_micro_usd_max = u64::MAX)
        }),
        ("absurd RTT", "spec.rtt_us_max", job_with(|spec| spec.rtt_us_max = u32::MAX)),
        ("100,000 conditions", "spec.groups[0].selectors", {
            job_with(|spec| {
                let one = Selector {
                    key: "a".to_owned(),
                    operator: SelectorOperator::Exists.into(),
                    values: Vec::new(),
                };
                group(spec).selectors = vec![one; 100_000];
            })
        }),
        ("a condition without key", "spec.groups[0].selectors[0].key", {
            selector("", SelectorOperator::Exists, 0)
        }),
        ("a condition without operator", "spec.groups[0].selectors[0].operator", {
            selector("a", SelectorOperator::Unspecified, 0)
        }),
        ("a condition without values", "spec.groups[0].selectors[0].values", {
            selector("a", SelectorOperator::In, 0)
        }),
        ("values where none belong", "spec.groups[0].selectors[0].values", {
            selector("a", SelectorOperator::Exists, 1)
        }),
    ]
}

fn assert_names(what: &str, field: &str, status: &Status) {
    assert_eq!(status.code(), Code::InvalidArgument, "{what}: {status}");
    let named = fields(status);
    assert!(named.iter().any(|n| n == field), "{what}: names {named:?}, not {field}: {status}");
    assert!(status.message().len() < 2_000, "{what}: the message is as long as the input");
}

#[tokio::test]
async fn bad_jobs_are_refused_by_field_and_change_nothing() {
    let cluster = Cluster::start(1).await;
    let client = cluster.client();
    // Without agents: on a busy machine a node's lease may end meanwhile, which changes the state.
    let before = cluster.equal_hashes().await;
    for (what, field, spec) in bad_jobs() {
        let status = client.submit("bad", spec.clone()).await.expect_err(what);
        assert_names(what, field, &status);
        let message = v1::PlanJobRequest { spec: Some(spec), ..Default::default() };
        let planned = client.jobs().plan_job(client.request(message)).await.expect_err(what);
        assert_names(what, field, &planned);
    }
    assert_eq!(cluster.equal_hashes().await, before, "a refused job changed the state");
    cluster.stop_and_check();
}

#[tokio::test]
async fn bad_requests_around_a_job_are_refused() {
    let cluster = Cluster::start(1).await;
    let client = cluster.client();
    let _agent = TestAgent::start(&client, "n1", 8, Behaviour::Obedient).await;
    for (what, id) in [("empty", String::new()), ("long", "r".repeat(65)), ("line", "a\nb".into())]
    {
        let status = client.submit(&id, job(1, 1)).await.expect_err(what);
        assert_names(what, "request_id", &status);
    }
    let message = v1::SubmitJobRequest { request_id: "x".to_owned(), ..Default::default() };
    let status = client.jobs().submit_job(client.request(message)).await.expect_err("no spec");
    assert_names("no spec", "spec", &status);

    let huge = job_with(|spec| spec.groups[0].name = "x".repeat(5 << 20));
    let status = client.submit("huge", huge).await.expect_err("5 MiB");
    assert!(
        matches!(status.code(), Code::OutOfRange | Code::ResourceExhausted),
        "5 MiB message: {status}"
    );

    let message = v1::ListJobsRequest { page_size: 100_000, ..Default::default() };
    let status = client.jobs().list_jobs(client.request(message)).await.expect_err("page size");
    assert_names("page size", "page_size", &status);
    let message = v1::ListJobsRequest { page_token: "%%%".to_owned(), ..Default::default() };
    let status = client.jobs().list_jobs(client.request(message)).await.expect_err("page token");
    assert_names("page token", "page_token", &status);

    let many = vec![v1::SubmitJobRequest::default(); 513];
    let message = v1::SubmitJobsRequest { requests: many };
    let status = client.jobs().submit_jobs(client.request(message)).await.expect_err("513 jobs");
    assert_names("513 jobs", "requests", &status);
    cluster.stop_and_check();
}

#[tokio::test]
async fn bad_nodes_are_refused_by_field() {
    let cluster = Cluster::start(1).await;
    let client = cluster.client();
    let bad = |change: fn(&mut v1::NodeSpec)| {
        let mut spec = node("bad", 1);
        change(&mut spec);
        spec
    };
    let cases: Vec<(&str, v1::NodeSpec)> = vec![
        ("spec.name", bad(|spec| spec.name = "../n".to_owned())),
        ("spec.gpus", bad(|spec| spec.gpus = vec![spec.gpus[0].clone(); 65])),
        ("spec.gpus[0].model", bad(|spec| spec.gpus[0].model = "bad model".to_owned())),
        ("spec.gpus[0].vram_mib", bad(|spec| spec.gpus[0].vram_mib = u32::MAX)),
        ("spec.cpu_milli", bad(|spec| spec.cpu_milli = u64::MAX)),
        ("spec.price_micro_usd", bad(|spec| spec.price_micro_usd = u64::MAX)),
        ("spec.place", bad(|spec| spec.place = None)),
        ("spec.labels", {
            bad(|spec| {
                spec.labels = (0..100u32).map(|n| (format!("k{n}"), String::new())).collect();
            })
        }),
        ("spec.taints[0].effect", {
            bad(|spec| {
                let taint = v1::Taint { key: "k".to_owned(), value: String::new(), effect: 0 };
                spec.taints = vec![taint];
            })
        }),
    ];
    for (field, spec) in cases {
        let status = join_once(&client, &spec, &key_of("bad"), &[1; 16]).await.expect_err(field);
        assert_names(field, field, &status);
    }
    for (what, field, key, instance) in [
        ("short key", "node_key", vec![1; 5], vec![1; 16]),
        ("no instance", "instance", vec![1; 32], Vec::new()),
    ] {
        let status = join_once(&client, &node("bad", 1), &key, &instance).await.expect_err(what);
        assert_names(what, field, &status);
    }
    // 100,000 labels are more than a node call may carry at all.
    let mut spec = node("bad", 1);
    spec.labels = (0..100_000u32).map(|n| (format!("k{n}"), "v".to_owned())).collect();
    let status = join_once(&client, &spec, &key_of("bad"), &[1; 16]).await.expect_err("labels");
    assert!(
        matches!(status.code(), Code::OutOfRange | Code::ResourceExhausted | Code::InvalidArgument),
        "{status}"
    );
    assert_eq!(node_count(&client).await, 0, "a refused node was registered");
    cluster.stop_and_check();
}

async fn node_count(client: &Client) -> usize {
    let request = client.operator(v1::ListNodesRequest::default());
    client.admin().list_nodes(request).await.expect("a list").into_inner().nodes.len()
}

#[tokio::test]
async fn one_request_id_is_one_job() {
    let cluster = Cluster::start(1).await;
    let client = cluster.client();
    let _agent = TestAgent::start(&client, "n1", 8, Behaviour::Obedient).await;
    let first = client.submit("same", job(1, 1)).await.expect("accepted");
    let again = client.submit("same", job(1, 1)).await.expect("known");
    let id = first.job.expect("a job").id;
    assert!(again.known && !first.known);
    assert_eq!(again.job.expect("a job").id, id);
    let status = client.submit("same", job(2, 1)).await.expect_err("another body");
    assert_eq!(status.code(), Code::AlreadyExists, "{status}");
    // Another tenant's request ids are its own.
    let globex = client.clone().tenant("globex");
    let other = globex.submit("same", job(2, 1)).await.expect("accepted");
    assert_ne!(other.job.expect("a job").id, id);
    assert_eq!(client.gpu_milli_used().await, 3_000);
    cluster.stop_and_check();
}

#[tokio::test]
async fn cancel_before_create_and_twice() {
    let cluster = Cluster::start(1).await;
    let client = cluster.client();
    let _agent = TestAgent::start(&client, "n1", 8, Behaviour::Obedient).await;
    assert_eq!(client.cancel(1).await.expect_err("no such job").code(), Code::NotFound);
    let id = client.submit("a", job(1, 8)).await.expect("accepted").job.expect("a job").id;
    // Other tenants' jobs do not exist.
    let globex = client.clone().tenant("globex");
    assert_eq!(globex.cancel(id).await.expect_err("foreign").code(), Code::NotFound);
    assert_eq!(globex.job(id).await.expect_err("foreign").code(), Code::NotFound);
    assert!(client.cancel(id).await.expect("cancelled").changed);
    assert!(!client.cancel(id).await.expect("a repeat").changed);
    assert_eq!(client.gpu_milli_used().await, 0);
    cluster.stop_and_check();
}
