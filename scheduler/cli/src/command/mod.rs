//! One file per family of commands; each turns arguments into calls and answers into output.

mod agent;
mod explain;
mod fleet;
mod job;
mod logging;
mod node;
mod quorum;
mod record;
mod server;
mod sim;
mod store;
mod submit;
mod tenant;

pub(crate) use fleet::{profile, set_rtts, start as start_fleet};
pub(crate) use job::{follow, is_over};
pub(crate) use quorum::gather;

use crate::answer::List;
use crate::args::{Cli, Command, DEFAULT_SERVER, Global, ReadArgs};
use crate::client::{CallError, Client, Settings};
use crate::exit::{Ending, Exit, Failure};
use crate::output::{self, Answer, Format, Output};
use clap::CommandFactory;
use proto::v1::Consistency;

/// What every command that talks to servers needs.
pub struct Context {
    /// The servers.
    pub client: Client,
    /// Where answers go.
    pub output: Output,
    /// Tenant to act for; empty = the caller's own.
    pub tenant: String,
}

impl Context {
    fn new(global: &Global) -> Result<Self, Failure> {
        let settings = Settings {
            servers: servers(global),
            token: global.token.clone(),
            timeout: global.timeout,
        };
        Ok(Self {
            client: Client::new(&settings)?,
            output: Output::new(global.output, global.no_color),
            tenant: global.tenant.clone().unwrap_or_default(),
        })
    }

    /// Shows a list, and says so when it was cut.
    fn show_list<T>(&self, list: &List<T>, none: &str, more: &str) -> Ending
    where
        List<T>: Answer,
    {
        self.output.show(list)?;
        if list.items.is_empty() {
            self.output.say(none);
        }
        if list.more {
            self.output.say(more);
        }
        Ok(Exit::Done)
    }
}

/// Servers asked for; an empty MUSTER_SERVER counts as none.
fn servers(global: &Global) -> Vec<String> {
    let mut servers: Vec<_> =
        global.server.iter().filter(|url| !url.trim().is_empty()).cloned().collect();
    if servers.is_empty() {
        servers.push(DEFAULT_SERVER.to_owned());
    }
    servers
}

/// Runs a command.
pub async fn run(cli: Cli) -> Ending {
    let global = cli.global;
    if global.output == Format::Native && !matches!(cli.command, Command::Plan(_)) {
        return Err(Failure::usage("-o native is for `plan` only"));
    }
    match cli.command {
        Command::Dev(args) => crate::dev::run(&global, args).await,
        Command::Server(args) => server::run(args).await,
        Command::Agent(args) => agent::run(&global, args).await,
        Command::Fleet(args) => fleet::run(&global, args).await,
        Command::Store(command) => store::run(Output::new(global.output, global.no_color), command),
        Command::Record(args) => record::record(&Context::new(&global)?, args).await,
        Command::Sim(verb) => sim::run(&verb),
        Command::Bench(command) => crate::bench::run(&global, command).await,
        Command::Submit(args) => submit::submit(&Context::new(&global)?, args).await,
        Command::Plan(args) => submit::plan(&Context::new(&global)?, args).await,
        Command::Explain(args) => explain::explain(&Context::new(&global)?, args).await,
        Command::Jobs(args) => job::list(&Context::new(&global)?, args).await,
        Command::Job(args) => job::show(&Context::new(&global)?, args).await,
        Command::Watch(args) => job::watch(&Context::new(&global)?, args).await,
        Command::Scale(args) => job::scale(&Context::new(&global)?, args).await,
        Command::Cancel(args) => job::cancel(&Context::new(&global)?, args.id).await,
        Command::Nodes(args) => node::list(&Context::new(&global)?, args).await,
        Command::Node(args) => node::show(&Context::new(&global)?, args).await,
        Command::Drain(args) => node::drain(&Context::new(&global)?, args.id).await,
        Command::Cordon(args) => node::cordon(&Context::new(&global)?, args.id).await,
        Command::Uncordon(args) => node::uncordon(&Context::new(&global)?, args.id).await,
        Command::Remove(args) => node::remove(&Context::new(&global)?, args).await,
        Command::Gpus(args) => node::gpus(&Context::new(&global)?, args).await,
        Command::Tenants(command) => tenant::run(&Context::new(&global)?, command).await,
        Command::Quorum(command) => quorum::run(&Context::new(&global)?, command).await,
        Command::Version => quorum::version(&Context::new(&global)?).await,
        Command::Completions(args) => completions(args.shell),
    }
}

fn completions(shell: clap_complete::Shell) -> Ending {
    let mut text = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "muster", &mut text);
    output::print(&String::from_utf8_lossy(&text))?;
    Ok(Exit::Done)
}

fn consistency(read: ReadArgs) -> i32 {
    if read.stale { Consistency::Stale.into() } else { Consistency::Linearizable.into() }
}

/// Whether a call may have been followed although no answer came.
fn is_lost(error: &CallError) -> bool {
    matches!(error.code(), tonic::Code::Unavailable | tonic::Code::DeadlineExceeded)
}

/// An answer without the part that must be there is a fault of the server.
fn missing(what: &str) -> Failure {
    Failure::refused(format!("the server's answer has no {what}")).next("compare `muster version`")
}

/// Ctrl-C; never comes where signals cannot be had.
async fn interrupted() {
    if tokio::signal::ctrl_c().await.is_err() {
        std::future::pending::<()>().await;
    }
}

/// Ctrl-C, or a polite `kill`.
pub(crate) async fn terminated() {
    let Ok(mut term) = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate())
    else {
        return interrupted().await;
    };
    tokio::select! {
        () = interrupted() => {}
        _ = term.recv() => {}
    }
}

/// The end of stdin, which a parent holds open as long as it lives.
async fn stdin_ended() {
    let (ended, wait) = tokio::sync::oneshot::channel::<()>();
    // A thread of its own: a read from a pipe cannot be called off, and must not hold up a pool.
    let reader = std::thread::Builder::new().name("stdin".to_owned()).spawn(move || {
        let _ended = ended;
        // Its end and its failure both mean that nobody is there.
        let _ = std::io::copy(&mut std::io::stdin(), &mut std::io::sink());
    });
    match reader {
        Ok(_) => drop(wait.await),
        Err(_) => std::future::pending().await,
    }
}
