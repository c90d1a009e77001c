//! Scenarios as text, to be read aloud: one statement a line, `#` begins a remark.
//!
//! ```text
#![doc = include_str!("grammar.txt")]
//! ```
//! **Invariant:** a text is understood whole or refused with line, column and what was expected.

mod expect;
mod fleet;
mod line;
mod load;
mod submit;
mod watch;

pub use expect::Expectation;
pub use line::Fault;

use super::{Happening, Latency, Scenario, SiteNetwork, Target};
use crate::observe::{All, Observer};
use crate::world::{self, Report, Violation};
use fleet::Fleet;
use line::{Pairs, Word, Words};
use load::Load;
use rand::SeedableRng;
use rand::rngs::StdRng;
use scheduler_core::command::Quota;
use scheduler_core::duty::office::Reserve;
use scheduler_core::id::{Name, TenantId};
use scheduler_core::job::Priority;
use scheduler_core::plan::Policy;
use scheduler_core::unit::{DurationMs, TimeMs};
use submit::{Jobs, Times};
use watch::Watch;

/// How statements are written, for people.
pub const GRAMMAR: &str = include_str!("grammar.txt");
/// Longest text: far more than anybody would read aloud.
pub const TEXT_BYTES_MAX: usize = 1 << 20;
/// Most jobs of one line: beyond any day that we build for, and within a machine's memory.
const ARRIVALS_MAX: u64 = 10_000_000;
/// Most seeds of one file.
const SEEDS_MAX: u64 = 1_000_000;
/// Fleets up to this size are recounted after every event when nothing else is said; larger ones
/// after every so many.
const CHECK_ALWAYS_NODES: usize = 32;
const CHECK_EVERY: u64 = 10_000;

/// A scenario of a file, for any seed.
#[derive(Clone, Debug)]
pub struct Script {
    /// All but what depends on the seed.
    base: Scenario,
    check_every: Option<u64>,
    jobs: Vec<Jobs>,
    loads: Vec<Load>,
    /// What the tenant of all jobs of a name wants of them.
    wishes: Vec<(TimeMs, Name, Wish)>,
    expectations: Vec<Expectation>,
    seeds: u64,
}

/// What a tenant wants of a job.
#[derive(Clone, Debug)]
enum Wish {
    Cancel,
    Scale { group: Name, replicas: u32 },
}

/// What came of one run of a script.
#[derive(Debug)]
pub struct Verdict {
    pub seed: u64,
    /// Of a run without a finding.
    pub report: Option<Report>,
    /// What was not as it should be; empty = all was.
    pub failures: Vec<String>,
}

fn default_name() -> Name {
    scheduler_core::fixture::entry::name("job")
}

impl Script {
    /// Understands a text.
    ///
    /// # Errors
    /// The first thing that cannot be understood.
    pub fn parse(text: &str) -> Result<Self, Fault> {
        let mut script = Self {
            base: Scenario::default(),
            check_every: None,
            jobs: Vec::new(),
            loads: Vec::new(),
            wishes: Vec::new(),
            expectations: Vec::new(),
            seeds: 1,
        };
        if text.len() > TEXT_BYTES_MAX {
            let what =
                format!("the text has {} bytes; at most {TEXT_BYTES_MAX} are allowed", text.len());
            return Err(Fault { line: 1, column: 1, what });
        }
        let mut last = 0;
        for (number, line) in (1..).zip(text.lines()) {
            let mut words = Words::new(line, number);
            if !words.is_empty() {
                script.statement(line, &mut words)?;
                words.finish()?;
            }
            last = number;
        }
        if script.base.nodes.is_empty() {
            let what = "there is no fleet: expected a line `fleet …`".to_owned();
            return Err(Fault { line: last + 1, column: 1, what });
        }
        Ok(script)
    }

    /// Seeds that the text asks for, from 0.
    pub fn seeds(&self) -> u64 {
        self.seeds
    }

    pub fn expectations(&self) -> &[Expectation] {
        &self.expectations
    }

    /// The scenario for a seed. `replay` is the command that runs it again.
    pub fn scenario(&self, seed: u64, replay: String) -> Scenario {
        self.for_seed(seed, replay).0
    }

    /// Runs the scenario for a seed and judges it; `also` watches too.
    pub fn evaluate(&self, seed: u64, replay: String, also: &mut dyn Observer) -> Verdict {
        let (scenario, names) = self.for_seed(seed, replay);
        let mut watch = Watch::new(names, scenario.arrivals.iter().map(|arrival| arrival.at));
        let run = world::run(&scenario, &mut All(vec![&mut watch, also]));
        self.judge(seed, run, &watch)
    }

    fn judge(&self, seed: u64, run: Result<Report, Violation>, watch: &Watch) -> Verdict {
        match run {
            Err(violation) => Verdict { seed, report: None, failures: vec![violation.to_string()] },
            Ok(report) => {
                let failure = |expectation: &Expectation| {
                    let why = expectation.judge(&report, watch).err()?;
                    Some(format!("{}: {why}", expectation.text))
                };
                let failures = self.expectations.iter().filter_map(failure).collect();
                Verdict { seed, report: Some(report), failures }
            }
        }
    }

    fn for_seed(&self, seed: u64, replay: String) -> (Scenario, Vec<(Name, usize)>) {
        let mut scenario = Scenario { seed, replay, ..self.base.clone() };
        let many = scenario.nodes.len() > CHECK_ALWAYS_NODES;
        scenario.check_every = self.check_every.unwrap_or(if many { CHECK_EVERY } else { 1 });
        let mut rng = StdRng::seed_from_u64(seed ^ 0x5eed);
        let mut names = Vec::new();
        for jobs in &self.jobs {
            let first = scenario.arrivals.len();
            scenario.arrivals.extend(jobs.arrivals(&mut rng));
            let end = scenario.arrivals.len();
            names.push((jobs.name.clone(), end));
            for (at, _, wish) in self.wishes.iter().filter(|(_, name, _)| *name == jobs.name) {
                let happening = |arrival| match wish.clone() {
                    Wish::Cancel => Happening::Cancel { arrival },
                    Wish::Scale { group, replicas } => {
                        Happening::Scale { arrival, group, replicas }
                    }
                };
                scenario.events.extend((first..end).map(|arrival| (*at, happening(arrival))));
            }
        }
        for load in &self.loads {
            scenario.arrivals.extend(load.arrivals(seed).into_iter().flatten());
            names.push((load.name.clone(), scenario.arrivals.len()));
        }
        (scenario, names)
    }

    fn statement(&mut self, line: &str, words: &mut Words<'_>) -> Result<(), Fault> {
        let heads = [
            "fleet", "start", "commit", "network", "servers", "policy", "check", "until", "at",
            "every", "about", "expect", "eval", "tenant", "load", "planner", "reserve",
        ];
        match words.one_of(&heads)?.0 {
            0 => {
                let Fleet { nodes, rtts } = Fleet::parse(words)?;
                self.base.nodes.extend(nodes);
                self.base.rtts.extend(rtts);
            }
            1 => self.start(words)?,
            2 => self.base.commit = words.word("a spread of times")?.latency()?,
            3 => self.network(words)?,
            4 => self.servers(words)?,
            5 => {
                let word = words.word("the name of a policy")?;
                self.base.policy =
                    word.text.parse::<Policy>().map_err(|error| word.fault(error))?;
            }
            6 => self.check_every = words.pairs(&["every"])?.number("every", 1, u64::MAX)?,
            7 => self.base.until = Some(time(words)?),
            8 => self.at(words)?,
            9 => self.every(words, false)?,
            10 => {
                words.one_of(&["every"])?;
                self.every(words, true)?;
            }
            11 => {
                let text = line.split('#').next().unwrap_or_default();
                self.expectations.push(Expectation::parse(text, words)?);
            }
            13 => self.tenant(words)?,
            14 => self.loads.push(Load::parse(words)?),
            15 => self.planner(words)?,
            16 => self.reserve(words)?,
            _ => {
                let pairs = words.pairs(&["seeds"])?;
                let seeds = pairs.number("seeds", 1, SEEDS_MAX)?;
                self.seeds = seeds.ok_or_else(|| pairs.missing("seeds="))?;
            }
        }
        Ok(())
    }

    fn tenant(&mut self, words: &mut Words<'_>) -> Result<(), Fault> {
        let tenant = TenantId(words.word("the name of a tenant")?.name()?);
        let pairs = words.pairs(&["gpus", "waiting"])?;
        let gpus = pairs.number("gpus", 0, submit::GPUS_MAX)?;
        let waiting = pairs.number("waiting", 0, u64::from(u32::MAX))?;
        let quota = Quota {
            gpu_milli_max: gpus.map_or(u64::MAX, |gpus| gpus * 1_000),
            pending_jobs_max: waiting.and_then(|jobs| u32::try_from(jobs).ok()).unwrap_or(u32::MAX),
            priority_max: Priority::MAX,
        };
        self.base.tenants.push((tenant, quota));
        Ok(())
    }

    fn reserve(&mut self, words: &mut Words<'_>) -> Result<(), Fault> {
        let pairs = words.pairs(&["after", "most"])?;
        let after = pairs.read("after", Word::duration)?;
        let after = after.ok_or_else(|| pairs.missing("after="))?;
        let most = pairs.number("most", 1, u64::from(Reserve::MOST))?;
        let most = most.and_then(|most| u32::try_from(most).ok()).unwrap_or(Reserve::MOST_USUAL);
        self.base.reserve = Reserve { after, most };
        Ok(())
    }

    fn start(&mut self, words: &mut Words<'_>) -> Result<(), Fault> {
        let pairs = words.pairs(&["image", "process", "failing", "stragglers", "times", "stop"])?;
        let start = &mut self.base.start;
        set(&mut start.image, pairs.read("image", Word::latency)?);
        set(&mut start.process, pairs.read("process", Word::latency)?);
        set(&mut start.stop, pairs.read("stop", Word::latency)?);
        set(&mut start.failing_ppm, pairs.read("failing", Word::share)?);
        set(&mut start.straggling_ppm, pairs.read("stragglers", Word::share)?);
        let times = pairs.number("times", 1, 10_000)?;
        set(&mut start.straggling_times, times.and_then(|times| u32::try_from(times).ok()));
        Ok(())
    }

    fn planner(&mut self, words: &mut Words<'_>) -> Result<(), Fault> {
        let pairs = words.pairs(&["plan", "replica", "node"])?;
        let planner = &mut self.base.planner;
        set(&mut planner.plan_ns, pairs.read("plan", Word::work)?);
        set(&mut planner.replica_ns, pairs.read("replica", Word::work)?);
        set(&mut planner.node_ns, pairs.read("node", Word::work)?);
        Ok(())
    }

    fn network(&mut self, words: &mut Words<'_>) -> Result<(), Fault> {
        let pairs = words.pairs(&["site", "home", "one_way", "loss", "resend"])?;
        let one_way = pairs.read("one_way", Word::latency)?;
        let loss = pairs.read("loss", Word::share)?;
        let network = &mut self.base.network;
        if let Some(word) = pairs.get("site") {
            let site = site(&self.base.nodes, &word)?;
            let one_way = one_way.unwrap_or(network.one_way);
            let loss_ppm = loss.unwrap_or(network.loss_ppm);
            network.sites.push(SiteNetwork { site, one_way, loss_ppm });
            return Ok(());
        }
        if let Some(word) = pairs.get("home") {
            network.home = Some(site(&self.base.nodes, &word)?);
        }
        set(&mut network.one_way, one_way);
        set(&mut network.loss_ppm, loss);
        set(&mut network.resend, pairs.read("resend", Word::duration)?);
        Ok(())
    }

    fn servers(&mut self, words: &mut Words<'_>) -> Result<(), Fault> {
        let pairs = words.pairs(&["count", "election", "lease"])?;
        let servers = &mut self.base.servers;
        let count = pairs.number("count", 1, 9)?;
        set(&mut servers.count, count.and_then(|count| u32::try_from(count).ok()));
        set(&mut servers.election, pairs.read("election", Word::latency)?);
        set(&mut servers.lease, pairs.read("lease", Word::duration)?);
        Ok(())
    }

    fn every(&mut self, words: &mut Words<'_>, about: bool) -> Result<(), Fault> {
        let word = words.word("a time between two jobs")?;
        let gap = match about {
            true => Latency::Exponential { mean: word.duration()? },
            false => word.latency()?,
        };
        words.one_of(&["from"])?;
        let from = time(words)?;
        words.one_of(&["until"])?;
        let until = time(words)?;
        words.one_of(&["submit"])?;
        let jobs = Jobs::parse(Times::Every { gap, from, until }, words)?;
        let times = until.since(from).0 / gap.typical().0.max(1);
        if times.saturating_mul(jobs.count) > ARRIVALS_MAX {
            let what = format!("more than {ARRIVALS_MAX} jobs would come of this line");
            return Err(word.fault(what));
        }
        self.jobs.push(jobs);
        Ok(())
    }

    fn at(&mut self, words: &mut Words<'_>) -> Result<(), Fault> {
        let at = time(words)?;
        let verbs = [
            "submit", "cancel", "kill", "rtt", "price", "lie", "lose", "restore", "cut", "heal",
            "drain", "cordon", "uncordon", "remove", "clone", "scale", "clock", "reset",
        ];
        let verb = words.one_of(&verbs)?.0;
        let happening = match verb {
            0 => {
                self.jobs.push(Jobs::parse(Times::Once(at), words)?);
                return Ok(());
            }
            1 => {
                let name = self.known_jobs(words)?.name.clone();
                self.wishes.push((at, name, Wish::Cancel));
                return Ok(());
            }
            15 => return self.scale(at, words),
            16 => self.clock(words)?,
            8 if words.skip("leader") => return self.cut_leader(at, words),
            9 if words.skip("leader") => Happening::HealServers,
            2 => {
                words.one_of(&["leader"])?;
                Happening::KillLeader
            }
            3 => {
                let a = site(&self.base.nodes, &words.word("a site")?)?;
                let b = site(&self.base.nodes, &words.word("another site")?)?;
                Happening::Rtt { a, b, rtt: words.word("a round trip")?.rtt()? }
            }
            _ => {
                let target = self.target(words)?;
                match verb {
                    4 => {
                        let pairs = words.pairs(&["usd"])?;
                        let price = pairs.read("usd", Word::price)?;
                        let price = price.ok_or_else(|| pairs.missing("usd="))?;
                        Happening::Price { target, price }
                    }
                    5 => {
                        let pairs = words.pairs(&["gpus_more"])?;
                        Happening::Lie { target, gpus_more: more(&pairs)? }
                    }
                    6 => {
                        let repair = words.skip("for").then(|| words.word("a time")?.duration());
                        Happening::Lose { target, repair: repair.transpose()? }
                    }
                    7 => Happening::Restore { target },
                    8 => return self.cut(at, target, words),
                    9 => Happening::Heal { target },
                    10 => Happening::Drain { target },
                    11 => Happening::Cordon { target },
                    12 => Happening::Uncordon { target },
                    13 => Happening::Remove { target },
                    17 => Happening::Reset { target },
                    _ => {
                        words.one_of(&["for"])?;
                        let length = words.word("a time")?.duration()?;
                        Happening::Clone { target, length }
                    }
                }
            }
        };
        self.base.events.push((at, happening));
        Ok(())
    }

    /// Jobs of a line above.
    fn known_jobs(&self, words: &mut Words<'_>) -> Result<&Jobs, Fault> {
        let word = words.word("the name of jobs")?;
        let name = word.name()?;
        let jobs = self.jobs.iter().find(|jobs| jobs.name == name);
        jobs.ok_or_else(|| word.fault(format!("no job above is named {name}")))
    }

    fn scale(&mut self, at: TimeMs, words: &mut Words<'_>) -> Result<(), Fault> {
        let jobs = self.known_jobs(words)?;
        let pairs = words.pairs(&["replicas"])?;
        let missing = || pairs.missing("replicas=");
        let (group, min, max) = jobs.group().ok_or_else(missing)?;
        let replicas = pairs.number("replicas", min.into(), max.into())?.ok_or_else(missing)?;
        let wish = Wish::Scale { group, replicas: u32::try_from(replicas).unwrap_or(max) };
        let name = jobs.name.clone();
        self.wishes.push((at, name, wish));
        Ok(())
    }

    fn clock(&mut self, words: &mut Words<'_>) -> Result<Happening, Fault> {
        let word = words.word("server=N")?;
        let expected = || word.fault("expected server=N");
        let (key, number) = word.split("=").ok_or_else(expected)?;
        key.choice(&["server"])?;
        let last = u64::from(self.base.servers.count.saturating_sub(1));
        let server = u32::try_from(number.number(0, last)?).unwrap_or(0);
        let behind = words.one_of(&["ahead", "behind"])?.0 == 1;
        let DurationMs(by) = words.word("a time")?.duration()?;
        let by = i64::try_from(by).unwrap_or(i64::MAX);
        Ok(Happening::Clock { server, ahead_ms: if behind { -by } else { by } })
    }

    fn cut_leader(&mut self, at: TimeMs, words: &mut Words<'_>) -> Result<(), Fault> {
        self.base.events.push((at, Happening::CutLeader));
        if words.skip("for") {
            let time = words.word("a time")?.duration()?;
            self.base.events.push((at.after(time), Happening::HealServers));
        }
        Ok(())
    }

    /// A cut may say how long it lasts, unless its nodes are drawn: others would be healed.
    fn cut(&mut self, at: TimeMs, target: Target, words: &mut Words<'_>) -> Result<(), Fault> {
        if words.peek().is_some_and(|word| word.text == "for") {
            let word = words.word("for")?;
            let time = words.word("a time")?.duration()?;
            if matches!(target, Target::Some(_)) {
                return Err(word.fault("nodes that are drawn cannot be healed together"));
            }
            let heal = Happening::Heal { target: target.clone() };
            self.base.events.push((at.after(time), heal));
        }
        self.base.events.push((at, Happening::Cut { target }));
        Ok(())
    }

    fn target(&self, words: &mut Words<'_>) -> Result<Target, Fault> {
        if words.skip("all") {
            return Ok(Target::All);
        }
        let what = "site=, zone=, region=, model=, node=, nodes= or all";
        let word = words.word(what)?;
        let Some((key, value)) = word.split("=") else {
            return Err(word.fault(format!("expected {what}, found {:?}", word.text)));
        };
        let nodes = &self.base.nodes;
        let last = nodes.len().saturating_sub(1) as u64;
        let target = match key.text {
            "site" => Target::Site(value.name()?),
            "zone" => Target::Zone(value.name()?),
            "region" => Target::Region(value.name()?),
            "model" => Target::Model(value.name()?),
            "node" => Target::Node(usize::try_from(value.number(0, last)?).unwrap_or(0)),
            "nodes" => {
                let count = value.number(1, last + 1)?;
                Target::Some(u32::try_from(count).unwrap_or(u32::MAX))
            }
            _ => return Err(key.fault(format!("expected {what}, found {:?}", word.text))),
        };
        let known = nodes.iter().any(|node| match &target {
            Target::Site(name) => node.place.site == *name,
            Target::Zone(name) => node.place.zone == *name,
            Target::Region(name) => node.place.region == *name,
            Target::Model(name) => node.gpus.iter().any(|gpu| gpu.model == *name),
            Target::Node(_) | Target::Some(_) | Target::All => true,
        });
        if known { Ok(target) } else { Err(value.fault("no node of the fleet above is there")) }
    }
}

fn set<T>(place: &mut T, value: Option<T>) {
    if let Some(value) = value {
        *place = value;
    }
}

fn time(words: &mut Words<'_>) -> Result<TimeMs, Fault> {
    let DurationMs(ms) = words.word("a time")?.duration()?;
    Ok(TimeMs(ms))
}

fn more(pairs: &Pairs<'_>) -> Result<u8, Fault> {
    let more = pairs.number("gpus_more", 1, 64)?.ok_or_else(|| pairs.missing("gpus_more="))?;
    Ok(u8::try_from(more).unwrap_or(u8::MAX))
}

fn site(nodes: &[scheduler_core::node::NodeSpec], word: &Word<'_>) -> Result<Name, Fault> {
    let name = word.name()?;
    let known = nodes.iter().any(|node| node.place.site == name);
    if known { Ok(name) } else { Err(word.fault("no node of the fleet above is at this site")) }
}

#[cfg(test)]
mod tests;
