//! Starting a replica's process group.
//!
//! **Invariant:** the program runs only after its group is on record; if the agent dies before, the
//! shim reads the end of its input and goes.

use super::environment;
use super::group::Group;
use super::record::Store;
use crate::replica::Assignment;
use std::io::{self, Write};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};

/// Leads the group. `$0` is the file for the exit code, the rest is the program. Signals to the
/// group reach the program too; the shim outlives it to write down how it ended.
const SHIM: &str = r#"
IFS= read -r word || exit 125
trap : HUP INT QUIT TERM
"$@" </dev/null
code=$?
echo "$code" >"$0"
exit "$code"
"#;

/// What the shim waits for.
const GO: &[u8] = b"go\n";

/// A replica whose program runs.
pub(super) struct Launched {
    pub(super) child: Child,
    pub(super) group: Group,
}

/// Starts a replica; blocks for as long as the disk needs. The error is for people.
pub(super) fn launch(store: &Store, assignment: &Assignment) -> Result<Launched, String> {
    let binding = &assignment.binding;
    let disk = |error: io::Error| format!("cannot prepare the replica's files: {error}");
    let env = environment::environment(assignment, |name| std::env::var_os(name))?;
    let folder = store.prepare(binding.id).map_err(disk)?;
    let path = env.get("PATH").map(|path| path.as_os_str());
    let [argv0, arguments @ ..] = &assignment.program.argv[..] else {
        return Err("program.argv is empty".to_owned());
    };
    let program = environment::find(argv0, path, &folder.work())?;
    let (output, errors) = store.logs(binding).map_err(disk)?;
    let mut child = Command::new("/bin/sh")
        .args(["-c", SHIM])
        .arg(folder.exit())
        .arg(program)
        .args(arguments)
        .env_clear()
        .envs(env)
        .current_dir(folder.work())
        .stdin(Stdio::piped())
        .stdout(output)
        .stderr(errors)
        .process_group(0)
        .spawn()
        .map_err(|error| format!("cannot start {argv0:?}: {error}"))?;
    let noted = Group::of_child(child.id()).and_then(|group| {
        store.note(&folder, binding, group)?;
        Ok(group)
    });
    let input = child.stdin.take();
    match noted {
        Ok(group) => {
            // If the shim is gone already, its end is found like any other.
            let _ = input.map(|mut input| input.write_all(GO));
            Ok(Launched { child, group })
        }
        Err(error) => {
            drop(input);
            let _ = child.wait();
            Err(disk(error))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_the_word_nothing_runs() {
        let directory = tempfile::tempdir().unwrap();
        let (exit, trace) = (directory.path().join("exit"), directory.path().join("trace"));
        let status = Command::new("/bin/sh")
            .args(["-c", SHIM])
            .arg(&exit)
            .arg("/usr/bin/touch")
            .arg(&trace)
            .stdin(Stdio::null())
            .status()
            .unwrap();
        assert_eq!(status.code(), Some(125));
        assert!(!exit.exists() && !trace.exists());
    }
}
