//! Traffic between servers: the client side, which the quorum uses as its transport, and the
//! service on the peer port.
//!
//! **Invariant:** bodies are opaque here; whoever calls or answers shows the cluster's name, its
//! own number and incarnation; callers show the cluster's secret and name the server they mean.

mod acquaint;
mod client;
mod service;

pub(crate) use acquaint::Acquaintances;
pub(crate) use client::Peers;
pub(crate) use service::PeerApi;

use crate::config::Cluster;
use acquaint::Incarnation;
use sha2::{Digest as _, Sha256};
use std::sync::Arc;
use subtle::ConstantTimeEq as _;
use tonic::metadata::{Ascii, MetadataMap, MetadataValue};

/// Largest message between servers, with room for its envelope.
const MESSAGE_BYTES_MAX: usize = 64 * 1024 * 1024 + 1024;
const CLUSTER_KEY: &str = "x-muster-cluster";
const SECRET_KEY: &str = "x-muster-cluster-secret";
const SERVER_KEY: &str = "x-muster-server";
const INCARNATION_KEY: &str = "x-muster-incarnation";

/// What servers of one cluster show each other, and whom this one has met.
#[derive(Clone)]
pub(crate) struct Passport {
    cluster: MetadataValue<Ascii>,
    secret: Option<MetadataValue<Ascii>>,
    server: MetadataValue<Ascii>,
    incarnation: MetadataValue<Ascii>,
    met: Arc<Acquaintances>,
}

/// How much a message tells of its sender.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Acquaintance {
    /// It speaks for the sender's log: the sender is remembered by it.
    Lasting,
    /// It is only a call.
    Passing,
}

impl Passport {
    /// This server's passport; `None` when its texts do not fit a header, which a checked
    /// configuration rules out.
    pub(crate) fn new(cluster: &Cluster, server: u64, met: Arc<Acquaintances>) -> Option<Self> {
        let secret = match &cluster.secret {
            Some(secret) => {
                let mut value: MetadataValue<Ascii> = secret.reveal().parse().ok()?;
                value.set_sensitive(true);
                Some(value)
            }
            None => None,
        };
        let incarnation = met.own().to_string().parse().ok()?;
        let cluster = cluster.id.as_str().parse().ok()?;
        Some(Self { cluster, secret, server: server.into(), incarnation, met })
    }

    /// Puts everything into a request.
    fn show(&self, metadata: &mut MetadataMap) {
        self.sign(metadata);
        if let Some(secret) = &self.secret {
            metadata.insert(SECRET_KEY, secret.clone());
        }
    }

    /// Puts into an answer who gave it.
    fn sign(&self, metadata: &mut MetadataMap) {
        metadata.insert(CLUSTER_KEY, self.cluster.clone());
        metadata.insert(SERVER_KEY, self.server.clone());
        metadata.insert(INCARNATION_KEY, self.incarnation.clone());
    }

    /// Whether a caller belongs to this cluster and is who its number says; else why not.
    fn check(&self, metadata: &MetadataMap, how: Acquaintance) -> Result<(), String> {
        self.check_secret(metadata)?;
        self.check_sender(metadata, how).map(drop)
    }

    /// As [`Passport::check`], for the answer of the server `expected`.
    fn check_answer(&self, metadata: &MetadataMap, expected: u64) -> Result<(), String> {
        let sender = self.check_sender(metadata, Acquaintance::Lasting)?;
        if sender == expected {
            return Ok(());
        }
        Err(format!("server {sender} answers in place of server {expected}"))
    }

    fn check_secret(&self, metadata: &MetadataMap) -> Result<(), String> {
        let Some(secret) = &self.secret else { return Ok(()) };
        let shown = metadata.get(SECRET_KEY).map_or(&[][..], |value| value.as_bytes());
        let digest = |bytes: &[u8]| -> [u8; 32] { Sha256::digest(bytes).into() };
        let same = digest(shown).ct_eq(&digest(secret.as_bytes()));
        if bool::from(same) {
            return Ok(());
        }
        Err("the caller does not know the cluster's secret".to_owned())
    }

    fn check_sender(&self, metadata: &MetadataMap, how: Acquaintance) -> Result<u64, String> {
        if metadata.get(CLUSTER_KEY) != Some(&self.cluster) {
            return Err("the other side belongs to another cluster".to_owned());
        }
        let text = |key| metadata.get(key).and_then(|value| value.to_str().ok());
        let server = text(SERVER_KEY).and_then(|text| text.parse().ok());
        let incarnation = text(INCARNATION_KEY).and_then(Incarnation::parse);
        let (Some(server), Some(incarnation)) = (server, incarnation) else {
            return Err("the other side does not say which server it is".to_owned());
        };
        let known = match how {
            Acquaintance::Lasting => self.met.meet(server, incarnation),
            Acquaintance::Passing => self.met.check(server, incarnation),
        };
        known.map(|()| server).map_err(|stranger| stranger.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Config, Secret};
    use Acquaintance::{Lasting, Passing};

    fn passport(secret: Option<&str>, server: u64) -> Passport {
        let dir = tempfile::tempdir().expect("a dir");
        let mut cluster = Config::dev(1, "/tmp/x").cluster;
        cluster.secret = secret.map(Secret::new);
        let met = Acquaintances::open(dir.path()).expect("opens");
        // Kept: a first meeting is written to it.
        std::mem::forget(dir);
        Passport::new(&cluster, server, Arc::new(met)).expect("fits")
    }

    fn shown(passport: &Passport) -> MetadataMap {
        let mut metadata = MetadataMap::new();
        passport.show(&mut metadata);
        metadata
    }

    #[test]
    fn only_the_own_cluster_gets_in() {
        let open = passport(None, 1);
        let ours = passport(Some("0123456789abcdef"), 2);
        let near = passport(Some("0123456789abcdeF"), 3);
        let peer = passport(Some("0123456789abcdef"), 4);
        assert_eq!(ours.check(&shown(&peer), Passing), Ok(()));
        assert!(ours.check(&shown(&near), Passing).is_err());
        assert!(ours.check(&shown(&open), Passing).is_err());
        assert_eq!(open.check(&shown(&peer), Passing), Ok(()));
        assert!(open.check(&MetadataMap::new(), Passing).is_err());
        assert!(!format!("{:?}", shown(&ours)).contains("0123456789abcdef"));
    }

    #[test]
    fn a_server_with_new_data_under_an_old_number_is_a_stranger() {
        let ours = passport(None, 1);
        let (before, after) = (passport(None, 2), passport(None, 2));
        assert_eq!(ours.check(&shown(&after), Passing), Ok(()), "nobody was met yet");
        assert_eq!(ours.check(&shown(&before), Lasting), Ok(()));
        for how in [Passing, Lasting] {
            let refusal = ours.check(&shown(&after), how).expect_err("is another one");
            assert!(refusal.contains("new id"), "{refusal}");
        }
        let mut answer = MetadataMap::new();
        before.sign(&mut answer);
        assert_eq!(ours.check_answer(&answer, 2), Ok(()));
        assert!(ours.check_answer(&answer, 3).is_err());
        assert!(answer.get(SECRET_KEY).is_none(), "answers show no secret");
    }
}
