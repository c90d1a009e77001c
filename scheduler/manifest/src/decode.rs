//! From a parsed document to typed structs, through serde, with every fault and its path.
//!
//! A struct of a front-end names the fields that we use. Any other field is looked up in the front-end's
//! [`Rest`]: known and safe to leave aside (a note), known but not supported (a fault), or unknown (a fault).
//! A value of the wrong type is a fault too, and reading goes on with a neutral value in its place, so
//! that all faults of a document come at once.
//!
//! **Invariant:** no field of a document is passed over without a fault or a note, unless it is null or empty.

use crate::finding::{At, Findings, quote};
use crate::text::nearest;
use serde::Deserialize;
use serde::de::value::{StrDeserializer, StringDeserializer};
use serde::de::{
    DeserializeOwned, DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor, value,
};
use serde_json::{Map, Value};
use std::cell::RefCell;

/// What becomes of a field that no struct names.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Verdict {
    /// It has no part in where the members go; why.
    Ignored(&'static str),
    /// It matters, and we do not honour it; why.
    Refused(&'static str),
}

/// Fields of one struct that share a verdict: the struct, the fields, the verdict.
pub(crate) type Rest = &'static [(&'static str, &'static [&'static str], Verdict)];

/// A number or text that stands for an amount, as it was written.
#[derive(Clone, PartialEq, Eq, Debug, Default, Deserialize)]
pub(crate) struct Scalar(pub(crate) String);

const SCALAR: &str = "Scalar";

/// A value of a type, made of a document; faults and notes go to `findings`.
pub(crate) fn decode<T: DeserializeOwned + Default>(
    at: &At,
    value: &Value,
    rest: &[Rest],
    findings: &mut Findings,
) -> T {
    let sink = RefCell::new(std::mem::take(findings));
    let reader = Reader { value, at: Link::Start(at), owner: None, rest, sink: &sink };
    let read = T::deserialize(reader);
    *findings = sink.into_inner();
    read.unwrap_or_else(|error| {
        findings.fault(at, error.to_string());
        T::default()
    })
}

/// A place on the way down; a path is made of it only when there is something to say.
#[derive(Clone, Copy)]
enum Link<'a> {
    Start(&'a At),
    Field(&'a Link<'a>, &'a str),
    Index(&'a Link<'a>, usize),
}

impl Link<'_> {
    fn at(&self) -> At {
        match self {
            Self::Start(at) => (*at).clone(),
            Self::Field(above, key) => above.at().field(key),
            Self::Index(above, index) => above.at().index(*index),
        }
    }
}

/// One value on its way into a type.
#[derive(Clone, Copy)]
struct Reader<'a> {
    value: &'a Value,
    at: Link<'a>,
    /// Struct and field that this value is of.
    owner: Option<(Owner, &'a str)>,
    rest: &'a [Rest],
    sink: &'a RefCell<Findings>,
}

/// A struct by its name and the fields that it names.
#[derive(Clone, Copy)]
struct Owner {
    name: &'static str,
    fields: &'static [&'static str],
}

static NOTHING: Value = Value::Null;

impl<'a> Reader<'a> {
    /// Says that the value is not what it must be.
    fn wrong(&self, wanted: &str) {
        let is = kind_of(self.value);
        self.sink.borrow_mut().unread(&self.at.at(), format!("must be {wanted}, is {is}"));
    }

    fn map(&self, wanted: &str) -> Option<&'a Map<String, Value>> {
        let map = self.value.as_object();
        if map.is_none() && !self.value.is_null() {
            self.wrong(wanted);
        }
        map
    }

    fn verdict(&self, owner: &str, key: &str) -> Option<Verdict> {
        self.rest
            .iter()
            .copied()
            .flatten()
            .find(|(name, fields, _)| *name == owner && fields.contains(&key))
            .map(|(_, _, verdict)| *verdict)
    }

    /// A field that the struct does not have.
    fn left_over(&self, owner: Owner, key: &str) {
        let mut findings = self.sink.borrow_mut();
        let at = self.at.at();
        if says_nothing(self.value) && self.verdict(owner.name, key).is_some() {
            return;
        }
        match self.verdict(owner.name, key) {
            Some(Verdict::Ignored(why)) => findings.note(&at, format!("ignored: {why}")),
            Some(Verdict::Refused(why)) if asks_for_something(self.value) => {
                findings.fault(&at, format!("is not supported: {why}"));
            }
            Some(Verdict::Refused(_)) => findings.note(&at, "ignored: asks for nothing"),
            None => findings.fault(&at, self.unknown(owner, key)),
        }
    }

    /// What to say of a field that is not known: most are slips of the hand.
    fn unknown(&self, owner: Owner, key: &str) -> String {
        let lists = self.rest.iter().copied().flatten();
        let others =
            lists.filter(|(name, ..)| *name == owner.name).flat_map(|(_, fields, _)| *fields);
        match nearest(key, owner.fields.iter().chain(others).copied()) {
            Some(near) => format!("unknown field; is `{near}` meant?"),
            None => "unknown field".to_owned(),
        }
    }

    fn number<N: TryFrom<i128> + Default>(&self, lowest: i128, highest: i128) -> N {
        let number = match self.value {
            Value::Number(number) => number
                .as_i64()
                .map(i128::from)
                .or_else(|| number.as_u64().map(i128::from))
                .filter(|number| (lowest..=highest).contains(number)),
            _ => None,
        };
        if number.is_none() {
            let nearly = nearly_a_number(self.value);
            self.wrong(&format!("a whole number from {lowest} to {highest}{nearly}"));
        }
        number.and_then(|number| N::try_from(number).ok()).unwrap_or_default()
    }
}

/// Whether a value is no more than a place for one.
fn says_nothing(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Array(items) => items.is_empty(),
        Value::Object(map) => map.is_empty(),
        Value::Bool(_) | Value::Number(_) | Value::String(_) => false,
    }
}

/// Whether a value asks for anything: tools write out empty lists and `false` for what nobody asked.
fn asks_for_something(value: &Value) -> bool {
    match value {
        Value::Null | Value::Bool(false) => false,
        Value::Bool(true) | Value::Number(_) => true,
        Value::String(text) => !text.is_empty(),
        Value::Array(items) => !items.is_empty(),
        Value::Object(map) => !map.is_empty(),
    }
}

/// What to add to what a whole number must be: how a text that is nearly one becomes one.
pub(crate) fn nearly_a_number(value: &Value) -> &'static str {
    match value.as_str() {
        Some(text) if has_zero_in_front(text) => " without a zero in front",
        Some(text) if text.parse::<i128>().is_ok() => " without quotes",
        _ => "",
    }
}

/// Whether a number is written as in `010`: some readers of YAML take that for ten, others for eight.
pub(crate) fn has_zero_in_front(text: &str) -> bool {
    text.len() > 1 && text.starts_with('0') && text.bytes().all(|byte| byte.is_ascii_digit())
}

/// What to say of such an amount.
pub(crate) fn zero_in_front(text: &str) -> String {
    let plain = text.trim_start_matches('0');
    let plain = if plain.is_empty() { "0" } else { plain };
    format!("{} may be read as an octal number: write {}", quote(text), quote(plain))
}

/// What a value is, for people.
pub(crate) fn kind_of(value: &Value) -> String {
    match value {
        Value::Null => "nothing".to_owned(),
        Value::Bool(bool) => bool.to_string(),
        Value::Number(number) => number.to_string(),
        Value::String(text) => quote(text),
        Value::Array(_) => "a list".to_owned(),
        Value::Object(_) => "a mapping".to_owned(),
    }
}

macro_rules! whole_numbers {
    ($($method:ident, $visit:ident, $type:ty;)*) => {$(
        fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Self::Error> {
            visitor.$visit(self.number::<$type>(<$type>::MIN.into(), <$type>::MAX.into()))
        }
    )*};
}

impl<'de> Deserializer<'de> for Reader<'_> {
    type Error = value::Error;

    /// Only for fields that are kept as they are.
    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Self::Error> {
        self.value.clone().deserialize_any(visitor).map_err(serde::de::Error::custom)
    }

    fn deserialize_bool<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Self::Error> {
        if !self.value.is_boolean() {
            self.wrong("true or false");
        }
        visitor.visit_bool(self.value.as_bool().unwrap_or_default())
    }

    whole_numbers! {
        deserialize_i32, visit_i32, i32;
        deserialize_i64, visit_i64, i64;
        deserialize_u32, visit_u32, u32;
        deserialize_u64, visit_u64, u64;
    }

    fn deserialize_str<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Self::Error> {
        if !self.value.is_string() {
            self.wrong(match self.value {
                Value::Bool(_) | Value::Number(_) => "text (put it in quotes)",
                _ => "text",
            });
        }
        visitor.visit_str(self.value.as_str().unwrap_or_default())
    }

    fn deserialize_string<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Self::Error> {
        self.deserialize_str(visitor)
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Self::Error> {
        if self.value.is_null() { visitor.visit_none() } else { visitor.visit_some(self) }
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        visitor: V,
    ) -> Result<V::Value, Self::Error> {
        if name != SCALAR {
            return visitor.visit_newtype_struct(self);
        }
        let text = scalar(self.value).unwrap_or_else(|| {
            self.wrong("an amount");
            String::new()
        });
        visitor.visit_newtype_struct(StringDeserializer::new(text))
    }

    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Self::Error> {
        let items = self.value.as_array().map(Vec::as_slice);
        if items.is_none() && !self.value.is_null() {
            self.wrong("a list");
        }
        visitor.visit_seq(Items { of: self, items: items.unwrap_or_default().iter(), next: 0 })
    }

    fn deserialize_map<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Self::Error> {
        let map = self.map("a mapping");
        visitor.visit_map(Entries { of: self, owner: None, entries: pairs(map), value: None })
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Self::Error> {
        let map = self.map("a mapping");
        let owner = Some(Owner { name, fields });
        visitor.visit_map(Entries { of: self, owner, entries: pairs(map), value: None })
    }

    /// serde asks this way for fields that no struct has.
    fn deserialize_ignored_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Self::Error> {
        if let Some((owner, key)) = self.owner {
            self.left_over(owner, key);
        }
        visitor.visit_unit()
    }

    serde::forward_to_deserialize_any! {
        i8 i16 i128 u8 u16 u128 f32 f64 char bytes byte_buf unit unit_struct tuple tuple_struct
        enum identifier
    }
}

/// Text of a scalar that stands for an amount. Binary fractions are written in their shortest form,
/// which gives back the digits of the file for any number of up to 15 digits.
pub(crate) fn scalar(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.trim().to_owned()),
        Value::Number(number) => Some(match number.as_f64() {
            Some(float) if number.is_f64() => float.to_string(),
            _ => number.to_string(),
        }),
        _ => None,
    }
}

type Pairs<'a> = Option<serde_json::map::Iter<'a>>;

fn pairs(map: Option<&Map<String, Value>>) -> Pairs<'_> {
    map.map(Map::iter)
}

struct Items<'a> {
    of: Reader<'a>,
    items: std::slice::Iter<'a, Value>,
    next: usize,
}

impl<'de> SeqAccess<'de> for Items<'_> {
    type Error = value::Error;

    fn next_element_seed<T: DeserializeSeed<'de>>(
        &mut self,
        seed: T,
    ) -> Result<Option<T::Value>, Self::Error> {
        let Some(value) = self.items.next() else { return Ok(None) };
        let at = Link::Index(&self.of.at, self.next);
        self.next += 1;
        let of = self.of;
        if value.is_null() {
            of.sink.borrow_mut().unread(&at.at(), "must not be empty");
        }
        seed.deserialize(Reader { value, at, owner: None, ..of }).map(Some)
    }
}

struct Entries<'a> {
    of: Reader<'a>,
    owner: Option<Owner>,
    entries: Pairs<'a>,
    value: Option<(&'a str, &'a Value)>,
}

impl<'de> MapAccess<'de> for Entries<'_> {
    type Error = value::Error;

    fn next_key_seed<K: DeserializeSeed<'de>>(
        &mut self,
        seed: K,
    ) -> Result<Option<K::Value>, Self::Error> {
        let Some((key, value)) = self.entries.as_mut().and_then(Iterator::next) else {
            return Ok(None);
        };
        self.value = Some((key, value));
        seed.deserialize(StrDeserializer::new(key)).map(Some)
    }

    fn next_value_seed<T: DeserializeSeed<'de>>(
        &mut self,
        seed: T,
    ) -> Result<T::Value, Self::Error> {
        let (key, value) = self.value.take().unwrap_or(("", &NOTHING));
        let at = Link::Field(&self.of.at, key);
        let owner = self.owner.map(|owner| (owner, key));
        seed.deserialize(Reader { value, at, owner, ..self.of })
    }
}

/// One of a few words.
pub(crate) fn word<T: Copy>(
    at: &At,
    text: &str,
    words: &[(&'static str, T)],
    findings: &mut Findings,
) -> Option<T> {
    let found = words.iter().find(|(word, _)| *word == text).map(|(_, meaning)| *meaning);
    if found.is_none() {
        let all: Vec<_> = words.iter().map(|(word, _)| *word).collect();
        findings.fault(at, format!("{} is none of {}", quote(text), all.join(", ")));
    }
    found
}
