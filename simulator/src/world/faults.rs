//! What the scenario lets happen to the fleet, the network and the servers.
//!
//! **Invariant:** people and suppliers act through entries, as everybody does; machines and the
//! network change without a word to the servers.

use super::arrivals::Wish;
use super::log::Origin;
use super::machine::Session;
use super::{Turn, Violation, World};
use crate::scenario::{Happening, Target, sample};
use scheduler_core::command::{Actor, Command, SiteRtt};
use scheduler_core::id::NodeId;
use scheduler_core::node::{Eligibility, NodeSpec};
use scheduler_core::unit::DurationMs;

impl World<'_> {
    pub(super) fn happen(&mut self, at: usize) -> Result<(), Violation> {
        let Some((_, happening)) = self.scenario.events.get(at) else { return Ok(()) };
        match happening {
            Happening::Lose { target, repair } => {
                self.each(target, |world, at| world.lose(at, *repair));
            }
            Happening::Restore { target } => self.each(target, Self::switch_on),
            Happening::Cut { target } => self.each(target, Self::cut),
            Happening::Heal { target } => self.each(target, Self::heal),
            Happening::Reset { target } => self.each(target, Self::reset_stream),
            Happening::Clone { target, length } => {
                self.each(target, |world, at| world.clone_machine(at, *length));
            }
            Happening::Drain { target } => self.mark(target, Eligibility::Draining),
            Happening::Cordon { target } => self.mark(target, Eligibility::Cordoned),
            Happening::Uncordon { target } => self.mark(target, Eligibility::Eligible),
            Happening::Remove { target } => {
                self.order(target, |node| Command::RemoveNode { node, force: true });
            }
            Happening::Price { target, price } => {
                self.declare(target, |spec| spec.price = *price);
            }
            Happening::Lie { target, gpus_more } => self.declare(target, |spec| {
                let first = spec.gpus.first().cloned();
                let more = usize::from(*gpus_more);
                spec.gpus.extend(first.into_iter().cycle().take(more));
            }),
            Happening::Rtt { a, b, rtt } => {
                let told = SiteRtt::told(a.clone(), b.clone(), *rtt);
                self.propose(Actor::Operator, Command::SetSiteRtts(vec![told]));
            }
            Happening::KillLeader => self.lose_leader(true),
            Happening::CutLeader => self.cut_leader(),
            Happening::HealServers => self.heal_servers(),
            Happening::Clock { server, ahead_ms } => self.set_clock(*server, *ahead_ms),
            Happening::Scale { arrival, group, replicas } => {
                let (group, replicas) = (group.clone(), *replicas);
                self.wish(*arrival, Wish::Scale { group, replicas, number: at });
            }
            Happening::Cancel { arrival } => self.wish(*arrival, Wish::Cancel),
        }
        Ok(())
    }

    fn each(&mut self, target: &Target, mut act: impl FnMut(&mut Self, usize)) {
        for at in self.members(target) {
            act(self, at);
        }
    }

    /// Positions of the nodes that are meant, rising.
    fn members(&mut self, target: &Target) -> Vec<usize> {
        let nodes = &self.scenario.nodes;
        let is_meant = |node: &NodeSpec| match target {
            Target::Site(name) => node.place.site == *name,
            Target::Zone(name) => node.place.zone == *name,
            Target::Region(name) => node.place.region == *name,
            Target::Model(name) => node.gpus.iter().any(|gpu| gpu.model == *name),
            Target::Node(_) | Target::Some(_) | Target::All => true,
        };
        match target {
            Target::Node(at) => (*at < nodes.len()).then_some(*at).into_iter().collect(),
            Target::Some(count) => {
                let count = usize::try_from(*count).unwrap_or(usize::MAX);
                sample(count, nodes.len(), &mut self.dice.faults).into_iter().collect()
            }
            _ => (0..nodes.len()).filter(|at| is_meant(&nodes[*at])).collect(),
        }
    }

    fn lose(&mut self, at: usize, repair: Option<DurationMs>) {
        if !self.machines[at].on {
            return;
        }
        self.falls_silent(at, true);
        self.machines[at].die();
        if let Some(repair) = repair {
            let life = self.machines[at].life;
            self.push_after(repair, Turn::Restore { machine: at, life });
        }
    }

    pub(super) fn restore(&mut self, at: usize, life: u32) {
        if self.machines.get(at).is_some_and(|machine| machine.life == life) {
            self.switch_on(at);
        }
    }

    fn switch_on(&mut self, at: usize) {
        let machine = &mut self.machines[at];
        if !machine.on {
            (machine.on, machine.removed) = (true, false);
            self.come_back(at);
        }
    }

    fn cut(&mut self, at: usize) {
        if !std::mem::replace(&mut self.machines[at].cut, true) {
            self.falls_silent(at, false);
        }
    }

    fn heal(&mut self, at: usize) {
        let machine = &mut self.machines[at];
        if std::mem::replace(&mut machine.cut, false) && machine.session != Session::Open {
            self.come_back_from_afar(at);
        }
    }

    fn mark(&mut self, target: &Target, eligibility: Eligibility) {
        self.order(target, |node| Command::SetEligibility { node, eligibility });
    }

    /// An operator's command for every node, all in one record.
    fn order(&mut self, target: &Target, command: impl Fn(NodeId) -> Command) {
        let members = self.members(target);
        let ids = members.into_iter().filter_map(|at| self.machines[at].id);
        let commands: Vec<_> = ids.map(|id| (Actor::Operator, command(id))).collect();
        if !commands.is_empty() {
            self.send(commands, Origin::Anybody);
        }
    }

    /// The agents register again with what their suppliers say from now on.
    fn declare(&mut self, target: &Target, change: impl Fn(&mut NodeSpec)) {
        for at in self.members(target) {
            let known = self.declared.get(&at).unwrap_or(&self.scenario.nodes[at]);
            let mut spec = known.clone();
            change(&mut spec);
            self.declared.insert(at, spec);
            let machine = &self.machines[at];
            if machine.session == Session::Open {
                let era = machine.era;
                self.join(at, era);
            }
        }
    }
}
