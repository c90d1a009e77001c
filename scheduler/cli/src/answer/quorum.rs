//! The quorum as an answer: one row per server, asked of every server itself.

use super::word;
use crate::output::Answer;
use crate::output::table::Table;
use crate::output::text::{bytes, grouped};
use proto::v1;
use serde::Serialize;
use std::collections::BTreeMap;

/// The quorum.
#[derive(Clone, Debug, Serialize)]
pub struct Quorum {
    /// Name of the cluster.
    pub cluster_id: String,
    /// Leader that the newest term's answers name; 0 = none.
    pub leader_id: u64,
    /// Highest term seen.
    pub term: u64,
    /// Servers by number.
    pub servers: Vec<Server>,
}

/// One server of the quorum.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Server {
    /// Number.
    pub server_id: u64,
    /// Address for clients.
    pub api_address: String,
    /// Address for other servers.
    pub peer_address: String,
    /// Whether it votes.
    pub voter: bool,
    /// LEADER, FOLLOWER, CANDIDATE, LEARNER, SILENT when it did not answer, or OUT when it is no
    /// member (any more).
    pub role: String,
    /// Term it is in.
    pub term: Option<u64>,
    /// Last entry in its log.
    pub last_log_index: Option<u64>,
    /// Last entry it knows committed.
    pub committed_index: Option<u64>,
    /// Last entry it applied.
    pub applied_index: Option<u64>,
    /// Its newest snapshot.
    pub snapshot_index: Option<u64>,
    /// Entries it is behind, as the leader sees it.
    pub lag: Option<u64>,
    /// Milliseconds since it last answered the leader.
    pub last_contact_ms: Option<u64>,
    /// Bytes of its log on disk.
    pub log_bytes: Option<u64>,
    /// Agent sessions that end there.
    pub sessions: Option<u32>,
    /// Version of its program.
    pub version: Option<String>,
    /// Hash of its state, where asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub state_hash: Option<String>,
    /// Index of that hash.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub state_hash_index: Option<u64>,
    /// Why it did not answer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

impl Quorum {
    /// Puts the answers of several servers together; `silent` are addresses that gave none, with the reason.
    pub fn merge(answers: Vec<v1::GetQuorumStatusResponse>, silent: &[(String, String)]) -> Self {
        let term = answers.iter().map(|a| a.term).max().unwrap_or(0);
        let newest = answers.iter().filter(|a| a.term == term);
        let leader_id = newest.clone().map(|a| a.leader_id).max().unwrap_or(0);
        // The leader's list of members is the one that counts; a follower's may lag.
        let source = newest.clone().find(|a| a.server_id == leader_id).or(newest.clone().next());
        let mut servers: BTreeMap<u64, Server> = BTreeMap::new();
        for member in source.map(|a| a.servers.as_slice()).unwrap_or_default() {
            let from_leader =
                source.is_some_and(|a| a.server_id == leader_id && member.server_id != leader_id);
            servers.insert(
                member.server_id,
                Server {
                    server_id: member.server_id,
                    api_address: member.api_address.clone(),
                    peer_address: member.peer_address.clone(),
                    voter: member.voter,
                    role: "SILENT".to_owned(),
                    lag: from_leader.then_some(member.lag),
                    last_contact_ms: from_leader.then_some(member.last_contact_ms),
                    error: silent
                        .iter()
                        .find(|(a, _)| a.ends_with(&member.api_address))
                        .map(|(_, why)| why.clone()),
                    ..Server::default()
                },
            );
        }
        let source_is_empty = servers.is_empty();
        let cluster_id = answers.first().map(|a| a.cluster_id.clone()).unwrap_or_default();
        for answer in answers {
            let listed = servers.contains_key(&answer.server_id) || source_is_empty;
            let role = match listed {
                true => word(answer.role().as_str_name(), "SERVER_ROLE_"),
                // What it takes itself for says nothing any more.
                false => "OUT".to_owned(),
            };
            let server = servers.entry(answer.server_id).or_default();
            server.server_id = answer.server_id;
            server.role = role;
            server.term = Some(answer.term);
            server.last_log_index = Some(answer.last_log_index);
            server.committed_index = Some(answer.committed_index);
            server.applied_index = Some(answer.applied_index);
            server.snapshot_index = Some(answer.snapshot_index);
            server.log_bytes = Some(answer.log_bytes);
            server.sessions = Some(answer.sessions);
            server.version = Some(answer.version);
            server.error = None;
            if !answer.state_hash.is_empty() {
                server.state_hash = Some(answer.state_hash);
                server.state_hash_index = Some(answer.state_hash_index);
            }
        }
        Self { cluster_id, leader_id, term, servers: servers.into_values().collect() }
    }

    /// Addresses of members that were not asked yet.
    pub fn unasked(&self, asked: &[String]) -> Vec<String> {
        let known = |address: &str| asked.iter().any(|a| a.ends_with(address));
        self.servers
            .iter()
            .map(|s| s.api_address.clone())
            .filter(|a| !a.is_empty() && !known(a))
            .collect()
    }
}

impl Answer for Quorum {
    fn tables(&self, wide: bool) -> Vec<Table> {
        let leader =
            if self.leader_id == 0 { "none".to_owned() } else { self.leader_id.to_string() };
        let title = format!("Cluster {}, term {}, leader {leader}", self.cluster_id, self.term);
        let columns = [
            ">SERVER",
            "ADDRESS",
            "ROLE",
            "VOTER",
            ">TERM",
            ">LAST",
            ">COMMITTED",
            ">APPLIED",
            ">SNAPSHOT",
            ">LAG",
            ">CONTACT",
            ">LOG",
            ">SESSIONS",
            "VERSION",
            "PEER ADDRESS",
        ];
        let columns = if wide { &columns[..] } else { &columns[..13] };
        let mut table = Table::new(columns).titled(title);
        let mut notes = Table::fields();
        let number = |n: Option<u64>| n.map_or_else(|| "-".to_owned(), |n| n.to_string());
        for s in &self.servers {
            let mut cells = vec![
                s.server_id.to_string(),
                s.api_address.clone(),
                s.role.clone(),
                if s.voter { "yes" } else { "no" }.to_owned(),
                number(s.term),
                number(s.last_log_index),
                number(s.committed_index),
                number(s.applied_index),
                number(s.snapshot_index),
                number(s.lag),
                s.last_contact_ms.map_or_else(|| "-".to_owned(), |ms| format!("{ms}ms")),
                s.log_bytes.map_or_else(|| "-".to_owned(), bytes),
                s.sessions.map_or_else(|| "-".to_owned(), |n| grouped(u64::from(n))),
            ];
            if wide {
                cells.push(s.version.clone().unwrap_or_else(|| "-".to_owned()));
                cells.push(s.peer_address.clone());
            }
            table.row(cells);
            if let Some(error) = &s.error {
                notes.field(&format!("server {}", s.server_id), error);
            }
            if let (Some(hash), Some(index)) = (&s.state_hash, s.state_hash_index) {
                notes.field(&format!("server {}", s.server_id), format!("state {hash} at {index}"));
            }
        }
        if notes.is_empty() { vec![table] } else { vec![table, notes] }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::output::{Format, render};

    fn member(id: u64, lag: u64) -> v1::ServerStatus {
        v1::ServerStatus {
            server_id: id,
            peer_address: format!("h:771{id}"),
            api_address: format!("h:770{id}"),
            voter: true,
            lag,
            last_contact_ms: 12,
            ..Default::default()
        }
    }

    fn answer(id: u64, role: v1::ServerRole) -> v1::GetQuorumStatusResponse {
        v1::GetQuorumStatusResponse {
            server_id: id,
            cluster_id: "dev".into(),
            role: role.into(),
            term: 3,
            leader_id: 1,
            last_log_index: 40,
            committed_index: 40,
            applied_index: 40,
            servers: (1..=3).map(|n| member(n, n)).collect(),
            log_bytes: 2_048,
            sessions: 500,
            ..Default::default()
        }
    }

    #[test]
    fn every_server_has_a_row_also_a_silent_one() {
        let answers = vec![answer(2, v1::ServerRole::Follower), answer(1, v1::ServerRole::Leader)];
        let quorum =
            Quorum::merge(answers, &[("http://h:7703".into(), "connection refused".into())]);
        let text = render(Format::Table, &quorum).expect("render");
        assert_eq!(
            text,
            "Cluster dev, term 3, leader 1\n\
             SERVER  ADDRESS  ROLE      VOTER  TERM  LAST  COMMITTED  APPLIED  SNAPSHOT  LAG  CONTACT     LOG  SESSIONS\n     \
                  1  h:7701   LEADER    yes       3    40         40       40         0    -        -  2.0KiB       500\n     \
                  2  h:7702   FOLLOWER  yes       3    40         40       40         0    2     12ms  2.0KiB       500\n     \
                  3  h:7703   SILENT    yes       -     -          -        -         -    3     12ms       -         -\n\
             \nserver 3  connection refused\n"
        );
    }

    #[test]
    fn a_server_that_was_removed_is_out_whatever_it_says_of_itself() {
        let mut leader = answer(1, v1::ServerRole::Leader);
        leader.servers.truncate(2);
        // It may have heard of it or not.
        for role in [v1::ServerRole::Follower, v1::ServerRole::Learner] {
            let quorum = Quorum::merge(vec![leader.clone(), answer(3, role)], &[]);
            let roles: Vec<_> = quorum.servers.iter().map(|s| s.role.as_str()).collect();
            assert_eq!(roles, ["LEADER", "SILENT", "OUT"]);
            assert!(quorum.servers[2].peer_address.is_empty());
        }
    }

    #[test]
    fn members_not_asked_are_found() {
        let quorum = Quorum::merge(vec![answer(1, v1::ServerRole::Leader)], &[]);
        assert_eq!(quorum.unasked(&["http://h:7701".into()]), ["h:7702", "h:7703"]);
    }
}
