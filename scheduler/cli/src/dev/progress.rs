//! Progress of `dev`: bars on a terminal, plain lines otherwise.

use crate::output::text::grouped;
use indicatif::{MultiProgress, ProgressBar, ProgressStyle};
use std::cell::Cell;
use std::time::{Duration, Instant};

/// Plain lines about one phase come no more often than this.
const LINE_PAUSE: Duration = Duration::from_secs(2);
/// Bars move this often by themselves, so that a wait looks alive.
const TICK: Duration = Duration::from_millis(100);
const TEMPLATE: &str = "{prefix:<16} {wide_bar:.green/dim} {pos:>6}/{len:<6} {msg:>12}";

/// All phases.
pub(super) struct Progress {
    bars: Option<MultiProgress>,
}

/// One phase.
pub(super) struct Phase {
    name: &'static str,
    total: u64,
    began: Instant,
    bar: Option<ProgressBar>,
    said: Cell<Instant>,
}

impl Progress {
    pub(super) fn new(lively: bool) -> Self {
        Self { bars: lively.then(MultiProgress::new) }
    }

    /// Begins a phase that is over at `total`.
    pub(super) fn phase(&self, name: &'static str, total: u64) -> Phase {
        let bar = self.bars.as_ref().map(|bars| {
            let bar = bars.add(ProgressBar::new(total));
            if let Ok(style) = ProgressStyle::with_template(TEMPLATE) {
                bar.set_style(style.progress_chars("━╸─"));
            }
            bar.set_prefix(name);
            bar.enable_steady_tick(TICK);
            bar
        });
        let now = Instant::now();
        Phase { name, total, began: now, bar, said: Cell::new(now) }
    }

    /// A line above the bars.
    pub(super) fn say(&self, line: &str) {
        let line = crate::output::text::printable_line(line);
        match &self.bars {
            // A line that cannot be drawn is no reason to stop.
            Some(bars) => drop(bars.println(line)),
            None => eprintln!("{line}"),
        }
    }
}

impl Phase {
    /// How far it is.
    pub(super) fn at(&self, position: u64) {
        match &self.bar {
            Some(bar) => bar.set_position(position.min(self.total)),
            None if self.said.get().elapsed() >= LINE_PAUSE => {
                self.said.set(Instant::now());
                eprintln!("{:<16} {}/{}", self.name, grouped(position), grouped(self.total));
            }
            None => {}
        }
    }

    /// It is over and took as long as it says.
    pub(super) fn done(self, took_ms: f64) {
        let took = format!("{took_ms:.1} ms");
        match &self.bar {
            Some(bar) => {
                bar.set_position(self.total);
                bar.finish_with_message(took);
            }
            None => eprintln!(
                "{:<16} {}/{} in {took}",
                self.name,
                grouped(self.total),
                grouped(self.total)
            ),
        }
    }

    /// It is over now.
    pub(super) fn done_now(self) -> f64 {
        let took = super::ms(self.began.elapsed());
        self.done(took);
        took
    }
}

impl Drop for Phase {
    fn drop(&mut self) {
        if let Some(bar) = self.bar.take().filter(|bar| !bar.is_finished()) {
            bar.abandon();
        }
    }
}
