//! From text to the documents in it: YAML or JSON, one or several, or the items of a Kubernetes `List`.
//!
//! **Invariant:** time and memory are bounded by the limits below whatever the text is; aliases cannot
//! multiply a small text into a large value.

use crate::finding::{At, Fault};
use serde_json::Value;

/// Longest text read: the servers take 1 MiB.
pub const TEXT_BYTES_MAX: usize = 1 << 20;
/// Most documents of one text: an application is a handful of objects.
const DOCUMENTS_MAX: usize = 64;
/// Deepest nesting: a pod template inside a job inside a list is about 15 deep.
const DEPTH_MAX: usize = 48;
/// Most values of all documents together: a text of 1 MiB holds no more that make sense.
const NODES_MAX: usize = 250_000;
/// Most aliases: people use a few to repeat a pod template.
const ALIASES_MAX: usize = 256;
/// Most values that aliases may stand for altogether.
const ALIASED_NODES_MAX: usize = 20_000;
/// Most bytes of texts and keys that all documents may hold once aliases are replaced by what they stand for.
const EXPANDED_BYTES_MAX: usize = 8 << 20;

/// One document and where it stands in the text.
pub(crate) struct Document {
    pub(crate) at: At,
    pub(crate) value: Value,
}

/// The documents of a text.
pub(crate) fn documents(text: &str) -> Result<Vec<Document>, Fault> {
    let whole = |problem: String| Fault { path: String::new(), problem };
    if text.len() > TEXT_BYTES_MAX {
        let problem = format!("is {} bytes; at most {TEXT_BYTES_MAX} are allowed", text.len());
        return Err(whole(problem));
    }
    let options = serde_saphyr::options! {
        budget: serde_saphyr::budget! {
            max_documents: DOCUMENTS_MAX,
            max_depth: DEPTH_MAX,
            flow_nesting_limit: DEPTH_MAX,
            max_nodes: NODES_MAX,
            max_aliases: ALIASES_MAX,
            max_total_scalar_bytes: EXPANDED_BYTES_MAX,
        },
        alias_limits: serde_saphyr::alias_limits! {
            max_total_replayed_events: ALIASED_NODES_MAX,
        },
        // `on`, `yes` and `n` are texts, as in YAML 1.2: they stand for names more often than for truth.
        strict_booleans: true,
        // `010` is eight to some readers and ten to others: it is for the fields to say what they take.
        leading_zero_numbers_as_strings: true,
        with_snippet: false,
    };
    let values: Vec<Value> = serde_saphyr::from_multiple_with_options(text, options)
        .map_err(|error| whole(plain(&error.to_string())))?;
    let several = values.len() > 1;
    let mut documents = Vec::new();
    for (index, value) in values.into_iter().enumerate() {
        let at = if several { At::root().field("documents").index(index) } else { At::root() };
        flatten(at, value, &mut documents);
    }
    match documents.is_empty() {
        true => Err(whole("is empty: there is no job in it".to_owned())),
        false => Ok(documents),
    }
}

/// A parser's fault without what it says to programmers.
fn plain(error: &str) -> String {
    const ASIDES: [&str; 2] =
        [", set DuplicateKeyPolicy in Options if acceptable", " rejected by the configured policy"];
    let error = error
        .replace(ASIDES[0], "")
        .replace("non-finite float", "no finite number:")
        .replace(ASIDES[1], "")
        .replace("alias replay limit exceeded", "aliases stand for too much");
    crate::text::printable_line(&error)
}

/// A Kubernetes `List` stands for its items.
fn flatten(at: At, value: Value, documents: &mut Vec<Document>) {
    let is_list = value.get("kind").and_then(Value::as_str) == Some("List")
        && value.get("apiVersion").and_then(Value::as_str) == Some("v1");
    match value {
        Value::Object(mut map) if is_list && map.get("items").is_some_and(Value::is_array) => {
            if let Some(Value::Array(items)) = map.remove("items") {
                let at = at.field("items");
                let items = items.into_iter().enumerate();
                documents
                    .extend(items.map(|(index, value)| Document { at: at.index(index), value }));
            }
        }
        value => documents.push(Document { at, value }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problem(text: &str) -> String {
        documents(text).err().map(|fault| fault.to_string()).unwrap_or_default()
    }

    #[test]
    fn several_documents_and_lists() {
        let read = documents("a: 1\n---\n# nothing\n---\nb: 2\n").expect("two");
        assert_eq!(read.len(), 2);
        assert_eq!(read[1].at, At::root().field("documents").index(1));
        let read = documents("apiVersion: v1\nkind: List\nitems: [{a: 1}, {b: 2}]").expect("two");
        assert_eq!(read.len(), 2);
        assert_eq!(read[1].at, At::root().field("items").index(1));
        assert_eq!(documents("{\"a\": 1}").expect("json").len(), 1);
        assert!(problem("").contains("empty"));
    }

    #[test]
    fn bombs_are_refused_before_they_go_off() {
        let deep = format!("a: {}{}", "[".repeat(10_000), "]".repeat(10_000));
        assert!(!problem(&deep).is_empty());
        let block: String = (0..500).map(|depth| format!("{}a:\n", " ".repeat(depth))).collect();
        assert!(!problem(&block).is_empty());
        let mut laughs = "a0: &a0 [x, x, x, x, x, x, x, x, x]\n".to_owned();
        for level in 1..12 {
            let below = format!("*a{}, ", level - 1).repeat(9);
            laughs.push_str(&format!("a{level}: &a{level} [{below}]\n"));
        }
        assert!(!problem(&laughs).is_empty());
        // One long text, repeated: few values, many bytes.
        let long = format!("a: &a {}\nb: [{}]\n", "x".repeat(100_000), "*a, ".repeat(90));
        assert!(problem(&long).contains("ScalarBytes"), "{}", problem(&long));
        assert!(problem("a: 1\na: 2\n").starts_with("duplicate mapping key: a at line 2"));
        assert!(problem("a: .nan").starts_with("no finite number: `.nan` at line 1"));
        let storm = "---\na: 1\n".repeat(1_000);
        assert!(!problem(&storm).is_empty());
        assert!(problem(&"x".repeat(TEXT_BYTES_MAX + 1)).contains("at most"));
    }

    #[test]
    fn odd_texts_are_refused() {
        for bad in ["a: [", "a: 1\na: 2\n", "a: \"\\x\"", "\u{0}", "a: *nobody", "- - -: :", "!!x{"]
        {
            assert!(!problem(bad).is_empty(), "{bad:?}");
        }
    }
}
