//! A whole agent from its configuration, with real processes.

use crate::fake::{Fake, Manner, assignment, soon};
use proto::v1;
use proto::v1::ObservedPhase;
use scheduler_agent::agent::{Ended, Order};
use scheduler_agent::config::Config;
use scheduler_agent::serve::serve;
use std::path::Path;
use tokio::sync::watch;
use tokio::task::JoinHandle;

fn config(fake: &Fake, data_dir: &Path) -> Config {
    let text = format!(
        "servers = [{:?}]\ntoken = 't'\ndata_dir = {data_dir:?}\n\
         [node]\nname = 'n'\nregion = 'r'\nzone = 'z'\nsite = 's'\n\
         gpus = [{{ model = 'T4', vram_mib = 15360 }}]",
        fake.endpoint
    );
    Config::parse(&text).unwrap()
}

fn start(config: &Config) -> (watch::Sender<Order>, JoinHandle<Ended>) {
    let (orders, receiver) = watch::channel(Order::Run);
    let config = config.clone();
    let task = tokio::spawn(async move { serve(&config, receiver).await.unwrap() });
    (orders, task)
}

fn program(script: &str) -> v1::Assignment {
    let argv = ["sh", "-c", script].map(str::to_owned).to_vec();
    v1::Assignment {
        program: Some(v1::Program { argv, env: Default::default() }),
        ..assignment(1, 0, &[0])
    }
}

#[tokio::test]
async fn a_program_outlives_its_agent_and_is_taken_up_by_the_next() {
    let data = tempfile::tempdir().unwrap();
    let gate = data.path().join("gate");
    let made = std::process::Command::new("mkfifo").arg(&gate).status().unwrap();
    assert!(made.success());
    let mut fake = Fake::start(Manner::default()).await;
    let config = config(&fake, &data.path().join("agent"));
    let (orders, task) = start(&config);
    let (session, hello) = fake.hello().await;
    let wanted = vec![program(&format!("read word <'{}'; exit 9", gate.display()))];
    fake.desire(session, hello.epoch, 1, wanted.clone());
    while fake.report(1).await.0 != ObservedPhase::Ready {}
    orders.send(Order::Exit).unwrap();
    assert_eq!(soon("the first agent's end", task).await.unwrap(), Ended::Ordered);

    let (orders, task) = start(&config);
    let (session, hello) = fake.hello().await;
    assert_eq!(hello.epoch, 2);
    assert_eq!(fake.report(1).await, (ObservedPhase::Ready, 0));
    fake.desire(session, hello.epoch, 2, wanted);
    tokio::task::spawn_blocking(move || std::fs::write(gate, "go\n").unwrap()).await.unwrap();
    assert_eq!(fake.report(1).await, (ObservedPhase::Failed, 9));
    orders.send(Order::Leave).unwrap();
    assert_eq!(soon("the second agent's end", task).await.unwrap(), Ended::Ordered);
}

#[tokio::test]
async fn two_agents_do_not_share_a_data_directory() {
    let data = tempfile::tempdir().unwrap();
    let mut fake = Fake::start(Manner::default()).await;
    let config = config(&fake, data.path());
    let (_orders, _task) = start(&config);
    fake.hello().await;
    let (_second, receiver) = watch::channel(Order::Run);
    let error = serve(&config, receiver).await.unwrap_err().to_string();
    assert!(error.contains("in use by another agent"), "{error}");
}
