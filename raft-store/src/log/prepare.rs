//! Writes the next segment's file full of zeroes ahead of need, on a thread of its own.
//!
//! A sync of a file that grows costs about twice a sync inside a file that was written before:
//! the length and the extents go through the file system's journal. The zeroes are written as
//! the present segment fills, so a small log writes few of them.
//!
//! **Invariant:** only an optimisation: a file handed over too early grows while it is used, and
//! a failure here is left to the writer, which makes the file itself.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver, Sender, TryRecvError};
use std::thread::{self, JoinHandle};

use crate::files::{File, Files};

/// Zeroes per write and sync: a few milliseconds of a disk, so that the log's own syncs never
/// wait long behind one.
pub(super) const STEP_BYTES: u64 = 1 << 20;

/// Handle to the thread; dropping it ends the thread after its present step.
#[derive(Debug)]
pub(super) struct Preparer {
    orders: Option<Sender<Order>>,
    thread: Option<JoinHandle<()>>,
    /// Bytes ordered for the present file.
    ordered: u64,
}

#[derive(Debug)]
enum Order {
    /// Have this many zeroes ready.
    Reach(u64),
    /// Hand the file over as it is.
    Take(Sender<Option<Arc<dyn File>>>),
}

struct Worker {
    files: Arc<dyn Files>,
    path: PathBuf,
    file: Option<Arc<dyn File>>,
    done: u64,
    goal: u64,
}

impl Preparer {
    pub(super) fn start(files: Arc<dyn Files>, path: PathBuf) -> io::Result<Self> {
        let (orders, inbox) = mpsc::channel();
        let worker = Worker { files, path, file: None, done: 0, goal: 0 };
        let thread = thread::Builder::new()
            .name("log-prepare".to_owned())
            .spawn(move || worker.run(&inbox))?;
        Ok(Self { orders: Some(orders), thread: Some(thread), ordered: 0 })
    }

    /// Asks for `bytes` zeroes, when that is a step more than before or `last` says that it is
    /// the whole file.
    pub(super) fn reach(&mut self, bytes: u64, last: bool) {
        if bytes >= self.ordered + STEP_BYTES || (last && bytes > self.ordered) {
            self.ordered = bytes;
            self.send(Order::Reach(bytes));
        }
    }

    /// The prepared file, however far it is; `None` when there is none.
    pub(super) fn take(&mut self) -> Option<Arc<dyn File>> {
        self.ordered = 0;
        let (reply, answer) = mpsc::channel();
        self.send(Order::Take(reply));
        answer.recv().ok().flatten()
    }

    fn send(&self, order: Order) {
        if let Some(orders) = &self.orders {
            // A thread that has ended is found out by `take`, which then gets no answer.
            let _ = orders.send(order);
        }
    }
}

impl Drop for Preparer {
    fn drop(&mut self) {
        self.orders = None;
        if let Some(thread) = self.thread.take() {
            // A panic there has cost zeroes, nothing else.
            let _ = thread.join();
        }
    }
}

impl Worker {
    fn run(mut self, inbox: &Receiver<Order>) {
        loop {
            let order = match self.done < self.goal {
                true => match inbox.try_recv() {
                    Ok(order) => order,
                    Err(TryRecvError::Disconnected) => return,
                    Err(TryRecvError::Empty) => {
                        self.step();
                        continue;
                    }
                },
                false => match inbox.recv() {
                    Ok(order) => order,
                    Err(_) => return,
                },
            };
            match order {
                Order::Reach(goal) => self.goal = goal,
                Order::Take(reply) => {
                    (self.done, self.goal) = (0, 0);
                    // The writer waits for this answer unless it has gone.
                    let _ = reply.send(self.file.take());
                }
            }
        }
    }

    fn step(&mut self) {
        let bytes = STEP_BYTES.min(self.goal - self.done);
        match self.write_zeroes(bytes) {
            Ok(()) => self.done += bytes,
            Err(error) => {
                let path = self.path.display();
                tracing::warn!(%error, %path, "cannot prepare the next log segment");
                // Not again until the writer has taken what there is.
                self.goal = self.done;
            }
        }
    }

    fn write_zeroes(&mut self, bytes: u64) -> io::Result<()> {
        let file = match &self.file {
            Some(file) => file,
            None => self.file.insert(self.files.create(&self.path)?),
        };
        write_zeroes(&**file, self.done, self.done + bytes)?;
        file.sync_data()
    }
}

/// Writes zeroes from one offset to another, without a sync.
pub(super) fn write_zeroes(file: &dyn File, from: u64, to: u64) -> io::Result<()> {
    static ZEROES: [u8; 64 << 10] = [0; 64 << 10];
    let mut at = from;
    while at < to {
        let bytes = (ZEROES.len() as u64).min(to - at);
        file.write_all_at(&ZEROES[..usize::try_from(bytes).unwrap_or(ZEROES.len())], at)?;
        at += bytes;
    }
    Ok(())
}
