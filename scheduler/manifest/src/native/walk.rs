//! A walk over a parsed file that remembers its path and collects faults.
//!
//! **Invariant:** `Fields::end` reports every field that nobody asked for.

use crate::decode::{has_zero_in_front, kind_of, nearly_a_number, scalar, zero_in_front};
use crate::finding::{At, Findings};
use crate::text::{nearest, printable_line};
use serde_json::{Map, Value};
use std::collections::BTreeMap;

/// The fields of one mapping.
pub(super) struct Fields<'a> {
    path: String,
    map: &'a Map<String, Value>,
    asked: Vec<&'static str>,
}

impl<'a> Fields<'a> {
    /// The mapping at a path; anything else is a fault.
    pub(super) fn open(path: &str, value: &'a Value, faults: &mut Findings) -> Option<Self> {
        match value {
            Value::Object(map) => Some(Self { path: path.to_owned(), map, asked: Vec::new() }),
            other => {
                faults.fault(&At::of(path), format!("must be a mapping, is {}", kind_of(other)));
                None
            }
        }
    }

    /// Path of one of the fields.
    pub(super) fn at(&self, key: &str) -> String {
        if self.path.is_empty() { key.to_owned() } else { format!("{}.{key}", self.path) }
    }

    /// A field; a null counts as left out.
    pub(super) fn get(&mut self, key: &'static str) -> Option<&'a Value> {
        if !self.asked.contains(&key) {
            self.asked.push(key);
        }
        self.map.get(key).filter(|value| !value.is_null())
    }

    /// A field that must be there.
    pub(super) fn need(&mut self, key: &'static str, faults: &mut Findings) -> Option<&'a Value> {
        let value = self.get(key);
        if value.is_none() {
            faults.fault(&At::of(&self.at(key)), "missing");
        }
        value
    }

    /// Text.
    pub(super) fn text(&mut self, key: &'static str, faults: &mut Findings) -> Option<String> {
        let value = self.get(key)?;
        text(&self.at(key), value, faults)
    }

    /// A list of texts; left out = empty.
    pub(super) fn texts(&mut self, key: &'static str, faults: &mut Findings) -> Vec<String> {
        let path = self.at(key);
        self.list(key, faults)
            .iter()
            .enumerate()
            .filter_map(|(index, item)| text(&format!("{path}[{index}]"), item, faults))
            .collect()
    }

    /// A list; left out = empty.
    pub(super) fn list(&mut self, key: &'static str, faults: &mut Findings) -> &'a [Value] {
        match self.get(key) {
            None => &[],
            Some(Value::Array(items)) => items,
            Some(other) => {
                faults.fault(
                    &At::of(&self.at(key)),
                    format!("must be a list, is {}", kind_of(other)),
                );
                &[]
            }
        }
    }

    /// Names and texts; left out = none.
    pub(super) fn text_map(
        &mut self,
        key: &'static str,
        faults: &mut Findings,
    ) -> BTreeMap<String, String> {
        self.map_of(key, "names to texts", faults, text)
    }

    /// Names and whole numbers; left out = none.
    pub(super) fn count_map(
        &mut self,
        key: &'static str,
        faults: &mut Findings,
    ) -> BTreeMap<String, u64> {
        self.map_of(key, "names to whole numbers", faults, |path, value, faults| {
            let number = value.as_u64();
            if number.is_none() {
                faults
                    .fault(&At::of(path), format!("must be a whole number, is {}", kind_of(value)));
            }
            number
        })
    }

    fn map_of<T>(
        &mut self,
        key: &'static str,
        what: &str,
        faults: &mut Findings,
        read: impl Fn(&str, &Value, &mut Findings) -> Option<T>,
    ) -> BTreeMap<String, T> {
        let path = self.at(key);
        match self.get(key) {
            None => BTreeMap::new(),
            Some(Value::Object(map)) => map
                .iter()
                .filter_map(|(key, value)| {
                    let path = format!("{path}.{}", printable_line(key));
                    Some((key.clone(), read(&path, value, faults)?))
                })
                .collect(),
            Some(_) => {
                faults.fault(&At::of(&path), format!("must be a mapping of {what}"));
                BTreeMap::new()
            }
        }
    }

    /// True or false; left out = false.
    pub(super) fn flag(&mut self, key: &'static str, faults: &mut Findings) -> bool {
        let Some(value) = self.get(key) else { return false };
        if !value.is_boolean() {
            faults.fault(
                &At::of(&self.at(key)),
                format!("must be true or false, is {}", kind_of(value)),
            );
        }
        value.as_bool().unwrap_or_default()
    }

    /// A whole number that is not negative.
    pub(super) fn count(&mut self, key: &'static str, faults: &mut Findings) -> Option<u32> {
        self.number(key, (0, u32::MAX.into()), faults)
    }

    /// A whole number.
    pub(super) fn whole(&mut self, key: &'static str, faults: &mut Findings) -> Option<i32> {
        self.number(key, (i32::MIN.into(), i32::MAX.into()), faults)
    }

    fn number<T: TryFrom<i64>>(
        &mut self,
        key: &'static str,
        (min, max): (i64, i64),
        faults: &mut Findings,
    ) -> Option<T> {
        let value = self.get(key)?;
        let number = value.as_i64().and_then(|n| T::try_from(n).ok());
        if number.is_none() {
            let (nearly, is) = (nearly_a_number(value), kind_of(value));
            let range = format!("must be a whole number from {min} to {max}{nearly}, is {is}");
            faults.fault(&At::of(&self.at(key)), range);
        }
        number
    }

    /// An amount, read by one of the functions of `unit`.
    pub(super) fn amount<T>(
        &mut self,
        key: &'static str,
        read: impl Fn(&str) -> Result<T, String>,
        faults: &mut Findings,
    ) -> Option<T> {
        let value = self.get(key)?;
        let amount = match scalar(value) {
            Some(text) if has_zero_in_front(&text) => Err(zero_in_front(&text)),
            Some(text) => read(&text),
            None => Err(format!("must be an amount, is {}", kind_of(value))),
        };
        amount.map_err(|why| faults.fault(&At::of(&self.at(key)), why)).ok()
    }

    /// A bound that was read. Left out it is none, which is 0 in a job; whoever writes 0 means something else.
    pub(super) fn bound<T: PartialEq + Default>(
        &self,
        key: &str,
        read: Option<T>,
        faults: &mut Findings,
    ) -> T {
        if read == Some(T::default()) {
            faults.fault(&At::of(&self.at(key)), "is 0; leave it out where there is no bound");
        }
        read.unwrap_or_default()
    }

    /// One of a few words; left out = `None`.
    pub(super) fn word<T: Copy>(
        &mut self,
        key: &'static str,
        words: &[(&'static str, T)],
        faults: &mut Findings,
    ) -> Option<T> {
        let value = self.get(key)?;
        let found = value.as_str().and_then(|text| words.iter().find(|(word, _)| *word == text));
        if found.is_none() {
            let all: Vec<_> = words.iter().map(|(word, _)| *word).collect();
            faults.fault(
                &At::of(&self.at(key)),
                format!("{} is none of {}", kind_of(value), all.join(", ")),
            );
        }
        found.map(|(_, meaning)| *meaning)
    }

    /// Reports the fields that nobody asked for.
    pub(super) fn end(self, faults: &mut Findings) {
        for key in self.map.keys().filter(|key| !self.asked.contains(&key.as_str())) {
            let problem = match nearest(key, self.asked.iter().copied()) {
                Some(near) => format!("unknown field; is `{near}` meant?"),
                None => format!("unknown field; known are {}", self.asked.join(", ")),
            };
            faults.fault(&At::of(&self.at(&printable_line(key))), problem);
        }
    }
}

/// Text at a path.
pub(super) fn text(path: &str, value: &Value, faults: &mut Findings) -> Option<String> {
    let text = value.as_str();
    if text.is_none() {
        faults.fault(
            &At::of(path),
            format!("must be text, is {} (put it in quotes)", kind_of(value)),
        );
    }
    text.map(str::to_owned)
}
