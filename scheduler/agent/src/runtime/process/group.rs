//! A process group that is known by more than its number.
//!
//! **Invariant:** a number that the kernel has given to somebody else is never signalled.

use rustix::io::Errno;
use rustix::process::test_kill_process_group;
use rustix::process::{Pid, PidfdFlags, Signal, kill_process_group, pidfd_open};
use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// The group led by one process, told from later owners of its number by the leader's start time.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Group {
    /// Number of the leader and of the group.
    pub(super) pid: i32,
    /// When the leader was started, in clock ticks since the machine was.
    pub(super) start_ticks: u64,
}

/// What `/proc/PID/stat` says.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Stat {
    state: u8,
    group: i32,
    start_ticks: u64,
}

impl Stat {
    fn is_dead(self) -> bool {
        matches!(self.state, b'Z' | b'X' | b'x')
    }
}

/// Who has the leader's number now.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Owner {
    /// The leader, which lives.
    Leader,
    /// The leader, dead but not yet waited for.
    Corpse,
    Nobody,
    /// A process that was started later.
    Stranger,
}

impl Group {
    /// The group of a process that the caller has just started and not waited for.
    pub(super) fn of_child(pid: u32) -> io::Result<Group> {
        let pid = i32::try_from(pid).map_err(io::Error::other)?;
        let stat = stat(pid)?.ok_or_else(|| io::Error::other("the new process is gone"))?;
        Ok(Group { pid, start_ticks: stat.start_ticks })
    }

    fn owner(self) -> io::Result<Owner> {
        Ok(match stat(self.pid)? {
            None => Owner::Nobody,
            Some(stat) if stat.start_ticks != self.start_ticks => Owner::Stranger,
            Some(stat) if stat.is_dead() => Owner::Corpse,
            Some(_) => Owner::Leader,
        })
    }

    /// Whether the leader lives.
    pub(super) fn leader_lives(self) -> io::Result<bool> {
        Ok(self.owner()? == Owner::Leader)
    }

    /// Whether any process of the group lives.
    pub(super) fn lives(self) -> io::Result<bool> {
        match self.owner()? {
            Owner::Leader => return Ok(true),
            // The kernel gives no number away that a group still bears.
            Owner::Stranger => return Ok(false),
            Owner::Corpse | Owner::Nobody => {}
        }
        let Some(pid) = Pid::from_raw(self.pid) else { return Ok(false) };
        if test_kill_process_group(pid) == Err(Errno::SRCH) {
            return Ok(false);
        }
        for entry in fs::read_dir("/proc")? {
            let name = entry?.file_name();
            let Some(pid) = name.to_str().and_then(|name| name.parse().ok()) else { continue };
            if stat(pid)?.is_some_and(|stat| stat.group == self.pid && !stat.is_dead()) {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Signals all processes of the group, if the number is still theirs.
    pub(super) fn signal(self, signal: Signal) -> io::Result<()> {
        let (Some(pid), false) = (Pid::from_raw(self.pid), self.owner()? == Owner::Stranger) else {
            return Ok(());
        };
        match kill_process_group(pid, signal) {
            Ok(()) | Err(Errno::SRCH) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// Something that can be waited on until the leader is dead; `None` if it is already.
    pub(super) fn watch(self) -> io::Result<Option<Watch>> {
        let Some(pid) = Pid::from_raw(self.pid) else { return Ok(None) };
        let fd = match pidfd_open(pid, PidfdFlags::NONBLOCK) {
            Ok(fd) => fd,
            Err(Errno::SRCH) => return Ok(None),
            Err(error) => return Err(error.into()),
        };
        // The number may have changed hands just before it was opened.
        match self.owner()? {
            Owner::Leader => {
                #[expect(
                    deprecated,
                    reason = "its successor is unsafe only because a type may lie about its \
                              descriptor; OwnedFd keeps the one it has open"
                )]
                let fd = AsyncFd::with_interest(fd, Interest::READABLE)?;
                Ok(Some(Watch(fd)))
            }
            Owner::Corpse | Owner::Nobody | Owner::Stranger => Ok(None),
        }
    }
}

/// See [`Group::watch`].
pub(super) struct Watch(AsyncFd<OwnedFd>);

impl Watch {
    /// Waits until the leader is dead. May be dropped and called again.
    pub(super) async fn dead(&self) -> io::Result<()> {
        self.0.readable().await.map(|_| ())
    }
}

/// `None` if there is no such process.
fn stat(pid: i32) -> io::Result<Option<Stat>> {
    let text = match fs::read(format!("/proc/{pid}/stat")) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        // Died between the opening and the reading.
        Err(error) if error.raw_os_error() == Some(Errno::SRCH.raw_os_error()) => return Ok(None),
        Err(error) => return Err(error),
    };
    parse(&text).map(Some).ok_or_else(|| io::Error::other(format!("cannot read /proc/{pid}/stat")))
}

/// Fields after the name, which stands in parentheses and may hold anything (proc(5)): state is
/// the first of them, group the third, start time the twentieth.
fn parse(text: &[u8]) -> Option<Stat> {
    let end = text.iter().rposition(|byte| *byte == b')')?;
    let mut fields = std::str::from_utf8(text.get(end + 1..)?).ok()?.split_ascii_whitespace();
    let state = *fields.next()?.as_bytes().first()?;
    let group = fields.nth(1)?.parse().ok()?;
    let start_ticks = fields.nth(16)?.parse().ok()?;
    Some(Stat { state, group, start_ticks })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_its_own_line() {
        let me = i32::try_from(std::process::id()).unwrap();
        let stat = stat(me).unwrap().unwrap();
        assert!(!stat.is_dead() && stat.start_ticks > 0);
        assert_eq!(stat.group, rustix::process::getpgrp().as_raw_nonzero().get());
    }

    #[test]
    fn names_may_hold_anything() {
        let line = b"7 (a) R 1) Z 1 42 42 0 -1 4 0 0 0 0 0 0 0 0 20 0 1 0 987 0 0";
        assert_eq!(parse(line), Some(Stat { state: b'Z', group: 42, start_ticks: 987 }));
        assert_eq!(parse(b"7 (a) R"), None);
        assert_eq!(parse(b""), None);
    }

    #[test]
    fn a_stranger_is_left_alone() {
        let mut child = std::process::Command::new("/bin/sh")
            .args(["-c", "read word; exit 7"])
            .stdin(std::process::Stdio::piped())
            .spawn()
            .unwrap();
        let real = Group::of_child(child.id()).unwrap();
        let recycled = Group { start_ticks: real.start_ticks - 1, ..real };
        assert!(real.leader_lives().unwrap() && !recycled.leader_lives().unwrap());
        assert!(!recycled.lives().unwrap());
        recycled.signal(Signal::KILL).unwrap();
        drop(child.stdin.take());
        assert_eq!(child.wait().unwrap().code(), Some(7), "it was not killed");
    }
}
