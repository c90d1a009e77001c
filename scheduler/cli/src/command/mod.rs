//! One file per family of commands; each turns arguments into calls and answers into output.

mod job;
mod node;
mod quorum;
mod submit;
mod tenant;

use crate::answer::List;
use crate::args::{Cli, Command, Global, ReadArgs};
use crate::client::{Client, Settings};
use crate::exit::{Ending, Exit, Failure};
use crate::output::{self, Answer, Output};
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
            servers: global.server.clone(),
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

/// Runs a command.
pub async fn run(cli: Cli) -> Ending {
    let global = cli.global;
    match cli.command {
        Command::Submit(args) => submit::submit(&Context::new(&global)?, args).await,
        Command::Plan(args) => submit::plan(&Context::new(&global)?, args).await,
        Command::Jobs(args) => job::list(&Context::new(&global)?, args).await,
        Command::Job(args) => job::show(&Context::new(&global)?, args).await,
        Command::Watch(args) => job::watch(&Context::new(&global)?, args).await,
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
        _ => Err(Failure::refused("not built yet")),
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
