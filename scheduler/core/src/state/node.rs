//! What happens to registered nodes: eligibility, status, removal; and the RTTs between sites.
//!
//! **Invariant:** only operators and the owner change eligibility or remove; only the scheduler
//! changes status. A node that must not run anything any more loses its replicas in the same entry.

use super::State;
use super::apply::Turn;
use crate::command::{NodeTransition, Outcome, Rejection, SiteCoordinate, SiteRtt};
use crate::event::Event;
use crate::id::{JobId, Name, NodeId, Rank, SiteId};
use crate::node::{Eligibility, NodeStatus};
use crate::topology::{Coordinate, Measured};
use crate::validate;

impl State {
    /// Draining loses the node's replicas at once: those jobs look for other nodes while this one
    /// stops them.
    pub(super) fn set_eligibility(
        &mut self,
        turn: &mut Turn<'_>,
        id: NodeId,
        eligibility: Eligibility,
    ) -> Result<Outcome, Rejection> {
        if self.owned_node(turn, id)?.eligibility == eligibility {
            return Ok(Outcome::Done { changed: false });
        }
        let now = turn.now;
        self.change_node(id, |node| {
            node.eligibility = eligibility;
            node.changed_at = now;
        });
        turn.event(Event::NodeChanged(id));
        match eligibility {
            Eligibility::Eligible => turn.event(Event::CapacityGrew),
            Eligibility::Cordoned => {}
            Eligibility::Draining => self.lose_node(turn, id),
        }
        Ok(Outcome::Done { changed: true })
    }

    /// Unknown nodes and other epochs are skipped: they have been decided about since.
    pub(super) fn node_statuses(
        &mut self,
        turn: &mut Turn<'_>,
        transitions: &[NodeTransition],
    ) -> Result<Outcome, Rejection> {
        turn.scheduler_only()?;
        let now = turn.now;
        let mut changed = false;
        for transition in transitions {
            let id = transition.node;
            let current = self.node(id).is_some_and(|node| {
                node.epoch == transition.epoch && node.status != transition.status
            });
            if !current {
                continue;
            }
            changed = true;
            self.change_node(id, |node| {
                node.status = transition.status;
                node.changed_at = now;
            });
            turn.event(Event::NodeChanged(id));
            match transition.status {
                NodeStatus::Up => turn.event(Event::CapacityGrew),
                NodeStatus::Down => self.lose_node(turn, id),
            }
        }
        Ok(Outcome::Done { changed })
    }

    pub(super) fn remove_node(
        &mut self,
        turn: &mut Turn<'_>,
        id: NodeId,
        force: bool,
    ) -> Result<Outcome, Rejection> {
        self.owned_node(turn, id)?;
        let live = self.usage(id).map_or(0, |usage| usage.live);
        if live > 0 && !force {
            let what = format!("{id} still runs {live} replicas; drain it first, or force");
            return Err(Rejection::Precondition { what });
        }
        self.lose_node(turn, id);
        self.drop_node(id);
        turn.event(Event::NodeChanged(id));
        Ok(Outcome::Done { changed: true })
    }

    fn lose_node(&mut self, turn: &mut Turn<'_>, id: NodeId) {
        let work: Vec<(JobId, Rank)> = self.node_work(id).collect();
        if !work.is_empty() {
            turn.event(Event::NodeWorkChanged(id));
            self.lose(turn, &work);
        }
    }

    pub(super) fn set_site_rtts(
        &mut self,
        turn: &mut Turn<'_>,
        rtts: &[SiteRtt],
    ) -> Result<Outcome, Rejection> {
        turn.scheduler_only()?;
        let mut pairs: Vec<(SiteId, SiteId, Measured)> = Vec::with_capacity(rtts.len());
        for (at, told) in rtts.iter().enumerate() {
            validate::rtt(told.rtt, || format!("rtts[{at}].rtt_us"))?;
            validate::rtt(told.rtt_high, || format!("rtts[{at}].rtt_us_high"))?;
            if told.rtt_high < told.rtt {
                let (field, high) = (format!("rtts[{at}].rtt_us_high"), told.rtt_high.0);
                let problem = format!("is {high}, below the usual rtt_us of {}", told.rtt.0);
                return Err(Rejection::Invalid { field, problem });
            }
            let a = self.known_site(&told.a, || format!("rtts[{at}].site_a"))?;
            let b = self.known_site(&told.b, || format!("rtts[{at}].site_b"))?;
            let (median, high, samples) = (told.rtt, told.rtt_high, told.samples);
            pairs.push((a, b, Measured { median, high, samples, at: turn.now }));
        }
        // Inside a site the standing value counts as known, so only real changes are written.
        let news = |&(a, b, told): &(SiteId, SiteId, Measured)| {
            let known = self.sites().measured(a, b).map(|known| (known.median, known.high));
            let inside = self.sites().spread(a, a).map(|inside| (inside.median, inside.high));
            known.or(inside.filter(|_| a == b)) != Some((told.median, told.high))
        };
        if !pairs.iter().any(news) {
            return Ok(Outcome::Done { changed: false });
        }
        let sites = self.change_sites();
        let mut changed = false;
        for (a, b, told) in pairs {
            changed |= sites.set_rtt(a, b, told);
        }
        turn.event(Event::SitesChanged);
        turn.event(Event::CapacityGrew);
        Ok(Outcome::Done { changed })
    }

    pub(super) fn set_site_coordinates(
        &mut self,
        turn: &mut Turn<'_>,
        list: &[SiteCoordinate],
    ) -> Result<Outcome, Rejection> {
        turn.scheduler_only()?;
        let mut found: Vec<(SiteId, Option<Coordinate>)> = Vec::with_capacity(list.len());
        for (at, told) in list.iter().enumerate() {
            if told.coordinate.is_some_and(|coordinate| !coordinate.is_sane()) {
                let problem = "lies outside the space of RTTs that are allowed".to_owned();
                let field = format!("coordinates[{at}]");
                return Err(Rejection::Invalid { field, problem });
            }
            let site = self.known_site(&told.site, || format!("coordinates[{at}].site"))?;
            found.push((site, told.coordinate));
        }
        let news = |&(site, coordinate): &(SiteId, Option<Coordinate>)| {
            self.sites().coordinate(site) != coordinate.as_ref()
        };
        if !found.iter().any(news) {
            return Ok(Outcome::Done { changed: false });
        }
        let sites = self.change_sites();
        let mut changed = false;
        for (site, coordinate) in found {
            changed |= sites.set_coordinate(site, coordinate);
        }
        turn.event(Event::SitesChanged);
        turn.event(Event::CapacityGrew);
        Ok(Outcome::Done { changed })
    }

    fn known_site(&self, name: &Name, field: impl FnOnce() -> String) -> Result<SiteId, Rejection> {
        self.sites().find(name).ok_or_else(|| {
            let problem = format!("is {name}, a site of which no node was ever registered");
            Rejection::Invalid { field: field(), problem }
        })
    }
}
