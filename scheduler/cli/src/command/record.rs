//! `record`: a live cluster's jobs, nodes and what befalls them, as a trace that can be replayed.
//!
//! Lists are read again and again instead of following streams: servers keep every job for an hour
//! after its end, with the times at which it was submitted, ready and over. So nothing is missed
//! while servers restart or the connection breaks, and times are exact however rarely we look. Jobs
//! that ran when the recording began are submitted at 0; those that run when it stops have no end, and a
//! replay has them run for as long as the trace tells. Round trips between sites are told as they were
//! at the beginning, and at the end those that changed.
//! **Invariant:** only lists and single jobs are read, at a rate that does not grow with the number
//! of jobs over; an existing file is never touched.

mod round;

use super::{Context, terminated};
use crate::args::RecordArgs;
use crate::client::CallError;
use crate::exit::{Ending, Exit, Failure};
use round::Recorder;
use simulator::trace::jsonl::Writer;
use std::fs::File;
use std::io::BufWriter;
use std::time::Duration;
use tokio::time::Instant;
use tonic::Code;

/// Why a look at the cluster did not come to its end.
enum Trouble {
    /// The servers' fault, or the network's.
    Call(CallError),
    /// The file's.
    Write(std::io::Error),
}

impl From<CallError> for Trouble {
    fn from(error: CallError) -> Self {
        Self::Call(error)
    }
}

impl From<std::io::Error> for Trouble {
    fn from(error: std::io::Error) -> Self {
        Self::Write(error)
    }
}

pub(super) async fn record(context: &Context, args: RecordArgs) -> Ending {
    let shown = args.file.display();
    let failed = |error: std::io::Error| Failure::refused(format!("{shown}: {error}"));
    let file = File::create_new(&args.file)
        .map_err(|error| Failure::usage(format!("{shown} cannot be made: {error}")))?;
    let start_ms = u64::try_from(jiff::Timestamp::now().as_millisecond()).unwrap_or(0);
    let writer = Writer::begin(BufWriter::new(file), "muster record", start_ms).map_err(failed)?;
    let mut recorder = Recorder::new(context, writer, start_ms);
    let (nodes_due, nodes_every) = (Instant::now(), Some(args.nodes_every));
    let mut pace = Pace { nodes_due, nodes_every, rtts: Rtts::Due };
    let mut stop = std::pin::pin!(terminated());
    let (mut stopping, mut troubled, mut begun) = (false, false, false);
    loop {
        let due = Instant::now() + args.every;
        match look(context, &mut recorder, &mut pace).await {
            Ok(()) if !begun => {
                begun = true;
                context.output.say(&format!("recording into {shown}; Ctrl-C stops"));
            }
            Ok(()) => troubled = false,
            Err(Trouble::Write(error)) => return Err(failed(error)),
            // What fails at once, or for good, is not waited for.
            Err(Trouble::Call(error)) if !begun || is_final(error.code()) => {
                recorder.flush().map_err(failed)?;
                return Err(error.into());
            }
            Err(Trouble::Call(error)) if !troubled => {
                troubled = true;
                context.output.say(&format!("{}; still trying", Failure::from(error).message));
            }
            Err(Trouble::Call(_)) => {}
        }
        recorder.flush().map_err(failed)?;
        if stopping {
            break;
        }
        tokio::select! {
            // One more look, for what happened since the last.
            () = &mut stop => {
                stopping = true;
                pace.nodes_due = Instant::now();
                if pace.rtts == Rtts::Told {
                    pace.rtts = Rtts::Due;
                }
            }
            () = tokio::time::sleep_until(due) => {}
        }
    }
    context.output.say(&format!("{} into {shown}", recorder.counted()));
    Ok(Exit::Done)
}

/// When to look at the nodes.
struct Pace {
    nodes_due: Instant,
    /// `None` = whose token this is may not see them.
    nodes_every: Option<Duration>,
    rtts: Rtts,
}

/// Round trips between sites are read at the beginning and at the end: there may be hundreds of
/// thousands, and they change little.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Rtts {
    Due,
    Told,
    /// Whose token this is may not see them.
    Hidden,
}

async fn look(
    context: &Context,
    recorder: &mut Recorder<'_, BufWriter<File>>,
    pace: &mut Pace,
) -> Result<(), Trouble> {
    if let Some(every) = pace.nodes_every
        && Instant::now() >= pace.nodes_due
    {
        match recorder.look_at_nodes().await {
            Err(Trouble::Call(error)) if error.code() == Code::PermissionDenied => {
                context.output.say("nodes are not recorded: they are for operators and suppliers");
                pace.nodes_every = None;
            }
            other => other?,
        }
        pace.nodes_due = Instant::now() + every;
    }
    if pace.rtts == Rtts::Due {
        pace.rtts = match recorder.look_at_rtts().await {
            Err(Trouble::Call(error)) if error.code() == Code::PermissionDenied => {
                context.output.say("round trips are not recorded: they are for operators");
                Rtts::Hidden
            }
            other => other.map(|()| Rtts::Told)?,
        };
    }
    recorder.look_at_jobs().await
}

/// Whether trying again gives the same.
fn is_final(code: Code) -> bool {
    matches!(code, Code::PermissionDenied | Code::Unauthenticated | Code::InvalidArgument)
}
