//! Manifests on disk or on stdin, read into jobs.
//!
//! **Invariant:** what a manifest says and muster leaves aside is told on stderr.

use crate::exit::Failure;
use crate::output::Output;
use manifest::{Fault, Note, TEXT_BYTES_MAX, Understood};
use proto::v1::{JobSpec, TranslateManifestResponse};
use std::io::Read;

/// What `--help` says of manifests.
pub const HELP: &str = manifest::native::EXAMPLE;

/// Reads a manifest of any kind, or stdin for `-`, without asking a server; notes go to stderr.
pub fn read(path: &str, output: &Output) -> Result<JobSpec, Failure> {
    settle(path, manifest::read(&text(path)?), output)
}

/// What a server read in a manifest; notes go to stderr.
pub fn told(
    path: &str,
    answer: TranslateManifestResponse,
    output: &Output,
) -> Result<JobSpec, Failure> {
    let faults = answer.faults.into_iter();
    let faults: Vec<Fault> =
        faults.map(|fault| Fault { path: fault.path, problem: fault.text }).collect();
    let notes = answer.notes.into_iter();
    let notes = notes.map(|note| Note { path: note.path, text: note.text }).collect();
    let read = match answer.spec.filter(|_| faults.is_empty()) {
        Some(spec) => Ok(Understood { spec, notes }),
        None => Err(faults),
    };
    settle(path, read, output)
}

fn settle(
    path: &str,
    read: Result<Understood, Vec<Fault>>,
    output: &Output,
) -> Result<JobSpec, Failure> {
    let Understood { spec, notes } = read.map_err(|faults| refused(path, &faults))?;
    for line in lines(&notes) {
        output.say(&format!("note: {line}"));
    }
    Ok(spec)
}

/// Notes in lines: fields left aside for one reason share a line, so that what was read in a way worth knowing
/// is not lost among them; that comes last.
fn lines(notes: &[Note]) -> Vec<String> {
    let mut aside: Vec<(&Note, usize)> = Vec::new();
    let mut lines = Vec::new();
    for note in notes {
        if !note.text.starts_with("ignored") {
            lines.push(note.to_string());
        } else if let Some((_, more)) = aside.iter_mut().find(|(first, _)| first.text == note.text)
        {
            *more += 1;
        } else {
            aside.push((note, 0));
        }
    }
    let line = |(first, more): (&Note, usize)| match more {
        0 => first.to_string(),
        1 => format!("{} and 1 field more: {}", first.path, first.text),
        more => format!("{} and {more} fields more: {}", first.path, first.text),
    };
    aside.into_iter().map(line).chain(lines).collect()
}

/// The text of a file, or of stdin for `-`; no more of it than one byte past what is read anyway.
pub fn text(path: &str) -> Result<String, Failure> {
    let cannot = |error: std::io::Error| Failure::usage(format!("cannot read {path}: {error}"));
    let mut bytes = Vec::new();
    let mut source: Box<dyn Read> = if path == "-" {
        Box::new(std::io::stdin())
    } else {
        Box::new(std::fs::File::open(path).map_err(cannot)?)
    };
    source.by_ref().take(TEXT_BYTES_MAX as u64 + 1).read_to_end(&mut bytes).map_err(cannot)?;
    manifest::utf8(bytes).map_err(|fault| refused(path, &[fault]))
}

fn refused(path: &str, faults: &[Fault]) -> Failure {
    let next = "`muster submit --help` shows the format of native jobs";
    if let [only] = faults {
        return Failure::usage(format!("{path}: {only}")).next(next);
    }
    let mut failure = Failure::usage(format!("{path}: {} faults", faults.len())).next(next);
    failure.details = faults.iter().map(ToString::to_string).collect();
    failure
}

/// The job as a native job file.
pub fn native(spec: &JobSpec) -> Result<String, Failure> {
    manifest::native::to_yaml(spec)
        .map_err(|why| Failure::refused(format!("cannot write YAML: {why}")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::exit::Exit;
    use crate::output::Format;
    use std::io::Write;

    fn file(bytes: &[u8]) -> tempfile::NamedTempFile {
        let mut file = tempfile::NamedTempFile::new().expect("a file");
        file.write_all(bytes).expect("written");
        file
    }

    fn load_bytes(bytes: &[u8]) -> Result<JobSpec, Failure> {
        let file = file(bytes);
        read(&file.path().display().to_string(), &Output::new(Format::Table, true))
    }

    #[test]
    fn a_manifest_of_any_kind_is_loaded_and_said_again() {
        let spec = load_bytes(b"{bundles: [{GPU: 1}], strategy: STRICT_SPREAD}").expect("a job");
        let native = native(&spec).expect("written");
        assert_eq!(load_bytes(native.as_bytes()).expect("own output"), spec, "{native}");
    }

    #[test]
    fn notes_of_one_reason_share_a_line() {
        let note = |path: &str, text: &str| Note { path: path.to_owned(), text: text.to_owned() };
        let notes = [
            note("a.image", "ignored: no say"),
            note("a.key", "read as the level rack"),
            note("b.image", "ignored: no say"),
            note("c", "ignored: a hint"),
            note("b.args", "ignored: no say"),
        ];
        assert_eq!(
            lines(&notes),
            [
                "a.image and 2 fields more: ignored: no say",
                "c: ignored: a hint",
                "a.key: read as the level rack"
            ]
        );
    }

    #[test]
    fn faults_name_the_file_and_end_as_wrong_usage() {
        let one = load_bytes(b"{bundles: [{GPU: 1}], colour: red}").expect_err("unknown field");
        assert_eq!(one.exit, Exit::Usage);
        assert!(one.message.ends_with(": colour: unknown field"), "{}", one.message);
        let two = load_bytes(b"{bundles: 3, colour: red}").expect_err("two faults");
        assert_eq!(two.details.len(), 2);
        for bad in [&b"\xff\xfe"[..], &vec![b'a'; TEXT_BYTES_MAX + 10], b""] {
            assert_eq!(load_bytes(bad).expect_err("no manifest").exit, Exit::Usage);
        }
        let missing = read("/no/such/file", &Output::new(Format::Table, true));
        assert!(missing.expect_err("no file").message.starts_with("cannot read"));
    }
}
