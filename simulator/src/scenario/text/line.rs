//! Words of one line, where they stand, and how values are written.
//!
//! **Invariant:** every fault names line and column, what stands there and what was expected.

use crate::scenario::{Latency, PPM};
use scheduler_core::id::Name;
use scheduler_core::job::Priority;
use scheduler_core::unit::{DurationMs, PriceMicroUsd, RttUs};
use scheduler_core::validate;
use std::fmt;

/// Something that cannot be understood.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("line {line}, column {column}: {what}")]
pub struct Fault {
    /// From 1.
    pub line: usize,
    /// From 1, in characters.
    pub column: usize,
    pub what: String,
}

/// What is expected where one of these must stand.
fn one_of(choices: &[&str]) -> String {
    let all = choices.join(", ");
    if choices.len() > 1 { format!("one of {all}") } else { all }
}

/// A piece of a line and where it begins.
#[derive(Clone, Copy, Debug)]
pub(super) struct Word<'a> {
    pub(super) text: &'a str,
    line: usize,
    column: usize,
}

impl<'a> Word<'a> {
    pub(super) fn fault(&self, what: impl fmt::Display) -> Fault {
        Fault { line: self.line, column: self.column, what: what.to_string() }
    }

    fn expected(&self, what: &str) -> Fault {
        self.fault(format!("expected {what}, found {:?}", self.text))
    }

    /// The part from a byte on, which begins a character.
    fn past(&self, byte: usize) -> Self {
        let (before, text) = self.text.split_at(byte);
        Word { text, line: self.line, column: self.column + before.chars().count() }
    }

    fn until(&self, byte: usize) -> Self {
        Word { text: &self.text[..byte], ..*self }
    }

    /// What stands on both sides of `mark`.
    pub(super) fn split(&self, mark: &str) -> Option<(Self, Self)> {
        let at = self.text.find(mark)?;
        Some((self.until(at), self.past(at + mark.len())))
    }

    /// `90s`, `50ms`, `1.5h`, `2d`, `0`.
    pub(super) fn duration(&self) -> Result<DurationMs, Fault> {
        const UNITS: [(&str, f64); 5] =
            [("ms", 1.0), ("s", 1e3), ("m", 6e4), ("h", 3.6e6), ("d", 8.64e7)];
        self.scaled(&UNITS, "a time such as 90s, 50ms, 10m, 2h or 1d").map(DurationMs)
    }

    /// `50ms`, `500us`.
    pub(super) fn rtt(&self) -> Result<RttUs, Fault> {
        const UNITS: [(&str, f64); 3] = [("us", 1.0), ("ms", 1e3), ("s", 1e6)];
        let what = "a round trip such as 50ms or 500us";
        let us = self.scaled(&UNITS, what)?;
        u32::try_from(us).map(RttUs).map_err(|_| self.expected(what))
    }

    /// `8ns`, `2us`, `1.5ms`, in nanoseconds.
    pub(super) fn work(&self) -> Result<u64, Fault> {
        const UNITS: [(&str, f64); 4] = [("ns", 1.0), ("us", 1e3), ("ms", 1e6), ("s", 1e9)];
        self.scaled(&UNITS, "a time such as 8ns, 2us or 5ms")
    }

    fn scaled(&self, units: &[(&str, f64)], what: &str) -> Result<u64, Fault> {
        if self.text == "0" {
            return Ok(0);
        }
        let digits = self.text.find(|c: char| !(c.is_ascii_digit() || c == '.' || c == '_'));
        let (number, unit) = self.text.split_at(digits.unwrap_or(self.text.len()));
        let factor = units.iter().find(|(name, _)| *name == unit).map(|(_, factor)| factor);
        let number = number.replace('_', "").parse::<f64>().ok();
        match (number, factor) {
            // Up to a hundred years, so that sums of times stay far from overflow.
            (Some(number), Some(factor)) if number * factor < 3.2e12 => {
                Ok((number * factor).round() as u64)
            }
            _ => Err(self.expected(what)),
        }
    }

    /// `3ms`, `20s..60s`, `lognormal(4s,0.5)`, `exponential(60s)`.
    pub(super) fn latency(&self) -> Result<Latency, Fault> {
        if let Some((min, max)) = self.split("..") {
            let (min, max) = (min.duration()?, max.duration()?);
            if min > max {
                return Err(self.fault("the range ends before it begins"));
            }
            return Ok(Latency::Uniform { min, max });
        }
        if let Some(inner) = self.inside("exponential(") {
            return Ok(Latency::Exponential { mean: inner.duration()? });
        }
        if let Some(inner) = self.inside("lognormal(") {
            let what = "a median and a sigma, as in lognormal(4s,0.5)";
            let (median, sigma) = inner.split(",").ok_or_else(|| self.expected(what))?;
            let sigma_milli = sigma.decimal(1_000.0, 5_000, "a sigma of 0 to 5")?;
            let sigma_milli = u32::try_from(sigma_milli).unwrap_or(u32::MAX);
            return Ok(Latency::Lognormal { median: median.duration()?, sigma_milli });
        }
        let what = "a time, or a spread as 20s..60s, lognormal(4s,0.5) or exponential(60s)";
        self.duration().map(Latency::Fixed).map_err(|_| self.expected(what))
    }

    fn inside(&self, opening: &str) -> Option<Self> {
        let rest = self.text.strip_prefix(opening)?.strip_suffix(')')?;
        Some(self.past(opening.len()).until(rest.len()))
    }

    /// `2%`, `0.5%`, in millionths.
    pub(super) fn share(&self) -> Result<u32, Fault> {
        let what = "a share such as 2% or 0.5%, at most 100%";
        let Some(number) = self.text.strip_suffix('%') else { return Err(self.expected(what)) };
        let ppm = self.until(number.len()).decimal(1e4, u64::from(PPM), what)?;
        Ok(u32::try_from(ppm).unwrap_or(PPM))
    }

    /// Dollars.
    pub(super) fn price(&self) -> Result<PriceMicroUsd, Fault> {
        self.decimal(1e6, 1_000_000_000, "dollars per GPU and hour, up to 1000").map(PriceMicroUsd)
    }

    /// A decimal number times `factor`.
    pub(super) fn decimal(&self, factor: f64, max: u64, what: &str) -> Result<u64, Fault> {
        let plain = self.text.bytes().all(|b| b.is_ascii_digit() || b == b'.');
        let number = self.text.parse::<f64>().ok().filter(|_| plain).map(|n| (n * factor).round());
        match number {
            Some(number) if number <= max as f64 => Ok(number as u64),
            _ => Err(self.expected(what)),
        }
    }

    /// A whole number from `min` to `max`; `_` may part its digits.
    pub(super) fn number(&self, min: u64, max: u64) -> Result<u64, Fault> {
        let number = self.text.replace('_', "").parse::<u64>().ok();
        let number = number.filter(|number| (min..=max).contains(number));
        number.ok_or_else(|| self.expected(&format!("a number from {min} to {max}")))
    }

    pub(super) fn priority(&self) -> Result<Priority, Fault> {
        let priority = self.text.parse().ok().and_then(|it| validate::priority("", it).ok());
        let wanted = || format!("a priority from {} to {}", Priority::MIN, Priority::MAX);
        priority.ok_or_else(|| self.expected(&wanted()))
    }

    /// Which of these it is.
    pub(super) fn choice(&self, choices: &[&str]) -> Result<usize, Fault> {
        let at = choices.iter().position(|choice| *choice == self.text);
        at.ok_or_else(|| self.expected(&one_of(choices)))
    }

    pub(super) fn name(&self) -> Result<Name, Fault> {
        Name::parse(self.text).map_err(|error| self.fault(format!("{:?} {error}", self.text)))
    }
}

/// The words of a line, one after the other.
pub(super) struct Words<'a> {
    words: Vec<Word<'a>>,
    next: usize,
    end: Word<'a>,
}

impl<'a> Words<'a> {
    /// `number` from 1. What follows a `#` is a remark.
    pub(super) fn new(line: &'a str, number: usize) -> Self {
        let code = line.split('#').next().unwrap_or_default();
        let mut words = Vec::new();
        let whole = Word { text: code, line: number, column: 1 };
        for text in code.split_whitespace() {
            let byte = text.as_ptr().addr() - code.as_ptr().addr();
            words.push(Word { text, ..whole.past(byte) });
        }
        let column = code.trim_end().chars().count() + 1;
        Self { words, next: 0, end: Word { text: "", line: number, column } }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.words.is_empty()
    }

    pub(super) fn peek(&self) -> Option<Word<'a>> {
        self.words.get(self.next).copied()
    }

    /// The next word; `what` is named where there is none.
    pub(super) fn word(&mut self, what: &str) -> Result<Word<'a>, Fault> {
        let word = self.peek();
        self.next += 1;
        word.ok_or_else(|| self.end.fault(format!("expected {what}, found the end of the line")))
    }

    /// The next word, which must be one of these; its position among them.
    pub(super) fn one_of(&mut self, choices: &[&str]) -> Result<(usize, Word<'a>), Fault> {
        let what = one_of(choices);
        let word = self.word(&what)?;
        Ok((word.choice(choices)?, word))
    }

    /// Takes the next word if it is this one.
    pub(super) fn skip(&mut self, text: &str) -> bool {
        let is_it = self.peek().is_some_and(|word| word.text == text);
        self.next += usize::from(is_it);
        is_it
    }

    /// All further words as `key=value`, each at most once, each key one of these.
    pub(super) fn pairs(&mut self, keys: &[&str]) -> Result<Pairs<'a>, Fault> {
        let what = format!("one of {} as key=value", keys.join(", "));
        let mut pairs: Vec<(Word<'a>, Word<'a>)> = Vec::new();
        while let Some(word) = self.peek() {
            self.next += 1;
            let (key, value) = word.split("=").ok_or_else(|| word.expected(&what))?;
            if !keys.contains(&key.text) {
                return Err(key.expected(&what));
            }
            if pairs.iter().any(|(known, _)| known.text == key.text) {
                return Err(key.fault(format!("{} stands there twice", key.text)));
            }
            pairs.push((key, value));
        }
        Ok(Pairs { pairs, end: self.end })
    }

    /// Nothing more may follow.
    pub(super) fn finish(&self) -> Result<(), Fault> {
        match self.peek() {
            None => Ok(()),
            Some(word) => Err(word.expected("the end of the line")),
        }
    }
}

/// `key=value` words.
pub(super) struct Pairs<'a> {
    pairs: Vec<(Word<'a>, Word<'a>)>,
    end: Word<'a>,
}

impl<'a> Pairs<'a> {
    pub(super) fn get(&self, key: &str) -> Option<Word<'a>> {
        self.pairs.iter().find(|(known, _)| known.text == key).map(|(_, value)| *value)
    }

    /// The value, read, if the key is there.
    pub(super) fn read<T>(
        &self,
        key: &str,
        read: impl FnOnce(&Word<'a>) -> Result<T, Fault>,
    ) -> Result<Option<T>, Fault> {
        self.get(key).as_ref().map(read).transpose()
    }

    /// A whole number, if the key is there.
    pub(super) fn number(&self, key: &str, min: u64, max: u64) -> Result<Option<u64>, Fault> {
        self.read(key, |word| word.number(min, max))
    }

    /// That something is missing.
    pub(super) fn missing(&self, what: &str) -> Fault {
        self.fault(&format!("{what} is missing"))
    }

    /// Something about all of them together.
    pub(super) fn fault(&self, what: &str) -> Fault {
        self.end.fault(what)
    }
}
